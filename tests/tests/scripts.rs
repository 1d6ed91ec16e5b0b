//! The shell scripts of the tree, and what is packaged for FreeBSD: that `shellcheck` has nothing to say, that the services begin
//! in an order, and that the package has what it says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVICES: [&str; 6] = ["vmmd", "vmmd_console", "vmmd_influx", "vmmd_log", "vmmd_stats", "vmmd_tls"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn service(name: &str) -> String {
    fs::read_to_string(root().join("packaging/freebsd/rc.d").join(name)).unwrap()
}

/// The words of a line such as `# REQUIRE: ...`.
fn words(script: &str, keyword: &str) -> Vec<String> {
    let lines = script.lines().filter_map(|line| line.strip_prefix("# ")?.strip_prefix(keyword)?.strip_prefix(": "));
    lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn shellcheck_has_nothing_to_say() {
    let packaged = ["packaging/freebsd", "packaging/debian"].map(files_in);
    let of_packaging = packaged.into_iter().flatten().filter(|path| {
        let is_script = fs::read_to_string(path).is_ok_and(|text| text.starts_with("#!"));
        is_script || path.extension().is_some_and(|it| it == "subr")
    });
    let scripts: Vec<_> =
        files_in(".ci").into_iter().chain(of_packaging).chain(files_in("packaging/freebsd/rc.d")).collect();
    assert!(scripts.len() >= 16, "{scripts:?}");
    match Command::new("shellcheck").arg("--severity=warning").args(&scripts).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(_) => fulmar_tests::skips::skip("shellcheck_has_nothing_to_say", "shellcheck is not installed"),
    }
}

#[test]
fn services_begin_in_an_order() {
    let mut after = BTreeMap::new();
    for name in SERVICES {
        let script = service(name);
        assert_eq!(words(&script, "PROVIDE"), [name]);
        assert!(words(&script, "KEYWORD").contains(&"shutdown".to_owned()), "{name} is stopped with the host");
        after.insert(name, words(&script, "REQUIRE"));
    }
    // vmmd tells these two of what it starts, and the others ask it.
    assert!(["vmmd_console", "vmmd_log"].iter().all(|it| after["vmmd"].contains(&(*it).to_owned())));
    let mut begun: BTreeSet<&str> = BTreeSet::new();
    while begun.len() < SERVICES.len() {
        let ours = |it: &str| SERVICES.contains(&it);
        let ready = |name: &&str| after[*name].iter().all(|it| !ours(it) || begun.contains(it.as_str()));
        let next = SERVICES.into_iter().find(|name| !begun.contains(name) && ready(name));
        begun.insert(next.unwrap_or_else(|| panic!("they wait for each other: {after:?}")));
    }
    let services: Vec<_> = files_in("packaging/freebsd/rc.d");
    assert_eq!(services.len(), SERVICES.len(), "{services:?}");
}

/// What a service starts, by a stand-in for FreeBSD's rc.subr that prints it. `conf` is what stands in rc.conf.
fn command_of(name: &str, conf: &str) -> String {
    let folder = fulmar_tests::system::make_folder("freebsd-rc").unwrap();
    let subr = folder.join("rc.subr");
    let print = "printf '%s\\n' \"$command $rc_flags $command_args\" \"$rcvar $pidfile $procname $start_precmd\"";
    let stand_in = format!(
        "load_rc_config() {{ {conf}\n:; }}\nrun_rc_command() {{ eval \"rc_flags=\\$${{name}}_flags\"; {print}; }}\n"
    );
    fs::write(&subr, stand_in).unwrap();
    let shared = root().join("packaging/freebsd/fulmar.subr");
    let script = service(name)
        .replace("/etc/rc.subr", subr.to_str().unwrap())
        .replace("/usr/local/libexec/fulmar.subr", shared.to_str().unwrap());
    fs::write(folder.join(name), script).unwrap();
    let output = Command::new("sh").arg("-eu").arg(folder.join(name)).arg("start").output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    fs::remove_dir_all(folder).unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn services_start_their_programs_with_what_rc_conf_says() {
    let folders = "--run /var/run/albatross --state /var/db/albatross";
    let expected = format!(
        "/usr/sbin/daemon -f -R 5 -S -T vmmd -t vmmd -P /var/run/vmmd.pid -p /var/run/vmmd.child.pid /usr/local/sbin/vmmd \
         {folders} --user fulmar vmmd_enable /var/run/vmmd.pid /usr/sbin/daemon vmmd_prepare"
    );
    assert_eq!(command_of("vmmd", ""), expected);
    // What is given to the program does not go to daemon(8).
    let log = command_of("vmmd_log", "vmmd_log_flags='--days 90' fulmar_run=/r fulmar_state=/s");
    assert!(log.contains("/usr/local/sbin/vmmd_log --run /r --state /s --days 90 vmmd_log_enable"), "{log}");
    let influx = command_of("vmmd_influx", "fulmar_user=reporter");
    assert!(influx.contains("-u reporter /usr/local/sbin/vmmd_influx --config "), "{influx}");
    for name in SERVICES {
        assert!(command_of(name, "").ends_with("/usr/sbin/daemon fulmar_folders") || name == "vmmd", "{name}");
    }
}

#[test]
fn services_give_only_options_that_there_are() {
    for name in SERVICES {
        let line = service(name).lines().find(|line| line.starts_with("fulmar_daemon ")).unwrap().to_owned();
        let source = root().join("daemons").join(name.strip_prefix("vmmd_").unwrap_or(name)).join("src/options.rs");
        let help = fs::read_to_string(source).unwrap();
        assert!(help.contains("\n  --check "), "{name}: `service {name} check` is for all");
        for option in line.split_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("\n  {option} ")), "{name} has no {option}");
        }
    }
}

#[test]
fn the_package_has_what_it_says() {
    let plist = fs::read_to_string(root().join("packaging/freebsd/pkg-plist")).unwrap();
    let listed: Vec<_> = plist.lines().map(str::to_owned).collect();
    assert!(listed.is_sorted());
    for service in SERVICES {
        for file in [format!("sbin/{service}"), format!("etc/rc.d/{service}")] {
            assert!(listed.contains(&file), "{file}");
        }
    }
    let manifest = fs::read_to_string(root().join("packaging/freebsd/manifest")).unwrap();
    assert!(manifest.contains(&format!("\nversion: \"{}\"\n", env!("CARGO_PKG_VERSION"))));
    // Programs of another system have the same names.
    let work = fulmar_tests::system::make_folder("freebsd-stage").unwrap();
    let programs = work.join("programs");
    fs::create_dir(&programs).unwrap();
    for program in listed.iter().filter_map(|file| file.strip_prefix("sbin/").or(file.strip_prefix("bin/"))) {
        fs::write(programs.join(program), "").unwrap();
    }
    let stage = root().join("packaging/freebsd/stage");
    let staged = Command::new(stage).arg(&programs).arg(work.join("stage")).status().unwrap();
    assert!(staged.success());
    let plist = fs::read_to_string(work.join("stage.plist")).unwrap();
    let staged: Vec<_> = plist.lines().collect();
    for file in &staged {
        assert!(work.join("stage/usr/local").join(file).is_file(), "{file}");
    }
    assert!(
        listed.iter().all(|file| staged.contains(&file.as_str())) && staged.contains(&"share/doc/fulmar/freebsd.md")
    );
    fs::remove_dir_all(work).unwrap();
}
