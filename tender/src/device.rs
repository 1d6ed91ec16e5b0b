//! The devices of a guest: every one that the image declares, opened as the command line says.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use fulmar_core::solo5::{DeviceKind, Manifest};

use crate::arguments::{self, DeviceOption, DeviceValue};
use crate::refusal::{OptionFault, Refusal};
use crate::sys::Errno;
use crate::tap::{self, Tap};

/// Bytes of a sector where the command line says nothing.
const SECTOR_BYTES: u16 = 512;

/// All devices of a guest, in the order of their handles, which begin at 1.
pub(crate) struct Devices {
    list: Vec<Device>,
}

/// A device that the image declares and that is open.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) attachment: Attachment,
}

/// What stands behind a device.
pub(crate) enum Attachment {
    Net { fd: OwnedFd, mac: [u8; 6], mtu: u16 },
    Block { file: File, capacity_bytes: u64, sector_bytes: u16 },
}

impl Attachment {
    pub(crate) fn kind(&self) -> DeviceKind {
        match self {
            Attachment::Net { .. } => DeviceKind::Net,
            Attachment::Block { .. } => DeviceKind::Block,
        }
    }

    pub(crate) fn fd(&self) -> RawFd {
        match self {
            Attachment::Net { fd, .. } => fd.as_raw_fd(),
            Attachment::Block { file, .. } => file.as_raw_fd(),
        }
    }
}

/// What the options have said about one device so far.
#[derive(Default)]
struct Draft {
    tap: Option<Tap>,
    mac: Option<[u8; 6]>,
    disk: Option<(File, String)>,
    sector_bytes: Option<u16>,
}

impl Devices {
    /// Opens what the options name. All that the image declares must be given, and nothing else, each once.
    pub(crate) fn open(manifest: &Manifest, options: &[DeviceOption]) -> Result<Devices, Refusal> {
        let mut drafts: Vec<Draft> = manifest.devices().iter().map(|_| Draft::default()).collect();
        for option in options {
            take(manifest, &mut drafts, option)
                .map_err(|fault| Refusal::Option { option: option.text.clone(), fault })?;
        }
        let (mut list, mut missing) = (Vec::new(), Vec::new());
        for (declared, draft) in manifest.devices().iter().zip(drafts) {
            let name = declared.name.to_string();
            match draft {
                Draft { tap: Some(Tap { fd, mtu }), mac, .. } => {
                    let mac = mac.filter(|mac| *mac != [0; 6]).map_or_else(random_mac, Ok)?;
                    list.push(Device { name, attachment: Attachment::Net { fd, mac, mtu } });
                }
                Draft { disk: Some((file, path)), sector_bytes, .. } => {
                    let sector_bytes = sector_bytes.unwrap_or(SECTOR_BYTES);
                    let attachment = size_disk(&name, file, path, sector_bytes)?;
                    list.push(Device { name, attachment });
                }
                _ => missing.push((name, declared.kind)),
            }
        }
        if missing.is_empty() { Ok(Devices { list }) } else { Err(Refusal::Missing { devices: missing }) }
    }

    /// The devices; the handle of each is its index plus 1.
    pub(crate) fn list(&self) -> &[Device] {
        &self.list
    }

    /// What stands behind a handle.
    pub(crate) fn attachment(&self, handle: u64) -> Option<&Attachment> {
        let index = usize::try_from(handle).ok()?.checked_sub(1)?;
        self.list.get(index).map(|device| &device.attachment)
    }

    /// Handles and descriptors of the networks, to wait for.
    pub(crate) fn nets(&self) -> impl Iterator<Item = (u64, RawFd)> {
        let handles = (1u64..).zip(&self.list);
        handles.filter_map(|(handle, device)| match &device.attachment {
            Attachment::Net { fd, .. } => Some((handle, fd.as_raw_fd())),
            Attachment::Block { .. } => None,
        })
    }
}

fn take(manifest: &Manifest, drafts: &mut [Draft], option: &DeviceOption) -> Result<(), OptionFault> {
    let kind = match option.value {
        DeviceValue::Net(_) | DeviceValue::NetMac(_) => DeviceKind::Net,
        DeviceValue::Block(_) | DeviceValue::BlockSectorSize(_) => DeviceKind::Block,
    };
    let handle = manifest.handle(&option.name, kind);
    let Some(draft) = handle.and_then(|handle| drafts.get_mut(handle.checked_sub(1)?)) else {
        return Err(OptionFault::Undeclared { name: option.name.clone(), kind, declared: declared(manifest) });
    };
    let twice = match &option.value {
        DeviceValue::Net(value) => draft.tap.replace(open_tap(value)?).is_some(),
        DeviceValue::NetMac(mac) => draft.mac.replace(*mac).is_some(),
        DeviceValue::Block(path) => draft.disk.replace(open_disk(path)?).is_some(),
        DeviceValue::BlockSectorSize(bytes) => draft.sector_bytes.replace(*bytes).is_some(),
    };
    if twice { Err(OptionFault::Twice { name: option.name.clone() }) } else { Ok(()) }
}

fn open_tap(value: &OsStr) -> Result<Tap, OptionFault> {
    let opened = match arguments::fd(value) {
        Some(number) => tap::inherit(number),
        None => tap::attach(value),
    };
    opened.map_err(|errno| OptionFault::Interface { interface: value.to_string_lossy().into_owned(), errno })
}

fn open_disk(path: &OsStr) -> Result<(File, String), OptionFault> {
    let name = path.to_string_lossy().into_owned();
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok((file, name)),
        Err(error) => Err(OptionFault::Block { path: name, errno: error.into() }),
    }
}

fn size_disk(name: &str, mut file: File, path: String, sector_bytes: u16) -> Result<Attachment, Refusal> {
    let capacity_bytes = file.seek(SeekFrom::End(0)).map_err(|error| Refusal::Step {
        what: "Could not determine capacity of a block device",
        errno: error.into(),
        remedy: "give it a regular file or a disk",
    })?;
    if capacity_bytes < u64::from(sector_bytes) || !capacity_bytes.is_multiple_of(u64::from(sector_bytes)) {
        return Err(Refusal::BlockSize { name: name.to_owned(), path, capacity: capacity_bytes, sector_bytes });
    }
    Ok(Attachment::Block { file, capacity_bytes, sector_bytes })
}

/// An address for a network that was given none: random, unicast, locally administered.
fn random_mac() -> Result<[u8; 6], Refusal> {
    let mut mac = [0; 6];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut mac));
    read.map_err(|error| Refusal::Step {
        what: "Could not read /dev/urandom",
        errno: Errno::from(error),
        remedy: "give each network its address with --net-mac",
    })?;
    mac[0] = (mac[0] & 0xfe) | 2;
    Ok(mac)
}

/// What the image declares, for people.
fn declared(manifest: &Manifest) -> String {
    if manifest.devices().is_empty() {
        return String::from("no devices");
    }
    let texts: Vec<String> =
        manifest.devices().iter().map(|device| format!("{} '{}'", device.kind, device.name)).collect();
    texts.join(", ")
}
