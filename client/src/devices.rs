//! The devices of an image against those given: what is missing, what is too much, and which option mends it.

use std::fmt;

use fulmar_core::solo5::{DeviceKind, Manifest};

use crate::options::{BlockOption, NetOption};

/// One difference between what an image declares and what it is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceFault {
    /// The image wants it and it is not given.
    Missing {
        /// What it is.
        kind: DeviceKind,
        /// Its name in the manifest.
        name: String,
    },
    /// It is given and the image has none of that name.
    Unknown {
        /// What it is.
        kind: DeviceKind,
        /// Its name on the command line.
        name: String,
    },
    /// It is given twice.
    Twice {
        /// What it is.
        kind: DeviceKind,
        /// Its name on the command line.
        name: String,
    },
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { kind: DeviceKind::Net, name } => {
                write!(f, "net device {name} is missing, add --net={name}:BRIDGE")
            }
            Self::Missing { kind: DeviceKind::Block, name } => {
                write!(f, "block device {name} is missing, add --block={name}:HOSTDEVICE")
            }
            Self::Unknown { kind, name } => {
                write!(f, "it has no {kind} device {name}, leave out --{kind}={name}")
            }
            Self::Twice { kind, name } => {
                write!(f, "{kind} device {name} is given twice, leave out one --{kind}={name}")
            }
        }
    }
}

/// Compares the manifest with the options: empty when each device is given exactly once.
#[must_use]
pub fn compare(manifest: &Manifest, nets: &[NetOption], blocks: &[BlockOption]) -> Vec<DeviceFault> {
    let given: Vec<(DeviceKind, &str)> = blocks
        .iter()
        .map(|block| (DeviceKind::Block, block.device.as_str()))
        .chain(nets.iter().map(|net| (DeviceKind::Net, net.device.as_str())))
        .collect();
    let missing = manifest
        .devices()
        .iter()
        .filter(|device| !given.contains(&(device.kind, device.name.as_str())))
        .map(|device| DeviceFault::Missing { kind: device.kind, name: device.name.as_str().to_owned() });
    let unwanted = given.iter().enumerate().filter_map(|(index, (kind, name))| {
        let (kind, name) = (*kind, (*name).to_owned());
        if given.iter().take(index).any(|earlier| *earlier == (kind, name.as_str())) {
            Some(DeviceFault::Twice { kind, name })
        } else if manifest.handle(&name, kind).is_none() {
            Some(DeviceFault::Unknown { kind, name })
        } else {
            None
        }
    });
    missing.chain(unwanted).collect()
}
