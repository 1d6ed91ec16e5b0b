//! Builds the programs and the guests that a demo or a benchmark runs.

use std::path::{Path, PathBuf};

use crate::guest::{self, Guests};
use crate::steps::{Done, Failure, cargo, step, target};

/// Where the built programs are.
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The folder that they are in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Builds all programs that belong to a running system, in release form.
pub(crate) fn programs() -> Done<Programs> {
    let packages = ["fulmar-vmmd", "fulmar-console", "fulmar-client"];
    let mut build = cargo(&["build", "--release"]);
    for package in packages {
        build.args(["--package", package]);
    }
    step("building vmmd, vmmd_console and vmmc_local", &mut build)?;
    let programs = Programs { folder: target().join("release") };
    println!("== building the tender");
    guest::build_tender(&programs.folder).map_err(|error| Failure(error.to_string()))?;
    Ok(programs)
}

/// Builds the unikernels of the workspace.
pub(crate) fn guests(programs: &Programs) -> Done<Guests> {
    println!("== building the unikernels");
    guest::build(&programs.folder.join("guests")).map_err(|error| Failure(error.to_string()))
}
