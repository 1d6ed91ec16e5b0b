//! Everything that a command line names, opened while the tender still may: the image, the devices, `/dev/kvm`, where to record
//! how the guest fares, where a core or a debugger goes. Nothing of the image is looked at.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;

use fulmar_core::solo5::{Elf, Target};

use crate::arguments::{self, RunArguments};
use crate::core_file::CoreFile;
use crate::device::{self, OpenedOption};
use crate::image::ImageFile;
use crate::inherited::Inherited;
use crate::load::LoadError;
use crate::privilege::User;
use crate::refusal::Refusal;
use crate::status::{self, RECORD_BYTES, Sinks};
use crate::sys::{self, Errno};

/// Everything that the command line names, open.
pub(crate) struct Opened {
    pub(crate) user: Option<User>,
    pub(crate) image: ImageFile,
    pub(crate) devices: Vec<OpenedOption>,
    pub(crate) given: Given,
}

/// What a guest is run with, beside its devices.
pub(crate) struct Given {
    pub(crate) memory_bytes: u64,
    pub(crate) exec_heap: bool,
    pub(crate) net_ring: bool,
    pub(crate) kvm: Option<Kvm>,
    pub(crate) command_line: Vec<u8>,
    pub(crate) core: Option<CoreFile>,
    pub(crate) gdb: Option<UnixListener>,
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
    /// Opens it all, or says what does not open; what is wrong with devices is said when their turn comes.
    pub(crate) fn new(
        program: &str,
        wanted: Option<Target>,
        may_debug: bool,
        arguments: RunArguments,
    ) -> Result<Opened, Refusal> {
        let mut inherited = Inherited::take_all(arguments.fds());
        status::set_sinks(open_sinks(arguments.status_file, arguments.status_fd, &mut inherited)?);
        let debug = &arguments.debug;
        for (is_given, option) in [(debug.core.is_some(), "--dumpcore"), (debug.gdb.is_some(), "--gdb")] {
            if is_given && !may_debug {
                return Err(Refusal::DebugForbidden { option });
            }
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
            },
        })
    }
}

fn open_sinks(file: Option<OsString>, stream: Option<i32>, inherited: &mut Inherited) -> Result<Sinks, Refusal> {
    let mut open = |path: OsString| {
        let opened = match arguments::fd(&path) {
            Some(number) => inherited.take(number).and_then(|fd| take_record(File::from(fd))),
            None => open_record(&path),
        };
        opened.map_err(|errno| Refusal::Status { place: path.to_string_lossy().into_owned(), errno })
    };
    let file = file.map(&mut open).transpose()?.map(OwnedFd::from);
    let take = |number| {
        let is_stream = |fd: OwnedFd| if sys::is_stream(fd.as_fd()) { Ok(fd) } else { Err(Errno(libc::ENOSTR)) };
        let taken = inherited.take(number).and_then(is_stream);
        taken.map_err(|errno| Refusal::Status { place: format!("@{number}"), errno })
    };
    Ok(Sinks { file, stream: stream.map(take).transpose()? })
}

/// A file for records that whoever started us has opened. One that appends would not keep to its one record.
fn take_record(file: File) -> Result<File, Errno> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > RECORD_BYTES as u64 || sys::appends(file.as_fd())? {
        return Err(Errno(libc::EEXIST));
    }
    file.set_len(0)?;
    Ok(file)
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
