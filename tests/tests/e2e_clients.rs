//! The clients from afar against the real daemons: what `vmmc_local` says, `vmmc_bistro` and `vmmc_remote` say too.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use fulmar_tests::siege;
use fulmar_tests::system::{self, System, wait_until};
use nix::sys::signal::Signal;

/// A system with a CA in `ca/`, a delegation `shop`, and all daemons.
struct Host {
    system: System,
    programs: PathBuf,
    address: SocketAddr,
}

/// What a program has said, and its exit code.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    code: i32,
    out: String,
    error: String,
}

impl Host {
    fn begin(test: &str) -> Option<Self> {
        let programs = siege::programs(test)?;
        let mut system = System::new(system::make_folder("clients").unwrap(), programs.clone()).unwrap();
        fs::copy(programs.join("guests/hello.spt"), system.folder().join("hello.spt")).unwrap();
        system.start_vmmd(&[]).unwrap();
        system.start_console().unwrap();
        system.start_stats(&["--interval".as_ref(), "0.5".as_ref()]).unwrap();
        system.start_log(&[]).unwrap();
        let mut host = Self { system, programs, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        host.done("vmmp_ca", &["generate", "--folder", "ca"]);
        let folder = host.system.folder().join("ca");
        host.address =
            host.system.start_tls_with(&folder, &["--ip", "127.0.0.1", "--port", "0"].map(OsStr::new)).unwrap();
        host.done("vmmp_request", &["add-policy", "shop", "4", "--mem", "256", "--cpu", "0", "--block", "10"]);
        host.done("vmmp_ca", &["sign", "shop.req", "--folder", "ca", "--yes"]);
        Some(host)
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(words).current_dir(self.system.folder()).stdin(Stdio::null());
        command.env("FULMAR_RUN", self.system.run());
        command
    }

    fn run(&self, program: &str, words: &[&str]) -> Said {
        let output = self.command(program, words).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), out: text(output.stdout), error: text(output.stderr) }
    }

    fn done(&self, program: &str, words: &[&str]) -> String {
        let said = self.run(program, words);
        assert_eq!(said.code, 0, "{program} {words:?}: {said:?}\n{}", self.system.log("vmmd_tls"));
        said.out
    }

    fn local(&self, words: &[&str]) -> Said {
        self.run("vmmc_local", words)
    }

    /// By the CA's own key, or by that of `holder`.
    fn bistro(&self, holder: Option<&str>, words: &[&str]) -> Said {
        let [cert, key] = match holder {
            None => ["ca/cacert.pem".to_owned(), "ca/ca.key".to_owned()],
            Some(holder) => [format!("{holder}.pem"), format!("{holder}.key")],
        };
        let identity = ["--ca", "ca/cacert.pem", "--cert", &cert, "--key", &key];
        self.run("vmmc_bistro", &[&identity[..], &[&self.address.to_string()], words].concat())
    }

    /// By a certificate that `shop` has signed for these words.
    fn remote(&self, words: &[&str], options: &[&str]) -> Said {
        let _ = ["one.req", "one.pem"].map(|file| fs::remove_file(self.system.folder().join(file)));
        self.done("vmmp_request", &[&["--request", "one.req", "--key", "one.key"], words].concat());
        self.done("vmmp_ca", &["sign", "one.req", "--cert", "shop.pem", "--yes"]);
        let identity = ["--ca", "ca/cacert.pem", "--cert", "one.pem", "--key", "one.key"];
        self.run("vmmc_remote", &[&identity[..], &[&self.address.to_string()], options].concat())
    }

    /// The same words on the host, by the CA and by the delegation: the same is said.
    fn same(&self, words: &[&str]) -> Said {
        let local = self.local(words);
        assert_eq!(nameless(self.bistro(None, words)), local, "{words:?} by the CA");
        assert_eq!(nameless(self.bistro(Some("shop"), words)), local, "{words:?} by shop");
        local
    }
}

/// Without the name of the program that has said it.
fn nameless(said: Said) -> Said {
    let error = said.error.replace("vmmc_bistro: ", "vmmc_local: ").replace("vmmc_remote: ", "vmmc_local: ");
    Said { error, ..said }
}

/// Somebody who follows something, and the first line of it; of several consoles, of each.
struct Follower {
    child: Child,
    out: BufReader<ChildStdout>,
    first: String,
}

impl Follower {
    fn begin(host: &Host, program: &str, words: &[&str]) -> Self {
        let mut command = host.command(program, words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        let names: Vec<_> = words.iter().filter(|word| word.starts_with("shop:")).collect();
        let has_begun = |first: &str, name: &str| first.lines().any(|line| line.starts_with(name));
        while first.is_empty() || names.len() > 1 && !names.iter().all(|name| has_begun(&first, name)) {
            let read = out.read_line(&mut first).unwrap();
            assert_ne!(read, 0, "{words:?}: {first} {}", host.system.log("vmmd_tls"));
        }
        Self { child, out, first }
    }

    fn end(mut self) -> Said {
        let mut out = self.first;
        self.out.read_to_string(&mut out).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Said { code: output.status.code().unwrap(), out, error: String::from_utf8(output.stderr).unwrap() }
    }
}

#[test]
fn a_stream_that_ends_is_said_alike_here_and_from_afar() {
    let Some(mut host) = Host::begin("a_stream_that_ends_is_said_alike_here_and_from_afar") else { return };
    for name in ["shop:web", "shop:other"] {
        assert_eq!(host.local(&["create", name, "hello.spt", "--mem", "16"]).code, 0);
    }
    let expect_ended = |said: Said, daemon: &str| {
        let text = format!(
            "vmmc_local: the stream has ended, {daemon} or the way to it was closed: see {daemon}'s log, and follow again\n"
        );
        // Who asked before the console was there has been told that before.
        assert!(nameless(said.clone()).error.ends_with(&text) && said.code == 121, "{said:?}");
    };
    let address = host.address.to_string();
    let place = ["--ca", "ca/cacert.pem", "--cert", "shop.pem", "--key", "shop.key", &address];
    for (daemon, words) in [
        ("vmmd_console", &["console", "shop:web"][..]),
        ("vmmd_console", &["console", "shop:web", "shop:other"]),
        ("vmmd_stats", &["stats", "shop:web"]),
        ("vmmd_log", &["log", "--follow"]),
    ] {
        let local = Follower::begin(&host, "vmmc_local", words);
        let far = Follower::begin(&host, "vmmc_bistro", &[&place[..], words].concat());
        host.system.end(daemon, Signal::SIGTERM).unwrap();
        for follower in [local, far] {
            expect_ended(follower.end(), daemon);
        }
        match daemon {
            "vmmd_console" => host.system.start_console(),
            "vmmd_stats" => host.system.start_stats(&["--interval".as_ref(), "0.5".as_ref()]),
            _ => host.system.start_log(&[]),
        }
        .unwrap();
        assert!(wait_until(|| host.system.log("vmmd").matches("is here").count() > 3), "{}", host.system.log("vmmd"));
    }
    // The end of what is between is one too.
    let words = ["log", "--follow"];
    let far = Follower::begin(&host, "vmmc_bistro", &[&place[..], &words].concat());
    host.system.end("vmmd_tls", Signal::SIGKILL).unwrap();
    expect_ended(far.end(), "vmmd_log");
    // Who is thrown out is told by whom.
    let mut followers = (0..7).map(|_| Follower::begin(&host, "vmmc_local", &["console", "shop:web"]));
    let first = followers.next().unwrap();
    let mut others: Vec<Follower> = followers.collect();
    let said = first.end();
    assert!(
        said.out.ends_with("[the console goes on, but 6 newer subscribers have its places: subscribe again]\n"),
        "{said:?}"
    );
    expect_ended(said, "vmmd_console");
    for other in &mut others {
        other.child.kill().unwrap();
        other.child.wait().unwrap();
    }
    host.system.stop().unwrap();
}

#[test]
fn all_say_the_same() {
    let Some(host) = Host::begin("all_say_the_same") else { return };
    let created = host.bistro(Some("shop"), &["create", "shop:web", "hello.spt", "--mem", "16"]);
    assert_eq!((created.code, created.out.as_str()), (0, "shop:web: created unikernel\n"), "{created:?}");
    let again = ["create", "shop:web", "hello.spt", "--mem", "16"];
    assert_eq!(host.same(&again).code, 117);
    assert_eq!(host.same(&["create", "shop:big", "hello.spt", "--mem", "512"]).code, 117);
    assert_eq!(host.bistro(None, &["add-block", "shop:data", "2"]).out, "shop:data: added block device\n");
    for words in [
        &["info", "shop:", "--json"][..],
        &["info", "shop:web", "--json"],
        &["info", "shop:other"],
        &["policy", "shop"],
        &["policy", "shop", "--json"],
        &["block", "shop:"],
        &["block", "shop:data"],
        &["inactive-consoles", "shop"],
        &["destroy", "shop:other"],
        &["restart", "shop:other"],
        &["get", "shop:other"],
        &["remove-block", "shop:other"],
        &["create", "shop:x", "nothing.spt"],
        &["create", "shop:x", "hello.spt", "--net", "service:br0"],
    ] {
        host.same(words);
    }
    let info = |said: Said| (said.code, said.out);
    for (words, path) in [
        (&["policy"][..], &["policy", "shop"][..]),
        (&["block"], &["block", "shop:"]),
        (&["inactive-consoles"], &["inactive-consoles", "shop"]),
    ] {
        assert_eq!(info(host.remote(words, &[])), info(host.local(path)), "{words:?}");
        // One who holds a path is asked about that.
        assert_eq!(info(host.bistro(Some("shop"), words)), info(host.local(path)), "{words:?}");
    }
    let lines = host.remote(&["info"], &["--json"]);
    assert!(lines.code == 0 && lines.out.contains("\"name\": \"shop:web\""), "{lines:?}");
    assert_eq!(host.remote(&["restart", "web"], &[]).out, "shop:web: created unikernel\n");
    let destroyed = host.remote(&["destroy", "other"], &[]);
    assert_eq!(nameless(destroyed), host.local(&["destroy", "shop:other"]));
    let stats = host.bistro(Some("shop"), &["stats", "--count", "1", "--json"]);
    assert!(stats.code == 0 && stats.out.contains("\"name\":\"shop:web\""), "{stats:?}");
    let log = host.bistro(Some("shop"), &["log", "--count", "100", "--only", "change"]);
    assert!(log.code == 0 && log.out.contains("shop:web: created unikernel"), "{log:?}");
    let top = host.bistro(Some("shop"), &["top", "--once"]);
    assert!(top.code == 0 && top.out.contains("shop:web"), "{top:?}");
    assert_eq!(host.bistro(Some("shop"), &["destroy", "shop:web"]).out, "shop:web: destroyed unikernel\n");
    host.system.stop().unwrap();
}

#[test]
fn a_manifest_is_deployed_from_afar() {
    let Some(host) = Host::begin("a_manifest_is_deployed_from_afar") else { return };
    let put = |text: &str| fs::write(host.system.folder().join("shop.toml"), text).unwrap();
    let manifest = "path = \"shop\"\n[block.data]\nsize = 1\n[unikernel.web]\nimage = \"hello.spt\"\nmemory = 16\n";
    put(manifest);
    let deploy = |holder, option| nameless(host.bistro(holder, &["deploy", "shop.toml", option]));
    assert_eq!(deploy(Some("shop"), "--dry-run"), nameless(host.local(&["deploy", "shop.toml", "--dry-run"])));
    let done = deploy(Some("shop"), "--yes");
    assert!(done.code == 0 && done.out.ends_with("create unikernel shop:web: done\n"), "{done:?}");
    for holder in [None, Some("shop")] {
        let again = deploy(holder, "--yes");
        assert_eq!((again.code, again.out.as_str()), (0, "nothing to do: 2 as wanted\n"), "{again:?}");
    }
    // What is beyond the path of the certificates is said before anything is tried.
    put(&manifest.replace("\"shop\"", "\"store\""));
    let refused = deploy(Some("shop"), "--yes");
    let wanted = "line 4: unikernel store:web: it is not below shop:, and you may change nothing else";
    assert!(refused.code == 124 && refused.error.contains(wanted), "{refused:?}");
    // An image that somebody else's unikernel runs is not there for this holder.
    host.done("vmmc_local", &["add-policy", "store", "1", "--mem", "32", "--cpu", "0"]);
    host.done("vmmc_local", &["create", "store:web", "hello.spt", "--mem", "16"]);
    host.done("vmmc_local", &["destroy", "shop:web"]);
    let listed: serde_json::Value = serde_json::from_str(&host.local(&["info", "store:web", "--json"]).out).unwrap();
    let digest = listed["unikernels"][0]["digest"].as_str().unwrap();
    put(&manifest.replace("\"hello.spt\"", &format!("{{ digest = \"{digest}\" }}")));
    let refused = deploy(Some("shop"), "--yes");
    assert!(refused.code == 124 && refused.error.contains("but there are none"), "{refused:?}");
    let text = fs::read_to_string(host.system.folder().join("shop.toml")).unwrap();
    put(&text.replace("[block", "[policy.team]\nunikernels = 1\nmemory = 32\ncpus = [0]\n[block"));
    let done = deploy(None, "--yes");
    let wanted = "set policy shop:team: done\ncreate unikernel shop:web: done\n";
    assert!(done.code == 0 && done.out.ends_with(wanted), "{done:?}");
    assert_eq!(deploy(Some("shop"), "--dry-run").code, 0);
    host.system.stop().unwrap();
}

#[test]
fn images_and_contents_come_back_as_they_went() {
    let Some(host) = Host::begin("images_and_contents_come_back_as_they_went") else { return };
    let folder = host.system.folder().to_owned();
    let image = fs::read(folder.join("hello.spt")).unwrap();
    let content: Vec<u8> = (0..2_u32 << 20).map(|at| (at / 3) as u8).collect();
    fs::write(folder.join("disk.img"), &content).unwrap();
    for level in ["0", "9"] {
        let created = host.bistro(
            Some("shop"),
            &["create", "shop:a", "hello.spt", "--mem", "16", "--compression-level", level, "--force"],
        );
        assert_eq!(created.code, 0, "{created:?}");
        let create = host.remote(
            &["create", "b", "hello.spt", "--mem", "16", "--compression-level", level, "--force"],
            &["--image", "hello.spt"],
        );
        assert_eq!((create.code, create.out.as_str()), (0, "shop:b: created unikernel\n"), "{create:?}");
        let [got, copy] = [format!("got{level}"), format!("copy{level}")];
        let get = host.bistro(None, &["get", "shop:b", "--output", &got, "--compression-level", level]);
        assert_eq!(get.code, 0, "{get:?}");
        let get = host.remote(&["get", "a", "--compression-level", level], &["--output", &copy]);
        assert_eq!(get.code, 0, "{get:?}");
        assert!(fs::read(folder.join(&got)).unwrap() == image && fs::read(folder.join(&copy)).unwrap() == image);
        let disk = format!("disk{level}");
        assert_eq!(host.bistro(Some("shop"), &["add-block", &format!("shop:{disk}"), "2"]).code, 0);
        let set =
            host.remote(&["set-block", &disk, "disk.img", "--compression-level", level], &["--content", "disk.img"]);
        assert_eq!((set.code, set.out), (0, format!("shop:{disk}: set block device\n")), "{}", set.error);
        let set = host
            .bistro(Some("shop"), &["set-block", &format!("shop:{disk}"), "disk.img", "--compression-level", level]);
        assert_eq!(set.code, 0, "{set:?}");
        let dump =
            host.remote(&["dump-block", &disk, "--compression-level", level], &["--output", &format!("dump{level}")]);
        assert_eq!(dump.code, 0, "{dump:?}");
        assert!(fs::read(folder.join(format!("dump{level}"))).unwrap() == content);
    }
    // A content that does not fit is refused while it is on its way.
    fs::write(folder.join("large.img"), vec![7; 40 << 20]).unwrap();
    let set = host.bistro(Some("shop"), &["set-block", "shop:disk0", "large.img"]);
    assert_eq!((set.code, set.error.contains("shop:disk0: ")), (117, true), "{set:?}");
    host.system.stop().unwrap();
}

#[test]
fn refusals_are_told_apart() {
    let Some(mut host) = Host::begin("refusals_are_told_apart") else { return };
    host.done("vmmp_ca", &["generate", "--folder", "other"]);
    let place = host.address.to_string();
    let identity = |ca: &'static str, cert: &'static str, key: &'static str| ["--ca", ca, "--cert", cert, "--key", key];
    let own = identity("ca/cacert.pem", "shop.pem", "shop.key");
    // Of another CA: each side finds out.
    let said = host.run(
        "vmmc_bistro",
        &[&identity("other/cacert.pem", "other/cacert.pem", "other/ca.key")[..], &[&place, "info"]].concat(),
    );
    assert_eq!(said.code, 120, "{said:?}");
    let said = host
        .run("vmmc_bistro", &[&identity("other/cacert.pem", "shop.pem", "shop.key")[..], &[&place, "info"]].concat());
    assert_eq!((said.code, said.error.contains("unknown issuer")), (116, true), "{said:?}");
    // Below the path, within the policy.
    let said = host.bistro(Some("shop"), &["info", "other:"]);
    assert_eq!(said.code, 124, "{said:?}");
    let said = host.bistro(Some("shop"), &["add-policy", "shop:big", "4", "--mem", "1024", "--cpu", "0"]);
    assert_eq!((said.code, said.error.contains("256 MB")), (117, true), "{said:?}");
    // Revoked: from the reply on, also for what was signed before.
    host.done("vmmp_request", &["info"]);
    host.done("vmmp_ca", &["sign", "request.req", "--cert", "shop.pem", "--yes"]);
    let remote = [&identity("ca/cacert.pem", "request.pem", "request.key")[..], &[&place]].concat();
    assert_eq!(host.run("vmmc_remote", &remote).code, 0);
    host.done("vmmp_ca", &["revoke", "shop", "--folder", "ca"]);
    assert_eq!(host.bistro(None, &["revoke", "ca/cacert.crl"]).out, ": revoked\n");
    for said in [host.run("vmmc_remote", &remote), host.bistro(Some("shop"), &["info"])] {
        assert_eq!((said.code, said.error.contains("is revoked")), (117, true), "{said:?}");
    }
    // An old list does not take the place of a newer one.
    fs::copy(host.system.folder().join("ca/cacert.crl"), host.system.folder().join("old.crl")).unwrap();
    host.done("vmmp_ca", &["revoke", "--folder", "ca"]);
    assert_eq!(host.bistro(None, &["revoke", "ca/cacert.crl"]).code, 0);
    let said = host.bistro(None, &["revoke", "old.crl"]);
    assert_eq!((said.code, said.error.contains("there is a newer list")), (117, true), "{said:?}");
    assert_eq!(host.run("vmmc_bistro", &[&own[..], &[&place, "info"]].concat()).code, 117);
    // Nobody there.
    host.system.end("vmmd_tls", nix::sys::signal::Signal::SIGTERM).unwrap();
    let said = host.bistro(None, &["info"]);
    assert_eq!((said.code, said.error.contains("nothing was sent")), (122, true), "{said:?}");
    host.system.stop().unwrap();
}
