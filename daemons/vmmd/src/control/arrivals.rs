//! Images that arrive: within a message or in chunks after it, into spools of a bounded size, which are bounded for each user too.

use std::io;

use fulmar_core::chunks::Piece;
use fulmar_core::limits::{IMAGE_BYTES_MAX, SPOOL_BYTES_PER_USER_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, Header, Image, Kind, Payload, UnikernelCommand};
use fulmar_host::debug;
use fulmar_host::spool::SpoolError;

use super::clients::Reading;
use super::{Control, ImageSpool, ImageSpools};

impl Control<'_> {
    /// Reads what has come of an image in chunks; after its end the create before it is handed on.
    pub(super) fn receive_image(&mut self, index: u16) -> Reading {
        let read = match self.receive(index) {
            Ok(0) => {
                debug!(connection = index; "a connection ended within an image");
                return Reading::Over;
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Reading::Blocked,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Reading::Acted,
            Err(_) => return Reading::Over,
        };
        let input = std::mem::take(&mut self.connections.input);
        let mut rest = &input[..read];
        let spooled = self.spooled_by_user(index);
        let ended = loop {
            let (connection, _, own) = self.connections.parts(index);
            match connection.imaging.0.next(&mut rest) {
                Ok(Piece::More) => break Ok(false),
                Ok(Piece::Bytes(piece)) if spooled + piece.len() as u64 > SPOOL_BYTES_PER_USER_MAX => {
                    break Err(Ok(SpoolError::UserQuota));
                }
                Ok(Piece::Bytes(piece)) => {
                    if connection.spool.is_none() {
                        match self.spools.create(IMAGE_BYTES_MAX) {
                            Ok(spool) => connection.spool = Some(spool),
                            Err(error) => break Err(Ok(error)),
                        }
                    }
                    if let Some(Err(error)) = connection.spool.as_mut().map(|spool| spool.append(piece)) {
                        break Err(Ok(error));
                    }
                }
                Ok(Piece::End) => {
                    own[..rest.len()].copy_from_slice(rest);
                    connection.early_bytes = rest.len();
                    break Ok(true);
                }
                Err(error) => break Err(Err(error)),
            }
        };
        self.connections.input = input;
        match ended {
            Ok(false) => {
                self.progress(index, read, false);
                Reading::Acted
            }
            Ok(true) => {
                let head_len = self.connections.get(index).imaging.1;
                self.dispatch(index, head_len, None);
                Reading::Acted
            }
            Err(Ok(error)) => self.refuse_spool(index, &error),
            Err(Err(error)) => {
                let header = self.header_so_far(index).unwrap_or_else(|| Header::new(0, Name::ROOT));
                self.refuse_and_linger(index, &header, format_args!("{error}"))
            }
        }
    }

    /// Bytes of the images that arrive from the user of this connection, where they are bounded. The user of the daemons is also that
    /// of the TLS end, so of all its tenants: one domain is not to take what others need.
    pub(super) fn spooled_by_user(&mut self, index: u16) -> u64 {
        let uid = self.uid_of(index);
        if !Self::trusts(uid) {
            return self.connections.spooled_by(uid);
        }
        let header = if uid == 0 { None } else { self.header_so_far(index) };
        let domain = header.as_ref().and_then(|header| header.name.domain());
        domain.map_or(0, |domain| self.connections.spooled_for(uid, domain))
    }

    pub(super) fn refuse_spool(&mut self, index: u16, error: &SpoolError) -> Reading {
        let header = self.header_so_far(index).unwrap_or_else(|| Header::new(0, Name::ROOT));
        self.tell_image_refused(index, &header.name, error);
        self.refuse_and_linger(index, &header, format_args!("{error}"))
    }
}

/// Whether this is a create whose image comes in chunks after it.
pub(super) fn is_followed_by_image(payload: &Payload<'_>) -> bool {
    let Payload::Command(Command::Unikernel(UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config))) =
        payload
    else {
        return false;
    };
    // One of bhyve has none at all.
    config.kind == Kind::Solo5 && matches!(config.image, Image::Inline([]))
}

/// Octets that are few enough to be held go the way of the others.
pub(super) fn spool_inline(
    octets: &Image<'_>,
    spools: &ImageSpools,
    spool: &mut Option<ImageSpool>,
) -> Result<(), SpoolError> {
    if let Image::Inline(bytes) = octets
        && !bytes.is_empty()
    {
        let mut small = spools.create(IMAGE_BYTES_MAX)?;
        small.append(bytes)?;
        *spool = Some(small);
    }
    Ok(())
}
