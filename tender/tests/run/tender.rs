//! How tests start a tender and wait for its end.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fulmar_tests::built::{self, Guests, Kind};

/// Longer than any test needs, even where KVM interprets.
const PATIENCE: Duration = Duration::from_secs(60);

/// The unikernels, built once.
pub(crate) fn guests() -> &'static Guests {
    static GUESTS: OnceLock<Guests> = OnceLock::new();
    GUESTS.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
        built::build(&out).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// The kinds that can run here.
pub(crate) fn kinds(test: &str) -> Vec<Kind> {
    let mut kinds = vec![Kind::Spt];
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => kinds.push(Kind::Hvt),
        Err(error) => fulmar_tests::skips::skip(&format!("{test} (hvt)"), &format!("/dev/kvm: {error}")),
    }
    kinds
}

/// A command that runs the tender under the name of this kind.
pub(crate) fn tender(kind: Kind) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar-tender"));
    command.arg0(format!("solo5-{}", kind.name()));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command that runs this unikernel in 2 MiB.
pub(crate) fn run(kind: Kind, name: &str) -> Command {
    let mut command = tender(kind);
    command.arg("--mem=2").arg(image(kind, name));
    command
}

/// The image of a unikernel.
pub(crate) fn image(kind: Kind, name: &str) -> PathBuf {
    guests().image(name, kind)
}

/// What is left of a tender that has ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl End {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Starts it and waits for its end.
pub(crate) fn end(command: &mut Command) -> End {
    wait(command.spawn().unwrap())
}

/// Waits for its end.
pub(crate) fn wait(mut child: Child) -> End {
    let late = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > late => {
                child.kill().unwrap();
                panic!("the tender did not end");
            }
            None => sleep(Duration::from_millis(5)),
        }
    };
    // What they say is far less than a pipe holds.
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        if let Some(pipe) = pipe {
            pipe.read_to_string(&mut text).unwrap();
        }
        text
    };
    let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    End { status, stdout, stderr }
}

/// A unikernel without end, which ends with its test, however that ends.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        Running(Some(command.spawn().unwrap()))
    }

    /// As [`await_console`].
    pub(crate) fn console(&mut self, wanted: &str) -> String {
        await_console(self.0.as_mut().unwrap(), wanted)
    }

    /// As [`wait`], for one that does end.
    pub(crate) fn wait(mut self) -> End {
        wait(self.0.take().unwrap())
    }

    /// Ends it; it must run until now.
    pub(crate) fn finish(mut self) {
        assert_eq!(self.0.as_mut().unwrap().try_wait().unwrap(), None, "the unikernel ended");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // One that has ended is ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads from its console until this is there.
pub(crate) fn await_console(child: &mut Child, wanted: &str) -> String {
    let console = child.stdout.as_mut().unwrap();
    let mut text = String::new();
    while !text.contains(wanted) {
        let mut bytes = [0; 256];
        let len = console.read(&mut bytes).unwrap();
        assert!(len > 0, "the console ended before {wanted:?}: {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..len]).unwrap());
    }
    text
}

/// A disk that is gone with the test.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
}

impl Disk {
    pub(crate) fn new(test: &str, bytes: &[u8]) -> Disk {
        let path = std::env::temp_dir().join(format!("fulmar-tender-{test}-{}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Disk { path }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that fails says so already.
        let _ = fs::remove_file(&self.path);
    }
}
