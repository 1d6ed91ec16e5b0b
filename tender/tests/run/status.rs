//! How a guest fared, for whoever was not there: the records in a file and in a stream.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::tender::{await_console, end, image, kinds, tender, wait};
use fulmar_tests::built::Kind;

const RECORD_BYTES: usize = 64;

/// A path that is gone with the test.
struct Record(PathBuf);

impl Record {
    fn new(test: &str, kind: Kind) -> Record {
        let name = format!("fulmar-status-{test}-{}-{}", kind.name(), std::process::id());
        Record(std::env::temp_dir().join(name))
    }

    fn option(&self) -> String {
        format!("--exit-status-file={}", self.0.display())
    }

    /// The one record that stands in the file.
    fn text(&self) -> String {
        let text = fs::read_to_string(&self.0).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (RECORD_BYTES, true), "{text:?}");
        text.trim_end().to_owned()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(kind: Kind, record: &Record, guest: &str) -> Command {
    let mut command = tender(kind);
    command.arg("--mem=2").arg(record.option()).arg(image(kind, guest));
    command
}

#[test]
fn the_file_says_how_it_ended() {
    for kind in kinds("status file") {
        let record = Record::new("end", kind);
        for (status, wanted) in [(0, "exited 0"), (7, "exited 7"), (300, "exited 44")] {
            let arguments = ["--ticks=0".to_owned(), format!("--status={status}")];
            assert_eq!(end(run(kind, &record, "hello").args(arguments)).code(), Some(status & 0xff));
            assert_eq!(record.text(), wanted);
        }
        assert_eq!(end(run(kind, &record, "crash").arg("--how=abort")).code(), Some(255));
        assert_eq!(record.text(), "exited 255");
    }
}

#[test]
fn the_file_says_what_a_guest_died_of() {
    for kind in kinds("status of faults") {
        let record = Record::new("fault", kind);
        let end = end(run(kind, &record, "crash").arg("--how=text"));
        match kind {
            Kind::Spt => {
                assert_eq!(end.signal(), Some(11));
                assert!(record.text().starts_with("faulted signal=11 rip=0x1"), "{}", record.text());
            }
            Kind::Hvt => assert_eq!((end.code(), record.text().as_str()), (Some(1), "failed")),
        }
    }
}

#[test]
fn the_file_says_that_it_runs_and_that_it_was_ended() {
    for kind in kinds("status while running") {
        let record = Record::new("running", kind);
        let mut child = run(kind, &record, "hello").spawn().unwrap();
        await_console(&mut child, "My arguments");
        assert!(record.text().starts_with("running network="), "{}", record.text());
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        wait(child);
        match kind {
            // Nobody is left to write: what runs no more and says that it does was ended from outside.
            Kind::Spt => assert!(record.text().starts_with("running"), "{}", record.text()),
            Kind::Hvt => assert_eq!(record.text(), "terminated signal=15"),
        }
    }
}

#[test]
fn what_never_started_failed() {
    for kind in kinds("status of nothing") {
        let record = Record::new("refused", kind);
        assert_eq!(end(run(kind, &record, "devices").arg("word")).code(), Some(1));
        assert_eq!(record.text(), "failed");
    }
}

/// What the tender says of this file as the one for its records.
fn run_on(kind: Kind, file: &fs::File) -> Command {
    fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut command = tender(kind);
    command.args(["--mem=2", &format!("--exit-status-file=@{}", file.as_raw_fd())]);
    command.arg(image(kind, "hello")).args(["--ticks=0", "--status=3"]);
    command
}

#[test]
fn the_file_may_be_open_already() {
    for kind in kinds("status in an open file") {
        let record = Record::new("open", kind);
        let open = |options: &mut fs::OpenOptions| options.create(true).open(&record.0).unwrap();
        assert_eq!(end(&mut run_on(kind, &open(fs::OpenOptions::new().write(true)))).code(), Some(3));
        assert_eq!(record.text(), "exited 3");
        // Once more, over the record that is there.
        assert_eq!(end(&mut run_on(kind, &open(fs::OpenOptions::new().write(true)))).code(), Some(3));
        assert_eq!(record.text(), "exited 3");
        for (options, wanted) in [
            (fs::OpenOptions::new().append(true), "holds something else"),
            (fs::OpenOptions::new().read(true), "give it a place that can be written"),
        ] {
            let said = run_on(kind, &options.open(&record.0).unwrap()).output().unwrap();
            assert_eq!(said.status.code(), Some(1));
            assert!(String::from_utf8_lossy(&said.stderr).contains(wanted), "{said:?}");
            assert_eq!(record.text(), "exited 3", "it stays what it was");
        }
    }
}

#[test]
fn a_stream_has_every_record() {
    for kind in kinds("status stream") {
        let (mut reader, writer) = std::io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut command = tender(kind);
        command.args(["--mem=2", &format!("--status-fd={}", writer.as_raw_fd())]);
        let child = command.arg(image(kind, "hello")).args(["--ticks=0", "--status=3"]).spawn().unwrap();
        drop(writer);
        assert_eq!(wait(child).code(), Some(3));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text.len(), 2 * RECORD_BYTES);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert!(lines[0].starts_with("running "), "{lines:?}");
        assert_eq!(lines[1], "exited 3");
    }
}
