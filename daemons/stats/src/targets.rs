//! What is watched, and what was last measured of it. Sorted as listings are.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fulmar_core::limits::{DEVICES_MAX, STATS_TARGETS_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{List, Tap};
use fulmar_host::meter::{Meter, MeterError, Sample, Subject, parse_device};
use fulmar_host::warning;

/// A unikernel that is watched.
struct Watched<T> {
    target: T,
    /// What its interfaces are called in it.
    devices: Rc<[String]>,
}

/// What was measured of one unikernel.
pub(crate) struct Record {
    pub(crate) name: Name,
    /// What its interfaces are called in it.
    pub(crate) devices: Rc<[String]>,
    pub(crate) sample: Sample,
}

/// Everything that is watched.
pub(crate) struct Targets<M: Meter> {
    meter: M,
    watched: BTreeMap<Name, Watched<M::Target>>,
}

/// Why a unikernel is not watched.
pub(crate) enum AddError {
    /// It is a path.
    Path,
    /// There are too many.
    Full,
    /// It has more interfaces than a unikernel can have.
    Interfaces,
    /// Its process cannot be measured.
    Meter(MeterError),
}

impl std::fmt::Display for AddError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path => f.write_str("path used instead of name"),
            Self::Full => write!(f, "{STATS_TARGETS_MAX} unikernels are watched, and no more can be"),
            Self::Interfaces => write!(f, "a unikernel has at most {DEVICES_MAX} interfaces"),
            Self::Meter(error) => error.fmt(f),
        }
    }
}

impl<M: Meter> Targets<M> {
    pub(crate) fn new(meter: M) -> Self {
        Self { meter, watched: BTreeMap::new() }
    }

    /// Watches this process from now on, in the place of another of its name.
    pub(crate) fn add(&mut self, name: &Name, device: &str, pid: i64, taps: List<'_, Tap<'_>>) -> Result<(), AddError> {
        if name.is_path() {
            return Err(AddError::Path);
        }
        // Whatever comes of it, the one before is not meant any more.
        self.watched.remove(name);
        if self.watched.len() >= STATS_TARGETS_MAX {
            return Err(AddError::Full);
        }
        if taps.len() > DEVICES_MAX {
            return Err(AddError::Interfaces);
        }
        let pid = u32::try_from(pid).map_err(|_| AddError::Meter(MeterError::Gone))?;
        let (started, device) = parse_device(device);
        let subject = Subject { pid, started, device };
        let names: Vec<&str> = taps.iter().map(|tap| tap.tap).collect();
        let target = self.meter.open(subject, &names).map_err(AddError::Meter)?;
        let devices = taps.iter().map(|tap| tap.bridge.to_owned()).collect();
        self.watched.insert(*name, Watched { target, devices });
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.watched.remove(name);
    }

    pub(crate) fn clear(&mut self) {
        self.watched.clear();
    }

    /// Measures those that somebody wants to hear of, and forgets those that have ended.
    pub(crate) fn measure(&mut self, wanted: &BTreeSet<Name>) -> Vec<Record> {
        if let Err(error) = self.meter.begin() {
            warning!("networks or block devices cannot be counted this time: {error}");
        }
        let (mut records, mut ended) = (Vec::new(), Vec::new());
        let is_wanted = |name: &Name| wanted.iter().any(|wish| covers(wish, name));
        for (name, watched) in self.watched.iter().filter(|(name, _)| is_wanted(name)) {
            match self.meter.read(&watched.target) {
                Ok(sample) => records.push(Record { name: *name, devices: Rc::clone(&watched.devices), sample }),
                Err(MeterError::Gone) => ended.push(*name),
                Err(error) => warning!(name = name; "{name}: {error}"),
            }
        }
        for name in ended {
            self.watched.remove(&name);
        }
        records
    }
}

/// Whether who subscribed to `wish`, a path or a unikernel, hears of this unikernel.
pub(crate) fn covers(wish: &Name, name: &Name) -> bool {
    if wish.is_path() { wish.contains(name) } else { wish == name }
}

#[cfg(test)]
mod tests {
    use std::io;

    use fulmar_core::wire::Rusage;

    use super::*;

    /// Measures pids below 100, whose numbers are their pids.
    struct Pretended {
        dead: u32,
    }

    impl Meter for Pretended {
        type Target = u32;

        fn open(&mut self, subject: Subject<'_>, _: &[&str]) -> Result<u32, MeterError> {
            if subject.pid < 100 { Ok(subject.pid) } else { Err(MeterError::Gone) }
        }

        fn begin(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read(&mut self, target: &u32) -> Result<Sample, MeterError> {
            let rusage = Rusage { maxrss: i64::from(*target), ..Rusage::default() };
            let sample = Sample { rusage, memory: None, interfaces: Vec::new(), counters: None };
            if *target == self.dead { Err(MeterError::Gone) } else { Ok(sample) }
        }
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn measured(targets: &mut Targets<Pretended>, wanted: &[&str]) -> Vec<(String, i64)> {
        let records = targets.measure(&wanted.iter().map(|text| name(text)).collect());
        records.iter().map(|record| (record.name.to_string(), record.sample.rusage.maxrss)).collect()
    }

    fn expected(list: &[(&str, i64)]) -> Vec<(String, i64)> {
        list.iter().map(|(name, pid)| ((*name).to_owned(), *pid)).collect()
    }

    #[test]
    fn one_hears_of_what_is_below_a_path_and_of_nothing_else() {
        let mut targets = Targets::new(Pretended { dead: 9 });
        for (text, pid) in [("foo:a", 1), ("foo:bar:b", 2), ("foobar:c", 3), ("d", 4), ("foo", 5)] {
            assert!(targets.add(&name(text), "", pid, List::EMPTY).is_ok());
        }
        assert_eq!(measured(&mut targets, &["foo:"]), expected(&[("foo:bar:b", 2), ("foo:a", 1)]));
        assert_eq!(measured(&mut targets, &["foo:a", "foo"]), expected(&[(":foo", 5), ("foo:a", 1)]));
        assert_eq!(measured(&mut targets, &["foo:bar"]), expected(&[]));
        assert_eq!(measured(&mut targets, &[":"]).len(), 5);
        assert_eq!(measured(&mut targets, &[]), expected(&[]));
    }

    #[test]
    fn a_new_one_takes_the_place_of_the_old_one_even_where_it_cannot_be_measured() {
        let mut targets = Targets::new(Pretended { dead: 9 });
        assert!(targets.add(&name("a"), "", 1, List::EMPTY).is_ok());
        assert!(targets.add(&name("a"), "", 2, List::EMPTY).is_ok());
        assert_eq!(measured(&mut targets, &[":"]), expected(&[(":a", 2)]));
        for pid in [100, -1, i64::MAX, i64::MIN, 1 << 32] {
            assert!(targets.add(&name("a"), "", 2, List::EMPTY).is_ok());
            let refused = targets.add(&name("a"), "", pid, List::EMPTY).unwrap_err();
            assert_eq!(refused.to_string(), "its process has ended");
            assert_eq!(measured(&mut targets, &[":"]), expected(&[]));
        }
        let taps = [Tap { bridge: "", tap: "" }; DEVICES_MAX + 1];
        assert!(targets.add(&name("a"), "", 1, List::Items(&taps[1..])).is_ok());
        assert!(matches!(targets.add(&name("a"), "", 1, List::Items(&taps)), Err(AddError::Interfaces)));
        assert_eq!(targets.add(&name("a:"), "", 1, List::EMPTY).unwrap_err().to_string(), "path used instead of name");
    }

    #[test]
    fn one_that_has_ended_is_forgotten_and_there_is_a_bound() {
        let mut targets = Targets::new(Pretended { dead: 9 });
        assert!(targets.add(&name("dead"), "", 9, List::EMPTY).is_ok());
        assert_eq!(measured(&mut targets, &[":"]), expected(&[]));
        assert!(targets.watched.is_empty());
        for number in 0..STATS_TARGETS_MAX {
            assert!(targets.add(&name(&format!("u{number}")), "", 1, List::EMPTY).is_ok());
        }
        assert!(matches!(targets.add(&name("more"), "", 1, List::EMPTY), Err(AddError::Full)));
        assert!(targets.add(&name("u7"), "", 1, List::EMPTY).is_ok());
        targets.remove(&name("u8"));
        assert!(targets.add(&name("more"), "", 1, List::EMPTY).is_ok());
        targets.clear();
        assert_eq!(measured(&mut targets, &[":"]), expected(&[]));
    }
}
