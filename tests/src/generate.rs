//! Messages made up at random, for the properties of the wire. What a message borrows is leaked: tests are short.

use std::fmt::Debug;
use std::net::IpAddr;

use fulmar_core::name::Name;
use fulmar_core::wire::{
    Arguments, BlockCommand, BlockDevice, Bridge, Command, Condition, Config, ConsoleCommand, Data, Deed, Event,
    ExitStatus, Fact, FailBehaviour, GapCause, Header, HostInfo, Image, Info, InfoBlock, InfoBridge, Interface, Item,
    Kind, LastRun, List, LogCommand, LogEntry, LogFrom, Login, Loss, Memory, Message, Moment, NamedCondition,
    NamedInfo, NamedPolicy, Next, Note, Numbered, Payload, Phase, Policy, PolicyCommand, RunEnd, Rusage, StatsCommand,
    Success, Tap, Text, UnikernelCommand, Usage, Use, Window,
};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A number of the wire's range, mostly small.
pub fn number() -> impl Strategy<Value = i64> {
    prop_oneof![-300..300_i64, Just(-(1 << 62)), Just((1 << 62) - 1), -(1_i64 << 62)..(1_i64 << 62)]
}

/// A name of a unikernel or a path.
pub fn name() -> impl Strategy<Value = Name> {
    "([a-z0-9.][a-z0-9.-]{0,8}:){0,4}([a-z0-9.][a-z0-9.-]{0,62})?"
        .prop_map(|text| Name::parse(&text).unwrap_or(Name::ROOT))
}

/// A message of any kind.
pub fn message() -> impl Strategy<Value = Message<'static>> {
    (any::<u64>(), name(), payload())
        .prop_map(|(sequence, name, payload)| Message { header: Header::new(sequence, name), payload })
}

/// What a unikernel runs with.
pub fn arguments() -> impl Strategy<Value = Arguments<'static>> {
    let device = (string(), option::of(string()), option::of(number()));
    let block = device.prop_map(|(name, host_device, sector_size)| BlockDevice { name, host_device, sector_size });
    let bridge = (string(), option::of(string()), option::of(any::<[u8; 6]>()))
        .prop_map(|(name, bridge, mac)| Bridge { name, bridge, mac });
    let start = (fail_behaviour(), option::of(number()), any::<bool>(), distinct(), number());
    let devices = (list(block), list(bridge), option::of(list(string().prop_map(Text::from))));
    (start, devices, number(), option::of(string())).prop_map(|(start, devices, numcpus, linux_boot)| {
        let (fail_behaviour, startup, add_name, cpuids, memory) = start;
        let (block_devices, bridges, argv) = devices;
        Arguments {
            fail_behaviour,
            startup,
            add_name,
            cpuids,
            memory,
            block_devices,
            bridges,
            argv,
            numcpus,
            linux_boot,
        }
    })
}

/// What a path may use.
pub fn policy() -> impl Strategy<Value = Policy<'static>> {
    (distinct(), number(), number(), option::of(number()), bridges())
        .prop_map(|(cpuids, unikernels, memory, block, bridges)| Policy { cpuids, unikernels, memory, block, bridges })
}

fn bridges() -> impl Strategy<Value = List<'static, &'static str>> {
    btree_set(string(), 0..4).prop_map(|bridges| leak(bridges.into_iter().rev().collect()))
}

fn leak<T>(items: Vec<T>) -> List<'static, T> {
    List::Items(Vec::leak(items))
}

fn list<T: Item<'static> + Debug + 'static>(item: impl Strategy<Value = T>) -> impl Strategy<Value = List<'static, T>> {
    vec(item, 0..5).prop_map(leak)
}

fn distinct() -> impl Strategy<Value = List<'static, i64>> {
    btree_set(number(), 0..6).prop_map(|numbers| leak(numbers.into_iter().collect()))
}

fn string() -> impl Strategy<Value = &'static str> {
    ".{0,20}".prop_map(|text| &*text.leak())
}

fn octets() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..300).prop_map(|octets| &*octets.leak())
}

fn text() -> impl Strategy<Value = Text<'static>> {
    octets().prop_map(Text)
}

fn image() -> impl Strategy<Value = Image<'static>> {
    octets().prop_map(Image::Inline)
}

fn unix_ms() -> impl Strategy<Value = i64> {
    fulmar_core::time::UNIX_MS_MIN..=fulmar_core::time::UNIX_MS_MAX
}

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![unix_ms().prop_map(Window::Since), number().prop_map(Window::Count)]
}

fn fail_behaviour() -> impl Strategy<Value = FailBehaviour<'static>> {
    prop_oneof![Just(FailBehaviour::Quit), distinct().prop_map(FailBehaviour::Restart)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Solo5), Just(Kind::Bhyve)]
}

fn config() -> impl Strategy<Value = Config<'static>> {
    (kind(), any::<bool>(), image(), arguments()).prop_map(|(kind, compressed, image, arguments)| Config {
        kind,
        compressed,
        image,
        arguments,
    })
}

fn payload() -> impl Strategy<Value = Payload<'static>> {
    prop_oneof![
        command().prop_map(Payload::Command),
        success().prop_map(Payload::Success),
        text().prop_map(Payload::Failure),
        data().prop_map(Payload::Data),
    ]
}

fn command() -> impl Strategy<Value = Command<'static>> {
    let tap = (string(), string()).prop_map(|(bridge, tap)| Tap { bridge, tap });
    let stats = (string(), number(), list(tap)).prop_map(|(device, pid, taps)| StatsCommand::Add { device, pid, taps });
    let old_add = (number(), any::<bool>(), option::of(image()))
        .prop_map(|(size, compressed, data)| BlockCommand::OldAdd { size, compressed, data });
    let old_set = (any::<bool>(), image()).prop_map(|(compressed, data)| BlockCommand::OldSet { compressed, data });
    prop_oneof![
        number().prop_map(|unikernels| Command::Console(ConsoleCommand::Add { unikernels })),
        window().prop_map(|window| Command::Console(ConsoleCommand::Subscribe(window))),
        Just(Command::Console(ConsoleCommand::ListInactive)),
        stats.prop_map(Command::Stats),
        Just(Command::Stats(StatsCommand::Subscribe)),
        Just(Command::Unikernel(UnikernelCommand::Condition)),
        Just(Command::Host),
        any::<bool>().prop_map(|remove| Command::Revoke { remove }),
        window().prop_map(Command::Log),
        (log_from(), any::<bool>()).prop_map(|(from, follow)| Command::Events(LogCommand { from, follow })),
        number().prop_map(|level| Command::Unikernel(UnikernelCommand::Get { level })),
        config().prop_map(|config| Command::Unikernel(UnikernelCommand::Create(config))),
        config().prop_map(|config| Command::Unikernel(UnikernelCommand::ForceCreate(config))),
        option::of(arguments()).prop_map(|arguments| Command::Unikernel(UnikernelCommand::Restart(arguments))),
        policy().prop_map(|policy| Command::Policy(PolicyCommand::Add(policy))),
        list((name(), policy()).prop_map(|(name, policy)| NamedPolicy { name, policy }))
            .prop_map(|policies| Command::Policy(PolicyCommand::Chain(policies))),
        old_add.prop_map(Command::Block),
        old_set.prop_map(Command::Block),
        number().prop_map(|level| Command::Block(BlockCommand::Dump { level })),
    ]
}

fn success() -> impl Strategy<Value = Success<'static>> {
    let policies = (name(), policy()).prop_map(|(name, policy)| NamedPolicy { name, policy });
    let infos = (name(), info()).prop_map(|(name, info)| NamedInfo { name, info });
    prop_oneof![
        text().prop_map(Success::Text),
        list(policies).prop_map(Success::Policies),
        (any::<bool>(), image()).prop_map(|(compressed, image)| Success::Image { compressed, image }),
        list(name()).prop_map(Success::Consoles),
        list(infos).prop_map(Success::Infos),
        list(named_condition()).prop_map(Success::Conditions),
        host().prop_map(Success::Host),
    ]
}

fn host() -> impl Strategy<Value = HostInfo<'static>> {
    let uses = list((text(), number(), number()).prop_map(|(what, used, limit)| Use { what, used, limit }));
    let facts = list((text(), text()).prop_map(|(what, how)| Fact { what, how }));
    (text(), distinct(), bridges(), uses, facts).prop_map(|(version, cpuids, bridges, uses, facts)| HostInfo {
        version,
        cpuids,
        bridges,
        uses,
        facts,
    })
}

fn run_end() -> impl Strategy<Value = RunEnd> {
    prop_oneof![
        number().prop_map(RunEnd::Code),
        number().prop_map(RunEnd::Signal),
        Just(RunEnd::OutOfMemory),
        Just(RunEnd::Unknown),
        Just(RunEnd::Stopped),
    ]
}

fn named_condition() -> impl Strategy<Value = NamedCondition<'static>> {
    let last = (unix_ms(), run_end()).prop_map(|(ended_unix_ms, end)| LastRun { ended_unix_ms, end });
    let phase = prop_oneof![Just(Phase::Running), Just(Phase::Starting), Just(Phase::Stopping), Just(Phase::Resting)];
    let counts = (phase, number(), number());
    (name(), counts, option::of(last), option::of(unix_ms()), option::of(text())).prop_map(
        |(name, (phase, restarts, failures), last, next_unix_ms, reason)| NamedCondition {
            name,
            condition: Condition { phase, restarts, failures, last, next_unix_ms, reason },
        },
    )
}

fn info() -> impl Strategy<Value = Info<'static>> {
    let block = (text(), text(), number(), number()).prop_map(|(device, host, sector_size, size)| InfoBlock {
        device,
        host,
        sector_size,
        size,
    });
    let bridge = (text(), text(), any::<[u8; 6]>()).prop_map(|(device, host, mac)| InfoBridge { device, host, mac });
    let first = (kind(), option::of(number()), fail_behaviour(), distinct(), number(), octets());
    let devices = (list(block), list(bridge), option::of(list(text())));
    (first, devices, option::of(unix_ms()), number(), option::of(text())).prop_map(
        |(first, devices, started, numcpus, linux_boot)| {
            let (kind, startup, fail_behaviour, cpuids, memory, digest) = first;
            let (block_devices, bridges, argv) = devices;
            Info {
                kind,
                startup,
                fail_behaviour,
                cpuids,
                memory,
                digest,
                block_devices,
                bridges,
                argv,
                started,
                numcpus,
                linux_boot,
            }
        },
    )
}

fn data() -> impl Strategy<Value = Data<'static>> {
    let moment = || (any::<i64>(), number()).prop_map(|(seconds, microseconds)| Moment { seconds, microseconds });
    let rusage = (moment(), any::<[i64; 2]>()).prop_map(|(utime, [maxrss, nivcsw])| Rusage {
        utime,
        maxrss,
        nivcsw,
        ..Rusage::default()
    });
    let memory = (any::<i64>(), number(), moment()).prop_map(|(vsize, cow, start)| Memory {
        vsize,
        cow,
        start,
        ..Memory::default()
    });
    let interface = (text(), number(), any::<i64>()).prop_map(|(bridge, mtu, output_dropped)| Interface {
        bridge,
        mtu,
        output_dropped,
        ..Interface::default()
    });
    let usage = (rusage, list(interface), option::of(memory)).prop_map(|(rusage, interfaces, memory)| {
        Data::Stats(Usage { rusage, interfaces, counters: Some(List::EMPTY), memory })
    });
    prop_oneof![
        usage,
        (unix_ms(), text()).prop_map(|(unix_ms, line)| Data::Console { unix_ms, line }),
        log_entry().prop_map(Data::Log),
        (any::<u64>(), log_entry()).prop_map(|(sequence, entry)| Data::Event(Numbered { sequence, entry })),
        note().prop_map(Data::Note),
        option::of(image()).prop_map(Data::Block),
    ]
}

fn log_from() -> impl Strategy<Value = LogFrom> {
    prop_oneof![window().prop_map(LogFrom::Window), any::<u64>().prop_map(LogFrom::After)]
}

fn note() -> impl Strategy<Value = Note> {
    let cause = prop_oneof![Just(GapCause::Removed), Just(GapCause::Damaged)];
    prop_oneof![
        (any::<u64>(), any::<u64>(), cause).prop_map(|(first, next, cause)| Note::Gap { first, next, cause }),
        number().prop_map(|count| Note::Lost { count }),
        any::<u64>().prop_map(|last| Note::End { last }),
        Just(Note::Slow),
    ]
}

/// An entry of the event log.
pub fn log_entry() -> impl Strategy<Value = LogEntry<'static>> {
    let login = || (name(), any::<IpAddr>(), number()).prop_map(|(name, address, port)| Login { name, address, port });
    let start = (name(), number(), list(string()), option::of(string()))
        .prop_map(|(name, pid, taps, block)| Event::Start { name, pid, taps, block });
    let status = prop_oneof![
        number().prop_map(ExitStatus::Exit),
        number().prop_map(ExitStatus::Signal),
        number().prop_map(ExitStatus::Stop),
    ];
    let stop = (name(), number(), status).prop_map(|(name, pid, status)| Event::Stop { name, pid, status });
    let deed = (name(), select(&Deed::ALL[..]), option::of(number())).prop_map(|(name, deed, user)| Event::Done {
        name,
        deed,
        user,
    });
    let refused =
        (name(), text(), option::of(number())).prop_map(|(name, reason, user)| Event::Refused { name, reason, user });
    let ended = (name(), number(), run_end(), any::<bool>()).prop_map(|(name, pid, end, asked)| Event::Ended {
        name,
        pid,
        end,
        asked,
    });
    let next = prop_oneof![
        (number(), number()).prop_map(|(seconds, failures)| Next::Rest { seconds, failures }),
        number().prop_map(|restarts| Next::Again { restarts }),
        Just(Next::Never),
        Just(Next::Stays),
    ];
    let decided = (name(), next, text()).prop_map(|(name, next, reason)| Event::Decided { name, next, reason });
    let loss = prop_oneof![Just(Loss::Away), Just(Loss::Disk), Just(Loss::Torn), Just(Loss::Refusals)];
    let event = prop_oneof![
        (string(), string(), any::<bool>()).prop_map(|(program, version, up)| Event::Daemon { program, version, up }),
        deed,
        refused,
        ended,
        decided,
        (name(), number(), number()).prop_map(|(name, number, count)| Event::Revoked { name, number, count }),
        (name(), text()).prop_map(|(name, serials)| Event::Proof { name, serials }),
        (name(), text()).prop_map(|(name, reason)| Event::Trouble { name, reason }),
        (number(), loss).prop_map(|(count, loss)| Event::Lost { count, loss }),
        Just(Event::Startup),
        login().prop_map(Event::Login),
        login().prop_map(Event::Logout),
        start,
        stop,
        Just(Event::Hup),
    ];
    (unix_ms(), event).prop_map(|(unix_ms, event)| LogEntry { unix_ms, event })
}
