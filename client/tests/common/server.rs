//! A server of TLS that hears a client's certificates and says what a test wants it to say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use fulmar_client::pki::read::Cert;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::authority::Authority;

/// The server's end of a conversation.
pub(crate) type Conversation = StreamOwned<ServerConnection, std::net::TcpStream>;

/// What was heard on a connection: the client's certificates, the leaf first, and what it sent.
pub(crate) type Heard = (Vec<Cert>, Vec<u8>);

/// A server for some connections, one after the other.
pub(crate) struct TlsServer {
    pub(crate) address: SocketAddr,
    thread: JoinHandle<Vec<Heard>>,
}

impl TlsServer {
    /// Serves with `STEM.pem` and `STEM.key`; each of `answers` is for one connection.
    pub(crate) fn new<F>(authority: &Authority, stem: &str, answers: Vec<F>) -> Self
    where
        F: FnOnce(&mut Conversation) -> Vec<u8> + Send + 'static,
    {
        let config = Arc::new(config(authority, stem));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let mut heard = Vec::new();
            for answer in answers {
                let (mut tcp, _) = listener.accept().unwrap();
                let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                // A client that goes has said why.
                while tls.is_handshaking() {
                    if tls.complete_io(&mut tcp).is_err() {
                        break;
                    }
                }
                if tls.is_handshaking() {
                    continue;
                }
                let chain = tls.peer_certificates().unwrap().iter().map(|der| Cert::parse(der).unwrap()).collect();
                let mut stream = StreamOwned::new(tls, tcp);
                let said = answer(&mut stream);
                stream.conn.send_close_notify();
                let _ = stream.flush();
                heard.push((chain, said));
            }
            heard
        });
        Self { address, thread }
    }

    /// Answers each connection with these bytes.
    pub(crate) fn answering(authority: &Authority, answers: Vec<Vec<u8>>) -> Self {
        let answer = |bytes: Vec<u8>| {
            move |stream: &mut Conversation| {
                stream.write_all(&bytes).unwrap();
                Vec::new()
            }
        };
        Self::new(authority, "server", answers.into_iter().map(answer).collect())
    }

    pub(crate) fn place(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn heard(self) -> Vec<Heard> {
        self.thread.join().unwrap()
    }
}

fn config(authority: &Authority, stem: &str) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.path("cacert.pem")).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = CertificateDer::pem_file_iter(authority.path(&format!("{stem}.pem"))).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.path(&format!("{stem}.key"))).unwrap();
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    // Tickets are sent after the handshake: a client must not take them for an answer.
    builder.unwrap().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

/// The chunks of a stream up to the empty one, together.
pub(crate) fn read_chunks(stream: &mut Conversation) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        match u32::from_be_bytes(len) {
            0 => return content,
            len => {
                assert!(len <= 65_536, "the peer takes no longer chunks");
                let start = content.len();
                content.resize(start + len as usize, 0);
                stream.read_exact(&mut content[start..]).unwrap();
            }
        }
    }
}
