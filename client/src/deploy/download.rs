//! Images from elsewhere, by HTTP: bounded in bytes, time and redirects. Whether what comes is what is wanted, its digest says.

use std::env;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fulmar_core::limits::IMAGE_BYTES_MAX;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::error::Failure;
use crate::input;
use crate::new_file::NewFile;

/// How long a server may take to be reached, and to begin its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long an image may take altogether.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(600);

/// How often a server may send us on.
const REDIRECTS_MAX: u32 = 5;

/// Bytes that are taken at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// The variable that names a file with certificates to trust in the place of the usual ones, as other programs have it.
const CERTIFICATES: &str = "SSL_CERT_FILE";

/// Puts what this URL gives into a new file.
///
/// # Errors
/// What went wrong, for people; the URL is not in it.
pub(super) fn download(url: &str, file: &Path) -> Result<(), String> {
    let roots = match env::var_os(CERTIFICATES) {
        Some(file) => roots(Path::new(&file))?,
        None => RootCerts::WebPki,
    };
    let config = Agent::config_builder()
        .timeout_global(Some(DOWNLOAD_TIME_MAX))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .max_redirects(REDIRECTS_MAX)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build();
    let mut answer = Agent::new_with_config(config).get(url).call().map_err(|error| error.to_string())?;
    let mut body = answer.body_mut().as_reader();
    let mut place = NewFile::create(file, IMAGE_BYTES_MAX).map_err(|failure| failure.to_string())?;
    let (mut piece, mut bytes) = (vec![0; PIECE_BYTES], 0);
    loop {
        match body.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                bytes += count as u64;
                if bytes > IMAGE_BYTES_MAX {
                    return Err(format!("it is larger than an image can be ({IMAGE_BYTES_MAX} bytes)"));
                }
                let taken = place.take(piece.get(..count).unwrap_or_default());
                taken.map_err(|failure: Failure| failure.to_string())?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    place.finish().map(drop).map_err(|failure| failure.to_string())
}

/// Bytes of a file with certificates: those of all systems have less than one.
const BUNDLE_BYTES_MAX: u64 = 16 << 20;

/// The certificates of a file.
fn roots(file: &Path) -> Result<RootCerts, String> {
    let place = || format!("{CERTIFICATES} is {}", file.display());
    let mut pem = Vec::new();
    let read = input::open(file).and_then(|it| it.take(BUNDLE_BYTES_MAX).read_to_end(&mut pem));
    read.map_err(|error| format!("{}, which cannot be read ({error})", place()))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(format!("{}, which has no certificate", place()));
    }
    Ok(RootCerts::Specific(Arc::new(certificates)))
}
