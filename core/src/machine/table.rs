//! A bounded table of named records: a slot number that stays, and an index sorted by name.
//!
//! The index is in the order of listings, so a path and all below it are one range ([`Name`]). A record's slot number is
//! what effects and outcomes carry; it is given again only after the record is gone.

use crate::name::Name;

/// What a [`Table`] holds.
pub(super) trait Named {
    /// A slot without a record. All its bytes are zero, so that an unused table costs no memory.
    const EMPTY: Self;

    /// The record's name.
    fn name(&self) -> &Name;

    /// Whether it is to take the place of the one of the same name, and lies behind it until then.
    fn is_successor(&self) -> bool {
        false
    }
}

/// Up to `N` records, found by slot number or by name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Table<T, const N: usize> {
    slots: [T; N],
    /// Slot numbers in the order of their records' names.
    order: heapless::Vec<u16, N>,
    /// Slot numbers that were used and are free again.
    free: heapless::Vec<u16, N>,
    /// Slots below this were used at least once.
    used: u16,
}

impl<T: Named, const N: usize> Table<T, N> {
    /// A table without records.
    pub(super) const fn new() -> Self {
        const { assert!(N <= u16::MAX as usize) };
        Self { slots: [const { T::EMPTY }; N], order: heapless::Vec::new(), free: heapless::Vec::new(), used: 0 }
    }

    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The record in a slot, used or not.
    pub(super) fn get(&self, slot: u16) -> Option<&T> {
        self.slots.get(usize::from(slot))
    }

    /// The record in a slot, used or not.
    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut T> {
        self.slots.get_mut(usize::from(slot))
    }

    /// The slot of the record of this name.
    pub(super) fn find(&self, name: &Name) -> Option<u16> {
        self.place(name, false).ok().and_then(|place| self.order.get(place).copied())
    }

    /// The slot of the record that is to take the place of the one of this name.
    pub(super) fn find_successor(&self, name: &Name) -> Option<u16> {
        self.place(name, true).ok().and_then(|place| self.order.get(place).copied())
    }

    fn place(&self, name: &Name, successor: bool) -> Result<usize, usize> {
        self.order.binary_search_by(|slot| match self.get(*slot) {
            Some(record) => record.name().cmp(name).then(record.is_successor().cmp(&successor)),
            None => core::cmp::Ordering::Greater,
        })
    }

    /// Takes in a record whose name is not in the table, or has no successor yet, and gives its slot.
    ///
    /// # Errors
    /// The record, when the table is full or has that name, or its successor.
    pub(super) fn insert(&mut self, record: T) -> Result<u16, T> {
        let Err(place) = self.place(record.name(), record.is_successor()) else { return Err(record) };
        let (slot, fresh) = match self.free.last() {
            Some(slot) => (*slot, false),
            None => (self.used, true),
        };
        let Some(room) = self.slots.get_mut(usize::from(slot)) else { return Err(record) };
        if self.order.insert(place, slot).is_err() {
            return Err(record);
        }
        *room = record;
        if fresh {
            self.used = self.used.saturating_add(1);
        } else {
            let _ = self.free.pop();
        }
        Ok(slot)
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, slot: u16) {
        let Some(position) = self.order.iter().position(|other| *other == slot) else { return };
        let _ = self.order.remove(position);
        if let Some(room) = self.slots.get_mut(usize::from(slot)) {
            *room = T::EMPTY;
        }
        // There are as many places as slots, and this slot was in use.
        let _ = self.free.push(slot);
    }

    /// All slots, in the order of listings.
    pub(super) fn all(&self) -> &[u16] {
        &self.order
    }

    /// After how many others a free slot is given out.
    pub(super) fn turn_of(&self, slot: u16) -> usize {
        let freed = self.free.iter().rev().position(|other| *other == slot);
        let fresh = usize::from(slot.saturating_sub(self.used)).saturating_add(self.free.len());
        freed.unwrap_or(fresh)
    }

    /// The slots at `path` and below it, in the order of listings.
    pub(super) fn below(&self, path: &Name) -> &[u16] {
        let start = self.place(path, false).unwrap_or_else(|place| place);
        let rest = self.order.get(start..).unwrap_or_default();
        let len = rest.partition_point(|slot| self.get(*slot).is_some_and(|record| path.contains(record.name())));
        rest.get(..len).unwrap_or_default()
    }

    /// All records with their slots, in the order of listings.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        self.order.iter().filter_map(|slot| Some((*slot, self.get(*slot)?)))
    }

    /// All records, for change in place of what is not the name.
    pub(super) fn records_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().take(usize::from(self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Entry(Name);

    impl Named for Entry {
        const EMPTY: Self = Self(Name::EMPTY);
        fn name(&self) -> &Name {
            &self.0
        }
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_one_range() {
        let mut table = Table::<Entry, 8>::new();
        for text in [":a", "p:x", "p:y:z", ":p", "pq:x", "p:y"] {
            table.insert(Entry(name(text))).unwrap();
        }
        let below = |path: &str| -> heapless::Vec<heapless::String<8>, 8> {
            let slots = table.below(&name(path)).iter();
            slots.map(|slot| heapless::String::try_from(table.get(*slot).unwrap().0.as_str()).unwrap()).collect()
        };
        assert_eq!(below("p:"), ["p:y", "p:y:z", "p:x"]);
        assert_eq!(below("p:y:"), ["p:y:z"]);
        assert_eq!(below("q:").len(), 0);
        assert_eq!(below(":").len(), 6);
    }

    #[test]
    fn slots_come_back_and_full_is_an_answer() {
        let mut table = Table::<Entry, 2>::new();
        let a = table.insert(Entry(name("a"))).unwrap();
        assert!(table.insert(Entry(name("a"))).is_err());
        table.insert(Entry(name("b"))).unwrap();
        assert_eq!(table.insert(Entry(name("c"))), Err(Entry(name("c"))));
        table.remove(a);
        table.remove(a);
        assert_eq!(table.insert(Entry(name("c"))), Ok(a));
        assert_eq!(table.find(&name("a")), None);
        assert_eq!(table.find(&name("c")), Some(a));
    }
}
