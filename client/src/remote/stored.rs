//! `vmmc_remote`: sends the command that a certificate carries, and shows the reply as `vmmc_local` does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use fulmar_core::certificate::chain::judge;
use fulmar_core::name::Name;
use fulmar_core::wire::{BlockCommand, Command, Config, ConsoleCommand, PolicyCommand, StatsCommand, UnikernelCommand};
use rustls::ClientConfig;

use super::address::{self, Address};
use super::{EXIT_CODES, Identity, check_own, compare_clocks, tls};
use crate::commands::{
    Context, block, console, default_file, dump_block, get, host, inactive_consoles, info, log, policy, report, stats,
};
use crate::connection::{Connection, Daemon, Dialer, Door, Transport};
use crate::content::ContentFile;
use crate::error::Failure;
use crate::image::ImageFile;
use crate::pki::chain::{ChainFault, without_root};
use crate::pki::key::Key;
use crate::pki::read::Cert;
use crate::pki::words;
use crate::program::{Program, Surroundings};

/// How much is compressed what a certificate says is compressed.
const LEVEL: u32 = 9;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "vmmc_remote",
    version,
    about = "Send the command of a certificate to a host elsewhere",
    after_help = format!(
        "{EXIT_CODES}\n\nExample:\n  vmmc_remote --ca cacert.pem --cert web.pem --key web.key example --image web.hvt"
    )
)]
pub struct CommandLine {
    #[command(flatten)]
    identity: Identity,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// The image of a unikernel that is created
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// The content that a block device is to have
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    /// Where what is fetched goes: a file that is not there yet (default: LABEL.TIME in the folder for temporary files)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The host: a name or an address, of IPv6 in brackets, and :PORT unless that is 1025
    #[arg(value_parser = address::parse)]
    host: Address,
}

/// The way that says what the certificate says, once.
#[derive(Clone)]
struct StoredDoor {
    address: Address,
    config: Arc<ClientConfig>,
    time_out: Duration,
    name: Name,
}

impl Door for StoredDoor {
    fn open(&self, daemon: Daemon) -> Result<Connection, Failure> {
        Ok(Connection::dialing(daemon, Box::new(self.clone()), self.time_out))
    }

    fn again(&self) -> Box<dyn Door + Send> {
        Box::new(self.clone())
    }

    fn root(&self) -> Name {
        self.name
    }
}

impl Dialer for StoredDoor {
    fn dial(&mut self, _name: Name, command: &Command<'_>) -> Result<Box<dyn Transport>, Failure> {
        if matches!(command, Command::Unikernel(UnikernelCommand::Condition)) {
            return Err(Failure::Usage { text: "the certificate is for another command".to_owned() });
        }
        Ok(Box::new(tls::open(&self.address, Arc::clone(&self.config), self.time_out)?))
    }
}

impl Program for CommandLine {
    fn run(&self, surroundings: &mut Surroundings<'_>) -> Result<(), Failure> {
        let (time_out, now_unix_ms) = (surroundings.time_out, surroundings.now_unix_ms);
        let root = self.identity.root()?;
        let certs = without_root(Cert::read_all(&self.identity.cert)?);
        check_own(&certs, &root, now_unix_ms / 1000)?;
        let ders: Vec<Vec<u8>> = certs.iter().map(|cert| cert.der.clone()).collect();
        let above: Vec<&[u8]> = ders.iter().skip(1).map(Vec::as_slice).collect();
        let judged = judge(ders.first().map(Vec::as_slice).unwrap_or_default(), &above);
        let said = judged.map_err(|refused| ChainFault::Says { text: refused.to_string() })?;
        let key =
            Key::read(&self.identity.key, &self.identity.passphrase, certs.first().map(|cert| cert.key.as_slice()))?;
        let config = tls::config(&root, ders.clone(), key.private())?;
        let (address, name) = (self.host.clone(), said.name);
        let door = StoredDoor { address, config, time_out, name };
        let follows = matches!(
            said.command,
            Command::Console(ConsoleCommand::Subscribe(_)) | Command::Stats(StatsCommand::Subscribe)
        );
        if follows {
            surroundings.expect_reader();
        }
        let Surroundings { out, errors, .. } = surroundings;
        let mut context = Context { door: &door, json: self.json, now_unix_ms, out: *out, notes: *errors };
        let result = self.send(&mut context, name, said.command);
        compare_clocks(&result, &mut context);
        result
    }
}

impl CommandLine {
    fn send(&self, context: &mut Context<'_>, name: Name, command: Command<'_>) -> Result<(), Failure> {
        let output = || self.output.clone().unwrap_or_else(|| default_file(name, context));
        let daemon = match command {
            Command::Console(_) => Daemon::Console,
            Command::Stats(_) => Daemon::Stats,
            Command::Log(_) | Command::Events(_) => Daemon::Log,
            _ => Daemon::Vmmd,
        };
        let mut connection = context.door.open(daemon)?;
        match command {
            Command::Unikernel(UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config)) => {
                return self.create(context, &mut connection, name, command, &config);
            }
            Command::Block(BlockCommand::Set { compressed }) => {
                let text = "which content? add --content FILE".to_owned();
                let file = self.content.as_ref().ok_or(Failure::Usage { text })?;
                let mut file = ContentFile::open(file)?;
                connection.send(name, command)?;
                connection.send_content(name, &mut file, if compressed { LEVEL } else { 0 })?;
                return report(context, &mut connection, name);
            }
            Command::Unikernel(UnikernelCommand::Get { .. }) => {
                let file = output();
                connection.send(name, command)?;
                return get::save(context, &mut connection, name, &file);
            }
            Command::Block(BlockCommand::Dump { .. }) => {
                let file = output();
                connection.send(name, command)?;
                return dump_block::save(context, &mut connection, name, &file);
            }
            _ => {}
        }
        let show: fn(&mut Context<'_>, &mut Connection, Name) -> Result<(), Failure> = match command {
            Command::Unikernel(UnikernelCommand::Info) => info::show,
            Command::Unikernel(UnikernelCommand::Destroy | UnikernelCommand::Restart(_))
            | Command::Block(BlockCommand::Add { .. } | BlockCommand::Remove) => report,
            Command::Block(BlockCommand::Info) => block::show,
            Command::Policy(PolicyCommand::Info) => policy::show,
            Command::Console(ConsoleCommand::Subscribe(_)) => console::show,
            Command::Console(ConsoleCommand::ListInactive) => inactive_consoles::show,
            Command::Stats(StatsCommand::Subscribe) => {
                |context, connection, name| stats::show(context, connection, name, None)
            }
            Command::Events(log) if log.follow => {
                |context, connection, name| log::show_all(context, connection, name, true, &[])
            }
            Command::Events(_) => |context, connection, name| log::show_all(context, connection, name, false, &[]),
            Command::Host => |context, connection, _| host::show(context, connection),
            Command::Revoke { .. } => return Err(unable(&command, "use vmmc_bistro revoke")),
            _ => return Err(unable(&command, "make a new request with vmmp_request")),
        };
        connection.send(name, command)?;
        show(context, &mut connection, name)
    }

    /// Creates a unikernel: the image is in the certificate, or follows.
    fn create(
        &self,
        context: &mut Context<'_>,
        connection: &mut Connection,
        name: Name,
        command: Command<'_>,
        config: &Config<'_>,
    ) -> Result<(), Failure> {
        if config.image.len() > 0 {
            if self.image.is_some() {
                return Err(unable(&command, "leave out --image, the certificate has one"));
            }
            connection.dial(name, &command)?;
            return report(context, connection, name);
        }
        let text = "which image? add --image FILE".to_owned();
        let image = ImageFile::open(self.image.as_ref().ok_or(Failure::Usage { text })?)?;
        let file = image.path().to_owned();
        image.inspect()?.check_runnable().map_err(|error| Failure::Image { file, error })?;
        let parcel = image.pack(if config.compressed { LEVEL } else { 0 })?;
        connection.send_around(name, command, &mut |out| parcel.write(out))?;
        report(context, connection, name)
    }
}

fn unable(command: &Command<'_>, remedy: &str) -> Failure {
    Failure::Usage { text: format!("the certificate is to {}: {remedy}", words::command(command)) }
}
