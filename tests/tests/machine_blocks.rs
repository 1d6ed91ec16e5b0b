//! Block devices: what is refused in which words, what counts against which policy, and how long a unikernel has one.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use fulmar_core::halves::Unit;
use fulmar_core::journal::Record;
use fulmar_core::limits::TRANSFERS_MAX;
use fulmar_core::machine::{BlockFileError, Effect, Input, Machine, Now, PlanBuffers, Reply, Source, Spooled, Tenders};
use fulmar_core::policy::{Bridge, Bridges, CpuSet, Policy};
use fulmar_core::wire::{BlockCommand, Command, Frame, Header, Image, Payload, decode};
use fulmar_tests::ask::{Ask, Octets, PolicySpec, Spec, Wish, name};
use fulmar_tests::world::{Action, Budget, Crash, Fate, OnDisk, SetFate, World};

type Host = World<8, 12, 6, 4, 4096>;

const DURABLE: Action = Action::Append(u8::MAX, Fate::Durable);
const STORE: Action = Action::Store(true);
const LAUNCH: Action = Action::Launch(0, true);
const POLICY: PolicySpec =
    PolicySpec { unikernels: 3, memory_mb: 100, cpus: &[0, 1], bridges: &["br0"], block_mb: Some(10) };
const ON_DISK: Spec = Spec { image: 6, blocks: &["storage"], ..Spec::PLAIN };

fn host() -> Host {
    let mut host = Host::new(Budget { faults: 100, crashes: 2, commands: 1000 }).unwrap();
    host.apply(&STORE).unwrap();
    host
}

fn act(host: &mut Host, actions: &[Action]) {
    actions.iter().for_each(|action| host.apply(action).unwrap());
}

/// Asks on connection 0 and gives what is said at once.
fn say(host: &mut Host, text: &str, wish: Wish) -> String {
    host.last_reply = Reply::None;
    host.apply(&Action::Ask(0, Ask { name: name(text), wish })).unwrap();
    said(&host.last_reply)
}

fn said(reply: &Reply) -> String {
    match reply {
        Reply::Done(done) => done.as_str().to_owned(),
        Reply::Refused(refusal) => refusal.to_string(),
        other => format!("{other:?}"),
    }
}

/// Adds a block device, up to its reply.
fn add(host: &mut Host, text: &str, size_mb: i64) {
    assert_eq!(say(host, text, Wish::BlockAdd(size_mb)), "None");
    act(host, &[STORE, DURABLE]);
    assert_eq!(said(&host.last_reply), "added block device");
}

/// Creates a unikernel, up to its reply.
fn create(host: &mut Host, text: &str, spec: Spec) {
    assert_eq!(say(host, text, Wish::Create(spec)), "None");
    act(host, &[STORE, LAUNCH, DURABLE]);
    assert_eq!(said(&host.last_reply), "created unikernel");
}

/// Sets a policy.
fn allow(host: &mut Host, path: &str, policy: PolicySpec) {
    assert_eq!(say(host, path, Wish::PolicyAdd(policy)), "None");
    act(host, &[DURABLE]);
    assert_eq!(said(&host.last_reply), "added policy");
}

fn is_active(host: &Host, text: &str) -> bool {
    host.machine.find_block(&name(text)).unwrap().1.holder().is_some()
}

#[test]
fn what_is_refused_in_which_words() {
    let mut host = host();
    allow(&mut host, "p:", POLICY);
    allow(&mut host, "r:", PolicySpec { block_mb: None, ..POLICY });
    add(&mut host, "p:storage", 4);
    for (text, wish, expected) in [
        ("p:storage", Wish::BlockAdd(2), "block device with same name already exists"),
        ("p:disk", Wish::BlockAdd(0), "0 MB is no size of a block device: give 1 to 8796093022207 MB"),
        ("p:disk", Wish::BlockAdd(-7), "-7 MB is no size of a block device: give 1 to 8796093022207 MB"),
        ("p:disk", Wish::BlockAdd(1 << 43), "overflow while computing bytes: give 1 to 8796093022207 MB"),
        (
            "p:disk",
            Wish::BlockAdd((1 << 43) - 1),
            "block device policy limit of 10 MB (used 4 MB) would be exceeded by the request (8796093022207 MB)",
        ),
        ("r:disk", Wish::BlockAdd(1), "no block devices are allowed by policy"),
        ("p:", Wish::BlockAdd(1), "the name of a block device is needed, a path was given (it ends with ':')"),
        ("p:disk", Wish::BlockRemove, "remove block: not found"),
        ("p:disk", Wish::BlockInfo, "info block: not found"),
        ("p:", Wish::BlockRemove, "remove block: not found"),
        ("p:storage", Wish::BlockInfo, "Blocks"),
        ("q:", Wish::BlockInfo, "Blocks"),
        ("p:a", Wish::Create(Spec { blocks: &["none"], ..ON_DISK }), "block device none does not exist"),
        ("r:a", Wish::Create(ON_DISK), "block device storage does not exist"),
        (
            "p:a",
            Wish::Create(Spec { image: 7, blocks: &["storage", "storage"], bridge: Some("br0"), ..Spec::PLAIN }),
            "block device storage is in use",
        ),
    ] {
        assert_eq!(say(&mut host, text, wish), expected, "{text}");
    }
    create(&mut host, "p:a", ON_DISK);
    assert_eq!(say(&mut host, "p:b", Wish::Create(ON_DISK)), "block device storage is in use");
    assert_eq!(say(&mut host, "p:storage", Wish::BlockRemove), "remove block: is in use");
    // While it comes and while it goes it is neither there nor not.
    let busy = "this block device is still being made or removed, try again";
    assert_eq!(say(&mut host, "p:disk", Wish::BlockAdd(1)), "None");
    act(&mut host, &[Action::HangUp(0)]);
    for step in [STORE, DURABLE] {
        assert_eq!(say(&mut host, "p:disk", Wish::BlockAdd(1)), busy);
        assert_eq!(say(&mut host, "p:disk", Wish::BlockRemove), busy);
        assert_eq!(say(&mut host, "p:disk", Wish::BlockInfo), "info block: not found");
        let two = Wish::Create(Spec { blocks: &["disk"], ..ON_DISK });
        assert_eq!(say(&mut host, "p:b", two), "block device disk does not exist");
        act(&mut host, &[step]);
    }
    assert_eq!(say(&mut host, "p:disk", Wish::BlockRemove), "None");
    act(&mut host, &[Action::HangUp(0), DURABLE]);
    assert_eq!(say(&mut host, "p:disk", Wish::BlockAdd(1)), busy);
    act(&mut host, &[STORE]);
    add(&mut host, "p:disk", 6);
}

#[test]
fn every_ancestor_counts_up_to_the_host() {
    let mut host = host();
    allow(&mut host, "p:", POLICY);
    allow(&mut host, "p:q:", PolicySpec { block_mb: Some(6), ..POLICY });
    add(&mut host, "p:q:disk", 5);
    add(&mut host, "p:storage", 4);
    for (text, size, expected) in [
        ("p:q:storage", 2, "block device policy limit of 6 MB (used 5 MB) would be exceeded by the request (2 MB)"),
        ("p:q:r:s:disk", 2, "block device policy limit of 6 MB (used 5 MB) would be exceeded by the request (2 MB)"),
        ("p:disk", 2, "block device policy limit of 10 MB (used 9 MB) would be exceeded by the request (2 MB)"),
        // A path without a policy is bound by the host.
        ("r:disk", 32, "block device policy limit of 40 MB (used 9 MB) would be exceeded by the request (32 MB)"),
    ] {
        assert_eq!(say(&mut host, text, Wish::BlockAdd(size)), expected);
    }
    add(&mut host, "r:storage", 31);
}

#[test]
fn a_policy_covers_the_block_devices_below() {
    let mut host = host();
    add(&mut host, "p:q:disk", 5);
    add(&mut host, "p:storage", 4);
    for (block_mb, expected) in [
        (Some(8), "policy allows 8 MB block storage, but 9 MB are used already"),
        (None, "policy allows no block storage, but 9 MB are used already"),
    ] {
        assert_eq!(say(&mut host, "p:", Wish::PolicyAdd(PolicySpec { block_mb, ..POLICY })), expected);
    }
    allow(&mut host, "p:", PolicySpec { block_mb: Some(9), ..POLICY });
    assert_eq!(
        say(&mut host, "p:disk", Wish::BlockAdd(1)),
        "block device policy limit of 9 MB (used 9 MB) would be exceeded by the request (1 MB)"
    );
    // The policy that is on its way counts already, and so does the one that it replaces.
    assert_eq!(say(&mut host, "p:", Wish::PolicyAdd(PolicySpec { block_mb: Some(20), ..POLICY })), "None");
    act(&mut host, &[Action::HangUp(0)]);
    assert!(say(&mut host, "p:disk", Wish::BlockAdd(1)).contains("limit of 9 MB"));
    act(&mut host, &[DURABLE]);
    add(&mut host, "p:disk", 1);
}

#[test]
fn a_unikernel_has_its_block_device_until_it_is_gone_for_good() {
    let mut host = host();
    add(&mut host, "p:storage", 2);
    let taken = |host: &mut Host| {
        assert_eq!(say(host, "p:storage", Wish::BlockRemove), "remove block: is in use");
        assert_eq!(say(host, "p:b", Wish::Create(ON_DISK)), "block device storage is in use");
    };
    // From the admission of the create on.
    assert_eq!(say(&mut host, "p:a", Wish::Create(Spec { fail: Some(&[]), ..ON_DISK })), "None");
    act(&mut host, &[Action::HangUp(0)]);
    for step in [STORE, LAUNCH, DURABLE] {
        taken(&mut host);
        act(&mut host, &[step]);
    }
    taken(&mut host);
    // While it rests, when it was found again, when it was brought up again.
    act(&mut host, &[Action::Exit(1, fulmar_core::machine::Exit::Code(2))]);
    taken(&mut host);
    act(&mut host, &[Action::Crash(Crash::PLAIN), STORE]);
    taken(&mut host);
    act(&mut host, &[LAUNCH, Action::Crash(Crash::PLAIN), STORE]);
    assert_eq!(host.processes.len(), 1);
    taken(&mut host);
    // Until its process is gone.
    assert_eq!(say(&mut host, "p:a", Wish::Destroy), "None");
    act(&mut host, &[DURABLE]);
    assert!(is_active(&host, "p:storage"));
    act(&mut host, &[Action::Exit(1, fulmar_core::machine::Exit::Signal(15)), STORE]);
    assert!(!is_active(&host, "p:storage"));
    // A create that fails gives it back, and so does an end for good.
    assert_eq!(say(&mut host, "p:b", Wish::Create(ON_DISK)), "None");
    act(&mut host, &[STORE, Action::Launch(0, false)]);
    assert!(!is_active(&host, "p:storage"));
    act(&mut host, &[STORE]);
    create(&mut host, "p:b", ON_DISK);
    let unit = *host.processes.keys().next().unwrap();
    act(&mut host, &[Action::Exit(unit, fulmar_core::machine::Exit::Code(0))]);
    assert!(is_active(&host, "p:storage"));
    act(&mut host, &[DURABLE]);
    assert!(!is_active(&host, "p:storage"));
}

#[test]
fn a_creation_that_cannot_be_recorded_leaves_nothing() {
    let mut host = host();
    assert_eq!(say(&mut host, "p:storage", Wish::BlockAdd(2)), "None");
    act(&mut host, &[Action::Store(false)]);
    assert_eq!(said(&host.last_reply), "the disk of the block devices is full: ask for less or add space");
    assert_eq!(host.machine.blocks().count(), 0);
    assert_eq!(say(&mut host, "p:storage", Wish::BlockAdd(2)), "None");
    act(&mut host, &[STORE, Action::Append(1, Fate::Unknown)]);
    let undone = "the journal could not be written, the change was undone, but a crash may bring it back: input or output \
        failed (error 5)";
    assert_eq!(said(&host.last_reply), undone);
    // The record could come back by a crash: the file stays, and counts, until the journal is written.
    assert_eq!(host.block_files.len(), 1);
    assert_eq!(host.machine.ledger().account_at(&fulmar_core::name::Name::ROOT).unwrap().used().block_mb, 2);
    act(&mut host, &[Action::Tick(0), Action::Append(1, Fate::NotWritten), Action::Tick(0), DURABLE, STORE]);
    assert!(host.block_files.is_empty());
    assert_eq!(host.machine.ledger().account_at(&fulmar_core::name::Name::ROOT).unwrap().used().block_mb, 0);
    // Another record does it too.
    assert_eq!(say(&mut host, "p:storage", Wish::BlockAdd(2)), "None");
    act(&mut host, &[STORE, Action::Append(1, Fate::NotWritten)]);
    allow(&mut host, "p:", POLICY);
    act(&mut host, &[STORE]);
    assert!(host.block_files.is_empty());
    add(&mut host, "p:storage", 2);
}

#[test]
fn the_tender_is_given_open_files_in_the_order_of_its_options() {
    let mut host = host();
    add(&mut host, "p:storage", 2);
    add(&mut host, "p:disk", 3);
    let spec = Spec { image: 7, bridge: Some("br0"), blocks: &["disk", "storage"], startup: Some(10), ..Spec::PLAIN };
    assert_eq!(say(&mut host, "p:a", Wish::Create(spec)), "None");
    act(&mut host, &[STORE]);
    let (slot, _) = host.machine.find(&name("p:a")).unwrap();
    let mut buffers = Box::<PlanBuffers>::default();
    let plan = host.machine.launch_plan(slot, &mut buffers).unwrap();
    let argv: Vec<_> = plan.argv.iter().map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    assert_eq!(plan.blocks, 2);
    // A set on the wire: the one whose encoding is lower comes first.
    let devices = ["--block:storage=@5", "--block:extra=@6"];
    let sectors = ["--block-sector-size:storage=4096", "--block-sector-size:extra=4096"];
    assert_eq!(argv[2], "--net:service=@4");
    assert_eq!(argv[4..6], devices);
    assert_eq!(argv[6..8], sectors);
    assert_eq!(argv[8..12], ["--net-control=@7", "--exit-status-file=@8", "--", "@3"]);
    let named = host.launches[0].blocks.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(named, ["p:disk", "p:storage"]);
}

#[test]
fn solo5s_own_tender_opens_its_files_by_their_names() {
    let mut host = host();
    add(&mut host, "p:storage", 2);
    add(&mut host, "p:disk", 3);
    let spec = Spec { image: 7, bridge: Some("br0"), blocks: &["disk", "storage"], startup: Some(10), ..Spec::PLAIN };
    assert_eq!(say(&mut host, "p:a", Wish::Create(spec)), "None");
    act(&mut host, &[STORE]);
    let mut bridges = Bridges::EMPTY;
    bridges.insert(Bridge::new(b"br0").unwrap()).unwrap();
    let root = Policy { unikernels: 9, cpus: CpuSet::first(4), memory_mb: 999, block_mb: Some(99), bridges };
    let tenders = Tenders { hvt: true, spt: true, solo5: true, bhyve: None };
    host.machine.handle(host.now, Input::Host { root: &root, tenders });
    let (slot, _) = host.machine.find(&name("p:a")).unwrap();
    let mut buffers = Box::<PlanBuffers>::default();
    let plan = host.machine.launch_plan(slot, &mut buffers).unwrap();
    let argv: Vec<_> = plan.argv.iter().map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    assert_eq!(argv[2], "--net:service=@4", "an interface has no name as a file");
    assert_eq!(argv[4..6], ["--block:storage=/dev/fd/5", "--block:extra=/dev/fd/6"]);
    assert_eq!(argv[6..8], ["--block-sector-size:storage=4096", "--block-sector-size:extra=4096"]);
    assert_eq!(argv[8..10], ["--", "/dev/fd/3"], "and nothing that only ours knows");
}

#[test]
fn while_a_content_is_set_or_dumped_nobody_else_has_the_block_device() {
    let mut host = host();
    add(&mut host, "p:storage", 2);
    add(&mut host, "p:disk", 2);
    for (text, wish, expected) in [
        ("p:none", Wish::BlockSet, "set block: not found"),
        ("p:", Wish::BlockSet, "set block: not found"),
        ("p:none", Wish::BlockOldSet(Octets::Plain), "set block: not found"),
        ("p:none", Wish::BlockDump(0, false), "dump block: not found"),
        ("p:", Wish::BlockDump(9, true), "dump block: not found"),
        (
            "p:disk",
            Wish::BlockOldSet(Octets::EmptyCompressed),
            "the compressed content is damaged: it is no complete zlib stream, nothing was changed",
        ),
    ] {
        assert_eq!(say(&mut host, text, wish), expected, "{text}");
    }
    let busy = "this block device is being set or dumped, try again";
    let others = |host: &mut Host, dump: &str| {
        assert_eq!(say(host, "p:storage", Wish::BlockSet), busy);
        assert_eq!(say(host, "p:storage", Wish::BlockOldSet(Octets::Plain)), busy);
        assert_eq!(say(host, "p:storage", Wish::BlockRemove), busy);
        assert_eq!(say(host, "p:storage", Wish::BlockInfo), "Blocks");
        assert!(!is_active(host, "p:storage"));
        let in_transfer = "block device storage is being set or dumped, try again";
        assert_eq!(say(host, "p:a", Wish::Create(ON_DISK)), in_transfer);
        assert_eq!(say(host, "p:storage", Wish::BlockDump(0, false)), dump);
    };
    // By chunks; the client goes, and what it had sent still comes to its end.
    assert_eq!(say(&mut host, "p:storage", Wish::BlockSet), "None");
    act(&mut host, &[Action::HangUp(0)]);
    others(&mut host, busy);
    act(&mut host, &[Action::Set(0, SetFate::Refused)]);
    assert_eq!(host.contents[&name("p:storage")], OnDisk::durable(0));
    for octets in [Octets::Plain, Octets::Compressed, Octets::Empty] {
        assert_eq!(say(&mut host, "p:storage", Wish::BlockOldSet(octets)), "None");
        act(&mut host, &[Action::Set(0, SetFate::Done)]);
        assert_eq!(said(&host.last_reply), "set block device");
    }
    assert_eq!(say(&mut host, "p:storage", Wish::BlockSet), "None");
    act(&mut host, &[Action::Set(0, SetFate::Unsettled)]);
    let unsettled = "a crash may bring the old content back, set it again: input or output failed (error 5)";
    assert_eq!(said(&host.last_reply), unsettled);
    // Several may read it.
    let dump = say(&mut host, "p:storage", Wish::BlockDump(99, true));
    assert!(dump.starts_with("Dump") && dump.contains("level: 9, whole: true"), "{dump}");
    let again = say(&mut host, "p:storage", Wish::BlockDump(-1, false));
    assert!(again.contains("level: 0, whole: false"), "{again}");
    for _ in 0..2 {
        assert_eq!(say(&mut host, "p:storage", Wish::BlockSet), busy);
        act(&mut host, &[Action::Dumped(0)]);
    }
    create(&mut host, "p:a", ON_DISK);
    for wish in [Wish::BlockSet, Wish::BlockOldSet(Octets::Plain)] {
        assert_eq!(say(&mut host, "p:storage", wish), "set block: is in use");
    }
    assert_eq!(say(&mut host, "p:storage", Wish::BlockDump(0, false)), "dump block: is in use");
    // As many at once as may be, of whichever block device.
    for _ in 1..TRANSFERS_MAX {
        assert!(say(&mut host, "p:disk", Wish::BlockDump(0, false)).starts_with("Dump"));
    }
    add(&mut host, "r:storage", 1);
    assert_eq!(say(&mut host, "r:storage", Wish::BlockSet), "None");
    act(&mut host, &[Action::HangUp(0)]);
    let full = "too many block devices are being set or dumped, try again";
    assert_eq!(say(&mut host, "p:disk", Wish::BlockDump(0, false)), full);
    act(&mut host, &[Action::Set(0, SetFate::Done), Action::Dumped(0)]);
    assert!(say(&mut host, "p:disk", Wish::BlockDump(0, false)).starts_with("Dump"));
}

#[test]
fn one_that_comes_with_its_content_has_it_when_it_is_there() {
    let mut host = host();
    for (text, octets) in [("p:storage", Octets::Plain), ("p:disk", Octets::Compressed), ("r:storage", Octets::None)] {
        assert_eq!(say(&mut host, text, Wish::BlockOldAdd(2, octets)), "None");
        act(&mut host, &[STORE, DURABLE]);
        assert_eq!(said(&host.last_reply), "added block device");
        assert_eq!(host.contents[&name(text)].now > 0, octets != Octets::None);
    }
    let no_stream = "the compressed content is damaged: it is no complete zlib stream, nothing was changed";
    assert_eq!(say(&mut host, "p:q:disk", Wish::BlockOldAdd(2, Octets::EmptyCompressed)), no_stream);
    let exists = "block device with same name already exists";
    assert_eq!(say(&mut host, "p:disk", Wish::BlockOldAdd(2, Octets::Plain)), exists);
    assert!(say(&mut host, "p:q:disk", Wish::BlockOldAdd(0, Octets::Plain)).starts_with("0 MB is no size"));
}

/// A machine that has restored one block device of 3 MB, whose file has so many bytes.
fn restored(bytes: Option<u64>) -> (Box<Machine<2, 4, 2, 2, 512>>, u16) {
    let mut machine = Box::new(Machine::new());
    machine.restore(&Record::Block { name: "p:storage", size_mb: 3 }).unwrap();
    let (slot, _) = machine.find_block(&name("p:storage")).unwrap();
    machine.handle(Now { ms: 1, wall_ms: 1 }, Input::BlockFile { slot, bytes });
    machine.handle(Now { ms: 1, wall_ms: 1 }, Input::Start);
    while machine.next_effect().is_some() {}
    (machine, slot)
}

/// Gives it a command about that block device.
fn command(machine: &mut Machine<2, 4, 2, 2, 512>, command: BlockCommand<'_>) -> Option<Effect> {
    let header = Header::new(1, name("p:storage"));
    let command = Command::Block(command);
    machine.handle(
        Now { ms: 1, wall_ms: 1 },
        Input::Command { connection: 0, header: &header, command: &command, image: Some(Spooled { spool: 5 }) },
    );
    machine.next_effect()
}

#[test]
fn a_content_heals_a_file_that_is_not_as_recorded() {
    for bytes in [None, Some(7)] {
        let (mut machine, slot) = restored(bytes);
        assert_eq!(command(&mut machine, BlockCommand::Dump { level: 0 }), Some(Effect::Reply { connection: 0 }));
        assert!(said(&machine.reply(0)).contains("restore it and start vmmd again"));
        let set = command(&mut machine, BlockCommand::Set { compressed: false });
        assert_eq!(set, Some(Effect::SetContent { slot, source: Source::Chunks { connection: 0 } }));
        machine.handle(Now { ms: 2, wall_ms: 2 }, Input::ContentSet { slot, outcome: Ok(()) });
        assert_eq!(said(&machine.reply(0)), "set block device");
        while machine.next_effect().is_some() {}
        command(&mut machine, BlockCommand::Dump { level: 0 });
        assert_eq!(machine.reply(0), Reply::Dump { slot, level: 0, whole: false });
    }
}

#[test]
fn what_cannot_fit_is_refused_before_anybody_looks_at_it() {
    let (mut machine, slot) = restored(Some(3 << 20));
    let too_large = "the content is more than the block device holds: nothing was changed";
    let data = |len| Image::Diverted { len };
    command(&mut machine, BlockCommand::OldSet { compressed: false, data: data((3 << 20) + 1) });
    assert_eq!(said(&machine.reply(0)), too_large);
    while machine.next_effect().is_some() {}
    // What it becomes when it is uncompressed nobody knows yet.
    let set = command(&mut machine, BlockCommand::OldSet { compressed: true, data: data((3 << 20) + 1) });
    let source = Source::Message(Some(Spooled { spool: 5 }));
    assert_eq!(set, Some(Effect::SetContent { slot, source }));
    let outcome = Err(BlockFileError::TooLarge);
    machine.handle(Now { ms: 2, wall_ms: 2 }, Input::ContentSet { slot, outcome });
    assert_eq!(said(&machine.reply(0)), too_large);
}

/// What a machine says to a create, after it has restored one block device of 3 MB whose file has so many bytes.
fn create_on(bytes: Option<u64>) -> Option<String> {
    let mut machine = Box::new(Machine::<2, 4, 2, 2, 512>::new());
    machine.restore(&Record::Block { name: "p:storage", size_mb: 3 }).unwrap();
    let now = Now { ms: 1, wall_ms: 1 };
    let (cpus, bridges) = (CpuSet::first(1), Bridges::EMPTY);
    let root = Policy { unikernels: 9, cpus, memory_mb: 999, block_mb: Some(9), bridges };
    machine
        .handle(now, Input::Host { root: &root, tenders: Tenders { hvt: true, spt: true, solo5: false, bhyve: None } });
    let (slot, _) = machine.find_block(&name("p:storage")).unwrap();
    machine.handle(now, Input::BlockFile { slot, bytes });
    machine.handle(now, Input::Survivor { unit: Unit(7), account: 1, started_wall_ms: 1, told: false });
    machine.handle(now, Input::Start);
    let ask = Ask { name: name("p:a"), wish: Wish::Create(ON_DISK) };
    let bytes = ask.encode(1);
    let message = decode(Frame::whole(&bytes)).unwrap();
    let Payload::Command(command) = message.payload else { panic!("no command") };
    let image = Some(Spooled { spool: 0 });
    while machine.next_effect().is_some() {}
    machine.handle(now, Input::Command { connection: 0, header: &message.header, command: &command, image });
    match machine.next_effect() {
        Some(Effect::Reply { connection: 0 }) => Some(said(&machine.reply(0))),
        Some(Effect::Store { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_not_as_recorded_is_not_used() {
    assert_eq!(create_on(Some(3 << 20)), None);
    let restore = "restore it and start vmmd again, or remove the block device";
    assert_eq!(create_on(None), Some(format!("the file of block device storage is gone: {restore}")));
    assert_eq!(
        create_on(Some(5)),
        Some(format!("the file of block device storage has another size than recorded, 5 bytes: {restore}"))
    );
}

#[test]
fn records_that_make_no_sense_end_the_start() {
    let restore = |name, size_mb| Machine::<2, 4, 2, 2, 512>::new().restore(&Record::Block { name, size_mb });
    assert!(restore("p:a", 1).is_ok());
    for (name, size_mb) in [("p:", 1), ("p:a", 0), ("p:a", u64::MAX), ("p:a", 1 << 43), ("", 1), ("p/a", 1)] {
        assert!(restore(name, size_mb).is_err(), "{name} {size_mb}");
    }
}
