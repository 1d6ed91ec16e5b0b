//! The control half over real sockets, journal and images on a real disk, with a host that only pretends.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::io::{Read, Write};

use fulmar_core::halves::Status;
use fulmar_core::wire::{self, Command, ConsoleCommand, Frame, Message, Payload, PolicyCommand, UnikernelCommand};
use support::*;

#[test]
fn create_info_get_destroy() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("hello"), text("created unikernel"));
    assert_eq!(daemon.create("hello").failure(), "Unikernel with same name is already running");
    assert_eq!(daemon.create("foo:t1"), text("created unikernel"));
    assert_eq!(daemon.names(), [":hello", "foo:t1"]);
    assert_eq!((world.lock().unwrap().running.len(), daemon.images(), daemon.fifos()), (2, 1, 2));
    let get = |level| daemon.ask("hello", Command::Unikernel(UnikernelCommand::Get { level }));
    assert_eq!(get(0), Answered::Image { compressed: false, bytes: image(0) });
    let Answered::Image { compressed: true, bytes } = get(9) else { panic!("not compressed") };
    assert!(bytes.len() < image(0).len() / 2);
    assert_eq!(daemon.ask("again", create_with(&bytes, true)), text("created unikernel"));
    assert_eq!(daemon.images(), 1, "the same image");
    for name in ["hello", "foo:t1", "again"] {
        assert_eq!(daemon.destroy(name), text("destroyed unikernel"));
    }
    assert_eq!(daemon.destroy("hello").failure(), "destroy: not found");
    assert!(daemon.names().is_empty() && world.lock().unwrap().running.is_empty());
    wait_for("the image to go", || daemon.images() == 0);
}

#[test]
fn old_clients_are_answered_in_their_form() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("hello"), text("created unikernel"));
    // The choice of a success, behind a payload shorter than 128 bytes: [13], [11], [9].
    for (command, choice) in
        [(UnikernelCommand::Info, 0xad), (UnikernelCommand::OldInfo5, 0xab), (UnikernelCommand::OldInfo4, 0xa9)]
    {
        let command = Command::Unikernel(command);
        assert_eq!(daemon.ask(":", command), Answered::Names(vec![":hello".to_owned()]));
        let mut client = daemon.connect();
        client.send(":", command);
        let mut bytes = Vec::new();
        client.0.read_to_end(&mut bytes).unwrap();
        let payload = bytes.iter().position(|byte| *byte == 0xa1).unwrap();
        assert_eq!(bytes[payload + 2], choice, "{bytes:x?}");
    }
}

#[test]
fn policies_on_one_connection() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let mut client = daemon.connect();
    // Two at once, then one after the other: a successful one leaves the connection open.
    let early = [frame("foo:", add_policy(2)), frame("bar:", add_policy(2))].concat();
    client.0.write_all(&early).unwrap();
    assert_eq!(client.receive().unwrap(), text("added policy"));
    assert_eq!(client.receive().unwrap(), text("added policy"));
    client.send("foo:", add_policy(2));
    assert_eq!(client.receive().unwrap(), text("no modification of policy"));
    client.send("foo:", Command::Policy(PolicyCommand::Remove));
    assert_eq!(client.receive().unwrap(), text("removed policy"));
    assert!(client.is_closed());
    let Answered::Names(names) = daemon.ask(":", Command::Policy(PolicyCommand::Info)) else { panic!("no policies") };
    assert_eq!(names, [":", "bar:"]);
    drop(daemon);
    let daemon = Daemon::start(&folder.0, &world);
    let Answered::Names(names) = daemon.ask(":", Command::Policy(PolicyCommand::Info)) else { panic!("no policies") };
    assert_eq!(names, [":", "bar:"]);
    assert_eq!(daemon.create("bar:a"), text("created unikernel"));
    assert_eq!(daemon.create("bar:b"), text("created unikernel"));
    assert!(!daemon.create("bar:c").failure().is_empty());
}

#[test]
fn a_restart_adopts_what_runs_ends_what_nobody_knows_and_starts_what_is_missing() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    for name in ["a", "b", "c"] {
        assert_eq!(daemon.create(name), text("created unikernel"));
    }
    assert_eq!(daemon.destroy("b"), text("destroyed unikernel"));
    let before = world.lock().unwrap().running.clone();
    daemon.kill();
    {
        let mut world = world.lock().unwrap();
        // While nobody looked, one has ended and a stranger has appeared.
        let first = *before.keys().next().unwrap();
        world.running.remove(&first);
        world.running.insert(9_999, 77);
        assert_eq!(world.launches, 3);
    }
    std::fs::write(folder.0.join("state/images/tmp-0"), b"of a dead daemon").unwrap();
    std::fs::write(folder.0.join("state/images").join("ab".repeat(32)), b"of no record").unwrap();
    let daemon = Daemon::start(&folder.0, &world);
    wait_for("the missing one", || world.lock().unwrap().launches == 4);
    wait_for("the stranger's end", || !world.lock().unwrap().running.contains_key(&9_999));
    assert_eq!(daemon.names(), [":c", ":a"]);
    assert_eq!(world.lock().unwrap().running.len(), 2);
    wait_for("the sweep", || daemon.images() == 1);
    assert_eq!(daemon.destroy("a"), text("destroyed unikernel"));
    assert_eq!(daemon.destroy("c"), text("destroyed unikernel"));
}

#[test]
fn one_that_exits_is_dropped_durably() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("a"), text("created unikernel"));
    let unit = *world.lock().unwrap().running.keys().next().unwrap();
    world.lock().unwrap().exits.push((unit, Status::Code(0)));
    wait_for("its end", || daemon.names().is_empty());
    wait_for("its image to go", || daemon.images() == 0);
    daemon.kill();
    assert!(Daemon::start(&folder.0, &world).names().is_empty());
}

#[test]
fn an_end_that_nobody_watched_is_decided_about() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let mut units = Vec::new();
    for name in ["done", "ended", "runs"] {
        assert_eq!(daemon.create(name), text("created unikernel"));
        units.push(*world.lock().unwrap().running.keys().next_back().unwrap());
    }
    daemon.kill();
    {
        let mut world = world.lock().unwrap();
        for (unit, record) in [
            (units[0], "exited 0"),
            // Nobody knows of what, but not by itself: by the host's end, say.
            (units[1], "terminated signal=15"),
            // Of a create that was never recorded.
            (9_999, "exited 0"),
        ] {
            world.running.remove(&unit);
            world.ended.insert(unit, format!("{record:63}\n"));
        }
    }
    let daemon = Daemon::start(&folder.0, &world);
    wait_for("the one that is not done", || world.lock().unwrap().running.contains_key(&units[1]));
    wait_for("the one that is done", || daemon.names() == [":runs", ":ended"]);
    wait_for("nothing to be kept", || world.lock().unwrap().ended.is_empty());
    assert_eq!(world.lock().unwrap().launches, 4);
    daemon.kill();
    assert_eq!(Daemon::start(&folder.0, &world).names(), [":runs", ":ended"]);
}

#[test]
fn an_adopted_one_tells_how_it_ended() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("a"), text("created unikernel"));
    daemon.kill();
    let daemon = Daemon::start(&folder.0, &world);
    let unit = *world.lock().unwrap().running.keys().next().unwrap();
    // Only a parent is told, and that is dead. Unlike an end of which nothing is known, this one is for good.
    world.lock().unwrap().ended.insert(unit, format!("{:63}\n", "exited 0"));
    world.lock().unwrap().exits.push((unit, Status::Unknown));
    wait_for("its end", || daemon.names().is_empty());
    wait_for("nothing to be kept", || world.lock().unwrap().ended.is_empty());
}

#[test]
fn nothing_waits_while_an_image_is_compressed() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    // Takes seconds to compress: noise behind what is loaded.
    let mut large = image(0);
    let mut noise = 1_u32;
    large.extend(
        std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        })
        .take(16 << 20),
    );
    assert_eq!(daemon.ask("large", create(&large)), text("created unikernel"));
    let mut slow = daemon.connect();
    slow.send("large", Command::Unikernel(UnikernelCommand::Get { level: 9 }));
    slow.0.set_nonblocking(true).unwrap();
    assert_eq!(daemon.create("small"), text("created unikernel"));
    assert_eq!(daemon.destroy("small"), text("destroyed unikernel"));
    let early = slow.0.read(&mut [0; 4]).unwrap_err();
    assert_eq!(early.kind(), std::io::ErrorKind::WouldBlock, "it was compressed before the others were served");
    slow.0.set_nonblocking(false).unwrap();
    let Some(Answered::Image { compressed: true, .. }) = slow.receive() else { panic!("not compressed") };
}

#[test]
fn a_refusal_is_not_replaced_by_an_older_reply_while_others_read_slowly() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let mut client = daemon.connect();
    // A listing that no socket takes at once.
    let label = "long".repeat(15);
    for first in (0..2_000).step_by(100) {
        for number in first..first + 100 {
            client.send(&format!("{label}:{label}:{label}:{number}:"), add_policy(1));
        }
        for _ in 0..100 {
            assert_eq!(client.receive().unwrap(), text("added policy"));
        }
    }
    let list = || Command::Policy(PolicyCommand::Info);
    let slow: Vec<_> = (0..fulmar_core::limits::LONG_REPLIES_MAX)
        .map(|_| {
            let mut slow = daemon.connect();
            slow.send(":", list());
            // It has begun to come, so it has a long buffer.
            slow.0.read_exact(&mut [0; 4]).unwrap();
            slow
        })
        .collect();
    // The connection has had a reply; now a message that is none, and more behind it.
    client.send("small:", add_policy(1));
    assert_eq!(client.receive().unwrap(), text("added policy"));
    let mut bad = frame("small:", add_policy(1));
    let last = bad.len() - 1;
    bad[last] ^= 0x7f;
    bad.extend_from_slice(&frame("small:", add_policy(1)));
    client.0.write_all(&bad).unwrap();
    assert!(client.receive().unwrap().failure().len() > 1);
    assert!(client.is_closed());
    drop(slow);
}

#[test]
fn malformed_messages_are_answered_in_words_where_the_header_can_be_read() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let good = frame("foo:", add_policy(2));
    let reply = |bytes: &[u8]| {
        let mut client = daemon.connect();
        client.0.write_all(bytes).unwrap();
        let answer = client.receive();
        assert!(answer.is_none() || client.is_closed());
        answer
    };
    let with_length = |length: i32| [&length.to_be_bytes()[..], &good[4..]].concat();
    // What ends a conversation, with and without a header after it.
    assert!(reply(&0_i32.to_be_bytes()).is_none());
    assert!(reply(&(-1_i32).to_be_bytes()).is_none());
    for length in [0, -1, i32::MIN, i32::MAX, 1 << 30] {
        assert!(!reply(&with_length(length)).unwrap().failure().is_empty(), "{length}");
    }
    // Too short, a byte too long, nonsense inside, nonsense from the start.
    let exact = i32::try_from(good.len() - 4).unwrap();
    assert!(reply(&with_length(exact - 1)).unwrap().failure().contains("malformed"));
    let longer = [&with_length(exact + 1)[..], b"x"].concat();
    assert!(reply(&longer).unwrap().failure().contains("malformed"));
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 0x55;
    assert!(!reply(&damaged).unwrap().failure().is_empty());
    assert!(reply(b"\0\0\0\x05hello").is_none());
    assert!(reply(b"GET / HTTP/1.1\r\n\r\n").is_none());
    // A head that is too large: names are not, so it is an argument vector without end.
    let huge = [&(200_000_i32).to_be_bytes()[..], &good[4..20], &vec![0x30; 200_000]].concat();
    let _ = reply(&huge);
    // A reply instead of a command, and a command that is not for this daemon.
    let other = frame("foo:", Command::Log(fulmar_core::wire::Window::Count(1)));
    assert_eq!(reply(&other).unwrap().failure(), "unknown command");
    assert_eq!(daemon.create("hello"), text("created unikernel"), "and it still serves");
}

#[test]
fn images_that_are_none_leave_nothing() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let small = b"tiny".as_slice();
    let mut no_notes = image(0);
    no_notes[0x20c..0x211].fill(b'x');
    for (bytes, compressed) in
        [(small, false), (&[0; 5000], false), (&no_notes, false), (&image(0)[..100], false), (&image(0), true)]
    {
        let answer = daemon.ask("bad", create_with(bytes, compressed));
        assert!(!answer.failure().is_empty());
    }
    // Chunks are expected after a create without an image, and there are none.
    let mut client = daemon.connect();
    client.send("bad", create(b""));
    client.0.write_all(&[0; 4]).unwrap();
    assert_eq!(client.receive().unwrap().failure(), "the image is empty");
    assert!(daemon.names().is_empty());
    wait_for("the images to go", || daemon.images() == 0);
    assert_eq!((daemon.fifos(), world.lock().unwrap().launches), (0, 0));
    assert_eq!(daemon.create("bad"), text("created unikernel"));
}

#[test]
fn an_unfinished_message_is_kept_no_longer_than_its_connection() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let bytes = frame("half", create(&vec![1; 500_000]));
    let mut client = daemon.connect();
    client.0.write_all(&bytes[..300_000]).unwrap();
    wait_for("its spool", || daemon.images() == 1);
    drop(client);
    wait_for("its spool to go", || daemon.images() == 0);
}

#[test]
fn three_hundred_connections_at_once() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    let mut clients: Vec<_> = (0..300).map(|_| daemon.connect()).collect();
    let question = frame(":", Command::Unikernel(UnikernelCommand::Info));
    let (mut served, mut refused) = (0, 0);
    for client in &mut clients {
        // One that was turned away may be closed already.
        let _ = client.0.write_all(&question);
        match client.receive() {
            Some(Answered::Names(_)) => served += 1,
            Some(Answered::Failure(text)) => {
                assert_eq!(text, "too many connections, try again");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(served + refused, 300);
    assert!(served >= 256, "{served} served");
    drop(clients);
    assert!(daemon.names().is_empty(), "and it still serves");
}

#[test]
fn a_client_that_never_reads_stops_nobody() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    // Long arguments make long listings.
    let bytes = image(0);
    let argument = "x".repeat(4000);
    for index in 0..100 {
        let argv: &[fulmar_core::wire::Text<'_>] = &[argument.as_str().into()];
        let Command::Unikernel(UnikernelCommand::Create(mut config)) = create(&bytes) else { unreachable!() };
        config.arguments.argv = Some(fulmar_core::wire::List::Items(argv));
        let command = Command::Unikernel(UnikernelCommand::Create(config));
        assert_eq!(daemon.ask(&format!("u{index}"), command), text("created unikernel"));
    }
    let question = frame(":", Command::Unikernel(UnikernelCommand::Info));
    let mut lazy: Vec<_> = (0..8).map(|_| daemon.connect()).collect();
    for client in &mut lazy {
        client.0.write_all(&question).unwrap();
    }
    assert_eq!(daemon.destroy("u0"), text("destroyed unikernel"));
    // Those who wait for a buffer get their turn when others read, or give up.
    std::thread::scope(|scope| {
        for client in &mut lazy {
            scope.spawn(|| assert!(matches!(client.receive(), Some(Answered::Names(names)) if names.len() >= 99)));
        }
    });
}

#[test]
fn a_bridge_or_policy_that_is_not_there_is_refused_and_the_socket_is_replaced_after_death() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert!(Daemon::try_start(&folder.0, &world).is_err(), "one daemon a folder");
    assert_eq!(daemon.ask("none:", Command::Policy(PolicyCommand::Remove)).failure(), "unknown policy");
    daemon.kill();
    let daemon = Daemon::start(&folder.0, &world);
    assert!(daemon.names().is_empty());
}

#[test]
fn a_damaged_journal_is_refused_with_its_place() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    for name in ["a", "b"] {
        assert_eq!(daemon.create(name), text("created unikernel"));
    }
    daemon.kill();
    let path = folder.0.join("state/journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[60] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = Daemon::try_start(&folder.0, &world).err().unwrap();
    assert!(error.contains("damaged at byte 55") && error.contains("generation 1"), "{error}");
    bytes[60] ^= 1;
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(Daemon::start(&folder.0, &world).names(), [":a"]);
}

/// What the console daemon is told next; it answers.
fn told(stream: &mut std::os::unix::net::UnixStream) -> (u64, String, i64) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut bytes).unwrap();
    let Message { header, payload } = wire::decode(Frame::whole(&bytes)).unwrap();
    let Payload::Command(Command::Console(ConsoleCommand::Add { unikernels })) = payload else { panic!("{payload:?}") };
    let mut buffer = [0; 500];
    let payload = Payload::Success(wire::Success::Empty);
    stream.write_all(wire::encode_frame(&Message { header, payload }, &mut buffer).unwrap()).unwrap();
    (header.sequence, header.name.as_str().to_owned(), unikernels)
}

/// The console daemon is told of what starts, and of all that runs when it comes back.
#[test]
fn the_console_daemon_is_told() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("foo:early"), text("created unikernel"), "nobody waits for the console");
    let listener = std::os::unix::net::UnixListener::bind(daemon.settings.run.join("util/console.sock")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(told(&mut stream), (1, "foo:early".to_owned(), 0));
    assert_eq!(daemon.create("late"), text("created unikernel"));
    assert_eq!(told(&mut stream), (2, ":late".to_owned(), (1 << 62) - 1));
    drop(stream);
    let (mut stream, _) = listener.accept().unwrap();
    let mut names = [told(&mut stream).1, told(&mut stream).1];
    names.sort();
    assert_eq!(names, [":late", "foo:early"]);
    assert_eq!(daemon.destroy("late"), text("destroyed unikernel"));
    wait_for("its fifo to go", || daemon.fifos() == 1);
}

/// The last words of a unikernel that ended while the console daemon was away wait for it in the fifo.
#[test]
fn the_last_words_wait_for_the_console_daemon() {
    let (folder, world) = (Folder::new(), World::default());
    let daemon = Daemon::start(&folder.0, &world);
    assert_eq!(daemon.create("short"), text("created unikernel"));
    assert_eq!(daemon.destroy("short"), text("destroyed unikernel"));
    assert_eq!(daemon.fifos(), 1);
    let listener = std::os::unix::net::UnixListener::bind(daemon.settings.run.join("util/console.sock")).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(told(&mut stream).1, ":short");
    wait_for("its fifo to go", || daemon.fifos() == 0);
}
