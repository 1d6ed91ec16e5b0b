//! The command lines of `vmmd_tls` and `vmmd_tls_inetd`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::keys::Paths;

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// The folder of revoked certificates where none is given.
const REVOKED: &str = "/var/lib/albatross/revoked";

/// The files where none are given.
const CA: &str = "/etc/albatross/cacert.pem";
const CERTIFICATE: &str = "/etc/albatross/server.pem";
const KEY: &str = "/etc/albatross/server.key";

/// The port where none is given, as the peer has it.
const PORT: u16 = 1025;

/// What `vmmd_tls --help` prints.
const LISTENING_HELP: &str = "\
usage: vmmd_tls [OPTIONS]

Takes commands from clients that prove by certificates who they are and what they may do, over TLS 1.3. It hands them to the daemons
in DIR/util and needs no privilege. Started by root, it becomes the user who owns DIR/util; the files must be readable for that user.
SIGHUP has it read the certificates again.

  --run DIR           sockets of the daemons [/run/albatross]
  --ca FILE           the CA that clients' certificates come from, PEM [/etc/albatross/cacert.pem]
  --cert FILE         the server's certificate, PEM [/etc/albatross/server.pem]
  --key FILE          the server's key, PEM [/etc/albatross/server.key]
  --revoked DIR       lists of revoked certificates [/var/lib/albatross/revoked]
  --ip ADDRESS        where to listen; :: is IPv4 too [::]
  --port PORT         where to listen [1025]
  --help              this text
  --version           the version

example: vmmd_tls --ca cacert.pem --cert server.pem --key server.key
";

/// What `vmmd_tls_inetd --help` prints.
const ONE_HELP: &str = "\
usage: vmmd_tls_inetd [OPTIONS]

As vmmd_tls, for the one client that is connected to the standard input, and ends with it: for inetd and for systemd sockets with
Accept=yes.

  --run DIR           sockets of the daemons [/run/albatross]
  --ca FILE           the CA that clients' certificates come from, PEM [/etc/albatross/cacert.pem]
  --cert FILE         the server's certificate, PEM [/etc/albatross/server.pem]
  --key FILE          the server's key, PEM [/etc/albatross/server.key]
  --revoked DIR       lists of revoked certificates [/var/lib/albatross/revoked]
  --help              this text
  --version           the version

example: 1025 stream tcp6 nowait fulmar /usr/sbin/vmmd_tls_inetd vmmd_tls_inetd
";

/// Which of the two programs it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// `vmmd_tls`.
    Listening,
    /// `vmmd_tls_inetd`.
    One,
}

impl Program {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listening => "vmmd_tls",
            Self::One => "vmmd_tls_inetd",
        }
    }

    /// What `--help` prints.
    pub(crate) fn help(self) -> &'static str {
        match self {
            Self::Listening => LISTENING_HELP,
            Self::One => ONE_HELP,
        }
    }
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Serve.
    Serve(Options),
}

/// The options, each with its value or its default.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub(crate) run: PathBuf,
    pub(crate) paths: Paths,
    pub(crate) revoked: PathBuf,
    pub(crate) address: SocketAddr,
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OptionsError {
    /// Not an option.
    Unknown(OsString),
    /// An option without its value.
    NoValue(&'static str),
    /// Not an address.
    Address(OsString),
    /// Not a port.
    Port(OsString),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "unknown option '{}', see --help", argument.display()),
            Self::NoValue(option) => write!(f, "{option} needs a value, see --help"),
            Self::Address(value) => {
                write!(f, "--ip: '{}' is no address: write one as 192.0.2.1 or 2001:db8::1", value.display())
            }
            Self::Port(value) => write!(f, "--port: '{}' is no port: write a number from 0 to 65535", value.display()),
        }
    }
}

impl std::error::Error for OptionsError {}

impl Command {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(program: Program, arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OptionsError> {
        let mut arguments = arguments.into_iter();
        let mut options = Options {
            run: RUN.into(),
            paths: Paths { ca: CA.into(), certificate: CERTIFICATE.into(), key: KEY.into() },
            revoked: REVOKED.into(),
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
        };
        while let Some(argument) = arguments.next() {
            // Both `--run DIR` and `--run=DIR`.
            let mut parts = argument.as_bytes().splitn(2, |byte| *byte == b'=');
            let option = parts.next().unwrap_or_default();
            let joined = parts.next().map(|value| OsStr::from_bytes(value).to_owned());
            let value = |name| joined.or_else(|| arguments.next()).ok_or(OptionsError::NoValue(name));
            match option {
                b"--help" | b"-h" => return Ok(Self::Help),
                b"--version" | b"-V" => return Ok(Self::Version),
                b"--run" => options.run = value("--run")?.into(),
                b"--ca" => options.paths.ca = value("--ca")?.into(),
                b"--cert" => options.paths.certificate = value("--cert")?.into(),
                b"--key" => options.paths.key = value("--key")?.into(),
                b"--revoked" => options.revoked = value("--revoked")?.into(),
                b"--ip" if program == Program::Listening => options.address.set_ip(parse_ip(value("--ip")?)?),
                b"--port" if program == Program::Listening => options.address.set_port(parse_port(value("--port")?)?),
                _ => return Err(OptionsError::Unknown(argument)),
            }
        }
        Ok(Self::Serve(options))
    }
}

fn parse_ip(value: OsString) -> Result<IpAddr, OptionsError> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or(OptionsError::Address(value))
}

fn parse_port(value: OsString) -> Result<u16, OptionsError> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or(OptionsError::Port(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(program: Program, arguments: &[&str]) -> Result<Command, OptionsError> {
        Command::parse(program, arguments.iter().map(OsString::from))
    }

    #[test]
    fn values_come_joined_or_apart() {
        let Ok(Command::Serve(options)) =
            parse(Program::Listening, &["--ca=/a=b", "--ip", "127.0.0.1", "--port=0", "--run", "/r"])
        else {
            panic!("not read")
        };
        assert_eq!((options.paths.ca, options.run), ("/a=b".into(), "/r".into()));
        assert_eq!(options.address.to_string(), "127.0.0.1:0");
    }

    #[test]
    fn the_help_tells_the_defaults_and_what_is_wrong_is_named() {
        for program in [Program::Listening, Program::One] {
            for default in [RUN, REVOKED, CA, CERTIFICATE, KEY] {
                assert!(program.help().contains(&format!("[{default}]")), "{default}");
            }
        }
        assert!(LISTENING_HELP.contains(&format!("[{PORT}]")));
        for (arguments, text) in [
            (&["--prot"][..], "unknown option '--prot', see --help"),
            (&["--key"], "--key needs a value, see --help"),
            (&["--ip", "localhost"], "--ip: 'localhost' is no address: write one as 192.0.2.1 or 2001:db8::1"),
            (&["--port", "65536"], "--port: '65536' is no port: write a number from 0 to 65535"),
        ] {
            assert_eq!(parse(Program::Listening, arguments).unwrap_err().to_string(), text);
        }
        assert!(matches!(parse(Program::One, &["--port", "1"]), Err(OptionsError::Unknown(_))));
    }
}
