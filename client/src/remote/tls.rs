//! TLS 1.3 with certificates on both sides. The server is trusted if the CA itself has signed it; names of hosts are not looked at.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::address::Address;
use crate::connection::Transport;
use crate::error::Failure;
use crate::pki::read::Cert;

/// Trusts the servers that the CA itself has signed. Those below a delegation are not: who holds one could be any server.
#[derive(Debug)]
struct SignedByRoot {
    root: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for SignedByRoot {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let wrong = |error: webpki::Error| Error::InvalidCertificate(fault(&error));
        let server = EndEntityCert::try_from(server).map_err(wrong)?;
        let anchors = [anchor_from_trusted_cert(&self.root).map_err(wrong)?];
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verified = server.verify_for_usage(algorithms, &anchors, &[], now, KeyUsage::server_auth(), None, None);
        verified.map(|_| ServerCertVerified::assertion()).map_err(wrong)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with a certificate, as far as people can do something about it.
fn fault(error: &webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time: *time, not_after: *not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time: *time, not_before: *not_before }
        }
        // Another CA may have the same name.
        webpki::Error::UnknownIssuer
        | webpki::Error::InvalidSignatureForPublicKey
        | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => CertificateError::UnknownIssuer,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        _ => CertificateError::ApplicationVerificationFailure,
    }
}

/// What one side brings to a handshake: nothing is kept from one to the next.
pub(super) fn config(
    root: &Cert,
    chain: Vec<Vec<u8>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Failure> {
    let unusable = |error: Error| Failure::Usage { text: format!("our certificate and key cannot be used: {error}") };
    let provider = Arc::new(ring::default_provider());
    let verifier = SignedByRoot { root: root.der.clone().into(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let config = config.map_err(unusable)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    let mut config = config.with_client_auth_cert(chain, key).map_err(unusable)?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// A stream after the handshake.
pub(super) struct TlsStream {
    place: String,
    tls: ClientConnection,
    tcp: TcpStream,
}

/// Connects and shakes hands. From the end of this on the other side knows the command.
pub(super) fn open(address: &Address, config: Arc<ClientConfig>, time_out: Duration) -> Result<TlsStream, Failure> {
    let mut tcp = address.connect(time_out)?;
    let place = address.to_string();
    let lost = |error| Failure::Handshake { place: place.clone(), error };
    let peer = tcp.peer_addr().map_err(lost)?;
    tcp.set_read_timeout(Some(time_out)).and_then(|()| tcp.set_write_timeout(Some(time_out))).map_err(lost)?;
    let name = ServerName::IpAddress(peer.ip().into());
    let mut tls = ClientConnection::new(config, name).map_err(|error| lost(io::Error::other(error)))?;
    while tls.is_handshaking() || tls.wants_write() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            return Err(said(&place, &error).unwrap_or_else(|| lost(error)));
        }
    }
    Ok(TlsStream { place, tls, tcp })
}

/// What TLS says about an error, where it is about certificates.
fn said(place: &str, error: &io::Error) -> Option<Failure> {
    let place = place.to_owned();
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(error) => Some(Failure::Server { place, reason: server_reason(error) }),
        Error::AlertReceived(alert) => {
            own_reason(*alert).map(|reason| Failure::OwnRefused { place, reason: reason.to_owned() })
        }
        _ => None,
    }
}

fn server_reason(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => {
            "another CA has signed it: give the CA certificate of this server".to_owned()
        }
        CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. } => {
            format!("its certificate is of another time ({error}): it needs a new one, or a clock is wrong")
        }
        CertificateError::InvalidPurpose => "its certificate is not that of a server".to_owned(),
        error => format!("its certificate is refused ({error})"),
    }
}

/// What an alert says about our certificates; nothing where it is about something else.
fn own_reason(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::BadCertificate => "one of them cannot be used (bad certificate)",
        AlertDescription::UnsupportedCertificate => "one is of a kind that it does not know",
        AlertDescription::CertificateRevoked => "one is revoked",
        AlertDescription::CertificateExpired => "one has expired, or is not valid yet",
        AlertDescription::CertificateUnknown => "one of them cannot be used (certificate unknown)",
        AlertDescription::UnknownCA => "unknown issuer: it trusts another CA",
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::DecryptError => "a signature is wrong",
        AlertDescription::CertificateRequired => "it wants one, and got none",
        _ => return None,
    })
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp).read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        rustls::Stream::new(&mut self.tls, &mut self.tcp).flush()
    }
}

impl Transport for TlsStream {
    fn set_time_out(&self, time_out: Option<Duration>) -> io::Result<()> {
        self.tcp.set_read_timeout(time_out)?;
        self.tcp.set_write_timeout(time_out)
    }

    /// Whether there is something for the reader: what only TLS itself is told does not count.
    fn is_readable(&mut self) -> bool {
        loop {
            match self.tls.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                // What is wrong is seen when it is read.
                _ => return true,
            }
            let mut fds = [PollFd::new(self.tcp.as_fd(), PollFlags::POLLIN)];
            if !poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0) {
                return false;
            }
            match self.tls.read_tls(&mut self.tcp) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return true,
            }
        }
    }

    fn failure(&self, error: &io::Error) -> Option<Failure> {
        said(&self.place, error)
    }
}
