//! The process that is looked at: a tender, up to the point where its guest would run; then with a row fewer, or with a call of
//! its own in the guest's place.
#![allow(unsafe_code, reason = "forbidden system calls")]

use std::ffi::OsString;

/// Says to this program that it is the process to be looked at; the words behind it are what to do, `--`, the program's name,
/// the tender's words.
pub(crate) const CHILD: &str = "rows-child";

/// A system call that no row allows.
pub(crate) struct Forbidden {
    pub(crate) name: &'static str,
    number: i64,
    arguments: [u64; 4],
}

/// In the place of a first argument: the guest's own epoll set.
const EPOLL: u64 = u64::MAX;

const fn call(name: &'static str, number: i64, arguments: [u64; 4]) -> Forbidden {
    Forbidden { name, number, arguments }
}

/// Calls by which a guest that had taken over its tender would go on, and calls that are allowed with other arguments.
pub(crate) const FORBIDDEN: &[Forbidden] = &[
    call("open", libc::SYS_open, [0; 4]),
    call("openat", libc::SYS_openat, [0; 4]),
    call("openat2", libc::SYS_openat2, [0; 4]),
    call("socket", libc::SYS_socket, [2, 1, 0, 0]),
    call("connect", libc::SYS_connect, [0; 4]),
    call("sendmsg", libc::SYS_sendmsg, [0; 4]),
    call("fork", libc::SYS_fork, [0; 4]),
    call("clone", libc::SYS_clone, [0; 4]),
    call("clone3", libc::SYS_clone3, [0; 4]),
    call("execve", libc::SYS_execve, [0; 4]),
    call("execveat", libc::SYS_execveat, [0; 4]),
    call("kill", libc::SYS_kill, [1, 0, 0, 0]),
    call("tgkill", libc::SYS_tgkill, [1, 1, 0, 0]),
    call("ptrace", libc::SYS_ptrace, [0; 4]),
    call("process_vm_writev", libc::SYS_process_vm_writev, [0; 4]),
    call("mmap", libc::SYS_mmap, [0, 4096, 7, 0x22]),
    call("mprotect", libc::SYS_mprotect, [0x10_0000, 4096, 7, 0]),
    call("munmap", libc::SYS_munmap, [0, 4096, 0, 0]),
    call("mremap", libc::SYS_mremap, [0; 4]),
    call("brk", libc::SYS_brk, [0; 4]),
    call("rt_sigaction", libc::SYS_rt_sigaction, [11, 0, 0, 8]),
    call("rt_sigreturn", libc::SYS_rt_sigreturn, [0; 4]),
    call("setuid", libc::SYS_setuid, [0; 4]),
    call("capset", libc::SYS_capset, [0; 4]),
    call("prctl", libc::SYS_prctl, [1, 9, 0, 0]),
    call("seccomp", libc::SYS_seccomp, [0; 4]),
    call("unshare", libc::SYS_unshare, [0x4000_0000, 0, 0, 0]),
    call("setns", libc::SYS_setns, [3, 0, 0, 0]),
    call("mount", libc::SYS_mount, [0; 4]),
    call("chroot", libc::SYS_chroot, [0; 4]),
    call("bpf", libc::SYS_bpf, [0; 4]),
    call("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    call("userfaultfd", libc::SYS_userfaultfd, [0; 4]),
    call("perf_event_open", libc::SYS_perf_event_open, [0; 4]),
    call("memfd_create", libc::SYS_memfd_create, [0; 4]),
    call("dup2", libc::SYS_dup2, [1, 0, 0, 0]),
    call("close", libc::SYS_close, [1, 0, 0, 0]),
    call("getpid", libc::SYS_getpid, [0; 4]),
    call("exit", libc::SYS_exit, [0; 4]),
    call("getpid by the x32 door", libc::SYS_getpid | 0x4000_0000, [0; 4]),
    // Allowed, but not like this.
    call("read of the image's descriptor", libc::SYS_read, [0, 0, 0, 0]),
    call("write to a descriptor that is none", libc::SYS_write, [99, 0, 0, 0]),
    call("write to standard output with a high word", libc::SYS_write, [1 << 32 | 1, 0, 0, 0]),
    call("pwrite beyond the disk", libc::SYS_pwrite64, [5, 0, 512, 1 << 40]),
    call("ioctl of another request", libc::SYS_ioctl, [1, 0x5412, 0, 0]),
    call("arch_prctl of the other segment", libc::SYS_arch_prctl, [0x1001, 0, 0, 0]),
    call("clock_gettime of the processor's time", libc::SYS_clock_gettime, [2, 0, 0, 0]),
    call("epoll_pwait on another set", libc::SYS_epoll_pwait, [1, 0, 0, 0]),
    call("epoll_pwait with a mask of signals", libc::SYS_epoll_pwait, [EPOLL, 0, 0, 0]),
    call("timerfd_settime of another timer", libc::SYS_timerfd_settime, [1, 0, 0, 0]),
];

/// The descriptor of the epoll set that the tender has made.
fn epoll_set() -> u64 {
    let is_set = |fd: &i32| {
        // SAFETY: nothing is taken out: standard output is in no set.
        let asked = unsafe { libc::epoll_ctl(*fd, libc::EPOLL_CTL_DEL, 1, std::ptr::null_mut()) };
        asked < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
    };
    (3..64).find(is_set).unwrap() as u64
}

/// Plays the process, if this is one: never returns then, but with the exit code of a tender that did not come so far.
pub(crate) fn run_if_asked() -> Option<i32> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != CHILD {
        return None;
    }
    let what: Vec<String> =
        words.by_ref().take_while(|word| word != "--").map(|word| word.into_string().unwrap()).collect();
    let program = words.next().unwrap().into_string().unwrap();
    let words: Vec<OsString> = words.collect();
    let mut prepared = match fulmar_tender::start::prepare(&program, words) {
        Ok(prepared) => prepared,
        Err(code) => return Some(code),
    };
    match what.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rows"] => {
            for row in prepared.rows() {
                println!("row: {}", row.why);
            }
            return Some(0);
        }
        ["without", index] => drop(prepared.rows().remove(index.parse().unwrap())),
        ["whole"] => {}
        ["call", name] => {
            let Forbidden { number, arguments: [a, b, c, d], .. } =
                FORBIDDEN.iter().find(|call| call.name == name).unwrap();
            let a = if *a == EPOLL { epoll_set() } else { *a };
            // Where there is a mask, it is one of a call that would otherwise be allowed.
            let mask = [u64::MAX];
            if let Err(code) = prepared.confine() {
                return Some(code);
            }
            // SAFETY: what comes of it is that the process ends.
            unsafe { libc::syscall(*number, a, *b, *c, *d, mask.as_ptr(), 8) };
            // SAFETY: the end that is allowed to every guest.
            unsafe { libc::syscall(libc::SYS_exit_group, 77) };
            unreachable!("the process has ended");
        }
        ref other => panic!("{other:?}"),
    }
    match prepared.confine() {
        Ok(confined) => confined.run(),
        Err(code) => Some(code),
    }
}
