//! `vmmp_request`: a request for a certificate, which carries the command that a subcommand would send.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser;
use fulmar_core::certificate;
use fulmar_core::limits::FRAME_HEAD_BYTES_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::Command;

use crate::commands::{Context, Single};
use crate::connection::{Connection, Daemon, Dialer, Door, Transport};
use crate::error::Failure;
use crate::pki::key::Key;
use crate::pki::passphrase::EncryptOption;
use crate::pki::{encode, files, words};
use crate::program::{Program, Surroundings};

/// The exit codes, for people.
const EXIT_CODES: &str = "NAME is a label alone: the path comes from whoever signs.

Exit codes:
  0    done
  124  the command line, a file or a passphrase is wrong; nothing was made
  125  a result could not be written

Example:
  vmmp_request add-policy shop 4 --mem 256 --cpu 0 --bridge br0
  vmmp_request create web web.hvt --mem 64
  vmmp_request info";

/// The command line.
#[derive(Parser, Debug)]
#[command(name = "vmmp_request", version, about = "Request a certificate for a command or a delegation", after_help = EXIT_CODES)]
pub struct CommandLine {
    /// The private key: a new file for its owner alone, or one that is there (default: LABEL.key)
    #[arg(long, global = true, display_order = 100, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The request, which must not be there yet (default: LABEL.req)
    #[arg(long = "request", global = true, display_order = 100, value_name = "FILE")]
    request_file: Option<PathBuf>,
    #[command(flatten)]
    encrypt: EncryptOption,
    #[command(subcommand)]
    subcommand: Single,
}

/// What a subcommand would have sent.
struct Asked {
    name: Name,
    carries: Vec<u8>,
}

/// Keeps the command that goes through.
#[derive(Clone, Default)]
struct Tray(Arc<Mutex<Option<Asked>>>);

impl Door for Tray {
    fn open(&self, daemon: Daemon) -> Result<Connection, Failure> {
        Ok(Connection::dialing(daemon, Box::new(self.clone()), Duration::ZERO))
    }

    fn again(&self) -> Box<dyn Door + Send> {
        Box::new(self.clone())
    }
}

impl Dialer for Tray {
    fn dial(&mut self, name: Name, command: &Command<'_>) -> Result<Box<dyn Transport>, Failure> {
        let mut buffer = vec![0; FRAME_HEAD_BYTES_MAX];
        let carries = certificate::encode(command, &mut buffer).map_err(|_| Failure::TooLarge)?.to_vec();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Asked { name, carries });
        Err(Failure::PutAside)
    }
}

impl Program for CommandLine {
    /// Those that have a label alone.
    fn examples(text: &str) -> String {
        let text = text.replace("vmmc_local", "vmmp_request").replace("shop:web", "web").replace("shop:data", "data");
        let text = text.replace("log shop:", "log").replace(" --json", "");
        let is_one = |line: &&str| !line.contains("shop:") || line.contains("add-policy");
        text.lines().filter(is_one).collect::<Vec<_>>().join("\n")
    }

    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure> {
        if !self.subcommand.is_one() {
            return Err(Failure::Usage { text: "a certificate is for one unikernel: give one name".to_owned() });
        }
        let Surroundings { now_unix_ms, out, errors, .. } = surroundings;
        let tray = Tray::default();
        let mut context = Context { door: &tray, json: false, now_unix_ms: *now_unix_ms, out: *out, notes: *errors };
        match self.subcommand.run(&mut context) {
            Err(Failure::PutAside) => make(self, &tray, &mut context),
            result => result,
        }
    }
}

/// Makes the request, and the key where there is none.
fn make(line: &CommandLine, tray: &Tray, context: &mut Context<'_>) -> Result<(), Failure> {
    let asked = tray.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Asked { name, carries }) = asked else { return Ok(()) };
    let mut labels = name.labels();
    let (label, more) = (labels.next(), labels.next());
    let is_delegation =
        matches!(certificate::decode(&carries), Ok(Command::Policy(_)) if name.is_path() && !name.is_root());
    if more.is_some() || (name.is_path() && !name.is_root() && !is_delegation) {
        let text =
            format!("{name}: the path comes from whoever signs the request: give the label alone, or nothing for all");
        return Err(Failure::Usage { text });
    }
    let stem = label.unwrap_or("request");
    let output = line.request_file.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}.req")));
    let key_file = line.key.clone().unwrap_or_else(|| PathBuf::from(format!("{stem}.key")));
    files::check_absent(&output)?;
    let is_new = files::check_absent(&key_file).is_ok();
    let key = match is_new {
        true => {
            let passphrase = line.encrypt.of_new(&key_file)?;
            let key = Key::generate()?;
            key.write(&key_file, passphrase.as_ref().map(|it| it.as_str()))?;
            key
        }
        false => Key::read(&key_file, line.encrypt.of_old(), None)?,
    };
    let content = encode::request(&encode::common_name(label.unwrap_or(".")), key.public(), &carries);
    let der = encode::signed(&content, key.algorithm(), &key.sign(&content)?);
    let written = files::write_public(&output, files::pem("CERTIFICATE REQUEST", &der).as_bytes());
    if written.is_err() && is_new {
        // Nothing was asked for with it.
        files::remove(&key_file);
    }
    written?;
    let said = certificate::decode(&carries).map(|command| words::command(&command)).unwrap_or_default();
    let (output, key_file) = (output.display(), key_file.display());
    writeln!(context.out, "{output}: asks for: {said}\n{key_file}: its key").map_err(Failure::print)
}
