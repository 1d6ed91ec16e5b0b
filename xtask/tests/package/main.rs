//! The package for Debian, really installed, upgraded and removed: in a copy of this machine's root that vanishes with the test. A
//! unikernel that runs meanwhile does not notice.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod agreement;
mod copy;
mod live;
mod machine;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fulmar_tests::siege::{pid_of, programs};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{is_gone, wait_until};

use crate::copy::{Daemon, Tender, in_copy};

const OLD: &str = "0.1.0~old";
const NEW: &str = "0.1.0~upgrade";

/// Services, what they start, and how much systemd thinks is open in them at most: 100 is everything.
const SERVICES: [(&str, &str, u32); 7] = [
    ("vmmd.service", "vmmd", 50),
    ("vmmd_console.service", "vmmd_console", 15),
    ("vmmd_log.service", "vmmd_log", 15),
    ("vmmd_stats.service", "vmmd_stats", 25),
    ("vmmd_tls.service", "vmmd_tls", 25),
    ("vmmd_tls_inetd@.service", "vmmd_tls_inetd", 25),
    ("vmmd_influx.service", "vmmd_influx", 25),
];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").canonicalize().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The package of this version.
fn package(programs: &Path, version: &str) -> PathBuf {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.args(["deb", "--version", version]).env("FULMAR_PROGRAMS", programs.canonicalize().unwrap());
    let output = xtask.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap())
}

/// An old and a new package, made once for all tests.
fn packages(test: &str) -> Option<&'static (PathBuf, PathBuf)> {
    static PACKAGES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let programs = programs(test)?;
    if !is_there("dpkg") || !is_there("dpkg-deb") {
        skip(test, "dpkg is not installed");
        return None;
    }
    Some(PACKAGES.get_or_init(|| (package(&programs, OLD), package(&programs, NEW))))
}

/// The lines of a unit that set this.
fn settings_of(unit: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(packaging().join("systemd").join(unit)).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_unikernel_runs_on_while_the_package_is_upgraded_and_removed() {
    let test = "a_unikernel_runs_on_while_the_package_is_upgraded_and_removed";
    let Some((old, new)) = packages(test) else { return };
    let image = programs(test).unwrap().join("guests/hello.spt");
    in_copy(test, |copy| {
        let installed = copy.install(old);
        assert!(installed.contains("to begin: systemctl enable --now vmmd"), "{installed}");
        let users = fs::read_to_string(copy.root.join("etc/passwd")).unwrap();
        let uid = |name: &str| -> u32 {
            let line = users.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split(':').nth(2).unwrap().parse().unwrap()
        };
        for (folder, owner, mode) in [
            ("run/albatross", 0, 0o755),
            ("run/albatross/util", uid("fulmar"), 0o755),
            ("var/lib/albatross", uid("fulmar"), 0o750),
            ("var/lib/albatross/log", uid(&settings_of("vmmd_log.service", "User")[0]), 0o700),
        ] {
            let found = fs::metadata(copy.root.join(folder)).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (owner, mode), "{folder}");
        }

        let others = ["vmmd_console", "vmmd_log", "vmmd_stats"].map(|it| copy.start(it));
        let vmmd = copy.start_vmmd();
        fs::copy(&image, copy.root.join("tmp/hello.spt")).unwrap();
        copy.run(&["vmmc_local", "create", "web", "/tmp/hello.spt", "--mem", "16"]);
        let tender = Tender(copy.tender());
        let program = || fs::read_link(format!("/proc/{}/exe", tender.0)).unwrap().display().to_string();
        assert!(program().ends_with("/usr/sbin/fulmar-tender"), "{}", program());

        // Each daemon, under its user, reaches what it must.
        let says = |words: &[&str], text: &str| {
            let output = || said(&copy.command(&[&["timeout", "2", "vmmc_local"], words].concat()).output().unwrap());
            wait_until(|| output().contains(text))
        };
        assert!(says(&["console", "web"], "Hello, World!"), "{}", others[0].said());
        assert!(says(&["log"], ":web: created unikernel"), "{}", others[1].said());
        assert!(says(&["stats", "web"], "web"), "{}", others[2].said());

        // What the administrator says stays said.
        let settings = copy.root.join("etc/fulmar/log.toml");
        fs::write(&settings, "days = 7\n").unwrap();
        let upgraded = copy.install(new);
        assert!(upgraded.contains(&format!("({NEW}) over ({OLD})")), "{upgraded}");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "days = 7\n");
        // As postinst does it where systemd runs.
        others.into_iter().for_each(Daemon::end);
        let others = ["vmmd_console", "vmmd_log", "vmmd_stats"].map(|it| copy.start(it));
        vmmd.end();
        let vmmd = copy.start_vmmd();
        assert_eq!((copy.tender(), copy.runs()), (tender.0, (1, true)), "{}", vmmd.said());
        assert!(program().ends_with("(deleted)"), "it is the old tender that runs: {}", program());
        assert!(copy.run(&["vmmc_local", "--version"]).starts_with("vmmc_local "));

        vmmd.end();
        let removed = copy.dpkg(&["--remove", "fulmar"]);
        assert!(removed.contains(&format!("unikernels run on, as these processes: {}\n", tender.0)), "{removed}");
        assert!(removed.contains(&format!("kill {}\n", tender.0)) && removed.contains("rm -r /var/lib/albatross"));
        assert!(!is_gone(pid_of(tender.0)) && settings.exists() && !copy.root.join("usr/sbin/vmmd").exists());
        let purged = copy.dpkg(&["--purge", "fulmar"]);
        assert!(purged.contains("rm -r /var/lib/albatross") && purged.contains("the users fulmar,"), "{purged}");
        assert!(!settings.exists() && !is_gone(pid_of(tender.0)));
        others.into_iter().for_each(Daemon::end);

        // Installed again, it finds what runs.
        copy.install(new);
        let vmmd = copy.start_vmmd();
        assert_eq!((copy.tender(), copy.runs()), (tender.0, (1, true)), "{}", vmmd.said());
        copy.run(&["vmmc_local", "destroy", "web"]);
        assert!(wait_until(|| is_gone(pid_of(tender.0))));
        vmmd.end();
        let removed = copy.dpkg(&["--purge", "fulmar"]);
        assert!(!removed.contains("unikernels run on"), "{removed}");
    });
}

/// Where systemd runs, it is told: by a stand-in that notes what it was told.
#[test]
fn a_service_manager_is_told_of_what_comes_and_goes() {
    let test = "a_service_manager_is_told_of_what_comes_and_goes";
    let Some((old, new)) = packages(test) else { return };
    in_copy(test, |copy| {
        fs::create_dir_all(copy.root.join("run/systemd/system")).unwrap();
        let (systemctl, notes) = (copy.root.join("usr/bin/systemctl"), copy.root.join("tmp/notes"));
        // Not by way of the file that is there: it may be a link.
        let _ = fs::remove_file(&systemctl);
        fs::write(&systemctl, "#!/bin/sh\necho \"$*\" >>/tmp/notes\n[ \"$1\" != try-restart ]\n").unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let told = || {
            let text = fs::read_to_string(&notes).unwrap_or_default();
            fs::write(&notes, "").unwrap();
            // Other packages have triggers.
            text.lines()
                .filter(|line| line.contains("vmmd") || *line == "daemon-reload")
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        copy.install(old);
        assert_eq!(told(), ["daemon-reload"], "nothing begins by itself");
        // One that does not come back is no reason to leave a package half installed.
        let upgraded = copy.install(new);
        assert!(upgraded.contains("not all daemons have started again"), "{upgraded}");
        let restarts = "try-restart vmmd_console.service vmmd_log.service vmmd.service vmmd_stats.service vmmd_tls.service \
                        vmmd_influx.service";
        assert_eq!(told().iter().filter(|it| *it != "daemon-reload").collect::<Vec<_>>(), [restarts]);
        copy.dpkg(&["--remove", "fulmar"]);
        let told = told();
        for (unit, ..) in SERVICES {
            let line = match unit.split_once('@') {
                Some((name, _)) => format!("--quiet stop {name}@*.service"),
                None => format!("--quiet disable --now {unit}"),
            };
            assert!(told.contains(&line), "{unit}: {told:?}");
        }
        assert_eq!(told.last().map(String::as_str), Some("daemon-reload"));
    });
}

/// systemd reads the units, and says how much is open in them.
#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let test = "systemd_has_nothing_to_say_about_the_units";
    let Some((_, package)) = packages(test) else { return };
    if !is_there("systemd-analyze") {
        return skip(test, "systemd is not installed");
    }
    in_copy(test, |copy| {
        copy.install(package);
        let units = copy.root.join("usr/lib/systemd/system");
        let names = fs::read_dir(units).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| name.starts_with("vmmd")) {
            let unit = format!("/usr/lib/systemd/system/{}", name.replace('@', "@1"));
            let output = copy.command(&["systemd-analyze", "verify", "--man=no", &unit]).output().unwrap();
            // What is older than the package asks for knows less; and what it says of other units is not about ours.
            let ours = |line: &&str| line.contains("vmmd") && !line.contains("DelegateSubgroup");
            let wrong = said(&output).lines().filter(ours).map(str::to_owned).collect::<Vec<_>>();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        for (unit, _, most) in SERVICES {
            let unit = unit.replace('@', "@1");
            let threshold = format!("--threshold={most}");
            let words = ["systemd-analyze", "security", "--offline=true", "--no-pager", &threshold, &unit];
            let output = copy.command(&words).output().unwrap();
            assert!(output.status.success(), "{unit} is more open than {most}: {}", said(&output));
        }
    });
}
