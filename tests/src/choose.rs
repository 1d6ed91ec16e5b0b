//! One source of choices: a generator or a schedule asks `below(n)` and does not know who answers. The same property is
//! then driven by a seed, by a fuzzer's bytes, or by an odometer that goes through everything.

/// Answers questions with numbers.
pub trait Choose {
    /// A number below `bound`; 0 where `bound` is 0.
    fn below(&mut self, bound: u32) -> u32;

    /// Whether there is nothing left to choose from, so that a long run can end.
    fn is_exhausted(&self) -> bool {
        false
    }
}

impl dyn Choose + '_ {
    /// One of several.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// An index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(u32::try_from(len).unwrap_or(u32::MAX)) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The choices of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Choose for Seeded {
    fn below(&mut self, bound: u32) -> u32 {
        // SplitMix64: each state gives one well-mixed number.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        u32::try_from(((mixed >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }
}

/// A fuzzer's bytes: as many for a number as its bound needs, 0 when there are no more.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// The choices in these bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Choose for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        let wanted = match bound {
            0 | 1 => 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        let number = taken.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        u32::try_from(number % u64::from(bound.max(1))).unwrap_or(0)
    }

    fn is_exhausted(&self) -> bool {
        self.0.is_empty()
    }
}

/// All sequences of choices, one run after the other: like the counter of a car whose wheels differ.
#[derive(Clone, Debug, Default)]
pub struct Odometer {
    /// What was chosen, and the bound.
    wheels: Vec<(u32, u32)>,
    at: usize,
}

impl Odometer {
    /// Before the first run.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on to the next run; `false` when all have been.
    pub fn advance(&mut self) -> bool {
        self.wheels.truncate(self.at);
        self.at = 0;
        while let Some((chosen, bound)) = self.wheels.pop() {
            if chosen + 1 < bound {
                self.wheels.push((chosen + 1, bound));
                return true;
            }
        }
        false
    }
}

impl Choose for Odometer {
    fn below(&mut self, bound: u32) -> u32 {
        if self.at == self.wheels.len() {
            self.wheels.push((0, bound));
        }
        let (chosen, known) = self.wheels[self.at];
        assert_eq!(known, bound, "the run before this choice was not the same");
        self.at += 1;
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odometer_goes_through_everything_once() {
        let mut odometer = Odometer::new();
        let mut seen = Vec::new();
        loop {
            let first = odometer.below(3);
            let second = if first == 1 { odometer.below(2) } else { 9 };
            seen.push((first, second));
            if !odometer.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 9), (1, 0), (1, 1), (2, 9)]);
    }

    #[test]
    fn bytes_end_in_zeros_and_seeds_stay_below() {
        let mut bytes = Bytes::new(&[7, 1, 0]);
        assert_eq!((bytes.below(5), bytes.below(1), bytes.below(300)), (2, 0, 256));
        assert!(bytes.is_exhausted());
        assert_eq!(bytes.below(9), 0);
        let mut seeded = Seeded::new(1);
        let mut seen = [0_u32; 6];
        (0..600).for_each(|_| seen[seeded.below(6) as usize] += 1);
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
    }
}
