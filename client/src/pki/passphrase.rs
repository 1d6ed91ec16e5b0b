//! Passphrases of keys: from a file or a descriptor, or asked for on the terminal. Never on a command line, which everybody can read.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::error::Failure;
use crate::input;

/// Bytes of a passphrase.
const PASSPHRASE_BYTES_MAX: u64 = 1024;

/// Where the passphrase of a key comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct PassphraseOption {
    /// The first line of FILE (or of /dev/fd/N) is the passphrase of the key; else the terminal is asked
    #[arg(long, global = true, display_order = 102, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Whether a new key is encrypted.
#[derive(Args, Clone, Debug, Default)]
pub struct EncryptOption {
    /// Encrypt the new key with a passphrase
    #[arg(long, global = true, display_order = 101)]
    encrypt: bool,
    #[command(flatten)]
    passphrase: PassphraseOption,
}

/// A passphrase, which is wiped from memory after use.
pub type Passphrase = Zeroizing<String>;

impl PassphraseOption {
    /// The passphrase of this key, which is there already.
    ///
    /// # Errors
    /// [`Failure::Usage`], [`Failure::Input`].
    pub fn of(&self, key: &Path) -> Result<Passphrase, Failure> {
        match &self.passphrase_file {
            Some(file) => from_file(file),
            None => ask(&format!("Passphrase of {}: ", key.display())),
        }
    }
}

impl EncryptOption {
    /// The passphrase that a new key gets.
    ///
    /// # Errors
    /// [`Failure::Usage`], [`Failure::Input`].
    pub fn of_new(&self, key: &Path) -> Result<Option<Passphrase>, Failure> {
        if let Some(file) = &self.passphrase.passphrase_file {
            return from_file(file).map(Some);
        }
        if !self.encrypt {
            return Ok(None);
        }
        let first = ask(&format!("New passphrase of {}: ", key.display()))?;
        if first != ask("The same again: ")? {
            return Err(Failure::Usage { text: "the passphrases are not the same: try again".to_owned() });
        }
        Some(checked(first)).transpose()
    }

    /// Where the passphrase of a key comes from that is there already.
    #[must_use]
    pub fn of_old(&self) -> &PassphraseOption {
        &self.passphrase
    }
}

fn from_file(file: &Path) -> Result<Passphrase, Failure> {
    let failure = |error| Failure::Input { file: file.to_owned(), error };
    let mut text = Zeroizing::new(String::new());
    input::open(file).map_err(failure)?.take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text).map_err(failure)?;
    checked(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(prompt: &str) -> Result<Passphrase, Failure> {
    let answer = rpassword::prompt_password(prompt).map(Zeroizing::new);
    let text = "the key has a passphrase and there is no terminal to ask for it: give --passphrase-file FILE";
    answer.map_err(|_| Failure::Usage { text: text.to_owned() })
}

fn checked(passphrase: Passphrase) -> Result<Passphrase, Failure> {
    if passphrase.is_empty() {
        return Err(Failure::Usage { text: "the passphrase is empty: give one, or leave the key plain".to_owned() });
    }
    Ok(passphrase)
}
