//! Wrong command lines: exit code 1, nothing on stdout, and one line that names the thing and the remedy.

use crate::tender::{end, image, tender};
use fulmar_tests::built::Kind;

/// Options, the unikernel (none: no KERNEL at all), and what the line must contain: the thing, then the remedy.
type Wrong = (&'static [&'static str], Option<&'static str>, &'static str, &'static str);

const WRONG: &[Wrong] = &[
    (&[], None, "Missing KERNEL operand", "give the image"),
    (&["--mem=0"], Some("hello"), "`--mem=0'", "a whole number of MiB above 0"),
    (&["--mem=lots"], Some("hello"), "`--mem=lots'", "a whole number of MiB above 0"),
    (&["--mem=1"], Some("hello"), "e_entry does not fall within", "give it more memory"),
    (&["--mem=999999999"], Some("hello"), "exceeds the max size", "give --mem at most"),
    (&["--color"], Some("hello"), "`--color'", "see --help"),
    (&["--net:service=tap0"], Some("hello"), "not declared in manifest: 'service'", "the image declares no devices"),
    (&["--block:service=/x"], Some("devices"), "'service'", "declares net 'service', block 'storage'"),
    (&["--net:service=nosuchtap0"], Some("devices"), "nosuchtap0: No such device", "an existing tap that is up"),
    (&["--net:service=lo"], Some("devices"), "Could not attach interface: lo", "an existing tap"),
    (&["--net:service=averylonginterfacename"], Some("devices"), "File name too long", "an existing tap"),
    (&["--net:service=@77"], Some("devices"), "@77: Bad file descriptor", "an existing tap"),
    (&["--net:service=@1"], Some("devices"), "@1: Bad file descriptor", "an existing tap"),
    (&["--block:storage=/nonexistent/disk"], Some("devices"), "/nonexistent/disk: No such file", "a file or disk"),
    (
        &["--net-mac:service=2:0:0:0:0:1", "--net-mac:service=2:0:0:0:0:2"],
        Some("devices"),
        "'service' was given before",
        "once",
    ),
    (
        &["--block:storage=/dev/null"],
        Some("devices"),
        "/dev/null: it is neither a file nor a block device",
        "give it one",
    ),
    (&["--block:storage=@77"], Some("devices"), "@77: Bad file descriptor", "a file or disk"),
    (&["--user=root"], Some("hello"), "`--user=root'", "--user=UID"),
    (
        &["--exit-status-file=/nonexistent/s"],
        Some("hello"),
        "/nonexistent/s: No such file",
        "a place that can be written",
    ),
    (&["--status-fd=77"], Some("hello"), "@77: Bad file descriptor", "a place that can be written"),
    (&["--no-net-ring"], Some("hello"), "--no-net-ring", "only hvt has it"),
    (&["--dumpcore=/nonexistent"], Some("hello"), "`--dumpcore': debugging is not allowed", "a link to this program"),
    (&["--gdb=/nonexistent/g"], Some("hello"), "`--gdb': debugging is not allowed", "a link to this program"),
    (&["--gdb"], Some("hello"), "unix socket", "--gdb=SOCKET"),
    (&[], Some("devices"), "'service' of type NET_BASIC declared but not attached", "--net:service=TAP"),
    (&[], Some("devices"), "'storage' of type BLOCK_BASIC declared but not attached", "--block:storage=PATH"),
    (&["--kvm=@3"], Some("hello"), "--kvm", "only hvt has it"),
    (&["--block-sector-size:storage=500"], Some("devices"), "Block size must be", "a power of two"),
    (&["--net-mac:service=xx"], Some("devices"), "--net-mac:service=xx", "six hexadecimal bytes"),
];

#[test]
fn each_wrong_line_is_refused_in_one_line() {
    for (options, name, thing, remedy) in WRONG {
        let mut command = tender(Kind::Spt);
        command.args(*options);
        if let Some(name) = name {
            command.arg(image(Kind::Spt, name));
        }
        let end = end(&mut command);
        assert_eq!((end.code(), end.stdout.as_str()), (Some(1), ""), "{options:?}: {end:?}");
        assert!(end.stderr.starts_with("solo5-spt: ") && end.stderr.lines().count() == 1, "{options:?}: {end:?}");
        let at = end.stderr.find(thing).unwrap_or_else(|| panic!("{options:?}: {thing:?} is not in {end:?}"));
        assert!(end.stderr[at..].contains(remedy), "{options:?}: {remedy:?} is not in {end:?}");
    }
}

#[test]
fn hvt_has_its_own_limits() {
    for (options, wanted) in [
        ("--mem=4100", "exceeds the max size 4294967296 bytes"),
        ("--x-exec-heap", "only spt has it"),
        ("--kvm=@77", "fd of --kvm: Bad file descriptor"),
        ("--kvm=77", "--kvm=@FD"),
    ] {
        let end = end(tender(Kind::Hvt).arg(options).arg(image(Kind::Hvt, "hello")));
        assert_eq!(end.code(), Some(1));
        assert!(end.stderr.contains(wanted), "{end:?}");
    }
}

#[test]
fn no_file_and_no_descriptor_of_that_name() {
    for (operand, wanted) in
        [("/nonexistent/image", "/nonexistent/image: Could not open: No such file"), ("@77", "@77: Could not open")]
    {
        let end = end(tender(Kind::Spt).arg(operand));
        assert_eq!(end.code(), Some(1));
        assert!(end.stderr.contains(wanted), "{end:?}");
    }
}

#[test]
fn a_guest_command_line_has_a_bound() {
    let long = "x".repeat(8192);
    let refused = end(tender(Kind::Spt).arg("--mem=2").arg(image(Kind::Spt, "hello")).arg(&long));
    assert_eq!(refused.code(), Some(1));
    assert!(refused.stderr.contains("Guest command line too long (max=8191 characters)"), "{refused:?}");
    let most = format!("--ticks=0 {}", &long[..8181]);
    assert_eq!(end(tender(Kind::Spt).arg("--mem=2").arg(image(Kind::Spt, "hello")).arg(&most)).code(), Some(0));
}

#[test]
fn version_and_help_answer_as_scripts_expect() {
    let version = end(tender(Kind::Hvt).args(["--bogus", "--version"]));
    assert_eq!((version.code(), version.stdout.as_str()), (Some(0), ""));
    let lines: Vec<_> = version.stderr.lines().collect();
    assert!(lines[0].starts_with("solo5-hvt tender, version "), "{lines:?}");
    assert_eq!(lines[1..], ["ABI version 2"]);
    let help = end(tender(Kind::Spt).arg("--help"));
    assert_eq!((help.code(), help.stdout.as_str()), (Some(1), ""));
    assert!(help.stderr.starts_with("usage: solo5-spt [ CORE OPTIONS ]"), "{help:?}");
}
