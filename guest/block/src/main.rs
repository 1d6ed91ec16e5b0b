//! Proves that the disk `storage` keeps what is written to it, across its own end too.
//!
//! `--write=SEED` writes every sector, `--verify=SEED` looks whether they are what a `--write` of this seed left. Without
//! either it keeps a count of its starts in the first sector: it looks whether all others are as the start before left them, or
//! writes them the first time. `--bench` says how fast sectors go. `--sectors=N` makes all this of the first N only. It exits
//! with 0 if all held, else with 1.
#![no_std]
#![no_main]

use fulmar_guest::{Block, Guest, clock, decimal, say, unikernel};

/// The largest sector that a tender offers.
const SECTOR_BYTES_MAX: usize = 32768;
const WORD_BYTES: usize = 8;
/// What the first sector begins with when it holds a count of starts.
const MARK: [u8; WORD_BYTES] = *b"Fulmar#1";
/// What the sectors behind a count of starts are written with.
const SEED: u64 = 0x5eed;

unikernel!(main, [block("storage")]);

fn main(guest: &Guest) -> i32 {
    let Some(block) = Block::find(guest, "storage") else {
        say!("block: FAILED: there is no disk");
        return 1;
    };
    let sectors = block.capacity_bytes() / u64::from(block.sector_bytes().max(1));
    let sectors = guest.number("sectors").map_or(sectors, |wanted| wanted.min(sectors));
    let mut room = [0; SECTOR_BYTES_MAX];
    let Some(sector) = room.get_mut(..usize::from(block.sector_bytes())) else { return 1 };
    let mut disk = Disk { block, sectors, sector };
    say!("block: ", sectors, " sectors of ", block.sector_bytes(), " bytes");
    let done = if let Some(word) = guest.argument("write") {
        seed(word).and_then(|seed| disk.write(0, seed)).map(|()| say!("block: all sectors written"))
    } else if let Some(word) = guest.argument("verify") {
        seed(word).and_then(|seed| disk.verify(0, seed)).map(|()| say!("block: all sectors as written"))
    } else if guest.has_argument("bench") {
        disk.bench()
    } else {
        disk.boot()
    };
    i32::from(done.is_none())
}

/// The seed that an argument says; `None` after having said that it says none.
fn seed(word: &[u8]) -> Option<u64> {
    let seed = decimal(word);
    if seed.is_none() {
        say!("block: FAILED: ", word, " is no number");
    }
    seed
}

/// The disk and room for one of its sectors. What goes wrong is said at once; the result is then `None`.
struct Disk<'a> {
    block: Block,
    sectors: u64,
    sector: &'a mut [u8],
}

impl Disk<'_> {
    /// Writes the sectors from this one on.
    fn write(&mut self, first: u64, seed: u64) -> Option<()> {
        for number in first..self.sectors {
            for (word, content) in self.sector.chunks_exact_mut(WORD_BYTES).zip(content(seed, number)) {
                word.copy_from_slice(&content.to_le_bytes());
            }
            self.put(number)?;
        }
        Some(())
    }

    /// Looks whether the sectors from this one on are what [`Disk::write`] left.
    fn verify(&mut self, first: u64, seed: u64) -> Option<()> {
        for number in first..self.sectors {
            self.get(number)?;
            let mut words = self.sector.chunks_exact(WORD_BYTES).zip(content(seed, number));
            if !words.all(|(word, content)| word == content.to_le_bytes()) {
                say!("block: FAILED: sector ", number, " is not what was written");
                return None;
            }
        }
        Some(())
    }

    /// One more start of the count in the first sector.
    fn boot(&mut self) -> Option<()> {
        self.get(0)?;
        let mark = self.sector.first_chunk() == Some(&MARK);
        let starts =
            self.sector.get(WORD_BYTES..).and_then(|rest| rest.first_chunk()).map(|it| u64::from_le_bytes(*it));
        let boot = match starts.filter(|_| mark) {
            Some(starts) => {
                self.verify(1, SEED)?;
                starts.wrapping_add(1)
            }
            None => {
                self.write(1, SEED)?;
                1
            }
        };
        self.sector.fill(0);
        for (word, content) in self.sector.chunks_exact_mut(WORD_BYTES).zip([MARK, boot.to_le_bytes()]) {
            word.copy_from_slice(&content);
        }
        self.put(0)?;
        match boot {
            1 => say!("block: boot 1, all sectors written"),
            _ => say!("block: boot ", boot, ", all sectors as written"),
        }
        Some(())
    }

    /// What is on the disk stays there: each sector is read, and then written as it was.
    fn bench(&mut self) -> Option<()> {
        self.measure("in order", |number, _| number)?;
        self.measure("at random", |number, sectors| {
            let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ mixed >> 32) % sectors
        })
    }

    /// As many sectors as there are, those that `choose` makes of their numbers.
    fn measure(&mut self, how: &str, choose: fn(u64, u64) -> u64) -> Option<()> {
        let sectors = self.sectors;
        let begun_ns = clock::monotonic_ns();
        (0..sectors).try_for_each(|number| self.get(choose(number, sectors)))?;
        let read_ns = clock::monotonic_ns();
        say!("block: read ", self.per_second(read_ns - begun_ns), " sectors a second ", how);
        let mut written_ns = 0;
        (0..sectors).try_for_each(|number| {
            let number = choose(number, sectors);
            self.get(number)?;
            let before_ns = clock::monotonic_ns();
            self.put(number)?;
            written_ns += clock::monotonic_ns() - before_ns;
            Some(())
        })?;
        say!("block: wrote ", self.per_second(written_ns), " sectors a second ", how);
        Some(())
    }

    fn per_second(&self, ns: u64) -> u64 {
        self.sectors.saturating_mul(clock::SECOND_NS) / ns.max(1)
    }

    fn get(&mut self, number: u64) -> Option<()> {
        let read = self.block.read(number * self.sector.len() as u64, self.sector);
        if !read {
            say!("block: FAILED: sector ", number, " cannot be read");
        }
        read.then_some(())
    }

    fn put(&mut self, number: u64) -> Option<()> {
        let written = self.block.write(number * self.sector.len() as u64, self.sector);
        if !written {
            say!("block: FAILED: sector ", number, " cannot be written");
        }
        written.then_some(())
    }
}

/// The words of a sector: each depends on the seed, the sector and its place, so that nothing can be in another's place.
fn content(seed: u64, sector: u64) -> impl Iterator<Item = u64> {
    let first = (seed ^ sector.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..).map(move |place: u64| first ^ (first >> 29) ^ place)
}
