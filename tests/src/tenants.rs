//! A running system that serves tenants by TLS, and what they say to it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;

use fulmar_core::wire::{Command, Image, List, LogCommand, LogFrom, Policy, UnikernelCommand, Window};

use crate::built::Kind;
use crate::contents::chunks;
use crate::pki::{self, Identity, Issuer};
use crate::raw::{Answer, Wish};
use crate::remote::{Broken, Remote, config};
use crate::siege::{Siege, control_half};

/// A system with a TLS end.
#[derive(Debug)]
pub struct Tenants {
    /// Its daemons, and the path of the siege, which nobody of the tenants has.
    pub siege: Siege,
    /// Where it serves.
    pub address: SocketAddr,
    /// The CA.
    pub ca: Issuer,
    /// The server.
    pub server: Identity,
    /// The three processes of [`Self::resident`] at the start, and what they held.
    before: Option<([u32; 3], [u64; 3])>,
}

/// KiB that each of them may hold more after any attack: the lists of revoked certificates that a host keeps, clients on their way.
const GROWTH_KB: [u64; 3] = [80 << 10, 4 << 10, 16 << 10];

/// Tells about unikernels.
pub const INFO: Command<'static> = Command::Unikernel(UnikernelCommand::Info);
/// Ends one.
pub const DESTROY: Command<'static> = Command::Unikernel(UnikernelCommand::Destroy);
/// Hands out its image.
pub const GET: Command<'static> = Command::Unikernel(UnikernelCommand::Get { level: 0 });
/// Takes in a list of revoked certificates.
pub const REVOKE: Command<'static> = Command::Revoke { remove: false };
/// All events that there are, and those that come.
pub const FOLLOW_LOG: Command<'static> =
    Command::Events(LogCommand { from: LogFrom::Window(Window::Count(1000)), follow: true });

/// A policy: so many unikernels, so much memory, MB; CPU 0, 8 MB of block storage.
#[must_use]
pub fn policy(unikernels: i64, memory: i64) -> Policy<'static> {
    Policy { cpuids: List::Items(&[0]), unikernels, memory, block: Some(8), bridges: List::EMPTY }
}

/// A create of so much memory, MB, whose image follows.
#[must_use]
pub fn create(memory: i64) -> Command<'static> {
    Wish { memory, ..Wish::of(&[]) }.command()
}

/// The same, in the place of what is there.
#[must_use]
pub fn force_create(memory: i64) -> Command<'static> {
    match create(memory) {
        Command::Unikernel(UnikernelCommand::Create(config)) => {
            Command::Unikernel(UnikernelCommand::ForceCreate(config))
        }
        other => other,
    }
}

/// A restart with so much memory, MB.
#[must_use]
pub fn restart_with(memory: i64) -> Command<'static> {
    match create(memory) {
        Command::Unikernel(UnikernelCommand::Create(config)) => {
            Command::Unikernel(UnikernelCommand::Restart(Some(config.arguments)))
        }
        other => other,
    }
}

/// A create with these octets as its image.
#[must_use]
pub fn create_inline(image: &[u8], memory: i64) -> Command<'_> {
    match create(memory) {
        Command::Unikernel(UnikernelCommand::Create(config)) => {
            Command::Unikernel(UnikernelCommand::Create(fulmar_core::wire::Config {
                image: Image::Inline(image),
                ..config
            }))
        }
        other => other,
    }
}

impl Tenants {
    /// Starts `vmmd`, `vmmd_console` and `vmmd_tls`. Nothing where the programs are missing.
    #[must_use]
    pub fn begin(test: &str) -> Option<Self> {
        let ca = Issuer::root("Fulmar");
        let server = ca.server();
        Self::begin_with(test, ca, server)
    }

    /// The same, with this CA and server.
    #[must_use]
    pub fn begin_with(test: &str, ca: Issuer, server: Identity) -> Option<Self> {
        let siege = Siege::begin(test)?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut tenants = Self { siege, address, ca, server, before: None };
        tenants.write_files();
        tenants.address = tenants.start_tls("127.0.0.1").unwrap();
        tenants.before = Some((tenants.processes(), tenants.resident()));
        Some(tenants)
    }

    /// Where a file of the TLS end is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.siege.system.folder().join("tls").join(name)
    }

    /// Writes the CA, the server's certificate and its key for the user of the daemons.
    pub fn write_files(&self) {
        let util = self.siege.system.run().join("util").metadata().unwrap();
        for folder in ["", "revoked"] {
            let _ = fs::create_dir(self.file(folder));
            chown(self.file(folder), Some(util.uid()), Some(util.gid())).unwrap();
        }
        let chain: Vec<&[u8]> = self.server.chain.iter().map(Vec::as_slice).collect();
        for (name, text) in [
            ("ca.pem", pki::pem("CERTIFICATE", &[&self.ca.der])),
            ("server.pem", pki::pem("CERTIFICATE", &chain)),
            ("server.key", pki::pem("PRIVATE KEY", &[&self.server.key.pkcs8])),
        ] {
            fs::write(self.file(name), text).unwrap();
            chown(self.file(name), Some(util.uid()), Some(util.gid())).unwrap();
        }
    }

    /// The options that both programs take.
    #[must_use]
    pub fn options(&self) -> Vec<OsString> {
        let options = [("--ca", "ca.pem"), ("--cert", "server.pem"), ("--key", "server.key"), ("--revoked", "revoked")];
        options.into_iter().flat_map(|(option, file)| [option.into(), self.file(file).into()]).collect()
    }

    /// Starts `vmmd_tls` on this address; where it serves.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_tls(&mut self, ip: &str) -> Result<SocketAddr, String> {
        let mut options = self.options();
        options.extend(["--ip", ip, "--port", "0"].map(OsString::from));
        let options: Vec<&OsStr> = options.iter().map(OsString::as_os_str).collect();
        self.siege.system.start_tls(&options)
    }

    /// Connects as somebody.
    #[must_use]
    pub fn connect(&self, identity: &Identity) -> Remote {
        self.connect_to(self.address, identity)
    }

    /// Connects there as somebody.
    #[must_use]
    pub fn connect_to(&self, address: SocketAddr, identity: &Identity) -> Remote {
        Remote::connect(address, config(&self.server.chain[0], identity))
            .unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// What comes of a command without chunks.
    ///
    /// # Errors
    /// What came instead of an answer.
    pub fn try_ask(&self, identity: &Identity) -> Result<Answer, Broken> {
        let mut remote = Remote::connect(self.address, config(&self.server.chain[0], identity));
        remote.as_mut().map_err(|error| Broken::of(error))?.receive()
    }

    /// As [`Self::try_ask`], where there must be an answer.
    #[must_use]
    pub fn ask(&self, identity: &Identity) -> Answer {
        self.try_ask(identity).unwrap_or_else(|broken| panic!("{broken:?}\n{}", self.log()))
    }

    /// What comes of a command that these chunks follow.
    #[must_use]
    pub fn say(&self, identity: &Identity, content: &[u8]) -> Answer {
        let mut remote = self.connect(identity);
        remote.send(&chunks(content, 1 << 16));
        remote.receive().unwrap_or_else(|broken| panic!("{broken:?}\n{}", self.log()))
    }

    /// Creates the unikernel of this name with so much memory, MB; it runs until somebody ends it.
    #[must_use]
    pub fn create(&self, issuer: &Issuer, label: &str, memory: i64) -> Answer {
        self.say(&issuer.leaf(label, create(memory)), &self.image("hello"))
    }

    /// The image of a unikernel.
    #[must_use]
    pub fn image(&self, name: &str) -> Vec<u8> {
        fs::read(self.siege.image_for(name, Kind::Spt)).unwrap()
    }

    /// What `vmmd_tls` has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.siege.system.log("vmmd_tls")
    }

    /// The service is there for others.
    pub fn expect_service(&self) {
        let other = self.ca.delegate("bystander", policy(1, 16));
        let answer = self.ask(&other.leaf(".", INFO));
        assert!(matches!(&answer, Answer::Other(words) if words.contains("Infos")), "{answer:?}\n{}", self.log());
    }

    fn processes(&self) -> [u32; 3] {
        let tls = self.siege.system.pid("vmmd_tls").unwrap();
        [tls, self.siege.vmmd, control_half(self.siege.vmmd)]
    }

    /// KiB of memory that `vmmd_tls` and both halves of `vmmd` hold.
    #[must_use]
    pub fn resident(&self) -> [u64; 3] {
        self.processes().map(resident)
    }

    /// None of the three holds much more memory than before.
    pub fn expect_bounded(&self, before: [u64; 3], growth_kb: [u64; 3]) {
        let after = self.resident();
        let is_bounded = before.iter().zip(growth_kb).zip(after).all(|((before, more), after)| after <= before + more);
        assert!(is_bounded, "KiB of vmmd_tls, vmmd's host half and control half: {before:?}, then {after:?}");
    }

    /// The end of a test: the service is there, nothing holds much more memory than at the start unless it was started anew, and nothing
    /// that the tenants had is in the way of stopping.
    pub fn end(self) {
        self.expect_service();
        if let Some((processes, before)) = self.before
            && processes == self.processes()
        {
            self.expect_bounded(before, GROWTH_KB);
        }
        self.siege.system.stop().unwrap();
    }
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a running daemon")
}
