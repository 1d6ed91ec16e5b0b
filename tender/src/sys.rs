//! The system calls of the set-up that the standard library does not have: before a guest is there, through the C library.
//! Every one checks its result; none decides anything. What is called beside a guest is in `raw`.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An error number of the operating system, shown as its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// That of the call that just failed.
    pub(crate) fn last() -> Errno {
        Errno::from(std::io::Error::last_os_error())
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not by way of the standard library, which would allocate: this is also said by a tender that is confined.
        let mut text = [0u8; 128];
        // SAFETY: the C library writes a string of at most this length.
        let result = unsafe { libc::strerror_r(self.0, text.as_mut_ptr().cast(), text.len()) };
        let text = text.split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok());
        match text.filter(|_| result == 0) {
            Some(text) => f.write_str(text),
            None => write!(f, "error {}", self.0),
        }
    }
}

/// What a program's start has to see to: descriptors 0, 1 and 2 are open, lest a disk become the console, and writing to a
/// console that is gone is an error and not a death.
pub(crate) fn prepare_process() {
    for fd in 0..=2 {
        // SAFETY: it only asks about a number.
        let is_open = unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
        // SAFETY: the path is a string that ends with NUL. The lowest free number is this one.
        if !is_open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } != fd {
            std::process::exit(1);
        }
    }
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The number in `@NN`, if that is what this is.
pub(crate) fn fd_number(text: &[u8]) -> Option<RawFd> {
    let digits = std::str::from_utf8(text.strip_prefix(b"@")?).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// Takes over a descriptor that whoever started us has opened for us.
pub(crate) fn take_fd(number: RawFd) -> Result<OwnedFd, Errno> {
    // 0, 1 and 2 are the console's and the reports'.
    if number <= 2 {
        return Err(Errno(libc::EBADF));
    }
    // SAFETY: it only asks about a number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(Errno::last());
    }
    // SAFETY: it is open, it was handed to us by number, and each such number is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes reads and writes return at once.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(Errno::last());
    }
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// A socket that serves to ask about network interfaces.
pub(crate) fn control_socket() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })
}

/// Whether this is a socket that keeps what was sent at once together.
pub(crate) fn keeps_datagrams(fd: BorrowedFd<'_>) -> bool {
    let (mut kind, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_TYPE);
    // SAFETY: the kernel writes at most `len` bytes to `kind`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut kind).cast(), &raw mut len) };
    result == 0 && (kind == libc::SOCK_DGRAM || kind == libc::SOCK_SEQPACKET)
}

/// A new epoll set.
pub(crate) fn epoll_create() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::epoll_create1(0) })
}

/// Adds a descriptor to an epoll set, to be told when it can be read, under this number.
pub(crate) fn epoll_add(set: BorrowedFd<'_>, fd: RawFd, number: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
    // SAFETY: the kernel reads `event`.
    check(unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

/// A new timer of the monotonic clock.
pub(crate) fn timer_create() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK) })
}

/// Gives up for ever the gain of privileges by running programs, which a filter of our own needs.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Puts a filter on all system calls of this process from now on, other threads included.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno(libc::E2BIG))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
    // SAFETY: the kernel copies the program, which lives until then.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    match result {
        0 => Ok(()),
        -1 => Err(Errno::last()),
        // The number of a thread that has a filter which is not an ancestor of ours.
        _ => Err(Errno(libc::EBUSY)),
    }
}

/// A counter that can be waited for.
pub(crate) fn event_create() -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is involved.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })
}

/// Takes the only lock of an open file or disk, for as long as it is open; [`libc::EWOULDBLOCK`] or [`libc::EACCES`] if
/// somebody else has it. Two locks: one of the open file, which `vmmd` hands on with it, and one of this process, since two
/// processes may have been given the same open file.
pub(crate) fn lock(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
    // SAFETY: all zero is a valid lock: of everything, from the beginning.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    (whole.l_type, whole.l_whence) = (libc::F_WRLCK as i16, libc::SEEK_SET as i16);
    // SAFETY: the kernel reads `whole`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLK, &raw const whole) }).map(drop)
}

/// Whether this is a pipe or a socket.
pub(crate) fn is_stream(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: all zero is a valid `stat`.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes `stat`.
    let asked = unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) };
    asked == 0 && [libc::S_IFIFO, libc::S_IFSOCK].contains(&(stat.st_mode & libc::S_IFMT))
}

/// How a descriptor was opened: `O_RDWR` and the like.
pub(crate) fn access_mode(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }).map(|flags| flags & libc::O_ACCMODE)
}

/// Whether each write to this descriptor goes to the end of the file, wherever it was meant to go.
pub(crate) fn appends(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }).map(|flags| flags & libc::O_APPEND != 0)
}

/// Sends us SIGIO whenever this descriptor can be read.
pub(crate) fn signal_input(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    let me = unsafe { libc::getpid() };
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETOWN, me) })?;
    // SAFETY: no memory is involved.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_ASYNC) }).map(drop)
}

/// What a signal calls: its number, what the kernel says of it, where the process stood.
pub(crate) type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// Lets a signal call this, all others waiting meanwhile but those that are to end us. `flags` are those of `sigaction(2)`.
pub(crate) fn on_signal(signal: i32, handler: Handler, flags: i32) -> Result<(), Errno> {
    // SAFETY: all zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | flags;
    // SAFETY: the C library writes `sa_mask`.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    for end in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the C library writes `sa_mask`.
        unsafe { libc::sigdelset(&raw mut action.sa_mask, end) };
    }
    // SAFETY: every handler of ours does only what a handler may.
    check(unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) }).map(drop)
}

/// Keeps all signals away from this thread.
pub(crate) fn block_signals() -> Result<(), Errno> {
    // SAFETY: all zero is a valid set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the C library writes `all`.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: the kernel reads `all`.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

/// A stack for handlers of signals, which do not trust the one that a guest has left.
pub(crate) fn set_signal_stack(stack: &'static mut [MaybeUninit<u8>]) -> Result<(), Errno> {
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory is given away for ever.
    check(unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) }).map(drop)
}

/// Whether programs may use the instructions for the base of the thread-local storage (`AT_HWCAP2`, bit 1).
pub(crate) fn has_fs_instructions() -> bool {
    // SAFETY: it only asks.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & 2 != 0 }
}

/// Files that are made from here on are their owner's alone.
pub(crate) fn restrict_new_files() {
    // SAFETY: no memory is involved.
    unsafe { libc::umask(0o077) };
}

/// Random bytes.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the kernel writes at most `bytes.len()` bytes into `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { Ok(()) } else { Err(Errno::last()) }
}

/// Our user id.
pub(crate) fn user() -> u32 {
    // SAFETY: it only asks.
    unsafe { libc::geteuid() }
}

/// Leaves namespaces for new ones: flags of `unshare(2)`.
pub(crate) fn unshare(flags: i32) -> Result<(), Errno> {
    // SAFETY: no memory is involved, and no file descriptors or memory are among what is left.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Makes a folder all that there is of the file system.
pub(crate) fn change_root(folder: &CStr) -> Result<(), Errno> {
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::chroot(folder.as_ptr()) })?;
    // SAFETY: the path ends with NUL.
    check(unsafe { libc::chdir(c"/".as_ptr()) }).map(drop)
}

/// Becomes another user, in every way, with no groups but one.
pub(crate) fn become_user(user: u32, group: u32) -> Result<(), Errno> {
    // SAFETY: no group is read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::setresgid(group, group, group) })?;
    // SAFETY: no memory is involved.
    check(unsafe { libc::setresuid(user, user, user) }).map(drop)
}

/// Whether user ids mean here what they mean on the host.
pub(crate) fn users_are_the_hosts() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Our group id.
pub(crate) fn group() -> u32 {
    // SAFETY: it only asks.
    unsafe { libc::getegid() }
}

/// Leaves nothing of this process to whoever looks at it: no core file of the kernel's, no `/proc` but root's.
pub(crate) fn forbid_looks() -> Result<(), Errno> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) })?;
    limit(libc::RLIMIT_CORE, 0)
}

/// Lets the stack that the process was started with grow to no more than this, bytes: an spt guest has a stack of its own, and
/// can reach this one.
pub(crate) fn limit_stack(bytes: u64) -> Result<(), Errno> {
    limit(libc::RLIMIT_STACK, bytes)
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> Result<(), Errno> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the kernel reads `limit`.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// Forgets the environment, which may hold secrets: the strings themselves, which an spt guest can reach.
pub(crate) fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut std::ffi::c_char;
    }
    // SAFETY: the C library's list, which nobody else changes: there is one thread.
    let mut entry = unsafe { environ };
    // SAFETY: the list ends with a null pointer.
    while let Some(text) = unsafe { entry.as_ref() }.filter(|text| !text.is_null()) {
        // SAFETY: a string that ends with NUL.
        let len = unsafe { libc::strlen(*text) };
        // SAFETY: as many bytes of it, in the memory that the process was started with.
        unsafe { std::ptr::write_bytes(*text, 0, len) };
        entry = entry.wrapping_add(1);
    }
}

/// Gives up every capability.
pub(crate) fn drop_capabilities() -> Result<(), Errno> {
    // `_LINUX_CAPABILITY_VERSION_3`, and ourselves.
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the kernel reads a header and, of that version, six numbers.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if set != 0 {
        return Err(Errno::last());
    }
    // SAFETY: no memory is involved.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }).map(drop)
}

fn own(fd: RawFd) -> Result<OwnedFd, Errno> {
    let fd = check(fd)?;
    // SAFETY: the kernel just gave it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(Errno::last()) } else { Ok(result) }
}
