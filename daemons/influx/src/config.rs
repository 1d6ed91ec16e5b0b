//! The configuration file: TOML, and what it says must make sense before anything is started.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fulmar_host::log;
use fulmar_host::plain;
use fulmar_host::privilege::Identity;
use fulmar_host::settings::{self, FileError, set_log_level, set_log_target};
use rustls::RootCertStore;
use serde::Deserialize;
use ureq::http::Uri;
use ureq::tls::{PemItem, RootCerts, parse_pem};

use crate::line::Form;
#[cfg(target_os = "linux")]
use crate::names;
use crate::names::Names;

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// Seconds between two questions to `vmmd`, where nothing is said.
const INTERVAL_S: u64 = 10;

/// Bytes of a secret: more is no token.
const SECRET_BYTES_MAX: usize = 4096;

/// Bytes of a file whose first line is one.
const SECRET_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Bytes of a file of CAs.
const CA_FILE_BYTES_MAX: u64 = 1 << 20;

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Config {
    /// Who it becomes when root starts it, where that is said.
    pub(crate) user: Option<Identity>,
    /// The run folder of the daemons.
    pub(crate) run: PathBuf,
    /// Between two questions to `vmmd`.
    pub(crate) interval: Duration,
    pub(crate) tcp: Option<Tcp>,
    pub(crate) http: Option<Http>,
    /// Where OpenMetrics can be asked for.
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) log: log::Settings,
}

/// Lines over TCP.
#[derive(Debug)]
pub(crate) struct Tcp {
    /// `HOST:PORT`; looked up anew for each connection.
    pub(crate) address: String,
    pub(crate) form: Form,
}

/// Lines to an InfluxDB.
#[derive(Debug)]
pub(crate) struct Http {
    /// Where they are posted to.
    pub(crate) url: String,
    /// The host in it, and the port.
    server: Uri,
    /// The header that says who we are.
    pub(crate) authorization: Option<String>,
    /// By whom its certificate has to be issued.
    pub(crate) roots: RootCerts,
    pub(crate) form: Form,
}

/// What is wrong with a configuration.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// It cannot be read.
    Read(FileError),
    /// A line of it is no TOML, or not what is expected.
    Line(usize, String),
    /// A setting makes no sense.
    Setting(&'static str, String),
    /// A file that a setting names.
    File(PathBuf, io::Error),
    /// There is nothing to do.
    Nothing,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error @ FileError::Io(_)) => {
                write!(f, "{error}; write one (docs/metrics.md), or name it by --config")
            }
            Self::Read(error) => error.fmt(f),
            Self::Line(line, what) => write!(f, "line {line}: {what}"),
            Self::Setting(setting, why) => write!(f, "{setting}: {why}"),
            Self::File(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::Nothing => f.write_str("nothing is to be reported: add [tcp], [http] or [metrics]"),
        }
    }
}

impl std::error::Error for ConfigError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    run: Option<PathBuf>,
    user: Option<String>,
    interval_seconds: Option<u64>,
    log: Option<String>,
    log_level: Option<String>,
    tcp: Option<TcpSection>,
    http: Option<HttpSection>,
    metrics: Option<MetricsSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a section: [tcp]")]
struct TcpSection {
    address: String,
    #[serde(default)]
    full_names: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a section: [http]")]
struct HttpSection {
    url: String,
    database: Option<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    organisation: Option<String>,
    bucket: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    full_names: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a section: [metrics]")]
struct MetricsSection {
    listen: SocketAddr,
}

impl Config {
    /// By what the names in it are looked up.
    pub(crate) fn names(&self) -> Names {
        let tcp = self.tcp.as_ref().and_then(|tcp| Some(tcp.address.rsplit_once(':')?.0));
        let http = self.http.as_ref().and_then(|http| http.server.host());
        Names::of(&tcp.into_iter().chain(http).collect::<Vec<_>>())
    }

    /// The ports that are connected to.
    #[cfg(target_os = "linux")]
    pub(crate) fn ports(&self) -> Vec<u16> {
        let tcp = self.tcp.as_ref().and_then(|tcp| tcp.address.rsplit_once(':')?.1.parse().ok());
        let http = self.http.as_ref().map(|Http { server, .. }| {
            let usual = if server.scheme_str() == Some("https") { 443 } else { 80 };
            server.port_u16().unwrap_or(usual)
        });
        let names = Some(names::PORT).filter(|_| self.names().are_used());
        tcp.into_iter().chain(http).chain(names).collect()
    }

    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&settings::read_file(path).map_err(ConfigError::Read)?)
    }

    fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| wrong_line(text, &error))?;
        let seconds = file.interval_seconds.unwrap_or(INTERVAL_S);
        if !(1..=3600).contains(&seconds) {
            return Err(ConfigError::Setting("interval-seconds", format!("{seconds} is not from 1 to 3600")));
        }
        let user = file.user.map_or(Ok(None), |user| settings::user(user.as_ref()));
        let mut log = log::Settings::default();
        let log_is = |setting| move |why| ConfigError::Setting(setting, why);
        if let Some(target) = &file.log {
            set_log_target(&mut log, target.as_ref()).map_err(log_is("log"))?;
        }
        if let Some(level) = &file.log_level {
            set_log_level(&mut log, level.as_ref()).map_err(log_is("log-level"))?;
        }
        let config = Self {
            log,
            user: user.map_err(|why| ConfigError::Setting("user", why))?,
            run: file.run.unwrap_or_else(|| RUN.into()),
            interval: Duration::from_secs(seconds),
            tcp: file.tcp.map(TcpSection::check).transpose()?,
            http: file.http.map(HttpSection::check).transpose()?,
            metrics: file.metrics.map(|metrics| metrics.listen),
        };
        if config.tcp.is_none() && config.http.is_none() && config.metrics.is_none() {
            return Err(ConfigError::Nothing);
        }
        Ok(config)
    }
}

impl TcpSection {
    fn check(self) -> Result<Tcp, ConfigError> {
        // A name that is not known now may be later; what has no port never is.
        let port = self.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        if !matches!(port, Some(1_u16..)) {
            return Err(ConfigError::Setting("tcp.address", format!("'{}' is not HOST:PORT", self.address)));
        }
        Ok(Tcp { address: self.address, form: Form { full_names: self.full_names, with_time: false } })
    }
}

impl HttpSection {
    fn check(self) -> Result<Http, ConfigError> {
        let setting = |setting, why: &str| Err(ConfigError::Setting(setting, why.to_owned()));
        let base = self.url.trim_end_matches('/');
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return setting("http.url", "it must begin with http:// or https://");
        }
        let Some(server) = base.parse().ok().filter(|server: &Uri| server.host().is_some()) else {
            return setting("http.url", "it is none: write one as http://127.0.0.1:8086");
        };
        let (url, authorization) = match (&self.database, &self.organisation, &self.bucket) {
            (Some(database), None, None) => {
                if self.token_file.is_some() {
                    return setting("http.token-file", "a database has a user and a password-file instead");
                }
                let mut url = format!("{base}/write?db={}&precision=ms", escape(database));
                match (&self.user, &self.password_file) {
                    (Some(user), Some(file)) => {
                        url.push_str(&format!("&u={}&p={}", escape(user), escape(&secret(file)?)));
                    }
                    (None, None) => {}
                    _ => return setting("http.user", "user and password-file go together"),
                }
                (url, None)
            }
            (None, Some(organisation), Some(bucket)) => {
                if self.user.is_some() || self.password_file.is_some() {
                    return setting("http.user", "a bucket has a token-file instead");
                }
                let Some(file) = &self.token_file else { return setting("http.token-file", "a bucket needs one") };
                let (organisation, bucket) = (escape(organisation), escape(bucket));
                let url = format!("{base}/api/v2/write?org={organisation}&bucket={bucket}&precision=ms");
                (url, Some(format!("Token {}", secret(file)?)))
            }
            _ => return setting("http", "give database (InfluxDB 1), or organisation, bucket and token-file (2)"),
        };
        let roots = match &self.ca_file {
            None => RootCerts::WebPki,
            Some(_) if server.scheme_str() != Some("https") => {
                return setting("http.ca-file", "it is for https: the url is none");
            }
            Some(file) => read_roots(file)?,
        };
        Ok(Http { url, server, authorization, roots, form: Form { full_names: self.full_names, with_time: true } })
    }
}

/// What is wrong with it, in one line.
fn wrong_line(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    ConfigError::Line(before.matches('\n').count() + 1, error.message().replace('\n', ", "))
}

/// The first line of a file.
fn secret(path: &Path) -> Result<String, ConfigError> {
    let bytes = plain::read(path, SECRET_FILE_BYTES_MAX).map_err(|error| ConfigError::File(path.to_owned(), error))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() || line.len() > SECRET_BYTES_MAX || line.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(ConfigError::Setting("http", format!("there is no secret in {}", path.display())));
    }
    Ok(line.to_owned())
}

/// The certificates of a file, each a CA's.
fn read_roots(path: &Path) -> Result<RootCerts, ConfigError> {
    let bytes = plain::read(path, CA_FILE_BYTES_MAX).map_err(|error| ConfigError::File(path.to_owned(), error))?;
    let wrong = |what: &str| ConfigError::Setting("http.ca-file", format!("{} {what}", path.display()));
    let mut roots = Vec::new();
    for item in parse_pem(&bytes) {
        let Ok(PemItem::Certificate(certificate)) = item else {
            return Err(wrong("has more than certificates in PEM, or something damaged"));
        };
        // As it will be taken, or passed over.
        if RootCertStore::empty().add(certificate.der().into()).is_err() {
            return Err(wrong("has a certificate that is none, or not of version 3"));
        }
        roots.push(certificate);
    }
    if roots.is_empty() {
        return Err(wrong("has no certificate in PEM"));
    }
    Ok(RootCerts::from(roots))
}

/// For a query (RFC 3986, section 2.3): what is not unreserved is escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// All addresses of `HOST:PORT`.
///
/// # Errors
/// The name is not known.
pub(crate) fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(address.to_socket_addrs()?.collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_well_and_what_is_said_of_what_is_not() {
        let folder = std::env::temp_dir().join(format!("fulmar-influx-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let token = folder.join("token");
        fs::write(&token, "abc==\nrest").unwrap();
        fs::write(folder.join("empty"), "\n").unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        let all = format!(
            "run = \"/r\"\ninterval-seconds = 3\n[tcp]\naddress = \"localhost:8094\"\n[http]\nurl = \"http://127.0.0.1:1/\"\n\
             organisation = \"an org\"\nbucket = \"b&c\"\ntoken-file = {:?}\n[metrics]\nlisten = \"[::1]:9102\"\n",
            token
        );
        let config = Config::parse(&all).unwrap();
        assert!(config.names().are_used());
        #[cfg(target_os = "linux")]
        assert_eq!(config.ports(), [8094, 1, 53]);
        assert_eq!((config.run, config.interval), ("/r".into(), Duration::from_secs(3)));
        assert_eq!(config.tcp.unwrap().address, "localhost:8094");
        let http = config.http.unwrap();
        assert_eq!(http.url, "http://127.0.0.1:1/api/v2/write?org=an%20org&bucket=b%26c&precision=ms");
        assert_eq!(http.authorization.as_deref(), Some("Token abc=="));
        assert_eq!(config.metrics.unwrap().port(), 9102);
        let user =
            format!("[http]\nurl = \"https://127.0.0.1\"\ndatabase = \"d\"\nuser = \"u\"\npassword-file = {token:?}");
        let config = Config::parse(&user).unwrap();
        assert!(!config.names().are_used());
        #[cfg(target_os = "linux")]
        assert_eq!(config.ports(), [443]);
        let http = config.http.unwrap();
        assert_eq!(http.url, "https://127.0.0.1/write?db=d&precision=ms&u=u&p=abc%3D%3D");

        let (none, empty) = (file("none"), file("empty"));
        let pem = |kind: &str| format!("-----BEGIN {kind}-----\nMAA=\n-----END {kind}-----\n");
        fs::write(folder.join("junk"), pem("CERTIFICATE")).unwrap();
        fs::write(folder.join("key"), pem("PRIVATE KEY")).unwrap();
        let (junk, key) = (file("junk"), file("key"));
        let with_ca = |scheme: &str, ca: &str| {
            format!("[http]\nurl = \"{scheme}://127.0.0.1\"\ndatabase = \"d\"\nca-file = {ca:?}")
        };
        let with_token = |path: &str| {
            format!("[http]\nurl = \"http://127.0.0.1\"\norganisation = \"o\"\nbucket = \"b\"\ntoken-file = {path:?}")
        };
        for (text, said) in [
            (String::new(), "add [tcp], [http] or [metrics]"),
            ("run = 3".into(), "invalid type"),
            ("tcp = 1".into(), "expected a section: [tcp]"),
            ("http = \"u\"".into(), "expected a section: [http]"),
            ("metrics = true".into(), "expected a section: [metrics]"),
            ("rum = \"/r\"".into(), "unknown field `rum`"),
            ("[tcp]".into(), "missing field `address`"),
            ("[tcp]\naddress = \"h\"".into(), "tcp.address: 'h' is not HOST:PORT"),
            ("[tcp]\naddress = \"h:0\"".into(), "is not HOST:PORT"),
            ("[tcp]\naddress = \"h:70000\"".into(), "is not HOST:PORT"),
            ("log = \"here\"\n[tcp]\naddress = \"h:1\"".into(), "log: 'here' is neither stderr nor syslog"),
            ("log-level = \"loud\"\n[tcp]\naddress = \"h:1\"".into(), "log-level: 'loud' is none of"),
            ("interval-seconds = 0\n[tcp]\naddress = \"h:1\"".into(), "interval-seconds: 0 is not from 1"),
            ("[metrics]\nlisten = \"h\"".into(), "line 2"),
            ("[http]\nurl = \"h\"\ndatabase = \"d\"".into(), "http.url: it must begin with"),
            ("[http]\nurl = \"http://127.0.0.1:1 2\"\ndatabase = \"d\"".into(), "http.url: it is none"),
            ("[http]\nurl = \"http://127.0.0.1\"".into(), "give database (InfluxDB 1), or"),
            ("[http]\nurl = \"http://127.0.0.1\"\ndatabase = \"d\"\nbucket = \"b\"".into(), "give database"),
            ("[http]\nurl = \"http://127.0.0.1\"\ndatabase = \"d\"\nuser = \"u\"".into(), "go together"),
            (
                "[http]\nurl = \"http://127.0.0.1\"\norganisation = \"o\"\nbucket = \"b\"".into(),
                "http.token-file: a bucket",
            ),
            (with_token(&none), "none cannot be read"),
            (with_token(&empty), "there is no secret in"),
            (with_ca("https", &none), "none cannot be read"),
            (with_ca("https", &empty), "has no certificate in PEM"),
            (with_ca("https", &junk), "has a certificate that is none"),
            (with_ca("https", &key), "has more than certificates"),
            (with_ca("http", &junk), "http.ca-file: it is for https"),
        ] {
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
