//! From the command line to a running guest: which kind, which image, then the kind's three steps.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fulmar_core::solo5::{Elf, Target, manifest, note};

use crate::arguments::{self, Request, RunArguments};
use crate::device::Devices;
use crate::image::ImageFile;
use crate::refusal::Refusal;
use crate::{hvt, report, spt, sys};

/// Runs what the command line asks for. Exit codes: the guest's status; 1 for whatever kept it from running.
pub(crate) fn main() -> i32 {
    sys::prepare_process();
    let mut words = std::env::args_os();
    let program = words.next().map_or_else(|| String::from("fulmar-tender"), |path| base_name(&path));
    report::set_program(&program);
    let words: Vec<OsString> = words.collect();
    match run(&program, words) {
        Ok(code) => code,
        Err(refusal) => {
            report::say(format_args!("{refusal}"));
            1
        }
    }
}

fn run(program: &str, words: Vec<OsString>) -> Result<i32, Refusal> {
    let wanted = wanted_by_name(program);
    match arguments::parse(words)? {
        Request::Help => {
            eprint!("{}", arguments::usage(program));
            Ok(1)
        }
        Request::Version => {
            eprintln!("{program} tender, version {}\nABI version 2", env!("CARGO_PKG_VERSION"));
            Ok(0)
        }
        Request::Run(arguments) => start(wanted, &arguments),
    }
}

fn start(wanted: Option<Target>, arguments: &RunArguments) -> Result<i32, Refusal> {
    let image = ImageFile::open(&arguments.kernel)?;
    let wrong = |error| Refusal::Image { name: image.name().to_owned(), error };
    let elf = Elf::read(&image).map_err(wrong)?;
    let abi = note::find_abi(&image, &elf).map_err(wrong)?;
    let target = wanted.unwrap_or(abi.target);
    abi.check_target(target).map_err(wrong)?;
    abi.check_version().map_err(wrong)?;
    let manifest = manifest::find(&image, &elf).map_err(wrong)?;
    let devices = Devices::open(&manifest, &arguments.options)?;
    match target {
        Target::Spt => {
            let prepared = spt::Prepared::new(arguments, &image, &elf, devices)?;
            prepared.confine()?.run().enter()
        }
        _ => {
            let prepared = hvt::Prepared::new(arguments, &image, &elf, devices)?;
            prepared.confine()?.run().until_end()
        }
    }
}

/// The kind that the program's name asks for: `solo5-hvt` and `solo5-spt`, also with a version behind (`solo5-hvt.2`).
fn wanted_by_name(program: &str) -> Option<Target> {
    let stem = program.split('.').next().unwrap_or(program);
    [(Target::Hvt, "solo5-hvt"), (Target::Spt, "solo5-spt")]
        .into_iter()
        .find(|(_, name)| *name == stem)
        .map(|found| found.0)
}

fn base_name(path: &OsStr) -> String {
    Path::new(path)
        .file_name()
        .map_or_else(|| String::from("fulmar-tender"), |name| String::from_utf8_lossy(name.as_bytes()).into_owned())
}
