//! What a client may ask for, from pools so small that requests collide, and the bytes in which it asks.

use fulmar_core::machine::ArgumentsFault;
use fulmar_core::name::Name;
use fulmar_core::wire::{
    Arguments, BlockCommand, BlockDevice, Bridge, Command, Config, FailBehaviour, Header, Image, Kind, List, Message,
    Payload, Policy, PolicyCommand, Text, UnikernelCommand, Window, encode,
};

use crate::choose::Choose;
use crate::images::IMAGES;

/// Unikernels and paths that are asked for.
pub const NAMES: [&str; 10] = [":a", "p:a", "p:b", "p:q:a", "r:a", ":p", "p:q:b", "p.x:a", "p:q:r:s:a", "r:b"];

/// Paths that get policies.
pub const PATHS: [&str; 6] = ["p:", "p:q:", "r:", "p:q:r:", "p.x:", ":"];

/// Exit codes for which a unikernel is to run again; `None` where never.
pub const FAILS: [Option<&[i64]>; 4] = [None, Some(&[]), Some(&[2]), Some(&[0, 3])];

/// CPUs that are asked for.
pub const CPUS: [&[i64]; 4] = [&[0], &[1], &[0, 1], &[2]];

/// Bridges that are asked for and that a host may have.
pub const BRIDGES: [&str; 3] = ["br0", "br1", "none"];

/// Block devices that are asked for.
pub const BLOCKS: [&str; 7] =
    ["p:storage", "p:disk", "p:q:storage", ":storage", "p:q:disk", "r:storage", "p:q:r:s:disk"];

/// What one and two block devices of an image are to be on the host.
pub const HOSTS_OF_ONE: [&[&str]; 4] = [&["storage"], &["storage"], &["disk"], &["none"]];
const HOSTS_OF_TWO: [&[&str]; 3] = [&["storage", "disk"], &["disk", "storage"], &["disk", "disk"]];

/// The block devices of images, in their order.
pub const BLOCK_DEVICES: [&str; 2] = ["storage", "extra"];

/// A create that is wrong in itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flaw {
    /// It is not.
    None,
    /// It asks for no memory.
    NoMemory,
    /// It asks for no CPU.
    NoCpu,
    /// It is for bhyve.
    Bhyve,
    /// It wants sectors that nobody has.
    Sector,
    /// It names a device twice.
    Twice,
    /// An argument holds a NUL.
    Nul,
    /// It comes without an image.
    NoImage,
}

/// All flaws.
pub const FLAWS: [Flaw; 8] =
    [Flaw::None, Flaw::NoMemory, Flaw::NoCpu, Flaw::Bhyve, Flaw::Sector, Flaw::Twice, Flaw::Nul, Flaw::NoImage];

/// What a unikernel is asked to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// Index into [`IMAGES`].
    pub image: usize,
    /// Memory, MiB.
    pub memory_mb: i64,
    /// CPUs.
    pub cpus: &'static [i64],
    /// The bridge of its one net device, if it has one.
    pub bridge: Option<&'static str>,
    /// What its block devices are on the host, in their order.
    pub blocks: &'static [&'static str],
    /// When to run again.
    pub fail: Option<&'static [i64]>,
    /// Its place in the order of start.
    pub startup: Option<i64>,
    /// Bytes of its one argument.
    pub argument_bytes: usize,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// A policy that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PolicySpec {
    /// Number of unikernels.
    pub unikernels: i64,
    /// Memory, MiB.
    pub memory_mb: i64,
    /// CPUs, ascending.
    pub cpus: &'static [i64],
    /// Bridges, ascending.
    pub bridges: &'static [&'static str],
    /// Block storage, MiB.
    pub block_mb: Option<i64>,
}

/// A content that comes within a message, or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Octets {
    /// No field for it.
    None,
    /// Nothing in it.
    Empty,
    /// Some bytes.
    Plain,
    /// Some that are said to be a zlib stream.
    Compressed,
    /// Nothing, which is said to be a zlib stream.
    EmptyCompressed,
}

/// All of them.
pub const OCTETS: [Octets; 5] =
    [Octets::None, Octets::Empty, Octets::Plain, Octets::Compressed, Octets::EmptyCompressed];

impl Octets {
    /// Whether there is something in a spool.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Self::Plain | Self::Compressed)
    }

    fn compressed(self) -> bool {
        matches!(self, Self::Compressed | Self::EmptyCompressed)
    }

    fn image(self) -> Option<Image<'static>> {
        match self {
            Self::None => None,
            Self::Empty | Self::EmptyCompressed => Some(Image::Inline(&[])),
            Self::Plain | Self::Compressed => Some(Image::Inline(b"octets")),
        }
    }
}

/// One request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wish {
    /// Make one.
    Create(Spec),
    /// Make one in place of the one that may be there.
    ForceCreate(Spec),
    /// Start one anew.
    Restart,
    /// Start one anew with other arguments; the image is the one that it has.
    RestartWith(Spec),
    /// End one.
    Destroy,
    /// List.
    Info,
    /// Tell how they fare.
    Condition,
    /// Hand out its image, at this level.
    Get(i64),
    /// Set a policy.
    PolicyAdd(PolicySpec),
    /// List policies.
    PolicyInfo,
    /// Remove a policy.
    PolicyRemove,
    /// Make a block device of this size, MiB.
    BlockAdd(i64),
    /// Remove a block device.
    BlockRemove,
    /// List block devices.
    BlockInfo,
    /// Set the content of a block device by chunks.
    BlockSet,
    /// Set it to this, nothing where there is none.
    BlockOldSet(Octets),
    /// Make a block device of this size, MiB, with this content.
    BlockOldAdd(i64, Octets),
    /// Hand out the content, at this level, in one reply or in chunks.
    BlockDump(i64, bool),
    /// Something for another daemon.
    Unknown,
}

/// A request about a name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ask {
    /// About what.
    pub name: Name,
    /// What.
    pub wish: Wish,
}

/// A name of these pools.
///
/// # Panics
/// When the text is no name.
#[must_use]
#[expect(clippy::expect_used, reason = "the pools hold valid names only")]
pub fn name(text: &str) -> Name {
    Name::parse(text).expect("a valid name")
}

impl Spec {
    /// A small unikernel that is right in every way.
    pub const PLAIN: Self = Self {
        image: 1,
        memory_mb: 16,
        cpus: &[0],
        bridge: None,
        blocks: &[],
        fail: None,
        startup: None,
        argument_bytes: 0,
        flaw: Flaw::None,
    };

    /// Any, most of them right.
    pub fn choose(choices: &mut dyn Choose) -> Self {
        let flaw = if choices.once_in(16) { choices.pick(&FLAWS) } else { Flaw::None };
        let image = if choices.once_in(8) { choices.index(IMAGES.len()) } else { choices.pick(&[0, 1, 2, 3, 6, 6, 7]) };
        let wants_net = matches!(image, 2 | 3 | 7);
        let wanted = if choices.once_in(16) { choices.index(3) } else { image.saturating_sub(5) };
        let bridge = if wants_net != choices.once_in(12) { Some(choices.pick(&BRIDGES)) } else { None };
        Self {
            image,
            memory_mb: choices.pick(&[16, 16, 48, 100, 300]),
            cpus: if choices.once_in(2) { CPUS[0] } else { choices.pick(&CPUS) },
            bridge,
            blocks: match wanted {
                1 => choices.pick(&HOSTS_OF_ONE),
                2 => choices.pick(&HOSTS_OF_TWO),
                _ => &[],
            },
            fail: choices.pick(&FAILS),
            startup: choices.pick(&[None, None, Some(10), Some(90)]),
            argument_bytes: choices.pick(&[0, 0, 5, 400]),
            flaw,
        }
    }

    /// Makes the wire's form and hands it on while what it borrows is alive.
    pub fn with_config<R>(&self, hand_on: impl FnOnce(&Config<'_>) -> R) -> R {
        let mut argument = vec![b'x'; self.argument_bytes];
        if self.flaw == Flaw::Nul {
            argument.push(0);
        }
        let argv = [Text(&argument)];
        let net = Bridge { name: "service", bridge: self.bridge, mac: None };
        let sector_size = match self.flaw {
            Flaw::Sector => Some(513),
            _ => self.startup.map(|_| 4096),
        };
        let twice = [net, Bridge { mac: Some([2; 6]), ..net }];
        let nets = if self.flaw == Flaw::Twice { &twice[..] } else { &twice[..usize::from(self.bridge.is_some())] };
        let blocks = self.blocks.iter().zip(BLOCK_DEVICES).map(|(host, name)| BlockDevice {
            name,
            host_device: (*host != name).then_some(*host),
            sector_size,
        });
        let mut blocks: Vec<BlockDevice<'_>> = blocks.collect();
        if self.flaw == Flaw::Sector && blocks.is_empty() {
            blocks.push(BlockDevice { name: "storage", host_device: None, sector_size });
        }
        let arguments = Arguments {
            fail_behaviour: self.fail.map_or(FailBehaviour::Quit, |codes| FailBehaviour::Restart(codes.into())),
            startup: self.startup,
            add_name: true,
            cpuids: if self.flaw == Flaw::NoCpu { List::EMPTY } else { self.cpus.into() },
            memory: if self.flaw == Flaw::NoMemory { 0 } else { self.memory_mb },
            block_devices: List::Items(&blocks),
            bridges: List::Items(nets),
            argv: (!argument.is_empty()).then_some(List::Items(&argv)),
            numcpus: 1,
            linux_boot: None,
        };
        hand_on(&Config {
            kind: if self.flaw == Flaw::Bhyve { Kind::Bhyve } else { Kind::Solo5 },
            compressed: false,
            image: Image::Inline(&[]),
            arguments,
        })
    }

    /// Its arguments as they are kept.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the pools hold short arguments only")]
    pub fn arguments_der(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        self.with_config(|config| config.arguments.encode(&mut buffer).expect("fits").to_vec())
    }
}

impl PolicySpec {
    /// Any, most of them useful.
    pub fn choose(choices: &mut dyn Choose) -> Self {
        Self {
            unikernels: if choices.once_in(16) { -1 } else { choices.pick(&[0, 1, 2, 3, 5, 8]) },
            memory_mb: choices.pick(&[16, 64, 150, 250, 400]),
            cpus: choices.pick(&[&[0], &[0, 1], &[0, 1], &[0, 1, 2], &[0, 1, 2], &[], &[0, 2000]]),
            bridges: choices.pick(&[&[], &["br0"], &["br0", "br1"], &["br0", "br1"], &["br1"]]),
            block_mb: choices.pick(&[None, Some(0), Some(5), Some(10), Some(10), Some(30)]),
        }
    }

    fn wire(&self) -> Policy<'static> {
        Policy {
            cpuids: self.cpus.into(),
            unikernels: self.unikernels,
            memory: self.memory_mb,
            block: self.block_mb,
            bridges: self.bridges.into(),
        }
    }

    /// The core's form, where it makes sense.
    ///
    /// # Errors
    /// What makes none.
    pub fn policy(&self) -> Result<fulmar_core::policy::Policy, ArgumentsFault> {
        fulmar_core::policy::Policy::try_from(&self.wire())
    }
}

impl Ask {
    /// The message in bytes.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the pools hold short messages only")]
    pub fn encode(&self, sequence: u64) -> Vec<u8> {
        let mut buffer = [0; 4096];
        let header = Header::new(sequence, self.name);
        let mut send = |command: Command<'_>| {
            let message = Message { header, payload: Payload::Command(command) };
            encode(&message, &mut buffer).expect("fits").to_vec()
        };
        match self.wish {
            Wish::Create(spec) => {
                spec.with_config(|config| send(Command::Unikernel(UnikernelCommand::Create(*config))))
            }
            Wish::ForceCreate(spec) => {
                spec.with_config(|config| send(Command::Unikernel(UnikernelCommand::ForceCreate(*config))))
            }
            Wish::Restart => send(Command::Unikernel(UnikernelCommand::Restart(None))),
            Wish::RestartWith(spec) => {
                spec.with_config(|config| send(Command::Unikernel(UnikernelCommand::Restart(Some(config.arguments)))))
            }
            Wish::Destroy => send(Command::Unikernel(UnikernelCommand::Destroy)),
            Wish::Info => send(Command::Unikernel(UnikernelCommand::Info)),
            Wish::Condition => send(Command::Unikernel(UnikernelCommand::Condition)),
            Wish::Get(level) => send(Command::Unikernel(UnikernelCommand::Get { level })),
            Wish::PolicyAdd(spec) => send(Command::Policy(PolicyCommand::Add(spec.wire()))),
            Wish::PolicyInfo => send(Command::Policy(PolicyCommand::Info)),
            Wish::PolicyRemove => send(Command::Policy(PolicyCommand::Remove)),
            Wish::BlockAdd(size) => send(Command::Block(BlockCommand::Add { size })),
            Wish::BlockRemove => send(Command::Block(BlockCommand::Remove)),
            Wish::BlockInfo => send(Command::Block(BlockCommand::Info)),
            Wish::BlockSet => send(Command::Block(BlockCommand::Set { compressed: sequence.is_multiple_of(2) })),
            Wish::BlockOldSet(octets) => send(Command::Block(BlockCommand::OldSet {
                compressed: octets.compressed(),
                data: octets.image().unwrap_or(Image::Inline(&[])),
            })),
            Wish::BlockOldAdd(size, octets) => send(Command::Block(BlockCommand::OldAdd {
                size,
                compressed: octets.compressed(),
                data: octets.image(),
            })),
            Wish::BlockDump(level, true) => send(Command::Block(BlockCommand::OldDump { level })),
            Wish::BlockDump(level, false) => send(Command::Block(BlockCommand::Dump { level })),
            Wish::Unknown => send(Command::Log(Window::Count(1))),
        }
    }

    /// Some that cover every kind, for a machine with room for `unikernels`: for going through everything.
    #[must_use]
    pub fn pool(unikernels: usize) -> Vec<Self> {
        let mut pool = Vec::new();
        for text in &NAMES[1..NAMES.len().min(unikernels + 2)] {
            let name = name(text);
            let restarting = Spec { fail: Some(&[]), memory_mb: 48, image: 0, ..Spec::PLAIN };
            let on_bridge = Spec { bridge: Some("br0"), image: 3, ..Spec::PLAIN };
            for spec in [Spec::PLAIN, restarting, on_bridge] {
                pool.push(Self { name, wish: Wish::Create(spec) });
            }
            let larger = Wish::ForceCreate(Spec { memory_mb: 48, ..Spec::PLAIN });
            let smaller = Wish::RestartWith(Spec { fail: Some(&[2]), ..Spec::PLAIN });
            pool.extend([larger, smaller, Wish::Restart, Wish::Destroy].map(|wish| Self { name, wish }));
        }
        let tight = PolicySpec { unikernels: 1, memory_mb: 64, cpus: &[0], bridges: &[], block_mb: None };
        let wide = PolicySpec { unikernels: 3, memory_mb: 150, cpus: &[0, 1], bridges: &["br0"], block_mb: None };
        for path in &PATHS[..2] {
            let name = name(path);
            for policy in [tight, wide] {
                pool.push(Self { name, wish: Wish::PolicyAdd(policy) });
            }
            pool.push(Self { name, wish: Wish::PolicyRemove });
        }
        let on_disk = Spec { image: 6, blocks: &["storage"], ..Spec::PLAIN };
        pool.push(Self { name: name(NAMES[1]), wish: Wish::Create(on_disk) });
        for wish in [Wish::BlockAdd(5), Wish::BlockRemove, Wish::BlockSet, Wish::BlockDump(0, false)] {
            pool.push(Self { name: name(BLOCKS[0]), wish });
        }
        pool.push(Self { name: Name::ROOT, wish: Wish::Info });
        pool
    }
}
