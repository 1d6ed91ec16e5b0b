//! What this disk takes for what must be durable: the floor under everything that is acknowledged.

use std::fs::{self, File};
use std::io::Write;
use std::time::Instant;

use fulmar_tests::system;

use super::report::Figure;
use super::{Bench, median};
use crate::steps::{Done, Failure};

const ROUNDS: usize = 100;

pub(super) fn run(bench: &Bench) -> Done {
    let folder = system::make_folder("disk")?;
    let measured = measure(bench, &folder);
    let _ = fs::remove_dir_all(&folder);
    measured.map_err(|error| Failure(format!("{}: {error}", folder.display())))
}

fn measure(bench: &Bench, folder: &std::path::Path) -> std::io::Result<()> {
    let mut journal = File::create(folder.join("journal"))?;
    let mut appends = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        journal.write_all(&[7; 200])?;
        journal.sync_data()?;
        appends.push(begun.elapsed());
    }
    bench.add(Figure::time("disk", "append of 200 bytes and fdatasync", median(&mut appends)));
    let mut files = Vec::new();
    for round in 0..ROUNDS {
        let (draft, path) = (folder.join("draft"), folder.join(round.to_string()));
        let begun = Instant::now();
        let mut file = File::create(&draft)?;
        file.write_all(&[7; 14_000])?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        File::open(folder)?.sync_all()?;
        files.push(begun.elapsed());
    }
    bench.add(Figure::time("disk", "a new file of 14 kB, synced with its folder", median(&mut files)));
    Ok(())
}
