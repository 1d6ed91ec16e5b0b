//! From the command line to a running guest. Everything is opened first; then the tender gives up what it is, and only then
//! looks at the image, whose author nobody knows.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use fulmar_core::solo5::{Elf, ImageError, Target, manifest, note};

use crate::arguments::{self, Request, RunArguments};
use crate::core_file::CoreFile;
use crate::device::{self, Devices, OpenedOption};
use crate::image::ImageFile;
use crate::inherited::Inherited;
use crate::load::LoadError;
use crate::privilege::{self, View};
use crate::refusal::Refusal;
use crate::seccomp::Row;
use crate::status::{self, RECORD_BYTES, Record, Sinks};
use crate::sys::Errno;
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
    let opened = Opened::new(program, wanted, arguments)?;
    let view = privilege::give_up(opened.user, is_debug(program))?;
    opened.load(wanted, view)
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

/// Everything that the command line names, open.
struct Opened {
    user: Option<privilege::User>,
    image: ImageFile,
    devices: Vec<OpenedOption>,
    given: Given<()>,
}

/// What a guest is run with, its devices being `D`.
pub(crate) struct Given<D = Devices> {
    pub(crate) memory_bytes: u64,
    pub(crate) exec_heap: bool,
    pub(crate) net_ring: bool,
    pub(crate) kvm: Option<Kvm>,
    pub(crate) command_line: Vec<u8>,
    pub(crate) core: Option<CoreFile>,
    pub(crate) gdb: Option<UnixListener>,
    pub(crate) devices: D,
}

/// `/dev/kvm`, or why there is none.
pub(crate) struct Kvm {
    pub(crate) opened: Result<OwnedFd, Errno>,
    /// The command line speaks of it.
    pub(crate) is_asked_for: bool,
}

/// An image that has been looked at.
pub(crate) struct Image {
    pub(crate) file: ImageFile,
    pub(crate) elf: Elf,
}

impl Image {
    /// Puts its name before what is wrong with it.
    pub(crate) fn wrong(&self) -> impl Fn(LoadError) -> Refusal {
        let name = self.file.name();
        move |error| match error {
            LoadError::Image(error) => Refusal::Image { name: name.to_owned(), error },
            LoadError::Protect(errno) => Refusal::Protect { name: name.to_owned(), errno },
        }
    }
}

impl Opened {
    fn new(program: &str, wanted: Option<Target>, arguments: RunArguments) -> Result<Opened, Refusal> {
        let mut inherited = Inherited::take_all(arguments.fds());
        status::set_sinks(open_sinks(arguments.status_file, arguments.status_fd, &mut inherited)?);
        let debug = &arguments.debug;
        for (is_given, option) in [(debug.core.is_some(), "--dumpcore"), (debug.gdb.is_some(), "--gdb")] {
            if is_given && !is_debug(program) {
                return Err(Refusal::DebugForbidden { option });
            }
        }
        if sys::reads_imply_exec() {
            let what = "Cannot run with personality READ_IMPLIES_EXEC: start it without `setarch -X`".into();
            return Err(Refusal::Host { what });
        }
        let image = ImageFile::open(&arguments.kernel, &mut inherited)?;
        let kvm = match (arguments.kvm, wanted) {
            (Some(number), _) => Some(Kvm { opened: inherited.take(number), is_asked_for: true }),
            (None, Some(Target::Spt)) => None,
            (None, _) => {
                let opened = File::options().read(true).write(true).open("/dev/kvm");
                Some(Kvm { opened: opened.map(OwnedFd::from).map_err(Errno::from), is_asked_for: false })
            }
        };
        let net_control = arguments.net_control.map(|number| inherited.take(number)).transpose();
        let net_control = net_control.map_err(|errno| Refusal::Step {
            what: "Could not use the fd of --net-control",
            errno,
            remedy: "hand the tender a socket of the taps' network namespace",
        })?;
        Ok(Opened {
            user: arguments.user,
            image,
            devices: device::open(arguments.options, &mut inherited, net_control.as_ref()),
            given: Given {
                memory_bytes: arguments.memory_bytes,
                exec_heap: arguments.exec_heap,
                net_ring: arguments.net_ring,
                kvm,
                command_line: arguments.command_line,
                core: arguments.debug.core.map(|folder| CoreFile::create(&folder, program)).transpose()?,
                gdb: arguments.debug.gdb.map(|path| listen(&path)).transpose()?,
                devices: (),
            },
        })
    }

    /// Looks at the image, and puts it into place.
    fn load(self, wanted: Option<Target>, view: View) -> Result<Prepared, Refusal> {
        let Opened { image: file, devices, given, .. } = self;
        let wrong = |error: ImageError| Refusal::Image { name: file.name().to_owned(), error };
        let elf = Elf::read(&file).map_err(wrong)?;
        let abi = note::find_abi(&file, &elf).map_err(wrong)?;
        let target = wanted.unwrap_or(abi.target);
        abi.check_target(target).map_err(wrong)?;
        abi.check_version().map_err(wrong)?;
        let manifest = manifest::find(&file, &elf).map_err(wrong)?;
        let devices = Devices::attach(&manifest, devices)?;
        let Given { memory_bytes, exec_heap, net_ring, kvm, command_line, core, gdb, devices: () } = given;
        let given = Given { memory_bytes, exec_heap, net_ring, kvm, command_line, core, gdb, devices };
        let image = Image { file, elf };
        let prepared = match target {
            Target::Spt => Kind::Spt(spt::prepare(given, &image)?),
            _ => Kind::Hvt(hvt::prepare(given, &image)?),
        };
        let View { network_is_empty, root_is_empty } = view;
        status::record(Record::Running { network_is_empty, root_is_empty });
        Ok(Prepared(prepared))
    }
}

fn open_sinks(file: Option<OsString>, stream: Option<i32>, inherited: &mut Inherited) -> Result<Sinks, Refusal> {
    let open = |path: OsString| {
        let place = || path.to_string_lossy().into_owned();
        open_record(&path).map_err(|errno| Refusal::Status { place: place(), errno })
    };
    let take = |number| {
        let is_stream = |fd: OwnedFd| if sys::is_stream(fd.as_fd()) { Ok(fd) } else { Err(Errno(libc::ENOSTR)) };
        let taken = inherited.take(number).and_then(is_stream);
        taken.map_err(|errno| Refusal::Status { place: format!("@{number}"), errno })
    };
    Ok(Sinks { file: file.map(open).transpose()?.map(OwnedFd::from), stream: stream.map(take).transpose()? })
}

/// A new file for records, or one that holds nothing but a record: whatever else is there stays what it is.
fn open_record(path: &OsStr) -> Result<File, Errno> {
    let mut options = File::options();
    // A pipe that nobody reads is not to be waited for.
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 || metadata.len() > RECORD_BYTES as u64 {
        return Err(Errno(libc::EEXIST));
    }
    file.set_len(0)?;
    Ok(file)
}

/// A socket for a debugger. One that a tender has left behind is taken over.
fn listen(path: &OsStr) -> Result<UnixListener, Refusal> {
    let refusal =
        |error: std::io::Error| Refusal::Gdb { path: path.to_string_lossy().into_owned(), errno: error.into() };
    let is_socket = || std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let is_dead = |error: &std::io::Error| {
        error.kind() == std::io::ErrorKind::AddrInUse
            && is_socket()
            && std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    sys::restrict_new_files();
    match UnixListener::bind(path) {
        Err(error) if is_dead(&error) => {
            std::fs::remove_file(path).and_then(|()| UnixListener::bind(path)).map_err(refusal)
        }
        bound => bound.map_err(refusal),
    }
}

fn is_debug(program: &str) -> bool {
    program.ends_with(DEBUG_SUFFIX)
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
