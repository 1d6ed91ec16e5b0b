//! Images on their way to a daemon and back, and those that never get that far.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use common::{FakeDaemon, Folder, capture, client, frame, image};
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use fulmar_client::connection::TIME_OUT;
use fulmar_client::new_file::NewFile;
use fulmar_core::wire::{self, Command, FailBehaviour, Frame, Image, Payload, Success, Text, UnikernelCommand};

const VMMD: &str = "vmmd.sock";

fn created() -> Vec<u8> {
    frame(":web", Payload::Success(Success::Text(Text(b"created unikernel"))))
}

#[test]
fn a_create_holds_what_the_command_line_says() {
    let image = image(1, &[("service", 2), ("data", 1)], 300_000);
    for level in ["0", "6"] {
        let mut daemon = FakeDaemon::answering(VMMD, created());
        let file = daemon.folder.file("web.hvt", &image);
        let words = [
            "create",
            "Web",
            file.to_str().unwrap(),
            "--net=service:br0=02:00:00:00:00:01",
            "--block",
            "data:disk1@4096",
            "--mem",
            "64",
            "--cpu",
            "3",
            "--cpu",
            "1",
            "--cpu",
            "3",
            "--exit-code",
            "7",
            "--exit-code=2",
            "--startup",
            "9",
            "--arg=--first",
            "--compression-level",
            level,
            "--no-add-name",
            "--",
            "--second",
            "third",
        ];
        let ran = daemon.client(&words);
        assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), (":web: created unikernel\n", "", 0));
        let heard = daemon.heard();
        let message = wire::decode(Frame::whole(&heard[4..])).unwrap();
        assert_eq!(message.header.name.as_str(), ":web");
        let Payload::Command(Command::Unikernel(UnikernelCommand::Create(config))) = message.payload else {
            panic!("{message:?}")
        };
        let Image::Inline(sent) = config.image else { panic!("diverted") };
        assert_eq!(config.compressed, level != "0");
        if config.compressed {
            let mut plain = Vec::new();
            ZlibDecoder::new(sent).read_to_end(&mut plain).unwrap();
            assert!(plain == image && sent.len() < image.len());
        } else {
            assert!(sent == image);
        }
        let arguments = config.arguments;
        let FailBehaviour::Restart(codes) = arguments.fail_behaviour else { panic!("no restart") };
        assert_eq!(codes.iter().collect::<Vec<_>>(), [2, 7]);
        assert_eq!((arguments.startup, arguments.add_name, arguments.memory), (Some(9), false, 64));
        assert_eq!(arguments.cpuids.iter().collect::<Vec<_>>(), [1, 3]);
        let argv: Vec<_> = arguments.argv.unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        assert_eq!(argv, ["--first", "--second", "third"]);
        let net = arguments.bridges.iter().next().unwrap();
        assert_eq!((net.name, net.bridge, net.mac), ("service", Some("br0"), Some([2, 0, 0, 0, 0, 1])));
        let block = arguments.block_devices.iter().next().unwrap();
        assert_eq!((block.name, block.host_device, block.sector_size), ("data", Some("disk1"), Some(4096)));
    }
}

#[test]
fn the_least_command_line_has_the_usual_values() {
    let mut daemon = FakeDaemon::answering(VMMD, created());
    let file = daemon.folder.file("web.hvt", &image(2, &[], 0));
    assert_eq!(daemon.client(&["create", "web", file.to_str().unwrap()]).code, 0);
    let heard = daemon.heard();
    let message = wire::decode(Frame::whole(&heard[4..])).unwrap();
    let Payload::Command(Command::Unikernel(UnikernelCommand::Create(config))) = message.payload else {
        panic!("{message:?}")
    };
    let arguments = config.arguments;
    assert_eq!(arguments.fail_behaviour, FailBehaviour::Quit);
    assert_eq!((arguments.startup, arguments.add_name, arguments.memory), (None, true, 32));
    assert_eq!(arguments.cpuids.iter().collect::<Vec<_>>(), [0]);
    assert!(arguments.argv.is_none() && arguments.bridges.is_empty() && arguments.block_devices.is_empty());
}

#[test]
fn force_asks_for_the_same_in_place_of_what_is_there() {
    for (option, forced) in [(None, false), (Some("--force"), true), (Some("-f"), true)] {
        let mut daemon = FakeDaemon::answering(VMMD, capture("force-create.0.s2c.bin"));
        let file = daemon.folder.file("web.hvt", &image(2, &[], 0));
        let words = [&["create", "foo:idle1", file.to_str().unwrap()], option.as_slice()].concat();
        let ran = daemon.client(&words);
        assert_eq!((ran.out.as_str(), ran.errors.as_str(), ran.code), ("foo:idle1: created unikernel\n", "", 0));
        let heard = daemon.heard();
        let message = wire::decode(Frame::whole(&heard[4..])).unwrap();
        let config = match (message.payload, forced) {
            (Payload::Command(Command::Unikernel(UnikernelCommand::Create(config))), false)
            | (Payload::Command(Command::Unikernel(UnikernelCommand::ForceCreate(config))), true) => config,
            (payload, _) => panic!("{option:?}: {payload:?}"),
        };
        assert_eq!((config.arguments.memory, config.compressed), (32, false));
    }
}

#[test]
fn a_refusal_before_the_image_is_sent_is_told() {
    let refusal = capture("create-duplicate.0.s2c.bin");
    let mut daemon = FakeDaemon::new(VMMD, move |mut stream| {
        // The start of the frame, then an answer: most of the image is never read.
        stream.read_exact(&mut [0; 64]).unwrap();
        stream.write_all(&refusal).unwrap();
        Vec::new()
    });
    let file = daemon.folder.file("big.hvt", &image(1, &[], 16 << 20));
    let ran = daemon.client(&["create", "foo:idle1", file.to_str().unwrap()]);
    daemon.heard();
    let expected = "vmmc_local: foo:idle1: Unikernel with same name is already running\n";
    assert_eq!((ran.errors.as_str(), ran.code), (expected, 117));
}

#[test]
fn images_that_cannot_run_are_refused_before_anything_is_sent() {
    let folder = Folder::new();
    let plain = image(1, &[("service", 2), ("data", 1)], 0);
    let mut no_abi = image(1, &[], 0);
    no_abi[0x200 + 12] = b'X';
    let mut other_abi = image(1, &[], 0);
    other_abi[0x200 + 24] = 9;
    let mut large = image(1, &[], 0);
    large[64 + 40..64 + 48].copy_from_slice(&(100_u64 << 20).to_le_bytes());
    let file = |name: &str, content: &[u8]| folder.file(name, content).to_str().unwrap().to_owned();
    let plain = file("web.hvt", &plain);
    let given = |options: &[&str]| [&["create", "web", &plain], options].concat().join(" ");
    for (words, reason) in [
        (given(&[]), "net device service is missing, add --net=service:BRIDGE"),
        (given(&["--net=service"]), "block device data is missing, add --block=data:HOSTDEVICE"),
        (given(&["--net=service", "--block=data", "--net=x:br0"]), "it has no net device x, leave out --net=x"),
        (given(&["--net=service", "--net=service:br1", "--block=data"]), "net device service is given twice"),
        (given(&["--net=data", "--block=service"]), "it has no block device service, leave out --block=service"),
        (format!("create web {}", file("text", b"#!/bin/sh\n")), "no ELF file"),
        (format!("create web {}", file("empty", b"")), "no ELF file"),
        (format!("create web {}", file("noabi.hvt", &no_abi)), "No Solo5 ABI information"),
        (format!("create web {}", file("abi9.hvt", &other_abi)), "ABI version 9"),
        (format!("create web {}", file("other.muen", &image(4, &[], 0))), "for muen: build it for hvt or spt"),
        (format!("create web {} --mem 64", file("large.hvt", &large)), "add --mem 102 or more"),
        (format!("create web {}/nosuch", folder.0.display()), "nosuch: cannot be read"),
        (format!("create web {}", folder.0.display()), "is not a file"),
    ] {
        let ran = client(&folder.0, TIME_OUT, &words.split(' ').collect::<Vec<_>>());
        assert!(ran.errors.contains(reason), "{words}: {}", ran.errors);
        assert_eq!((ran.code, ran.out.as_str(), ran.errors.lines().count()), (124, "", 1), "{words}");
    }
}

#[test]
fn inspect_needs_no_daemon() {
    let folder = Folder::new();
    let file = folder.file("web.hvt", &image(1, &[("service", 2), ("data", 1)], 0));
    let file = file.to_str().unwrap();
    let ran = client(&folder.0, TIME_OUT, &["inspect", file]);
    assert_eq!((ran.code, ran.errors.as_str()), (0, ""));
    for line in
        ["target       hvt", "ABI version  2", "networks     service", "blocks       data", "size         16.0 kB"]
    {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert!(
        ran.out.contains(&format!("vmmc_local create NAME {file} --net=service:BRIDGE --block=data:HOSTDEVICE\n")),
        "{}",
        ran.out
    );
    let ran = client(&folder.0, TIME_OUT, &["inspect", file, "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(value["remark"].as_str().map(str::is_empty), Some(false), "{value}");
    let expected = serde_json::json!({
        "file": file, "bytes": 0x4000, "target": "hvt", "abi_version": 2, "runnable": true, "entry": 0x10_0000,
        "memory_end": 0x10_1000, "memory_mb_min": 2, "remark": value["remark"],
        "devices": [{ "name": "service", "kind": "net" }, { "name": "data", "kind": "block" }],
    });
    assert_eq!(value, expected);
}

fn image_reply(compressed: bool, bytes: &[u8]) -> Vec<u8> {
    frame(":web", Payload::Success(Success::Image { compressed, image: Image::Inline(bytes) }))
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn get_writes_the_image_as_it_was() {
    let large: Vec<u8> = (0..200_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    for content in [b"tiny".as_slice(), &large, b""] {
        for compressed in [false, true] {
            let reply = image_reply(compressed, &if compressed { deflated(content) } else { content.to_vec() });
            let mut daemon = FakeDaemon::answering(VMMD, reply);
            let file = daemon.folder.0.join("copy.hvt");
            let ran = daemon.client(&["get", "web", "--output", file.to_str().unwrap(), "--json"]);
            assert_eq!((ran.errors.as_str(), ran.code), ("", 0));
            assert!(std::fs::read(&file).unwrap() == content);
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
            let expected =
                serde_json::json!({ "name": ":web", "file": file.to_str().unwrap(), "bytes": content.len() });
            assert_eq!(value, expected);
            daemon.heard();
        }
    }
}

#[test]
fn get_asks_as_the_reference_does() {
    let mut daemon = FakeDaemon::answering(VMMD, image_reply(false, b"x"));
    let file = daemon.folder.0.join("copy.hvt");
    let words = ["get", "foo:idle1", "--compression-level=0", "--output", file.to_str().unwrap()];
    assert_eq!(daemon.client(&words).out, format!("foo:idle1: 1 bytes written to {}\n", file.display()));
    assert_eq!(daemon.heard(), capture("get-0.0.c2s.bin"));
}

#[test]
fn get_overwrites_nothing_and_leaves_no_half_image() {
    let daemon = FakeDaemon::answering(VMMD, image_reply(false, b"new"));
    let file = daemon.folder.file("there.hvt", b"old");
    let ran = daemon.client(&["get", "web", "-o", file.to_str().unwrap()]);
    assert!(ran.errors.contains("is there already and is not overwritten"), "{}", ran.errors);
    assert_eq!((ran.code, std::fs::read(&file).unwrap()), (125, b"old".to_vec()));

    let zlib = deflated(&[7; 100_000]);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 10].to_vec();
    let refused = frame(":web", Payload::Failure(Text(b"get: no unikernel found")));
    for (reply, code) in [
        (cut(image_reply(false, &[1; 100_000])), 121),
        (cut(image_reply(false, &[1; 10])), 121),
        (image_reply(true, &cut(zlib.clone())), 121),
        (image_reply(true, &[zlib.as_slice(), b"more"].concat()), 121),
        (image_reply(true, b"no zlib stream at all"), 121),
        (image_reply(true, b""), 121),
        (frame(":web", Payload::Success(Success::Empty)), 121),
        (
            frame(":web", Payload::Success(Success::OldBlockImage { compressed: false, image: Image::Inline(&zlib) })),
            121,
        ),
        (refused, 117),
        (vec![0x7f, 0xff, 0xff, 0xff], 121),
    ] {
        let daemon = FakeDaemon::answering(VMMD, reply);
        let file = daemon.folder.0.join("copy.hvt");
        let ran = daemon.client(&["get", "web", "--output", file.to_str().unwrap()]);
        assert_eq!((ran.code, ran.out.as_str(), ran.errors.lines().count()), (code, "", 1), "{}", ran.errors);
        assert!(!file.exists(), "{}", ran.errors);
    }
}

#[test]
fn a_zlib_bomb_ends_at_the_bound() {
    let folder = Folder::new();
    let path = folder.0.join("copy.hvt");
    let mut file = NewFile::create(&path, 1 << 20).unwrap();
    file.inflate();
    let refused = file.take(&deflated(&vec![0; 2 << 20])).unwrap_err();
    assert!(refused.to_string().contains("larger than it can be"), "{refused}");
    assert_eq!(refused.exit_code(), 121);
    drop(file);
    assert!(!path.exists());
}
