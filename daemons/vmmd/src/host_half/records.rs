//! A file for each running unit, `units/<unit>` in the run folder: by it a successor of this `vmmd` finds the process again.
//!
//! It is written while the process waits to become the tender, so no unikernel runs without one. It says nothing of
//! names or owners: the control half knows what a unit is. One line: process id, its start, the account, the taps.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fulmar_core::halves::Unit;
use fulmar_host::shim::Process;

use super::say;

/// What is known of a running unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Which.
    pub(crate) unit: Unit,
    /// Its process.
    pub(crate) process: Process,
    /// Its account.
    pub(crate) account: u16,
    /// Its taps, each with a NUL at its end.
    pub(crate) taps: Vec<u8>,
}

/// The folder of the records.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    /// Uses a folder, and makes it where it is not there: for this user only.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// All records. What is no record is removed: it was being written when its writer died, and then no tender began.
    pub(crate) fn read(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let text = fs::read_to_string(entry.path());
            let unit = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(Unit);
            match (unit, text) {
                (Some(unit), Ok(text)) if let Some(record) = parse(unit, &text) => records.push(record),
                _ => {
                    say(format_args!("removing {}, which is not the record of a unit", entry.path().display()));
                    let _ = fs::remove_file(entry.path());
                }
            }
        }
        records.sort_by_key(|record| record.unit);
        Ok(records)
    }

    /// Writes one, for the next start.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let mut line = format!("{} {} {}", record.process.pid, record.process.started, record.account);
        for tap in record.taps.split(|byte| *byte == 0).filter(|tap| !tap.is_empty()) {
            line.push(' ');
            line.push_str(&String::from_utf8_lossy(tap));
        }
        line.push('\n');
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(record.unit))?;
        io::Write::write_all(&mut file, line.as_bytes())
    }

    /// When the record of this unit was written, which is when it was launched: unix milliseconds, 0 where that is unknown.
    pub(crate) fn written_ms(&self, unit: Unit) -> i64 {
        let written = fs::metadata(self.path(unit)).and_then(|metadata| metadata.modified()).ok();
        let since = written.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.and_then(|since| since.as_millis().try_into().ok()).unwrap_or(0)
    }

    /// Removes one; it may be gone already.
    pub(crate) fn remove(&self, unit: Unit) {
        match fs::remove_file(self.path(unit)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                say(format_args!("could not remove {}: {error}", self.path(unit).display()));
            }
            _ => {}
        }
    }

    fn path(&self, unit: Unit) -> PathBuf {
        self.folder.join(unit.0.to_string())
    }
}

fn parse(unit: Unit, text: &str) -> Option<Record> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let process = Process { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
    let account = words.next()?.parse().ok()?;
    let mut taps = Vec::new();
    for tap in words {
        taps.extend_from_slice(tap.as_bytes());
        taps.push(0);
    }
    Some(Record { unit, process, account, taps })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_half::tests::Folder;

    #[test]
    fn records_are_read_as_they_were_written_and_the_rest_is_removed() {
        let folder = Folder::new();
        let records = Records::open(&folder.0.join("units")).unwrap();
        let process = Process { pid: 12, started: u64::MAX };
        let one = Record { unit: Unit(u64::MAX), process, account: 3, taps: b"vmmtap0\0vmmtap12\0".to_vec() };
        let two = Record { unit: Unit(2), process, account: 4, taps: Vec::new() };
        records.write(&one).unwrap();
        records.write(&two).unwrap();
        for (name, text) in [("3", "12 34"), ("4", "12 34 5 vmmtap0"), ("5", ""), ("six", "1 2 3\n"), ("7", "1 -2 3\n")]
        {
            fs::write(folder.0.join("units").join(name), text).unwrap();
        }
        assert_eq!(records.read().unwrap(), [two.clone(), one.clone()]);
        assert_eq!(fs::read_dir(folder.0.join("units")).unwrap().count(), 2);
        records.remove(one.unit);
        records.remove(one.unit);
        assert_eq!(records.read().unwrap(), [two]);
    }
}
