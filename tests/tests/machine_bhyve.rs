//! Virtual machines of bhyve: what is refused in which words, what is launched, who may name which zvol, and how they come back.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use fulmar_core::halves::{MACHINE_LINE_BYTES_MAX, Tender, Texts, Unit, machine_name};
use fulmar_core::journal::Record;
use fulmar_core::limits::FRAME_HEAD_BYTES_MAX;
use fulmar_core::machine::{Change, Effect, Exit, Input, Machine, Now, POLICY_BYTES_MAX, PlanBuffers, Reply, Tenders};
use fulmar_core::name::Name;
use fulmar_core::policy::{Bridge, Bridges, CpuSet, Policy};
use fulmar_core::wire::{
    Arguments, BlockCommand, BlockDevice, Bridge as Network, Command, Config, FailBehaviour, Frame, Header, Image,
    Kind, List, Payload, Success, UnikernelCommand, decode,
};

type Small = Machine<8, 12, 6, 4, 4096>;

const NOW: Now = Now { ms: 1000, wall_ms: 1000 };
const TAG: u32 = 0xbeef;
const ZVOL: &str = "/dev/zvol/tank/vm";
const TENDERS: Tenders = Tenders { hvt: true, spt: false, solo5: true, bhyve: Some(TAG) };

/// A machine whose effects all succeed, but for launches, which wait.
struct Host {
    machine: Box<Small>,
    launches: Vec<u16>,
    signals: Vec<(Unit, bool)>,
    /// What would be on the disk, in the order of its writing.
    journal: Vec<Change>,
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn root() -> Policy {
    let mut bridges = Bridges::EMPTY;
    bridges.insert(Bridge::new(b"br0").unwrap()).unwrap();
    Policy { unikernels: 9, cpus: CpuSet::first(4), memory_mb: 9999, block_mb: Some(99), bridges }
}

impl Host {
    fn new(tenders: Tenders) -> Self {
        let mut host = Self::unstarted();
        host.begin(tenders);
        host
    }

    fn unstarted() -> Self {
        Self { machine: Box::new(Small::new()), launches: Vec::new(), signals: Vec::new(), journal: Vec::new() }
    }

    fn begin(&mut self, tenders: Tenders) {
        self.handle(Input::Zvols { path: &name("vm:") });
        self.handle(Input::Host { root: &root(), tenders });
        self.handle(Input::Start);
    }

    fn handle(&mut self, input: Input<'_>) {
        self.machine.handle(NOW, input);
        let mut effects: Vec<Effect> = std::iter::from_fn(|| self.machine.next_effect()).collect();
        while !effects.is_empty() {
            match effects.remove(0) {
                Effect::Append(change) => {
                    self.journal.push(change);
                    self.machine.handle(NOW, Input::Appended { change, outcome: Ok(()) });
                }
                Effect::MakeBlock { slot, .. } => self.machine.handle(NOW, Input::BlockMade { slot, outcome: Ok(()) }),
                Effect::Launch { slot } => self.launches.push(slot),
                Effect::Signal { unit, kill } => self.signals.push((unit, kill)),
                Effect::Store { .. } | Effect::Inspect { .. } => panic!("it has no image"),
                Effect::Reply { .. } | Effect::Collect | Effect::Rest { .. } => {}
                effect => panic!("{effect:?}"),
            }
            effects.extend(std::iter::from_fn(|| self.machine.next_effect()));
        }
    }

    fn say(&mut self, text: &str, command: &Command<'_>) -> String {
        let header = Header::new(0, name(text));
        self.handle(Input::Command { connection: 0, header: &header, command, image: None });
        match self.machine.reply(0) {
            Reply::Done(done) => done.as_str().to_owned(),
            Reply::Refused(refusal) => refusal.to_string(),
            other => format!("{other:?}"),
        }
    }

    fn create(&mut self, text: &str, arguments: &Arguments<'_>) -> String {
        self.say(text, &Command::Unikernel(UnikernelCommand::Create(config(arguments))))
    }

    /// Starts what is to be launched.
    fn launch(&mut self) {
        for slot in std::mem::take(&mut self.launches) {
            let unit = Unit(self.machine.unikernel(slot).unwrap().unit());
            self.handle(Input::Launched { unit, outcome: Ok(()) });
        }
    }

    fn running(text: &str, arguments: &Arguments<'_>) -> (Self, Unit) {
        let mut host = Self::new(TENDERS);
        assert_eq!(host.create(text, arguments), "None");
        host.launch();
        assert_eq!(host.reply(), "created unikernel");
        let unit = Unit(host.machine.find(&name(text)).unwrap().1.unit());
        (host, unit)
    }

    fn reply(&self) -> String {
        match self.machine.reply(0) {
            Reply::Done(done) => done.as_str().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

fn config<'a>(arguments: &Arguments<'a>) -> Config<'a> {
    Config { kind: Kind::Bhyve, compressed: false, image: Image::Inline(&[]), arguments: *arguments }
}

const fn disk<'a>(device: &'a str, host: &'a str) -> BlockDevice<'a> {
    BlockDevice { name: device, host_device: Some(host), sector_size: None }
}

const NET: Network<'_> = Network { name: "0", bridge: Some("br0"), mac: Some([2, 0, 0, 0, 0, 1]) };

const PLAIN: Arguments<'_> = Arguments {
    fail_behaviour: FailBehaviour::Quit,
    startup: None,
    add_name: true,
    cpuids: List::Items(&[0, 1]),
    memory: 512,
    block_devices: List::Items(&[disk("0", ZVOL)]),
    bridges: List::Items(&[NET]),
    argv: None,
    numcpus: 2,
    linux_boot: None,
};

#[test]
fn a_host_without_bhyve_refuses_it_before_anything_else() {
    let mut host = Host::new(Tenders { bhyve: None, ..TENDERS });
    let refused = "bhyve virtual machines are not run here (bhyve runs on FreeBSD): give a Solo5 image";
    assert_eq!(host.create("vm:a", &PLAIN), refused);
    assert_eq!(host.create("vm:a", &Arguments { memory: 0, numcpus: 0, ..PLAIN }), refused);
    assert!(host.journal.is_empty() && host.launches.is_empty() && host.machine.unikernels().next().is_none());
}

#[test]
fn what_makes_no_sense_is_refused_in_words() {
    let sectors = [BlockDevice { sector_size: Some(4096), ..disk("0", ZVOL) }];
    let twice = [disk("0", ZVOL), disk("0", ZVOL)];
    let gap = [disk("0", ZVOL), disk("2", ZVOL)];
    let many: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let many: Vec<_> = many.iter().map(|number| disk(number, ZVOL)).collect();
    let nets = [Network { name: "eth0", ..NET }];
    let numbers = |device: &str| {
        format!(
            "device {device}: the networks of a bhyve virtual machine are called 0, 1 and so on, and so are its block devices"
        )
    };
    let processors =
        |count: i64| format!("{count} virtual CPUs: give 1 to 16, and no more than CPUs that it may run on");
    let zvol = |path: &str| {
        format!(
            "{path} cannot be a block device here: zvols are for bhyve virtual machines of the path that vmmd was started with \
             (--allow-zvol-for)"
        )
    };
    let cases = [
        (
            Arguments { block_devices: List::EMPTY, ..PLAIN },
            "a bhyve virtual machine boots from its block device 0: give it".into(),
        ),
        (Arguments { block_devices: List::Items(&gap), ..PLAIN }, numbers("2")),
        (Arguments { bridges: List::Items(&nets), ..PLAIN }, numbers("eth0")),
        (
            Arguments { block_devices: List::Items(&many), ..PLAIN },
            "more than 30 networks and block devices of a bhyve virtual machine".to_owned(),
        ),
        (Arguments { block_devices: List::Items(&twice), ..PLAIN }, "device 0 is given twice".to_owned()),
        (
            Arguments { block_devices: List::Items(&sectors), ..PLAIN },
            "the disks of a bhyve virtual machine have the sectors of the host: leave their size out".to_owned(),
        ),
        (Arguments { numcpus: 0, ..PLAIN }, processors(0)),
        (Arguments { numcpus: 3, ..PLAIN }, processors(3)),
        (Arguments { numcpus: 17, ..PLAIN }, processors(17)),
        (
            Arguments { linux_boot: Some("msdos1 -x"), ..PLAIN },
            "a partition to boot Linux from is called as GRUB calls it: msdos1, gpt2".to_owned(),
        ),
        (Arguments { memory: 1 << 21, ..PLAIN }, "2097152 MB is no amount of memory: give 1 to 1048576 MB".to_owned()),
        (Arguments { cpuids: List::EMPTY, ..PLAIN }, "no CPU is given: name at least one".to_owned()),
        (
            Arguments { block_devices: List::Items(&[disk("0", "none")]), ..PLAIN },
            "block device none does not exist".to_owned(),
        ),
        (
            Arguments { block_devices: List::Items(&[disk("0", "/dev/zvol/../ada0")]), ..PLAIN },
            "block device /dev/zvol/../ada0 does not exist".to_owned(),
        ),
    ];
    let mut host = Host::new(TENDERS);
    for (arguments, expected) in cases {
        assert_eq!(host.create("vm:a", &arguments), expected);
    }
    // A path above, one below, and another.
    for text in ["a", "vm:deeper:a", "other:a"] {
        assert_eq!(host.create(text, &PLAIN), zvol(ZVOL));
    }
    // A Solo5 image has none.
    let solo5 = Config { kind: Kind::Solo5, ..config(&Arguments { numcpus: 1, bridges: List::EMPTY, ..PLAIN }) };
    let refused = host.say("vm:a", &Command::Unikernel(UnikernelCommand::Create(solo5)));
    assert_eq!(refused, format!("block device {ZVOL} does not exist"));
    assert!(host.journal.is_empty() && host.launches.is_empty());
}

#[test]
fn the_plan_has_devices_by_their_numbers_and_the_lines_follow_from_it() {
    let mut host = Host::new(TENDERS);
    assert_eq!(host.say("vm:data", &Command::Block(BlockCommand::Add { size: 2 })), "added block device");
    // On the wire shorter ones come first, whatever their numbers.
    let disks = [disk("1", "data"), disk("0", ZVOL)];
    let nets = [NET, Network { name: "1", bridge: Some("br0"), mac: Some([2, 0, 0, 0, 0, 2]) }];
    let arguments = Arguments { block_devices: List::Items(&disks), bridges: List::Items(&nets), ..PLAIN };
    assert_eq!(host.create("vm:a", &arguments), "None");
    let [slot] = host.launches[..] else { panic!("{:?}", host.launches) };
    let by_fd: Vec<_> = host.machine.blocks_of_plan(slot).iter().map(|block| block.host().to_owned()).collect();
    assert_eq!(by_fd, ["data"], "a zvol is not ours to open");
    let mut buffers = Box::<PlanBuffers>::default();
    let plan = host.machine.launch_plan(slot, &mut buffers).unwrap();
    plan.check().unwrap();
    assert_eq!((plan.tender, plan.memory_mb, plan.blocks, plan.argv), (Tender::Bhyve, 512, 1, Texts::EMPTY));
    assert_eq!(plan.networks, Texts::new(b"br0\0br0\0").unwrap());
    assert_eq!(plan.cpus, CpuSet::first(2));
    let machine = plan.machine.unwrap();
    assert_eq!(machine.disks, Texts::new(b"/dev/zvol/tank/vm\0@\0").unwrap());
    let (vm, mut buffer) = (machine_name(TAG, plan.unit), [0; MACHINE_LINE_BYTES_MAX]);
    let words =
        |line: Texts<'_>| line.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect::<Vec<_>>().join(" ");
    assert_eq!(words(machine.load(&vm, 512, &mut buffer).unwrap()), "bhyveload -m512m -d/dev/fd/3 fulmar-0000beef-1");
    assert_eq!(
        words(machine.run(&vm, 512, ["vmmtap0", "vmmtap7"].into_iter(), &mut buffer).unwrap()),
        "bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,vmmtap0,type=tap,mac=02:00:00:00:00:01 \
         -s3,virtio-net,vmmtap7,type=tap,mac=02:00:00:00:00:02 -s4,virtio-blk,/dev/fd/3 -s5,virtio-blk,/dev/fd/4 \
         -lcom1,stdio -c2 -m512M fulmar-0000beef-1"
    );
}

#[test]
fn it_is_recorded_when_it_runs_and_told_of_as_what_it_is() {
    let (mut host, unit) = Host::running("vm:a", &PLAIN);
    let used = host.machine.ledger().account_at(&Name::ROOT).unwrap().used();
    assert_eq!((used.unikernels, used.memory_mb, used.networks), (1, 512, 1));
    assert_eq!(host.journal.len(), 1);
    let mut policy = [0; POLICY_BYTES_MAX];
    let Some(Record::Unikernel { target: 3, image_bytes: 0, digest, .. }) =
        host.machine.record(host.journal[0], &mut policy)
    else {
        panic!("no record of a virtual machine");
    };
    assert_eq!(digest, [0; 32]);
    let header = Header::new(0, name("vm:a"));
    let info = Command::Unikernel(UnikernelCommand::Info);
    host.handle(Input::Command { connection: 0, header: &header, command: &info, image: None });
    let mut buffer = vec![0; FRAME_HEAD_BYTES_MAX];
    let frame = host.machine.encode_reply(0, &mut buffer).unwrap();
    let Payload::Success(Success::Infos(infos)) = decode(Frame::whole(&frame[4..])).unwrap().payload else {
        panic!("no info")
    };
    let info = infos.iter().next().unwrap().info;
    assert_eq!((info.kind, info.numcpus, info.digest), (Kind::Bhyve, 2, &*machine_name(TAG, unit).into_bytes()));
    assert_eq!(host.say("vm:a", &Command::Unikernel(UnikernelCommand::Get { level: 0 })), "get: no unikernel found");
    assert_eq!(host.say("vm:a", &Command::Unikernel(UnikernelCommand::Destroy)), "None");
    host.handle(Input::Exited { unit, exit: Exit::Code(1) });
    assert_eq!(host.reply(), "destroyed unikernel");
    assert_eq!(host.machine.ledger().account_at(&Name::ROOT).unwrap().used().memory_mb, 0);
}

#[test]
fn a_zvol_has_one_holder() {
    let (mut host, unit) = Host::running("vm:a", &PLAIN);
    assert_eq!(host.create("vm:b", &PLAIN), format!("block device {ZVOL} is in use"));
    // One that takes its place has the same.
    let force = Command::Unikernel(UnikernelCommand::ForceCreate(config(&Arguments { memory: 600, ..PLAIN })));
    assert_eq!(host.say("vm:a", &force), "None");
    assert_eq!(host.signals, [(unit, false)]);
    assert!(host.launches.is_empty(), "not while the old one has it");
    host.handle(Input::Exited { unit, exit: Exit::Code(0) });
    host.launch();
    assert_eq!(host.reply(), "created unikernel");
    assert_eq!(host.create("vm:b", &PLAIN), format!("block device {ZVOL} is in use"));
    let other = [disk("0", "/dev/zvol/tank/other")];
    assert_eq!(host.create("vm:b", &Arguments { block_devices: List::Items(&other), ..PLAIN }), "None");
}

#[test]
fn it_is_started_anew_as_it_is_or_with_other_arguments() {
    let (mut host, unit) = Host::running("vm:a", &PLAIN);
    assert_eq!(host.say("vm:a", &Command::Unikernel(UnikernelCommand::Restart(None))), "None");
    host.handle(Input::Exited { unit, exit: Exit::Code(0) });
    host.launch();
    assert_eq!(host.reply(), "created unikernel");
    let one = Arguments { numcpus: 1, linux_boot: Some("gpt2"), ..PLAIN };
    let refused =
        host.say("vm:a", &Command::Unikernel(UnikernelCommand::Restart(Some(Arguments { numcpus: 9, ..one }))));
    assert_eq!(refused, "9 virtual CPUs: give 1 to 16, and no more than CPUs that it may run on");
    host.signals.clear();
    assert_eq!(host.say("vm:a", &Command::Unikernel(UnikernelCommand::Restart(Some(one)))), "None");
    assert_eq!(host.signals, [(unit, false)]);
    host.handle(Input::Exited { unit, exit: Exit::Code(0) });
    host.launch();
    assert_eq!(host.reply(), "created unikernel");
    let (slot, unikernel) = host.machine.find(&name("vm:a")).unwrap();
    assert_eq!((unikernel.tender(), unikernel.digest()), (Tender::Bhyve, None));
    assert_eq!(host.machine.arguments(slot).unwrap().linux_boot, Some("gpt2"));
}

#[test]
fn it_comes_back_from_the_journal_and_rests_where_it_cannot_run() {
    let (host, unit) = Host::running("vm:a", &PLAIN);
    let mut policy = [0; POLICY_BYTES_MAX];
    let record = host.machine.record(host.journal[0], &mut policy).unwrap();
    // It runs still, or it does not.
    let mut successor = Host::unstarted();
    successor.machine.restore(&record).unwrap();
    successor.handle(Input::Host { root: &root(), tenders: TENDERS });
    successor.handle(Input::Survivor { unit, account: 0, started_wall_ms: 0, told: false });
    successor.begin(TENDERS);
    assert!(successor.launches.is_empty() && successor.signals.is_empty());
    let mut rebooted = Host::unstarted();
    rebooted.machine.restore(&record).unwrap();
    rebooted.begin(TENDERS);
    let mut buffers = Box::<PlanBuffers>::default();
    let plan = rebooted.machine.launch_plan(rebooted.launches[0], &mut buffers).unwrap();
    assert_eq!((plan.tender, plan.machine.unwrap().processors), (Tender::Bhyve, 2));
    assert_eq!(rebooted.create("vm:b", &PLAIN), format!("block device {ZVOL} is in use"));
    // Its memory is more than an image could have, and that is no reason not to read it.
    let mut der = [0; 512];
    let large = Arguments { memory: 9000, ..PLAIN };
    let arguments = large.encode(&mut der).unwrap();
    let record = Record::Unikernel { name: "vm:c", unit: 9, digest: [0; 32], image_bytes: 0, target: 3, arguments };
    Host::unstarted().machine.restore(&record).unwrap();
}
