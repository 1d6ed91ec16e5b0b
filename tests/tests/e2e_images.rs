//! Images that are none, or that cannot run, or that are not what they say; each is refused in words and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::wire::{Bridge, Command, UnikernelCommand};
use fulmar_tests::images;
use fulmar_tests::raw::{Answer, Raw, Wish, frame};
use fulmar_tests::siege::{self, Siege};

/// Where the notes' headers are in an image of [`images::image`], and what they say.
const PROGRAM_HEADERS: usize = 64;
const HEADER_BYTES: usize = 56;
const ABI_TARGET: usize = 0x200 + 20;
const ABI_VERSION: usize = 0x200 + 24;
const MANIFEST_VERSION: usize = 0x240 + 24;

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A plain spt image with some bytes changed.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut image = images::image(2, &[], 0x1000);
    for (at, byte) in changes {
        image[*at] = *byte;
    }
    image
}

#[test]
fn images_that_cannot_run_are_refused_with_the_reason() {
    let Some(siege) = Siege::begin("images_that_cannot_run_are_refused_with_the_reason") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let hello = std::fs::read(siege.image("hello")).unwrap();
    let plain = images::image(2, &[], 0x1000);
    let with_net = images::image(2, &["service"], 0x1000);
    let large = images::image(2, &[], 63 << 20);
    let packed = compress(&hello);
    let mut damaged = packed.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    damaged[middle + 1] ^= 0xff;
    let trailing = [packed.as_slice(), b"more"].concat();
    let no_notes = changed(&[(PROGRAM_HEADERS + HEADER_BYTES, 6), (PROGRAM_HEADERS + 2 * HEADER_BYTES, 6)]);
    let no_manifest = changed(&[(PROGRAM_HEADERS + 2 * HEADER_BYTES, 6)]);
    let other_version = changed(&[(ABI_VERSION, 9)]);
    let virtio = changed(&[(ABI_TARGET, 3)]);
    let unknown_target = changed(&[(ABI_TARGET, 99)]);
    let other_manifest = changed(&[(MANIFEST_VERSION, 2)]);
    let writable_text = changed(&[(PROGRAM_HEADERS + 4, 7)]);
    let net = [Bridge { name: "service", bridge: None, mac: None }];
    let zipped = |image| Wish { compressed: true, ..Wish::of(image) };
    let cases: &[(&str, Wish<'_>, &[&str])] = &[
        ("text", Wish::of(b"#!/bin/sh\necho hello\n"), &["no ELF file"]),
        ("short elf", Wish::of(b"\x7fELF"), &["ends within the elf header"]),
        ("cut", Wish::of(&hello[..hello.len() / 2]), &["build the image again"]),
        ("no notes", Wish::of(&no_notes), &["ABI", "no unikernel"]),
        ("no manifest", Wish::of(&no_manifest), &["manifest"]),
        ("abi", Wish::of(&other_version), &["ABI version 9", "version 2"]),
        ("virtio", Wish::of(&virtio), &["virtio", "hvt or spt"]),
        ("target", Wish::of(&unknown_target), &["99", "hvt or spt"]),
        ("manifest", Wish::of(&other_manifest), &["manifest", "version"]),
        ("w^x", Wish::of(&writable_text), &["WRITE and EXEC"]),
        ("memory", Wish::of(&large), &["the image needs at least", "32 MB"]),
        ("net missing", Wish::of(&with_net), &["service", "not given", "add it"]),
        ("packed as plain", Wish::of(&packed), &["no ELF file", "uncompressed"]),
        ("plain as packed", zipped(&hello), &["damaged", "zlib"]),
        ("damaged", zipped(&damaged), &["damaged", "zlib"]),
        ("cut zlib", zipped(&packed[..packed.len() - 5]), &["damaged", "zlib"]),
        ("trailing", zipped(&trailing), &["damaged", "zlib"]),
        ("too much memory", Wish { memory: 65, ..Wish::of(&plain) }, &["maximum allowed memory (64, used 0)"]),
        ("negative memory", Wish { memory: -1, ..Wish::of(&plain) }, &["-1 MB", "give 1 to"]),
        ("no memory", Wish { memory: 0, ..Wish::of(&plain) }, &["0 MB", "give 1 to"]),
        ("other cpu", Wish { cpus: &[1], ..Wish::of(&plain) }, &["CPUid 1", "policy"]),
        ("no cpu", Wish { cpus: &[], ..Wish::of(&plain) }, &["CPU"]),
        ("far cpu", Wish { cpus: &[4096], ..Wish::of(&plain) }, &["CPU", "4096"]),
        ("bridge", Wish { bridges: &net, ..Wish::of(&with_net) }, &["service", "not allowed by policy"]),
    ];
    for (what, wish, words) in cases {
        let answer = Raw::connect(&socket).ask("siege:image", wish.command());
        for word in *words {
            assert!(answer.reason().contains(word), "{what}: '{word}' is not in {answer:?}");
        }
        siege.expect_log("vmmd", &format!("siege:image: refused: {}", answer.reason()));
    }
    siege.end();
}

#[test]
fn an_image_in_chunks_after_a_create_without_one() {
    let Some(siege) = Siege::begin("an_image_in_chunks_after_a_create_without_one") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let hello = std::fs::read(siege.image("hello")).unwrap();
    let without = |compressed| frame("siege:chunks", Wish { compressed, ..Wish::of(b"") }.command());
    let chunk = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let send = |compressed: bool, chunks: &[&[u8]]| {
        let mut client = Raw::connect(&socket);
        assert!(client.send(&without(compressed)));
        let sent = chunks.iter().all(|bytes| client.send(bytes));
        (client, sent)
    };
    let packed = compress(&hello);
    for (compressed, image) in [(false, &hello), (true, &packed)] {
        let pieces: Vec<u8> = image.chunks(5000).flat_map(chunk).collect();
        // The end of one piece of the stream is not that of a chunk.
        let (first, second) = pieces.split_at(pieces.len() / 3);
        let (mut client, sent) = send(compressed, &[first, second, &[0; 3], &[0; 1]]);
        assert!(sent);
        assert!(matches!(client.receive(), Answer::Done(text) if text == "created unikernel"));
        assert!(siege.is_listed("siege:chunks"));
        assert_eq!(siege.client(&["destroy", "siege:chunks"]).code, 0);
    }
    for (what, chunks, word) in [
        ("nothing", vec![vec![0; 4]], "the image is empty"),
        ("text", vec![chunk(b"#!/bin/sh"), vec![0; 4]], "no ELF file"),
        ("a negative chunk", vec![chunk(&hello[..100]), vec![0xff; 4]], "negative length"),
    ] {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let answer = send(false, &chunks).0.receive();
        assert!(answer.reason().contains(word), "{what}: {answer:?}");
    }
    // Who goes in the middle leaves nothing, and who sends nothing is not waited for.
    let (client, _) = send(false, &[&chunk(&hello[..9000])]);
    drop(client);
    let (mut silent, _) = send(false, &[]);
    assert!(matches!(silent.receive(), Answer::Closed));
    siege.expect_log("vmmd", "finish its message");
    siege.end();
}

#[test]
fn an_image_too_large_or_a_bomb() {
    let Some(siege) = Siege::begin("an_image_too_large_or_a_bomb") else { return };
    let socket = siege.system.socket("vmmd.sock");
    // Announced only: refused before it comes.
    let mut announced = frame("siege:huge", Wish::of(&[7; 4096]).command());
    let octets = announced.windows(4).position(|bytes| bytes == [4, 0x82, 0x10, 0]).unwrap();
    let grown = [&announced[..octets], &[4, 0x84, 0x10, 0, 0, 1]].concat();
    announced = [&0x1000_0100_u32.to_be_bytes(), &grown[4..]].concat();
    let mut client = Raw::connect(&socket);
    assert!(client.send(&announced));
    match client.receive() {
        // The lengths around it do not fit it, which is seen first.
        Answer::Refused(text) => assert!(text.contains("268435456") || text.contains("longer"), "{text}"),
        other => panic!("{other:?}"),
    }
    drop(client);
    // A bomb: more than an image may have, from less than a MB.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=IMAGE_BYTES_MAX >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    let wish = Wish { compressed: true, ..Wish::of(&bomb) };
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (socket, wish) = (&socket, &wish);
            scope.spawn(move || {
                let answer = Raw::connect(socket).ask(&format!("siege:bomb{number}"), wish.command());
                let reason = answer.reason();
                assert!(
                    reason.contains("larger than 256 MB") || reason.contains("maximum amount of unikernels"),
                    "{reason}"
                );
            });
        }
        siege.expect_service();
    });
    siege.expect_log("vmmd", "larger than 256 MB");
    // While they are looked at, records are written all the same.
    let mut bombs: Vec<Raw> = (0..2).map(|_| Raw::connect(&socket)).collect();
    for (number, bomb) in bombs.iter_mut().enumerate() {
        assert!(bomb.send(&frame(&format!("siege:bomb{number}"), wish.command())));
    }
    let answered = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            let reasons: Vec<String> = bombs.iter_mut().map(|bomb| bomb.receive().reason().to_owned()).collect();
            answered.store(true, Ordering::SeqCst);
            reasons
        });
        let mut written = 0;
        while !answered.load(Ordering::SeqCst) {
            let memory = ["--mem=17", "--mem=18"][written % 2];
            let said = siege.client(&["add-policy", "beside:", "1", "--cpu=0", memory]);
            assert_eq!(said.code, 0, "{said:?}");
            written += 1;
        }
        assert!(one.join().unwrap().iter().any(|reason| reason.contains("larger than 256 MB")));
        written
    });
    // One could have been before the bombs, one after.
    assert!(written > 2, "{written} policies were written while two images were looked at");
    assert_eq!(siege.client(&["remove-policy", "beside:"]).code, 0);
    siege.end();
}

#[test]
fn the_client_says_what_to_do_before_anything_is_sent() {
    let Some(siege) = Siege::begin("the_client_says_what_to_do_before_anything_is_sent") else { return };
    let folder = siege.system.folder().to_path_buf();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).unwrap();
        folder.join(name).to_string_lossy().into_owned()
    };
    let hello = siege.image("hello");
    let text = file("text", b"hello");
    let abi = file("abi", &changed(&[(ABI_VERSION, 9)]));
    let virtio = file("virtio", &changed(&[(ABI_TARGET, 3)]));
    let net = file("net", &images::image(2, &["service"], 0x1000));
    let large = file("large", &images::image(2, &[], 63 << 20));
    let empty = file("empty", b"");
    let missing = folder.join("missing").to_string_lossy().into_owned();
    let folder = folder.to_string_lossy().into_owned();
    let cases: &[(&[&str], &[&str])] = &[
        (&[&text], &["no ELF file", "text"]),
        (&[&empty], &["empty"]),
        (&[&abi], &["ABI version 9"]),
        (&[&virtio], &["virtio"]),
        (&[&net], &["service", "--net"]),
        (&[&hello, "--net", "service"], &["service", "hello.spt"]),
        (&[&large], &["--mem 65"]),
        (&[&missing], &["missing"]),
        (&[&folder], &["siege"]),
        (&[&hello, "--mem", "0"], &["--mem"]),
        (&[&hello, "--cpu", "-1"], &["--cpu"]),
        (&[&hello, "--cpu", "1024"], &["1024"]),
    ];
    for (rest, words) in cases {
        let said = siege.client(&[&["create", "siege:x"], *rest].concat());
        assert_eq!(said.code, 124, "{rest:?}: {said:?}");
        for word in *words {
            assert!(said.err.contains(word), "{rest:?}: '{word}' is not in {}", said.err);
        }
        assert!(said.err.lines().count() <= 6, "{rest:?}: {}", said.err);
    }
    // And what only the daemon knows.
    for (rest, words) in [
        (&["--mem", "65"][..], &["maximum allowed memory (64, used 0)", "siege:x"][..]),
        (&["--cpu", "1"], &["CPUid 1", "siege:x"]),
    ] {
        let said = siege.client(&[&["create", "siege:x", &hello], rest].concat());
        assert_eq!(said.code, 117, "{rest:?}: {said:?}");
        for word in words {
            assert!(said.err.contains(word), "{rest:?}: '{word}' is not in {}", said.err);
        }
    }
    siege.end();
}

#[test]
fn every_ancestor_limits() {
    let Some(siege) = Siege::begin("every_ancestor_limits") else { return };
    let policy = |path: &str, rest: &[&str]| {
        let said = siege.client(&[&["add-policy", path], rest].concat());
        assert_eq!(said.code, 0, "{said:?}");
    };
    // Each level allows less of one thing: what is asked for fails at a level of its own.
    policy("a", &["3", "--mem", "100", "--cpu", "0", "--cpu", "1"]);
    policy("a:b", &["2", "--mem", "80", "--cpu", "0", "--cpu", "1"]);
    policy("a:b:c", &["2", "--mem", "80", "--cpu", "0"]);
    let hello = siege.image("hello");
    let create = |name: &str, rest: &[&str]| siege.client(&[&["create", name, &hello], rest].concat());
    let refused = |said: siege::Said, words: &str| {
        assert_eq!(said.code, 117, "{said:?}");
        assert!(said.err.contains(words), "'{words}' is not in {said:?}");
    };
    refused(create("a:b:c:x", &["--cpu", "1"]), "CPUid 1");
    refused(create("a:b:c:x", &["--mem", "81"]), "maximum allowed memory (80");
    refused(create("a:x", &["--mem", "101"]), "maximum allowed memory (100");
    assert_eq!(create("a:x", &["--mem", "60"]).code, 0);
    // The path itself would allow it, the one above does not any more.
    refused(create("a:b:c:x", &["--mem", "41"]), "maximum allowed memory (100, used 60)");
    assert_eq!(create("a:b:c:x", &["--mem", "20"]).code, 0);
    assert_eq!(create("a:b:y", &["--mem", "16", "--cpu", "1"]).code, 0);
    refused(create("a:b:c:z", &["--mem", "2"]), "maximum amount of unikernels");
    refused(create("a:z", &["--mem", "2"]), "maximum amount of unikernels");
    // Policies too: above, below, and under what runs.
    refused(siege.client(&["add-policy", "a:d", "9", "--mem", "20", "--cpu", "0"]), "policy above");
    refused(siege.client(&["add-policy", "a:d", "1", "--mem", "101", "--cpu", "0"]), "policy above");
    refused(siege.client(&["add-policy", "a", "3", "--mem", "70", "--cpu", "0", "--cpu", "1"]), "policy");
    refused(siege.client(&["add-policy", "a:b", "2", "--mem", "80", "--cpu", "0"]), "CPUid 1");
    refused(siege.client(&["add-policy", "e", "2", "--mem", "80", "--cpu", "1023"]), "policy above");
    refused(siege.client(&["add-policy", "e", "2", "--mem", "80", "--cpu", "0", "--bridge", "nobridge"]), "nobridge");
    for name in ["a:x", "a:b:c:x", "a:b:y"] {
        assert_eq!(siege.client(&["destroy", name]).code, 0);
    }
    // All that the least of them allows is free again.
    assert_eq!(create("a:b:c:x", &["--mem", "80"]).code, 0);
    assert_eq!(siege.client(&["destroy", "a:b:c:x"]).code, 0);
    siege.end();
}

#[test]
fn a_device_that_nobody_wants() {
    let Some(siege) = Siege::begin("a_device_that_nobody_wants") else { return };
    let socket = siege.system.socket("vmmd.sock");
    let hello = std::fs::read(siege.image("hello")).unwrap();
    let nets = |name| [Bridge { name, bridge: Some("nobridge"), mac: None }];
    for (name, words) in
        [("service", "the host has no bridge nobridge"), ("", "name of a device"), ("a b", "name of a device")]
    {
        let bridges = nets(name);
        let wish = Wish { bridges: &bridges, ..Wish::of(&hello) };
        // At the root no policy names bridges, but the host has to have them.
        let answer = Raw::connect(&socket).ask("stray", wish.command());
        assert!(answer.reason().contains(words), "{name}: {answer:?}");
    }
    let evil = [Bridge { name: "service", bridge: Some("../../x"), mac: None }];
    let answer = Raw::connect(&socket).ask("stray", Wish { bridges: &evil, ..Wish::of(&hello) }.command());
    assert!(answer.reason().contains("bridge"), "{answer:?}");
    let far = Wish { cpus: &[1000], ..Wish::of(&hello) };
    let answer = Raw::connect(&socket).ask("stray", far.command());
    assert!(answer.reason().contains("the host has no CPU 1000"), "{answer:?}");
    let destroy = Command::Unikernel(UnikernelCommand::Destroy);
    assert!(Raw::connect(&socket).ask("stray", destroy).reason().contains("not found"));
    siege.end();
}
