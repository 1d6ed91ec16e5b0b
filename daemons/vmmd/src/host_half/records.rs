//! Up to three files for each unit in the folder `units` of the run folder. By `<unit>` a successor of this `vmmd` finds the process
//! again: it is written while the process waits to become the tender, so no unikernel runs without one. It says nothing of
//! names or owners: the control half knows what a unit is. One line: process id, its start, the account, the memory, the taps.
//!
//! Into `<unit>.status` the tender records how its guest fares, for whoever was not there when it ended. The tender has it
//! open to write and nothing else of this folder. What stands there may be a tenant's: it is handed on, never looked into.
//!
//! `<unit>.told` is there when the unit was told to end. Should `vmmd` die before it has, a successor sees by this that its end
//! was wanted, and by whom: an end that a unikernel brought about itself may be for good, this one is not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use fulmar_core::halves::{Status, StatusRecord, Unit};
use fulmar_core::limits::STATUS_RECORD_BYTES;
use fulmar_core::machine::Usage;
use fulmar_host::shim::Process;
use fulmar_host::{error, warning};
use nix::fcntl::OFlag;

/// What follows a unit's number in the name of the file for its status.
const STATUS_SUFFIX: &str = ".status";

/// What follows a unit's number in the name of the file which says that it was told to end.
const TOLD_SUFFIX: &str = ".told";

/// What follows the memory in a record: no tap is called so.
const MEMORY_UNIT: &str = "MB";

/// Bytes of a status file that are read: a record and one more, so that what is too long is seen to be none.
pub(crate) const STATUS_BYTES_MAX: usize = STATUS_RECORD_BYTES + 1;

/// What is known of a running unit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    /// Which.
    pub(crate) unit: Unit,
    /// Its process.
    pub(crate) process: Process,
    /// Its account.
    pub(crate) account: u16,
    /// Memory of its guest, MiB.
    pub(crate) memory_mb: u64,
    /// Its taps, each with a NUL at its end.
    pub(crate) taps: Vec<u8>,
    /// Whether it was told to end.
    pub(crate) told: bool,
}

impl Record {
    /// What it takes of the host.
    pub(crate) fn usage(&self) -> Usage {
        let networks = self.taps.iter().filter(|byte| **byte == 0).count();
        let networks = u64::try_from(networks).unwrap_or(u64::MAX);
        Usage { unikernels: 1, memory_mb: self.memory_mb, block_mb: 0, networks }
    }
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

    /// All records. One that is not whole is removed: it was being written when its writer died, and then no tender began.
    /// Files of other names are somebody else's. One that cannot be read may be of a unikernel that runs.
    pub(crate) fn read(&self) -> io::Result<Vec<Record>> {
        let (mut records, mut statuses, mut told) = (BTreeMap::new(), Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(unit) = name.strip_suffix(STATUS_SUFFIX).and_then(unit_of) {
                statuses.push(unit);
                continue;
            }
            if let Some(unit) = name.strip_suffix(TOLD_SUFFIX).and_then(unit_of) {
                told.push(unit);
                continue;
            }
            let Some(unit) = unit_of(name) else { continue };
            match parse(unit, &String::from_utf8_lossy(&fs::read(entry.path())?)) {
                Some(record) => _ = records.insert(unit, record),
                None => {
                    warning!("removing {}, which is not the record of a unit", entry.path().display());
                    self.remove(unit);
                }
            }
        }
        for unit in &told {
            if let Some(record) = records.get_mut(unit) {
                record.told = true;
            }
        }
        for unit in statuses.into_iter().chain(told).filter(|unit| !records.contains_key(unit)) {
            self.remove(unit);
        }
        Ok(records.into_values().collect())
    }

    /// An empty file for the status of a unit, to write.
    pub(crate) fn open_status(&self, unit: Unit) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        options.open(self.status_path(unit))
    }

    /// Writes down what the kernel says of the end of a unit and the tender could not: nobody else will know it at the next
    /// start.
    pub(crate) fn note(&self, unit: Unit, status: Status) {
        if status != Status::OutOfMemory {
            return;
        }
        let written = self
            .open_status(unit)
            .and_then(|mut file| io::Write::write_all(&mut file, StatusRecord::OUT_OF_MEMORY.as_bytes()));
        if let Err(error) = written {
            error!("could not write {}: {error}", self.status_path(unit).display());
        }
    }

    /// What stands in the status file of a unit, as far as it goes into `buffer`; nothing where there is none.
    pub(crate) fn read_status<'b>(&self, unit: Unit, buffer: &'b mut [u8; STATUS_BYTES_MAX]) -> &'b [u8] {
        let read = File::open(self.status_path(unit)).and_then(|mut file| {
            let mut len = 0;
            loop {
                match file.read(&mut buffer[len..])? {
                    0 => return Ok(len),
                    read => len += read,
                }
            }
        });
        match read {
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == io::ErrorKind::NotFound => &[],
            Err(error) => {
                error!("could not read {}: {error}", self.status_path(unit).display());
                &[]
            }
        }
    }

    /// Notes that a unit is being told to end.
    pub(crate) fn tell(&self, unit: Unit) {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let path = self.told_path(unit);
        if let Err(error) = options.open(&path) {
            error!("could not write {}: {error}", path.display());
        }
    }

    /// Writes one, for the next start. An earlier process of the same unit may have been told to end; this one was not.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        remove_file(&self.told_path(record.unit));
        let Record { process: Process { pid, started }, account, memory_mb, .. } = record;
        let mut line = format!("{pid} {started} {account} {memory_mb}{MEMORY_UNIT}");
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

    /// Removes what there is of a unit; it may be gone already.
    pub(crate) fn remove(&self, unit: Unit) {
        for path in [self.path(unit), self.status_path(unit), self.told_path(unit)] {
            remove_file(&path);
        }
    }

    fn path(&self, unit: Unit) -> PathBuf {
        self.folder.join(unit.0.to_string())
    }

    fn status_path(&self, unit: Unit) -> PathBuf {
        self.folder.join(format!("{}{STATUS_SUFFIX}", unit.0))
    }

    fn told_path(&self, unit: Unit) -> PathBuf {
        self.folder.join(format!("{}{TOLD_SUFFIX}", unit.0))
    }
}

fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            error!("could not remove {}: {error}", path.display());
        }
        _ => {}
    }
}

/// The unit whose record has this file name.
fn unit_of(name: &str) -> Option<Unit> {
    let number: u64 = name.parse().ok()?;
    (number.to_string() == name).then_some(Unit(number))
}

fn parse(unit: Unit, text: &str) -> Option<Record> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let process = Process { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
    let account = words.next()?.parse().ok()?;
    let mut words = words.peekable();
    let memory = words.peek().and_then(|word| word.strip_suffix(MEMORY_UNIT)?.parse().ok());
    if memory.is_some() {
        words.next();
    }
    let mut taps = Vec::new();
    for tap in words {
        taps.extend_from_slice(tap.as_bytes());
        taps.push(0);
    }
    // Those of earlier versions do not say it.
    Some(Record { unit, process, account, memory_mb: memory.unwrap_or(0), taps, told: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host_half::tests::Folder;

    #[test]
    fn records_are_read_as_they_were_written_and_broken_ones_are_removed() {
        let folder = Folder::new();
        let records = Records::open(&folder.0.join("units")).unwrap();
        let process = Process { pid: 12, started: u64::MAX };
        let one = Record {
            unit: Unit(u64::MAX),
            process,
            account: 3,
            memory_mb: 16,
            taps: b"vmmtap0\0vmmtap12\0".to_vec(),
            told: false,
        };
        let mut two =
            Record { unit: Unit(2), process, account: 4, memory_mb: u32::MAX.into(), taps: Vec::new(), told: false };
        records.write(&one).unwrap();
        records.write(&two).unwrap();
        let broken: [(&str, &[u8]); 7] = [
            ("3", b"12 34"),
            ("4", b"12 34 5 vmmtap0"),
            ("5", b""),
            ("6", b"\xff 1 2\n"),
            ("7", b"1 -2 3\n"),
            ("8.status", b"exited 0\n"),
            ("9.told", b""),
        ];
        let foreign: [(&str, &[u8]); 4] = [("six", b"1 2 3\n"), ("08", b"1 2 3\n"), ("+9", b""), ("x.status", b"")];
        for (name, text) in broken.into_iter().chain(foreign) {
            fs::write(folder.0.join("units").join(name), text).unwrap();
        }
        records.open_status(two.unit).unwrap();
        assert_eq!(records.read().unwrap(), [two.clone(), one.clone()]);
        let left = 3 + foreign.len();
        assert_eq!(fs::read_dir(folder.0.join("units")).unwrap().count(), left, "two records and a status");
        assert_eq!(one.usage(), Usage { unikernels: 1, memory_mb: 16, block_mb: 0, networks: 2 });
        // As an earlier version wrote it.
        let old = parse(one.unit, "12 34 3 vmmtap0\n").unwrap();
        assert_eq!((old.memory_mb, &old.taps[..]), (0, &b"vmmtap0\0"[..]));
        records.remove(one.unit);
        records.remove(one.unit);
        records.tell(two.unit);
        two.told = true;
        assert_eq!(records.read().unwrap(), [two.clone()]);
        // The next process of the same unit was not told.
        records.write(&two).unwrap();
        two.told = false;
        assert_eq!(records.read().unwrap(), [two]);
        // What cannot be read is not taken for what is not there.
        fs::create_dir(folder.0.join("units/10")).unwrap();
        assert!(records.read().is_err());
    }

    #[test]
    fn a_status_is_read_as_far_as_it_may_go() {
        let folder = Folder::new();
        let records = Records::open(&folder.0.join("units")).unwrap();
        let mut buffer = [0; STATUS_BYTES_MAX];
        assert_eq!(records.read_status(Unit(1), &mut buffer), b"");
        for (len, read) in [(0, 0), (3, 3), (64, 64), (65, 65), (1 << 20, 65)] {
            let mut file = records.open_status(Unit(1)).unwrap();
            io::Write::write_all(&mut file, &vec![7; len]).unwrap();
            assert_eq!(records.read_status(Unit(1), &mut buffer), vec![7; read], "and what was there before is gone");
        }
        // Nobody is led to another file, not even by who could write here.
        fs::write(folder.0.join("precious"), "precious").unwrap();
        records.remove(Unit(1));
        std::os::unix::fs::symlink("../precious", folder.0.join("units/1.status")).unwrap();
        assert!(records.open_status(Unit(1)).is_err());
        assert_eq!(fs::read_to_string(folder.0.join("precious")).unwrap(), "precious");
    }
}
