//! What the certificates of this system say. Whether they are signed as they must be is judged elsewhere: nothing here is a proof.
//!
//! | file | what is in it |
//! |---|---|
//! | here | the value of the extension: a version and the command that a certificate allows |
//! | [`x509`] | a certificate as X.509 has it: what is read of it |
//! | [`chain`] | what the certificates of a chain say together: a name, policies, a command |
//! | [`revocation`] | a list of revoked certificates |

pub mod chain;
pub mod revocation;
pub mod x509;

use crate::der::{Full, Malformed, Reader, Reason, Writer, tag};
use crate::wire::{Command, UnikernelCommand, VERSION};

/// The extension's object identifier, 1.3.6.1.4.1.49836.42, as the content of a DER OBJECT IDENTIFIER.
pub const OBJECT_IDENTIFIER: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0x85, 0x2c, 0x2a];

/// Reads the value of the extension.
///
/// # Errors
/// [`Malformed`], as it says; another version than ours is [`Reason::Version`].
pub fn decode(value: &[u8]) -> Result<Command<'_>, Malformed> {
    let mut reader = Reader::new(value);
    let mut inner = reader.open(tag::SEQUENCE)?;
    let start = inner;
    let version = inner.integer()?;
    if version != VERSION {
        return Err(start.error(Reason::Version(version)));
    }
    let mut command = Command::Unikernel(UnikernelCommand::Info);
    Command::read(&mut inner, |read| command = read)?;
    inner.finish()?;
    reader.finish()?;
    Ok(command)
}

/// Writes the value of the extension to the end of `buffer`.
///
/// # Errors
/// [`Full`] when `buffer` is too small.
pub fn encode<'b>(command: &Command<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
    let mut writer = Writer::new(buffer);
    writer.within(tag::SEQUENCE, |writer| {
        command.write(writer);
        writer.integer(VERSION);
    });
    writer.finish()
}
