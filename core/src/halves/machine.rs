//! A virtual machine of bhyve: what there is to say of it, and the command lines that follow from that. They are made here, of checked
//! parts and of what the host half adds (names of taps), so nobody hands one to a privileged process.
//!
//! ```text
//! load   bhyveload -m512m -d/dev/fd/3 NAME
//!        grub-bhyve -m/dev/fd/4 -rhd0,msdos1 -M512 NAME      where Linux is booted; fd 4 is its map of disks
//! run    bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,TAP,type=tap,mac=MAC -s3,virtio-blk,/dev/fd/3 \
//!              -lcom1,stdio -c2 -m512M NAME
//! ```

use core::fmt::Write as _;

use heapless::String;
use serde::{Deserialize, Serialize};

use super::{LaunchError, Texts, TextsFull, TextsWriter, Unit};
use crate::limits::{
    INTERFACE_BYTES_MAX, MACHINE_DEVICES_MAX, MACHINE_PROCESSORS_MAX, PARTITION_BYTES_MAX, ZVOL_BYTES_MAX,
};

/// The fd under which the first disk is found, the others follow: behind empty standard input and the console.
pub const DISK_FD_FIRST: u16 = 3;

/// What stands in the place of a path for a disk that travels as a fd.
pub const BY_FD: &[u8] = b"@";

/// Bytes of a command line: each device with its name and its address, and the rest.
pub const MACHINE_LINE_BYTES_MAX: usize = MACHINE_DEVICES_MAX * (INTERFACE_BYTES_MAX + 64) + PARTITION_BYTES_MAX + 256;

/// The slots of the bus that the bridge and the serial line have.
const SLOT_FIRST: usize = 2;

/// Where all zvols are.
const ZVOLS: &str = "/dev/zvol/";

/// The name of a virtual machine.
pub type MachineName = String<40>;

/// What the virtual machine of a unit is called, by a host half that `tag` tells from others of the same host.
#[must_use]
pub fn machine_name(tag: u32, unit: Unit) -> MachineName {
    let mut name = MachineName::new();
    // It has room for the longest.
    let _ = write!(name, "fulmar-{tag:08x}-{}", unit.0);
    name
}

/// Whether this is the path of a zvol and leads nowhere else.
#[must_use]
pub fn is_zvol(path: &str) -> bool {
    let Some(dataset) = path.strip_prefix(ZVOLS) else { return false };
    let is_plain = |part: &str| {
        let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        !matches!(part, "" | "." | "..") && part.bytes().all(of_names)
    };
    path.len() <= ZVOL_BYTES_MAX && dataset.split('/').all(is_plain)
}

/// Whether a partition can be called this.
#[must_use]
pub fn is_partition(text: &str) -> bool {
    (1..=PARTITION_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What a plan says of a virtual machine, beside what it says of every process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VirtualMachine<'a> {
    /// How many processors it has.
    pub processors: u8,
    /// The addresses of its networks, six bytes each, in their order.
    pub macs: &'a [u8],
    /// Its disks in their order: the path of a zvol, or [`BY_FD`] for one that travels with the plan.
    #[serde(borrow)]
    pub disks: Texts<'a>,
    /// The partition of disk 0 that Linux is booted from; without one FreeBSD's loader looks for itself.
    pub linux_boot: Option<&'a str>,
}

impl VirtualMachine<'_> {
    /// Checks every bound, beside these networks and with so many disks that travel with the plan.
    ///
    /// # Errors
    /// [`LaunchError::Machine`].
    pub(super) fn check(&self, networks: &Texts<'_>, by_fd: u8) -> Result<(), LaunchError> {
        let (networks, disks) = (networks.iter().count(), self.disks.iter().count());
        let is_disk = |disk: &[u8]| disk == BY_FD || core::str::from_utf8(disk).is_ok_and(is_zvol);
        let is_sane = disks > 0
            && networks.saturating_add(disks) <= MACHINE_DEVICES_MAX
            && (1..=MACHINE_PROCESSORS_MAX).contains(&i64::from(self.processors))
            && self.macs.len() == networks.saturating_mul(6)
            && self.disks.iter().all(is_disk)
            && self.disks.iter().filter(|disk| *disk == BY_FD).count() == usize::from(by_fd)
            && self.linux_boot.is_none_or(is_partition);
        if is_sane { Ok(()) } else { Err(LaunchError::Machine) }
    }

    /// The fd behind those of the disks.
    #[must_use]
    pub fn fd_behind_disks(&self) -> u16 {
        DISK_FD_FIRST.saturating_add(u16::try_from(self.disks.iter().count()).unwrap_or(u16::MAX))
    }

    /// The command line of what loads its kernel, with so much memory in MiB.
    ///
    /// # Errors
    /// [`TextsFull`] where `buffer` has less than [`MACHINE_LINE_BYTES_MAX`] bytes.
    pub fn load<'b>(&self, name: &str, memory_mb: u32, buffer: &'b mut [u8]) -> Result<Texts<'b>, TextsFull> {
        let mut line = TextsWriter::new(buffer);
        if let Some(partition) = self.linux_boot {
            line.push(b"grub-bhyve")?;
            line.push_format(format_args!("-m/dev/fd/{}", self.fd_behind_disks()))?;
            line.push_format(format_args!("-rhd0,{partition}"))?;
            line.push_format(format_args!("-M{memory_mb}"))?;
        } else {
            line.push(b"bhyveload")?;
            line.push_format(format_args!("-m{memory_mb}m"))?;
            line.push_format(format_args!("-d/dev/fd/{DISK_FD_FIRST}"))?;
        }
        line.push(name.as_bytes())?;
        Ok(line.finish())
    }

    /// What the loader of Linux reads of its disks, where it is the one that loads.
    #[must_use]
    pub fn disk_map(&self) -> Option<String<32>> {
        self.linux_boot?;
        let mut map = String::new();
        // It has room for that.
        let _ = writeln!(map, "(hd0) /dev/fd/{DISK_FD_FIRST}");
        Some(map)
    }

    /// The command line of bhyve, with the names of its taps in the order of its networks.
    ///
    /// # Errors
    /// [`TextsFull`] where `buffer` has less than [`MACHINE_LINE_BYTES_MAX`] bytes.
    pub fn run<'b, 't>(
        &self,
        name: &str,
        memory_mb: u32,
        taps: impl Iterator<Item = &'t str>,
        buffer: &'b mut [u8],
    ) -> Result<Texts<'b>, TextsFull> {
        let mut line = TextsWriter::new(buffer);
        for fixed in ["bhyve", "-A", "-H", "-P", "-s0,hostbridge", "-s1,lpc"] {
            line.push(fixed.as_bytes())?;
        }
        let mut slots = SLOT_FIRST..;
        for (tap, mac) in taps.zip(self.macs.as_chunks().0) {
            let (slot, [a, b, c, d, e, f]) = (slots.next().unwrap_or_default(), mac);
            // It would not know a tap by this name.
            line.push_format(format_args!(
                "-s{slot},virtio-net,{tap},type=tap,mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"
            ))?;
        }
        for (fd, _) in (DISK_FD_FIRST..).zip(self.disks.iter()) {
            let slot = slots.next().unwrap_or_default();
            line.push_format(format_args!("-s{slot},virtio-blk,/dev/fd/{fd}"))?;
        }
        line.push(b"-lcom1,stdio")?;
        line.push_format(format_args!("-c{}", self.processors))?;
        line.push_format(format_args!("-m{memory_mb}M"))?;
        line.push(name.as_bytes())?;
        Ok(line.finish())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn words(texts: Texts<'_>) -> std::string::String {
        texts.iter().map(|text| core::str::from_utf8(text).unwrap()).collect::<std::vec::Vec<_>>().join(" ")
    }

    const MACHINE: VirtualMachine<'_> =
        VirtualMachine { processors: 2, macs: &[], disks: Texts::EMPTY, linux_boot: None };

    #[test]
    fn the_lines_are_those_of_the_manual() {
        let disks = Texts::new(b"@\0/dev/zvol/tank/data\0").unwrap();
        let machine = VirtualMachine { macs: &[0, 0x80, 0x41, 1, 2, 0xff], disks, ..MACHINE };
        let name = machine_name(0xbeef, Unit(17));
        let mut buffer = [0; MACHINE_LINE_BYTES_MAX];
        let load = words(machine.load(&name, 512, &mut buffer).unwrap());
        assert_eq!(load, "bhyveload -m512m -d/dev/fd/3 fulmar-0000beef-17");
        assert_eq!(machine.disk_map(), None);
        let run = words(machine.run(&name, 512, ["vmmtap4"].into_iter(), &mut buffer).unwrap());
        assert_eq!(
            run,
            "bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,vmmtap4,type=tap,mac=00:80:41:01:02:ff \
             -s3,virtio-blk,/dev/fd/3 -s4,virtio-blk,/dev/fd/4 -lcom1,stdio -c2 -m512M fulmar-0000beef-17"
        );
        let linux = VirtualMachine { linux_boot: Some("msdos1"), ..machine };
        let load = words(linux.load(&name, 512, &mut buffer).unwrap());
        assert_eq!(load, "grub-bhyve -m/dev/fd/5 -rhd0,msdos1 -M512 fulmar-0000beef-17");
        assert_eq!(linux.disk_map().unwrap(), "(hd0) /dev/fd/3\n");
    }

    #[test]
    fn the_longest_line_has_room() {
        let (macs, mut disks) = ([0xff; MACHINE_DEVICES_MAX * 6], [0; MACHINE_DEVICES_MAX * 2]);
        let machine = VirtualMachine { macs: &macs, linux_boot: Some("a"), processors: 16, ..MACHINE };
        let (name, mut buffer) = (machine_name(u32::MAX, Unit(u64::MAX)), [0; MACHINE_LINE_BYTES_MAX]);
        assert_eq!(name.len(), name.capacity() - 4);
        let tap = core::str::from_utf8(&[b'x'; INTERFACE_BYTES_MAX]).unwrap();
        machine.run(&name, u32::MAX, core::iter::repeat_n(tap, MACHINE_DEVICES_MAX), &mut buffer).unwrap();
        disks.iter_mut().step_by(2).for_each(|byte: &mut u8| *byte = b'@');
        let disks = Texts::new(&disks).unwrap();
        VirtualMachine { disks, ..machine }.run(&name, u32::MAX, core::iter::empty(), &mut buffer).unwrap();
    }

    #[test]
    fn a_zvol_leads_nowhere_else() {
        for path in ["/dev/zvol/tank/vm-1", "/dev/zvol/tank/a.b_c:d/0"] {
            assert!(is_zvol(path), "{path}");
        }
        let long = std::format!("/dev/zvol/tank/{}", "a".repeat(ZVOL_BYTES_MAX));
        for path in [
            "",
            "/dev/zvol/",
            "/dev/zvol",
            "/dev/zvol/../ada0",
            "/dev/zvol/tank/../../ada0",
            "/dev/zvol/tank//a",
            "/dev/zvol/tank/.",
            "/dev/ada0",
            "/dev/zvol/tank/a,b",
            "/dev/zvol/tank/a b",
            "/dev/zvol/tank/a/",
            &long,
        ] {
            assert!(!is_zvol(path), "{path}");
        }
    }

    #[test]
    fn what_a_machine_cannot_have_is_refused() {
        let (one, none) = (Texts::new(b"@\0").unwrap(), Texts::EMPTY);
        let good = VirtualMachine { disks: one, ..MACHINE };
        assert_eq!(good.check(&none, 1), Ok(()));
        for (machine, networks, by_fd) in [
            (MACHINE, none, 0),
            (good, none, 0),
            (good, none, 2),
            (good, one, 1),
            (VirtualMachine { processors: 0, ..good }, none, 1),
            (VirtualMachine { processors: 17, ..good }, none, 1),
            (VirtualMachine { disks: Texts::new(b"/dev/ada0\0").unwrap(), ..good }, none, 0),
            (VirtualMachine { linux_boot: Some("msdos1,x"), ..good }, none, 1),
            (VirtualMachine { linux_boot: Some(""), ..good }, none, 1),
        ] {
            assert_eq!(machine.check(&networks, by_fd), Err(LaunchError::Machine), "{machine:?}");
        }
    }
}
