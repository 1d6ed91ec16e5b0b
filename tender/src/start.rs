//! From the command line to a running guest. Everything is opened first; then the tender gives up what it is, and only then
//! looks at the image, whose author nobody knows.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fulmar_core::solo5::{Elf, ImageError, Target, manifest, note};

use crate::arguments::{self, Request, RunArguments};
use crate::device::Devices;
use crate::opened::{Image, Opened};
use crate::privilege::{self, View};
use crate::refusal::Refusal;
use crate::seccomp::Row;
use crate::status::{self, Record};
use crate::{hvt, report, spt, stages, sys};

/// What the names of the tender end with under which guests may be looked into.
const DEBUG_SUFFIX: &str = "-debug";

/// Runs what the command line asks for. Exit codes: the guest's status; 1 for whatever kept it from running.
pub fn main() -> i32 {
    sys::prepare_process();
    let mut words = std::env::args_os();
    let program = words.next().map_or_else(|| String::from("fulmar-tender"), |path| base_name(&path));
    match prepare(&program, words.collect()).and_then(Prepared::confine) {
        Ok(confined) => confined.run(),
        Err(code) => code,
    }
}

/// A guest whose image is in place, and the tender with nothing left but its open files.
pub struct Prepared(Kind<stages::Prepared<spt::Guest>, stages::Prepared<hvt::Guest>>);

/// The same, with no system call left that neither of them needs.
pub struct Confined(Kind<stages::Confined<spt::Guest>, stages::Confined<hvt::Guest>>);

/// Either kind.
enum Kind<S, H> {
    Spt(S),
    Hvt(H),
}

/// Opens all, gives up all privileges, and puts the image into place.
///
/// # Errors
/// The exit code, once it has been said why there is no guest: one line, which names the thing and the remedy. Also when the
/// command line was a question, which has then been answered.
pub fn prepare(program: &str, words: Vec<OsString>) -> Result<Prepared, i32> {
    report::set_program(program);
    match arguments::parse(words).map_err(failed)? {
        Request::Help => {
            answer(&arguments::usage(program));
            Err(1)
        }
        Request::Version => {
            answer(&format!("{program} tender, version {}\nABI version 2\n", env!("CARGO_PKG_VERSION")));
            Err(0)
        }
        Request::Run(arguments) => run(program, arguments).map_err(failed),
    }
}

fn run(program: &str, arguments: RunArguments) -> Result<Prepared, Refusal> {
    let wanted = wanted_by_name(program);
    let may_debug = program.ends_with(DEBUG_SUFFIX);
    let opened = Opened::new(program, wanted, may_debug, arguments)?;
    let view = privilege::give_up(opened.user, may_debug)?;
    load(opened, wanted, view)
}

/// Looks at the image, and puts it into place.
fn load(opened: Opened, wanted: Option<Target>, view: View) -> Result<Prepared, Refusal> {
    let Opened { image: file, devices, given, .. } = opened;
    let wrong = |error: ImageError| Refusal::Image { name: file.name().to_owned(), error };
    let elf = Elf::read(&file).map_err(wrong)?;
    let abi = note::find_abi(&file, &elf).map_err(wrong)?;
    let target = wanted.unwrap_or(abi.target);
    abi.check_target(target).map_err(wrong)?;
    abi.check_version().map_err(wrong)?;
    let manifest = manifest::find(&file, &elf).map_err(wrong)?;
    let devices = Devices::attach(&manifest, devices)?;
    let image = Image { file, elf };
    let prepared = match target {
        Target::Spt => Kind::Spt(spt::prepare(given, devices, &image)?),
        _ => Kind::Hvt(hvt::prepare(given, devices, &image)?),
    };
    let View { network_is_empty, root_is_empty } = view;
    status::record(Record::Running { network_is_empty, root_is_empty });
    Ok(Prepared(prepared))
}

fn answer(text: &str) {
    // Whoever cannot hear it does not want it.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Says why there is no guest.
#[expect(clippy::needless_pass_by_value, reason = "the last place that an error comes to")]
fn failed(refusal: Refusal) -> i32 {
    report::say(format_args!("{refusal}"));
    status::record(Record::Failed);
    1
}

impl Prepared {
    /// The rows of the filter that is about to be installed. A test takes one out, to prove that the guest cannot do without.
    pub fn rows(&mut self) -> &mut Vec<Row> {
        match &mut self.0 {
            Kind::Spt(prepared) => prepared.rows(),
            Kind::Hvt(prepared) => prepared.rows(),
        }
    }

    /// Gives up every system call but those of the rows.
    ///
    /// # Errors
    /// The exit code, once it has been said why: the kernel has no such filters.
    pub fn confine(self) -> Result<Confined, i32> {
        match self.0 {
            Kind::Spt(prepared) => prepared.confine().map(Kind::Spt),
            Kind::Hvt(prepared) => prepared.confine().map(Kind::Hvt),
        }
        .map(Confined)
        .map_err(failed)
    }
}

impl Confined {
    /// Runs the guest to its end, which is this process's end.
    pub fn run(self) -> ! {
        match self.0 {
            Kind::Spt(confined) => confined.ready().run(),
            Kind::Hvt(confined) => confined.ready().run(),
        }
    }
}

/// The kind that the program's name asks for: `solo5-hvt` and `solo5-spt`, also with a version behind (`solo5-hvt.2`) or for
/// debugging (`solo5-hvt-debug`).
fn wanted_by_name(program: &str) -> Option<Target> {
    let stem = program.split('.').next().unwrap_or(program);
    let stem = stem.strip_suffix(DEBUG_SUFFIX).unwrap_or(stem);
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
