//! The thread that waits for the disk, so that nobody else has to: what was written is asked to be durable at once, and the
//! next request may come while the last one is still under way.

use fulmar_host::error;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Files that are to be made durable.
#[derive(Debug, Default)]
struct Wanted {
    files: Mutex<Vec<Arc<File>>>,
    more: Condvar,
}

/// Where to ask for it.
#[derive(Debug)]
pub(crate) struct Syncer(Arc<Wanted>);

impl Syncer {
    /// Starts the thread. It ends with the process: what is not durable then is so as soon as the system gets to it.
    pub(crate) fn start() -> io::Result<Self> {
        let wanted = Arc::<Wanted>::default();
        let own = Arc::clone(&wanted);
        std::thread::Builder::new().name("syncer".into()).spawn(move || work(&own))?;
        Ok(Self(wanted))
    }

    /// Asks for what is in this file, or folder, to be made durable.
    pub(crate) fn want(&self, file: &Arc<File>) {
        let mut files = self.0.files.lock().unwrap_or_else(PoisonError::into_inner);
        if !files.iter().any(|known| Arc::ptr_eq(known, file)) {
            files.push(Arc::clone(file));
            self.0.more.notify_one();
        }
    }
}

fn work(wanted: &Wanted) {
    let mut failing = false;
    loop {
        let mut files = wanted.files.lock().unwrap_or_else(PoisonError::into_inner);
        while files.is_empty() {
            files = wanted.more.wait(files).unwrap_or_else(PoisonError::into_inner);
        }
        let batch = std::mem::take(&mut *files);
        drop(files);
        for file in batch {
            match file.sync_data() {
                Err(error) if !failing => {
                    failing = true;
                    error!("the disk does not keep what was written: {error}");
                }
                Err(_) => {}
                Ok(()) => failing = false,
            }
        }
    }
}
