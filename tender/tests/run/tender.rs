//! How tests start a tender and wait for its end.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fulmar_tests::built::Kind;

pub(crate) use crate::process::{End, await_console, guests, image, kinds, wait};

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

/// Starts it and waits for its end.
pub(crate) fn end(command: &mut Command) -> End {
    wait(command.spawn().unwrap())
}

/// A unikernel without end, which ends with its test, however that ends.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        Running(Some(command.spawn().unwrap()))
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.as_ref().unwrap().id()
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
