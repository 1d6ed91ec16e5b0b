//! What is packaged agrees with the programs: settings files, services, users, folders.

use std::fs;
use std::process::Command;

use fulmar_tests::siege::programs;
use fulmar_tests::system::make_folder;

use crate::{SERVICES, packaging, said, settings_of};

/// The settings files, and whose they are.
const SETTINGS: [(&str, &str); 5] =
    [("vmmd", "vmmd"), ("console", "vmmd_console"), ("stats", "vmmd_stats"), ("log", "vmmd_log"), ("tls", "vmmd_tls")];

/// What an option in the help of a program says in brackets.
fn default_of(help: &str, name: &str) -> Option<String> {
    let line = help.lines().find(|line| line.starts_with(&format!("  --{name} ")))?;
    Some(line.rsplit_once('[')?.1.strip_suffix(']')?.to_owned())
}

#[test]
fn the_settings_files_have_every_setting_and_its_default() {
    let Some(programs) = programs("the_settings_files_have_every_setting_and_its_default") else { return };
    let folder = make_folder("settings").unwrap();
    for (file, program) in SETTINGS {
        let text = fs::read_to_string(packaging().join("etc").join(format!("{file}.toml"))).unwrap();
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{file}: all is a comment");
        let set: Vec<_> = text.lines().filter_map(|it| it.strip_prefix('#')).filter(|it| it.contains(" = ")).collect();
        let help = said(&Command::new(programs.join(program)).arg("--help").output().unwrap());
        // This package is for Linux.
        let options = help.lines().filter(|line| !line.contains("(FreeBSD)"));
        let options = options.filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
        let mut wanted: Vec<_> = options.filter(|it| !["config", "check", "help", "version"].contains(it)).collect();
        let mut named: Vec<_> = set.iter().map(|line| line.split(" = ").next().unwrap()).collect();
        wanted.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, wanted, "{file}.toml and {program} --help");
        for line in &set {
            let (name, value) = line.split_once(" = ").unwrap();
            let default = default_of(&help, name).unwrap();
            // Some defaults are said in words.
            let agrees = value.trim_matches('"') == default || default.contains(' ');
            assert!(agrees, "{file}: {name} is {value}, and {default} in the help");
        }
        // As it is read.
        let path = folder.join("settings.toml");
        let without_user: Vec<_> = set.iter().filter(|line| !line.starts_with("user ")).copied().collect();
        fs::write(&path, without_user.join("\n")).unwrap();
        let checked = Command::new(programs.join(program)).arg("--check").arg("--config").arg(&path).output().unwrap();
        assert!(!said(&checked).contains("settings.toml"), "{}", said(&checked));
    }
    let text = fs::read_to_string(packaging().join("etc/influx.toml")).unwrap();
    let set: Vec<_> = text.lines().filter_map(|it| it.strip_prefix('#')).filter(|it| !it.starts_with(' ')).collect();
    let path = folder.join("influx.toml");
    fs::write(&path, set.join("\n")).unwrap();
    let checked =
        Command::new(programs.join("vmmd_influx")).arg("--check").arg("--config").arg(&path).output().unwrap();
    let lines = said(&checked);
    assert!(!lines.contains("unknown field") && !lines.contains("TOML"), "{lines}");
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_services_agree_with_their_programs() {
    let Some(programs) = programs("the_services_agree_with_their_programs") else { return };
    for (unit, program, _) in SERVICES {
        let start = settings_of(unit, "ExecStart");
        assert_eq!(start[0].trim_start_matches('-'), format!("/usr/sbin/{program}"));
        if program == "vmmd" {
            // It begins as root, and what it started goes on without it.
            assert!(settings_of(unit, "User").is_empty());
            assert_eq!(settings_of(unit, "KillMode"), ["process"]);
            assert_eq!(settings_of(unit, "DelegateSubgroup"), ["vmmd"]);
            // It keeps what it says that it keeps.
            let source = fs::read_to_string(packaging().join("../host/src/renounce.rs")).unwrap();
            let mut kept: Vec<_> =
                source.split("name: \"CAP_").skip(1).map(|it| it.split('"').next().unwrap()).collect();
            kept.sort_unstable();
            let given = settings_of(unit, "CapabilityBoundingSet")[0].replace("CAP_", "");
            assert_eq!(given.split(' ').collect::<Vec<_>>(), kept);
            continue;
        }
        let user = match program {
            // It says so in its configuration alone.
            "vmmd_influx" => "fulmar-influx".to_owned(),
            _ => {
                let help = said(&Command::new(programs.join(program)).arg("--help").output().unwrap());
                default_of(&help, "user").unwrap().split(' ').next().unwrap().to_owned()
            }
        };
        assert_eq!(settings_of(unit, "User"), [user.as_str()], "{unit}");
        let users = fs::read_to_string(packaging().join("sysusers.conf")).unwrap();
        assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))), "{user}");
        assert_eq!(settings_of(unit, "Group"), ["fulmar"], "{unit}");
        assert_eq!(settings_of(unit, "CapabilityBoundingSet"), [""], "{unit}");
    }
    // What a service may write belongs to its user.
    let folders = fs::read_to_string(packaging().join("tmpfiles.conf")).unwrap();
    for (folder, unit) in [("log", "vmmd_log.service"), ("revoked", "vmmd_tls.service")] {
        let path = format!("/var/lib/albatross/{folder}");
        let line = folders.lines().find(|line| line.contains(&format!(" {path} "))).unwrap();
        assert_eq!(line.split_whitespace().nth(3), settings_of(unit, "User").first().map(String::as_str), "{path}");
        assert!(settings_of(unit, "ReadWritePaths")[0].split(' ').any(|it| it == path), "{unit}");
    }
    // Sockets lie where clients look.
    for (program, socket) in fulmar_tests::managed::DAEMONS {
        let there = settings_of(&format!("{program}.socket"), "ListenStream");
        assert_eq!(there, [format!("/run/albatross/util/{socket}")]);
    }
    for unit in fs::read_dir(packaging().join("systemd")).unwrap() {
        let name = unit.unwrap().file_name().into_string().unwrap();
        let known = SERVICES
            .iter()
            .any(|(unit, ..)| *unit == name || unit.replace(['@'], "").replace(".service", ".socket") == name);
        assert!(known, "{name} is tested by nobody");
    }
}
