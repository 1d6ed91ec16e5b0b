//! Whether a chain is good, and what it asks for: the one judgement of who somebody is. It is made within the handshake, by the
//! verifier of that one connection, which keeps it; nobody else makes an [`Admitted`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use fulmar_core::certificate::chain::{self, ChainRefused};
use fulmar_core::certificate::x509::Certificate;
use fulmar_core::limits::CHAIN_CERTIFICATES_MAX;
use fulmar_core::name::Name;
use fulmar_core::time;
use fulmar_core::wire::{
    self, BlockCommand, Command, ConsoleCommand, Header, Image, Kind, List, Message, Payload, PolicyCommand,
    StatsCommand, UnikernelCommand,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use crate::keys::Ca;
use crate::revoked::{KeyId, Link, Revoked, UNREAD, hex};

/// Bytes of a message around what its certificate carries.
const FRAME_BYTES: usize = 4096;

/// Which daemon of this host does a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Daemon {
    Vmmd,
    Console,
    Stats,
    Log,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// A daemon does it.
    Ask {
        daemon: Daemon,
        /// The policies of the chain, as a message to `vmmd`.
        policies: Option<Vec<u8>>,
        /// The command, as a message.
        command: Vec<u8>,
        /// Whether chunks of the client follow it.
        has_chunks: bool,
        /// Whether the content of a block device goes in or out.
        is_transfer: bool,
        /// Whether it goes on until somebody ends it.
        follows: bool,
    },
    /// A list of revoked certificates is taken in.
    Revoke(Box<Revocation>),
}

/// A revocation.
#[derive(Debug)]
pub(crate) struct Revocation {
    /// The path that is emptied afterwards.
    pub(crate) remove: Option<Name>,
    /// The chain, by which the list is judged.
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) above: Vec<CertificateDer<'static>>,
}

/// What a good chain asks for.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) name: Name,
    pub(crate) task: Task,
    /// Whether something is changed by it, or followed: what only asks is not told to the event log.
    pub(crate) is_told: bool,
    /// What revokes it: each certificate by its number and the key that has signed it.
    pub(crate) links: Vec<Link>,
}

/// Why a chain that is well signed is refused; the client is told.
#[derive(Debug)]
pub(crate) enum Refused {
    /// One of its certificates has expired; the time here and when it did, in seconds.
    Expired { now: u64, not_after: u64 },
    /// One of them is not valid yet.
    NotYetValid { now: u64, not_before: u64 },
    /// One of them is revoked, by its number.
    Revoked(Vec<u8>),
    /// It cannot be looked up now whether one of them is revoked.
    Unread,
    /// It is against the rules of chains.
    Chain(ChainRefused),
    /// A revocation with removal must name what is below the path.
    Unnamed,
    /// What it carries does not fit a message.
    TooLarge,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { now, not_after } => write!(
                f,
                "a certificate of the chain has expired at {}, it is {} here: get a new one",
                Time(*not_after),
                Time(*now)
            ),
            Self::NotYetValid { now, not_before } => write!(
                f,
                "a certificate of the chain is not yet valid before {}, it is {} here: wait, or set the clock right",
                Time(*not_before),
                Time(*now)
            ),
            Self::Revoked(serial) => write!(f, "a certificate of the chain is revoked, number {}", hex(serial)),
            Self::Unread => f.write_str(UNREAD),
            Self::Chain(refused) => refused.fmt(f),
            Self::Unnamed => {
                f.write_str("a revocation that removes needs the label of the path to be removed as its common name")
            }
            Self::TooLarge => f.write_str("what the certificates carry is too large for a message"),
        }
    }
}

/// Seconds since 1970, as people read them.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; time::TEXT_BYTES_MAX];
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX / 1000).saturating_mul(1000);
        let digits = std::str::from_utf8(time::format(ms, &mut text)).unwrap_or_default();
        match (
            digits.get(..4),
            digits.get(4..6),
            digits.get(6..8),
            digits.get(8..10),
            digits.get(10..12),
            digits.get(12..14),
        ) {
            (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) => {
                write!(f, "{year}-{month}-{day} {hour}:{minute}:{second} UTC")
            }
            _ => f.write_str(digits),
        }
    }
}

/// Verifies the certificates of one connection, once.
#[derive(Debug)]
pub(crate) struct Verifier {
    ca: Arc<Ca>,
    algorithms: WebPkiSupportedAlgorithms,
    revoked: Arc<Mutex<Revoked>>,
    verdict: Mutex<Verdict>,
}

#[derive(Debug)]
enum Verdict {
    None,
    Made(Box<Result<Admitted, Refused>>),
    Taken,
}

impl Verifier {
    pub(crate) fn new(ca: Arc<Ca>, revoked: Arc<Mutex<Revoked>>) -> Self {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Self { ca, algorithms, revoked, verdict: Mutex::new(Verdict::None) }
    }

    /// The verdict, once. To be asked for when the handshake is over: only then is it proved that the client has the leaf's key.
    pub(crate) fn take_verdict(&self) -> Option<Result<Admitted, Refused>> {
        let mut verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *verdict, Verdict::Taken) {
            Verdict::Made(made) => Some(*made),
            Verdict::None | Verdict::Taken => None,
        }
    }

    /// What the chain asks for. What is not well signed by the CA is an error; everything else is a verdict.
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Result<Admitted, Refused>, rustls::Error> {
        // The CA's own certificate may be sent too.
        if sent.len() > CHAIN_CERTIFICATES_MAX {
            return Err(rustls::Error::General(format!("more than {CHAIN_CERTIFICATES_MAX} certificates were sent")));
        }
        let end = EndEntityCert::try_from(leaf).map_err(refused)?;
        let anchors = [self.ca.anchor.clone()];
        let path = end.verify_for_usage(self.algorithms.all, &anchors, sent, now, KeyUsage::client_auth(), None, None);
        let path = match path {
            Ok(path) => path,
            Err(webpki::Error::CertExpired { time, not_after }) => {
                return Ok(Err(Refused::Expired { now: time.as_secs(), not_after: not_after.as_secs() }));
            }
            Err(webpki::Error::CertNotValidYet { time, not_before }) => {
                return Ok(Err(Refused::NotYetValid { now: time.as_secs(), not_before: not_before.as_secs() }));
            }
            Err(error) => return Err(refused(error)),
        };
        let above: Vec<CertificateDer<'_>> = path.intermediate_certificates().map(webpki::Cert::der).collect();
        Ok(self.read(leaf, &above))
    }

    /// What a chain says that is well signed.
    fn read(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<Admitted, Refused> {
        let links = self.links(leaf, above)?;
        {
            let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
            revoked.refresh();
            if let Some(link) = links.iter().find(|link| revoked.names(link)) {
                return Err(Refused::Revoked(link.serial.to_vec()));
            }
            if !revoked.are_read() {
                return Err(Refused::Unread);
            }
        }
        let bytes: Vec<&[u8]> = above.iter().map(AsRef::as_ref).collect();
        let chain = chain::judge(leaf, &bytes).map_err(Refused::Chain)?;
        let name = chain.name;
        let is_told = is_told(&chain.command);
        if let Command::Revoke { remove } = chain.command {
            let path = match (remove, name.label()) {
                (false, _) => None,
                (true, Some(label)) => Some(name.path().join_path(label).map_err(|_| Refused::Unnamed)?),
                (true, None) => return Err(Refused::Unnamed),
            };
            let above = above.iter().map(|it| it.clone().into_owned()).collect();
            let revocation = Revocation { remove: path, leaf: leaf.clone().into_owned(), above };
            let task = Task::Revoke(Box::new(revocation));
            return Ok(Admitted { name, task, is_told, links });
        }
        let daemon = daemon_of(&chain.command);
        let room: usize = bytes.iter().map(|it| it.len()).sum::<usize>() + leaf.len() + FRAME_BYTES;
        let frame = |name, command| {
            let message = Message { header: Header::new(0, name), payload: Payload::Command(command) };
            let mut buffer = vec![0; room];
            let frame = wire::encode_frame(&message, &mut buffer).map_err(|_| Refused::TooLarge)?;
            Ok(frame.to_vec())
        };
        let policies = match chain.policies.last() {
            Some(lowest) if daemon == Daemon::Vmmd => {
                let policies = PolicyCommand::Chain(List::Items(&chain.policies));
                Some(frame(lowest.name, Command::Policy(policies))?)
            }
            _ => None,
        };
        let task = Task::Ask {
            daemon,
            policies,
            command: frame(name, chain.command)?,
            has_chunks: has_chunks(&chain.command),
            is_transfer: is_transfer(&chain.command),
            follows: follows(&chain.command),
        };
        Ok(Admitted { name, task, is_told, links })
    }

    /// What revokes each certificate of the path.
    fn links(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<Vec<Link>, Refused> {
        let read = |at: usize, der: &CertificateDer<'_>| {
            let fault = |error| Refused::Chain(ChainRefused { at, fault: chain::ChainFault::Unreadable(error) });
            let certificate = Certificate::read(der).map_err(fault)?;
            Ok((Box::<[u8]>::from(certificate.serial), KeyId::of(certificate.key)))
        };
        let mut links = Vec::with_capacity(above.len() + 1);
        let mut issuer = self.ca.key;
        for (index, der) in above.iter().enumerate().rev() {
            let (serial, key) = read(index + 1, der)?;
            links.push(Link { issuer, serial });
            issuer = key;
        }
        let (serial, _) = read(0, leaf)?;
        links.push(Link { issuer, serial });
        Ok(links)
    }
}

/// What the client is told by an alert of TLS.
fn refused(error: webpki::Error) -> rustls::Error {
    match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding.into()
        }
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        error => CertificateError::Other(rustls::OtherError(Arc::new(error))).into(),
    }
}

fn daemon_of(command: &Command<'_>) -> Daemon {
    match command {
        Command::Console(_) => Daemon::Console,
        Command::Stats(_) => Daemon::Stats,
        Command::Log(_) | Command::Events(_) => Daemon::Log,
        Command::Unikernel(_) | Command::Policy(_) | Command::Block(_) | Command::Host | Command::Revoke { .. } => {
            Daemon::Vmmd
        }
    }
}

/// Whether chunks of the client follow a command.
fn has_chunks(command: &Command<'_>) -> bool {
    match command {
        Command::Unikernel(UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config)) => {
            config.kind == Kind::Solo5 && matches!(config.image, Image::Inline([]))
        }
        Command::Block(BlockCommand::Set { .. }) => true,
        _ => false,
    }
}

/// Whether what a command asks for goes on until somebody ends it.
fn follows(command: &Command<'_>) -> bool {
    match command {
        Command::Console(ConsoleCommand::Subscribe(_)) | Command::Stats(StatsCommand::Subscribe) | Command::Log(_) => {
            true
        }
        Command::Events(command) => command.follow,
        _ => false,
    }
}

/// Whether a command is one of those of which the host does only a few at once.
fn is_transfer(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Block(
            BlockCommand::Set { .. }
                | BlockCommand::Dump { .. }
                | BlockCommand::OldAdd { .. }
                | BlockCommand::OldSet { .. }
                | BlockCommand::OldDump { .. }
        )
    )
}

/// Whether a command is told to the event log: it changes something, or its client stays.
fn is_told(command: &Command<'_>) -> bool {
    match command {
        Command::Unikernel(command) => matches!(
            command,
            UnikernelCommand::Create(_)
                | UnikernelCommand::ForceCreate(_)
                | UnikernelCommand::Restart(_)
                | UnikernelCommand::Destroy
        ),
        Command::Block(command) => !matches!(command, BlockCommand::Info),
        Command::Console(_) | Command::Stats(_) | Command::Log(_) | Command::Events(_) | Command::Revoke { .. } => true,
        Command::Policy(_) | Command::Host => false,
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.ca.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verdict = self.judge(end_entity, intermediates, now)?;
        let mut place = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*place, Verdict::None) {
            return Err(rustls::Error::General("certificates were sent twice".into()));
        }
        *place = Verdict::Made(Box::new(verdict));
        // A verdict may be a refusal: the client is told in words after the handshake, and gets nothing else.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
