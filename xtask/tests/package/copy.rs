//! A copy of this machine's root, in which packages are installed and daemons started as their units say.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulmar_tests::namespace::inside;
use fulmar_tests::siege::pid_of;
use fulmar_tests::skips::skip;
use fulmar_tests::system::{make_folder, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};

use crate::{is_there, said, settings_of};

/// A copy of this machine's root: what is written there is in memory, and goes with the mounts.
pub(crate) struct Copy {
    /// Where it is.
    pub(crate) root: PathBuf,
}

impl Copy {
    pub(crate) fn new(folder: &Path) -> Result<Self, String> {
        let at = |what: &'static str| move |errno: nix::errno::Errno| format!("{what}: {}", errno.desc());
        let none = None::<&str>;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).map_err(at("a tmpfs"))?;
        let (upper, work, root) = (folder.join("upper"), folder.join("work"), folder.join("root"));
        for made in [&upper, &work, &root] {
            fs::create_dir(made).map_err(|error| error.to_string())?;
            fs::set_permissions(made, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        }
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .map_err(at("an overlay"))?;
        mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), none).map_err(at("/proc"))?;
        mount(Some("/dev"), &root.join("dev"), none, MsFlags::MS_BIND | MsFlags::MS_REC, none).map_err(at("/dev"))?;
        for empty in ["run", "tmp"] {
            mount(Some("tmpfs"), &root.join(empty), Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
                .map_err(at(empty))?;
        }
        // The machine's own, if it has one.
        for folder in ["var/lib/albatross", "etc/fulmar"] {
            let _ = fs::remove_dir_all(root.join(folder));
        }
        Ok(Self { root })
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs it, and it must go well; what it said.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// dpkg. What the package depends on need not be as new here as it asks for: nobody starts a service.
    pub(crate) fn dpkg(&self, words: &[&str]) -> String {
        self.run(&[&["dpkg", "--force-depends"], words].concat())
    }

    pub(crate) fn install(&self, package: &Path) -> String {
        fs::copy(package, self.root.join("tmp/fulmar.deb")).unwrap();
        self.dpkg(&["--install", "/tmp/fulmar.deb"])
    }

    /// A daemon, with the user, the capabilities and the socket that its units give it.
    pub(crate) fn start(&self, program: &str) -> Daemon {
        let unit = format!("{program}.service");
        let mut words = vec!["setpriv".to_owned(), "--no-new-privs".into(), "--inh-caps=-all".into()];
        let kept = settings_of(&unit, "CapabilityBoundingSet")[0].to_lowercase().replace("cap_", ",+").replace(' ', "");
        words.push(format!("--bounding-set=-all{kept}"));
        if let Some(user) = settings_of(&unit, "User").first() {
            words.extend([format!("--reuid={user}"), "--regid=fulmar".into(), "--clear-groups".into()]);
        }
        let socket =
            self.root.join(settings_of(&format!("{program}.socket"), "ListenStream")[0].trim_start_matches('/'));
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let owner = fs::metadata(self.root.join("run/albatross/util")).unwrap();
        chown(&socket, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o660)).unwrap();
        // The shell becomes chroot, that setpriv, that the daemon: one process, which is handed the socket.
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec chroot \"$@\" 3<&0 0</dev/null", "sh"]).arg(&self.root).args(&words);
        command.arg(format!("/usr/sbin/{program}")).env("LISTEN_FDS", "1").stdin(OwnedFd::from(listener));
        let lines = self.root.join("tmp").join(program);
        Daemon { child: command.stderr(fs::File::create(&lines).unwrap()).spawn().unwrap(), lines }
    }

    /// The process of the one unikernel.
    pub(crate) fn tender(&self) -> u32 {
        let records = fs::read_dir(self.root.join("run/albatross/units")).unwrap();
        let texts = records.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        let pids: Vec<u32> = texts.filter_map(|text| text.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(pids.len(), 1, "{pids:?}");
        pids[0]
    }

    pub(crate) fn start_vmmd(&self) -> Daemon {
        let vmmd = self.start("vmmd");
        let answers = || self.command(&["vmmc_local", "info"]).output().unwrap().status.success();
        assert!(wait_until(answers), "{}", vmmd.said());
        vmmd
    }

    /// How the unikernel fares: how often it was started, and whether it is up.
    pub(crate) fn runs(&self) -> (u64, bool) {
        let text = self.run(&["vmmc_local", "info"]);
        let row = text.lines().find(|line| line.starts_with(":web ")).unwrap_or_else(|| panic!("{text}"));
        let words: Vec<_> = row.split_whitespace().collect();
        (words[3].parse().unwrap(), words[1] == "up")
    }
}

/// One that was started.
pub(crate) struct Daemon {
    child: Child,
    lines: PathBuf,
}

impl Daemon {
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.lines).unwrap_or_default()
    }

    pub(crate) fn end(mut self) {
        kill(pid_of(self.child.id()), Signal::SIGTERM).unwrap();
        assert!(wait_until(|| self.child.try_wait().unwrap().is_some()), "{}", self.said());
        assert!(self.child.wait().unwrap().success(), "{}", self.said());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The unikernel's process, which ends with the test.
pub(crate) struct Tender(pub(crate) u32);

impl Drop for Tender {
    fn drop(&mut self) {
        let _ = kill(pid_of(self.0), Signal::SIGKILL);
    }
}

/// Runs `body` in a copy of this machine's root.
pub(crate) fn in_copy(test: &str, body: impl FnOnce(&Copy) + Send) {
    if !nix::unistd::geteuid().is_root() || !is_there("setpriv") || !is_there("systemd-sysusers") {
        return skip(test, "packages are installed by root, with setpriv and systemd-sysusers");
    }
    let folder = make_folder("package").unwrap();
    inside(test, || match Copy::new(&folder) {
        Ok(copy) => body(&copy),
        Err(why) => skip(test, &format!("no copy of the root can be had here: {why}")),
    });
    fs::remove_dir(folder).unwrap();
}
