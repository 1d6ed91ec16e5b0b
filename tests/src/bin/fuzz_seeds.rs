//! Writes the recorded messages as seeds for the fuzzers: `cargo run -p fulmar-tests --bin fuzz_seeds fuzz/corpus`

use std::path::PathBuf;
use std::{env, fs, io};

use fulmar_tests::render;
use serde_json::Value;

fn main() -> io::Result<()> {
    let corpus =
        PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: fuzz_seeds CORPUS_FOLDER"))?);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/index.json");
    let vectors: Vec<Value> = serde_json::from_str(&fs::read_to_string(path)?)?;
    for vector in &vectors {
        let (Some(hex), Some(name)) = (vector["hex"].as_str(), vector["name"].as_str()) else { continue };
        let bytes = render::from_hex(hex);
        let targets: &[(&str, &[u8])] = match vector["codec"].as_str() {
            Some("cert") => &[("certificate", &[])],
            Some("state") => &[("state_file", &[])],
            // A place for the cut, and a size for the pieces and a frame's length, go before the message.
            _ => &[("message", &[]), ("message_with_cut", &[70]), ("stream", &[9, 0, 0, 0])],
        };
        for (target, prefix) in targets {
            let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
            let prefix = if *target == "stream" { [prefix, &[len][..]].concat() } else { prefix.to_vec() };
            fs::create_dir_all(corpus.join(target))?;
            fs::write(corpus.join(target).join(name), [prefix, bytes.clone()].concat())?;
        }
    }
    Ok(())
}
