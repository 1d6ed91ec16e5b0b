//! What a daemon may ask of the kernel once it has begun: a table of calls with a reason each. Whatever is not in it ends the process.
//! A daemon that was taken over can do no more than this with what its user may do anyway: it starts no program, opens no
//! socket to another host, looks into no other process.

use std::collections::BTreeMap;
use std::fmt;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// A program that has a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `vmmd_tls` and `vmmd_tls_inetd`.
    Tls,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number of the call on this machine.
    pub call: libc::c_long,
    /// The place and the value of an argument, where only one is allowed.
    pub argument: Option<(u8, u64)>,
    /// Why the program cannot do without it.
    pub why: &'static str,
    /// Whether it is needed only where something is not as usual, so that a test need not see it.
    pub is_rare: bool,
}

const fn row(call: libc::c_long, why: &'static str) -> Row {
    Row { call, argument: None, why, is_rare: false }
}

const fn rare(call: libc::c_long, why: &'static str) -> Row {
    Row { call, argument: None, why, is_rare: true }
}

/// The first argument of `socket`: `AF_UNIX`.
const UNIX: Option<(u8, u64)> = Some((0, libc::AF_UNIX as u64));

/// The second argument of `ioctl`: `FIONBIO`.
const NON_BLOCKING: Option<(u8, u64)> = Some((1, libc::FIONBIO));

/// Memory, time, signals, the end.
const BASICS: &[Row] = &[
    rare(libc::SYS_brk, "memory beyond what there was at the start"),
    rare(libc::SYS_mmap, "memory, in large pieces"),
    rare(libc::SYS_mremap, "memory, in large pieces"),
    row(libc::SYS_munmap, "memory that is not needed any more"),
    rare(libc::SYS_madvise, "memory that is not needed any more"),
    rare(libc::SYS_clock_gettime, "the time, where the kernel's page does not tell it"),
    rare(libc::SYS_futex, "a lock that somebody holds"),
    row(libc::SYS_getrandom, "keys of connections, seeds of tables"),
    row(libc::SYS_rt_sigreturn, "the handler of a signal is done"),
    row(libc::SYS_sigaltstack, "the stack of handlers goes at the end"),
    row(libc::SYS_exit_group, "the end"),
];

/// An event loop over sockets.
const SOCKETS: &[Row] = &[
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_epoll_wait, "who is ready"),
    #[cfg(not(target_arch = "x86_64"))]
    row(libc::SYS_epoll_pwait, "who is ready"),
    row(libc::SYS_epoll_ctl, "who is waited for"),
    row(libc::SYS_accept4, "a client"),
    row(libc::SYS_recvfrom, "what a client or a daemon says"),
    row(libc::SYS_sendto, "what a daemon is told; a signal that has come"),
    row(libc::SYS_writev, "what a client is told"),
    row(libc::SYS_shutdown, "a client has got everything"),
    row(libc::SYS_close, "a conversation that is over, a file that was read"),
    rare(libc::SYS_fcntl, "whether what is closed is open, in builds that look for mistakes"),
    row(libc::SYS_setsockopt, "small answers are sent at once, who is gone is noticed"),
];

/// Conversations with the daemons of this host, and with no other host.
const DAEMONS: &[Row] = &[
    Row { argument: UNIX, ..row(libc::SYS_socket, "a conversation with a daemon of this host") },
    row(libc::SYS_connect, "a conversation with a daemon of this host"),
    Row { argument: NON_BLOCKING, ..rare(libc::SYS_ioctl, "the service manager is not waited for") },
    rare(libc::SYS_getpid, "a line for syslog"),
];

/// Files.
const FILES: &[Row] = &[
    row(libc::SYS_openat, "certificates, the lists of revoked ones"),
    row(libc::SYS_read, "a file, a signal that has come"),
    row(libc::SYS_write, "a list of revoked certificates, the log"),
    row(libc::SYS_statx, "how large a file is, when a folder was changed"),
    row(libc::SYS_newfstatat, "a folder that is read"),
    rare(libc::SYS_fstat, "a folder that is read"),
    rare(libc::SYS_lseek, "how much of a file is left, where the library asks"),
    row(libc::SYS_getdents64, "the folder of revoked certificates"),
    row(libc::SYS_flock, "two that take in a list take turns"),
    row(libc::SYS_fsync, "a list is durable"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_rename, "a list takes the place of the one before"),
    #[cfg(not(target_arch = "x86_64"))]
    row(libc::SYS_renameat, "a list takes the place of the one before"),
];

/// The table of a program.
#[must_use]
pub fn rows(program: Program) -> Vec<Row> {
    let parts: &[&[Row]] = match program {
        Program::Tls => &[BASICS, SOCKETS, DAEMONS, FILES],
    };
    parts.concat()
}

/// Why a program could not be confined.
#[derive(Debug)]
pub struct NotConfined(String);

impl fmt::Display for NotConfined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the program could not be confined by seccomp ({}): run a kernel with CONFIG_SECCOMP_FILTER", self.0)
    }
}

impl std::error::Error for NotConfined {}

/// Confines this process for ever to what the table of `program` allows. It must have one thread, and can gain no privilege afterwards.
///
/// # Errors
/// [`NotConfined`], with what the kernel says.
pub fn confine(program: Program) -> Result<(), NotConfined> {
    let said = |error: &dyn fmt::Display| NotConfined(error.to_string());
    let mut rules = BTreeMap::new();
    for row in rows(program) {
        let rules: &mut Vec<SeccompRule> = rules.entry(row.call).or_default();
        if let Some((place, value)) = row.argument {
            let is = SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
            let rule = is.and_then(|is| SeccompRule::new(vec![is])).map_err(|error| said(&error))?;
            rules.push(rule);
        }
    }
    let machine = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| said(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, machine);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| said(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| said(&error))
}
