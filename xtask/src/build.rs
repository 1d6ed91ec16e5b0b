//! Builds the programs and the guests that a demo or a benchmark runs.

use std::path::{Path, PathBuf};

use fulmar_tests::built::{self, Guests};

use crate::steps::{Done, cargo, step, target, timed};

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
    let mut build = cargo(&["build", "--release", "--locked"]);
    for package in ["fulmar-console", "fulmar-log", "fulmar-stats", "fulmar-influx", "fulmar-tls", "fulmar-client"] {
        build.args(["--package", package]);
    }
    step("building the daemons that need no privilege, and vmmc_local", &mut build)?;
    // Those two are trusted and count every KiB.
    for (package, program) in [("fulmar-vmmd", "vmmd"), ("fulmar-tender", "fulmar-tender")] {
        let title = format!("building {program}, linked statically (a minute or so the first time)");
        timed(&title, || built::build_static(package, program, &programs.folder))?;
    }
    Ok(programs)
}

/// Builds the unikernels of the workspace.
pub(crate) fn guests(programs: &Programs) -> Done<Guests> {
    timed("building the unikernels", || built::build(&programs.folder.join("guests")))
}
