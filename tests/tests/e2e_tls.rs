//! Clients from afar with the real daemons: whatever a certificate may carry is done as on the host itself, whoever else lives, dies,
//! is slow or goes meanwhile.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};

use fulmar_core::wire::{
    self, BlockCommand, Command, ConsoleCommand, Data, Frame, Image, LogCommand, LogFrom, Message, Payload,
    PolicyCommand, StatsCommand, Success, UnikernelCommand, Window,
};
use fulmar_tests::contents::{DUMP, MB, SET, SET_COMPRESSED, chunks, inflated, padded, sample, zlib};
use fulmar_tests::pki::{Identity, Issuer};
use fulmar_tests::raw::{Answer, Wish};
use fulmar_tests::remote::{Broken, Remote, config};
use fulmar_tests::siege::{kill_9, pid_of};
use fulmar_tests::system::wait_until;
use fulmar_tests::tenants::{
    DESTROY, FOLLOW_LOG, GET, INFO, Tenants, create, create_inline, force_create, policy, restart_with,
};
use nix::sys::signal::{Signal, kill};

const CONSOLE: Command<'static> = Command::Console(ConsoleCommand::Subscribe(Window::Count(100)));
const STATS: Command<'static> = Command::Stats(StatsCommand::Subscribe);
const RESTART: Command<'static> = Command::Unikernel(UnikernelCommand::Restart(None));

fn done(text: &str) -> Answer {
    Answer::Done(text.into())
}

fn created() -> Answer {
    done("created unikernel")
}

fn expect_listing(tenants: &Tenants, issuer: &Issuer) {
    let answer = tenants.ask(&issuer.leaf(".", INFO));
    assert!(matches!(answer, Answer::Other(_)), "{answer:?}");
}

/// Every message up to the end.
fn all(remote: &mut Remote) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| remote.receive_bytes().ok()).collect()
}

fn message(bytes: &[u8]) -> Message<'_> {
    wire::decode(Frame::whole(bytes)).unwrap()
}

/// The only message, which has the sequence 0 and this name.
fn only(tenants: &Tenants, identity: &Identity, name: &str) -> Vec<u8> {
    let mut messages = all(&mut tenants.connect(identity));
    assert_eq!(messages.len(), 1, "{}", tenants.log());
    let only = messages.remove(0);
    let header = message(&only).header;
    assert_eq!((header.sequence, header.name.as_str()), (0, name));
    only
}

#[test]
fn unikernels_are_created_changed_and_destroyed() {
    let Some(tenants) = Tenants::begin("unikernels_are_created_changed_and_destroyed") else { return };
    let a = tenants.ca.delegate("a", policy(3, 128));
    let image = tenants.image("hello");
    let compressed = |compressed| Wish { compressed, memory: 16, ..Wish::of(&[]) }.command();
    assert_eq!(tenants.say(&a.leaf("plain", compressed(false)), &image), created());
    assert_eq!(tenants.say(&a.leaf("squeezed", compressed(true)), &zlib(&image)), created());
    // Within the certificate, as far as it fits.
    assert_eq!(tenants.ask(&a.leaf("inside", create_inline(&image, 16))), created());
    assert_eq!(tenants.siege.names(), ["a:squeezed", "a:plain", "a:inside"]);
    assert!(tenants.create(&a, "plain", 16).reason().contains("same name"));
    for (level, is_compressed) in [(0, false), (9, true)] {
        let get = a.leaf("squeezed", Command::Unikernel(UnikernelCommand::Get { level }));
        let reply = only(&tenants, &get, "a:squeezed");
        let Payload::Success(Success::Image { compressed, image: Image::Inline(got) }) = message(&reply).payload else {
            panic!("{:?}", message(&reply))
        };
        assert_eq!(compressed, is_compressed);
        assert!(if compressed { inflated(got) == image } else { got == image });
    }
    let before = tenants.siege.running();
    assert_eq!(tenants.say(&a.leaf("plain", force_create(32)), &image), created());
    assert_eq!(tenants.ask(&a.leaf("inside", RESTART)), created());
    assert_eq!(tenants.ask(&a.leaf("squeezed", restart_with(32))), created());
    let after = tenants.siege.expect_listed_runs_once();
    assert!(after.iter().all(|(name, pid)| before[name] != [*pid]), "{before:?} {after:?}");
    for (command, words) in [
        (INFO, "Infos"),
        (Command::Unikernel(UnikernelCommand::OldInfo5), "Infos"),
        (Command::Unikernel(UnikernelCommand::OldInfo4), "Infos"),
        (Command::Unikernel(UnikernelCommand::Condition), "Conditions"),
    ] {
        for (label, name) in [("plain", "a:plain"), (".", "a:"), (":", "a:")] {
            let reply = only(&tenants, &a.leaf(label, command), name);
            let reply = format!("{:?}", message(&reply).payload);
            assert!(reply.contains(words) && reply.contains("plain"), "{command:?}: {reply}");
        }
    }
    for label in ["plain", "squeezed", "inside"] {
        assert_eq!(tenants.ask(&a.leaf(label, DESTROY)), done("destroyed unikernel"));
    }
    assert_eq!(tenants.ask(&a.leaf("plain", DESTROY)).reason(), "destroy: not found");
    assert_eq!(tenants.ask(&a.leaf("plain", GET)).reason(), "get: no unikernel found");
    assert_eq!(tenants.ask(&a.leaf("plain", RESTART)).reason(), "restart: not found");
    assert_eq!(tenants.ask(&a.leaf(".", DESTROY)).reason(), "destroy: not found");
    tenants.end();
}

#[test]
fn block_devices_are_made_set_dumped_and_removed() {
    let Some(tenants) = Tenants::begin("block_devices_are_made_set_dumped_and_removed") else { return };
    let a = tenants.ca.delegate("a", policy(1, 16));
    let block = |command| a.leaf("disk", Command::Block(command));
    assert_eq!(tenants.ask(&block(BlockCommand::Add { size: 2 })), done("added block device"));
    let content = sample(MB + 12_345, 3);
    for (set, stream) in [(SET, content.clone()), (SET_COMPRESSED, zlib(&content))] {
        assert_eq!(tenants.say(&a.leaf("disk", SET), &[1; 100]), done("set block device"));
        assert_eq!(tenants.say(&a.leaf("disk", set), &stream), done("set block device"));
        for (level, dump) in [(0, DUMP), (9, Command::Block(BlockCommand::Dump { level: 9 }))] {
            assert!(dumped(&tenants, &a.leaf("disk", dump), level > 0) == padded(&content, 2), "{level}");
        }
    }
    // The older forms, whose content is in the certificate.
    let small = [7; 1000];
    let old = BlockCommand::OldAdd { size: 1, compressed: false, data: Some(Image::Inline(&small)) };
    assert_eq!(tenants.ask(&a.leaf("old", Command::Block(old))), done("added block device"));
    let old = BlockCommand::OldSet { compressed: false, data: Image::Inline(&small[..500]) };
    assert_eq!(tenants.ask(&a.leaf("old", Command::Block(old))), done("set block device"));
    let reply = only(&tenants, &a.leaf("old", Command::Block(BlockCommand::OldDump { level: 0 })), "a:old");
    assert!(reply.len() > MB && reply.windows(502).any(|window| window[..500] == small[..500] && window[500] == 0));
    let listed = only(&tenants, &a.leaf(".", Command::Block(BlockCommand::Info)), "a:");
    let listed = format!("{:?}", message(&listed).payload);
    assert!(listed.contains("disk") && listed.contains("old"), "{listed}");
    let answer = tenants.say(&a.leaf("disk", SET), &[1; 3 * MB]);
    assert!(answer.reason().contains("more than the block device holds"), "{answer:?}");
    assert!(dumped(&tenants, &a.leaf("disk", DUMP), false) == padded(&content, 2));
    for label in ["disk", "old"] {
        assert_eq!(tenants.ask(&a.leaf(label, Command::Block(BlockCommand::Remove))), done("removed block"));
    }
    tenants.end();
}

/// The content that a dump hands out.
fn dumped(tenants: &Tenants, identity: &Identity, is_compressed: bool) -> Vec<u8> {
    let messages = all(&mut tenants.connect(identity));
    let (first, rest) = messages.split_first().unwrap();
    let (last, chunks) = rest.split_last().unwrap();
    assert!(
        matches!(message(first).payload, Payload::Success(Success::BlockImage { compressed }) if compressed == is_compressed)
    );
    assert!(matches!(message(last).payload, Payload::Data(Data::Block(None))));
    let mut content = Vec::new();
    for chunk in chunks {
        let Payload::Data(Data::Block(Some(Image::Inline(bytes)))) = message(chunk).payload else { panic!() };
        content.extend(bytes);
    }
    if is_compressed { inflated(&content) } else { content }
}

#[test]
fn streams_come_as_on_the_host_itself() {
    let Some(mut tenants) = Tenants::begin("streams_come_as_on_the_host_itself") else { return };
    tenants.siege.system.start_log(&[]).unwrap();
    tenants.siege.expect_log("vmmd", "the event log is here");
    tenants.siege.system.start_stats(&["--interval", "0.1"].map(OsStr::new)).unwrap();
    let a = tenants.ca.delegate("a", policy(1, 16));
    // Before there is anything.
    let mut log = tenants.connect(&a.leaf(".", FOLLOW_LOG));
    assert_eq!(log.receive(), Ok(done("subscribed")));
    let mut early = tenants.connect(&a.leaf("one", CONSOLE));
    assert_eq!(early.receive(), Ok(done("waiting for VM")));
    assert_eq!(tenants.create(&a, "one", 16), created());
    let mut late = tenants.connect(&a.leaf("one", CONSOLE));
    assert_eq!(late.receive(), Ok(done("subscribed")));
    for console in [&mut early, &mut late] {
        let line = console.receive_bytes().unwrap();
        assert!(format!("{:?}", message(&line).payload).contains("Hello, World!"), "{:?}", message(&line));
    }
    let mut stats = tenants.connect(&a.leaf("one", STATS));
    assert_eq!(stats.receive(), Ok(done("subscribed")));
    for _ in 0..3 {
        assert!(matches!(message(&stats.receive_bytes().unwrap()).payload, Payload::Data(Data::Stats(_))));
    }
    assert_eq!(tenants.ask(&a.leaf("one", DESTROY)), done("destroyed unikernel"));
    let mut told = String::new();
    let is_told = wait_until(|| {
        told += &format!("{:?}\n", message(&log.receive_bytes().unwrap()).payload);
        ["Login", "a:one", "127.0.0.1", "Ended"].iter().all(|word| told.contains(word))
    });
    assert!(is_told, "{told}");
    // Who has done it is told by the numbers of its certificates, as `vmmp_ca list` has them.
    let delegation: String = a.serial.iter().map(|byte| format!("{byte:02x}")).collect();
    let proof = told.lines().find(|line| line.contains("Proof")).unwrap();
    assert!(proof.contains(&format!("\"{delegation}, ")), "{delegation}: {proof}");
    let window = LogFrom::Window(Window::Count(1000));
    let once = Command::Events(LogCommand { from: window, follow: false });
    assert!(all(&mut tenants.connect(&a.leaf(".", once))).len() > 3);
    let mut old = tenants.connect(&a.leaf(".", Command::Log(Window::Count(3))));
    assert_eq!(old.receive(), Ok(done("subscribed")));
    assert!(matches!(message(&old.receive_bytes().unwrap()).payload, Payload::Data(Data::Log(_))));
    let inactive = a.leaf(".", Command::Console(ConsoleCommand::ListInactive));
    let inactive = tenants.connect(&inactive).receive_bytes().unwrap();
    assert!(matches!(message(&inactive).payload, Payload::Success(Success::Consoles(_))));
    // Whatever a subscriber says ends its subscription.
    for stream in [&mut stats, &mut log] {
        stream.send(b"enough");
        assert!(matches!(stream.receive_to_the_end(), Broken::Closed | Broken::Cut));
    }
    tenants.end();
}

#[test]
fn policies_of_the_chain_grow_shrink_and_are_refused_as_a_whole() {
    let Some(tenants) = Tenants::begin("policies_of_the_chain_grow_shrink_and_are_refused_as_a_whole") else { return };
    let policies = || tenants.siege.client(&["policy", "--json"]).out;
    let listed = |issuer: &Issuer| {
        let reply = only(&tenants, &issuer.leaf(".", Command::Policy(PolicyCommand::Info)), "a:b:");
        format!("{:?}", message(&reply).payload)
    };
    let chain = |above: i64, below: i64| {
        tenants.ca.delegate("a", policy(above, 16 * above)).delegate("b", policy(below, 16 * below))
    };
    for (above, below) in [(2, 1), (4, 4), (3, 2)] {
        let listed = listed(&chain(above, below));
        assert!(listed.contains(&format!("unikernels: {below}, memory: {}", 16 * below)), "{listed}");
    }
    let b = chain(3, 2);
    assert_eq!(tenants.create(&b, "one", 16), created());
    assert_eq!(tenants.create(&b, "two", 16), created());
    let before = policies();
    for (above, below) in [(2, 3), (1, 1), (3, 1)] {
        let answer = tenants.ask(&chain(above, below).leaf(".", INFO));
        assert!(matches!(answer, Answer::Refused(_)), "{above} {below}: {answer:?}");
        assert_eq!(policies(), before);
    }
    // A command that no policy is needed for changes none.
    let console = chain(9, 9).leaf(".", Command::Console(ConsoleCommand::ListInactive));
    assert!(matches!(tenants.ask(&console), Answer::Other(_)));
    assert_eq!(policies(), before);
    assert!(matches!(tenants.ask(&tenants.ca.leaf(".", Command::Host)), Answer::Other(_)));
    assert!(matches!(tenants.ask(&b.leaf(".", Command::Host)), Answer::Refused(_)));
    tenants.end();
}

#[test]
fn clients_come_by_both_families_of_addresses() {
    let Some(mut tenants) = Tenants::begin("clients_come_by_both_families_of_addresses") else { return };
    let info = tenants.ca.leaf(".", INFO);
    let v6 = tenants.start_tls("::1").unwrap();
    assert!(v6.is_ipv6());
    assert!(matches!(tenants.connect_to(v6, &info).receive(), Ok(Answer::Other(_))));
    let both = tenants.start_tls("::").unwrap();
    for ip in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(ip.parse().unwrap(), both.port());
        assert!(matches!(tenants.connect_to(address, &info).receive(), Ok(Answer::Other(_))), "{ip}");
    }
    tenants.end();
}

#[test]
fn certificates_are_read_again_while_connections_stay() {
    let Some(mut tenants) = Tenants::begin("certificates_are_read_again_while_connections_stay") else { return };
    let a = tenants.ca.delegate("a", policy(2, 32));
    // Its policy is set: two at once who set it are told to try again.
    expect_listing(&tenants, &a);
    let mut stream = tenants.connect(&a.leaf("late", CONSOLE));
    assert_eq!(stream.receive(), Ok(done("waiting for VM")));
    let mut upload = tenants.connect(&a.leaf("late", create(16)));
    let image = chunks(&tenants.image("hello"), 1 << 12);
    assert!(upload.send(&image[..5000]));
    let reload = |tenants: &Tenants, line: &str| {
        let count = tenants.log().matches(line).count();
        kill(pid_of(tenants.siege.system.pid("vmmd_tls").unwrap()), Signal::SIGHUP).unwrap();
        assert!(wait_until(|| tenants.log().matches(line).count() > count), "{}", tenants.log());
    };
    // A new server's certificate, of the same CA; by links to another folder, as ACME clients leave them.
    let archive = tenants.file("archive");
    fs::create_dir(&archive).unwrap();
    for file in ["ca.pem", "server.pem", "server.key"] {
        fs::rename(tenants.file(file), archive.join(file)).unwrap();
        symlink(archive.join(file), tenants.file(file)).unwrap();
    }
    tenants.server = tenants.ca.server();
    tenants.write_files();
    reload(&tenants, "the certificates were read again");
    expect_listing(&tenants, &a);
    // A key that is not that of the certificate changes nothing.
    fs::write(tenants.file("server.key"), fulmar_tests::pki::pem("PRIVATE KEY", &[&a.key.pkcs8])).unwrap();
    reload(&tenants, "the certificates stay as they were");
    expect_listing(&tenants, &a);
    // A new CA: who comes from the old one is refused.
    let old = a.leaf(".", INFO);
    tenants.ca = Issuer::root("another");
    tenants.server = tenants.ca.server();
    tenants.write_files();
    reload(&tenants, "the certificates were read again");
    assert!(matches!(tenants.try_ask(&old), Err(Broken::Alert(_))));
    tenants.expect_service();
    // Those who were there have gone on all the time.
    assert!(upload.send(&image[5000..]));
    assert_eq!(upload.receive(), Ok(created()));
    assert!(format!("{:?}", message(&stream.receive_bytes().unwrap()).payload).contains("Hello, World!"));
    tenants.end();
}

/// Serves the next client of this listener as inetd does.
fn serve_one(tenants: &Tenants, listener: &TcpListener) -> Child {
    let socket = || OwnedFd::from(listener.accept().unwrap().0);
    let options = tenants.options();
    let options: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
    let own = socket();
    let log = fs::File::options().create(true).append(true).open(tenants.file("inetd.log")).unwrap();
    let mut command = tenants.siege.system.tls_inetd(&options);
    command.stdin(Stdio::from(own.try_clone().unwrap())).stdout(Stdio::from(own)).stderr(log).spawn().unwrap()
}

#[test]
fn one_client_is_served_on_the_standard_input() {
    let Some(tenants) = Tenants::begin("one_client_is_served_on_the_standard_input") else { return };
    let a = tenants.ca.delegate("a", policy(1, 16));
    for ip in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let ask = |identity: Identity, stream: Vec<u8>| {
            std::thread::scope(|scope| {
                let client = scope.spawn(|| {
                    let mut remote = tenants.connect_to(address, &identity);
                    remote.send(&stream);
                    remote.receive()
                });
                let mut server = serve_one(&tenants, &listener);
                let answer = client.join().unwrap();
                assert!(server.wait().unwrap().success(), "{:?}", fs::read_to_string(tenants.file("inetd.log")));
                answer
            })
        };
        assert_eq!(ask(a.leaf("one", create(16)), chunks(&tenants.image("hello"), 1 << 16)), Ok(created()));
        assert!(matches!(ask(a.leaf(".", INFO), Vec::new()), Ok(Answer::Other(_))));
        assert_eq!(ask(a.leaf("one", DESTROY), Vec::new()), Ok(done("destroyed unikernel")));
        assert!(matches!(ask(Issuer::root("another").leaf(".", INFO), Vec::new()), Err(Broken::Alert(_))));
    }
    // What is no connection is said so.
    let mut command = tenants.siege.system.tls_inetd(&[]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the standard input is no TCP connection"));
    tenants.end();
}

#[test]
fn a_daemon_behind_that_is_dead_or_dies_is_told() {
    let Some(mut tenants) = Tenants::begin("a_daemon_behind_that_is_dead_or_dies_is_told") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64));
    for command in [STATS, FOLLOW_LOG] {
        assert!(tenants.ask(&a.leaf(".", command)).reason().contains("cannot be reached on the host"));
    }
    let mut console = tenants.connect(&a.leaf("one", CONSOLE));
    assert_eq!(console.receive(), Ok(done("waiting for VM")));
    tenants.siege.system.end("vmmd_console", Signal::SIGKILL).unwrap();
    // As a daemon on the host would end it: a client says the same of both.
    assert_eq!(console.receive(), Err(Broken::Closed));
    tenants.siege.system.start_console().unwrap();
    // In the middle of an image: vmmd is killed.
    let image = chunks(&tenants.image("hello"), 1 << 12);
    let mut upload = tenants.connect(&a.leaf("one", create(16)));
    assert!(upload.send(&image[..5000]));
    tenants.expect_service();
    kill_9(tenants.siege.vmmd);
    tenants.siege.system.end("vmmd", Signal::SIGKILL).unwrap();
    assert!(wait_until(|| {
        let answer = tenants.try_ask(&a.leaf(".", INFO));
        matches!(&answer, Ok(Answer::Refused(text)) if text.contains("vmmd"))
    }));
    let answer = upload.receive();
    assert!(matches!(&answer, Ok(Answer::Refused(text)) if text.contains("try again")), "{answer:?}");
    tenants.siege.vmmd = tenants.siege.system.start_vmmd(&[]).unwrap();
    assert_eq!(tenants.create(&a, "one", 16), created());
    tenants.end();
}

#[test]
fn who_closes_its_side_first_gets_its_answer() {
    let Some(tenants) = Tenants::begin("who_closes_its_side_first_gets_its_answer") else { return };
    let a = tenants.ca.delegate("a", policy(2, 64)).delegate("b", policy(2, 64));
    for _ in 0..20 {
        for issuer in [&tenants.ca, &a] {
            let mut remote = tenants.connect(&issuer.leaf(".", INFO));
            remote.half_close();
            assert!(matches!(remote.receive(), Ok(Answer::Other(_))), "{}", tenants.log());
        }
    }
    let image = chunks(&tenants.image("hello"), 1 << 16);
    let mut remote = tenants.connect(&a.leaf("one", create(16)));
    assert!(remote.send(&image));
    remote.half_close();
    assert_eq!(remote.receive(), Ok(created()));
    // In the middle of its chunks it has not sent them.
    let mut remote = tenants.connect(&a.leaf("two", create(16)));
    assert!(remote.send(&image[..5000]));
    remote.half_close();
    assert!(!matches!(remote.receive(), Ok(Answer::Done(_))));
    assert_eq!(tenants.siege.names(), ["a:b:one"]);
    // A stream ends with its client.
    let mut remote = tenants.connect(&a.leaf("two", CONSOLE));
    assert_eq!(remote.receive(), Ok(done("waiting for VM")));
    remote.half_close();
    assert!(matches!(remote.receive(), Err(Broken::Closed | Broken::Cut)));
    tenants.end();
}

#[test]
fn a_slow_reader_gets_everything() {
    let Some(tenants) = Tenants::begin("a_slow_reader_gets_everything") else { return };
    let a = tenants.ca.delegate("a", policy(1, 16));
    assert_eq!(tenants.ask(&a.leaf("disk", Command::Block(BlockCommand::Add { size: 8 }))), done("added block device"));
    let content = sample(8 * MB, 5);
    assert_eq!(tenants.say(&a.leaf("disk", SET), &content), done("set block device"));
    let identity = a.leaf("disk", DUMP);
    let mut slow = Remote::connect(tenants.address, config(&tenants.server.chain[0], &identity)).unwrap();
    let mut got: Vec<u8> = Vec::new();
    while let Ok(bytes) = slow.receive_bytes() {
        if let Payload::Data(Data::Block(Some(Image::Inline(bytes)))) = message(&bytes).payload {
            got.extend(bytes);
        }
        // Others have many turns meanwhile.
        if got.len().is_multiple_of(MB) {
            tenants.expect_service();
        }
    }
    assert!(got == content, "{}", got.len());
    tenants.end();
}

#[test]
fn what_cannot_be_used_is_named_at_the_start() {
    let Some(mut tenants) = Tenants::begin("what_cannot_be_used_is_named_at_the_start") else { return };
    let expect = |tenants: &mut Tenants, text: &str| {
        let error = tenants.start_tls("127.0.0.1").unwrap_err();
        assert!(error.contains(text), "not '{text}': {error}");
    };
    let (ca, key) = (fs::read(tenants.file("ca.pem")).unwrap(), fs::read(tenants.file("server.key")).unwrap());
    for (file, content, text) in [
        ("ca.pem", Vec::new(), "exactly one certificate of a CA is needed, there are 0"),
        ("ca.pem", ca.repeat(2), "exactly one certificate of a CA is needed, there are 2"),
        ("server.pem", Vec::new(), "there is no certificate of the server"),
        ("server.key", b"no key".to_vec(), "no private key in PEM"),
        ("server.pem", ca, "is not the key of the certificate"),
    ] {
        fs::write(tenants.file(file), content).unwrap();
        expect(&mut tenants, text);
        tenants.write_files();
    }
    fs::remove_file(tenants.file("server.key")).unwrap();
    expect(&mut tenants, "cannot read private key");
    fs::write(tenants.file("server.key"), key).unwrap();
    tenants.write_files();
    let again = tenants.start_tls("127.0.0.1").unwrap();
    assert!(matches!(tenants.connect_to(again, &tenants.ca.leaf(".", INFO)).receive(), Ok(Answer::Other(_))));
    tenants.end();
}
