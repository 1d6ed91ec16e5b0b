//! The images of a manifest: their digests, and those that have to be sent as files, fetched from where they are and looked at.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::machine::Digest;
use fulmar_core::name::Name;
use fulmar_core::solo5::DeviceKind;
use fulmar_core::wire::{Command, UnikernelCommand};
use sha2::{Digest as _, Sha256};

use super::download::download;
use super::manifest::{Manifest, Source, UnikernelWish};
use super::plan::{Action, Plan};
use super::present::Present;
use super::section::Fault;
use crate::commands::inspect::memory_mib_min;
use crate::connection::{Daemon, Door};
use crate::error::Failure;
use crate::image::ImageFile;
use crate::new_file::NewFile;
use crate::output::text::hex;

/// Hexadecimal digits of a digest that tell images apart, as `info` shows them.
const DIGEST_DIGITS: usize = 12;

/// A folder for what is fetched, made when there is something, which goes with it.
#[derive(Debug)]
pub(super) struct Fetched {
    folder: PathBuf,
}

impl Fetched {
    pub(super) fn new() -> Result<Self, Failure> {
        let mut chance = [0; 8];
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, &mut chance).map_err(|_| Failure::Chance)?;
        let folder = std::env::temp_dir().join(format!("vmmc_deploy.{}", hex(&chance)));
        Ok(Self { folder })
    }

    /// Where the image of a unikernel goes. The folder has a name that nobody can guess, and nobody else can put an image there.
    fn place(&self, index: usize) -> Result<PathBuf, String> {
        match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Failure::Output { file: self.folder.clone(), error }.to_string())
            }
            _ => Ok(self.folder.join(index.to_string())),
        }
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What is left there is of no use, and harms nobody.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The digests of the unikernels' images, in the order of the manifest.
///
/// # Errors
/// Files that cannot be read.
pub(super) fn digests(manifest: &Manifest, beside: &Path) -> Result<Vec<Digest>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut digests = Vec::new();
    for wish in &manifest.unikernels {
        let digest = match &wish.image {
            Source::Digest(digest) | Source::Url(_, digest) => Ok(*digest),
            Source::File(file) => digest_of(&beside.join(file)),
        };
        match digest {
            Ok(digest) => digests.push(digest),
            Err(failure) => faults.push(fault(wish, failure.to_string())),
        }
    }
    if faults.is_empty() { Ok(digests) } else { Err(faults) }
}

/// The images that the plan sends, and nothing for the others; in the order of the manifest. Each is what it should be and fits what it is given.
///
/// # Errors
/// What cannot be had, or does not fit.
pub(super) fn images(
    manifest: &Manifest,
    beside: &Path,
    plan: &Plan,
    present: &Present,
    door: &dyn Door,
    fetched: &Fetched,
) -> Result<Vec<Option<ImageFile>>, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut images = Vec::new();
    for (index, wish) in manifest.unikernels.iter().enumerate() {
        let is_sent = |action| matches!(action, Action::Create(it) | Action::Replace(it) if it == index);
        if !plan.changes.iter().any(|change| is_sent(change.action)) {
            images.push(None);
            continue;
        }
        let file = match &wish.image {
            Source::File(file) => Ok(beside.join(file)),
            Source::Digest(digest) => {
                fetched.place(index).and_then(|place| fetch(*digest, &manifest.path, present, door, place))
            }
            Source::Url(url, digest) => fetched.place(index).and_then(|place| load(url, *digest, place)),
        };
        let image = file.and_then(|file| ImageFile::open(&file).map_err(|failure| failure.to_string()));
        match image {
            Ok(image) => {
                faults.extend(misfits(wish, &image, manifest, present).into_iter().map(|text| fault(wish, text)));
                images.push(Some(image));
            }
            Err(reason) => faults.push(fault(wish, reason)),
        }
    }
    if faults.is_empty() { Ok(images) } else { Err(faults) }
}

fn fault(wish: &UnikernelWish, reason: impl std::fmt::Display) -> Fault {
    Fault { line: wish.image_line, text: format!("unikernel {}: image: {reason}", wish.name) }
}

/// SHA-256 of a file.
fn digest_of(path: &Path) -> Result<Digest, Failure> {
    // Says what is wrong with it better than reading does.
    ImageFile::open(path)?;
    let failure = |error| Failure::Input { file: path.to_owned(), error };
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path).map_err(failure)?, &mut Hashing(&mut hash)).map_err(failure)?;
    Ok(hash.finalize().into())
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An image that a unikernel here runs; one below `path` if there is one.
fn fetch(digest: Digest, path: &Name, present: &Present, door: &dyn Door, place: PathBuf) -> Result<PathBuf, String> {
    let short = |digest: &Digest| hex(digest).chars().take(DIGEST_DIGITS).collect::<String>();
    let holders = present.unikernels.iter().filter(|(_, it)| it.digest == Some(digest)).map(|(name, _)| name);
    let Some(name) = holders.min_by_key(|name| !path.contains(name)) else {
        let there = present.unikernels.iter();
        let there = there.filter_map(|(name, it)| Some(format!("{} of {name}", short(it.digest.as_ref()?))));
        let there: Vec<String> = there.collect();
        let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        return Err(format!("no unikernel here has {}, but there are {there}", short(&digest)));
    };
    let get = || {
        let mut connection = door.open(Daemon::Vmmd)?;
        connection.send(*name, Command::Unikernel(UnikernelCommand::Get { level: 0 }))?;
        connection.receive_image(*name, || NewFile::create(&place, IMAGE_BYTES_MAX))?.finish()?;
        digest_of(&place)
    };
    match get() {
        Ok(came) if came == digest => Ok(place),
        Ok(came) => Err(format!("{name} has another image by now ({}): try again", short(&came))),
        Err(failure) => Err(failure.to_string()),
    }
}

/// An image from elsewhere.
fn load(url: &str, digest: Digest, place: PathBuf) -> Result<PathBuf, String> {
    download(url, &place).map_err(|reason| format!("{url}: {reason}"))?;
    match digest_of(&place) {
        Ok(came) if came == digest => Ok(place),
        Ok(came) => Err(format!("{url}: what came has another SHA-256, {}: it is not used", hex(&came))),
        Err(failure) => Err(failure.to_string()),
    }
}

/// What a unikernel of this image would miss.
fn misfits(wish: &UnikernelWish, image: &ImageFile, manifest: &Manifest, present: &Present) -> Vec<String> {
    let facts = match image.inspect() {
        Ok(facts) => facts,
        Err(failure) => return vec![failure.to_string()],
    };
    if let Err(error) = facts.check_runnable() {
        return vec![error.to_string()];
    }
    let mut misfits = Vec::new();
    let devices = facts.manifest.devices();
    let of_kind = |kind| devices.iter().filter(move |device| device.kind == kind).map(|device| device.name.as_str());
    let bridges: Vec<&str> = present.bridges.iter().flatten().map(String::as_str).collect();
    let blocks: BTreeSet<&Name> = present.blocks.keys().chain(manifest.blocks.iter().map(|it| &it.name)).collect();
    let blocks = blocks.into_iter().filter(|name| name.path() == wish.name.path()).filter_map(Name::label).collect();
    for (kind, table, example, given, there) in [
        (DeviceKind::Net, "networks", "BRIDGE", wish.settings.networks.keys().collect::<Vec<_>>(), bridges),
        (DeviceKind::Block, "blocks", "DEVICE", wish.settings.blocks.keys().collect::<Vec<_>>(), blocks),
    ] {
        let there = if there.is_empty() { String::new() } else { format!(", there are {}", there.join(", ")) };
        for name in of_kind(kind).filter(|name| !given.iter().any(|given| given == name)) {
            misfits.push(format!("{kind} device {name} is missing: add {table}.{name} = \"{example}\"{there}"));
        }
        for name in given.into_iter().filter(|name| !of_kind(kind).any(|device| device == name.as_str())) {
            let has: Vec<&str> = of_kind(kind).collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            misfits.push(format!("it has no {kind} device {name}, but {has}: leave out {table}.{name}"));
        }
    }
    let needed_mb = memory_mib_min(&facts);
    if needed_mb > u64::try_from(wish.settings.memory_mb).unwrap_or(0) {
        let given_mb = wish.settings.memory_mb;
        misfits.push(format!("it needs more than {given_mb} MB of memory: write memory = {needed_mb} or more"));
    }
    misfits
}
