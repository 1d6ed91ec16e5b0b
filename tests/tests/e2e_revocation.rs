//! Lists of revoked certificates with the real daemons: who may bring one, what it ends and when, what it removes, and that it stays.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use fulmar_core::wire::{BlockCommand, Command, ConsoleCommand, Window};
use fulmar_tests::contents::chunks;
use fulmar_tests::pki::{
    CERT_SIGN, CRL_SIGN, DELTA, DIGITAL_SIGNATURE, Identity, Issuer, SCOPE, element, extension, key_usage, list_number,
};
use fulmar_tests::raw::Answer;
use fulmar_tests::remote::{Broken, Remote};
use fulmar_tests::siege::files;
use fulmar_tests::system::programs;
use fulmar_tests::tenants::{DESTROY, INFO, REVOKE, Tenants, create, policy};
use nix::sys::signal::Signal;

const REMOVE: Command<'static> = Command::Revoke { remove: true };
const CONSOLE: Command<'static> = Command::Console(ConsoleCommand::Subscribe(Window::Count(100)));

fn begin(test: &str) -> Option<(Tenants, Issuer)> {
    let tenants = Tenants::begin(test)?;
    let a = tenants.ca.delegate("a", policy(4, 128));
    expect_good(&tenants, &a.leaf(".", INFO));
    Some((tenants, a))
}

fn expect_good(tenants: &Tenants, identity: &Identity) {
    let answer = tenants.ask(identity);
    assert!(matches!(answer, Answer::Other(_)), "{answer:?}\n{}", tenants.log());
}

fn expect_revoked(tenants: &Tenants, identity: &Identity) {
    let answer = tenants.ask(identity);
    assert!(answer.reason().starts_with("a certificate of the chain is revoked, number "), "{answer:?}");
}

/// What comes of a list that somebody brings.
fn bring(tenants: &Tenants, issuer: &Issuer, list: &[u8]) -> Answer {
    tenants.say(&issuer.leaf(".", REVOKE), list)
}

fn revoked() -> Answer {
    Answer::Done("revoked".into())
}

fn created() -> Answer {
    Answer::Done("created unikernel".into())
}

/// The files of the lists.
fn lists(tenants: &Tenants) -> Vec<PathBuf> {
    let folder = tenants.file("revoked");
    files(&folder).into_iter().filter(|name| name.ends_with(".crl")).map(|name| folder.join(name)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn restart(tenants: &mut Tenants) {
    tenants.siege.system.end("vmmd_tls", Signal::SIGKILL).unwrap();
    tenants.address = tenants.start_tls("127.0.0.1").unwrap();
}

#[test]
fn a_list_is_taken_and_stays() {
    let Some((mut tenants, a)) = begin("a_list_is_taken_and_stays") else { return };
    let (one, two) = (a.leaf(".", INFO), a.leaf(".", INFO));
    let below = a.delegate("b", policy(1, 16));
    expect_good(&tenants, &below.leaf(".", INFO));
    let list = a.list(1, &[&one.serial, &below.serial]);
    assert_eq!(bring(&tenants, &a, &list), revoked());
    // From the next handshake on, and after the daemon was killed.
    for round in 0..2 {
        expect_revoked(&tenants, &one);
        expect_revoked(&tenants, &below.leaf(".", INFO));
        expect_good(&tenants, &two);
        assert_eq!(lists(&tenants).len(), 1, "{round}");
        assert!(fs::read(&lists(&tenants)[0]).unwrap() == list);
        restart(&mut tenants);
    }
    // What is no more in a later list is good again: the issuer says so.
    assert_eq!(bring(&tenants, &a, &a.list(2, &[])), revoked());
    expect_good(&tenants, &one);
    assert_eq!(lists(&tenants).len(), 1);
    tenants.end();
}

#[test]
fn open_connections_end_when_they_are_revoked() {
    let Some((tenants, a)) = begin("open_connections_end_when_they_are_revoked") else { return };
    let follow = |issuer: &Issuer, label: &str| {
        let identity = issuer.leaf(label, CONSOLE);
        let mut remote = tenants.connect(&identity);
        assert_eq!(remote.receive(), Ok(Answer::Done("waiting for VM".into())));
        (remote, identity.serial)
    };
    let b = a.delegate("b", policy(2, 32));
    expect_good(&tenants, &b.leaf(".", INFO));
    let (mut stays, _) = follow(&a, "stays");
    let (mut named, serial) = follow(&a, "named");
    let (mut below, _) = follow(&b, "one");
    let upload = b.leaf("two", create(16));
    let image = chunks(&tenants.image("hello"), 1 << 12);
    let mut uploads = tenants.connect(&upload);
    assert!(uploads.send(&image[..5000]));
    assert_eq!(bring(&tenants, &a, &a.list(1, &[&serial, &b.serial])), revoked());
    for (remote, serial) in [(&mut named, &serial), (&mut below, &b.serial), (&mut uploads, &b.serial)] {
        assert_eq!(
            remote.receive(),
            Ok(Answer::Refused(format!("a certificate of the chain is revoked, number {}", hex(serial))))
        );
        assert_eq!(remote.receive(), Err(Broken::Closed));
    }
    assert!(tenants.log().contains("its certificate was revoked"), "{}", tenants.log());
    assert_eq!(tenants.siege.names(), <[&str; 0]>::default());
    assert_eq!(tenants.create(&a, "stays", 16), created());
    assert!(stays.receive_bytes().is_ok());
    tenants.end();
}

#[test]
fn what_another_process_has_taken_in_holds_here_too() {
    let Some((tenants, a)) = begin("what_another_process_has_taken_in_holds_here_too") else { return };
    let identity = a.leaf("one", CONSOLE);
    let mut follows = tenants.connect(&identity);
    assert_eq!(follows.receive(), Ok(Answer::Done("waiting for VM".into())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = tenants.options();
    let options: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
    for number in 1..=2 {
        let list = a.list(number, &[&identity.serial]);
        let answer = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut remote = tenants.connect_to(address, &a.leaf(".", REVOKE));
                remote.send(&chunks(&list, 1 << 16));
                remote.receive()
            });
            let own = OwnedFd::from(listener.accept().unwrap().0);
            let mut server = tenants.siege.system.tls_inetd(&options);
            let mut server = server.stdin(Stdio::from(own)).stderr(Stdio::null()).spawn().unwrap();
            let answer = client.join().unwrap();
            assert!(server.wait().unwrap().success());
            answer
        });
        assert_eq!(answer, Ok(revoked()));
    }
    let answer = follows.receive().unwrap();
    assert!(answer.reason().starts_with("a certificate of the chain is revoked, number "), "{answer:?}");
    expect_revoked(&tenants, &identity);
    // The number that the other one has taken in counts here too.
    let older = bring(&tenants, &a, &a.list(1, &[]));
    assert!(older.reason().contains("there is a newer list, number 2"), "{older:?}");
    tenants.end();
}

#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    let Some((mut tenants, a)) = begin("an_older_list_does_not_replace_a_newer_one") else { return };
    let one = a.leaf(".", INFO);
    let (old, new) = (a.list(3, &[]), a.list(5, &[&one.serial]));
    assert_eq!(bring(&tenants, &a, &old), revoked());
    assert_eq!(bring(&tenants, &a, &new), revoked());
    for _ in 0..2 {
        let answer = bring(&tenants, &a, &old);
        assert!(answer.reason().contains("there is a newer list, number 5"), "{answer:?}");
        let answer = bring(&tenants, &a, &a.list(5, &[]));
        assert!(answer.reason().contains("another list with the number 5"), "{answer:?}");
        // The same once more, as after an answer that was lost.
        assert_eq!(bring(&tenants, &a, &new), revoked());
        expect_revoked(&tenants, &one);
        restart(&mut tenants);
    }
    tenants.end();
}

#[test]
fn a_list_is_taken_of_the_issuer_alone() {
    let Some((tenants, a)) = begin("a_list_is_taken_of_the_issuer_alone") else { return };
    let b = tenants.ca.delegate("b", policy(1, 16));
    let victim = b.leaf(".", INFO);
    expect_good(&tenants, &victim);
    // Another's key, another's name with its own key, its parent's name.
    let mut as_b = a.clone();
    as_b.subject.clone_from(&b.subject);
    let mut as_root = a.clone();
    as_root.subject.clone_from(&tenants.ca.subject);
    for (what, list) in [
        ("another's", b.list(1, &[&victim.serial])),
        ("in another's name", as_b.list(1, &[&victim.serial])),
        ("in its parent's name", as_root.list(1, &[&b.serial])),
        ("its parent's", tenants.ca.list(1, &[&b.serial])),
    ] {
        let answer = bring(&tenants, &a, &list);
        assert!(
            answer.reason().contains("not signed by the key that has signed this certificate"),
            "{what}: {answer:?}"
        );
    }
    // Its own list names numbers of its own, whatever they are of others.
    assert_eq!(bring(&tenants, &a, &a.list(1, &[&victim.serial, &b.serial])), revoked());
    expect_good(&tenants, &victim);
    // Only the CA itself revokes what the CA has issued.
    assert_eq!(bring(&tenants, &tenants.ca, &tenants.ca.list(1, &[&b.serial])), revoked());
    expect_revoked(&tenants, &victim);
    expect_good(&tenants, &a.leaf(".", INFO));
    // One that may not sign lists.
    let no_lists = a.issuer_by("c", |draft| draft.extensions[1] = key_usage(CERT_SIGN | DIGITAL_SIGNATURE));
    let answer = bring(&tenants, &no_lists, &no_lists.list(1, &[]));
    assert!(answer.reason().contains("key usage cRLSign"), "{answer:?}");
    let lists_alone = a.issuer_by("c", |draft| draft.extensions[1] = key_usage(CRL_SIGN | CERT_SIGN));
    assert_eq!(bring(&tenants, &lists_alone, &lists_alone.list(1, &[])), revoked());
    tenants.end();
}

#[test]
fn a_list_that_is_none_changes_nothing() {
    let Some((tenants, a)) = begin("a_list_that_is_none_changes_nothing") else { return };
    let one = a.leaf(".", INFO);
    let good = a.list(7, &[&one.serial]);
    assert_eq!(bring(&tenants, &a, &good), revoked());
    let delta = extension(DELTA, true, &[2, 1, 1]);
    let scope = extension(SCOPE, true, &element(0x30, &[&[0x81, 1, 0xff]]));
    let large = a.list(9, &vec![&one.serial[..]; 50_000]);
    assert!(large.len() > 1 << 20);
    let mut changed = a.list(9, &[]);
    let last = changed.len() - 1;
    changed[last] ^= 1;
    for (what, list, reason) in [
        ("without a number", a.list_of(&[], &[]), "has no number"),
        ("of changes", a.list_of(&[], &[list_number(9), delta]), "is not complete"),
        ("of some", a.list_of(&[], &[list_number(9), scope]), "is not complete"),
        ("a certificate", a.der.clone(), "has no number"),
        ("cut", good[..good.len() / 2].to_vec(), "cannot be read"),
        ("with a tail", [&good[..], &[5, 0]].concat(), "cannot be read"),
        ("of nothing", Vec::new(), "cannot be read"),
        ("too large", large, "larger than 1024 KB"),
        ("changed", changed, "not signed by the key"),
    ] {
        let answer = bring(&tenants, &a, &list);
        assert!(answer.reason().contains(reason), "{what}: not for '{reason}': {answer:?}");
    }
    // The leaf that brings it may not be in it: it would revoke itself.
    let leaf = a.leaf(".", REVOKE);
    let answer = tenants.say(&leaf, &a.list(9, &[&leaf.serial]));
    assert_eq!(answer.reason(), "the list names the certificate that it came with");
    expect_revoked(&tenants, &one);
    assert!(fs::read(&lists(&tenants)[0]).unwrap() == good);
    tenants.end();
}

#[test]
fn a_domain_has_room_for_so_many_lists_and_leaves_others_theirs() {
    let Some((tenants, a)) = begin("a_domain_has_room_for_so_many_lists_and_leaves_others_theirs") else { return };
    let before = tenants.resident();
    for number in 0..32 {
        let key = a.issuer_by("key", |_| {});
        assert_eq!(bring(&tenants, &key, &key.list(1, &[])), revoked(), "{number}");
    }
    let key = a.issuer_by("key", |_| {});
    assert!(bring(&tenants, &key, &key.list(1, &[])).reason().contains("this domain has 32 lists"));
    let b = tenants.ca.delegate("b", policy(1, 16));
    assert_eq!(bring(&tenants, &b, &b.list(1, &[])), revoked());
    let numbers: Vec<Vec<u8>> = (0..25_000_u32).map(|number| (number | 1 << 30).to_be_bytes().to_vec()).collect();
    let numbers: Vec<&[u8]> = numbers.iter().map(Vec::as_slice).collect();
    let size = b.list(1, &numbers).len();
    let mut taken = 0;
    let refused = loop {
        let key = b.issuer_by("key", |_| {});
        match bring(&tenants, &key, &key.list(1, &numbers)) {
            Answer::Done(_) => taken += 1,
            other => break other,
        }
    };
    assert_eq!(taken, (4 << 20) / size);
    assert!(refused.reason().contains("4 MB of them already"), "{refused:?}");
    assert_eq!(bring(&tenants, &tenants.ca, &tenants.ca.list(1, &[])), revoked());
    tenants.expect_bounded(before, [64 << 10, 1 << 10, 1 << 10]);
    tenants.end();
}

#[test]
fn with_a_removal_the_path_is_emptied_and_nobody_elses() {
    let Some((tenants, _)) = begin("with_a_removal_the_path_is_emptied_and_nobody_elses") else { return };
    let a = tenants.ca.delegate("a", policy(6, 128));
    let (b, like_b) = (a.delegate("b", policy(3, 64)), a.delegate("bb", policy(1, 16)));
    let c = b.delegate("c", policy(1, 16));
    let other = tenants.ca.delegate("b", policy(1, 16));
    for (issuer, label) in [(&b, "one"), (&b, "two"), (&c, "deep"), (&like_b, "one"), (&a, "b"), (&other, "one")] {
        assert_eq!(tenants.create(issuer, label, 16), created());
    }
    let block = Command::Block(BlockCommand::Add { size: 1 });
    for (issuer, label) in [(&b, "disk"), (&c, "disk"), (&like_b, "disk"), (&a, "b")] {
        assert_eq!(tenants.ask(&issuer.leaf(label, block)), Answer::Done("added block device".into()));
    }
    // Without a name of what is to go nothing is done.
    let list = a.list(1, &[&b.serial]);
    assert!(tenants.say(&a.leaf(".", REMOVE), &list).reason().contains("needs the label of the path"));
    expect_good(&tenants, &b.leaf(".", INFO));
    let answer = tenants.say(&a.leaf("B", REMOVE), &list);
    assert_eq!(answer, Answer::Done("revoked, removed 3 unikernels, 2 block devices, 2 policies".into()));
    expect_revoked(&tenants, &b.leaf(".", INFO));
    expect_revoked(&tenants, &c.leaf(".", INFO));
    let mut names = tenants.siege.names();
    names.sort();
    assert_eq!(names, ["a:b", "a:bb:one", "b:one"]);
    let blocks: Vec<String> = files(&tenants.siege.system.state().join("block")).into_iter().collect();
    assert_eq!(blocks, ["a:b_disk", "a:bb:disk_disk"]);
    let policies = tenants.siege.client(&["policy"]).out;
    assert!(policies.contains("a:bb:") && !policies.contains("a:b:"), "{policies}");
    // Once more: there is nothing any more.
    let answer = tenants.say(&a.leaf("b", REMOVE), &list);
    assert_eq!(answer, Answer::Done("revoked, removed 0 unikernels, 0 block devices, 0 policies".into()));
    // The path is free for who comes next.
    let next = a.delegate("b", policy(1, 16));
    assert_eq!(tenants.create(&next, "one", 16), created());
    assert_eq!(tenants.ask(&next.leaf("one", DESTROY)), Answer::Done("destroyed unikernel".into()));
    tenants.end();
}

#[test]
fn a_removal_goes_on_without_its_client_and_is_told_without_its_daemon() {
    let Some((mut tenants, a)) = begin("a_removal_goes_on_without_its_client_and_is_told_without_its_daemon") else {
        return;
    };
    let b = a.delegate("b", policy(3, 64));
    for label in ["one", "two", "three"] {
        assert_eq!(tenants.create(&b, label, 16), created());
    }
    let list = a.list(1, &[&b.serial]);
    let mut remote: Remote = tenants.connect(&a.leaf("b", REMOVE));
    assert!(remote.send(&chunks(&list, 1 << 16)));
    drop(remote);
    assert!(fulmar_tests::system::wait_until(|| tenants.siege.names().is_empty()), "{}", tenants.log());
    tenants.siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    let answer = tenants.say(&a.leaf("b", REMOVE), &list);
    assert!(answer.reason().starts_with("revoked, but vmmd cannot be reached"), "{answer:?}");
    tenants.siege.vmmd = tenants.siege.system.start_vmmd(&[]).unwrap();
    tenants.end();
}

/// What a start says, which must be refused.
fn refused_start(tenants: &mut Tenants) -> String {
    let before = tenants.log().len();
    let error = tenants.start_tls("127.0.0.1").unwrap_err();
    assert!(error.contains("did not come up"), "{error}");
    tenants.log()[before..].to_owned()
}

/// What `--check` says and whether it is well.
fn check(tenants: &Tenants) -> (bool, String) {
    let mut command = Process::new(programs().join("vmmd_tls"));
    let output = command.arg("--run").arg(tenants.siege.system.run()).args(tenants.options()).arg("--check").output();
    let output = output.unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_damaged_list_refuses_the_start() {
    let Some((mut tenants, a)) = begin("a_damaged_list_refuses_the_start") else { return };
    let one = a.leaf(".", INFO);
    let list = a.list(1, &[&one.serial]);
    assert_eq!(bring(&tenants, &a, &list), revoked());
    let file = lists(&tenants).remove(0);
    fs::write(&file, &list[..40]).unwrap();
    // Whoever runs goes on with what it knows.
    expect_revoked(&tenants, &one);
    tenants.siege.system.end("vmmd_tls", Signal::SIGTERM).unwrap();
    let expect_refused = |tenants: &mut Tenants, file: &Path, what: &str| {
        let (is_well, said) = check(tenants);
        for said in [refused_start(tenants), said] {
            assert!(said.contains("bring it back") && said.contains(&*file.to_string_lossy()), "{what}: {said}");
        }
        assert!(!is_well, "{what}");
    };
    expect_refused(&mut tenants, &file, "cut");
    for index in 0..list.len() {
        let mut damaged = list.clone();
        damaged[index] ^= 1 << (index % 8);
        fs::write(&file, &damaged).unwrap();
        expect_refused(&mut tenants, &file, &format!("byte {index}"));
    }
    fs::write(&file, &list).unwrap();
    let name = file.file_name().unwrap().as_encoded_bytes();
    for index in 0..name.len() {
        let mut other = name.to_vec();
        // A name has no '/', which a dot would become.
        other[index] ^= if other[index] == b'.' { 2 } else { 1 };
        let other = file.with_file_name(OsStr::from_bytes(&other));
        fs::rename(&file, &other).unwrap();
        expect_refused(&mut tenants, &other, &format!("byte {index} of the name"));
        fs::rename(&other, &file).unwrap();
    }
    assert!(check(&tenants).0, "{}", check(&tenants).1);
    tenants.address = tenants.start_tls("127.0.0.1").unwrap();
    expect_revoked(&tenants, &one);
    tenants.end();
}

#[test]
fn a_newer_list_beside_the_older_one_counts() {
    let Some((mut tenants, a)) = begin("a_newer_list_beside_the_older_one_counts") else { return };
    let one = a.leaf(".", INFO);
    assert_eq!(bring(&tenants, &a, &a.list(1, &[])), revoked());
    let old = lists(&tenants).remove(0);
    let copy = fs::read(&old).unwrap();
    assert_eq!(bring(&tenants, &a, &a.list(2, &[&one.serial])), revoked());
    // As a crash leaves it before the older one is removed.
    fs::write(&old, &copy).unwrap();
    restart(&mut tenants);
    expect_revoked(&tenants, &one);
    assert_eq!(bring(&tenants, &a, &a.list(3, &[&one.serial])), revoked());
    assert_eq!(lists(&tenants).len(), 1);
    // One that goes away stays known, and comes back when it is sent again.
    fs::remove_file(&lists(&tenants)[0]).unwrap();
    expect_revoked(&tenants, &one);
    tenants.siege.expect_log("vmmd_tls", "is gone: what it revokes is valid again after the next start");
    assert_eq!(bring(&tenants, &a, &a.list(3, &[&one.serial])), revoked());
    restart(&mut tenants);
    expect_revoked(&tenants, &one);
    tenants.end();
}

#[test]
fn while_the_lists_cannot_be_read_nobody_is_let_in() {
    let Some((mut tenants, a)) = begin("while_the_lists_cannot_be_read_nobody_is_let_in") else { return };
    let (one, other) = (a.leaf(".", INFO), a.leaf(".", INFO));
    let list = a.list(1, &[&one.serial]);
    assert_eq!(bring(&tenants, &a, &list), revoked());
    let mut brings = tenants.connect(&a.leaf(".", REVOKE));
    let (folder, aside) = (tenants.file("revoked"), tenants.file("aside"));
    // It has been let in when the next one has its answer.
    expect_good(&tenants, &other);
    // A file that is none in its place: it can be read again without a start.
    fs::rename(&lists(&tenants)[0], &aside).unwrap();
    fs::write(folder.join("x.crl"), "none").unwrap();
    for _ in 0..3 {
        expect_revoked(&tenants, &one);
        let answer = tenants.ask(&other);
        assert!(
            answer.reason().contains("cannot read its lists of revoked certificates and lets nobody in"),
            "{answer:?}"
        );
    }
    fs::remove_file(folder.join("x.crl")).unwrap();
    expect_good(&tenants, &other);
    expect_revoked(&tenants, &one);
    assert_eq!(tenants.log().matches("was given this name").count(), 1, "{}", tenants.log());
    // Without the folder.
    let folder_owner = folder.metadata().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    for round in 0..3 {
        expect_revoked(&tenants, &one);
        let answer = tenants.ask(&other);
        assert!(answer.reason().contains("lets nobody in"), "{answer:?}");
        if round == 0 {
            fs::create_dir(&folder).unwrap();
            chown(&folder, Some(folder_owner.uid()), Some(folder_owner.gid())).unwrap();
        }
    }
    assert!(brings.send(&chunks(&a.list(2, &[]), 1 << 16)));
    let answer = brings.receive().unwrap();
    let (reason, path) = (answer.reason(), folder.to_string_lossy());
    assert!(reason.contains(&*path) && reason.contains("bring the folder back and start vmmd_tls anew"), "{answer:?}");
    let said = format!("{path} is gone: bring it back with what was in it and start vmmd_tls anew");
    assert_eq!(tenants.log().matches(&said).count(), 1, "{}", tenants.log());
    tenants.siege.system.end("vmmd_tls", Signal::SIGTERM).unwrap();
    fs::write(folder.join("1"), "not ours").unwrap();
    tenants.address = tenants.start_tls("127.0.0.1").unwrap();
    expect_good(&tenants, &other);
    assert_eq!(bring(&tenants, &a, &list), revoked());
    expect_revoked(&tenants, &one);
    tenants.end();
}
