//! Builds the programs and the guests that a demo or a benchmark runs.

use std::path::{Path, PathBuf};

use crate::steps::{Done, Failure, cargo, step, target};
use fulmar_tests::built::{self, Guests};

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
    let programs = Programs { folder: target().join("release") };
    let mut build = cargo(&["build", "--release", "--package", "fulmar-console", "--package", "fulmar-client"]);
    step("building vmmd_console and vmmc_local", &mut build)?;
    // Those two are trusted and count every KiB.
    for (package, program) in [("fulmar-vmmd", "vmmd"), ("fulmar-tender", "fulmar-tender")] {
        println!("== building {program}, linked statically");
        built::build_static(package, program, &programs.folder).map_err(|error| Failure(error.to_string()))?;
    }
    Ok(programs)
}

/// Builds the unikernels of the workspace.
pub(crate) fn guests(programs: &Programs) -> Done<Guests> {
    println!("== building the unikernels");
    built::build(&programs.folder.join("guests")).map_err(|error| Failure(error.to_string()))
}
