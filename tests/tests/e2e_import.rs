//! A host of albatross comes over to the real daemons: its policies hold, its unikernels run, its disks have their content; and
//! what cannot come over is said.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use fulmar_tests::albatross::{Policy, Unikernel, state};
use fulmar_tests::bridge::with_bridge;
use fulmar_tests::images;
use fulmar_tests::siege::{Said, Siege, files, tenders};
use fulmar_tests::system::wait_until;
use nix::sys::signal::Signal;

/// What the first byte of the disk was on albatross: the guest counts its starts there.
const STARTS: u8 = 41;

/// What is at the end of that disk.
const MARK: [u8; 9] = *b"albatross";

const SHOP: Policy<'static> =
    Policy { path: "shop:", unikernels: 4, cpus: &[0], memory_mb: 200, block_mb: Some(80), bridges: &["br0"] };

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// Albatross's folder, with a state file and disks.
fn albatross(siege: &Siege) -> PathBuf {
    let folder = siege.system.folder().join("albatross");
    fs::create_dir_all(folder.join("block")).unwrap();
    let read = |name: &str| fs::read(siege.image(name)).unwrap();
    let (hello, network, counting) = (compressed(&read("hello")), read("network"), images::counting());
    let unikernels = [
        Unikernel {
            name: "shop:hello",
            image: &hello,
            compressed: true,
            startup: Some(90),
            argv: &[b"--greeting", b"from albatross"],
            ..Unikernel::PLAIN
        },
        Unikernel {
            name: "shop:wire",
            image: &network,
            networks: &[("service", Some("br0"))],
            fail: Some(&[2, 3]),
            ..Unikernel::PLAIN
        },
        Unikernel {
            name: "shop:counts",
            image: &counting,
            blocks: &[("storage", Some("data"))],
            startup: Some(10),
            ..Unikernel::PLAIN
        },
        Unikernel { name: "shop:stray", image: &network, networks: &[("service", Some("br9"))], ..Unikernel::PLAIN },
        Unikernel { name: "shop:vm", bhyve: true, ..Unikernel::PLAIN },
        Unikernel { name: "shop:broken", image: &hello[..100], compressed: true, ..Unikernel::PLAIN },
        Unikernel { name: "shop:no-disk", image: &counting, blocks: &[("storage", Some("odd"))], ..Unikernel::PLAIN },
    ];
    let policies = [
        Policy { path: ":", ..SHOP },
        SHOP,
        Policy { path: "shop:more:", unikernels: 9, ..SHOP },
        Policy { path: "shop:less:", unikernels: 1, ..SHOP },
    ];
    fs::write(folder.join("state"), state(6, &unikernels, &policies)).unwrap();
    let disk = |name: &str, bytes: u64| {
        let file = File::create(folder.join("block").join(name)).unwrap();
        file.set_len(bytes).unwrap();
        file
    };
    let data = disk("shop:data", 64 << 20);
    data.write_all_at(&[STARTS], 0).unwrap();
    data.write_all_at(&MARK, (64 << 20) - MARK.len() as u64).unwrap();
    disk("shop:spare", 3 << 20);
    disk("shop:large", 40 << 20);
    disk("shop:odd", 5_000);
    folder
}

fn import(siege: &Siege, folder: &Path, options: &[&str]) -> Said {
    let state = folder.join("state");
    siege.client(&[&["import-albatross", state.to_str().unwrap()], options].concat())
}

/// Names of items by what became of them.
fn with_result(said: &Said, result: &str) -> BTreeSet<String> {
    let value: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    let items = value["items"].as_array().unwrap().iter();
    items.filter(|item| item["result"] == result).map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn disk_of(siege: &Siege, name: &str) -> File {
    File::open(siege.system.state().join("block").join(format!("{name}_disk"))).unwrap()
}

fn starts(siege: &Siege) -> u8 {
    let mut first = [0];
    disk_of(siege, "shop:data").read_exact_at(&mut first, 0).unwrap();
    first[0]
}

#[test]
fn a_host_comes_over() {
    with_bridge("a_host_comes_over", None, |siege, _| {
        let folder = albatross(siege);
        let before = [siege.client(&["policy"]), siege.client(&["block"]), siege.client(&["info"])];

        // A dry run says what will be, and changes nothing.
        let dry = import(siege, &folder, &["--dry-run", "--json"]);
        assert_eq!([siege.client(&["policy"]), siege.client(&["block"]), siege.client(&["info"])], before);
        let came = import(siege, &folder, &["--json"]);
        assert_eq!((dry.code, came.code), (117, 117), "{dry:?} {came:?}");
        assert_eq!(
            dry.out.replace("\"dry_run\": true", "\"dry_run\": false"),
            came.out,
            "{}",
            siege.system.log("vmmd")
        );
        let came_over = ["shop:", "shop:less:", "shop:data", "shop:spare", "shop:hello", "shop:wire", "shop:counts"];
        assert_eq!(with_result(&came, "imported"), names(&came_over));
        let lost = ["shop:more:", "shop:large", "shop:odd", "shop:stray", "shop:vm", "shop:broken", "shop:no-disk"];
        assert_eq!(with_result(&came, "refused"), names(&lost));
        assert_eq!(with_result(&came, "left out"), names(&[":"]));

        // They run, with what they had.
        siege.expect_line("shop:hello", "--name=hello --greeting from albatross");
        siege.expect_line("shop:wire", "address");
        assert!(wait_until(|| starts(siege) == STARTS + 1), "{}", siege.system.log("vmmd"));
        let data = disk_of(siege, "shop:data");
        let mut end = [0; MARK.len()];
        data.read_exact_at(&mut end, (64 << 20) - MARK.len() as u64).unwrap();
        assert_eq!(end, MARK);
        // As sparse as it was: blocks of 512 bytes.
        assert!(data.metadata().unwrap().blocks() * 512 < 1 << 20, "{:?}", data.metadata());
        let info = siege.client(&["info", "shop:wire"]);
        assert!(info.out.contains("restart    on 2,3") || info.out.contains("on 2, 3"), "{info:?}");
        let policy = siege.client(&["policy", "shop:"]);
        let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(policy.out.lines().any(|line| row(line) == "shop: 4 200 MB 0 80 MB br0"), "{policy:?}");
        // Albatross's own files are as they were.
        let mut first = [0];
        File::open(folder.join("block/shop:data")).unwrap().read_exact_at(&mut first, 0).unwrap();
        assert_eq!(first, [STARTS]);
        assert_eq!(files(&folder.join("block")).len(), 4);

        // Once more does nothing, however often.
        let running = tenders(siege.system.folder());
        for options in [&["--json"][..], &["--json", "--dry-run"]] {
            let again = import(siege, &folder, options);
            assert_eq!(with_result(&again, "there"), names(&came_over));
            assert_eq!(with_result(&again, "refused"), names(&lost));
        }
        assert_eq!(tenders(siege.system.folder()), running);
        assert_eq!(starts(siege), STARTS + 1);
        for name in ["shop:hello", "shop:wire", "shop:counts"] {
            assert_eq!(siege.client(&["destroy", name]).code, 0);
        }
        // A disk that went on since is not thrown away, one that did not is the same.
        let again = import(siege, &folder, &["--json"]);
        assert_eq!(with_result(&again, "conflict"), names(&["shop:data"]), "{again:?}");
        assert!(with_result(&again, "there").contains("shop:spare"));
        assert!(with_result(&again, "refused").contains("shop:counts"));
        assert_eq!(starts(siege), STARTS + 1);
    });
}

#[test]
fn what_was_interrupted_is_gone_on_with() {
    let Some(mut siege) = Siege::begin("what_was_interrupted_is_gone_on_with") else { return };
    let folder = siege.system.folder().join("albatross");
    fs::create_dir_all(folder.join("block")).unwrap();
    let counting = images::counting();
    let counts =
        Unikernel { name: "counts", image: &counting, blocks: &[("storage", Some("data"))], ..Unikernel::PLAIN };
    fs::write(folder.join("state"), state(6, &[counts], &[])).unwrap();
    let disk = File::create(folder.join("block/:data")).unwrap();
    disk.set_len(2 << 20).unwrap();
    disk.write_all_at(&[STARTS], 0).unwrap();
    // An import was ended after it had made the block device, and the daemon with it.
    assert_eq!(siege.client(&["add-block", "data", "2"]).code, 0);
    siege.system.end("vmmd", Signal::SIGKILL).unwrap();
    let gone = import(&siege, &folder, &[]);
    assert_eq!(gone.code, 122, "{gone:?}");
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    let came = import(&siege, &folder, &[]);
    assert_eq!((came.code, came.err.as_str()), (0, ""), "{came:?}");
    let starts = || {
        let mut first = [0];
        disk_of(&siege, ":data").read_exact_at(&mut first, 0).unwrap();
        first[0]
    };
    assert!(wait_until(|| starts() == STARTS + 1), "{}", siege.system.log("vmmd"));
    assert_eq!(siege.client(&["destroy", "counts"]).code, 0);
    assert_eq!(siege.client(&["remove-block", "data"]).code, 0);
    siege.system.stop().unwrap();
}
