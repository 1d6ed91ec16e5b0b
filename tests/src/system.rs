//! A running Fulmar in a folder of its own: the real daemons, started as a person would, and cleaned up wholly.
//!
//! Everything that must end is noted in the folder, so that somebody else can clean up after a process that was killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to come up or to end. A disk that is busy elsewhere was seen to take half a minute for one sync.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A new folder in the system's folder for temporary files: sockets need short paths.
///
/// # Errors
/// A text that names the folder and what the system says.
pub fn make_folder(purpose: &str) -> Result<PathBuf, String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("fulmar-{purpose}-{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            // Left by one of the same process id that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // The unprivileged half of the daemon must get through, nobody else need look.
            made => {
                return made
                    .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)))
                    .map(|()| folder.clone())
                    .map_err(|error| format!("cannot make {}: {error}", folder.display()));
            }
        }
    }
}

/// The folder of the built programs: `FULMAR_PROGRAMS`, or beside the running program.
///
/// # Panics
/// When the running program has no path.
#[must_use]
pub fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("FULMAR_PROGRAMS") {
        return folder.into();
    }
    #[expect(clippy::expect_used, reason = "a running test has a path")]
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().map(Path::to_path_buf).unwrap_or_default();
    if folder.ends_with("deps") { folder.parent().map(Path::to_path_buf).unwrap_or_default() } else { folder }
}

/// A running system.
#[derive(Debug)]
pub struct System {
    folder: PathBuf,
    programs: PathBuf,
    /// Who starts the daemons and asks them, where that is not who we are.
    user: Option<u32>,
    daemons: Vec<(String, Child)>,
}

impl System {
    /// A system in `folder` without any daemon yet.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(folder: PathBuf, programs: PathBuf) -> Result<Self, String> {
        let client = programs.join("vmmc_local");
        fs::write(folder.join("client"), client.as_os_str().as_encoded_bytes())
            .map_err(|error| format!("cannot write to {}: {error}", folder.display()))?;
        Ok(Self { folder, programs, user: None, daemons: Vec::new() })
    }

    /// Gives the folder to this user, who starts the daemons and asks them from now on.
    ///
    /// # Errors
    /// When the folder cannot be given away.
    pub fn become_user(&mut self, uid: u32) -> Result<(), String> {
        std::os::unix::fs::chown(&self.folder, Some(uid), Some(uid))
            .map_err(|error| format!("cannot give {} to user {uid}: {error}", self.folder.display()))?;
        self.user = Some(uid);
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        if let Some(uid) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// The folder that everything is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The run folder of the daemons.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The state folder of `vmmd`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A socket of a daemon: `vmmd.sock`, `console.sock`, `log.sock`.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.run().join("util").join(name)
    }

    /// What a daemon has logged.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        let bytes = fs::read(self.folder.join(format!("{program}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts `vmmd`, with further options, and waits for its socket.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_vmmd(&mut self, options: &[&OsStr]) -> Result<u32, String> {
        let state = self.state();
        let mut all = vec![OsStr::new("--state"), state.as_os_str()];
        all.extend(options);
        self.start("vmmd", &all, "vmmd.sock")
    }

    /// Starts `vmmd_console` and waits for its socket.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_console(&mut self) -> Result<u32, String> {
        self.start("vmmd_console", &[], "console.sock")
    }

    /// Starts `vmmd_stats`, with further options, and waits for its socket.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_stats(&mut self, options: &[&OsStr]) -> Result<u32, String> {
        self.start("vmmd_stats", options, "stat.sock")
    }

    /// Starts `vmmd_log`, with further options, and waits for its socket.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_log(&mut self, options: &[&OsStr]) -> Result<u32, String> {
        let state = self.state();
        let mut all = vec![OsStr::new("--state"), state.as_os_str()];
        all.extend(options);
        self.start("vmmd_log", &all, "log.sock")
    }

    /// Starts `vmmd_tls` with these options and waits until it serves; where.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_tls(&mut self, options: &[&OsStr]) -> Result<SocketAddr, String> {
        const NAME: &str = "vmmd_tls";
        let before = self.log(NAME).len();
        self.launch(NAME, options)?;
        let mut address = None;
        wait_until(|| {
            let log = self.log(NAME);
            let new = log.get(before..).unwrap_or_default();
            address = new.split_once("serving on ").and_then(|(_, rest)| rest.split_once('\n')?.0.parse().ok());
            address.is_some() || self.has_ended(NAME)
        });
        address.ok_or_else(|| format!("{NAME} did not come up; its log:\n{}", self.log(NAME)))
    }

    /// `vmmd_tls_inetd` with these options, as inetd would run it.
    #[must_use]
    pub fn tls_inetd(&self, options: &[&OsStr]) -> Command {
        let mut command = self.command("vmmd_tls_inetd");
        command.arg("--run").arg(self.run()).args(options);
        command
    }

    /// Whether the last daemon of this name has ended.
    fn has_ended(&mut self, name: &str) -> bool {
        let daemon = self.daemons.iter_mut().rev().find(|(known, _)| known == name);
        daemon.is_none_or(|(_, daemon)| !matches!(daemon.try_wait(), Ok(None)))
    }

    /// Starts `vmmd_tls` with further options and copies of `cacert.pem`, `server.pem` and `server.key` of a folder that the user who it
    /// becomes may read, and waits until it serves; where.
    ///
    /// # Errors
    /// What went wrong, with the daemon's log.
    pub fn start_tls_with(&mut self, certificates: &Path, further: &[&OsStr]) -> Result<SocketAddr, String> {
        let (own, revoked) = (self.folder.join("tls"), self.folder.join("revoked"));
        let copy = || -> std::io::Result<Vec<PathBuf>> {
            let owner = fs::metadata(self.run().join("util"))?.uid();
            let mut files = Vec::new();
            for folder in [&own, &revoked] {
                fs::create_dir_all(folder)?;
                chown(folder, Some(owner), None)?;
            }
            for name in ["cacert.pem", "server.pem", "server.key"] {
                fs::copy(certificates.join(name), own.join(name))?;
                chown(own.join(name), Some(owner), None)?;
                files.push(own.join(name));
            }
            Ok(files)
        };
        let files = copy().map_err(|error| format!("cannot copy the certificates of vmmd_tls: {error}"))?;
        let mut options = Vec::new();
        for (option, file) in ["--ca", "--cert", "--key"].into_iter().zip(&files) {
            options.extend([OsStr::new(option), file.as_os_str()]);
        }
        options.extend([OsStr::new("--revoked"), revoked.as_os_str()]);
        options.extend(further);
        self.start_tls(&options)
    }

    fn start(&mut self, name: &str, options: &[&OsStr], socket: &str) -> Result<u32, String> {
        let pid = self.launch(name, options)?;
        let socket = self.socket(socket);
        let lock = self.run().join("vmmd.lock");
        let Some((_, daemon)) = self.daemons.last_mut() else { return Err(format!("{name} does not run")) };
        // The socket of a predecessor that was killed is there until its last thread has ended, and so is its lock.
        let holds_lock = || name != "vmmd" || fs::read_to_string(&lock).is_ok_and(|holder| holder == pid.to_string());
        let up = wait_until(|| {
            let ended = !matches!(daemon.try_wait(), Ok(None));
            ended || (holds_lock() && std::os::unix::net::UnixStream::connect(&socket).is_ok())
        });
        let ended = !matches!(daemon.try_wait(), Ok(None));
        if up && !ended { Ok(pid) } else { Err(format!("{name} did not come up; its log:\n{}", self.log(name))) }
    }

    /// Starts `vmmd` and waits for nothing.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn launch_vmmd(&mut self) -> Result<u32, String> {
        let state = self.state();
        self.launch("vmmd", &[OsStr::new("--state"), state.as_os_str()])
    }

    fn launch(&mut self, name: &str, options: &[&OsStr]) -> Result<u32, String> {
        let log = File::options().create(true).append(true).open(self.folder.join(format!("{name}.log")));
        let log = log.map_err(|error| format!("cannot write the log of {name}: {error}"))?;
        let mut command = self.command(name);
        // A process group of its own: an interrupt from the keyboard is not for the daemons.
        command.arg("--run").arg(self.run()).args(options).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().map_err(|error| format!("cannot start {name}: {error}"))?;
        let pid = daemon.id();
        self.daemons.push((name.to_owned(), daemon));
        let noted = File::options().create(true).append(true).open(self.folder.join("pids"));
        noted
            .and_then(|mut pids| writeln!(pids, "{pid}"))
            .map_err(|error| format!("cannot note a process: {error}"))?;
        Ok(pid)
    }

    /// The process id of a daemon.
    ///
    /// # Errors
    /// When it was not started.
    pub fn pid(&self, name: &str) -> Result<u32, String> {
        let daemon = self.daemons.iter().find(|(known, _)| known == name);
        daemon.map(|(_, daemon)| daemon.id()).ok_or_else(|| format!("{name} does not run"))
    }

    /// Sends a signal to a daemon and waits until it is gone.
    ///
    /// # Errors
    /// When it runs on.
    pub fn end(&mut self, name: &str, signal: Signal) -> Result<(), String> {
        // The last one: those before it did not come up.
        let Some(place) = self.daemons.iter().rposition(|(known, _)| known == name) else {
            return Err(format!("{name} does not run"));
        };
        let (_, mut daemon) = self.daemons.remove(place);
        let _ = kill(pid_of(&daemon), signal);
        if wait_until(|| !matches!(daemon.try_wait(), Ok(None))) { Ok(()) } else { Err(format!("{name} does not end")) }
    }

    /// `vmmc_local` for this system.
    #[must_use]
    pub fn client(&self, words: &[&str]) -> Command {
        let mut command = self.command("vmmc_local");
        command.args(words).arg("--run").arg(self.run());
        command
    }

    /// Ends everything and removes the folder.
    ///
    /// # Errors
    /// What could not be cleaned up.
    pub fn stop(mut self) -> Result<(), String> {
        self.clean()
    }

    /// Leaves everything running.
    pub fn leave(mut self) {
        self.daemons.clear();
        self.folder = PathBuf::new();
    }

    fn clean(&mut self) -> Result<(), String> {
        if self.folder.as_os_str().is_empty() {
            return Ok(());
        }
        let cleaned = clean(&self.folder);
        for (_, mut daemon) in self.daemons.drain(..) {
            let _ = daemon.wait();
        }
        self.folder = PathBuf::new();
        cleaned
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Err(error) = self.clean() {
            eprintln!("{error}");
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Waits until something holds, a bounded time. Tests wait for events by this, they never sleep for a time.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Ends everything that lives in a system's folder and removes the folder.
///
/// # Errors
/// What could not be removed.
pub fn clean(folder: &Path) -> Result<(), String> {
    destroy_unikernels(folder);
    let pids = fs::read_to_string(folder.join("pids")).unwrap_or_default();
    // The last that was started is the first to end.
    for pid in pids.lines().rev().filter_map(|line| line.parse().ok()).map(Pid::from_raw) {
        if is_ours(pid, "vmmd") {
            end_process(pid, Signal::SIGTERM);
        }
    }
    for pid in units(folder) {
        end_process(pid, Signal::SIGKILL);
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    }
    Ok(())
}

/// Asks the daemon to destroy each unikernel.
fn destroy_unikernels(folder: &Path) {
    let client = fs::read_to_string(folder.join("client")).unwrap_or_default();
    let run = folder.join("run");
    let vmmc = |words: &[&str]| {
        let mut command = Command::new(&client);
        command.args(words).arg("--run").arg(&run).stdin(Stdio::null()).stderr(Stdio::null()).output()
    };
    let Ok(listed) = vmmc(&["info", "--json"]) else { return };
    let value: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
    let list = value.as_array().or_else(|| value.get("unikernels")?.as_array());
    for name in list.into_iter().flatten().filter_map(|it| it.get("name")?.as_str()) {
        let _ = vmmc(&["destroy", name]);
    }
}

/// The tenders that outlive a dead daemon: the host half writes a file for each.
fn units(folder: &Path) -> Vec<Pid> {
    let files = fs::read_dir(folder.join("run").join("units")).into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let pids = texts.filter_map(|text| text.split_whitespace().next()?.parse().ok()).map(Pid::from_raw);
    // A number that has been given again since is none of ours.
    pids.filter(|pid| is_ours(*pid, "solo5-") || is_ours(*pid, "fulmar-tender")).collect()
}

fn is_ours(pid: Pid, program: &str) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = arguments.split(|byte| *byte == 0).next().unwrap_or_default();
    Path::new(OsStr::new(&*String::from_utf8_lossy(first)))
        .file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(program))
}

/// Ends one process and waits until it is gone.
fn end_process(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
    if !wait_until(|| is_gone(pid)) {
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Whether a process is gone, or has ended and only its parent has not looked yet. Its first thread may have ended while
/// another one still waits for the disk: until that has ended too, its files and sockets are open.
#[must_use]
pub fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') && threads() <= 1)
}
