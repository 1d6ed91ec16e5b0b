//! The devices of a guest: opened as the command line says, then matched with what the image declares. The opening comes
//! first, while the tender still may; whatever did not open is said when its turn comes.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use fulmar_core::solo5::{DeviceKind, Manifest};

use crate::arguments::{self, DeviceOption, DeviceValue};
use crate::disk::{self, Disk};
use crate::inherited::Inherited;
use crate::refusal::{DiskFault, OptionFault, Refusal};
use crate::sys;
use crate::tap::{self, Tap};

/// Bytes of a sector where the command line says nothing.
const SECTOR_BYTES: u16 = 512;

/// All devices of a guest, in the order of their handles, which begin at 1.
pub(crate) struct Devices {
    pub(crate) list: Vec<Device>,
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

/// An option that speaks of a device, with what it names opened.
pub(crate) struct OpenedOption {
    text: String,
    name: String,
    what: Opened,
}

enum Opened {
    Tap(Result<Tap, OptionFault>),
    Mac([u8; 6]),
    Disk(Result<Disk, DiskFault>, String),
    SectorBytes(u16),
}

/// Opens what the options name.
pub(crate) fn open(
    options: Vec<DeviceOption>,
    inherited: &mut Inherited,
    net_control: Option<&OwnedFd>,
) -> Vec<OpenedOption> {
    let opened = options.into_iter().map(|DeviceOption { text, name, value }| {
        let what = match value {
            DeviceValue::Net(tap) => Opened::Tap(open_tap(&tap, inherited, net_control)),
            DeviceValue::NetMac(mac) => Opened::Mac(mac),
            DeviceValue::Block(path) => Opened::Disk(disk::open(&path, inherited), path.to_string_lossy().into_owned()),
            DeviceValue::BlockSectorSize(bytes) => Opened::SectorBytes(bytes),
        };
        OpenedOption { text, name, what }
    });
    opened.collect()
}

fn open_tap(value: &OsStr, inherited: &mut Inherited, net_control: Option<&OwnedFd>) -> Result<Tap, OptionFault> {
    let opened = match arguments::fd(value) {
        Some(number) => inherited.take(number).and_then(|fd| tap::inherit(fd, net_control)),
        None => tap::attach(value),
    };
    opened.map_err(|errno| OptionFault::Interface { interface: value.to_string_lossy().into_owned(), errno })
}

/// What the options have said about one device so far.
#[derive(Default)]
struct Draft {
    tap: Option<Tap>,
    mac: Option<[u8; 6]>,
    disk: Option<(Disk, String)>,
    sector_bytes: Option<u16>,
}

impl Devices {
    /// Gives the image what it declares. All of that must have been opened, and nothing else, each once.
    pub(crate) fn attach(manifest: &Manifest, options: Vec<OpenedOption>) -> Result<Devices, Refusal> {
        let mut drafts: Vec<Draft> = manifest.devices().iter().map(|_| Draft::default()).collect();
        for OpenedOption { text, name, what } in options {
            take(manifest, &mut drafts, name, what).map_err(|fault| Refusal::Option { option: text, fault })?;
        }
        let (mut list, mut missing) = (Vec::new(), Vec::new());
        for (declared, draft) in manifest.devices().iter().zip(drafts) {
            let name = declared.name.to_string();
            match draft {
                Draft { tap: Some(Tap { fd, mtu }), mac, .. } => {
                    let mac = mac.filter(|mac| *mac != [0; 6]).map_or_else(random_mac, Ok)?;
                    list.push(Device { name, attachment: Attachment::Net { fd, mac, mtu } });
                }
                Draft { disk: Some((disk, path)), sector_bytes, .. } => {
                    let attachment = size_disk(&name, disk, path, sector_bytes.unwrap_or(SECTOR_BYTES))?;
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

    /// Whether there is a device of this kind.
    pub(crate) fn has(&self, kind: DeviceKind) -> bool {
        self.list.iter().any(|device| device.attachment.kind() == kind)
    }
}

fn take(manifest: &Manifest, drafts: &mut [Draft], name: String, what: Opened) -> Result<(), OptionFault> {
    let kind = match what {
        Opened::Tap(_) | Opened::Mac(_) => DeviceKind::Net,
        Opened::Disk(..) | Opened::SectorBytes(_) => DeviceKind::Block,
    };
    let index = manifest.handle(&name, kind).and_then(|handle| handle.checked_sub(1));
    let Some(index) = index.filter(|index| *index < drafts.len()) else {
        return Err(OptionFault::Undeclared { name, kind, declared: declared(manifest) });
    };
    let has_disk = |disk: &Disk| drafts.iter().any(|other| other.has(disk));
    let is_taken = matches!(&what, Opened::Disk(Ok(disk), _) if has_disk(disk));
    let draft = &mut drafts[index];
    let twice = match &what {
        Opened::Tap(_) => draft.tap.is_some(),
        Opened::Mac(_) => draft.mac.is_some(),
        Opened::Disk(..) => draft.disk.is_some(),
        Opened::SectorBytes(_) => draft.sector_bytes.is_some(),
    };
    if twice {
        return Err(OptionFault::Twice { name });
    }
    match what {
        Opened::Tap(tap) => draft.tap = Some(tap?),
        Opened::Mac(mac) => draft.mac = Some(mac),
        Opened::Disk(Ok(_), path) if is_taken => return Err(OptionFault::Disk { path, fault: DiskFault::Used }),
        Opened::Disk(Ok(disk), path) => draft.disk = Some((disk, path)),
        Opened::Disk(Err(fault), path) => return Err(OptionFault::Disk { path, fault }),
        Opened::SectorBytes(bytes) => draft.sector_bytes = Some(bytes),
    }
    Ok(())
}

impl Draft {
    /// Whether it has this very disk, by whatever name.
    fn has(&self, disk: &Disk) -> bool {
        self.disk.as_ref().is_some_and(|(own, _)| own.identity == disk.identity)
    }
}

fn size_disk(name: &str, disk: Disk, path: String, sector_bytes: u16) -> Result<Attachment, Refusal> {
    let Disk { file, capacity_bytes, identity: _ } = disk;
    if capacity_bytes < u64::from(sector_bytes) || !capacity_bytes.is_multiple_of(u64::from(sector_bytes)) {
        return Err(Refusal::BlockSize { name: name.to_owned(), path, capacity: capacity_bytes, sector_bytes });
    }
    Ok(Attachment::Block { file, capacity_bytes, sector_bytes })
}

/// An address for a network that was given none: random, unicast, locally administered.
fn random_mac() -> Result<[u8; 6], Refusal> {
    let mut mac = [0; 6];
    sys::random(&mut mac).map_err(|errno| Refusal::Step {
        what: "Could not get random bytes",
        errno,
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
