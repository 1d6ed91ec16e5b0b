//! Files of keys and certificates: PEM or DER, bounded, and never overwritten unless somebody says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use der::pem::{LineEnding, encode_string};
use rustls::pki_types::pem::{PemObject, SectionKind};

use crate::error::Failure;
use crate::input;

/// Bytes of a file that is read here: the largest is a list of revoked certificates, in PEM.
const FILE_BYTES_MAX: u64 = 2 << 20;

/// What a PEM block or a file of DER holds.
#[derive(Clone, Debug)]
pub struct Block {
    /// What the PEM block says that it is; nothing of a file of DER.
    pub kind: Option<SectionKind>,
    /// Its DER.
    pub der: Vec<u8>,
}

/// Reads a file.
///
/// # Errors
/// [`Failure::Input`].
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failure = |error| Failure::Input { file: file.to_owned(), error };
    let mut bytes = Vec::new();
    input::open(file).and_then(|it| it.take(FILE_BYTES_MAX).read_to_end(&mut bytes)).map_err(failure)?;
    if bytes.len() as u64 >= FILE_BYTES_MAX {
        return Err(failure(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// What is in a file, in its order.
///
/// # Errors
/// [`Failure::Input`], [`Failure::Usage`].
pub fn blocks(file: &Path) -> Result<Vec<Block>, Failure> {
    let bytes = read(file)?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![Block { kind: None, der: bytes }]);
    }
    let blocks = <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes)
        .map(|block| block.map(|(kind, der)| Block { kind: Some(kind), der }))
        .collect::<Result<Vec<_>, _>>();
    match blocks {
        Ok(blocks) if !blocks.is_empty() => Ok(blocks),
        Ok(_) => Err(wrong(file, "has nothing in PEM or DER")),
        Err(_) => Err(wrong(file, "is no PEM that can be read")),
    }
}

/// The blocks of one kind in a file, at least one. A file of DER counts as one of the kind.
///
/// # Errors
/// As [`blocks`].
pub fn of_kind(file: &Path, kind: SectionKind, what: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let is_wanted = |block: &Block| block.kind.is_none_or(|it| it == kind);
    let wanted: Vec<_> = blocks(file)?.into_iter().filter(is_wanted).map(|block| block.der).collect();
    if wanted.is_empty() {
        return Err(wrong(file, &format!("has no {what}")));
    }
    Ok(wanted)
}

/// What is wrong with a file.
#[must_use]
pub fn wrong(file: &Path, what: &str) -> Failure {
    Failure::Usage { text: format!("{}: {what}: give another file", file.display()) }
}

/// A PEM block.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    // The label is one of ours, and DER has no length that PEM could not have.
    encode_string(label, LineEnding::LF, der).unwrap_or_default()
}

/// Writes a new file that only its owner may read; durable when this returns.
///
/// # Errors
/// [`Failure::Output`], also when it is there already.
pub fn write_secret(file: &Path, content: &[u8]) -> Result<(), Failure> {
    write(file, content, 0o600)
}

/// Writes a new file that everybody may read; durable when this returns.
///
/// # Errors
/// [`Failure::Output`], also when it is there already.
pub fn write_public(file: &Path, content: &[u8]) -> Result<(), Failure> {
    write(file, content, 0o644)
}

/// Says whether a new file of this name could be made as far as names go.
///
/// # Errors
/// [`Failure::Output`] when it is there already.
pub fn check_absent(file: &Path) -> Result<(), Failure> {
    match file.symlink_metadata() {
        Ok(_) => Err(Failure::Output { file: file.to_owned(), error: io::ErrorKind::AlreadyExists.into() }),
        Err(_) => Ok(()),
    }
}

fn write(file: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let failure = |error| Failure::Output { file: file.to_owned(), error };
    let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(file).map_err(failure)?;
    let written = out.write_all(content).and_then(|()| out.sync_all()).and_then(|()| sync_folder(file));
    written.map_err(failure).inspect_err(|_| remove(file))
}

/// Takes back a file that was just made: half of it is of no use. That it cannot be removed changes nothing.
pub fn remove(file: &Path) {
    let _ = fs::remove_file(file);
}

/// Makes sure that nobody else makes a file of this name: it is there, and has nothing yet.
///
/// # Errors
/// [`Failure::Output`], also when it is there already.
pub fn reserve(file: &Path) -> Result<(), Failure> {
    write(file, &[], 0o644)
}

/// Puts a file in the place of the one of this name, wholly or not at all.
///
/// # Errors
/// [`Failure::Output`].
pub fn replace(file: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{}.part", std::process::id()));
    let aside = Path::new(&aside);
    write(aside, content, mode)?;
    let renamed = fs::rename(aside, file).inspect_err(|_| remove(aside)).and_then(|()| sync_folder(file));
    renamed.map_err(|error| Failure::Output { file: file.to_owned(), error })
}

/// Makes names in the folder of this file durable.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
