//! `SPECIFICATION.md` names no check that is not there, and no bound that is another in the code. Its figures are looked at by xtask's
//! own tests.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use fulmar_core::limits;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(root().join("SPECIFICATION.md")).unwrap()
}

#[test]
fn each_promise_has_a_check_that_there_is() {
    let page = page();
    let help = fs::read_to_string(root().join("xtask/src/main.rs")).unwrap();
    let mut checks = 0;
    let (promises, _) = page.split_once("\n## Figures").unwrap();
    for line in promises.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`: ")) {
        let mut words = line.rsplit(" | ").next().unwrap().split('`');
        let (file, check) = (words.nth(1).unwrap(), words.nth(1).unwrap());
        let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        if let Some(command) = check.strip_prefix("cargo xtask ") {
            assert!(help.contains(command.split(' ').next().unwrap()), "{check}");
        } else {
            assert!(source.contains(&format!("fn {check}(")), "{file} has no {check}");
        }
        checks += 1;
    }
    assert!(checks > 20, "{checks}");
    // Each promise of a table has one.
    for line in promises.split("\n## Bounds").next().unwrap().lines().filter(|line| line.starts_with("| ")) {
        let is_head = line == "| promise | checked by |";
        assert!(is_head || line.contains(".rs`: `") || line.contains("`: `cargo xtask "), "nothing checks: {line}");
    }
}

#[test]
fn each_bound_is_that_of_the_code() {
    let bounds: [(&str, u64); 15] = [
        ("UNIKERNELS_MAX", limits::UNIKERNELS_MAX as u64),
        ("POLICIES_MAX", limits::POLICIES_MAX as u64),
        ("BLOCKS_MAX", limits::BLOCKS_MAX as u64),
        ("DEVICES_MAX", limits::DEVICES_MAX as u64),
        ("IMAGE_BYTES_MAX", limits::IMAGE_BYTES_MAX),
        ("ARGUMENTS_BYTES_MAX", limits::ARGUMENTS_BYTES_MAX as u64),
        ("COMMAND_LINE_BYTES_MAX", limits::COMMAND_LINE_BYTES_MAX as u64),
        ("CONNECTIONS_MAX", limits::CONNECTIONS_MAX as u64),
        ("CONNECTIONS_PER_USER_MAX", limits::CONNECTIONS_PER_USER_MAX as u64),
        ("CONSOLES_BYTES_MAX", limits::CONSOLES_BYTES_MAX as u64),
        ("EVENTS_WAITING_BYTES_MAX", limits::EVENTS_WAITING_BYTES_MAX as u64),
        ("TLS_CONNECTIONS_MAX", limits::TLS_CONNECTIONS_MAX as u64),
        ("CHAIN_CERTIFICATES_MAX", limits::CHAIN_CERTIFICATES_MAX as u64),
        ("STOP_MS_MAX", limits::STOP_MS_MAX),
        ("REST_MS_MAX", limits::REST_MS_MAX),
    ];
    let page = page();
    let section = page.split("\n## ").find(|section| section.starts_with("Bounds")).unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert_eq!(rows.iter().filter(|row| row.ends_with("_MAX` |")).count(), bounds.len());
    for (name, value) in bounds {
        assert!(rows.iter().any(|row| row.ends_with(&format!("| {value} | `{name}` |"))), "{name} is {value}");
    }
}

/// A number as people write it: with commas, or in the largest unit that it is a whole number of.
fn count(number: u64) -> String {
    match (number / 1000, number % 1000) {
        (0, rest) => rest.to_string(),
        (thousands, rest) => format!("{thousands},{rest:03}"),
    }
}

fn bytes(number: u64) -> String {
    match number {
        _ if number.is_multiple_of(1 << 30) => format!("{} GiB", number >> 30),
        _ if number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        _ => format!("{} KiB", number >> 10),
    }
}

#[test]
fn what_users_are_told_of_limits_is_in_the_code() {
    use fulmar_core::limits::*;
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let seconds = |ms: u64| (ms / 1000).to_string();
    let told = [
        format!("`unikernels` | {} |", count(UNIKERNELS_MAX as u64)),
        format!("`policies`, `block-devices` | {} each |", count(POLICIES_MAX as u64)),
        format!("`argument-bytes` | {} of devices and arguments", bytes(ARENA_BYTES_MAX as u64)),
        format!(
            "in {} each; of one, {} bytes",
            bytes(ARGUMENTS_BYTES_MAX as u64),
            count(COMMAND_LINE_BYTES_MAX as u64)
        ),
        format!("`processes` | {} tenders |", count(UNITS_MAX as u64)),
        format!("`taps` | {}: a tap", count(TAPS_MAX)),
        format!("`transfers` | {TRANSFERS_MAX} block devices"),
        format!("`fifos` | {}: a fifo", count(UNITS_MAX as u64)),
        format!("{} of images, each counted once; {} for one", bytes(IMAGES_BYTES_MAX), bytes(IMAGE_BYTES_MAX)),
        format!("{} of the disk under the state folder, a {DISK_RESERVE_PART}th", bytes(DISK_RESERVE_BYTES)),
        format!("{} of images that arrive or are compressed", bytes(SPOOL_BYTES_MAX)),
        format!("{} from one user, or for one domain", bytes(SPOOL_BYTES_PER_USER_MAX)),
        format!("{} of events that wait for `vmmd_log`", bytes(EVENTS_WAITING_BYTES_MAX as u64)),
        format!("`connections` | {CONNECTIONS_MAX} |"),
        format!("`connections-of-user` | {CONNECTIONS_PER_USER_MAX} of one user"),
        format!("{} are needed for all unikernels", count(HOST_FILES_MAX)),
        format!("`control-half-files` | what the system allows; {} are needed", count(CONTROL_FILES_MAX)),
        format!("within {} seconds, or bring at least {}", seconds(PROGRESS_MS_MAX), bytes(PROGRESS_BYTES_MIN)),
        format!("keeps {} of lines, at most {} of", bytes(CONSOLES_BYTES_MAX as u64), bytes(CONSOLE_BYTES_MAX as u64)),
        format!("for {} consoles and {CONSOLE_CONNECTIONS_MAX} connections", count(CONSOLES_MAX as u64)),
        format!("it may need {} files. Of one console {CONSOLE_SUBSCRIBERS_MAX} ", count(CONSOLE_FILES_MAX)),
        format!("keeps {LOG_MB_DEFAULT} MiB and {LOG_DAYS_DEFAULT} days of events"),
        format!("for {LOG_CONNECTIONS_MAX} connections; it may need {LOG_FILES_MAX} files"),
        format!("watches {} unikernels for {STATS_CONNECTIONS_MAX} conn", count(STATS_TARGETS_MAX as u64)),
        format!("may need {} files; a message to it has at most", count(STATS_FILES_MAX)),
        format!("has at most {}, and for each", bytes(STATS_FRAME_BYTES_MAX as u64)),
        format!("at most {} wait beside the last measurements", bytes(STATS_OUTPUT_BYTES_MAX as u64)),
        format!("keeps at most {} for it", bytes(STATS_LINK_BYTES_MAX as u64)),
        format!("each of these three at most {DAEMON_CONNECTIONS_PER_USER_MAX} are of one user"),
        format!(
            "serves {TLS_CONNECTIONS_MAX} connections, of which {TLS_CONNECTIONS_PER_ADDRESS_MAX} may be of one address"
        ),
        format!("and {TLS_CONNECTIONS_PER_DOMAIN_MAX} of the certificates of one domain"),
        format!("{TLS_VMMD_CONNECTIONS_MAX} conversations with `vmmd` are open at once"),
        format!("at once, {TLS_VMMD_CONNECTIONS_PER_DOMAIN_MAX} for one domain"),
        format!("{TLS_TRANSFERS_PER_DOMAIN_MAX} of the {TRANSFERS_MAX} block devices"),
        format!("proved within {} seconds who it is", seconds(TLS_HANDSHAKE_MS_MAX)),
        format!("at most {} wait for one client", bytes(TLS_BUFFER_BYTES as u64)),
        format!("some of it within {} seconds", seconds(TLS_STALL_MS_MAX)),
        format!("at most {CHAIN_CERTIFICATES_MAX} certificates and fits"),
        format!(
            "has at most {} and must come within {} ",
            bytes(REVOCATION_LIST_BYTES_MAX as u64),
            seconds(TLS_LIST_MS_MAX)
        ),
        format!("at most {REVOCATION_LISTS_PER_DOMAIN_MAX} lists of {} ", bytes(REVOCATION_BYTES_PER_DOMAIN_MAX)),
        format!("the host {} of them", bytes(REVOCATION_BYTES_MAX)),
        format!("refusals {TLS_EVENTS_PER_MINUTE_MAX} a minute become events"),
    ];
    let wrong: Vec<&String> = told.iter().filter(|told| !page.contains(told.as_str())).collect();
    assert!(wrong.is_empty(), "docs/limits.md does not say: {wrong:#?}");
}
