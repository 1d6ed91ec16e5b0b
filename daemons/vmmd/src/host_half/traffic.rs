//! The file in the run folder by which the statistics daemon learns what unikernels have read from and written to storage
//! (`host/src/traffic.rs`), where the system tells that to this half alone.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fulmar_host::shim::Shim;
use fulmar_host::traffic::TRAFFIC_FILE;
use fulmar_host::warning;

/// How often it is written anew: more often than it is read, as a rule.
const PERIOD: Duration = Duration::from_secs(4);

/// The file.
#[derive(Debug)]
pub(crate) struct TrafficFile {
    path: PathBuf,
    /// What is written before it takes the place of that.
    new: PathBuf,
    /// Nothing where the system does not tell.
    due: Option<Instant>,
    has_failed: bool,
}

impl TrafficFile {
    /// In this folder, to be written at the next occasion.
    pub(crate) fn new(run: &Path) -> Self {
        let (path, new) = (run.join(TRAFFIC_FILE), run.join(format!("{TRAFFIC_FILE}.new")));
        Self { path, new, due: Some(Instant::now()), has_failed: false }
    }

    /// Writes it anew if it is time. Where that fails, nothing but statistics is missing.
    pub(crate) fn refresh<S: Shim>(&mut self, shim: &mut S) {
        let now = Instant::now();
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        self.due = now.checked_add(PERIOD);
        match self.write(shim) {
            Ok(true) => self.has_failed = false,
            Ok(false) => self.due = None,
            Err(error) => {
                if !self.has_failed {
                    warning!(
                        "statistics lack what is read and written: could not write {}: {error}",
                        self.path.display()
                    );
                }
                self.has_failed = true;
            }
        }
    }

    /// Whether the system tells; what a predecessor left is gone otherwise.
    fn write<S: Shim>(&self, shim: &mut S) -> io::Result<bool> {
        remove(&self.new)?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&self.new)?;
        let mut writer = BufWriter::new(file);
        let mut written = Ok(());
        let tells = shim.block_traffic(&mut |line| {
            if written.is_ok() {
                written = writeln!(writer, "{line}");
            }
        });
        written?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        if !tells {
            remove(&self.new)?;
            return remove(&self.path).map(|()| false);
        }
        // It says no more than that folder's statistics say to all.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&self.new, &self.path).map(|()| true)
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use fulmar_core::halves::Unit;
    use fulmar_host::shim::fake::FakeShim;
    use fulmar_host::traffic::BlockTraffic;

    use super::*;
    use crate::host_half::tests::Folder;

    /// As if the time had come.
    fn refresh(file: &mut TrafficFile, shim: &mut FakeShim) {
        file.due = file.due.map(|_| Instant::now());
        file.refresh(shim);
    }

    #[test]
    fn what_lives_is_written_when_it_is_time_and_whatever_lies_in_the_way() {
        let folder = Folder::new();
        let mut shim = FakeShim::new().unwrap();
        let process = shim.survivor(Unit(1));
        shim.traffic = Some(BlockTraffic { read_bytes: 5, written_bytes: 6 });
        let mut file = TrafficFile::new(&folder.0);
        // Somebody else's link leads nowhere.
        fs::write(folder.0.join("precious"), "precious").unwrap();
        std::os::unix::fs::symlink("precious", &file.new).unwrap();
        std::os::unix::fs::symlink("precious", &file.path).unwrap();
        file.refresh(&mut shim);
        let expected = format!("{} {} 5 6\n", process.pid, process.started);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), expected);
        assert_eq!(fs::symlink_metadata(&file.path).unwrap().permissions().mode(), 0o100_644);
        assert_eq!(fs::read_to_string(folder.0.join("precious")).unwrap(), "precious");
        shim.end(Unit(1), fulmar_core::halves::Status::Code(0));
        file.refresh(&mut shim);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), expected, "it was not time");
        refresh(&mut file, &mut shim);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), "");
        // A folder that is gone comes back, and a file that cannot be replaced is told once.
        fs::rename(&folder.0, folder.0.with_extension("gone")).unwrap();
        refresh(&mut file, &mut shim);
        assert!(file.has_failed);
        fs::rename(folder.0.with_extension("gone"), &folder.0).unwrap();
        refresh(&mut file, &mut shim);
        assert!(!file.has_failed && !file.new.exists());
    }

    #[test]
    fn nothing_is_left_where_nothing_is_told() {
        let folder = Folder::new();
        let mut shim = FakeShim::new().unwrap();
        let mut file = TrafficFile::new(&folder.0);
        fs::write(&file.path, "1 2 3 4\n").unwrap();
        file.refresh(&mut shim);
        assert_eq!((file.path.exists(), file.new.exists(), file.due), (false, false, None));
        shim.traffic = Some(BlockTraffic::default());
        refresh(&mut file, &mut shim);
        assert!(!file.path.exists(), "it is not asked again");
    }
}
