//! Writes the fuzzers' seeds, a folder for each target: `cargo run -p fulmar-tests --bin fuzz_seeds fuzz/corpus [GUESTS]`, where
//! GUESTS is a folder with built unikernels.

use std::path::PathBuf;
use std::{env, fs, io};

use fulmar_tests::seeds;

fn main() -> io::Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let usage = || io::Error::other("usage: fuzz_seeds CORPUS_FOLDER [GUESTS_FOLDER]");
    let corpus = arguments.next().ok_or_else(usage)?;
    for (target, seeds) in seeds::all(&arguments.next().unwrap_or_default())? {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
