//! Finding `solo5-hvt` where albatross finds it: `solo5-hvt.2`, 2 being the version of the ABI, then `solo5-hvt`; each in the
//! state folder first, then in the folders of `PATH`. The first program there is taken, if it says that it speaks the version.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fulmar_core::solo5::ABI_VERSION;

const NAME: &str = "solo5-hvt";

/// The tender program, of the operator's choice or where it is looked for.
pub(crate) fn find(chosen: Option<&Path>, state: &Path, path: &OsStr) -> Option<PathBuf> {
    let candidates = || {
        [format!("{NAME}.{ABI_VERSION}"), NAME.to_owned()].into_iter().flat_map(|name| {
            let folders = std::iter::once(state.to_owned()).chain(std::env::split_paths(path));
            folders.map(move |folder| folder.join(&name))
        })
    };
    let found = match chosen {
        Some(program) => Some(program.to_owned()).filter(|program| is_program(program)),
        None => candidates().find(|program| is_program(program)),
    };
    found.filter(|program| speaks_our_version(program))
}

/// A path without a beginning would mean another file wherever one is.
fn is_program(path: &Path) -> bool {
    let executable = |found: fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
    path.is_absolute() && fs::metadata(path).is_ok_and(executable)
}

fn speaks_our_version(program: &Path) -> bool {
    let Ok(output) = Command::new(program).arg("--version").stdin(Stdio::null()).output() else { return false };
    let line = format!("ABI version {ABI_VERSION}");
    let told = |stream: &[u8]| String::from_utf8_lossy(stream).lines().any(|told| told.trim() == line);
    told(&output.stdout) || told(&output.stderr)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::fake::STARTS;

    const SPEAKS: &str = "#!/bin/sh\necho solo5-hvt v0.9\necho ABI version 2\n";

    fn place(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn it_is_where_albatross_looks_in_its_order() {
        let folder = std::env::temp_dir().join(format!("fulmar-tender-{}", std::process::id()));
        let (state, one, two) = (folder.join("state"), folder.join("one"), folder.join("two"));
        let path = std::env::join_paths([&one, &two]).unwrap();
        let find_at = |given: Option<&Path>| {
            STARTS.fetch_add(1, Ordering::SeqCst);
            let found = find(given, &state, &path);
            STARTS.fetch_sub(1, Ordering::SeqCst);
            found
        };
        let find_here = || find_at(None);
        assert_eq!(find_here(), None);
        let plain_in_path = place(&two, "solo5-hvt", SPEAKS, 0o755);
        assert_eq!(find_here(), Some(plain_in_path));
        place(&one, "solo5-hvt", SPEAKS, 0o644);
        assert_eq!(find_here(), Some(two.join("solo5-hvt")), "what cannot be executed is none");
        let plain_in_state = place(&state, "solo5-hvt", SPEAKS, 0o755);
        assert_eq!(find_here(), Some(plain_in_state));
        let versioned_in_path = place(&two, "solo5-hvt.2", SPEAKS, 0o755);
        assert_eq!(find_here(), Some(versioned_in_path));
        let versioned_in_state = place(&state, "solo5-hvt.2", SPEAKS, 0o755);
        assert_eq!(find_here(), Some(versioned_in_state));
        place(&state, "solo5-hvt.2", "#!/bin/sh\necho ABI version 1\n", 0o755);
        assert_eq!(find_here(), None, "the first is taken, and it speaks another version");
        assert_eq!(find_at(Some(&two.join("solo5-hvt"))), Some(two.join("solo5-hvt")));
        assert_eq!(find_at(Some(Path::new("solo5-hvt"))), None, "from where?");
        fs::remove_dir_all(folder).unwrap();
    }
}
