//! Builds what runs unikernels and the unikernels themselves: they are linked differently from all else in the tree, so a
//! plain `cargo build` makes neither.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fmt, fs, io};

/// The unikernels of `guest/`.
pub const NAMES: [&str; 12] =
    ["hello", "timer", "devices", "network", "crash", "spin", "chatty", "mem", "many", "block", "http", "echo"];

/// What a unikernel for hvt is compiled for where that can be: a processor, no system on it, no SSE anywhere.
const BARE: &str = "x86_64-unknown-none";

/// What all others are compiled for: the only triple that every toolchain of this system has.
const LINUX: &str = "x86_64-unknown-linux-gnu";

/// Names the folder of the images for hvt if another toolchain has compiled them for [`BARE`], as `.ci/bare-metal` does.
const GIVEN: &str = "FULMAR_GUESTS_HVT";

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
    for kind in [Kind::Hvt, Kind::Spt] {
        let folder = match env::var_os(GIVEN) {
            Some(folder) if kind == Kind::Hvt => folder.into(),
            _ => compile(kind, &out.join("build").join(kind.name()))?,
        };
        for name in NAMES {
            place(&folder.join(name), &out.join(format!("{name}.{}", kind.name())))?;
        }
    }
    Ok(Guests { folder: out.to_path_buf() })
}

/// Compiles every unikernel for this tender; the folder that they are in.
fn compile(kind: Kind, work: &Path) -> Result<PathBuf, BuildError> {
    let mut cargo = cargo(&root().join("guest"));
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(work).args(configs(kind));
    run(cargo, &format!("the guests for {}", kind.name()))?;
    let triple = if kind == Kind::Hvt && has_bare() { BARE } else { LINUX };
    Ok(work.join(triple).join("release"))
}

/// What cargo must be told, in `guest/`, to compile for this tender with the toolchain that is there.
#[must_use]
pub fn configs(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Hvt if has_bare() => &["--config", "hvt.toml"],
        Kind::Hvt => &["--config", "hvt.toml", "--config", "hvt-linux.toml"],
        Kind::Spt => &["--config", "spt.toml"],
    }
}

/// Whether the images for hvt are compiled for a processor without a system.
#[must_use]
pub fn are_bare() -> bool {
    env::var_os(GIVEN).is_some() || has_bare()
}

/// Whether the toolchain has [`BARE`]: `rustup target add x86_64-unknown-none` brings it.
fn has_bare() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let mut rustc = Command::new(env::var_os("RUSTC").as_deref().unwrap_or(OsStr::new("rustc")));
        rustc.args(["--print", "target-libdir", "--target", BARE]).current_dir(root().join("guest"));
        // It names the folder whether it is there or not. One that does not run at all is for cargo to complain about.
        rustc.output().is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
    })
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
