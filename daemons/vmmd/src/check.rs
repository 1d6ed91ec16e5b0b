//! What `vmmd --check` looks at: all that a start needs, and nothing is made or changed.

#[cfg(target_os = "linux")]
use std::fs;
use std::io;
use std::path::Path;

use fulmar_core::limits::{ACCOUNTS_MAX, CONTROL_FILES_MAX, HOST_FILES_MAX};
use fulmar_host::blocks::Blocks;
use fulmar_host::check::Findings;
use fulmar_host::disk::HostFolder;
use fulmar_host::files;
use fulmar_host::journal::Journal;
use fulmar_host::privilege;
use fulmar_host::store;
use nix::unistd::Uid;

use crate::options::Options;
use crate::{requirements, start};

/// Looks at everything.
pub(crate) fn check(options: &Options, findings: &mut Findings) {
    let wanted = options.user();
    let user = start::attainable(wanted);
    if user != wanted {
        findings.doubt(format_args!("the control half cannot become user {wanted} here and stays {user}"));
    }
    for unmet in requirements::unmet(options, user) {
        findings.wrong(unmet);
    }
    let (first, count) = (options.tender_uid_base, u32::from(ACCOUNTS_MAX));
    if !privilege::can_become(first, first, count) {
        findings.doubt(format_args!(
            "no privilege to change users, or the {count} from {first} on are not mapped here: all unikernels would run under one"
        ));
    }
    for folder in [&options.run, &options.state] {
        check_folder(folder, findings);
    }
    if options.state.is_dir() {
        check_state(&options.state, findings);
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        findings.doubt(format_args!("/dev/kvm cannot be opened ({error}): hvt images cannot run, spt images can"));
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = fulmar_shim_linux::check_taskstats() {
        findings.doubt(error);
    }
    let _ = files::raise_limit();
    if let Some(text) = files::too_few(HOST_FILES_MAX.max(CONTROL_FILES_MAX)) {
        findings.doubt(text);
    }
}

/// A folder that is there, or can be made.
fn check_folder(folder: &Path, findings: &mut Findings) {
    if folder.is_dir() {
        // It is given to the control half by root; anybody else has to own it.
        if !Uid::effective().is_root() {
            findings.check_writable(folder);
        }
        return;
    }
    match folder.ancestors().skip(1).find(|above| above.exists()) {
        Some(above) => findings.check_writable(above),
        // Below where we are.
        None => findings.check_writable(Path::new(".")),
    }
}

/// What is kept, as far as can be told without changing it.
fn check_state(state: &Path, findings: &mut Findings) {
    let found = |name: &str| match HostFolder::find(&state.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(|error| format!("{}: {error}", state.join(name).display())),
    };
    let folders = ["images", "block", ""].map(|name| findings.expect(found(name)));
    let [Some(images), Some(blocks), Some(Some(folder))] = folders else { return };
    let images = images.map_or(Ok(0), |images| store::count(&images));
    let blocks = blocks.map_or(Ok(0), |blocks| Blocks::new(blocks).count());
    let [images, blocks] = [findings.expect(images), findings.expect(blocks)];
    let Some((images, blocks)) = images.zip(blocks) else { return };
    let journal = Journal::check(&folder, images + blocks > 0);
    findings.expect(journal.map_err(|error| format!("{}: {error}", state.join("journal").display())));
}
