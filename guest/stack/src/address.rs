//! Addresses as people write them.

use fulmar_guest::decimal;

/// `10.0.0.2`.
#[must_use]
pub fn address(text: &[u8]) -> Option<[u8; 4]> {
    let mut parts = text.split(|byte| *byte == b'.');
    let mut address = [0; 4];
    for byte in &mut address {
        *byte = decimal(parts.next()?)?.try_into().ok()?;
    }
    parts.next().is_none().then_some(address)
}

/// `10.0.0.2/24`: an address of a machine, and how many bits of it are its network's.
#[must_use]
pub fn network(text: &[u8]) -> Option<([u8; 4], u8)> {
    let (text, bits) = split(text, b'/')?;
    let bits = decimal(bits)?.try_into().ok().filter(|bits| *bits <= 32)?;
    address(text).filter(|address| is_of_machine(*address)).map(|address| (address, bits))
}

/// `10.0.0.3` or `10.0.0.3:8080`.
#[must_use]
pub fn endpoint(text: &[u8], port: u16) -> Option<([u8; 4], u16)> {
    let (text, port) = match split(text, b':') {
        Some((text, digits)) => (text, decimal(digits)?.try_into().ok().filter(|port| *port > 0)?),
        None => (text, port),
    };
    address(text).map(|address| (address, port))
}

/// Whether one machine can have this address: it is not nobody's, not a group's, not everybody's.
#[must_use]
pub fn is_of_machine([first, ..]: [u8; 4]) -> bool {
    (1..224).contains(&first)
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = text.iter().position(|byte| *byte == at)?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}
