//! A unikernel with a network: its tap is in the bridge as long as it lives, and bridges come and go.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::Path;

use fulmar_tests::bridge::{ip, with_bridge};
use fulmar_tests::siege::{self, arguments, tenders};
use fulmar_tests::system::wait_until;

/// The interfaces in a bridge.
fn ports(net: &Path, bridge: &str) -> Vec<String> {
    siege::files(&net.join("class/net").join(bridge).join("brif")).into_iter().collect()
}

fn received(net: &Path, bridge: &str) -> u64 {
    let path = net.join("class/net").join(bridge).join("statistics/rx_packets");
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn a_network_on_a_bridge() {
    const TEST: &str = "a_network_on_a_bridge";
    with_bridge(TEST, None, |siege, net| {
        let image = siege.image("network");
        let create = |name: &str, net: &str| siege.client(&["create", name, &image, "--net", net]);
        let taps =
            || siege::files(&net.join("class/net")).into_iter().filter(|name| name.starts_with("vmmtap")).count();

        // A bridge that nobody has is refused, and leaves nothing.
        let said = create("wire", "service:br9");
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains("the host has no bridge br9"), "{said:?}");
        // Nor may a policy below the root be passed by.
        let said = create("siege:wire", "service:br0");
        assert!(said.err.contains("br0 not allowed by policy"), "{said:?}");
        assert_eq!(taps(), 0);

        let said = create("wire", "service:br0=02:00:00:0a:0b:0c");
        assert_eq!(said.code, 0, "{said:?}");
        siege.expect_line("wire", "address 2 0 0 10 11 12");
        let [tap] = ports(net, "br0").try_into().unwrap();
        assert!(str::starts_with(&tap, "vmmtap"), "{tap}");
        let before = received(net, "br0");
        assert!(wait_until(|| received(net, "br0") > before), "no frame of the unikernel came through");
        // The tap is all that it has of the network: it starts in a namespace of its own kind.
        let [tender] = tenders(siege.system.folder()).try_into().unwrap();
        let interfaces = fs::read_to_string(format!("/proc/{tender}/net/dev")).unwrap();
        assert_eq!(interfaces.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count(), 0);
        let listed = siege.client(&["info", "wire", "--json"]);
        assert!(listed.out.contains("br0") && listed.out.contains("02:00:00:0a:0b:0c"), "{listed:?}");
        // The MAC that it gets without being told is the one that is listed.
        assert_eq!(create("other", "service:br0").code, 0);
        assert_eq!(ports(net, "br0").len(), 2);

        // However it ends, its tap goes with it.
        let of = |name: &str| {
            let word = format!("--name={name}");
            let is = |pid: &u32| arguments(*pid).contains(&word);
            tenders(siege.system.folder()).into_iter().find(is).unwrap()
        };
        let killed = nix::unistd::Pid::from_raw(i32::try_from(of("other")).unwrap());
        nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
        assert!(wait_until(|| ports(net, "br0") == [tap.clone()] && taps() == 1));
        assert_eq!(siege.client(&["destroy", "wire"]).code, 0);
        assert!(wait_until(|| taps() == 0));

        // A bridge that is made later can be used without any restart.
        assert!(ip(&["link", "add", "br9", "type", "bridge"]) && ip(&["link", "set", "br9", "up"]));
        assert!(wait_until(|| create("wire", "service:br9").code == 0), "{}", siege.system.log("vmmd"));
        assert_eq!(ports(net, "br9").len(), 1);
        // And one that goes while it is used takes nobody with it.
        assert!(ip(&["link", "del", "br9"]));
        siege.expect_service();
        assert_eq!(siege.client(&["destroy", "wire"]).code, 0);
        assert!(wait_until(|| taps() == 0));
        assert!(wait_until(|| create("wire", "service:br9").err.contains("the host has no bridge br9") || {
            let _ = siege.client(&["destroy", "wire"]);
            false
        }));

        // An interface that is no bridge.
        assert!(ip(&["link", "add", "dummy0", "type", "bridge"]) && ip(&["link", "del", "dummy0"]));
        let said = create("wire", "service:lo");
        assert!(said.err.contains("the host has no bridge lo"), "{said:?}");
        siege.expect_service();
        siege.expect_nothing_left();
    });
}
