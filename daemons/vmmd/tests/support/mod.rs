//! A control half in a folder of its own with a host half that only pretends, and clients that speak bytes.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test program uses its part; tests may panic")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fulmar_core::halves::{Abilities, Answer, Host, Request, Status, StatusRecord, TextsWriter, Unit};
use fulmar_core::limits::CHANNEL_BYTES_MAX;
use fulmar_core::machine::Product;
use fulmar_core::name::Name;
use fulmar_core::policy::CpuSet;
use fulmar_core::wire::{
    self, Arguments, BlockDevice, Command, Config, FailBehaviour, Frame, Header, Image, Kind, List, Message,
};
use fulmar_core::wire::{Payload, PolicyCommand, Success, UnikernelCommand};
use fulmar_host::channel::{Channel, ReceivedFds};
use fulmar_vmmd::control::{Control, Settings, StartError};

thread_local! {
    /// Whether this thread is of the test, not of the daemon.
    pub static OF_THE_TEST: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done` says so.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A folder that goes when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fulmar-vmmd-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What runs on the pretended host; it outlives the control half.
#[derive(Default)]
pub struct Pretended {
    pub running: BTreeMap<u64, u16>,
    /// The block devices that each was given.
    pub blocks: BTreeMap<u64, Vec<OwnedFd>>,
    pub launches: u32,
    /// Whether it runs virtual machines of bhyve.
    pub bhyve: bool,
    /// Launches that are not answered, for tests of what happens meanwhile.
    pub silent: bool,
    /// Exits that the host half is to report.
    pub exits: Vec<(u64, Status)>,
    /// What stands in the status files of units that have ended, until they are forgotten.
    pub ended: BTreeMap<u64, String>,
}

pub type World = Arc<Mutex<Pretended>>;

/// The host half: answers, and reports exits.
fn pretend(channel: &Channel, world: &World, stop: &AtomicBool) {
    OF_THE_TEST.set(true);
    channel.set_nonblocking(true).unwrap();
    let (mut buffer, mut out) = (vec![0; CHANNEL_BYTES_MAX], vec![0; CHANNEL_BYTES_MAX]);
    let mut fds = ReceivedFds::default();
    let none = || TextsWriter::new(&mut []).finish();
    let mut say = |answer: Answer<'_>| {
        let packet = answer.encode(&mut out).unwrap();
        while channel.send(packet, &[]).is_err() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let exits = std::mem::take(&mut world.lock().unwrap().exits);
        for (unit, status) in exits {
            let mut pretended = world.lock().unwrap();
            pretended.running.remove(&unit);
            pretended.blocks.remove(&unit);
            drop(pretended);
            let record = world.lock().unwrap().ended.get(&unit).cloned().unwrap_or_default();
            say(Answer::Exited { unit: Unit(unit), status, record: StatusRecord::new(record.as_bytes()) });
        }
        let request = match channel.receive(&mut buffer, &mut fds) {
            Ok(Some(packet)) => Request::decode(packet).unwrap(),
            Ok(None) => return,
            Err(_) => {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
        };
        match request {
            Request::Survey => {
                for (unit, account) in world.lock().unwrap().running.clone() {
                    say(Answer::Adopted {
                        unit: Unit(unit),
                        pid: 1,
                        started: 7,
                        account,
                        started_ms: 0,
                        told: false,
                        taps: none(),
                    });
                }
                for (unit, record) in world.lock().unwrap().ended.clone() {
                    let record = StatusRecord::new(record.as_bytes());
                    say(Answer::Ended { unit: Unit(unit), record });
                }
                let mut bridges = [0; 32];
                let mut bridges = TextsWriter::new(&mut bridges);
                bridges.push(b"service").unwrap();
                say(Answer::Host(Host {
                    cpus: CpuSet::first(4),
                    memory_mb: 1 << 20,
                    bridges: bridges.finish(),
                    abilities: Abilities {
                        accounts: true,
                        taps: true,
                        kvm: true,
                        tender: true,
                        solo5: false,
                        memory_cgroup: false,
                        pids_cgroup: false,
                        bhyve: world.lock().unwrap().bhyve.then_some(7),
                    },
                }));
            }
            Request::Bridges => {
                let mut bridges = [0; 32];
                let mut bridges = TextsWriter::new(&mut bridges);
                bridges.push(b"service").unwrap();
                say(Answer::Bridges(bridges.finish()));
            }
            Request::Files => say(Answer::Files { open: 11, limit: 1234 }),
            Request::Serving { .. } => {}
            Request::Forget { unit } => {
                world.lock().unwrap().ended.remove(&unit.0);
            }
            Request::Launch(plan) => {
                plan.check().unwrap();
                // The console, the image of what has one, and the block devices.
                let blocks = match plan.machine {
                    Some(_) => fds.take::<1>(plan.blocks.into()).unwrap().1,
                    None => fds.take::<2>(plan.blocks.into()).unwrap().1,
                };
                let mut world = world.lock().unwrap();
                world.blocks.insert(plan.unit.0, blocks);
                world.launches += 1;
                world.running.insert(plan.unit.0, plan.account);
                world.ended.remove(&plan.unit.0);
                if !world.silent {
                    say(Answer::Launched { unit: plan.unit, pid: 1, started: 7, taps: none() });
                }
            }
            Request::Signal { unit, .. } => {
                say(Answer::Signalled { unit, outcome: fulmar_core::halves::SignalOutcome::Sent });
                let mut pretended = world.lock().unwrap();
                let was_there = pretended.running.remove(&unit.0).is_some();
                pretended.blocks.remove(&unit.0);
                drop(pretended);
                if was_there {
                    say(Answer::Exited { unit, status: Status::Signal(15), record: StatusRecord::default() });
                }
            }
        }
    }
}

/// A daemon that serves.
pub struct Daemon {
    pub settings: Settings,
    pub world: World,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Daemon {
    pub fn start(folder: &Path, world: &World) -> Self {
        Self::try_start(folder, world).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_start(folder: &Path, world: &World) -> Result<Self, String> {
        // A socket gets its mode by the umask, which is the whole process's: here others make their folders at the same time.
        static STARTING: Mutex<()> = Mutex::new(());
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = Settings::new(folder.join("run"), folder.join("state"));
        let (ours, theirs) = Channel::pair().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let host = {
            let (world, stop) = (Arc::clone(world), Arc::clone(&stop));
            std::thread::spawn(move || pretend(&theirs, &world, &stop))
        };
        let (started, is_started) = std::sync::mpsc::channel::<Result<(), String>>();
        let control = {
            let (settings, stop) = (settings.clone(), Arc::clone(&stop));
            let work = move || {
                let mut machine = Box::new(Product::new());
                let mut control = match Control::start(&settings, ours, &mut machine) {
                    Ok(control) => control,
                    Err(error) => return started.send(Err(describe(&error))).unwrap(),
                };
                started.send(Ok(())).unwrap();
                let mut events = mio::Events::with_capacity(64);
                while !stop.load(Ordering::Relaxed) {
                    if !control.turn(&mut events, Some(Duration::from_millis(5))).unwrap() {
                        return;
                    }
                }
            };
            // The machine passes over the stack in a debug build.
            std::thread::Builder::new().stack_size(256 << 20).spawn(work).unwrap()
        };
        let daemon = Self { settings, world: Arc::clone(world), stop, threads: vec![control, host] };
        is_started.recv().unwrap().map(|()| daemon)
    }

    /// Ends it without any farewell, as SIGKILL would, but for the disk's thread.
    pub fn kill(self) {}

    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.settings.run.join("util/vmmd.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// One question on a connection of its own.
    pub fn ask(&self, name: &str, command: Command<'_>) -> Answered {
        let mut client = self.connect();
        client.send(name, command);
        client.receive().unwrap()
    }

    pub fn create(&self, name: &str) -> Answered {
        self.ask(name, create(&image(0)))
    }

    pub fn destroy(&self, name: &str) -> Answered {
        self.ask(name, Command::Unikernel(UnikernelCommand::Destroy))
    }

    pub fn names(&self) -> Vec<String> {
        match self.ask(":", Command::Unikernel(UnikernelCommand::Info)) {
            Answered::Names(names) => names,
            other => panic!("{other:?}"),
        }
    }

    /// Files of the image folder that hold something.
    pub fn images(&self) -> usize {
        let entries = std::fs::read_dir(self.settings.state.join("images")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().metadata().is_ok_and(|metadata| metadata.len() > 0)).count()
    }

    pub fn fifos(&self) -> usize {
        std::fs::read_dir(self.settings.run.join("fifo")).unwrap().count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn describe(error: &StartError) -> String {
    error.to_string()
}

/// A reply, as far as tests look at it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answered {
    Text(String),
    Failure(String),
    Names(Vec<String>),
    Image { compressed: bool, bytes: Vec<u8> },
    Other(String),
}

impl Answered {
    pub fn failure(&self) -> &str {
        match self {
            Self::Failure(text) => text,
            other => panic!("no failure: {other:?}"),
        }
    }
}

pub fn text(text: &str) -> Answered {
    Answered::Text(text.to_owned())
}

pub struct Client(pub UnixStream);

impl Client {
    pub fn send(&mut self, name: &str, command: Command<'_>) {
        self.0.write_all(&frame(name, command)).unwrap();
    }

    /// The next reply; nothing when the connection has ended.
    pub fn receive(&mut self) -> Option<Answered> {
        let mut length = [0; 4];
        let mut filled = 0;
        while filled < 4 {
            match self.0.read(&mut length[filled..]) {
                Ok(0) => return None,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
        let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut bytes).unwrap();
        let message = wire::decode(Frame::whole(&bytes)).unwrap();
        Some(match message.payload {
            Payload::Success(Success::Text(text)) => Answered::Text(String::from_utf8(text.0.to_vec()).unwrap()),
            Payload::Failure(text) => Answered::Failure(String::from_utf8(text.0.to_vec()).unwrap()),
            Payload::Success(Success::Infos(infos) | Success::OldInfos5(infos) | Success::OldInfos4(infos)) => {
                Answered::Names(infos.iter().map(|info| info.name.as_str().to_owned()).collect())
            }
            Payload::Success(Success::Policies(policies)) => {
                Answered::Names(policies.iter().map(|policy| policy.name.as_str().to_owned()).collect())
            }
            Payload::Success(Success::Image { compressed, image: Image::Inline(bytes) }) => {
                Answered::Image { compressed, bytes: bytes.to_vec() }
            }
            other => Answered::Other(format!("{other:?}")),
        })
    }

    pub fn is_closed(&mut self) -> bool {
        self.receive().is_none()
    }
}

pub fn frame(name: &str, command: Command<'_>) -> Vec<u8> {
    let header = Header::new(7, Name::parse(name).unwrap());
    let mut buffer = vec![0; 1 << 20];
    if let Command::Unikernel(UnikernelCommand::Create(Config { image: Image::Inline(image), .. })) = command {
        buffer.resize(image.len() + (1 << 20), 0);
    }
    wire::encode_frame(&Message { header, payload: Payload::Command(command) }, &mut buffer).unwrap().to_vec()
}

pub fn create(image: &[u8]) -> Command<'_> {
    create_with(image, false)
}

pub fn create_with(image: &[u8], compressed: bool) -> Command<'_> {
    Command::Unikernel(UnikernelCommand::Create(config(image, compressed, List::EMPTY)))
}

/// A create with these block devices.
pub fn create_on<'a>(image: &'a [u8], blocks: &'a [BlockDevice<'a>]) -> Command<'a> {
    Command::Unikernel(UnikernelCommand::Create(config(image, false, List::Items(blocks))))
}

/// A create of a virtual machine with these block devices.
pub fn create_machine<'a>(blocks: &'a [BlockDevice<'a>]) -> Command<'a> {
    let config = Config { kind: Kind::Bhyve, ..config(&[], false, List::Items(blocks)) };
    Command::Unikernel(UnikernelCommand::Create(config))
}

fn config<'a>(image: &'a [u8], compressed: bool, block_devices: List<'a, BlockDevice<'a>>) -> Config<'a> {
    let arguments = Arguments {
        fail_behaviour: FailBehaviour::Quit,
        startup: None,
        add_name: true,
        cpuids: List::Items(&[0]),
        memory: 8,
        block_devices,
        bridges: List::EMPTY,
        argv: None,
        numcpus: 1,
        linux_boot: None,
    };
    Config { kind: Kind::Solo5, compressed, image: Image::Inline(image), arguments }
}

pub fn add_policy(unikernels: i64) -> Command<'static> {
    Command::Policy(PolicyCommand::Add(wire::Policy {
        cpuids: List::Items(&[0, 1]),
        unikernels,
        memory: 1024,
        block: None,
        bridges: List::EMPTY,
    }))
}

/// A small spt image without devices; `salt` makes it another one.
pub fn image(salt: u32) -> Vec<u8> {
    const ABI: usize = 0x200;
    const MANIFEST: usize = 0x240;
    let mut image = vec![0; 0x2000];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1, 0, 0, 0]);
    put(24, &0x10_0020_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, 3, 0, 64, 0, 0, 0, 0, 0]);
    let headers: [(u32, u32, u64, u64, u64); 3] =
        [(1, 5, 0x1000, 0x10_0000, 0x800), (4, 4, ABI as u64, 0, 36), (4, 4, MANIFEST as u64, 0, 32 + 104)];
    for (index, (kind, flags, offset, address, bytes)) in headers.into_iter().enumerate() {
        let at = 64 + 56 * index;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        for (field, number) in [offset, address, address, bytes, bytes, 0x1000].into_iter().enumerate() {
            put(at + 8 + 8 * field, &number.to_le_bytes());
        }
    }
    for (at, bytes, kind) in [(ABI, 16_u32, 0x3149_4241_u32), (MANIFEST, 4 + 8 + 104, 0x3154_464d)] {
        put(at, &6_u32.to_le_bytes());
        put(at + 4, &bytes.to_le_bytes());
        put(at + 8, &kind.to_le_bytes());
        put(at + 12, b"Solo5");
    }
    // Target spt, version 2; one device, the empty one.
    put(ABI + 20, &[2, 0, 0, 0, 2, 0, 0, 0]);
    put(MANIFEST + 24, &[1, 0, 0, 0, 1, 0, 0, 0]);
    put(MANIFEST + 32 + 68, &0x4000_0000_u32.to_le_bytes());
    put(0x1800, &salt.to_le_bytes());
    image
}
