//! Bringing a host of albatross over: what its state file and its block devices hold is made here, item by item, by the same
//! commands that a person would give. What is there already is never changed; what cannot come over is said, and the rest
//! goes on. A dry run goes the same way with a machine in the daemon's place.
//!
//! | file | what is in it |
//! |---|---|
//! | `state` | albatross's state file, and its folder of block devices |
//! | `present` | what the daemon has already |
//! | `host` | where it goes: the daemon |
//! | `rehearsal` | where it goes in a dry run |
//! | `image` | the images of a state file |
//! | `content` | the content of block devices |
//! | `course` | the order of it all, and what becomes of each item |
//! | `report` | what is said of each |

mod content;
mod course;
mod host;
mod image;
mod present;
mod rehearsal;
mod report;
mod state;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar_core::machine::Tenders;

use self::course::Course;
use self::host::{Host, Running, is_vmmd};
use self::present::Present;
use self::rehearsal::Rehearsal;
use self::report::Report;
use self::state::{StateFile, find_blocks};
use crate::commands::Context;
use crate::connection::{Daemon, LocalDoor};
use crate::error::Failure;
use crate::output::text::{plain, size};

/// How long an albatross of which nothing is wanted may be silent.
const ALBATROSS_TIME_OUT: Duration = Duration::from_secs(2);

/// What to bring over, and how.
#[derive(Debug)]
pub struct Request<'a> {
    /// Albatross's state file.
    pub state: &'a Path,
    /// Its folder of block devices; the one beside the state file where absent.
    pub blocks: Option<&'a Path>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// The folder of the sockets of an albatross that may still run.
    pub albatross_run: &'a Path,
}

/// Brings it over.
///
/// # Errors
/// [`Failure::Incomplete`] where something did not come over; any other one where nothing was tried, or the rest was not.
pub fn run(context: &mut Context<'_>, request: &Request<'_>) -> Result<(), Failure> {
    let file = StateFile::open(request.state)?;
    let state = file.decode()?;
    let folder = request.blocks.map_or_else(|| request.state.with_file_name("block"), PathBuf::from);
    let found = match find_blocks(&folder) {
        Err(Failure::Input { error, .. }) if error.kind() == io::ErrorKind::NotFound && request.blocks.is_none() => {
            context.note(&format!("note: there is no {}: no block devices", folder.display()));
            Vec::new()
        }
        found => found?,
    };
    if !is_vmmd(context.door)? {
        return Err(Failure::NotOurs { daemon: Daemon::Vmmd });
    }
    warn_of_albatross(context, request.albatross_run);
    let present = Present::ask(context.door)?;
    let door = context.door;
    let (mut running, mut rehearsal);
    let host: &mut dyn Host = if request.dry_run {
        rehearsal = Rehearsal::new(&present, tenders())?;
        &mut rehearsal
    } else {
        running = Running(door);
        &mut running
    };
    let course = Course::new(&state, &found);
    let mut report = Report::new(context, request.dry_run, course.name_width());
    let place = request.state.display().to_string();
    let holds =
        format!("{}: generation {}, {}: {}", plain(place.as_bytes()), state.generation(), size(file.bytes()), course);
    report.begin(&holds)?;
    let went = course.run(door, &present, host, &mut report);
    let ended = report.end(&place, state.generation(), went.is_err());
    went.and(ended)
}

/// Which images can run here, as far as this process can see. Whether the daemon may use the device is the daemon's secret.
fn tenders() -> Tenders {
    let kvm = Path::new("/dev/kvm");
    let opens = File::options().read(true).write(true).open(kvm);
    let unusable = opens.is_err_and(|error| error.kind() != io::ErrorKind::PermissionDenied);
    let linux = cfg!(target_os = "linux");
    Tenders { hvt: !(linux && unusable), spt: linux, solo5: !linux, bhyve: (!linux).then_some(0) }
}

/// Two hosts that run the same unikernels answer for the same addresses and write to different copies of the same disks.
fn warn_of_albatross(context: &mut Context<'_>, run: &Path) {
    let door = LocalDoor::new(run, ALBATROSS_TIME_OUT);
    if !matches!(is_vmmd(&door), Ok(true) | Err(Failure::Connect { .. })) {
        let place = run.join(Daemon::Vmmd.socket());
        context.note(&format!("warning: albatross still runs ({}): stop it first", place.display()));
    }
}
