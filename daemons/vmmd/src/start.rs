//! How `vmmd` comes up: its folders, its lock, and the two halves, of which the deciding one gives up its privileges first.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use fulmar_host::channel::Channel;
use fulmar_host::error;
use fulmar_host::log;
use fulmar_host::privilege::{self, Identity};
use fulmar_host::renounce::{self, NotRenounced};
use fulmar_host::service::{self, Door, ServiceError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, OFlag, fcntl};

use crate::decide::ControlPlace;
use crate::options::{CONTROL_HALF, ControlOptions, Options};
use crate::requirements::{self, Unmet};

/// How often to look whether a dying predecessor has let go of the lock, and how long to wait in between.
const LOCK_TRIES: u32 = 40;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Why `vmmd` did not come up.
#[derive(Debug)]
pub(crate) enum StartError {
    /// A folder could not be made, or given to the control half.
    Folder(PathBuf, io::Error),
    /// Something that must hold does not.
    Unmet(Unmet),
    /// Another `vmmd` uses the run folder.
    InUse(PathBuf, String),
    /// The lock could not be used.
    Lock(PathBuf, io::Error),
    /// The channel between the halves could not be made or found.
    Channel(io::Error),
    /// The host could not be used.
    Shim(io::Error),
    /// There is no shim for this operating system.
    #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
    NoShim,
    /// The control half could not be started.
    Control(io::Error),
    /// The control half could not give up its privileges.
    Privileges(Identity, Errno),
    /// What a half was started with could not be given up.
    Renounce(NotRenounced),
    /// The control half could not be confined.
    #[cfg(target_os = "linux")]
    Confine(fulmar_shim_linux::sandbox::NotConfined),
    /// Who started it asks for what cannot be.
    Service(ServiceError),
}

impl From<ServiceError> for StartError {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => {
                write!(f, "could not use the folder {}: {error}; see --run and --state", path.display())
            }
            Self::Unmet(unmet) => unmet.fmt(f),
            Self::InUse(path, holder) => write!(
                f,
                "another vmmd, process {holder}, uses the run folder {}: end that one or give another --run",
                path.display()
            ),
            Self::Lock(path, error) => {
                let user = Identity::current().uid;
                write!(f, "could not lock {}: {error}; user {user} must be able to write to it", path.display())
            }
            Self::Channel(error) => write!(f, "could not set up the channel between the halves: {error}"),
            Self::Shim(error) => write!(f, "could not set up the watch over processes: {error}"),
            #[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
            Self::NoShim => f.write_str("unikernels cannot be run on this operating system yet: use Linux or FreeBSD"),
            Self::Control(error) => write!(f, "could not start the control half: {error}"),
            Self::Privileges(user, errno) => {
                write!(f, "could not become user {user}: {}; see --user", errno.desc())
            }
            Self::Renounce(error) => error.fmt(f),
            #[cfg(target_os = "linux")]
            Self::Confine(error) => error.fmt(f),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

/// Whether the control half can run as `user`, or else has to stay who we are.
pub(crate) fn attainable(user: Identity) -> Identity {
    let same = user == Identity::current();
    if same || privilege::can_become(user.uid.as_raw(), user.gid.as_raw(), 1) { user } else { Identity::current() }
}

/// Makes the folders. Those that the control half writes to belong to `user`.
pub(crate) fn make_folders(options: &Options, user: Identity) -> Result<(), StartError> {
    make_folder(&options.run, 0o755, None)?;
    trust(&options.run)?;
    make_folder(&options.run.join("util"), 0o755, Some(user))?;
    make_folder(&options.run.join("fifo"), 0o750, Some(user))?;
    make_folder(&options.state, 0o750, Some(user))?;
    // It may be there already, as root's: albatross has a folder of this name for its disks, which stay what they are.
    make_folder(&options.state.join("block"), 0o700, Some(user))
}

/// Sees to it that all holds that must. What does not is said, the last of it as the error.
pub(crate) fn require(options: &Options, user: Identity) -> Result<(), StartError> {
    let mut unmet = requirements::unmet(options, user);
    let Some(last) = unmet.pop() else { return Ok(()) };
    unmet.iter().for_each(|it| error!("{it}"));
    Err(StartError::Unmet(last))
}

/// Sees to it that nobody else can change what is in the run folder.
fn trust(run: &Path) -> Result<(), StartError> {
    let found = fs::metadata(run).map_err(|error| StartError::Folder(run.to_owned(), error))?;
    requirements::check_run(run, &found).map_or(Ok(()), |unmet| Err(StartError::Unmet(unmet)))
}

fn make_folder(path: &Path, mode: u32, owner: Option<Identity>) -> Result<(), StartError> {
    let is_of =
        |found: &fs::Metadata, owner: Identity| (found.uid(), found.gid()) == (owner.uid.as_raw(), owner.gid.as_raw());
    // The control half must get through to its folders, whoever owns those above them.
    let above = path.parent().map_or(Ok(()), |above| fs::DirBuilder::new().mode(0o755).recursive(true).create(above));
    let itself = above.and_then(|()| match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    });
    let made = itself.and_then(|()| {
        let Some(owner) = owner.filter(|owner| fs::metadata(path).is_ok_and(|found| !is_of(&found, *owner))) else {
            return Ok(());
        };
        // Not by way of a link: the control half may have put it there, and get what it points to.
        let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
        let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        fchown(&folder, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))
    });
    made.map_err(|error| StartError::Folder(path.to_owned(), error))
}

/// Takes the run folder for this `vmmd`. The lock is held as long as either half lives: two control halves never write
/// one journal.
pub(crate) fn lock(run: &Path) -> Result<Flock<File>, StartError> {
    let path = run.join("vmmd.lock");
    let fail = |error| StartError::Lock(path.clone(), error);
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(fail)?;
    for tries in 1.. {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => {
                let pid = std::process::id();
                locked
                    .set_len(0)
                    .and_then(|()| locked.rewind())
                    .and_then(|()| write!(locked, "{pid}"))
                    .map_err(fail)?;
                return Ok(locked);
            }
            Err((unlocked, Errno::EWOULDBLOCK)) if tries < LOCK_TRIES => file = unlocked,
            Err((mut held, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                held.read_to_string(&mut holder).map_err(fail)?;
                return Err(StartError::InUse(run.to_owned(), holder));
            }
            Err((_, errno)) => return Err(fail(errno.into())),
        }
        sleep(LOCK_WAIT);
    }
    unreachable!("the loop ends by returning")
}

/// Starts this program again as the control half. The channel is its standard input and the lock its standard output; no other fd
/// is left open for it but a socket that was handed over.
pub(crate) fn start_control(
    options: &Options,
    log: log::Settings,
    user: Identity,
    channel: Channel,
    lock: &Flock<File>,
    socket: Option<&OwnedFd>,
) -> Result<Child, StartError> {
    let lock = lock.try_clone().map_err(StartError::Control)?;
    let mut command = Command::new(own_program().map_err(StartError::Control)?);
    command
        .env_clear()
        .envs(log::passed_on())
        .arg(CONTROL_HALF)
        .arg("--run")
        .arg(&options.run)
        .arg("--state")
        .arg(&options.state)
        .arg("--user")
        .arg(format!("{}:{}", user.uid, user.gid))
        .args(log.options())
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(Stdio::from(lock));
    if let Some(path) = &options.zvols {
        command.arg("--allow-zvol-for").arg(path.as_str());
    }
    if let Some(socket) = socket {
        // Left open for it; ours is closed as soon as it has started.
        fcntl(socket, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| StartError::Control(errno.into()))?;
        command.arg("--socket").arg(socket.as_raw_fd().to_string());
    }
    command.spawn().map_err(StartError::Control)
}

/// The file of this program, also where it has been replaced since it started.
fn own_program() -> io::Result<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() { Ok(link.to_owned()) } else { std::env::current_exe() }
}

/// What the control half does first: it takes what was passed, and gives up its privileges.
pub(crate) fn become_control(options: ControlOptions) -> Result<(ControlPlace, Channel), StartError> {
    let socket = options.socket.map(|fd| service::take_socket(fd, "from the host half".to_owned(), Door::Unix));
    let socket = socket.transpose()?;
    let channel = nix::unistd::dup(io::stdin()).map_err(|errno| StartError::Channel(errno.into()))?;
    let lock = nix::unistd::dup(io::stdout()).map_err(|errno| StartError::Channel(errno.into()))?;
    let hide = || -> io::Result<()> {
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        nix::unistd::dup2_stdin(&null)?;
        nix::unistd::dup2_stdout(&null)?;
        for fd in [&channel, &lock] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        }
        Ok(())
    };
    hide().map_err(StartError::Channel)?;
    renounce::limit_to_none().map_err(StartError::Renounce)?;
    if options.user != Identity::current() {
        options.user.assume().map_err(|errno| StartError::Privileges(options.user, errno))?;
    }
    renounce::renounce().map_err(StartError::Renounce)?;
    let ControlOptions { run, state, zvols, .. } = options;
    #[cfg(target_os = "linux")]
    {
        use fulmar_shim_linux::sandbox::{Enclosure, enclose};
        enclose(Enclosure::Control { run: &run, state: &state }).map_err(StartError::Confine)?;
    }
    Ok((ControlPlace { run, state, zvols, lock, socket }, Channel::from(channel)))
}

#[cfg(test)]
mod tests {
    use fulmar_tests::system::make_folder;

    use super::*;

    /// A folder of its own for one test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            Self(make_folder("vmmd-start").unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn options(folder: &Folder) -> Options {
        Options { run: folder.0.join("run"), state: folder.0.join("state"), ..Options::default() }
    }

    #[test]
    fn a_run_folder_that_others_can_change_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        let options = options(&folder);
        make_folders(&options, Identity::current()).unwrap();
        make_folders(&options, Identity::current()).unwrap();
        fs::set_permissions(&options.run, fs::Permissions::from_mode(0o777)).unwrap();
        let error = make_folders(&options, Identity::current()).unwrap_err().to_string();
        assert!(error.contains("mode 777"), "{error}");
        fs::set_permissions(&options.run, fs::Permissions::from_mode(0o755)).unwrap();
        if !privilege::can_become(77, 77, 1) {
            fulmar_tests::skips::skip("a_run_folder_that_others_can_change_is_refused", "users cannot be changed here");
            return;
        }
        std::os::unix::fs::chown(&options.run, Some(77), None).unwrap();
        let error = make_folders(&options, Identity::current()).unwrap_err().to_string();
        assert!(error.contains("belongs to user 77"), "{error}");
    }

    #[test]
    fn a_folder_is_not_given_away_by_way_of_a_link() {
        let folder = Folder::new();
        let options = options(&folder);
        if !privilege::can_become(77, 77, 1) {
            fulmar_tests::skips::skip("a_folder_is_not_given_away_by_way_of_a_link", "users cannot be changed here");
            return;
        }
        let user = Identity::parse("77:77").unwrap();
        make_folders(&options, user).unwrap();
        assert_eq!(fs::metadata(&options.state).unwrap().uid(), 77);
        assert_eq!(fs::metadata(options.state.join("block")).unwrap().uid(), 77);
        let precious = folder.0.join("precious");
        fs::create_dir(&precious).unwrap();
        fs::remove_dir_all(&options.state).unwrap();
        std::os::unix::fs::symlink(&precious, &options.state).unwrap();
        assert!(make_folders(&options, user).is_err());
        assert_eq!(fs::metadata(&precious).unwrap().uid(), Identity::current().uid.as_raw());
        // An administrator's link to a folder that is the control half's already.
        std::os::unix::fs::chown(&precious, Some(77), Some(77)).unwrap();
        make_folders(&options, user).unwrap();
    }

    #[test]
    fn folders_above_can_be_passed() {
        let folder = Folder::new();
        let mut options = options(&folder);
        options.state = folder.0.join("above/further/state");
        make_folders(&options, Identity::current()).unwrap();
        let mode = |path: &str| fs::metadata(folder.0.join(path)).unwrap().mode() & 0o777;
        // As far as the umask of whoever runs the test lets them.
        let passed = mode("above") & 0o055;
        assert_eq!((passed, mode("above/further") & 0o055), (mode("run") & 0o055, passed));
        assert_eq!(mode("above/further/state") & 0o007, 0);
        // Again, and where there is a file.
        make_folders(&options, Identity::current()).unwrap();
        fs::write(folder.0.join("file"), "").unwrap();
        options.state = folder.0.join("file");
        let error = make_folders(&options, Identity::current()).unwrap_err();
        assert!(error.to_string().contains("--state"), "{error}");
    }

    #[test]
    fn a_second_vmmd_is_told_who_is_the_first() {
        let folder = Folder::new();
        let first = lock(&folder.0).unwrap();
        let error = lock(&folder.0).unwrap_err();
        assert!(error.to_string().contains(&format!("process {},", std::process::id())), "{error}");
        drop(first);
        lock(&folder.0).unwrap();
    }
}
