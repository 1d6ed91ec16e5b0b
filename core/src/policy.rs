//! What a path may use, and when one policy contains another.
//!
//! A policy is checked at every ancestor, up to the root policy, which is what the host has: see [`crate::machine`].

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{CPUS_MAX, INTERFACE_BYTES_MAX, POLICY_BRIDGES_MAX};

const WORD_BITS: usize = 64;
const WORDS: usize = CPUS_MAX / WORD_BITS;
const _: () = assert!(CPUS_MAX.is_multiple_of(WORD_BITS));

/// A set of CPU ids below [`CPUS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CpuSet {
    words: [u64; WORDS],
}

/// A CPU id that no host has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchCpu(pub i64);

impl fmt::Display for NoSuchCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPUid {} does not exist: ids run from 0 to {}", self.0, CPUS_MAX.saturating_sub(1))
    }
}

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// The ids of `cpus`, in any order.
    ///
    /// # Errors
    /// The first id that is negative or not below [`CPUS_MAX`].
    pub fn collect(cpus: impl Iterator<Item = i64>) -> Result<Self, NoSuchCpu> {
        let mut set = Self::EMPTY;
        for cpu in cpus {
            set.insert(cpu)?;
        }
        Ok(set)
    }

    /// CPUs 0 to `count`, exclusive; as many as there can be.
    #[must_use]
    pub fn first(count: u16) -> Self {
        let mut set = Self::EMPTY;
        for cpu in 0..i64::from(count) {
            // Beyond the bound there is nothing to insert.
            let _ = set.insert(cpu);
        }
        set
    }

    /// Adds one id.
    ///
    /// # Errors
    /// The id, when it is negative or not below [`CPUS_MAX`].
    pub fn insert(&mut self, cpu: i64) -> Result<(), NoSuchCpu> {
        let index = usize::try_from(cpu).map_err(|_| NoSuchCpu(cpu))?;
        let word = self.words.get_mut(index / WORD_BITS).ok_or(NoSuchCpu(cpu))?;
        *word |= 1 << (index % WORD_BITS);
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether `self` has every CPU of `other`.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(mine, theirs)| theirs & !mine == 0)
    }

    /// The CPUs of both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = *self;
        for (word, theirs) in both.words.iter_mut().zip(&other.words) {
            *word |= theirs;
        }
        both
    }

    /// The lowest CPU of `self` that `other` lacks.
    #[must_use]
    pub fn first_outside(&self, other: &Self) -> Option<i64> {
        let mut rest = *self;
        for (word, theirs) in rest.words.iter_mut().zip(&other.words) {
            *word &= !theirs;
        }
        rest.iter().next()
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = i64> + Clone + '_ {
        let bits = |(index, word): (usize, &u64)| {
            let first = index.saturating_mul(WORD_BITS);
            // Each step clears the lowest bit that is set.
            let words = core::iter::successors(Some(*word), |word| Some(word & word.wrapping_sub(1)));
            let set = words.take_while(|word| *word != 0);
            set.map(move |word| first.saturating_add(usize::try_from(word.trailing_zeros()).unwrap_or(0)))
        };
        let used = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        used.flat_map(bits).map(|id| i64::try_from(id).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, cpu) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{cpu}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The name of a bridge on the host: 1 to [`INTERFACE_BYTES_MAX`] printable bytes, no `/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bridge {
    text: [u8; INTERFACE_BYTES_MAX],
}

/// A text that no host has as the name of a bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSuchBridge;

impl fmt::Display for NoSuchBridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid bridge name: 1 to {INTERFACE_BYTES_MAX} printable characters without '/' or ','")
    }
}

impl Bridge {
    /// The bridge of this name.
    ///
    /// # Errors
    /// When no interface can have this name.
    pub fn new(name: &[u8]) -> Result<Self, NoSuchBridge> {
        let sane = |byte: &u8| byte.is_ascii_graphic() && *byte != b'/' && *byte != b',';
        let mut text = [0; INTERFACE_BYTES_MAX];
        let place = text.get_mut(..name.len()).ok_or(NoSuchBridge)?;
        if name.is_empty() || name == b"." || name == b".." || !name.iter().all(sane) {
            return Err(NoSuchBridge);
        }
        place.copy_from_slice(name);
        Ok(Self { text })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.text.iter().position(|byte| *byte == 0).unwrap_or(INTERFACE_BYTES_MAX);
        core::str::from_utf8(self.text.get(..end).unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Bridges, sorted by name, each once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Bridges {
    sorted: heapless::Vec<Bridge, POLICY_BRIDGES_MAX>,
}

/// More bridges than [`POLICY_BRIDGES_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyBridges;

impl Bridges {
    /// No bridge.
    pub const EMPTY: Self = Self { sorted: heapless::Vec::new() };

    /// Adds one; twice is once.
    ///
    /// # Errors
    /// [`TooManyBridges`], and then nothing has changed.
    pub fn insert(&mut self, bridge: Bridge) -> Result<(), TooManyBridges> {
        match self.sorted.binary_search(&bridge) {
            Ok(_) => Ok(()),
            Err(place) => self.sorted.insert(place, bridge).map_err(|_| TooManyBridges),
        }
    }

    /// Whether this one is in it.
    #[must_use]
    pub fn has(&self, bridge: &Bridge) -> bool {
        self.sorted.binary_search(bridge).is_ok()
    }

    /// Whether `self` has every bridge of `other`.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.sorted.iter().all(|bridge| self.has(bridge))
    }

    /// The bridges, by name.
    #[must_use]
    pub fn as_slice(&self) -> &[Bridge] {
        &self.sorted
    }
}

impl fmt::Display for Bridges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, bridge) in self.sorted.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            f.write_str(bridge.as_str())?;
        }
        Ok(())
    }
}

/// What a path, with all below it, may use at once.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// Number of unikernels.
    pub unikernels: u64,
    /// The CPUs that a unikernel may be pinned to.
    pub cpus: CpuSet,
    /// Memory of all unikernels together, MiB.
    pub memory_mb: u64,
    /// Block storage, MiB; `None` allows none at all, and then not even an empty device.
    pub block_mb: Option<u64>,
    /// The bridges that a unikernel may be attached to.
    pub bridges: Bridges,
}

impl Policy {
    /// Allows nothing.
    pub const NOTHING: Self =
        Self { unikernels: 0, cpus: CpuSet::EMPTY, memory_mb: 0, block_mb: None, bridges: Bridges::EMPTY };

    /// Whether all that `sub` allows is allowed by `self`.
    ///
    /// # Errors
    /// The first thing that `sub` allows beyond `self`, in the peer's order of checks.
    pub fn contains(&self, sub: &Self) -> Result<(), Exceeds> {
        if self.unikernels < sub.unikernels {
            return Err(Exceeds::Unikernels { above: self.unikernels, below: sub.unikernels });
        }
        if self.memory_mb < sub.memory_mb {
            return Err(Exceeds::Memory { above_mb: self.memory_mb, below_mb: sub.memory_mb });
        }
        if !self.cpus.contains(&sub.cpus) {
            return Err(Exceeds::Cpu(sub.cpus.first_outside(&self.cpus).unwrap_or_default()));
        }
        if let Some(bridge) = sub.bridges.as_slice().iter().find(|bridge| !self.bridges.has(bridge)) {
            return Err(Exceeds::Bridge(*bridge));
        }
        match (self.block_mb, sub.block_mb) {
            (_, None) => Ok(()),
            (Some(above), Some(below)) if above >= below => Ok(()),
            (above_mb, Some(below_mb)) => Err(Exceeds::Block { above_mb, below_mb }),
        }
    }
}

/// What one policy allows beyond another that should contain it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Exceeds {
    /// More unikernels.
    Unikernels {
        /// What the containing policy allows.
        above: u64,
        /// What the contained one asks for.
        below: u64,
    },
    /// More memory.
    Memory {
        /// What the containing policy allows, MiB.
        above_mb: u64,
        /// What the contained one asks for, MiB.
        below_mb: u64,
    },
    /// A CPU that the containing policy lacks.
    Cpu(i64),
    /// A bridge that the containing policy lacks.
    Bridge(Bridge),
    /// More block storage.
    Block {
        /// What the containing policy allows, MiB.
        above_mb: Option<u64>,
        /// What the contained one asks for, MiB.
        below_mb: u64,
    },
}

impl fmt::Display for Exceeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unikernels { above, below } => {
                write!(f, "allows {above} unikernels, which is fewer than {below}")
            }
            Self::Memory { above_mb, below_mb } => {
                write!(f, "allows {above_mb} MB memory, which is fewer than {below_mb} MB")
            }
            Self::Cpu(cpu) => write!(f, "does not allow CPUid {cpu}"),
            Self::Bridge(bridge) => write!(f, "does not allow bridge {bridge}"),
            Self::Block { above_mb: None, below_mb } => {
                write!(f, "allows no block storage, {below_mb} MB are asked for")
            }
            Self::Block { above_mb: Some(above_mb), below_mb } => {
                write!(f, "allows {above_mb} MB block storage, which is fewer than {below_mb} MB")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(unikernels: u64, cpus: &[i64], memory_mb: u64, block_mb: Option<u64>, bridges: &[&str]) -> Policy {
        let mut set = Bridges::EMPTY;
        for bridge in bridges {
            set.insert(Bridge::new(bridge.as_bytes()).unwrap()).unwrap();
        }
        let cpus = CpuSet::collect(cpus.iter().copied()).unwrap();
        Policy { unikernels, cpus, memory_mb, block_mb, bridges: set }
    }

    #[test]
    fn containment_names_what_exceeds() {
        let above = policy(5, &[0, 1], 256, Some(10), &["br0"]);
        assert_eq!(above.contains(&above), Ok(()));
        assert_eq!(above.contains(&policy(5, &[1], 1, None, &[])), Ok(()));
        for (sub, text) in [
            (policy(6, &[0], 1, None, &[]), "allows 5 unikernels, which is fewer than 6"),
            (policy(1, &[0], 257, None, &[]), "allows 256 MB memory, which is fewer than 257 MB"),
            (policy(1, &[0, 2, 3], 1, None, &[]), "does not allow CPUid 2"),
            (policy(1, &[0], 1, None, &["br0", "br1"]), "does not allow bridge br1"),
            (policy(1, &[0], 1, Some(11), &[]), "allows 10 MB block storage, which is fewer than 11 MB"),
        ] {
            let mut out = heapless::String::<128>::new();
            core::fmt::Write::write_fmt(&mut out, format_args!("{}", above.contains(&sub).unwrap_err())).unwrap();
            assert_eq!(out, text);
        }
        assert!(policy(1, &[], 0, None, &[]).contains(&policy(1, &[], 0, Some(0), &[])).is_err());
    }

    #[test]
    fn cpus_and_bridges_are_bounded() {
        assert_eq!(CpuSet::collect([0, 1023].into_iter()).unwrap().iter().last(), Some(1023));
        assert_eq!(CpuSet::collect([1024].into_iter()), Err(NoSuchCpu(1024)));
        assert_eq!(CpuSet::collect([-1].into_iter()), Err(NoSuchCpu(-1)));
        assert_eq!(CpuSet::first(3).iter().count(), 3);
        for bad in ["", "a/b", "..", "sixteen-letters-", "a b", "br,1"] {
            assert!(Bridge::new(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut bridges = Bridges::EMPTY;
        for index in 0..=POLICY_BRIDGES_MAX {
            let name = [b'a', b'0' + u8::try_from(index / 10).unwrap(), b'0' + u8::try_from(index % 10).unwrap()];
            let inserted = bridges.insert(Bridge::new(&name).unwrap());
            assert_eq!(inserted.is_err(), index == POLICY_BRIDGES_MAX);
        }
    }
}
