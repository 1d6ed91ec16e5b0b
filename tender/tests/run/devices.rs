//! A network and a disk, without privileges: one end of a pair of datagram sockets, and a file.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::tender::{Disk, await_console, end, image, kinds, tender, wait};
use fulmar_tests::built::Kind;

const SECTORS: usize = 8;
const SECTOR_BYTES: usize = 4096;

#[test]
fn a_guest_copies_a_sector_and_answers_a_frame() {
    for kind in kinds("devices") {
        let mut content = vec![0; SECTORS * SECTOR_BYTES];
        content[..SECTOR_BYTES].fill(b'F');
        let disk = Disk::new(&format!("copy-{}", kind.name()), &content);
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();

        let mut command = tender(kind);
        command.arg("--mem=2").arg(format!("--net:service=@{}", theirs.as_raw_fd()));
        command.arg("--net-mac:service=02:00:00:00:00:07").arg(format!("--block:storage={}", disk.path.display()));
        command.arg(format!("--block-sector-size:storage={SECTOR_BYTES}")).arg(image(kind, "devices"));
        let mut child = command.spawn().unwrap();
        drop(theirs);
        let said = await_console(&mut child, "waiting for a frame\n");
        assert!(said.contains("network: address 2..7, mtu 1500\n"), "{said}");
        assert!(said.contains("disk: 32768 bytes in sectors of 4096\n"), "{said}");
        ours.send(b"aaaaaabbbbbbrest of it").unwrap();
        let mut frame = [0; 64];
        let len = ours.recv(&mut frame).unwrap();
        assert_eq!(&frame[..len], b"bbbbbbaaaaaarest of it");
        let end = wait(child);
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");

        content[(SECTORS - 1) * SECTOR_BYTES..].fill(b'F');
        assert!(fs::read(&disk.path).unwrap() == content);
    }
}

/// In a network namespace of its own, where the kernel greets the guest's tap as soon as that comes up.
#[test]
fn a_guest_takes_an_existing_tap() {
    for kind in kinds("tap") {
        let disk = Disk::new(&format!("tap-{}", kind.name()), &[0; 1024]);
        let tap = "ip tuntap add dev guest0 mode tap && ip link set guest0 mtu 1400 up && \
                   grep -q 0 /proc/sys/net/ipv6/conf/guest0/disable_ipv6";
        if !Command::new("unshare")
            .args(["--net", "sh", "-c", tap])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            fulmar_tests::skips::skip(
                &format!("tap ({})", kind.name()),
                "no right to make a network namespace and a tap, or no IPv6",
            );
            continue;
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c"]).arg(format!("{tap} && exec \"$@\"")).arg("sh");
        command.arg(env!("CARGO_BIN_EXE_fulmar-tender")).args(["--mem=2", "--net:service=guest0"]);
        command.arg(format!("--block:storage={}", disk.path.display())).arg(image(kind, "devices"));
        let end = end(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
        assert!(end.stdout.contains("mtu 1400\n"), "{end:?}");
    }
}

/// What is wrong with a tap is said with its name.
#[test]
fn a_tap_must_be_there_up_and_free() {
    const TEST: &str = "a_tap_must_be_there_up_and_free";
    fulmar_tests::namespace::inside("devices::a_tap_must_be_there_up_and_free", || {
        let taps = "ip tuntap add dev up0 mode tap && ip link set up0 up && ip tuntap add dev down0 mode tap && \
                    ip tuntap add dev tun0 mode tun && ip link set tun0 up && ip link set lo up";
        if !Command::new("sh").args(["-c", taps]).output().is_ok_and(|output| output.status.success()) {
            return fulmar_tests::skips::skip(TEST, "no tap can be made here with `ip`");
        }
        let run = |tap: &str| {
            let mut command = tender(Kind::Spt);
            command.args(["--mem=2", &format!("--net:service={tap}")]).arg(image(Kind::Spt, "network"));
            command
        };
        let mut holder = crate::tender::Running::start(&mut run("up0"));
        holder.console("network: address");
        for (tap, wanted) in [
            ("up0", "up0: Device or resource busy"),
            ("down0", "down0: Network is down"),
            ("tun0", "tun0: Invalid argument"),
            ("lo", "lo: Invalid argument"),
            ("none0", "none0: No such device"),
            ("up%d", "up%d: No such device"),
        ] {
            let refused = end(&mut run(tap));
            assert_eq!((refused.code(), refused.stdout.as_str()), (Some(1), ""), "{tap}: {refused:?}");
            let text =
                format!("solo5-spt: Invalid option: `--net:service={tap}': Could not attach interface: {wanted}; ");
            assert!(refused.stderr.starts_with(&text) && refused.stderr.lines().count() == 1, "{tap}: {refused:?}");
        }
        holder.finish();
        let mut next = crate::tender::Running::start(&mut run("up0"));
        next.console("network: address");
    });
}

#[test]
fn a_disk_that_does_not_fit_is_refused() {
    for (bytes, wanted) in [(0, "has 0 bytes"), (511, "has 511 bytes"), (513, "has 513 bytes")] {
        let disk = Disk::new(&format!("size-{bytes}"), &vec![0; bytes]);
        let (_ours, theirs) = UnixDatagram::pair().unwrap();
        fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut command = tender(Kind::Spt);
        command.arg(format!("--net:service=@{}", theirs.as_raw_fd()));
        command.arg(format!("--block:storage={}", disk.path.display())).arg(image(Kind::Spt, "devices"));
        let end = end(&mut command);
        assert_eq!(end.code(), Some(1));
        assert!(end.stderr.contains("storage: Backing storage must be") && end.stderr.contains(wanted), "{end:?}");
    }
}
