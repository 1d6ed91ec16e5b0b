//! Builds what runs unikernels and the unikernels themselves: they are linked differently from all else in the tree, so a
//! plain `cargo build` makes neither.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs, io};

/// The unikernels of `guest/`.
pub const NAMES: [&str; 12] =
    ["hello", "timer", "devices", "network", "crash", "spin", "chatty", "mem", "many", "block", "http", "echo"];

/// The triple that all of them are compiled for: the only one that every toolchain of this system has.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The tender that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// KVM.
    Hvt,
    /// seccomp.
    Spt,
}

impl Kind {
    /// Its name, which is also the image's extension.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Hvt => "hvt",
            Kind::Spt => "spt",
        }
    }
}

/// Images that have been built.
#[derive(Debug, Clone)]
pub struct Guests {
    folder: PathBuf,
}

impl Guests {
    /// Path of the image of this name and kind.
    #[must_use]
    pub fn image(&self, name: &str, kind: Kind) -> PathBuf {
        self.folder.join(format!("{name}.{}", kind.name()))
    }
}

/// Why there are no images, or no tender.
#[derive(Debug)]
pub enum BuildError {
    /// Cargo could not be run.
    Cargo(io::Error),
    /// Cargo failed; its own words.
    Failed {
        /// What was being built.
        what: String,
        /// What cargo wrote.
        output: String,
    },
    /// A file could not be put where it belongs.
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl std::error::Error for BuildError {}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Cargo(error) => write!(f, "cargo could not be run: {error}; put it into PATH"),
            BuildError::Failed { what, output } => write!(f, "building {what} failed; cargo says:\n{output}"),
            BuildError::File { path, error } => write!(f, "{}: {error}; check its folder and the disk", path.display()),
        }
    }
}

/// Builds every unikernel for both tenders into `out`, as `hello.hvt`, `hello.spt` and so on.
///
/// # Errors
/// [`BuildError`].
pub fn build(out: &Path) -> Result<Guests, BuildError> {
    let root = root();
    for kind in [Kind::Hvt, Kind::Spt] {
        let work = out.join("build").join(kind.name());
        let mut cargo = cargo(&root.join("guest"));
        cargo.args(["build", "--release", "--locked", "--config"]).arg(format!("{}.toml", kind.name()));
        cargo.arg("--target-dir").arg(&work);
        run(cargo, &format!("the guests for {}", kind.name()))?;
        for name in NAMES {
            let built = work.join(TRIPLE).join("release").join(name);
            place(&built, &out.join(format!("{name}.{}", kind.name())))?;
        }
    }
    Ok(Guests { folder: out.to_path_buf() })
}

/// Builds one program into `out`, linked statically where the system has a static C library: it then starts faster and holds
/// less memory.
///
/// # Errors
/// [`BuildError`].
pub fn build_static(package: &str, program: &str, out: &Path) -> Result<PathBuf, BuildError> {
    let work = out.join("build").join("static");
    let compile = |flags: &[&str]| {
        let mut cargo = cargo(&root());
        cargo.args(["rustc", "--release", "--locked", "--package", package, "--bin", program, "--target-dir"]);
        cargo.arg(&work).arg("--").args(flags);
        run(cargo, program)
    };
    compile(&["-Ctarget-feature=+crt-static"]).or_else(|_| compile(&[]))?;
    let built = out.join(program);
    place(&work.join("release").join(program), &built)?;
    Ok(built)
}

/// The top of the tree. Whoever includes this file lives in a folder directly below it.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Cargo in this folder, free of flags that were meant for others.
fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").as_deref().unwrap_or(OsStr::new("cargo")));
    cargo.current_dir(folder);
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(flags);
    }
    cargo
}

/// Runs it; its words matter only if it fails.
fn run(mut cargo: Command, what: &str) -> Result<(), BuildError> {
    let output = cargo.output().map_err(BuildError::Cargo)?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(BuildError::Failed { what: what.to_owned(), output })
}

/// Copies a file in one step: whoever runs the old one is not disturbed.
fn place(from: &Path, to: &Path) -> Result<(), BuildError> {
    let draft = to.with_extension(format!("draft{}", std::process::id()));
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |error| BuildError::File { path, error }
    };
    fs::copy(from, &draft).map_err(failed(from))?;
    fs::rename(&draft, to).map_err(failed(to))
}
