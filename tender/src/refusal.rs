//! Why a guest does not start, or has to end: each text names the thing and the remedy. The exit code is always 1.

use std::fmt;

use fulmar_core::solo5::{DeviceKind, ImageError};

use crate::sys::Errno;

/// Everything that keeps a guest from running.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no KERNEL on the command line.
    KernelMissing,
    /// An option, and what is wrong with it.
    Option { option: String, fault: OptionFault },
    /// A command line for the guest that does not fit.
    CommandLineLong,
    /// The image could not be opened.
    KernelOpen { name: String, errno: Errno },
    /// The image is wrong.
    Image { name: String, error: ImageError },
    /// A segment's pages could not be given their protection.
    Protect { name: String, errno: Errno },
    /// Devices that the image wants were not given.
    Missing { devices: Vec<(String, DeviceKind)> },
    /// A block device's size does not fit its sectors.
    BlockSize { name: String, path: String, capacity: u64, sector_bytes: u16 },
    /// The guest's memory could not be had.
    Memory { bytes: u64, errno: Errno },
    /// More memory than the kind can give.
    MemoryLarge { bytes: u64, bytes_max: u64 },
    /// The user that the tender is to become cannot be had.
    User { user: u32, errno: Errno },
    /// Where the guest's fate is to be recorded cannot be written.
    Status { place: String, errno: Errno },
    /// A debugging option, and nobody allowed debugging.
    DebugForbidden { option: &'static str },
    /// The core file could not be made.
    Core { path: String, errno: Errno },
    /// The debugger's socket could not be made.
    Gdb { path: String, errno: Errno },
    /// A step of the set-up failed; the text says what to do.
    Step { what: &'static str, errno: Errno, remedy: &'static str },
    /// The host cannot do what is needed.
    Host { what: String },
}

/// What is wrong with an option.
#[derive(Debug)]
pub(crate) enum OptionFault {
    /// No such option.
    Unknown,
    /// Not a whole number of MiB above 0.
    Memory,
    /// Not `NAME=VALUE` with a name of letters and digits.
    Form { wanted: &'static str },
    /// Not what the option takes.
    Plain { wanted: &'static str },
    /// Not the numbers of a user and a group.
    UserForm,
    /// The original's debugger on a TCP port.
    GdbPort,
    /// Not six bytes.
    Mac,
    /// Not a power of two from 512 to 32768.
    SectorSize,
    /// The image declares no such device.
    Undeclared { name: String, kind: DeviceKind, declared: String },
    /// Not for hvt.
    SptOnly,
    /// Not for spt.
    HvtOnly,
    /// Given twice.
    Twice { name: String },
    /// The tap could not be had.
    Interface { interface: String, errno: Errno },
    /// The disk could not be had.
    Disk { path: String, fault: DiskFault },
}

/// Why a disk could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// It does not open for reading and writing.
    Open(Errno),
    /// Neither a file nor a block device.
    Kind,
    /// Somebody has it.
    Used,
    /// It cannot be locked.
    Lock(Errno),
    /// Nobody knows how large it is.
    Capacity(Errno),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::KernelMissing => f.write_str("Missing KERNEL operand: give the image to run; see --help"),
            Refusal::Option { option, fault } => write!(f, "Invalid option: `{option}': {fault}"),
            Refusal::CommandLineLong => {
                f.write_str("Guest command line too long (max=8191 characters): give it fewer arguments")
            }
            Refusal::KernelOpen { name, errno } => {
                write!(f, "{name}: Could not open: {errno}: check the path and its permissions")
            }
            Refusal::Image { name, error } => write!(f, "{name}: {error}"),
            Refusal::Protect { name, errno } => write!(f, "{name}: mprotect failed: {errno}: give it more memory"),
            Refusal::Missing { devices } => {
                for (index, (name, kind)) in devices.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    let text = kind_text(*kind);
                    write!(f, "{separator}Device '{name}' of type {text} declared but not attached")?;
                }
                f.write_str(": All declared devices must be attached with")?;
                for (name, kind) in devices {
                    let value = if *kind == DeviceKind::Net { "TAP" } else { "PATH" };
                    write!(f, " --{kind}:{name}={value}")?;
                }
                Ok(())
            }
            Refusal::BlockSize { name, path, capacity, sector_bytes } => write!(
                f,
                "{name}: Backing storage must be at least 1 block ({sector_bytes} bytes) and block aligned: {path} has \
                 {capacity} bytes; resize it or set --block-sector-size:{name}"
            ),
            Refusal::Memory { bytes, errno: errno @ Errno(libc::EPERM) } => {
                write!(f, "Could not get {bytes} bytes of guest memory: {errno}: set vm.mmap_min_addr to 65536 or less")
            }
            Refusal::Memory { bytes, errno } => {
                write!(f, "Could not get {bytes} bytes of guest memory: {errno}: give --mem less, or free some")
            }
            Refusal::MemoryLarge { bytes, bytes_max } => write!(
                f,
                "guest memory size {bytes} bytes exceeds the max size {bytes_max} bytes: give --mem at most {}",
                bytes_max >> 20
            ),
            Refusal::User { user, errno } => {
                write!(
                    f,
                    "Could not become user {user}: {errno}: start it as root, or give --user its own user and group"
                )
            }
            Refusal::Status { place, errno: Errno(libc::EEXIST) } => {
                write!(
                    f,
                    "Could not record the guest's status: {place} holds something else: give it a place of its own"
                )
            }
            Refusal::Status { place, errno: Errno(libc::ENOSTR) } => {
                write!(
                    f,
                    "Could not record the guest's status: {place} is neither a pipe nor a socket: give it one of these"
                )
            }
            Refusal::Status { place, errno } => {
                write!(f, "Could not record the guest's status: {place}: {errno}: give it a place that can be written")
            }
            Refusal::DebugForbidden { option } => write!(
                f,
                "Invalid option: `{option}': debugging is not allowed: the operator allows it by a link to this program \
                 whose name ends in -debug"
            ),
            Refusal::Core { path, errno } => {
                write!(f, "dumpcore: {path}: {errno}: give --dumpcore a folder that can be written")
            }
            Refusal::Gdb { path, errno } => {
                write!(
                    f,
                    "gdb: {path}: {errno}: give --gdb a path for a socket that nobody uses, at most 107 bytes long"
                )
            }
            Refusal::Step { what, errno, remedy } => write!(f, "{what}: {errno}: {remedy}"),
            Refusal::Host { what } => f.write_str(what),
        }
    }
}

impl fmt::Display for OptionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionFault::Unknown => f.write_str("no such option; see --help, and put the guest's own behind the image"),
            OptionFault::Memory => f.write_str("Malformed argument to --mem; give a whole number of MiB above 0"),
            OptionFault::Form { wanted } => write!(f, "write it as {wanted}, NAME being 1 to 67 letters and digits"),
            OptionFault::Plain { wanted } => write!(f, "write it as {wanted}"),
            OptionFault::UserForm => f.write_str("write it as --user=UID or --user=UID:GID, numbers below 4294967295"),
            OptionFault::GdbPort => f.write_str("the debugger comes to a unix socket: write it as --gdb=SOCKET"),
            OptionFault::Mac => f.write_str("write the address as six hexadecimal bytes, 02:00:00:00:00:01"),
            OptionFault::SectorSize => f.write_str(
                "Block size must be a multiple of 2 greater than or equal 512; give a power of two up to 32768",
            ),
            OptionFault::Undeclared { name, kind, declared } => write!(
                f,
                "Resource not declared in manifest: '{name}' (no {kind} device of that name); the image declares {declared}"
            ),
            OptionFault::SptOnly => f.write_str("only spt has it: under hvt all memory of the guest can be executed"),
            OptionFault::HvtOnly => f.write_str("only hvt has it: spt runs without virtualization"),
            OptionFault::Twice { name } => write!(f, "'{name}' was given before; give each device once"),
            OptionFault::Interface { interface, errno } => write!(
                f,
                "Could not attach interface: {interface}: {errno}; it must be an existing tap that is up and not in use"
            ),
            OptionFault::Disk { path, fault: DiskFault::Capacity(errno) } => {
                write!(f, "{path}: Could not determine capacity: {errno}; give it a regular file or a disk")
            }
            OptionFault::Disk { path, fault } => write!(f, "Could not open block device: {path}: {fault}"),
        }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskFault::Open(errno) => write!(f, "{errno}; it must be a file or disk that can be written"),
            DiskFault::Kind => f.write_str("it is neither a file nor a block device; give it one of these"),
            DiskFault::Used => {
                f.write_str("it is in use; end the unikernel that has it, or unmount it, or give another one")
            }
            DiskFault::Lock(errno) => write!(f, "it cannot be locked: {errno}; put it on a file system with locks"),
            DiskFault::Capacity(errno) => write!(f, "nobody knows its size: {errno}"),
        }
    }
}

/// The word of the original tenders for a kind of device.
fn kind_text(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Block => "BLOCK_BASIC",
        DeviceKind::Net => "NET_BASIC",
    }
}
