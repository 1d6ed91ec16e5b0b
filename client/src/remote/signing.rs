//! Certificates for one command, made when it is sent: a new key each, valid for minutes.
//!
//! A path below that of the holder is reached by a certificate with the policy that it has: that is asked for first. It is set again by
//! the command, which changes nothing, unless somebody has changed it in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fulmar_core::certificate;
use fulmar_core::limits::FRAME_HEAD_BYTES_MAX;
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, PolicyCommand, Success};

use super::address::Address;
use super::{check_own, tls};
use crate::commands::full_name;
use crate::connection::{Connection, Daemon, Dialer, Door, Transport};
use crate::error::Failure;
use crate::pki::chain::Authority;
use crate::pki::encode::{self, Use};
use crate::pki::issue::{Grant, Issuer, SKEW_S};
use crate::pki::key::Key;
use crate::pki::read::Cert;

/// Seconds that a certificate for one command is valid.
const VALID_S: i64 = 300;

/// Who signs, and where it goes.
#[derive(Debug)]
pub(super) struct Signer {
    pub(super) root: Cert,
    pub(super) issuer: Issuer,
    pub(super) address: Address,
    pub(super) time_out: Duration,
    /// The time when the program began, in seconds since 1970.
    pub(super) began_unix_s: i64,
    pub(super) began: Instant,
}

/// The way that signs each command.
#[derive(Clone, Debug)]
pub(super) struct SigningDoor(pub(super) Arc<Signer>);

impl Door for SigningDoor {
    fn open(&self, daemon: Daemon) -> Result<Connection, Failure> {
        Ok(Connection::dialing(daemon, Box::new(self.clone()), self.0.time_out))
    }

    fn again(&self) -> Box<dyn Door + Send> {
        Box::new(self.clone())
    }

    fn root(&self) -> Name {
        self.0.issuer.authority.path
    }
}

impl Dialer for SigningDoor {
    fn dial(&mut self, name: Name, command: &Command<'_>) -> Result<Box<dyn Transport>, Failure> {
        let signer = &self.0;
        let now_unix_s = signer.now_unix_s();
        if signer.issuer.is_root() {
            crate::pki::chain::check_time(signer.issuer.own()?, now_unix_s)?;
        } else {
            check_own(&signer.issuer.chain, &signer.root, now_unix_s)?;
        }
        let own = signer.issuer.authority.path;
        if !own.contains(&name) {
            let text = format!("{name} is not in {own}, which is what the certificate is for: write {own}LABEL");
            return Err(Failure::Usage { text });
        }
        match command {
            Command::Policy(PolicyCommand::Add(_)) => {
                if name == own {
                    let text = format!("{name}: its policy is given by who has signed its certificate");
                    return Err(Failure::Usage { text });
                }
                let above = name.parent().unwrap_or(Name::ROOT);
                let policies = signer.policies(above)?;
                let issuer = signer.descend(&policies, above)?;
                let below = signer.below(issuer.as_ref().unwrap_or(&signer.issuer), name, &encoded(command)?)?;
                signer.say(&below, None, &Command::Policy(PolicyCommand::Info))
            }
            Command::Revoke { remove } => {
                let label = if *remove { name.labels().last() } else { None };
                signer.say(&signer.issuer, label, command)
            }
            command => {
                let path = name.path();
                let policies = signer.policies(path)?;
                let issuer = signer.descend(&policies, path)?;
                signer.say(issuer.as_ref().unwrap_or(&signer.issuer), name.label(), command)
            }
        }
    }
}

fn encoded(command: &Command<'_>) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; FRAME_HEAD_BYTES_MAX];
    Ok(certificate::encode(command, &mut buffer).map_err(|_| Failure::TooLarge)?.to_vec())
}

impl Signer {
    fn now_unix_s(&self) -> i64 {
        self.began_unix_s.saturating_add(i64::try_from(self.began.elapsed().as_secs()).unwrap_or(0))
    }

    /// The policies that a way down to `path` needs, as certificates carry them; none where the holder has that path.
    fn policies(&self, path: Name) -> Result<BTreeMap<Name, Vec<u8>>, Failure> {
        let own = self.issuer.authority.path;
        let mut policies = BTreeMap::new();
        if path == own {
            return Ok(policies);
        }
        let stream = self.say(&self.issuer, None, &Command::Policy(PolicyCommand::Info))?;
        let daemon = Daemon::Vmmd;
        let lost = |error| Failure::Lost { daemon, error };
        let mut connection = Connection::new(daemon, stream, self.time_out).map_err(lost)?;
        let Success::Policies(listed) = connection.receive(own)? else { return Err(Failure::Unexpected { daemon }) };
        for entry in listed.iter() {
            let name = full_name(own, entry.name);
            if name != own && name.contains(&path) {
                policies.insert(name, encoded(&Command::Policy(PolicyCommand::Add(entry.policy)))?);
            }
        }
        Ok(policies)
    }

    /// One who holds `path`; nothing where that is the holder itself.
    fn descend(&self, policies: &BTreeMap<Name, Vec<u8>>, path: Name) -> Result<Option<Issuer>, Failure> {
        let mut steps: Vec<Name> = path.ancestors().take_while(|step| *step != self.issuer.authority.path).collect();
        steps.reverse();
        let mut issuer: Option<Issuer> = None;
        for step in steps {
            let Some(policy) = policies.get(&step) else {
                let text = "has no policy, so no certificate leads there: set one with add-policy".to_owned();
                return Err(Failure::Refused { name: step.to_string(), text });
            };
            issuer = Some(self.below(issuer.as_ref().unwrap_or(&self.issuer), step, policy)?);
        }
        Ok(issuer)
    }

    /// A holder of `path`, for minutes.
    fn below(&self, issuer: &Issuer, path: Name, policy: &[u8]) -> Result<Issuer, Failure> {
        let key = Key::generate()?;
        let label = path.labels().last().unwrap_or_default();
        let chain = self.sign(issuer, &key, label, Use::Authority, policy)?;
        let chain = chain.iter().map(|der| Cert::parse(der)).collect::<Option<Vec<_>>>().ok_or(Failure::Chance)?;
        Ok(Issuer { chain, key, authority: Authority { path, policy_at: Some(0) } })
    }

    fn sign(
        &self,
        issuer: &Issuer,
        key: &Key,
        label: &str,
        purpose: Use,
        carries: &[u8],
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let now_unix_s = self.now_unix_s();
        issuer.sign(&Grant {
            subject: &encode::common_name(label),
            key: key.public(),
            purpose,
            carries: Some(carries),
            not_before_unix_s: now_unix_s.saturating_sub(SKEW_S),
            not_after_unix_s: now_unix_s.saturating_add(VALID_S),
        })
    }

    /// Says a command: about the unikernel or block device of a label, or about the path of the issuer.
    fn say(&self, issuer: &Issuer, label: Option<&str>, command: &Command<'_>) -> Result<Box<dyn Transport>, Failure> {
        let key = Key::generate()?;
        let chain = self.sign(issuer, &key, label.unwrap_or("."), Use::Client, &encoded(command)?)?;
        let config = tls::config(&self.root, chain, key.private())?;
        Ok(Box::new(tls::open(&self.address, config, self.time_out)?))
    }
}
