//! How many files this process has open, and how many it may have.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as it goes without privilege, and returns it.
///
/// # Errors
/// The kernel's.
pub fn raise_limit() -> Result<u64, Errno> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(count(hard))
}

/// The limit.
#[must_use]
pub fn limit() -> u64 {
    // It is asked about with a number that there is, so it cannot fail.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| count(soft))
}

/// A limit as the system's own type has it: signed on FreeBSD, where no limit is the largest number.
fn count(limit: impl TryInto<u64>) -> u64 {
    limit.try_into().unwrap_or(u64::MAX)
}

/// How many are open; 0 where the system does not tell.
#[must_use]
pub fn count_open() -> u64 {
    // One of them is the folder that is being read.
    std::fs::read_dir("/dev/fd").map_or(0, |entries| (entries.count() as u64).saturating_sub(1))
}

/// What to tell people where a limit is lower than what may be needed.
#[must_use]
pub fn too_few(needed: u64) -> Option<String> {
    let limit = limit();
    let text = || format!("the limit of open files is {limit}, {needed} may be needed: raise it (LimitNOFILE=)");
    (limit < needed).then(text)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_limit_is_at_its_top_and_opened_files_are_counted() {
        let hard = raise_limit().unwrap();
        assert_eq!(limit(), hard);
        assert_eq!(too_few(hard), None);
        assert!(too_few(hard.saturating_add(1)).is_none_or(|text| text.contains("LimitNOFILE")));
        // Other tests open files too.
        let many: Vec<File> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(count_open() >= 500);
        drop(many);
    }
}
