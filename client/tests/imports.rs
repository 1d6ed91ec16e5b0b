//! Hosts of albatross that are brought over to a daemon that decides as `vmmd` does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use common::machine::MachineDaemon;
use common::{FakeDaemon, Folder, Ran, client, image, read_frame};
use fulmar_client::commands::Context;
use fulmar_client::connection::{LocalDoor, TIME_OUT};
use fulmar_client::import::{self, Request};
use fulmar_tests::albatross::{Policy, Unikernel, state};
use fulmar_tests::render;
use serde_json::{Value, json};

const POLICY: Policy<'static> =
    Policy { path: "shop:", unikernels: 4, cpus: &[0, 1], memory_mb: 200, block_mb: Some(20), bridges: &["br0"] };

/// A state file in albatross's folder.
fn put(folder: &Folder, state: &[u8]) -> String {
    fs::create_dir_all(folder.0.join("albatross/block")).unwrap();
    folder.file("albatross/state", state).to_str().unwrap().to_owned()
}

fn disk(folder: &Folder, name: &str, bytes: u64) -> PathBuf {
    let path = folder.0.join("albatross/block").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

/// The lines about items, their columns made one blank apart.
fn lines(ran: &Ran) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    ran.out.lines().skip(2).map(words).collect()
}

#[test]
fn every_generation_comes_over() {
    let web = image(1, &[("service", 2), ("data", 1)], 0);
    let web = Unikernel {
        name: "shop:web",
        image: &web,
        memory_mb: 64,
        blocks: &[("data", None)],
        networks: &[("service", None)],
        argv: &[b"--port=80"],
        ..Unikernel::PLAIN
    };
    let plain = image(2, &[], 0);
    let plain = Unikernel { image: &plain, ..Unikernel::PLAIN };
    let policy = Policy { bridges: &["br0", "service"], ..POLICY };
    for generation in 0..=6 {
        let daemon = MachineDaemon::new();
        let file = put(&daemon.folder, &state(generation, &[web, plain], &[policy]));
        disk(&daemon.folder, "shop:data", 3 << 20);
        let mut expected =
            vec!["block shop:data came over", "unikernel shop:web came over", "unikernel :plain came over"];
        let mut changes = vec!["block shop:data 3", "unikernel shop:web", "unikernel :plain"];
        if generation >= 4 {
            expected.insert(0, "policy shop: came over");
            changes.insert(0, "policy shop:");
        }
        // A dry run says the same, and changes nothing.
        let dry = daemon.client(&["import-albatross", &file, "--dry-run"]);
        let would: Vec<_> = expected.iter().map(|line| line.replace("came", "would come")).collect();
        assert_eq!((lines(&dry), dry.code, dry.errors.as_str()), (would, 0, ""));
        assert_eq!(daemon.changes(), Vec::<String>::new());
        let ran = daemon.client(&["import-albatross", &file]);
        assert_eq!(
            (lines(&ran), ran.code, ran.errors.as_str()),
            (expected.iter().map(|it| (*it).to_owned()).collect(), 0, "")
        );
        assert!(ran.out.contains(&format!("/albatross/state: generation {generation}, ")), "{}", ran.out);
        assert_eq!(daemon.changes(), changes);
        let info = daemon.client(&["info", "shop:web"]);
        for part in ["memory     64 MB", "data is data, 3 MB", "on bridge service", "arguments  --port=80"] {
            assert!(info.out.contains(part), "{part}: {}", info.out);
        }
        // Once more: everything is there, also for a dry run.
        for words in [&["import-albatross", &file][..], &["import-albatross", &file, "--dry-run"]] {
            let again = daemon.client(words);
            assert_eq!(again.code, 0, "{}", again.errors);
            assert!(lines(&again).iter().all(|line| line.contains("is there already")), "{}", again.out);
            assert_eq!(daemon.changes(), Vec::<String>::new());
        }
    }
}

/// The recorded state files: their images are none, and their policies want more than this host has.
#[test]
fn recorded_state_files_are_judged_item_by_item() {
    let index = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/index.json");
    let all: Vec<Value> = serde_json::from_str(&fs::read_to_string(index).unwrap()).unwrap();
    let vectors: Vec<_> = all.iter().filter(|vector| vector["codec"] == "state").collect();
    assert_eq!(vectors.len(), 8);
    for vector in vectors {
        let daemon = MachineDaemon::new();
        let file = put(&daemon.folder, &render::from_hex(vector["hex"].as_str().unwrap()));
        let list = |what: &str| vector["decoded"][what].as_array().unwrap().clone();
        let (policies, unikernels) = (list("policies"), list("unikernels"));
        let expected: Vec<(String, &str)> = policies
            .iter()
            .map(|it| (it["name"].as_str().unwrap(), if it["name"] == ":" { "left out" } else { "refused" }))
            .chain(unikernels.iter().map(|it| (it["name"].as_str().unwrap(), "refused")))
            .map(|(name, result)| (name.to_owned(), result))
            .collect();
        let lost = expected.iter().any(|(_, result)| *result == "refused");
        let documents = [&["--dry-run"][..], &[]].map(|options| {
            let ran = daemon.client(&[&["import-albatross", &file, "--json"], options].concat());
            assert_eq!(ran.code, if lost { 117 } else { 0 }, "{}: {}", vector["name"], ran.errors);
            serde_json::from_str::<Value>(&ran.out).unwrap()
        });
        assert_eq!(documents[0]["items"], documents[1]["items"], "{}", vector["name"]);
        let items = documents[1]["items"].as_array().unwrap();
        let mut results: Vec<(String, &str)> =
            items.iter().map(|it| (it["name"].as_str().unwrap().to_owned(), it["result"].as_str().unwrap())).collect();
        // Unikernels come in their order of start.
        results[policies.len()..].sort();
        let mut expected = expected;
        expected[policies.len()..].sort();
        assert_eq!(results, expected, "{}", vector["name"]);
        for item in items.iter().filter(|item| item["result"] == "refused") {
            assert!(item["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{item}");
        }
        assert!(daemon.client(&["info"]).errors.starts_with("no unikernel"));
    }
}

#[test]
fn what_cannot_come_over_is_said_and_the_rest_goes_on() {
    let daemon = MachineDaemon::new();
    let (with_net, with_disk, plain) = (image(2, &[("service", 2)], 0), image(2, &[("data", 1)], 0), image(2, &[], 0));
    let named = |name: &'static str| Unikernel { name, image: &plain, ..Unikernel::PLAIN };
    let long = format!("{}:deep", ["a".repeat(60).as_str(); 5].join(":"));
    let unikernels = [
        Unikernel { startup: Some(60), ..named("shop:last") },
        Unikernel { startup: Some(40), ..named("shop:first") },
        Unikernel { networks: &[("service", Some("br9"))], image: &with_net, ..named("shop:no-bridge") },
        Unikernel { cpus: &[0, 77], ..named("far:no-cpu") },
        Unikernel { memory_mb: 900, ..named("shop:large") },
        Unikernel { image: &with_net, ..named("shop:misses-net") },
        Unikernel { image: b"\x7fELF-not-really-an-image", ..named("shop:no-image") },
        Unikernel { image: b"\x78\xda-broken", compressed: true, ..named("shop:broken") },
        Unikernel { image: &[], bhyve: true, ..named("shop:vm") },
        Unikernel { image: &[], ..named("shop:empty") },
        Unikernel { image: &with_disk, blocks: &[("data", Some("odd"))], ..named("shop:odd-disk") },
        Unikernel { image: &with_disk, blocks: &[("data", Some("none"))], ..named("shop:lost-disk") },
        Unikernel { argv: &[b"\xff"], ..named("shop:not-text") },
        Unikernel { name: &long, ..named("") },
        Unikernel { name: "no_name", ..named("") },
        Unikernel { name: "shop:", ..named("") },
    ];
    let policies = [
        Policy { path: "shop:web:", unikernels: 9, bridges: &[], ..POLICY },
        Policy { path: "off:", bridges: &["br9"], ..POLICY },
        Policy { path: ":", ..POLICY },
        Policy { path: "shop:small:", unikernels: 1, block_mb: None, ..POLICY },
        POLICY,
        Policy { path: "shop:name", ..POLICY },
        Policy { path: "x_y:", ..POLICY },
    ];
    let file = put(&daemon.folder, &state(6, &unikernels, &policies));
    for (name, bytes) in [
        ("shop:big", 30 << 20),
        ("shop:odd", 1_000_000),
        ("shop:small:disk", 1 << 20),
        ("shop:void", 0),
        ("other:", 1 << 20),
        ("what_ever", 1 << 20),
        ("Shop:data", 1 << 20),
        ("shop:ours_disk", 1 << 20),
    ] {
        disk(&daemon.folder, name, bytes);
    }
    fs::create_dir(daemon.folder.0.join("albatross/block/:folder")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", daemon.folder.0.join("albatross/block/shop:link")).unwrap();
    let put_there =
        format!("put the file itself in the place of {}/albatross/block/shop:link", daemon.folder.0.display());
    let long_lines = [
        format!(
            "unikernel {long} did not come over: its entry cannot be taken over (invalid name: longer than 250 bytes)"
        ),
        "create it by hand (vmmc_local create)".to_owned(),
    ];
    let odd = daemon.folder.0.join("albatross/block/shop:odd");
    let truncate = format!("truncate --size=%1M {}", odd.display());
    let expected = [
        "policy : left out: the root policy is what this host has",
        "policy off: did not come over: policy above does not allow bridge br9",
        "change the one above and import again, or set what fits: \
         vmmc_local add-policy off: 4 --mem 200 --cpu 0 --cpu 1 --block 20 --bridge br9",
        "policy shop: came over",
        "policy shop:web: did not come over: policy above allows 4 unikernels, which is fewer than 9",
        "change the one above and import again, or set what fits: \
         vmmc_local add-policy shop:web: 9 --mem 200 --cpu 0 --cpu 1 --block 20",
        "policy shop:small: came over",
        "policy shop:name did not come over: its name is that of a unikernel: a policy belongs to a path",
        "policy x_y: did not come over: its entry cannot be taken over (invalid name: '_' is not allowed, labels are made of \
         letters, digits, '.' and '-')",
        "set one by hand (vmmc_local add-policy)",
        "block :folder left out: it is not a file",
        "block Shop:data left out: its name is not that of a block device",
        "block other: left out: it has the name of a path, not of a block device",
        "block shop:big did not come over: block device policy limit of 20 MB (used 0 MB) would be exceeded by the request (30 MB) \
         (policy of shop:)",
        "allow it in the policies above (vmmc_local add-policy), then import again",
        "block shop:link did not come over: its file is a link, which is not followed",
        &put_there,
        "block shop:odd did not come over: its file has 1000000 bytes, which is no whole number of MB: albatross does not use it",
        &truncate,
        "block shop:small:disk did not come over: no block devices are allowed by policy (policy of shop:small:)",
        "allow it in the policies above (vmmc_local add-policy), then import again",
        "block shop:void left out: its file is empty",
        "block what_ever left out: its name is not that of a block device",
        "unikernel shop:first came over",
        "unikernel shop:no-bridge did not come over: bridges br9 not allowed by policy: name another or allow it \
         (policy of shop:)",
        "unikernel far:no-cpu did not come over: the host has no CPU 77: name another",
        "unikernel shop:large did not come over: maximum allowed memory (200, used 16) would be exceeded (requesting 900): \
         ask for less or allow more (policy of shop:)",
        "unikernel shop:misses-net did not come over: the image declares net device service, which is not given: add it",
        "unikernel shop:no-image did not come over: invalid or unsupported executable (the file ends within the elf header): build it for Solo5 hvt or spt on \
         x86_64",
        "unikernel shop:broken did not come over: the compressed image is damaged: it is no complete zlib stream",
        "unikernel shop:vm did not come over: bhyve virtual machines are not run here (bhyve runs on FreeBSD): give a Solo5 image",
        "unikernel shop:empty did not come over: the image is empty",
        "unikernel shop:odd-disk did not come over: its block device shop:odd did not come over",
        "unikernel shop:lost-disk did not come over: block device none does not exist",
        "make it (vmmc_local add-block shop:none MB), then import again",
        "unikernel shop: did not come over: the name of a unikernel is needed, a path was given (it ends with ':')",
        "unikernel shop:last came over",
        "unikernel shop:not-text did not come over: its entry cannot be taken over (a text is not UTF-8)",
        "create it by hand (vmmc_local create)",
        &long_lines[0],
        &long_lines[1],
        "unikernel no_name did not come over: its entry cannot be taken over (invalid name: '_' is not allowed, labels are made \
         of letters, digits, '.' and '-')",
        "create it by hand (vmmc_local create)",
    ];
    let dry = daemon.client(&["import-albatross", &file, "--dry-run"]);
    let would: Vec<_> = expected.iter().map(|it| would(it)).collect();
    assert_eq!(lines(&dry), would);
    assert_eq!(dry.code, 117);
    assert_eq!(daemon.changes(), Vec::<String>::new());
    let ran = daemon.client(&["import-albatross", &file]);
    assert_eq!(lines(&ran), expected);
    let lost = "22 of 32 did not come over: mend what is said above and import again, what is there already stays";
    assert_eq!((ran.code, ran.errors.as_str()), (117, format!("vmmc_local: {lost}\n").as_str()));
    assert_eq!(daemon.client(&["info", "shop:first"]).code, 0);
}

/// What a dry run says instead.
fn would(line: &str) -> String {
    // What is the consequence of another line is a fact in both.
    match line.rsplit_once("did not come over") {
        Some((before, "")) => format!("{}did not come over", would(before)),
        _ => line.replacen("did not come over", "would not come over", 1).replacen("came over", "would come over", 1),
    }
}

#[test]
fn what_is_there_stays_as_it_is() {
    let daemon = MachineDaemon::new();
    let (first, second) = (image(2, &[], 0), image(2, &[], 1));
    let path = daemon.folder.file("first.spt", &first);
    let path = path.to_str().unwrap();
    for words in [
        &["add-policy", "shop:", "4", "--mem", "200", "--cpu", "0", "--cpu", "1", "--block", "20", "--bridge", "br0"][..],
        &["add-policy", "other:", "3", "--mem", "200", "--cpu", "0"],
        &["add-block", "shop:small", "1"],
        &["create", "same", path, "--mem", "16"],
        &["create", "image", path, "--mem", "16"],
        &["create", "arguments", path, "--mem", "16", "--", "--x"],
    ] {
        let ran = daemon.client(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.errors);
    }
    let named = |name: &'static str| Unikernel { name, image: &first, ..Unikernel::PLAIN };
    let unikernels = [named("same"), Unikernel { image: &second, ..named("image") }, named("arguments")];
    let file = put(&daemon.folder, &state(6, &unikernels, &[POLICY, Policy { path: "other:", ..POLICY }]));
    disk(&daemon.folder, "shop:small", 2 << 20);
    let before = [daemon.client(&["policy"]).out, daemon.client(&["block"]).out, daemon.client(&["info"]).out];
    let expected = [
        "policy shop: is there already",
        "policy other: conflict: another one is there",
        "to have albatross's: vmmc_local add-policy other: 4 --mem 200 --cpu 0 --cpu 1 --block 20 --bridge br0",
        "block shop:small conflict: one of 1 MB is there, this one has 2 MB",
        "to have albatross's: vmmc_local remove-block shop:small, then import again",
        "unikernel :same is there already",
        "unikernel :image conflict: one with another image is there",
        "to have albatross's: vmmc_local destroy :image, then import again",
        "unikernel :arguments conflict: one with other arguments is there",
        "to have albatross's: vmmc_local destroy :arguments, then import again",
    ];
    daemon.changes();
    for words in [&["import-albatross", &file, "--dry-run"][..], &["import-albatross", &file]] {
        let ran = daemon.client(words);
        assert_eq!((lines(&ran), ran.code), (expected.iter().map(|it| (*it).to_owned()).collect(), 117));
    }
    assert_eq!(daemon.changes(), Vec::<String>::new());
    let after = [daemon.client(&["policy"]).out, daemon.client(&["block"]).out, daemon.client(&["info"]).out];
    assert_eq!(after, before);
}

#[test]
fn a_virtual_machine_comes_over_where_it_runs_and_is_there_afterwards() {
    let daemon = MachineDaemon::with_bhyve();
    let plain = image(2, &[], 0);
    let vm =
        Unikernel { name: "shop:vm", bhyve: true, memory_mb: 60, blocks: &[("0", Some("disk"))], ..Unikernel::PLAIN };
    let web = Unikernel { name: "shop:web", image: &plain, ..Unikernel::PLAIN };
    let file = put(&daemon.folder, &state(6, &[vm, web], &[POLICY]));
    disk(&daemon.folder, "shop:disk", 1 << 20);
    let ran = daemon.client(&["import-albatross", &file]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.errors);
    assert_eq!(daemon.changes(), ["policy shop:", "block shop:disk 1", "unikernel shop:vm", "unikernel shop:web"]);
    for words in [&["import-albatross", &file][..], &["import-albatross", &file, "--dry-run"]] {
        let again = daemon.client(words);
        assert_eq!((again.code, daemon.changes().len()), (0, 0), "{}{}", again.out, again.errors);
    }
    // What is an image here is none there.
    let swapped = [Unikernel { bhyve: false, image: &plain, ..vm }, Unikernel { bhyve: true, image: &[], ..web }];
    let file = put(&daemon.folder, &state(6, &swapped, &[POLICY]));
    let ran = daemon.client(&["import-albatross", &file]);
    let others = ran.out.lines().filter(|line| line.contains("one with another image is there")).count();
    assert_eq!((ran.code, others), (117, 2), "{}{}", ran.out, ran.errors);
}

#[test]
fn a_dry_run_counts_what_is_there() {
    let daemon = MachineDaemon::new();
    let plain = image(2, &[], 0);
    let path = daemon.folder.file("plain.spt", &plain);
    for words in [
        &["add-policy", "shop:", "4", "--mem", "200", "--cpu", "0", "--cpu", "1", "--block", "20", "--bridge", "br0"][..],
        &["create", "shop:there", path.to_str().unwrap(), "--mem", "150"],
        &["add-block", "shop:there", "15"],
    ] {
        assert_eq!(daemon.client(words).code, 0);
    }
    let web = Unikernel { name: "shop:web", image: &plain, memory_mb: 60, ..Unikernel::PLAIN };
    let file = put(&daemon.folder, &state(6, &[web], &[POLICY]));
    disk(&daemon.folder, "shop:disk", 6 << 20);
    for words in [&["import-albatross", &file, "--dry-run", "--json"][..], &["import-albatross", &file, "--json"]] {
        let ran = daemon.client(words);
        let value: Value = serde_json::from_str(&ran.out).unwrap();
        let item = |kind, name, result, reason, remedy| json!({ "kind": kind, "name": name, "result": result, "reason": reason, "remedy": remedy });
        let (none, some) = (None::<&str>, Some::<&str>);
        let blocks =
            "block device policy limit of 20 MB (used 15 MB) would be exceeded by the request (6 MB) (policy of shop:)";
        let memory = "maximum allowed memory (200, used 150) would be exceeded (requesting 60): ask for less or allow more (policy of shop:)";
        let allow = "allow it in the policies above (vmmc_local add-policy), then import again";
        let expected = json!({
            "state": file, "generation": 6, "dry_run": words.contains(&"--dry-run"), "complete": false, "items": [
                item("policy", "shop:", "there", none, none),
                item("block", "shop:disk", "refused", some(blocks), some(allow)),
                item("unikernel", "shop:web", "refused", some(memory), none),
            ],
        });
        assert_eq!((value, ran.code), (expected, 117), "{}", ran.errors);
    }
}

#[test]
fn files_that_are_no_state_change_nothing() {
    let daemon = MachineDaemon::new();
    let plain = image(2, &[], 0);
    let whole = state(6, &[Unikernel { image: &plain, ..Unikernel::PLAIN }], &[POLICY]);
    let folder = &daemon.folder;
    let file = |name: &str, content: &[u8]| folder.file(name, content).to_str().unwrap().to_owned();
    let huge = folder.0.join("huge");
    File::create(&huge).unwrap().set_len((4 << 30) + 1).unwrap();
    let zeros = folder.0.join("zeros");
    File::create(&zeros).unwrap().set_len(64 << 20).unwrap();
    let fifo = folder.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let mut lengths = whole.clone();
    lengths[6] ^= 1;
    for (file, reason) in [
        (file("empty", b""), "is no state file of albatross, or is damaged (at byte 0: it ends within an element)"),
        (file("text", b"hello"), "is no state file of albatross, or is damaged (at byte 0: an unknown choice)"),
        (file("cut", &whole[..whole.len() - 1]), "it ends within an element"),
        (file("more", &[&whole[..], b"x"].concat()), "unexpected bytes after an element"),
        (file("lengths", &lengths), "try state.bak beside it"),
        (zeros.to_str().unwrap().to_owned(), "an unknown choice"),
        (huge.to_str().unwrap().to_owned(), "is larger than a state file can be (4096 MB)"),
        (folder.0.to_str().unwrap().to_owned(), "is not a file: give albatross's state file"),
        (fifo.to_str().unwrap().to_owned(), "is not a file"),
        (format!("{}/nosuch", folder.0.display()), "nosuch: cannot be read"),
    ] {
        for words in [&["import-albatross", &file][..], &["import-albatross", &file, "--dry-run"]] {
            let ran = daemon.client(words);
            assert!(ran.errors.contains(reason), "{file}: {}", ran.errors);
            assert_eq!((ran.code, ran.out.as_str(), ran.errors.lines().count()), (124, "", 1), "{file}");
        }
    }
    // A folder of block devices that is named must be there; the one beside the state file need not.
    let good = file("state", &whole);
    let ran = daemon.client(&["import-albatross", &good, "--block-folder", "/nosuch"]);
    assert!(ran.errors.contains("/nosuch: cannot be read") && ran.code == 124, "{}", ran.errors);
    assert_eq!(daemon.changes(), Vec::<String>::new());
    let ran = daemon.client(&["import-albatross", &good]);
    assert!(ran.errors.starts_with("note: there is no ") && ran.code == 0, "{}", ran.errors);
}

/// Whatever is flipped, cut or doubled: it ends, and says something.
#[test]
fn damaged_state_files_end_in_words() {
    let daemon = MachineDaemon::new();
    let plain = image(2, &[], 0);
    let whole = state(6, &[Unikernel { image: &plain, ..Unikernel::PLAIN }], &[POLICY]);
    let head = whole.len() - plain.len();
    for at in (0..head).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x11;
        let file = put(&daemon.folder, &damaged);
        let ran = daemon.client(&["import-albatross", &file, "--dry-run"]);
        assert!([0, 117, 124].contains(&ran.code), "{at}: {} {}", ran.code, ran.errors);
        assert_eq!(ran.code == 124, ran.out.is_empty(), "{at}: {}", ran.errors);
    }
}

#[test]
fn albatross_is_not_taken_for_vmmd() {
    let albatross = FakeDaemon::new("vmmd.sock", |mut stream| read_frame(&mut stream));
    let file = put(&albatross.folder, &state(6, &[], &[]));
    let ran = albatross.client(&["import-albatross", &file]);
    assert!(ran.errors.contains("what answers in the place of vmmd is albatross: stop it"), "{}", ran.errors);
    assert_eq!((ran.code, ran.out.as_str()), (121, ""));
    let ran = client(&Folder::new().0, TIME_OUT, &["import-albatross", &file]);
    assert_eq!(ran.code, 122, "{}", ran.errors);
}

#[test]
fn a_daemon_that_goes_away_ends_it_and_says_where() {
    // What is vmmd, three lists, two policies.
    let daemon = MachineDaemon::dying_after(6);
    let plain = image(2, &[], 0);
    let unikernels = [Unikernel { image: &plain, ..Unikernel::PLAIN }];
    let policies = [POLICY, Policy { path: "one:", ..POLICY }, Policy { path: "two:", ..POLICY }];
    let file = put(&daemon.folder, &state(6, &unikernels, &policies));
    let ran = daemon.client(&["import-albatross", &file, "--json"]);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((value["items"].as_array().unwrap().len(), &value["complete"]), (2, &json!(false)));
    assert_eq!(ran.code, 121);
    assert!(ran.errors.starts_with("stopped at policy two: import again, what came over stays\n"), "{}", ran.errors);
}

#[test]
fn an_albatross_that_still_runs_is_warned_of() {
    let daemon = MachineDaemon::new();
    let file = put(&daemon.folder, &state(6, &[], &[]));
    let warned = |albatross: &Folder| {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let door = LocalDoor::new(&daemon.folder.0, TIME_OUT);
        let mut context = Context { door: &door, json: false, now_unix_ms: 0, out: &mut out, notes: &mut notes };
        let request = Request { state: file.as_ref(), blocks: None, dry_run: false, albatross_run: &albatross.0 };
        import::run(&mut context, &request).unwrap();
        String::from_utf8(notes).unwrap()
    };
    let albatross = FakeDaemon::new("vmmd.sock", |mut stream| read_frame(&mut stream));
    let notes = warned(&albatross.folder);
    assert!(notes.contains("warning: albatross still runs (") && notes.contains("stop it first"), "{notes}");
    // Nobody there, and a vmmd there, are no albatross.
    assert_eq!(warned(&Folder::new()), "");
    assert_eq!(warned(&daemon.folder), "");
}
