//! Built unikernels and the processes that run them, for every test of the tender.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
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
