//! Which files a daemon can still reach, whoever owns them, and to which ports of TCP it can still connect: by Landlock, where the
//! kernel has it.

use std::path::{Path, PathBuf};

use fulmar_host::{debug, warning};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

use super::NotConfined;

/// The newest rights that are taken away; a kernel that knows fewer takes those.
const KNOWN: ABI = ABI::V5;

/// A program, and what it goes on to reach.
#[derive(Clone, Copy, Debug)]
pub enum Enclosure<'a> {
    /// `vmmd_tls` and `vmmd_tls_inetd`.
    Tls {
        /// The folders in which certificates lie, which are read again.
        certificates: &'a [PathBuf],
        /// The folder of revoked certificates.
        revoked: &'a Path,
    },
    /// `vmmd_console`.
    Console {
        /// The run folder.
        run: &'a Path,
    },
    /// `vmmd_log`.
    Log {
        /// The run folder.
        run: &'a Path,
        /// The folder of events.
        events: &'a Path,
    },
    /// `vmmd_stats`.
    Stats {
        /// The run folder.
        run: &'a Path,
    },
    /// `vmmd_influx`.
    Influx {
        /// By which names are looked up.
        names: &'a [PathBuf],
        /// The ports of what it reports to.
        ports: &'a [u16],
    },
    /// The half of `vmmd` that decides.
    Control {
        /// The run folder.
        run: &'a Path,
        /// The state folder.
        state: &'a Path,
    },
}

/// What a program may reach.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Reach {
    /// All but executing, below these.
    own: Vec<PathBuf>,
    /// Reading, of these and below.
    read: Vec<PathBuf>,
    /// Connecting by TCP, to these ports. Listening on any is over.
    ports: Vec<u16>,
}

impl Enclosure<'_> {
    /// What the program opens after it has begun.
    fn reach(self) -> Reach {
        let shared = |run: &Path| ["util", "fifo"].map(|name| run.join(name)).to_vec();
        let read = |paths: &[&str]| paths.iter().map(PathBuf::from).collect();
        match self {
            Self::Tls { certificates, revoked } => {
                Reach { own: vec![revoked.to_owned()], read: certificates.to_vec(), ..Reach::default() }
            }
            Self::Console { run } => Reach { own: shared(run), ..Reach::default() },
            // What cannot be guessed.
            Self::Log { run, events } => Reach {
                own: [shared(run), vec![events.to_owned()]].concat(),
                read: read(&["/dev/urandom"]),
                ..Reach::default()
            },
            // What processes use, and what `vmmd` says of them.
            Self::Stats { run } => {
                Reach { own: shared(run), read: vec!["/proc".into(), run.to_owned()], ..Reach::default() }
            }
            Self::Influx { names, ports } => Reach { read: names.to_vec(), ports: ports.to_vec(), ..Reach::default() },
            // Who is who, what is open, what cannot be guessed. For its block devices an administrator may have put a link there.
            Self::Control { run, state } => Reach {
                own: [shared(run), vec![state.to_owned(), state.join("block")]].concat(),
                read: read(&["/etc/passwd", "/proc", "/dev/urandom"]),
                ..Reach::default()
            },
        }
    }
}

/// From here on this process reaches no other file and connects to no other port. Called while there is one thread. Where the kernel
/// has no Landlock it is only said so: its user, and the table of its calls, are what holds it then.
///
/// # Errors
/// [`NotConfined`], where the kernel has Landlock and says no.
pub fn enclose(enclosure: Enclosure<'_>) -> Result<(), NotConfined> {
    match restrict(&enclosure.reach()).map_err(|error| NotConfined::Reach(error.to_string()))? {
        RulesetStatus::FullyEnforced => debug!("Landlock: only own folders can be reached"),
        RulesetStatus::PartiallyEnforced => {
            debug!("Landlock: only own folders can be reached, as far as this kernel knows");
        }
        RulesetStatus::NotEnforced => warning!("Landlock: not in this kernel, files are held by users alone"),
    }
    Ok(())
}

fn restrict(reach: &Reach) -> Result<RulesetStatus, RulesetError> {
    let all: BitFlags<AccessFs> = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
    let ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN))?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(&reach.own, all))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(&reach.read, AccessFs::ReadFile | AccessFs::ReadDir))?;
    let ports = reach.ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    Ok(ruleset.add_rules(ports)?.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nothing_is_reached_but_what_is_its_own() {
        let folder = fulmar_tests::system::make_folder("enclosure").unwrap();
        let (run, certificates) = (folder.join("run"), folder.join("certificates"));
        for made in [&run.join("util"), &certificates] {
            fs::create_dir_all(made).unwrap();
        }
        let file = certificates.join("file");
        fs::write(&file, "text").unwrap();
        let [open, closed] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let connects = |listener: &TcpListener| TcpStream::connect(listener.local_addr().unwrap()).is_ok();
        // It holds for the thread that asks for it.
        let within = |reach: Reach, body: &(dyn Fn() + Sync)| {
            let enclosed = || match restrict(&reach).unwrap() {
                RulesetStatus::NotEnforced => {
                    fulmar_tests::skips::skip("nothing_is_reached_but_what_is_its_own", "no Landlock in this kernel");
                }
                _ => body(),
            };
            std::thread::scope(|scope| scope.spawn(enclosed).join()).unwrap();
        };
        within(Enclosure::Stats { run: &run }.reach(), &|| {
            assert!(fs::write(run.join("util/new"), "new").is_ok() && fs::read("/proc/self/stat").is_ok());
            assert!(fs::write(run.join("new"), "new").is_err() && fs::write(folder.join("new"), "new").is_err());
            assert!(fs::read("/etc/passwd").is_err() && fs::write("/proc/self/comm", "new").is_err());
            assert!(std::process::Command::new("/bin/true").status().is_err());
            assert!(!connects(&open) && TcpListener::bind("127.0.0.1:0").is_err());
        });
        let folders = [certificates.clone()];
        within(Enclosure::Tls { certificates: &folders, revoked: &run }.reach(), &|| {
            assert_eq!(fs::read(&file).unwrap(), b"text");
            assert!(fs::write(&file, "new").is_err() && fs::write(run.join("list"), "new").is_ok());
            assert!(!connects(&open) && TcpListener::bind("127.0.0.1:0").is_err());
        });
        let ports = [open.local_addr().unwrap().port()];
        within(Enclosure::Influx { names: std::slice::from_ref(&file), ports: &ports }.reach(), &|| {
            assert!(fs::read(&file).is_ok() && fs::read(run.join("util/new")).is_err());
            assert!(connects(&open) && !connects(&closed) && TcpListener::bind("127.0.0.1:0").is_err());
        });
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn each_reaches_its_own_part() {
        let (run, state) = (Path::new("/run/x"), Path::new("/state"));
        let own = |enclosure: Enclosure<'_>| enclosure.reach().own;
        assert_eq!(own(Enclosure::Console { run }), ["/run/x/util", "/run/x/fifo"].map(PathBuf::from));
        assert!(own(Enclosure::Log { run, events: state }).contains(&state.to_owned()));
        let control = Enclosure::Control { run, state }.reach();
        assert!(control.own.contains(&"/state".into()) && control.own.contains(&"/state/block".into()));
        assert_eq!(control.read, ["/etc/passwd", "/proc", "/dev/urandom"].map(PathBuf::from));
        let nothing = Enclosure::Influx { names: &[], ports: &[] }.reach();
        assert_eq!(nothing, Reach::default());
    }
}
