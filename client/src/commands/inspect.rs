//! `inspect`: shows what an image says about itself. No daemon takes part.

use std::path::PathBuf;

use clap::Args;
use fulmar_core::solo5::{DeviceKind, ImageFacts};

use super::Context;
use crate::error::Failure;
use crate::image::ImageFile;
use crate::output::json;
use crate::output::table::write_pairs;
use crate::output::text::{plain, shell_word, size};

/// The command line of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local inspect hello.hvt")]
pub struct Inspect {
    /// The image: a Solo5 ELF file
    image: PathBuf,
}

impl Inspect {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let image = ImageFile::open(&self.image)?;
        let facts = image.inspect()?;
        let file = self.image.display().to_string();
        if context.json {
            return context.print_json(&json::image(&file, image.bytes(), &facts));
        }
        let devices = |kind| {
            let names = facts.manifest.devices().iter().filter(|device| device.kind == kind);
            names.map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let mut pairs = vec![
            ("image", plain(file.as_bytes())),
            ("size", size(image.bytes())),
            ("target", facts.abi.target.to_string()),
            ("ABI version", facts.abi.version.to_string()),
            ("networks", devices(DeviceKind::Net)),
            ("blocks", devices(DeviceKind::Block)),
            ("memory", format!("at least {} MB, its segments end at {:#x}", memory_mib_min(&facts), facts.memory_end)),
            ("entry", format!("{:#x}", facts.entry)),
            ("to run it", example(&file, &facts)),
        ];
        if let Err(error) = facts.check_runnable() {
            pairs.pop();
            pairs.push(("remark", error.to_string()));
        }
        if let Some(fault) = facts.section_fault {
            pairs.push(("remark", fault.to_string()));
        }
        write_pairs(context.out, &pairs).map_err(Failure::print)
    }
}

/// MB of memory without which the image cannot even be loaded; what it needs to run, it alone knows.
#[must_use]
pub fn memory_mib_min(facts: &ImageFacts) -> u64 {
    facts.memory_end / (1 << 20) + 1
}

/// The command that creates a unikernel from the image.
fn example(file: &str, facts: &ImageFacts) -> String {
    let mut text = format!("vmmc_local create NAME {}", shell_word(&plain(file.as_bytes())));
    for device in facts.manifest.devices() {
        text.push_str(&match device.kind {
            DeviceKind::Net => format!(" --net={}:BRIDGE", device.name),
            DeviceKind::Block => format!(" --block={}:HOSTDEVICE", device.name),
        });
    }
    let memory_mib = memory_mib_min(facts);
    if memory_mib > 32 {
        text.push_str(&format!(" --mem {memory_mib}"));
    }
    text
}
