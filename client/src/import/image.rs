//! An image as it stands in a state file: what the daemon would find when it stores it.

use std::io::Read;

use flate2::bufread::ZlibDecoder;
use fulmar_core::limits::IMAGE_BYTES_MAX;
use fulmar_core::machine::{Digest, StoreError};
use fulmar_core::solo5::{self, ImageFacts};
use fulmar_core::wire::{Config, Image};
use sha2::{Digest as _, Sha256};

/// What there is to know about an image before it is sent.
#[derive(Debug)]
pub(super) struct Seen {
    /// SHA-256, uncompressed.
    pub(super) digest: Digest,
    /// Bytes, uncompressed.
    pub(super) bytes: u64,
    /// What it says about itself.
    pub(super) facts: ImageFacts,
}

/// The octets of a unikernel's image, compressed or not. A state file is held whole, so nothing of it is anywhere else.
pub(super) fn octets<'a>(config: &Config<'a>) -> &'a [u8] {
    match config.image {
        Image::Inline(octets) => octets,
        Image::Diverted { .. } => &[],
    }
}

/// Looks at an image as the daemon's store does.
pub(super) fn look(config: &Config<'_>) -> Result<Seen, StoreError> {
    let octets = octets(config);
    if !config.compressed {
        return see(octets);
    }
    let mut decoder = ZlibDecoder::new(octets);
    let mut plain = Vec::new();
    decoder.by_ref().take(IMAGE_BYTES_MAX + 1).read_to_end(&mut plain).map_err(|_| StoreError::Compression)?;
    if plain.len() as u64 <= IMAGE_BYTES_MAX && !decoder.get_ref().is_empty() {
        return Err(StoreError::Compression);
    }
    see(&plain)
}

fn see(plain: &[u8]) -> Result<Seen, StoreError> {
    let bytes = plain.len() as u64;
    if bytes > IMAGE_BYTES_MAX {
        return Err(StoreError::TooLarge);
    }
    let facts = solo5::inspect(plain).map_err(StoreError::Image)?;
    Ok(Seen { digest: Sha256::digest(plain).into(), bytes, facts })
}
