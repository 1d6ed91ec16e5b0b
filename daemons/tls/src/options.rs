//! The settings of `vmmd_tls` and `vmmd_tls_inetd`.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use fulmar_host::privilege::Identity;
use fulmar_host::settings::{Program, Setting, user};

use crate::keys::Paths;

/// The configuration of both.
const FILE: &str = "/etc/fulmar/tls.toml";

/// `vmmd_tls`.
pub(crate) const LISTENING: Program<Options> = Program {
    name: "vmmd_tls",
    version: env!("CARGO_PKG_VERSION"),
    help: LISTENING_HELP,
    file: Some(FILE),
    settings: SETTINGS,
};

/// `vmmd_tls_inetd`.
pub(crate) const ONE: Program<Options> = Program {
    name: "vmmd_tls_inetd",
    version: env!("CARGO_PKG_VERSION"),
    help: ONE_HELP,
    file: Some(FILE),
    settings: SETTINGS,
};

const SETTINGS: &[Setting<Options>] = &[
    Setting::path("run", |options| &mut options.run),
    Setting::text("user", |options, value| {
        options.user = user(value)?;
        Ok(())
    }),
    Setting::path("ca", |options| &mut options.paths.ca),
    Setting::path("cert", |options| &mut options.paths.certificate),
    Setting::path("key", |options| &mut options.paths.key),
    Setting::path("revoked", |options| &mut options.revoked),
    Setting::text("ip", |options, value| {
        options.address.set_ip(ip(value)?);
        Ok(())
    }),
    Setting::number("port", |options, value| {
        options.address.set_port(port(value)?);
        Ok(())
    }),
];

/// The run folder where none is given.
const RUN: &str = "/run/albatross";

/// The folder of revoked certificates where none is given.
const REVOKED: &str = "/var/lib/albatross/revoked";

/// The files where none are given.
const CA: &str = "/etc/fulmar/cacert.pem";
const CERTIFICATE: &str = "/etc/fulmar/server.pem";
const KEY: &str = "/etc/fulmar/server.key";

/// The port where none is given, as the peer has it.
const PORT: u16 = 1025;

const LISTENING_HELP: &str = "\
usage: vmmd_tls [OPTIONS]

Takes commands from clients that prove by certificates who they are and what they may do, over TLS 1.3. It hands them to the daemons
in DIR/util and needs no privilege. Started by root, it becomes another user; the files must be readable for that user.
SIGHUP has it read the certificates again.

  --run DIR           sockets of the daemons [/run/albatross]
  --user USER         who to become [fulmar-tls if that user exists, else the owner of DIR/util]
  --ca FILE           the CA that clients' certificates come from, PEM [/etc/fulmar/cacert.pem]
  --cert FILE         the server's certificate, PEM [/etc/fulmar/server.pem]
  --key FILE          the server's key, PEM [/etc/fulmar/server.key]
  --revoked DIR       lists of revoked certificates [/var/lib/albatross/revoked]
  --ip ADDRESS        where to listen, unless a socket is handed over; :: is IPv4 too [::]
  --port PORT         where to listen [1025]
  --log TARGET        stderr or syslog [stderr]
  --log-level LEVEL   error, warning, info or debug [info]
  --config FILE       what the options above say, as in: port = 1025 [/etc/fulmar/tls.toml, if it is there]
  --check             say what is wrong with all this, and end
  --help              this text
  --version           the version

example: vmmd_tls --ca cacert.pem --cert server.pem --key server.key
";

const ONE_HELP: &str = "\
usage: vmmd_tls_inetd [OPTIONS]

As vmmd_tls, for the one client that is connected to the standard input, and ends with it: for inetd and for systemd sockets with
Accept=yes. It writes nothing to that connection but TLS, so where the standard error is the same its lines go to syslog or nowhere.

  --run DIR           sockets of the daemons [/run/albatross]
  --user USER         who to become [fulmar-tls if that user exists, else the owner of DIR/util]
  --ca FILE           the CA that clients' certificates come from, PEM [/etc/fulmar/cacert.pem]
  --cert FILE         the server's certificate, PEM [/etc/fulmar/server.pem]
  --key FILE          the server's key, PEM [/etc/fulmar/server.key]
  --revoked DIR       lists of revoked certificates [/var/lib/albatross/revoked]
  --ip ADDRESS        for vmmd_tls, which reads the same file [::]
  --port PORT         for vmmd_tls [1025]
  --log TARGET        stderr or syslog [stderr]
  --log-level LEVEL   error, warning, info or debug [info]
  --config FILE       what the options above say, as in: log = \"syslog\" [/etc/fulmar/tls.toml, if it is there]
  --check             say what is wrong with all this, and end
  --help              this text
  --version           the version

example: 1025 stream tcp6 nowait fulmar /usr/sbin/vmmd_tls_inetd vmmd_tls_inetd --log syslog
";

/// What is served, and with what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// The run folder.
    pub(crate) run: PathBuf,
    /// Who it becomes when root starts it, where that is said.
    pub(crate) user: Option<Identity>,
    /// The keys and certificates.
    pub(crate) paths: Paths,
    /// The folder of revoked certificates.
    pub(crate) revoked: PathBuf,
    /// Where to listen.
    pub(crate) address: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            run: RUN.into(),
            user: None,
            paths: Paths { ca: CA.into(), certificate: CERTIFICATE.into(), key: KEY.into() },
            revoked: REVOKED.into(),
            address: SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
        }
    }
}

fn ip(value: &OsStr) -> Result<IpAddr, String> {
    let address = value.to_str().and_then(|text| text.parse().ok());
    address.ok_or_else(|| format!("'{}' is no address: write one as 192.0.2.1 or 2001:db8::1", value.display()))
}

fn port(value: &OsStr) -> Result<u16, String> {
    let port = value.to_str().and_then(|text| text.parse().ok());
    port.ok_or_else(|| format!("'{}' is no port: write a number from 0 to 65535", value.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_said_and_what_not() {
        assert_eq!(ip(OsStr::new("::1")), Ok(IpAddr::from(Ipv6Addr::LOCALHOST)));
        assert_eq!(port(OsStr::new("0")), Ok(0));
        for wrong in ["localhost", "", "1.2.3", "[::1]", "1.2.3.4:5"] {
            assert!(ip(OsStr::new(wrong)).unwrap_err().contains("is no address"), "{wrong}");
        }
        for wrong in ["65536", "-1", "", "https"] {
            assert!(port(OsStr::new(wrong)).unwrap_err().contains("is no port"), "{wrong}");
        }
    }

    #[test]
    fn the_help_tells_the_settings_and_their_defaults() {
        for program in [LISTENING, ONE] {
            for setting in program.settings {
                assert!(program.help.contains(&format!("  --{} ", setting.name)), "{}", setting.name);
            }
            for default in [RUN, REVOKED, CA, CERTIFICATE, KEY, &PORT.to_string()] {
                assert!(program.help.contains(&format!("[{default}]")), "{default}");
            }
            assert!(program.help.contains(&format!("[{FILE}, if")));
        }
    }
}
