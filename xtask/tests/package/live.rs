//! The services, under a systemd of their own: as `docs/install.md` has people type it, until a reboot and the removal.

use std::fs;

use fulmar_tests::pages::blocks;
use fulmar_tests::siege::programs;
use fulmar_tests::skips::skip;
use fulmar_tests::system::wait_until;

use crate::copy::in_copy;
use crate::machine::Machine;
use crate::{NEW, SERVICES, packages, settings_of};

/// Services that are there whenever somebody has asked them something.
const ASKED: [&str; 4] = ["vmmd", "vmmd_console", "vmmd_log", "vmmd_stats"];

/// Lines of the shell on the page, in order.
fn page() -> Vec<String> {
    blocks("docs/install.md", "sh").iter().flat_map(|block| block.lines()).map(str::to_owned).collect()
}

/// A line as it can be typed where apt has no network, and not all that the package depends on is as new as it asks for.
fn offline(line: &str) -> String {
    match line.split_once(' ') {
        // It has made the package.
        Some(("cargo", "xtask deb")) => "true".into(),
        Some(("apt", rest)) => format!("dpkg --force-depends --{rest}"),
        _ => line.into(),
    }
}

/// The process of each unikernel, and since when it runs.
fn processes(machine: &Machine<'_>) -> String {
    machine.sh("cat /run/albatross/units/*[0-9]")
}

/// Runs as its unit says, without privileges, below a filter.
fn assert_confined(machine: &Machine<'_>, program: &str) {
    let unit = format!("{program}.service");
    let pid = machine.show(&unit, "MainPID");
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")]);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()), "{unit}: {status}");
    if let Some(user) = settings_of(&unit, "User").first() {
        assert_eq!(field("Uid"), machine.run(&["id", "--user", user]).trim(), "{unit}");
        assert_eq!(field("CapEff"), "0000000000000000", "{unit}");
    }
}

#[test]
fn the_services_run_under_a_systemd_of_their_own() {
    let test = "the_services_run_under_a_systemd_of_their_own";
    let Some((old, new)) = packages(test) else { return };
    let guests = programs(test).unwrap().join("guests");
    in_copy(test, |copy| {
        let home = copy.root.join("root");
        let version = env!("CARGO_PKG_VERSION");
        fs::create_dir_all(home.join("target/debian")).unwrap();
        fs::copy(old, home.join(format!("target/debian/fulmar_{version}_amd64.deb"))).unwrap();
        fs::copy(new, home.join("new.deb")).unwrap();
        for guest in ["hello.spt", "echo.spt"] {
            fs::copy(guests.join(guest), home.join(guest)).unwrap();
        }
        let machine = match Machine::boot(copy) {
            Ok(machine) => machine,
            Err(why) => return skip(test, &format!("no machine can be booted here: {why}")),
        };

        // As the page has it, until it comes to leaving.
        let lines = page();
        let (leave, come) = lines.split_last().unwrap();
        assert_eq!((leave.as_str(), come.len()), ("apt remove fulmar", 11), "{lines:?}");
        for line in come {
            machine.sh(&offline(line));
        }
        // Unikernels of both kinds that the unit must leave room for: one that needs nothing, one with a tap on a bridge.
        machine
            .sh("ip link add service type bridge && ip address add 10.0.0.1/24 dev service && ip link set service up");
        machine.sh("vmmc_local create web hello.spt --mem 16");
        // It sees the bridge within seconds.
        machine.expect(
            "sleep 0.3; vmmc_local create echo echo.spt --mem 16 --net service --arg=--ipv4=10.0.0.2/24 2>&1",
            "created",
        );
        machine.expect("timeout 1 vmmc_local console web", "Hello, World!");
        machine.expect("timeout 1 bash -c 'exec 3<>/dev/tcp/10.0.0.2/7; echo said >&3; head -n 1 <&3'", "said");
        machine.expect("vmmc_local log", ":web: created unikernel");
        machine.expect("vmmc_local stats --count 1 web", ":web");
        machine.expect("curl --silent 127.0.0.1:9102/metrics", "fulmar_unikernel_up{unikernel=\":web\"} 1");
        // Where this kernel tells root of it, the host half may ask under its unit too, and `vmmd_stats` may read what it says.
        if !machine.sh("vmmd --check 2>&1").contains("what unikernels read and write is not measured") {
            let counted = "fulmar_unikernel_block_written_bytes_total{unikernel=\":web\"}";
            machine.expect("curl --silent 127.0.0.1:9102/metrics", counted);
        }
        let remote = "vmmc_bistro --ca ca/cacert.pem --cert ca/cacert.pem --key ca/ca.key localhost info";
        machine.expect(remote, ":web");
        for program in ASKED.into_iter().chain(["vmmd_tls", "vmmd_influx"]) {
            assert_confined(&machine, program);
        }
        machine.sh("systemctl reload vmmd_tls");
        machine.expect("journalctl --unit vmmd_tls", "the certificates were read again");
        machine.expect(remote, ":web");
        // A process for each client instead.
        machine.sh(
            "systemctl disable --now vmmd_tls.service vmmd_tls.socket && systemctl enable --now vmmd_tls_inetd.socket",
        );
        machine.expect(remote, ":web");
        machine.sh("systemctl disable --now vmmd_tls_inetd.socket && systemctl enable --now vmmd_tls");
        machine.expect(remote, ":web");

        // Whatever becomes of the daemons, the unikernels run on.
        let before = processes(&machine);
        let mains = || ASKED.map(|program| machine.show(program, "MainPID"));
        machine.sh("systemctl restart vmmd");
        machine.expect("vmmc_local info", ":web");
        assert_eq!(processes(&machine), before);
        machine.sh("systemctl stop vmmd.service vmmd.socket");
        assert_eq!(machine.sh("pgrep --count fulmar-tender").trim(), "2");
        machine.sh("systemctl start vmmd.socket");
        machine.expect("vmmc_local info", ":web");
        let killed = mains();
        for program in ASKED {
            machine.sh(&format!("systemctl kill --kill-whom=main --signal=KILL {program}"));
            machine.expect(&format!("systemctl is-active {program}"), "active");
        }
        assert!(wait_until(|| mains().iter().zip(&killed).all(|(now, then)| now != then && now != "0")), "{killed:?}");
        machine.expect("vmmc_local info", ":web");
        assert_eq!(processes(&machine), before);

        // One that stands still is ended, and started anew.
        for program in ["vmmd", "vmmd_log"] {
            let folder = copy.root.join(format!("etc/systemd/system/{program}.service.d"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("test.conf"), "[Service]\nWatchdogSec=6\nTimeoutAbortSec=1\n").unwrap();
            machine.sh(&format!("systemctl daemon-reload; systemctl restart {program}"));
            let stopped = machine.show(program, "MainPID");
            machine.sh(&format!("kill -STOP {stopped}"));
            machine.expect(&format!("journalctl --unit {program}"), "Watchdog timeout");
            assert!(wait_until(|| ![stopped.as_str(), "0"].contains(&machine.show(program, "MainPID").as_str())));
        }
        machine.expect("vmmc_local info", ":web");
        assert_eq!(processes(&machine), before);

        // An upgrade starts what runs anew, and nothing else.
        let old = mains();
        let upgraded = machine.sh("dpkg --force-depends --install new.deb");
        assert!(upgraded.contains(NEW) && !upgraded.contains("not all daemons"), "{upgraded}");
        machine.expect("vmmc_local info", ":web");
        machine.expect("timeout 1 vmmc_local console web", "tick");
        machine.expect("vmmc_local stats --count 1 web", ":web");
        assert!(mains().iter().zip(&old).all(|(now, then)| now != then && now != "0"), "{old:?}");
        assert_eq!(processes(&machine), before);
        assert_eq!(machine.sh("systemctl --failed --no-legend"), "");

        // After a reboot all is there again. The bridge is the administrator's.
        machine.power_off();
        let machine = Machine::boot(copy).unwrap();
        machine.expect("vmmc_local info", ":web");
        machine.expect("vmmc_local info :web", "up");
        assert_ne!(processes(&machine), before);
        machine.expect("vmmc_local info :echo", "bridge");
        machine
            .sh("ip link add service type bridge && ip address add 10.0.0.1/24 dev service && ip link set service up");
        machine.expect("timeout 1 bash -c 'exec 3<>/dev/tcp/10.0.0.2/7; echo said >&3; head -n 1 <&3'", "said");
        machine.expect(remote, ":web");

        let running = machine.sh("pgrep fulmar-tender");
        let removed = machine.sh(&offline(leave));
        for pid in running.lines() {
            assert!(removed.contains(&format!(" {pid}")), "{running}: {removed}");
        }
        assert!(!removed.contains("cannot"), "{removed}");
        assert_eq!(machine.sh("pgrep fulmar-tender"), running);
        for (unit, ..) in SERVICES.into_iter().filter(|(unit, ..)| !unit.contains('@')) {
            assert_eq!(machine.show(unit, "MainPID"), "0", "{unit}");
        }
    });
}
