//! A daemon that decides as `vmmd` does, with `vmmd`'s own machine, and whose disks and processes do what they are told.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::read::ZlibDecoder;
use fulmar_core::halves::Unit;
use fulmar_core::machine::{Effect, Input, Machine, Now, Spooled, StoreError, StoredImage, Tenders};
use fulmar_core::policy::{Bridge, Bridges, CpuSet, Policy};
use fulmar_core::solo5::{self, ImageFacts};
use fulmar_core::wire::{self, Command, Config, Frame, Image, Payload, UnikernelCommand};
use sha2::{Digest, Sha256};

use super::{Folder, Ran, client, read_frame};

type Small = Machine<32, 32, 32, 1, 65536>;

const NOW: Now = Now { ms: 0, wall_ms: super::NOW_UNIX_MS };

/// A host with CPUs 0 to 3, 1,000 MB of memory, 500 MB of block storage and the bridges `br0` and `service`.
pub(crate) struct MachineDaemon {
    pub(crate) folder: Folder,
    ends: Arc<AtomicBool>,
    /// Names of what was asked to be changed, in order.
    changes: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl MachineDaemon {
    pub(crate) fn new() -> Self {
        Self::dying_after(usize::MAX)
    }

    /// One that answers so many commands and then closes each connection without an answer.
    pub(crate) fn dying_after(commands: usize) -> Self {
        Self::of_kind(commands, None)
    }

    /// One that runs virtual machines of bhyve, as on FreeBSD.
    pub(crate) fn with_bhyve() -> Self {
        Self::of_kind(usize::MAX, Some(7))
    }

    fn of_kind(commands: usize, bhyve: Option<u32>) -> Self {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.0.join("util/vmmd.sock")).unwrap();
        let (ends, changes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = {
            let (ends, changes) = (Arc::clone(&ends), Arc::clone(&changes));
            // The machine passes over the stack in a debug build.
            let stack = std::thread::Builder::new().stack_size(64 << 20);
            stack.spawn(move || serve(&listener, commands, bhyve, &ends, &changes)).unwrap()
        };
        Self { folder, ends, changes, thread: Some(thread) }
    }

    pub(crate) fn client(&self, words: &[&str]) -> Ran {
        client(&self.folder.0, Duration::from_secs(20), words)
    }

    /// What was asked to be changed since this was asked last.
    pub(crate) fn changes(&self) -> Vec<String> {
        std::mem::take(&mut self.changes.lock().unwrap())
    }
}

impl Drop for MachineDaemon {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It waits for the next client.
        let _ = UnixStream::connect(self.folder.0.join("util/vmmd.sock"));
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(
    listener: &UnixListener,
    commands: usize,
    bhyve: Option<u32>,
    ends: &AtomicBool,
    changes: &Mutex<Vec<String>>,
) {
    let mut bridges = Bridges::EMPTY;
    for name in ["br0", "service"] {
        bridges.insert(Bridge::new(name.as_bytes()).unwrap()).unwrap();
    }
    let root = Policy { unikernels: 32, cpus: CpuSet::first(4), memory_mb: 1000, block_mb: Some(500), bridges };
    let mut machine = Box::new(Small::new());
    drive(
        &mut machine,
        Input::Host { root: &root, tenders: Tenders { hvt: true, spt: true, solo5: false, bhyve } },
        None,
    );
    drive(&mut machine, Input::Start, None);
    for (index, stream) in listener.incoming().enumerate() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        if index < commands {
            answer(&mut machine, stream.unwrap(), changes);
        } else {
            read_frame(&mut stream.unwrap());
        }
    }
}

/// One command, then the end of the connection.
fn answer(machine: &mut Small, mut stream: UnixStream, changes: &Mutex<Vec<String>>) {
    let frame = read_frame(&mut stream);
    let message = wire::decode(Frame::whole(&frame[4..])).unwrap();
    let Payload::Command(command) = message.payload else { panic!("{message:?}") };
    let name = message.header.name;
    let change = match command {
        Command::Policy(wire::PolicyCommand::Add(_)) => Some(format!("policy {name}")),
        Command::Block(wire::BlockCommand::Add { size }) => Some(format!("block {name} {size}")),
        Command::Unikernel(UnikernelCommand::Create(_)) => Some(format!("unikernel {name}")),
        Command::Policy(wire::PolicyCommand::Remove)
        | Command::Block(wire::BlockCommand::Remove)
        | Command::Unikernel(UnikernelCommand::Destroy) => Some(format!("gone {name}")),
        _ => None,
    };
    changes.lock().unwrap().extend(change);
    let seen = match &command {
        Command::Unikernel(UnikernelCommand::Create(config)) => Some(see(config)),
        _ => None,
    };
    let image = seen.as_ref().filter(|(bytes, _)| *bytes > 0).map(|_| Spooled { spool: 0 });
    let input = Input::Command { connection: 0, header: &message.header, command: &command, image };
    drive(machine, input, seen.as_ref());
    let mut buffer = vec![0; 1 << 20];
    stream.write_all(machine.encode_reply(0, &mut buffer).unwrap()).unwrap();
}

/// An image as the store has it: bytes and digest, and what it says about itself.
type Seen = (u64, Result<([u8; 32], ImageFacts), StoreError>);

fn see(config: &Config<'_>) -> Seen {
    let Image::Inline(octets) = config.image else { panic!("diverted") };
    let mut plain = octets.to_vec();
    if config.compressed {
        plain.clear();
        if ZlibDecoder::new(octets).read_to_end(&mut plain).is_err() {
            return (octets.len() as u64, Err(StoreError::Compression));
        }
    }
    let facts = solo5::inspect(&plain[..]).map_err(StoreError::Image);
    (plain.len() as u64, facts.map(|facts| (Sha256::digest(&plain).into(), facts)))
}

fn drive(machine: &mut Small, input: Input<'_>, seen: Option<&Seen>) {
    machine.handle(NOW, input);
    let mut effects = VecDeque::new();
    loop {
        effects.extend(std::iter::from_fn(|| machine.next_effect()));
        let outcome = match effects.pop_front() {
            None => return,
            Some(Effect::Append(change)) => Input::Appended { change, outcome: Ok(()) },
            Some(Effect::MakeBlock { slot, .. }) => Input::BlockMade { slot, outcome: Ok(()) },
            Some(Effect::RemoveBlock { slot }) => Input::BlockRemoved { slot },
            Some(Effect::Launch { slot }) => {
                Input::Launched { unit: Unit(machine.unikernel(slot).unwrap().unit()), outcome: Ok(()) }
            }
            Some(Effect::Signal { unit, .. }) => Input::Exited { unit, exit: fulmar_core::machine::Exit::Code(0) },
            Some(Effect::Store { slot }) => {
                let (bytes, facts) = seen.unwrap();
                let stored =
                    facts.as_ref().map(|(digest, facts)| StoredImage { digest: *digest, bytes: *bytes, facts });
                Input::Stored { slot, outcome: stored.map_err(|error| *error) }
            }
            Some(_) => continue,
        };
        machine.handle(NOW, outcome);
    }
}
