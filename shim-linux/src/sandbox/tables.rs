//! The tables: which calls each program makes once it has begun, each with its reason.

use nix::libc;

use super::{Program, Row, Unseen};

const fn row(call: libc::c_long, why: &'static str) -> Row {
    Row { call, argument: None, why, unseen: None }
}

const fn rare(call: libc::c_long, unseen: Unseen, why: &'static str) -> Row {
    Row { call, argument: None, why, unseen: Some(unseen) }
}

/// The first argument of `socket`: `AF_UNIX`.
const UNIX: Option<(u8, u64)> = Some((0, libc::AF_UNIX as u64));

/// The first argument of `socket`: `AF_INET`, and `AF_INET6`.
const INET: Option<(u8, u64)> = Some((0, libc::AF_INET as u64));
const INET6: Option<(u8, u64)> = Some((0, libc::AF_INET6 as u64));

/// The first argument of `socket`: `AF_NETLINK`.
const NETLINK: Option<(u8, u64)> = Some((0, libc::AF_NETLINK as u64));

/// The first argument of `prctl`: `PR_SET_NAME`.
const SET_NAME: Option<(u8, u64)> = Some((0, libc::PR_SET_NAME as u64));

/// The third argument of `prlimit64`: no new limit.
const NO_NEW_LIMIT: Option<(u8, u64)> = Some((2, 0));

/// The second argument of `ioctl`: `FIONREAD`.
const BYTES_WAITING: Option<(u8, u64)> = Some((1, libc::FIONREAD));

/// The second argument of `ioctl`: `FIONBIO`.
const NON_BLOCKING: Option<(u8, u64)> = Some((1, libc::FIONBIO));

/// Memory, time, signals, the end.
const BASICS: &[Row] = &[
    rare(libc::SYS_brk, Unseen::Memory, "memory beyond what there was at the start"),
    rare(libc::SYS_mmap, Unseen::Memory, "memory, in large pieces"),
    rare(libc::SYS_mremap, Unseen::Memory, "memory, in large pieces"),
    rare(libc::SYS_munmap, Unseen::Memory, "memory that is not needed any more"),
    rare(libc::SYS_clock_gettime, Unseen::Kernel, "the time, where the kernel's page does not tell it"),
    row(libc::SYS_rt_sigreturn, "the handler of a signal is done"),
    row(libc::SYS_sigaltstack, "the stack of handlers goes at the end"),
    row(libc::SYS_exit_group, "the end"),
    row(libc::SYS_close, "a conversation that is over, a file that was read"),
    rare(libc::SYS_fcntl, Unseen::Build, "whether what is closed is open"),
];

/// Chance.
const CHANCE: &[Row] = &[row(libc::SYS_getrandom, "keys of connections, seeds of tables")];

/// Threads that began at the start: their first calls may come before this table holds, or after.
const THREADS: &[Row] = &[
    row(libc::SYS_futex, "a lock that somebody holds, work for a thread"),
    rare(libc::SYS_mprotect, Unseen::Race, "the memory of a thread grows"),
    rare(libc::SYS_rt_sigprocmask, Unseen::Race, "a thread begins without being disturbed"),
    rare(libc::SYS_set_robust_list, Unseen::Race, "a thread has just begun"),
    rare(libc::SYS_rseq, Unseen::Race, "a thread has just begun"),
    rare(libc::SYS_sched_getaffinity, Unseen::Race, "a thread asks where its stack is"),
    rare(libc::SYS_gettid, Unseen::Race, "a thread asks where its stack is"),
    Row { argument: SET_NAME, ..rare(libc::SYS_prctl, Unseen::Race, "a thread has just begun and gets its name") },
];

/// An event loop.
const LOOP: &[Row] = &[
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_epoll_wait, "who is ready"),
    #[cfg(not(target_arch = "x86_64"))]
    row(libc::SYS_epoll_pwait, "who is ready"),
    row(libc::SYS_epoll_ctl, "who is waited for"),
];

/// Clients.
const SOCKETS: &[Row] = &[
    row(libc::SYS_accept4, "a client"),
    row(libc::SYS_recvfrom, "what a client or a daemon says"),
    row(libc::SYS_sendto, "what somebody is told; a signal that has come"),
];

/// A daemon that is asked by programs of this host.
const LOCAL: &[Row] = &[
    row(libc::SYS_getsockopt, "who has connected"),
    row(libc::SYS_unlinkat, "its socket goes at the end"),
    row(libc::SYS_write, "lines for people"),
];

/// What is said to a service manager, by who is started by one.
const MANAGED: &[Row] = &[
    row(libc::SYS_setsockopt, "how long the service manager is waited for"),
    Row { argument: NON_BLOCKING, ..row(libc::SYS_ioctl, "the service manager is not waited for") },
];

/// Lines for syslog.
const LINES: &[Row] = &[row(libc::SYS_getpid, "a line for syslog")];

/// Conversations with the daemons of this host, and with no other host.
const DAEMONS: &[Row] = &[
    Row { argument: UNIX, ..row(libc::SYS_socket, "a conversation with a daemon of this host") },
    row(libc::SYS_connect, "a conversation with a daemon of this host"),
];

/// What `vmmd_tls` does beside the others.
const TLS: &[Row] = &[
    row(libc::SYS_writev, "what a client is told"),
    row(libc::SYS_shutdown, "a client has got everything"),
    row(libc::SYS_openat, "certificates, the lists of revoked ones"),
    row(libc::SYS_read, "a file, a signal that has come"),
    row(libc::SYS_write, "a list of revoked certificates, the log"),
    row(libc::SYS_statx, "how large a file is, when a folder was changed"),
    row(libc::SYS_newfstatat, "a folder that is read"),
    rare(libc::SYS_fstat, Unseen::Library, "a folder that is read"),
    row(libc::SYS_lseek, "how much of a file is left"),
    row(libc::SYS_getdents64, "the folder of revoked certificates"),
    row(libc::SYS_flock, "two that take in a list take turns"),
    row(libc::SYS_fsync, "a list is durable"),
    row(libc::SYS_renameat, "a list is there as a whole"),
    row(libc::SYS_unlinkat, "the list before it goes"),
];

/// What `vmmd_console` does beside the others.
const CONSOLE: &[Row] = &[
    row(libc::SYS_openat, "the fifo of a unikernel"),
    row(libc::SYS_read, "what a unikernel writes"),
    row(libc::SYS_statx, "which fifo it is"),
    row(libc::SYS_newfstatat, "whether a fifo is a link"),
];

/// What `vmmd_log` does beside the others.
const LOG: &[Row] = &[
    row(libc::SYS_pread64, "events of a segment"),
    row(libc::SYS_pwrite64, "an event"),
    row(libc::SYS_fdatasync, "events are durable"),
    row(libc::SYS_ftruncate, "a segment ends where its last event does, when the disk is full"),
    row(libc::SYS_openat, "another segment"),
    row(libc::SYS_read, "what cannot be guessed, for another segment"),
];

/// What `vmmd_stats` does beside the others.
const STATS: &[Row] = &[
    row(libc::SYS_openat, "what a process uses, below /proc"),
    row(libc::SYS_read, "what a process uses, below /proc"),
    row(libc::SYS_pidfd_open, "a process that is watched is still the one that it was"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_poll, "whether a process that is watched has ended"),
    #[cfg(not(target_arch = "x86_64"))]
    row(libc::SYS_ppoll, "whether a process that is watched has ended"),
];

/// What `vmmd_influx` does: the one that speaks with other hosts, and whose threads come and go.
const INFLUX: &[Row] = &[
    Row { argument: UNIX, ..row(libc::SYS_socket, "a conversation with a daemon of this host") },
    Row { argument: INET, ..row(libc::SYS_socket, "a database, the servers of names") },
    Row { argument: INET6, ..row(libc::SYS_socket, "a database, the servers of names") },
    Row { argument: NETLINK, ..row(libc::SYS_socket, "which addresses this host has, where a name is looked up") },
    row(libc::SYS_connect, "a daemon, a database"),
    row(libc::SYS_bind, "which addresses this host has, where a name is looked up"),
    row(libc::SYS_getsockname, "which of two addresses of a database is nearer"),
    row(libc::SYS_getsockopt, "whether a connection has come about"),
    row(libc::SYS_recvmsg, "servers of names"),
    row(libc::SYS_sendmmsg, "servers of names"),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_poll, "servers of names; a database that may be slow"),
    rare(libc::SYS_ppoll, Unseen::Module, "a way to look up names"),
    row(libc::SYS_uname, "servers of names"),
    row(libc::SYS_openat, "how names are looked up, by files in /etc"),
    row(libc::SYS_newfstatat, "how names are looked up, by files in /etc"),
    rare(libc::SYS_fstat, Unseen::Library, "how names are looked up, by files in /etc"),
    row(libc::SYS_lseek, "how names are looked up, by files in /etc"),
    rare(libc::SYS_pread64, Unseen::Module, "a library of a way to look up names"),
    row(libc::SYS_write, "lines for people"),
    row(libc::SYS_writev, "a database"),
    row(libc::SYS_read, "files in /etc"),
    row(libc::SYS_accept4, "who asks for metrics"),
    row(libc::SYS_recvfrom, "what a daemon or a database says"),
    row(libc::SYS_sendto, "what a daemon or a database is told"),
    row(libc::SYS_setsockopt, "how long somebody is waited for"),
    row(libc::SYS_shutdown, "who asked for metrics has got everything"),
    Row { argument: NON_BLOCKING, ..row(libc::SYS_ioctl, "a connection that is or is not waited for") },
    Row { argument: BYTES_WAITING, ..row(libc::SYS_ioctl, "how long an answer of a server of names is") },
    row(libc::SYS_clone3, "a thread for who asks for metrics"),
    row(libc::SYS_clone, "a thread for who asks for metrics, where there is no newer way"),
    row(libc::SYS_madvise, "the stack of a thread that has ended"),
    row(libc::SYS_exit, "a thread has ended"),
    row(libc::SYS_clock_nanosleep, "until the next survey"),
    row(libc::SYS_restart_syscall, "waiting goes on after a stop"),
    row(libc::SYS_getrandom, "keys of connections"),
];

/// What the half of `vmmd` that decides does beside the others.
const CONTROL: &[Row] = &[
    row(libc::SYS_recvmsg, "what the host half says"),
    row(libc::SYS_sendmsg, "what the host half is asked, with files for tenders"),
    row(libc::SYS_shutdown, "a client has got everything"),
    row(libc::SYS_openat, "images, block devices, fifos, by names in its folders"),
    row(libc::SYS_read, "an image, the content of a block device, to be compressed"),
    row(libc::SYS_pread64, "an image, the content of a block device"),
    row(libc::SYS_pwrite64, "an image, a record of the journal, the content of a block device"),
    row(libc::SYS_fdatasync, "a record of the journal is durable"),
    row(libc::SYS_fsync, "an image is durable, and its name"),
    row(libc::SYS_ftruncate, "a block device has its size"),
    row(libc::SYS_flock, "a block device is one tender's"),
    row(libc::SYS_fstatfs, "how much of the disk is left"),
    row(libc::SYS_statx, "how large a file is"),
    row(libc::SYS_newfstatat, "which files are open"),
    rare(libc::SYS_fstat, Unseen::Library, "which files are open"),
    row(libc::SYS_getdents64, "which files are open"),
    row(libc::SYS_renameat, "an image, a content, a journal takes its place"),
    row(libc::SYS_mknodat, "a fifo: the console of a unikernel"),
    rare(libc::SYS_madvise, Unseen::Memory, "memory of a thread that is not needed any more"),
    row(libc::SYS_exit, "a thread has ended"),
    Row { argument: NO_NEW_LIMIT, ..row(libc::SYS_prlimit64, "how many files may be open") },
];

/// The table of a program.
#[must_use]
pub fn rows(program: Program) -> Vec<Row> {
    let parts: &[&[Row]] = match program {
        Program::Tls => &[BASICS, CHANCE, LOOP, SOCKETS, DAEMONS, MANAGED, LINES, TLS],
        Program::Console => &[BASICS, LOOP, SOCKETS, LOCAL, MANAGED, LINES, CONSOLE],
        Program::Log => &[BASICS, THREADS, LOOP, SOCKETS, LOCAL, MANAGED, LINES, LOG],
        Program::Stats => &[BASICS, LOOP, SOCKETS, LOCAL, DAEMONS, MANAGED, LINES, STATS],
        Program::Influx => &[BASICS, THREADS, LINES, INFLUX],
        Program::Control => &[BASICS, THREADS, LOOP, SOCKETS, LOCAL, DAEMONS, LINES, CONTROL],
    };
    parts.concat()
}
