//! The unikernel that `guest/README.md` shows is one: a package of its own, made as the page says, that runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use fulmar_tests::built::Kind;

use crate::frames::{Wire, arp_request};
use crate::tender::tender;

#[test]
fn the_unikernel_of_the_page_is_one() {
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest").canonicalize().unwrap();
    let page = fs::read_to_string(guest.join("README.md")).unwrap();
    let (_, rest) = page.split_once("\n```rust\n").unwrap();
    let (program, _) = rest.split_once("\n```\n").unwrap();
    assert!(program.lines().count() <= 20, "{program}");

    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("of-the-page");
    fs::create_dir_all(package.join("src")).unwrap();
    fs::write(package.join("src/main.rs"), program).unwrap();
    let manifest = format!(
        "[package]\nname = \"mine\"\nedition = \"2024\"\n[[bin]]\nname = \"mine\"\npath = \"src/main.rs\"\n\
         [profile.release]\npanic = \"abort\"\n[workspace]\n[dependencies]\nfulmar-guest = {{ path = {:?} }}\n",
        guest.join("runtime")
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::copy(guest.join("spt.toml"), package.join("spt.toml")).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(flags);
    }
    cargo.args(["build", "--release", "--offline", "--config", "spt.toml", "--target-dir", "target"]);
    let output = cargo.current_dir(&package).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let image = package.join("target/x86_64-unknown-linux-gnu/release/mine");
    let (wire, mut child) = Wire::start(tender(Kind::Spt), |command| {
        command.arg(image).args(["some", "words"]);
    });
    child.console("I have 2 MiB and was told: some words\n");
    wire.send(&arp_request());
    child.console("a frame of 42 bytes\n");
    child.finish();
}
