//! `vmmc_local deploy` with the real daemons and guests: plans, what becomes of them, and what is said of a manifest that cannot be.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fulmar_tests::bridge::with_bridge;
use fulmar_tests::pki::{Issuer, basic_constraints, element, extended_usage, extension, pem};
use fulmar_tests::siege::{Said, Siege, files, said, tenders};
use nix::pty::openpty;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::version::TLS13;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

/// Puts a manifest and the images of guests into a folder of the test.
fn put(siege: &Siege, manifest: &str) -> String {
    let folder = siege.system.folder().join("deploy");
    fs::create_dir_all(&folder).unwrap();
    for guest in ["hello", "spin", "block", "echo"] {
        fs::copy(siege.image(guest), folder.join(format!("{guest}.spt"))).unwrap();
    }
    let path = folder.join("manifest.toml");
    fs::write(&path, manifest).unwrap();
    path.to_string_lossy().into_owned()
}

fn deploy(siege: &Siege, file: &str, options: &[&str]) -> Said {
    let mut command = siege.system.client(&["deploy", file]);
    // What the machine has for others does not lead to a server of this test.
    command.env("NO_PROXY", "127.0.0.1").env("TMPDIR", siege.system.folder().join("deploy"));
    said(&command.args(options).stdin(Stdio::null()).output().unwrap())
}

fn hex_of(path: &str) -> String {
    Sha256::digest(fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

const PLAIN: &str = r#"
path = "siege:shop"

[block.data]
size = 1

[unikernel.spin]
image = "spin.spt"
memory = 16
after = ["disk"]

[unikernel.disk]
image = "block.spt"
memory = 16
blocks.storage = "data"
arguments = ["--write=7"]
"#;

#[test]
fn a_manifest_becomes_what_is_there() {
    let Some(siege) = Siege::begin("a_manifest_becomes_what_is_there") else { return };
    // The siege's own policy has room for one.
    let host = ["add-policy", "siege:", "4", "--mem", "200", "--cpu", "0", "--block", "4"];
    assert_eq!(siege.client(&host).code, 0);
    let manifest = PLAIN.replace("disk", "other").replace("block.spt", "spin.spt");
    let manifest = manifest.replace("blocks.storage = \"data\"\n", "");
    let file = put(&siege, &manifest);
    let plan = "add block siege:shop:data\ncreate unikernel siege:shop:other\ncreate unikernel siege:shop:spin\n3 changes, 0 as wanted already\n";
    // A plan alone changes nothing, nor does a question that nobody can answer.
    let dry = deploy(&siege, &file, &["--dry-run"]);
    assert_eq!((dry.code, dry.out.as_str()), (1, plan), "{dry:?}");
    let asked = deploy(&siege, &file, &[]);
    assert_eq!(asked.code, 124, "{asked:?}");
    assert!(asked.out == plan && asked.err.contains("add --yes to apply the plan"), "{asked:?}");
    let diff = deploy(&siege, &file, &["--diff"]);
    assert!(diff.code == 1 && diff.out.contains("  + memory: 16 MB\n"), "{diff:?}");
    assert!(siege.names().is_empty());
    let done = deploy(&siege, &file, &["--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.ends_with(
        "add block siege:shop:data: done\ncreate unikernel siege:shop:other: done\ncreate unikernel siege:shop:spin: done\n"
    ), "{done:?}");
    let running = siege.expect_listed_runs_once();
    assert_eq!(running.len(), 2);
    // Again: nothing to do, whatever way it is asked, and nothing is touched.
    for options in [&["--yes"][..], &["--dry-run"], &["--diff"], &[]] {
        let again = deploy(&siege, &file, options);
        assert_eq!((again.code, again.out.as_str()), (0, "nothing to do: 3 as wanted\n"), "{again:?}");
    }
    let again: serde_json::Value = serde_json::from_str(&deploy(&siege, &file, &["--dry-run", "--json"]).out).unwrap();
    assert_eq!((&again["changes"], &again["unchanged"]), (&serde_json::json!([]), &serde_json::json!(3)));
    assert_eq!(siege.expect_listed_runs_once(), running);

    // One that changes is replaced; the other runs on.
    let changed = put(&siege, &manifest.replace("[\"--write=7\"]", "[\"--write=8\", \"x y\"]"));
    let done = deploy(&siege, &changed, &["--yes"]);
    let plan = "replace unikernel siege:shop:other\n  arguments: --write=7 -> --write=8 'x y'\n1 change, 2 as wanted already\n";
    assert!(done.code == 0 && done.out.starts_with(plan), "{done:?}");
    let after = siege.expect_listed_runs_once();
    assert_eq!(after["siege:shop:spin"], running["siege:shop:spin"]);
    assert_ne!(after["siege:shop:other"], running["siege:shop:other"]);
    assert_eq!(deploy(&siege, &changed, &["--yes"]).out, "nothing to do: 3 as wanted\n");

    // What is no longer in it goes when that is said, below the path alone.
    assert_eq!(siege.client(&["create", "siege:apart", &siege.image("spin"), "--mem", "16"]).code, 0);
    let fewer = put(&siege, "path = \"siege:shop\"\n[unikernel.spin]\nimage = \"spin.spt\"\nmemory = 16\n");
    let left = deploy(&siege, &fewer, &["--yes"]);
    assert!(
        left.code == 0 && left.out.contains("leave unikernel siege:shop:other: it is not in the manifest"),
        "{left:?}"
    );
    let pruned = deploy(&siege, &fewer, &["--yes", "--prune"]);
    assert!(pruned.code == 0 && pruned.out.contains("destroy unikernel siege:shop:other: done"), "{pruned:?}");
    assert!(pruned.out.contains("leave block siege:shop:data"), "{pruned:?}");
    assert_eq!(siege.names(), ["siege:shop:spin", "siege:apart"]);
    let everything = put(&siege, "[unikernel.spin]\nimage = \"spin.spt\"\n");
    let refused = deploy(&siege, &everything, &["--yes", "--prune"]);
    assert!(refused.code == 124 && refused.err.contains("add path = \"PATH:\" to the manifest"), "{refused:?}");
    for name in ["siege:apart", "siege:shop:spin"] {
        assert_eq!(siege.client(&["destroy", name]).code, 0);
    }
    assert_eq!(siege.client(&["remove-block", "siege:shop:data"]).code, 0);
    siege.system.stop().unwrap();
}

#[test]
fn what_cannot_be_changes_nothing() {
    let Some(siege) = Siege::begin("what_cannot_be_changes_nothing") else { return };
    assert_eq!(siege.client(&["add-policy", "siege:shop:", "1", "--mem", "20", "--cpu", "0"]).code, 0);
    for (from, to, wanted) in [
        // All that is wrong is said at once, each with its line.
        ("", "", "line 4: the policy of siege: allows 0 MB of block storage of 1 MB"),
        ("", "", "line 12: the policy of siege:shop: allows 1 unikernels of 2"),
        ("", "", "line 12: the policy of siege:shop: allows 20 MB of memory of 32 MB"),
        (
            "blocks.storage = \"data\"",
            "",
            "line 13: unikernel siege:shop:disk: image: block device storage is missing: add blocks.storage = \"DEVICE\", there are data",
        ),
        (
            "spin.spt\"",
            "spin.spt\"\nnetworks.net = \"br77\"",
            "line 7: unikernel siege:shop:spin: the host has no bridge br77, but",
        ),
        (
            "spin.spt\"",
            "spin.spt\"\nnetworks.net = \"br77\"",
            "it has no net device net, but none: leave out networks.net",
        ),
        ("spin.spt", "none.spt", "line 8: unikernel siege:shop:spin: image: "),
        ("spin.spt", "manifest.toml", "line 8: unikernel siege:shop:spin: image: "),
        ("memory = 16\nblocks", "memory = 1\nblocks", "it needs more than 1 MB of memory: write memory ="),
        ("after = [\"disk\"]", "after = [\"dusk\"]", "it waits for siege:shop:dusk, which is not in this manifest"),
        ("size = 1", "sise = 1", "line 5: block data: there is no key 'sise', but size"),
        (
            "\"spin.spt\"",
            "{ digest = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\" }",
            "no unikernel here has 001122334455, but there are none",
        ),
    ] {
        let file = put(&siege, &PLAIN.replacen(from, to, 1));
        let refused = deploy(&siege, &file, &["--yes"]);
        assert_eq!(refused.code, 124, "{refused:?}");
        assert!(
            refused.err.contains("nothing was changed") && refused.err.contains(wanted),
            "{wanted}\n{}",
            refused.err
        );
    }
    assert!(siege.names().is_empty() && tenders(siege.system.folder()).is_empty());
    assert_eq!(siege.client(&["remove-policy", "siege:shop:"]).code, 0);
    siege.end();
}

#[test]
fn a_failure_in_the_middle_is_gone_on_with() {
    let Some(siege) = Siege::begin("a_failure_in_the_middle_is_gone_on_with") else { return };
    assert_eq!(siege.client(&["add-policy", "siege:", "2", "--mem", "96", "--cpu", "0", "--block", "4"]).code, 0);
    let manifest = |large: &str, small: &str| {
        let of = |name: &str, mb: &str| format!("[unikernel.{name}]\nimage = \"spin.spt\"\nmemory = {mb}\n");
        put(
            &siege,
            &format!("path = \"siege:\"\n[block.data]\nsize = 1\n{}{}", of("grows", large), of("shrinks", small)),
        )
    };
    assert_eq!(deploy(&siege, &manifest("16", "64"), &["--yes"]).code, 0);
    // In the end it fits, on the way it does not.
    let file = manifest("64", "16");
    fs::write(
        &file,
        fs::read_to_string(&file).unwrap().replace("[block.data]", "[block.more]\nsize = 1\n[block.data]"),
    )
    .unwrap();
    let stopped = deploy(&siege, &file, &["--yes"]);
    assert_eq!(stopped.code, 117, "{stopped:?}");
    for part in [
        "replace unikernel siege:grows: failed",
        "not tried: replace unikernel siege:shrinks",
        "1 of 3 done, which stay: mend the cause and deploy again",
        "siege:grows",
    ] {
        assert!(stopped.err.contains(part), "{part}\n{stopped:?}");
    }
    assert!(stopped.out.ends_with("add block siege:more: done\n"), "{stopped:?}");
    let document = deploy(&siege, &file, &["--yes", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&document.out).unwrap();
    assert_eq!(document["changes"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(document["changes"][0]["done"], false);
    // Mended, it goes on.
    assert_eq!(siege.client(&["destroy", "siege:shrinks"]).code, 0);
    let done = deploy(&siege, &file, &["--yes"]);
    assert!(done.code == 0 && done.out.contains("2 changes, 2 as wanted already"), "{done:?}");
    assert_eq!(deploy(&siege, &file, &["--dry-run"]).code, 0);
    siege.system.stop().unwrap();
}

/// Answers each request with the next of these, in the old way, in which the end of a connection is the end of an answer.
fn serve(answers: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream).unwrap();
            // Who has enough hangs up.
            let _ = stream.write_all(&answer);
        }
    });
    port
}

fn read_request(stream: &mut impl Read) -> io::Result<()> {
    let (mut request, mut piece) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => request.extend_from_slice(&piece[..count]),
        }
    }
    Ok(())
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.0 {head}\r\n\r\n").as_bytes(), body].concat()
}

#[test]
fn images_come_from_elsewhere() {
    let Some(siege) = Siege::begin("images_come_from_elsewhere") else { return };
    assert_eq!(siege.client(&["add-policy", "siege:", "4", "--mem", "200", "--cpu", "0"]).code, 0);
    let image = fs::read(siege.image("spin")).unwrap();
    let digest = hex_of(&siege.image("spin"));
    let moved = "302 Found\r\nLocation: /further";
    let length = format!("200 OK\r\nContent-Length: {}", image.len() + 1);
    let port = serve(vec![
        answer("404 Not Found", b"none"),
        answer("200 OK", b"something else"),
        answer(&length, &image),
        answer(&format!("200 OK\r\nContent-Length: {}", (256 << 20) + 1), &vec![0; (256 << 20) + 1]),
        answer(moved, b""),
        answer(moved, b""),
        answer(moved, b""),
        answer(moved, b""),
        answer(moved, b""),
        answer(moved, b""),
        answer(moved, b""),
        answer("200 OK", &image),
    ]);
    let url = format!("http://127.0.0.1:{port}/web.spt");
    let of = |name: &str, image: &str| format!("[unikernel.{name}]\nimage = {{ {image} }}\nmemory = 16\n");
    let by_url = of("web", &format!("url = \"{url}\", sha256 = \"{digest}\""));
    let manifest = |unikernels: &str| put(&siege, &format!("path = \"siege:\"\n{unikernels}"));
    for wanted in ["404", "what came has another SHA-256", &url, "larger than an image can be"] {
        let refused = deploy(&siege, &manifest(&by_url), &["--yes"]);
        assert!(refused.code == 124 && refused.err.contains(wanted), "{wanted}: {refused:?}");
        assert!(refused.err.contains("line 3: unikernel siege:web: image: "), "{refused:?}");
    }
    // Sent on and on: that has an end, after the first request and five more.
    let refused = deploy(&siege, &manifest(&by_url), &["--yes"]);
    assert!(refused.code == 124 && refused.err.contains("redirect"), "{refused:?}");
    // One redirect more is left for the next, which is sent on once and gets the image.
    let done = deploy(&siege, &manifest(&by_url), &["--yes"]);
    assert_eq!(done.code, 0, "{done:?}");
    // What is there need not be fetched: nobody listens any more.
    assert_eq!(deploy(&siege, &manifest(&by_url), &["--yes"]).out, "nothing to do: 1 as wanted\n");
    let both = by_url + &of("copy", &format!("digest = \"{}\"", digest.to_uppercase()));
    let done = deploy(&siege, &manifest(&both), &["--yes"]);
    assert!(done.code == 0 && done.out.ends_with("create unikernel siege:copy: done\n"), "{done:?}");
    let listed: serde_json::Value = serde_json::from_str(&siege.client(&["info", "siege:copy", "--json"]).out).unwrap();
    assert_eq!(listed["unikernels"][0]["digest"], digest);
    // Nothing is left of what was fetched.
    let left = files(&siege.system.folder().join("deploy"));
    assert!(!left.iter().any(|file| file.starts_with("vmmc_deploy.")), "{left:?}");
    siege.system.stop().unwrap();
}

/// As [`serve`], over TLS, with a certificate for 127.0.0.1 that this CA has signed.
fn serve_by_tls(ca: &Issuer, answers: Vec<Vec<u8>>) -> u16 {
    // id-kp-serverAuth; subjectAltName, an address.
    let purpose = extended_usage(&[0x2b, 6, 1, 5, 5, 7, 3, 1]);
    let address = extension(&[0x55, 0x1d, 0x11], false, &element(0x30, &[&element(0x87, &[&[127, 0, 0, 1]])]));
    let any = fulmar_core::wire::Command::Host;
    let server = ca.leaf_by("server", any, |draft| draft.extensions = vec![basic_constraints(false), purpose, address]);
    let chain = vec![CertificateDer::from(server.chain[0].clone())];
    let key = PrivatePkcs8KeyDer::from(server.key.pkcs8.clone()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]).unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // Who does not trust us hangs up.
            if read_request(&mut stream).is_ok() {
                let _ = stream.write_all(&answer);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

#[test]
fn images_come_by_tls_from_who_is_trusted() {
    let Some(siege) = Siege::begin("images_come_by_tls_from_who_is_trusted") else { return };
    let image = fs::read(siege.image("spin")).unwrap();
    let (ca, other) = (Issuer::root("ca"), Issuer::root("other"));
    let port = serve_by_tls(&ca, vec![answer("200 OK", &image); 3]);
    let (url, digest) = (format!("https://127.0.0.1:{port}/"), hex_of(&siege.image("spin")));
    let manifest =
        format!("path = \"siege:\"\n[unikernel.spin]\nimage = {{ url = \"{url}\", sha256 = \"{digest}\" }}\n");
    let file = put(&siege, &(manifest + "memory = 16\n"));
    let with = |certificates: Option<&str>| {
        let mut command = siege.system.client(&["deploy", &file, "--yes"]);
        command.env_remove("SSL_CERT_FILE").env("NO_PROXY", "127.0.0.1").stdin(Stdio::null());
        if let Some(text) = certificates {
            let path = siege.system.folder().join("ca.pem");
            fs::write(&path, text).unwrap();
            command.env("SSL_CERT_FILE", path);
        }
        said(&command.output().unwrap())
    };
    for untrusted in [None, Some(pem("CERTIFICATE", &[&other.der]))] {
        let refused = with(untrusted.as_deref());
        assert!(refused.code == 124 && refused.err.contains("invalid peer certificate"), "{refused:?}");
    }
    let refused = with(Some("none"));
    assert!(refused.code == 124 && refused.err.contains("ca.pem, which has no certificate"), "{refused:?}");
    let done = with(Some(&pem("CERTIFICATE", &[&ca.der])));
    assert!(done.code == 0 && done.out.ends_with("create unikernel siege:spin: done\n"), "{done:?}");
    assert_eq!(siege.client(&["destroy", "siege:spin"]).code, 0);
    siege.end();
}

#[test]
fn a_person_is_asked() {
    let Some(siege) = Siege::begin("a_person_is_asked") else { return };
    let file = put(&siege, "path = \"siege:\"\n[unikernel.spin]\nimage = \"spin.spt\"\nmemory = 16\n");
    for (typed, code, unikernels) in [("n\n", 1, 0), ("\n", 1, 0), ("yes\n", 0, 1)] {
        let terminal = openpty(None, None).unwrap();
        let mut command: Command = siege.system.client(&["deploy", &file]);
        command.stdin(terminal.slave).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut keyboard = File::from(terminal.master);
        keyboard.write_all(typed.as_bytes()).unwrap();
        let ended = said(&child.wait_with_output().unwrap());
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.err.starts_with("apply 1 change? [y/N] "), "{ended:?}");
        assert_eq!(siege.names().len(), unikernels);
    }
    assert_eq!(siege.client(&["destroy", "siege:spin"]).code, 0);
    siege.end();
}

#[test]
fn who_is_linked_shares_a_bridge() {
    const TEST: &str = "who_is_linked_shares_a_bridge";
    with_bridge(TEST, None, |siege, _| {
        let policy = "[policy.shop]\nunikernels = 2\nmemory = 64\ncpus = [0]\nbridges = [\"br0\"]\n";
        let web = "[unikernel.\"shop:web\"]\nimage = \"echo.spt\"\nmemory = 32\nlinks = [\"shop:db\"]\narguments = [\"--ipv4=10.0.0.2/24\"]\n\
                   networks.service = \"br0\"\n";
        let db = "[unikernel.\"shop:db\"]\nimage = \"echo.spt\"\nmemory = 32\narguments = [\"--ipv4=10.0.0.3/24\"]\n\
                  networks.service = { bridge = \"br0\", mac = \"02:00:00:0a:0b:0c\" }\n";
        let all = format!("{policy}{web}{db}");
        let file = put(siege, &all.replace("networks.service = \"br0\"", "networks.service = \"br1\""));
        let refused = deploy(siege, &file, &["--yes"]);
        assert!(
            refused.err.contains("linked with shop:db and they share no bridge: it has br1, shop:db has br0"),
            "{refused:?}"
        );
        let file = put(siege, &all.replace("[\"br0\"]", "[]"));
        let refused = deploy(siege, &file, &["--yes"]);
        assert!(refused.err.contains("the policy of shop: does not allow bridge br0, but none"), "{refused:?}");
        let file = put(siege, &all);
        let done = deploy(siege, &file, &["--yes"]);
        let wanted = "set policy shop: done\ncreate unikernel shop:db: done\ncreate unikernel shop:web: done\n";
        assert!(done.code == 0 && done.out.ends_with(wanted), "{done:?}");
        let again = deploy(siege, &file, &["--yes"]);
        assert_eq!((again.code, again.out.as_str()), (0, "nothing to do: 3 as wanted\n"), "{again:?}");
        let listed = siege.client(&["info", "shop:db", "--json"]).out;
        assert!(listed.contains("02:00:00:0a:0b:0c"), "{listed}");
        // A policy that allows less is set when what is there fits it.
        let less = all.replace("memory = 64", "memory = 40").replace("memory = 32", "memory = 16");
        let done = deploy(siege, &put(siege, &less), &["--yes"]);
        assert!(done.code == 0 && done.out.ends_with("change policy shop: done\n"), "{done:?}");
        assert_eq!(siege.client(&["destroy", "shop:web"]).code + siege.client(&["destroy", "shop:db"]).code, 0);
    });
}
