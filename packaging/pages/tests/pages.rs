//! The pages and completions as a package has them: that nothing is wrong with them, and that each says what its program says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use fulmar_tests::siege::programs;
use fulmar_tests::skips::skip;

/// Every program, and the section of its page.
const PROGRAMS: [(&str, u8); 13] = [
    ("vmmc_local", 1),
    ("vmmc_remote", 1),
    ("vmmc_bistro", 1),
    ("vmmp_ca", 1),
    ("vmmp_request", 1),
    ("vmmd", 8),
    ("vmmd_console", 8),
    ("vmmd_stats", 8),
    ("vmmd_log", 8),
    ("vmmd_tls", 8),
    ("vmmd_tls_inetd", 8),
    ("vmmd_influx", 8),
    ("fulmar-tender", 8),
];

/// The programs and their pages, written once for all tests.
fn written(test: &str) -> Option<(PathBuf, PathBuf)> {
    static OUT: OnceLock<PathBuf> = OnceLock::new();
    let programs = programs(test)?;
    let out = OUT.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        let _ = fs::remove_dir_all(&out);
        let mut pages = Command::new(env!("CARGO_BIN_EXE_fulmar-pages"));
        let written = pages.arg(&programs).arg(&out).args(["1.2.3", "2026-01-02"]).output().unwrap();
        assert!(written.status.success(), "{}", said(&written));
        out
    });
    Some((programs, out.clone()))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// All pages.
fn pages(out: &Path) -> Vec<PathBuf> {
    let sections = ["man1", "man5", "man8"].map(|section| fs::read_dir(out.join("man").join(section)).unwrap());
    let mut pages: Vec<_> = sections.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    pages
}

/// The long options that a text names.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '-'));
    words.filter(|it| it.len() > 2 && it.starts_with("--") && !it.starts_with("---")).map(str::to_owned).collect()
}

fn help(programs: &Path, words: &[&str]) -> String {
    said(&Command::new(programs.join(words[0])).args(&words[1..]).arg("--help").output().unwrap())
}

#[test]
fn every_option_stands_on_the_page_of_its_program() {
    let Some((programs, out)) = written("every_option_stands_on_the_page_of_its_program") else { return };
    let text = |page: &str| {
        let text = fs::read_to_string(out.join("man").join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        ["\\fB", "\\fI", "\\fR"].iter().fold(text, |text, font| text.replace(font, "")).replace("\\-", "-")
    };
    for (program, section) in PROGRAMS {
        let (page, says) = (text(&format!("man{section}/{program}.{section}")), help(&programs, &[program]));
        let (has, wanted) = (options(&page), options(&says));
        assert!(!wanted.is_empty() && wanted.is_subset(&has), "{program}: {:?}", wanted.difference(&has));
        assert!(page.contains("Fulmar 1.2.3") && page.contains("2026-01-02"), "{program}");
        // A page for each subcommand.
        let subcommands = says.split("\nCommands:\n").nth(1).and_then(|it| it.split("\n\n").next()).unwrap_or_default();
        let names = subcommands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        for name in names.filter(|name| !name.is_empty() && *name != "help") {
            let page = text(&format!("man1/{program}-{name}.1"));
            let (has, wanted) = (options(&page), options(&help(&programs, &[program, name])));
            assert!(wanted.is_subset(&has), "{program} {name}: {:?}", wanted.difference(&has));
        }
    }
    let count = pages(&out).len();
    assert!(count > 70, "{count} pages");
}

#[test]
fn every_setting_stands_on_the_page_of_the_files() {
    let Some((programs, out)) = written("every_setting_stands_on_the_page_of_the_files") else { return };
    let page = fs::read_to_string(out.join("man/man5/fulmar-settings.5")).unwrap().replace("\\-", "-");
    for (file, program) in [("vmmd", "vmmd"), ("console", "vmmd_console"), ("stats", "vmmd_stats"), ("log", "vmmd_log")]
        .into_iter()
        .chain([("tls", "vmmd_tls")])
    {
        let part = page.split("\n.SH ").find(|it| it.starts_with(&format!("/etc/fulmar/{file}.toml"))).unwrap();
        let named: BTreeSet<_> = part.lines().filter_map(|line| line.strip_prefix(".B ")).map(str::to_owned).collect();
        let mut wanted =
            options(help(&programs, &[program]).replace("as in:", "\n").split("\nexample:").next().unwrap());
        for other in ["--config", "--check", "--help", "--version"] {
            assert!(wanted.remove(other));
        }
        assert_eq!(named, wanted.iter().map(|it| it[2..].to_owned()).collect(), "{file}");
    }
    // The other file has names of its own: those that its reader knows.
    let config = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../daemons/influx/src/config.rs"));
    let config = config.unwrap();
    let page = fs::read_to_string(out.join("man/man5/fulmar-influx.5")).unwrap().replace("\\-", "-");
    let mut count = 0;
    for section in config.split("#[serde(deny_unknown_fields").skip(1) {
        let section = section.split_once("]\nstruct ").unwrap().1;
        let fields = section.split("\n}").next().unwrap().lines().filter(|line| !line.trim().starts_with('#'));
        for name in fields.skip(1).filter_map(|line| Some(line.trim().split_once(": ")?.0.replace('_', "-"))) {
            let is_section = page.contains(&format!("[{name}]"));
            assert!(is_section || page.contains(&format!("\n.B {name}\n")), "{name}");
            count += 1;
        }
    }
    assert!(count >= 16, "{count}");
}

#[test]
fn every_key_of_a_manifest_stands_on_its_page() {
    let Some((_, out)) = written("every_key_of_a_manifest_stands_on_its_page") else { return };
    let page = fs::read_to_string(out.join("man/man5/fulmar-deploy.5")).unwrap().replace("\\-", "-");
    let told = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy.md")).unwrap();
    let told = told.split("\n## The manifest\n").nth(1).unwrap().split("\n### Images\n").next().unwrap();
    let keys: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(keys.len() >= 19, "{keys:?}");
    for key in keys {
        let heading = if key.starts_with('[') { ".SS" } else { ".B" };
        assert!(page.contains(&format!("\n{heading} {key}\n")), "{key}");
    }
}

#[test]
fn mandoc_and_man_have_nothing_to_say() {
    let test = "mandoc_and_man_have_nothing_to_say";
    let Some((_, out)) = written(test) else { return };
    let pages = pages(&out);
    match Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).args(&pages).output() {
        // One paragraph too many is no fault of a page, and how clap_mangen writes lists.
        Ok(output) => {
            let wrong: Vec<_> = said(&output)
                .lines()
                .filter(|it| !it.contains("skipping paragraph macro"))
                .map(str::to_owned)
                .collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        Err(_) => skip(test, "mandoc is not installed"),
    }
    for page in &pages {
        let mut man = Command::new("man");
        man.args(["--warnings", "--local-file"]).arg(page).env("LC_ALL", "C.UTF-8").env("MANWIDTH", "100");
        let Ok(output) = man.stdin(Stdio::null()).output() else {
            return skip(test, "man is not installed");
        };
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", page.display(), said(&output));
    }
}

/// A shell that reads them has nothing to say, and finds a subcommand.
#[test]
fn shells_take_the_completions() {
    let test = "shells_take_the_completions";
    let Some((_, out)) = written(test) else { return };
    let bash = "source \"$1\"; COMP_WORDS=(vmmc_local cre); COMP_CWORD=1; _vmmc_local vmmc_local cre vmmc_local; \
                [ \"${COMPREPLY[*]}\" = create ]";
    let zsh = "autoload -Uz compinit; fpath=(\"$1\" $fpath); compinit -u -D; whence _vmmc_local >/dev/null && zsh -n \"$1\"/_*";
    let fish = "source $argv[1]; complete -C 'vmmc_local cre' | string match -q 'create*'";
    for (shell, script, file) in
        [("bash", bash, "bash/vmmc_local"), ("zsh", zsh, "zsh"), ("fish", fish, "fish/vmmc_local.fish")]
    {
        let mut command = Command::new(shell);
        command.args(["-c", script]).args((shell != "fish").then_some(shell)).arg(out.join(file));
        // What a user has configured is not asked for.
        match command.env("HOME", &out).stdin(Stdio::null()).output() {
            Ok(output) => assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {}", said(&output)),
            Err(_) => skip(test, &format!("{shell} is not installed")),
        }
    }
}
