//! A client that comes by TLS, well-behaved or not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::crypto::{ring as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, ConnectionTrafficSecrets, DigitallySignedStruct, SignatureScheme,
};

use crate::pki::Identity;
use crate::raw::Answer;
use crate::system::PATIENCE;

/// A connection whose client has done its part of the handshake.
#[derive(Debug)]
pub struct Remote {
    /// What TLS has of it.
    pub tls: ClientConnection,
    /// Its socket.
    pub tcp: TcpStream,
    /// What has come and is not yet read.
    came: Vec<u8>,
}

/// What came instead of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The server has closed politely.
    Closed,
    /// The server has said why by an alert of TLS.
    Alert(String),
    /// The connection was cut.
    Cut,
}

/// How a client is to behave.
pub fn config(server: &[u8], identity: &Identity) -> ClientConfig {
    let trust = Arc::new(Trust(CertificateDer::from(server.to_vec())));
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()));
    let builder =
        builder.with_protocol_versions(&[&TLS13]).unwrap().dangerous().with_custom_certificate_verifier(trust);
    let chain = identity.chain.iter().cloned().map(CertificateDer::from).collect();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.key.pkcs8.clone())).unwrap();
    let mut config = builder.with_client_cert_resolver(Arc::new(Sends(Arc::new(CertifiedKey::new(chain, key)))));
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    config
}

/// A TCP connection whose reads and writes fail after a while rather than wait for ever.
///
/// # Errors
/// The system's.
pub fn dial(server: SocketAddr) -> io::Result<TcpStream> {
    patient(TcpStream::connect(server)?)
}

/// As [`dial`], from this address of our own.
///
/// # Errors
/// The system's.
pub fn dial_from(own: IpAddr, server: SocketAddr) -> io::Result<TcpStream> {
    let family = if own.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(own, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(server))?;
    patient(TcpStream::from(fd))
}

fn patient(tcp: TcpStream) -> io::Result<TcpStream> {
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// The first words of a client, as they go over the network.
#[must_use]
pub fn hello(config: ClientConfig) -> (ClientConnection, Vec<u8>) {
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from("server").unwrap()).unwrap();
    let mut bytes = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut bytes).unwrap();
    }
    (tls, bytes)
}

impl Remote {
    /// Does a handshake there, as far as the client is concerned: the server may still refuse.
    ///
    /// # Errors
    /// What TLS or the system says.
    pub fn connect(server: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        Self::over(dial(server)?, config)
    }

    /// The same, over a connection that is there.
    ///
    /// # Errors
    /// What TLS or the system says.
    pub fn over(mut tcp: TcpStream, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from("server").unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok(Self { tls, tcp, came: Vec::new() })
    }

    /// Sends bytes; whether all were taken.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        let mut stream = rustls::Stream::new(&mut self.tls, &mut self.tcp);
        bytes.chunks(16 * 1024).all(|piece| stream.write_all(piece).is_ok()) && stream.flush().is_ok()
    }

    /// Whether something has come that is not read yet, or the end.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.tcp.set_nonblocking(true).unwrap();
        let has_come = self.tcp.peek(&mut [0; 1]).is_ok();
        self.tcp.set_nonblocking(false).unwrap();
        has_come
    }

    /// Says that nothing more comes, and closes this direction.
    pub fn half_close(&mut self) {
        self.tls.send_close_notify();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp).unwrap();
        }
        self.tcp.shutdown(Shutdown::Write).unwrap();
    }

    /// The bytes of the next message without their length.
    ///
    /// # Errors
    /// What came instead.
    pub fn receive_bytes(&mut self) -> Result<Vec<u8>, Broken> {
        self.fill(4)?;
        let length = u32::from_be_bytes(self.came[..4].try_into().unwrap()) as usize;
        self.fill(4 + length)?;
        let rest = self.came.split_off(4 + length);
        Ok(std::mem::replace(&mut self.came, rest).split_off(4))
    }

    /// The next message.
    ///
    /// # Errors
    /// What came instead.
    pub fn receive(&mut self) -> Result<Answer, Broken> {
        self.receive_bytes().map(|bytes| Answer::of(&bytes))
    }

    /// Forgets all that still comes; how it ends.
    pub fn receive_to_the_end(&mut self) -> Broken {
        loop {
            if let Err(broken) = self.receive_bytes() {
                return broken;
            }
        }
    }

    fn fill(&mut self, wanted: usize) -> Result<(), Broken> {
        let mut piece = [0; 16 * 1024];
        while self.came.len() < wanted {
            match rustls::Stream::new(&mut self.tls, &mut self.tcp).read(&mut piece) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => self.came.extend(&piece[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the server said nothing for {PATIENCE:?}")
                }
                Err(error) => return Err(Broken::of(&error)),
            }
        }
        Ok(())
    }

    /// Takes the keys out of TLS: from now on the client writes what records it likes.
    #[must_use]
    pub fn forge(self) -> Forger {
        let secrets = self.tls.dangerous_extract_secrets().unwrap();
        let (sequence, secrets) = secrets.tx;
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => panic!("an unknown cipher"),
        };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).unwrap());
        Forger { tcp: self.tcp, key, iv: iv.as_ref().try_into().unwrap(), sequence }
    }
}

impl Broken {
    /// Of an error of a read.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => Self::Alert(format!("{alert:?}")),
            _ => Self::Cut,
        }
    }
}

/// A client that has proved who it is, and writes records as TLS would not.
#[derive(Debug)]
pub struct Forger {
    tcp: TcpStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

/// A record's kind: handshake messages.
pub const HANDSHAKE: u8 = 22;
/// Data.
pub const DATA: u8 = 23;

impl Forger {
    /// Sends a record of this kind; whether it was taken.
    pub fn send(&mut self, kind: u8, content: &[u8]) -> bool {
        let mut record = [content, &[kind]].concat();
        let length = u16::try_from(record.len() + 16).unwrap().to_be_bytes();
        let head = [23, 3, 3, length[0], length[1]];
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), &mut record).unwrap();
        self.tcp.write_all(&[&head[..], &record].concat()).is_ok()
    }

    /// Reads on until the server has ended the connection; how many bytes came.
    pub fn drain(&mut self) -> u64 {
        let mut sink = io::sink();
        // A reset is an end too.
        io::copy(&mut self.tcp, &mut sink).unwrap_or(0)
    }
}

/// Sends these certificates whatever is asked for, and whatever they are worth.
#[derive(Debug)]
struct Sends(Arc<CertifiedKey>);

impl ResolvesClientCert for Sends {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Trusts one certificate and nothing else.
#[derive(Debug)]
struct Trust(CertificateDer<'static>);

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_it = *leaf == self.0;
        is_it.then(ServerCertVerified::assertion).ok_or(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
