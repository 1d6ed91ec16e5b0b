//! What a unikernel runs with and what a policy allows, in one form for what is wanted and what is there: everything that is left to the
//! daemon is filled in, so that two of them are the same when they mean the same.

use std::collections::{BTreeMap, BTreeSet};

use fulmar_core::limits::{STARTUP_DEFAULT, WIRE_INT_MAX};
use fulmar_core::wire::{self, Arguments, BlockDevice, Bridge, FailBehaviour, Info, List, Text};

use crate::output::text::{mac, megabytes, plain, ranges, shell_word};

/// What a unikernel runs with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) memory_mb: i64,
    pub(super) cpus: BTreeSet<i64>,
    pub(super) restart: Restart,
    pub(super) startup: i64,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) blocks: BTreeMap<String, Block>,
    pub(super) arguments: Vec<String>,
}

/// When it is started again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Restart {
    Never,
    OnFailure,
    On(BTreeSet<i64>),
}

/// Where a network device goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Network {
    pub(super) bridge: String,
    pub(super) mac: [u8; 6],
}

/// What a block device is on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Block {
    pub(super) host: String,
    pub(super) sector_bytes: i64,
}

/// What a path may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Policy {
    pub(super) unikernels: i64,
    pub(super) memory_mb: i64,
    pub(super) cpus: BTreeSet<i64>,
    pub(super) block_mb: Option<i64>,
    pub(super) bridges: BTreeSet<String>,
}

/// One thing that is said of something, for people.
pub(super) type Said = (String, String);

impl Settings {
    /// Those of a unikernel that is there.
    pub(super) fn of(info: &Info<'_>) -> Self {
        let network =
            |net: wire::InfoBridge<'_>| (lossy(net.device), Network { bridge: lossy(net.host), mac: net.mac });
        let block = |block: wire::InfoBlock<'_>| {
            (lossy(block.device), Block { host: lossy(block.host), sector_bytes: block.sector_size })
        };
        Self {
            memory_mb: info.memory,
            cpus: info.cpuids.iter().collect(),
            restart: match info.fail_behaviour {
                FailBehaviour::Quit => Restart::Never,
                FailBehaviour::Restart(codes) if codes.is_empty() => Restart::OnFailure,
                FailBehaviour::Restart(codes) => Restart::On(codes.iter().collect()),
            },
            startup: info.startup.unwrap_or(STARTUP_DEFAULT),
            networks: info.bridges.iter().map(network).collect(),
            blocks: info.block_devices.iter().map(block).collect(),
            arguments: info.argv.iter().flat_map(|argv| argv.iter()).map(lossy).collect(),
        }
    }

    /// The bridges that it is on.
    pub(super) fn bridges(&self) -> impl Iterator<Item = &str> {
        self.networks.values().map(|network| network.bridge.as_str())
    }

    /// All that is said of it.
    pub(super) fn said(&self) -> Vec<Said> {
        let mut said = vec![
            ("memory".to_owned(), megabytes(self.memory_mb)),
            ("CPUs".to_owned(), ranges(self.cpus.iter().copied())),
            ("restart".to_owned(), self.restart.said()),
            ("startup".to_owned(), self.startup.to_string()),
        ];
        said.extend(self.networks.iter().map(|(device, Network { bridge, mac: address })| {
            (format!("network {}", shown(device)), format!("bridge {}, MAC {}", shown(bridge), mac(address)))
        }));
        said.extend(self.blocks.iter().map(|(device, Block { host, sector_bytes })| {
            (format!("block {}", shown(device)), format!("{}, sectors of {sector_bytes} bytes", shown(host)))
        }));
        if !self.arguments.is_empty() {
            let words: Vec<_> = self.arguments.iter().map(|word| shell_word(&shown(word))).collect();
            said.push(("arguments".to_owned(), words.join(" ")));
        }
        said
    }

    /// Hands these on as a message has them.
    pub(super) fn with_arguments<R>(&self, hand_on: impl FnOnce(Arguments<'_>) -> R) -> R {
        let cpuids: Vec<i64> = self.cpus.iter().copied().collect();
        let codes: Vec<i64> = match &self.restart {
            Restart::On(codes) => codes.iter().copied().collect(),
            Restart::Never | Restart::OnFailure => Vec::new(),
        };
        let bridges: Vec<Bridge<'_>> = self
            .networks
            .iter()
            .map(|(name, network)| Bridge { name, bridge: Some(&network.bridge), mac: Some(network.mac) })
            .collect();
        let block_devices: Vec<BlockDevice<'_>> = self
            .blocks
            .iter()
            .map(|(name, it)| BlockDevice { name, host_device: Some(&it.host), sector_size: Some(it.sector_bytes) })
            .collect();
        let argv: Vec<Text<'_>> = self.arguments.iter().map(|argument| Text::from(argument.as_str())).collect();
        hand_on(Arguments {
            fail_behaviour: match self.restart {
                Restart::Never => FailBehaviour::Quit,
                Restart::OnFailure | Restart::On(_) => FailBehaviour::Restart(List::Items(&codes)),
            },
            startup: (self.startup != STARTUP_DEFAULT).then_some(self.startup),
            add_name: true,
            cpuids: List::Items(&cpuids),
            memory: self.memory_mb,
            block_devices: List::Items(&block_devices),
            bridges: List::Items(&bridges),
            argv: (!argv.is_empty()).then_some(List::Items(&argv)),
            numcpus: 1,
            linux_boot: None,
        })
    }
}

impl Restart {
    fn said(&self) -> String {
        match self {
            Self::Never => "no".to_owned(),
            Self::OnFailure => "on failure".to_owned(),
            Self::On(codes) => format!("on {}", ranges(codes.iter().copied())),
        }
    }
}

impl Policy {
    /// One that is there.
    pub(super) fn of(policy: &wire::Policy<'_>) -> Self {
        Self {
            unikernels: policy.unikernels,
            memory_mb: policy.memory,
            cpus: policy.cpuids.iter().collect(),
            block_mb: policy.block,
            bridges: policy.bridges.iter().map(str::to_owned).collect(),
        }
    }

    /// Whether all that `other` allows is allowed.
    pub(super) fn contains(&self, other: &Self) -> bool {
        self.unikernels >= other.unikernels
            && self.memory_mb >= other.memory_mb
            && self.cpus.is_superset(&other.cpus)
            && self.block_mb.unwrap_or(0) >= other.block_mb.unwrap_or(0)
            && self.bridges.is_superset(&other.bridges)
    }

    /// All that is said of it.
    pub(super) fn said(&self) -> Vec<Said> {
        let bridges: Vec<String> = self.bridges.iter().map(|bridge| shown(bridge)).collect();
        let unikernels = if self.unikernels < WIRE_INT_MAX { self.unikernels.to_string() } else { "any".to_owned() };
        let mut said = vec![
            ("unikernels".to_owned(), unikernels),
            ("memory".to_owned(), megabytes(self.memory_mb)),
            ("CPUs".to_owned(), ranges(self.cpus.iter().copied())),
        ];
        said.extend(self.block_mb.map(|mb| ("block".to_owned(), megabytes(mb))));
        if !bridges.is_empty() {
            said.push(("bridges".to_owned(), bridges.join(", ")));
        }
        said
    }

    /// Hands it on as a message has it.
    pub(super) fn with_wire<R>(&self, hand_on: impl FnOnce(wire::Policy<'_>) -> R) -> R {
        let cpuids: Vec<i64> = self.cpus.iter().copied().collect();
        let bridges: Vec<&str> = self.bridges.iter().map(String::as_str).collect();
        hand_on(wire::Policy {
            cpuids: List::Items(&cpuids),
            unikernels: self.unikernels,
            memory: self.memory_mb,
            block: self.block_mb,
            bridges: List::Items(&bridges),
        })
    }
}

fn lossy(text: Text<'_>) -> String {
    String::from_utf8_lossy(text.0).into_owned()
}

fn shown(text: &str) -> String {
    plain(text.as_bytes())
}
