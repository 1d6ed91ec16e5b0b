//! Guests that between them need every row of the filter.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fulmar_tests::built::Kind;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child::CHILD;
use crate::gdb;
use crate::process::{End, image, wait};

/// One way to run a guest.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    guest: &'static str,
    options: &'static [&'static str],
    words: &'static [&'static str],
    /// What is done while it runs.
    meanwhile: fn(&mut Child, &Path),
    /// How it ends if nothing is missing.
    pub(crate) is_good: fn(ExitStatus) -> bool,
}

fn nothing(_: &mut Child, _: &Path) {}

fn ended_well(status: ExitStatus) -> bool {
    status.code() == Some(0)
}

fn ended_with_1(status: ExitStatus) -> bool {
    status.code() == Some(1)
}

fn faulted(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGSEGV)
}

/// `@NET`, `@DISK`, `@STATUS`, `@STREAM`, `@CORE` and `@GDB` in an option stand for what each run makes for itself.
pub(crate) fn all() -> Vec<Scenario> {
    let base = Scenario {
        name: "",
        kind: Kind::Spt,
        guest: "hello",
        options: &[],
        words: &["--ticks=1"],
        meanwhile: nothing,
        is_good: ended_well,
    };
    let devices: &[&str] = &["--net:service=@NET", "--block:storage=@DISK"];
    let mut all = Vec::new();
    for kind in [Kind::Spt, Kind::Hvt] {
        let base = Scenario { kind, ..base };
        let fault = if kind == Kind::Spt { faulted } else { ended_with_1 };
        all.extend([
            Scenario { name: "timer", guest: "timer", ..base },
            Scenario { name: "devices", guest: "devices", options: devices, ..base },
            Scenario { name: "fault", guest: "crash", words: &["--how=null"], is_good: is_a_fault(kind), ..base },
            Scenario { name: "text", guest: "crash", words: &["--how=text"], is_good: fault, ..base },
            Scenario {
                name: "status",
                options: &["--exit-status-file=@STATUS", "--status-fd=@STREAM"],
                words: &["--ticks=0"],
                ..base
            },
            Scenario {
                name: "core",
                options: &["--dumpcore=@CORE"],
                meanwhile: |child, _| ask_for_core(child),
                words: &["--ticks=2"],
                ..base
            },
        ]);
    }
    all.extend([
        Scenario {
            name: "fault with a core",
            guest: "crash",
            options: &["--dumpcore=@CORE", "--exit-status-file=@STATUS", "--status-fd=@STREAM"],
            words: &["--how=null"],
            is_good: faulted,
            ..base
        },
        Scenario {
            name: "devices without a ring",
            kind: Kind::Hvt,
            guest: "devices",
            options: &["--no-net-ring", "--net:service=@NET", "--block:storage=@DISK"],
            ..base
        },
        Scenario {
            name: "gdb",
            kind: Kind::Hvt,
            options: &["--gdb=@GDB"],
            words: &["--ticks=0"],
            meanwhile: |child, folder| gdb::converse(child, &folder.join("gdb")),
            ..base
        },
    ]);
    all
}

/// A null pointer: the signal itself under spt; under hvt our guests catch it and give up.
fn is_a_fault(kind: Kind) -> fn(ExitStatus) -> bool {
    match kind {
        Kind::Spt => faulted,
        Kind::Hvt => |status| status.code() == Some(255),
    }
}

fn ask_for_core(child: &mut Child) {
    crate::process::await_console(child, "My arguments");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGUSR1).unwrap();
}

/// What one run has made for itself.
struct Ground {
    folder: PathBuf,
    _ours: UnixDatagram,
    theirs: UnixDatagram,
    disk: File,
    stream: OwnedFd,
}

impl Ground {
    fn new() -> Ground {
        let folder = std::env::temp_dir().join(format!("fulmar-rows-{}", std::process::id()));
        // What an earlier run has left is in the way.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.send(b"aaaaaabbbbbbwhat came before").unwrap();
        let mut disk = File::create_new(folder.join("disk")).unwrap();
        disk.write_all(&[0; 4096]).unwrap();
        let disk = File::options().read(true).write(true).open(folder.join("disk")).unwrap();
        let (_, stream) = std::io::pipe().unwrap();
        Ground { folder, _ours: ours, theirs, disk, stream: stream.into() }
    }

    /// An option with this run's own in the place of what stands for it.
    fn option(&self, option: &str) -> String {
        let path = |name: &str| self.folder.join(name).display().to_string();
        option
            .replace("@NET", &format!("@{}", self.theirs.as_raw_fd()))
            .replace("@DISK", &format!("@{}", self.disk.as_raw_fd()))
            .replace("@STATUS", &path("status"))
            .replace("@STREAM", &self.stream.as_raw_fd().to_string())
            .replace("@CORE", &path(""))
            .replace("@GDB", &path("gdb"))
    }

    /// Lets the child have them.
    fn hand_on(&self) {
        fcntl(&self.theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        fcntl(&self.disk, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        fcntl(&self.stream, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Scenario {
    /// Runs it: `whole`, `without INDEX`, `rows`, or `call NAME`.
    pub(crate) fn run(&self, what: &[&str]) -> End {
        let ground = Ground::new();
        ground.hand_on();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(CHILD).args(what).arg("--").arg(format!("solo5-{}-debug", self.kind.name())).arg("--mem=4");
        command.args(self.options.iter().map(|option| ground.option(option)));
        command.arg(image(self.kind, self.guest)).args(self.words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A debugger is waited for before anything else.
        if matches!(what, ["whole"] | ["without", _]) || self.name == "gdb" {
            (self.meanwhile)(&mut child, &ground.folder);
        }
        wait(child)
    }

    /// Why each row of its filter is there.
    pub(crate) fn rows(&self) -> Vec<String> {
        let listed = self.run(&["rows"]);
        assert_eq!(listed.code(), Some(0), "{}: {listed:?}", self.name);
        listed.stdout.lines().filter_map(|line| line.strip_prefix("row: ")).map(str::to_owned).collect()
    }
}
