//! What the documentation tells a user to type is typed here, with the real programs: each `sh` block of README and of
//! `docs/` is run, line by line, and each line must succeed.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use fulmar_tests::albatross::{Policy, Unikernel, state};
use fulmar_tests::bridge::with_bridge;
use fulmar_tests::images::counting;
use fulmar_tests::namespace::inside;
use fulmar_tests::pages::{blocks, expect_typed, root, typed};
use fulmar_tests::siege::{self, Said};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{self, System};

/// The pages with lines to type; those of the tutorial are typed by `docs_tutorial.rs`, those about installing by
/// `xtask/tests/package/`.
const PAGES: [&str; 8] = [
    "README.md",
    "docs/delegation.md",
    "docs/deploy.md",
    "docs/import.md",
    "docs/install.md",
    "docs/tender.md",
    "docs/tutorial.md",
    "docs/vmmc_local.md",
];

#[test]
fn every_page_with_lines_to_type_is_typed() {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let docs = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    let pages = docs.chain(["README.md".to_owned()]).filter(|page| !blocks(page, "sh").is_empty());
    assert_eq!(pages.collect::<BTreeSet<_>>(), PAGES.iter().map(|page| (*page).to_owned()).collect());
}

/// What the dashboard asks Prometheus for is promised in `docs/metrics.md`.
#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let dashboard = fs::read_to_string(root().join("packaging/grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let mut metrics = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let words = target["expr"].as_str().unwrap().split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
            metrics.extend(words.filter(|word| word.starts_with("fulmar_")).map(str::to_owned));
        }
    }
    assert!(metrics.len() > 8, "{metrics:?}");
    for metric in metrics {
        assert!(page.contains(&format!("| `{metric}` | ")), "{metric} is not in docs/metrics.md");
    }
}

/// Nobody runs `cargo xtask test` from within itself: the commands exist, by xtask's own help.
#[test]
fn the_commands_of_the_readme_exist() {
    let main = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let mut commands = 0;
    for line in blocks("README.md", "sh").iter().flat_map(|block| block.lines()) {
        let words = line.split('#').next().unwrap().trim();
        let command = words.strip_prefix("cargo xtask ").unwrap_or_else(|| panic!("nobody tries: {line}"));
        assert!(main.contains(&format!("[\"{command}\"] =>")), "xtask has no {command}");
        assert!(main.contains(&format!("\n  {command} ")), "the help of xtask does not have {command}");
        commands += 1;
    }
    assert!(commands >= 2, "{commands}");
}

/// A host with one unikernel and its disk.
fn put_albatross(folder: &Path) {
    fs::create_dir_all(folder.join("block")).unwrap();
    File::create(folder.join("block/shop:data")).unwrap().set_len(1 << 20).unwrap();
    let image = fs::read(folder.with_file_name("hello.hvt")).unwrap();
    let web = Unikernel { name: "shop:web", image: &image, ..Unikernel::PLAIN };
    let policy = Policy { path: "shop:", unikernels: 2, cpus: &[0], memory_mb: 64, block_mb: Some(9), bridges: &[] };
    fs::write(folder.join("state"), state(6, &[web], &[policy])).unwrap();
}

#[test]
fn the_pages_of_the_client_run_from_top_to_bottom() {
    const TEST: &str = "the_pages_of_the_client_run_from_top_to_bottom";
    let Some(programs) = siege::programs(TEST) else { return };
    let mut system = System::new(system::make_folder("docs").unwrap(), programs.clone()).unwrap();
    let kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    if !kvm {
        skip(TEST, "/dev/kvm does not open: the image for spt stands in for hello.hvt");
    }
    let image = programs.join("guests").join(if kvm { "hello.hvt" } else { "hello.spt" });
    fs::copy(image, system.folder().join("hello.hvt")).unwrap();
    put_albatross(&system.folder().join("albatross"));
    // vmmd makes the folder of the sockets.
    system.start_vmmd(&[]).unwrap();
    system.start_console().unwrap();
    system.start_stats(&["--interval".as_ref(), "0.5".as_ref()]).unwrap();
    system.start_log(&[]).unwrap();
    let mut said = String::new();
    let pages = [blocks("docs/vmmc_local.md", "sh"), blocks("docs/import.md", "sh")].concat();
    for line in pages.iter().flat_map(|block| block.lines()) {
        let Said { out, .. } = expect_typed(&programs, &system, line);
        if line.ends_with("--json") {
            // One document, or one a line.
            let documents = serde_json::Deserializer::from_str(&out).into_iter::<serde_json::Value>();
            assert!(documents.into_iter().all(|document| document.is_ok()) && !out.is_empty(), "{line}\n{out}");
        }
        said += &out;
    }
    for part in [
        "Hello, World!",
        ":hello: created unikernel",
        ":hello: destroyed unikernel",
        "NAME                             CPU       MEMORY           SENT       RECEIVED",
        "shop:web",
        "added policy (asked by user",
        "shop:data: removed block",
        "would come over",
        "\"result\": \"there\"",
    ] {
        assert!(said.contains(part), "nothing said {part}:\n{said}");
    }
    system.stop().unwrap();
}

/// The first block makes what the server needs; the port is free in a network of its own.
#[test]
fn the_page_of_delegation_runs_from_top_to_bottom() {
    const TEST: &str = "the_page_of_delegation_runs_from_top_to_bottom";
    inside(TEST, || {
        let Some(programs) = siege::programs(TEST) else { return };
        let mut system = System::new(system::make_folder("docs").unwrap(), programs.clone()).unwrap();
        if !typed(&programs, system.folder(), "ip link set lo up").status.success() {
            return skip(TEST, "no loopback can be had here with `ip`");
        }
        let kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        let image = programs.join("guests").join(if kvm { "hello.hvt" } else { "hello.spt" });
        fs::copy(image, system.folder().join("hello.hvt")).unwrap();
        system.start_vmmd(&[]).unwrap();
        system.start_console().unwrap();
        let mut said = String::new();
        for (index, block) in blocks("docs/delegation.md", "sh").iter().enumerate() {
            for line in block.lines() {
                let Said { out, err, .. } = expect_typed(&programs, &system, line);
                said += &(out + &err);
            }
            if index == 0 {
                let folder = system.folder().join("ca");
                system.start_tls_with(&folder, &[]).unwrap();
            }
        }
        for part in [
            "shop:web: created unikernel",
            "Hello, World!",
            "shop:web restart the unikernel",
            "shop:team:db: created unikernel",
            "shop:team: revoked, removed 1 unikernel",
            "a certificate of the chain is revoked",
            "shop: revoked, removed 1 unikernel",
        ] {
            assert!(said.contains(part), "nothing said {part}:\n{said}");
        }
        system.stop().unwrap();
    });
}

/// The manifest wants a bridge, which a network of its own has.
#[test]
fn the_page_of_deploying_runs_from_top_to_bottom() {
    with_bridge("the_page_of_deploying_runs_from_top_to_bottom", None, |siege, _| {
        let (programs, folder) = (system::programs(), siege.system.folder());
        fs::write(folder.join("shop.toml"), &blocks("docs/deploy.md", "toml")[0]).unwrap();
        fs::write(folder.join("db.spt"), counting()).unwrap();
        fs::copy(programs.join("guests/http.spt"), folder.join("web.spt")).unwrap();
        let mut said = String::new();
        for line in blocks("docs/deploy.md", "sh").iter().flat_map(|block| block.lines()) {
            said += &expect_typed(&programs, &siege.system, line).out;
        }
        for part in [
            "create unikernel shop:db\ncreate unikernel shop:web\n4 changes, 0 as wanted already\n",
            "  + memory: 64 MB\n",
            "set policy shop: done\nadd block shop:data: done\ncreate unikernel shop:db: done\n",
            "nothing to do: 4 as wanted\n",
            "\"changes\": []",
            "leave unikernel shop:web: it is not in the manifest\nnothing to do: 3 as wanted\n",
            "destroy unikernel shop:web: done\n",
        ] {
            assert!(said.contains(part), "nothing said {part}:\n{said}");
        }
        // As the page shows it.
        let shown = &blocks("docs/deploy.md", "text")[0];
        assert!(said.contains(shown), "{shown}\n{said}");
    });
}

/// The line wants a tap, which a network of its own has.
#[test]
fn the_line_of_the_tender_starts_a_guest() {
    const TEST: &str = "the_line_of_the_tender_starts_a_guest";
    inside(TEST, || {
        let Some(programs) = siege::programs(TEST) else { return };
        let folder = system::make_folder("docs").unwrap();
        let tap = "ip link set lo up; ip tuntap add tap0 mode tap && ip link set tap0 up";
        if typed(&programs, &folder, tap).status.success() {
            fs::copy(programs.join("guests/devices.spt"), folder.join("web.hvt")).unwrap();
            File::create(folder.join("disk.img")).unwrap().set_len(1 << 20).unwrap();
            let page = blocks("docs/tender.md", "sh");
            let lines: Vec<_> = page.iter().flat_map(|block| block.lines()).collect();
            assert_eq!(lines.len(), 1, "{lines:?}");
            // How the guest ends depends on who talks to it: here nobody need do.
            let said = siege::said(&typed(&programs, &folder, lines[0]));
            assert!(said.out.contains("network: address") && said.out.contains("1048576 bytes"), "{said:?}");
        } else {
            skip(TEST, "taps cannot be made here with `ip`");
        }
        fs::remove_dir_all(folder).unwrap();
    });
}
