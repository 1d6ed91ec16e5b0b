//! Disks: nobody has one twice, whatever way it is given, and what is no disk is refused.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::tender::{Disk, Running, await_console, end, image, kinds, tender, wait};
use fulmar_tests::built::Kind;
use fulmar_tests::skips::skip;

/// A command that runs `block` with this disk.
fn run(kind: Kind, disk: &str) -> Command {
    let mut command = tender(kind);
    command.args(["--mem=2", &format!("--block:storage={disk}")]).arg(image(kind, "block"));
    command
}

/// A command that runs `devices`, which waits for a frame, with this disk.
fn hold(kind: Kind, disk: &str) -> (Command, UnixDatagram, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut command = tender(kind);
    command.args(["--mem=4", &format!("--net:service=@{}", theirs.as_raw_fd()), &format!("--block:storage={disk}")]);
    command.arg(image(kind, "devices"));
    (command, ours, theirs)
}

#[test]
fn nobody_else_has_a_disk_that_a_guest_has() {
    for kind in kinds("disk in use") {
        let disk = Disk::new(&format!("used-{}", kind.name()), &[0; 8192]);
        let path = disk.path.display().to_string();
        let (mut command, _ours, _theirs) = hold(kind, &path);
        let mut holder = Running::start(&mut command);
        holder.console("waiting for a frame");
        for other in [Kind::Spt, kind] {
            let refused = end(&mut run(other, &path));
            assert_eq!(refused.code(), Some(1), "{refused:?}");
            assert!(refused.stderr.contains("it is in use; end the unikernel that has it"), "{refused:?}");
        }
        let second = File::options().read(true).write(true).open(&disk.path).unwrap();
        fcntl(&second, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let refused = end(&mut run(kind, &format!("@{}", second.as_raw_fd())));
        assert!(refused.code() == Some(1) && refused.stderr.contains("it is in use"), "{refused:?}");
        drop(second);
        // However the holder ends, the disk is free.
        holder.finish();
        assert_eq!(end(&mut run(kind, &path)).code(), Some(0));
    }
}

#[test]
fn what_is_no_disk_is_refused() {
    let folder = std::env::temp_dir().display().to_string();
    let disk = Disk::new("read-only", &[0; 8192]);
    let read_only = File::open(&disk.path).unwrap();
    fcntl(&read_only, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    for (value, wanted) in [
        (folder.as_str(), "Is a directory"),
        ("/dev/null", "neither a file nor a block device"),
        (&format!("@{}", read_only.as_raw_fd()), "Permission denied"),
    ] {
        let refused = end(&mut run(Kind::Spt, value));
        assert_eq!((refused.code(), refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{wanted}: {refused:?}");
    }
}

/// A disk of the host: a loop device over a file.
#[test]
fn a_block_device_is_a_disk_unless_the_host_uses_it() {
    const TEST: &str = "a_block_device_is_a_disk_unless_the_host_uses_it";
    let losetup = |words: &[&str]| {
        let output = Command::new("losetup").args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    for kind in kinds("block device") {
        let disk = Disk::new(&format!("device-{}", kind.name()), &[0; 64 * 1024]);
        let Some(device) = losetup(&["--find", "--show", &disk.path.display().to_string()]) else {
            return skip(TEST, "no loop device can be had here");
        };
        let ends = [end(&mut run(kind, &device)), end(&mut run(kind, &device))];
        // Whoever opens it with O_EXCL, as a mount does, has it alone.
        let used = File::options().read(true).custom_flags(libc::O_EXCL).open(&device);
        let refused = end(&mut run(kind, &device));
        drop(used);
        losetup(&["--detach", &device]).unwrap();
        let [first, second] = ends;
        assert!(first.code() == Some(0) && second.code() == Some(0), "{first:?} {second:?}");
        assert!(second.stdout.contains("boot 2"), "{second:?}");
        assert!(refused.code() == Some(1) && refused.stderr.contains("it is in use"), "{refused:?}");
        assert!(fs::read(&disk.path).unwrap().iter().any(|byte| *byte != 0), "the guest wrote through to the file");
    }
}

/// All devices that an image can have.
#[test]
fn sixty_three_devices_are_each_their_own() {
    for kind in kinds("63 devices") {
        let mut command = tender(kind);
        command.arg("--mem=4");
        let (mut ours, mut theirs, mut disks) = (Vec::new(), Vec::new(), Vec::new());
        for number in 1..=21u8 {
            let (our, their) = UnixDatagram::pair().unwrap();
            fcntl(&their, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            our.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
            command.arg(format!("--net:n{number}=@{}", their.as_raw_fd()));
            command.arg(format!("--net-mac:n{number}=02:00:00:00:00:{number:02x}"));
            ours.push(our);
            theirs.push(their);
        }
        for number in 1..=42u8 {
            let disk = Disk::new(&format!("many-{number}-{}", kind.name()), &[number; 1024]);
            command.arg(format!("--block:b{number}={}", disk.path.display()));
            disks.push(disk);
        }
        let mut child = command.arg(image(kind, "many")).spawn().unwrap();
        drop(theirs);
        await_console(&mut child, "waiting for frames");
        for (number, our) in (1..).zip(&ours) {
            let mut frame = [0; 64];
            assert_eq!((our.recv(&mut frame).unwrap(), frame[0]), (60, number));
            our.send(&[number; 60]).unwrap();
        }
        let end = wait(child);
        assert_eq!((end.code(), end.stderr.as_str()), (Some(0), ""), "{end:?}");
        for (number, disk) in (1..).zip(&disks) {
            let bytes = fs::read(&disk.path).unwrap();
            assert!(bytes[..512] == [number + 100; 512] && bytes[512..] == [number; 512], "disk {number}");
        }
    }
}
