//! The package for Debian, really installed, upgraded and removed: in a copy of this machine's root that vanishes with the test. A
//! unikernel that runs meanwhile does not notice.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use fulmar_tests::namespace::inside;
use fulmar_tests::siege::{pid_of, programs};
use fulmar_tests::skips::skip;
use fulmar_tests::system::{is_gone, make_folder, wait_until};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};

const OLD: &str = "0.1.0~old";
const NEW: &str = "0.1.0~upgrade";

/// The settings files, and whose they are.
const SETTINGS: [(&str, &str); 5] =
    [("vmmd", "vmmd"), ("console", "vmmd_console"), ("stats", "vmmd_stats"), ("log", "vmmd_log"), ("tls", "vmmd_tls")];

/// Services, what they start, and how much systemd thinks is open in them at most: 100 is everything.
const SERVICES: [(&str, &str, u32); 7] = [
    ("vmmd.service", "vmmd", 50),
    ("vmmd_console.service", "vmmd_console", 15),
    ("vmmd_log.service", "vmmd_log", 15),
    ("vmmd_stats.service", "vmmd_stats", 25),
    ("vmmd_tls.service", "vmmd_tls", 25),
    ("vmmd_tls_inetd@.service", "vmmd_tls_inetd", 25),
    ("vmmd_influx.service", "vmmd_influx", 25),
];

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").canonicalize().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The package of this version.
fn package(programs: &Path, version: &str) -> PathBuf {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.args(["deb", "--version", version]).env("FULMAR_PROGRAMS", programs.canonicalize().unwrap());
    let output = xtask.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap())
}

/// An old and a new package, made once for all tests.
fn packages(test: &str) -> Option<&'static (PathBuf, PathBuf)> {
    static PACKAGES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let programs = programs(test)?;
    if !is_there("dpkg") || !is_there("dpkg-deb") {
        skip(test, "dpkg is not installed");
        return None;
    }
    Some(PACKAGES.get_or_init(|| (package(&programs, OLD), package(&programs, NEW))))
}

/// What an option in the help of a program says in brackets.
fn default_of(help: &str, name: &str) -> Option<String> {
    let line = help.lines().find(|line| line.starts_with(&format!("  --{name} ")))?;
    Some(line.rsplit_once('[')?.1.strip_suffix(']')?.to_owned())
}

#[test]
fn the_settings_files_have_every_setting_and_its_default() {
    let Some(programs) = programs("the_settings_files_have_every_setting_and_its_default") else { return };
    let folder = make_folder("settings").unwrap();
    for (file, program) in SETTINGS {
        let text = fs::read_to_string(packaging().join("etc").join(format!("{file}.toml"))).unwrap();
        assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{file}: all is a comment");
        let set: Vec<_> = text.lines().filter_map(|it| it.strip_prefix('#')).filter(|it| it.contains(" = ")).collect();
        let help = said(&Command::new(programs.join(program)).arg("--help").output().unwrap());
        let options = help.lines().filter_map(|line| line.strip_prefix("  --")?.split(' ').next());
        let mut wanted: Vec<_> = options.filter(|it| !["config", "check", "help", "version"].contains(it)).collect();
        let mut named: Vec<_> = set.iter().map(|line| line.split(" = ").next().unwrap()).collect();
        wanted.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, wanted, "{file}.toml and {program} --help");
        for line in &set {
            let (name, value) = line.split_once(" = ").unwrap();
            let default = default_of(&help, name).unwrap();
            // Some defaults are said in words.
            let agrees = value.trim_matches('"') == default || default.contains(' ');
            assert!(agrees, "{file}: {name} is {value}, and {default} in the help");
        }
        // As it is read.
        let path = folder.join("settings.toml");
        let without_user: Vec<_> = set.iter().filter(|line| !line.starts_with("user ")).copied().collect();
        fs::write(&path, without_user.join("\n")).unwrap();
        let checked = Command::new(programs.join(program)).arg("--check").arg("--config").arg(&path).output().unwrap();
        assert!(!said(&checked).contains("settings.toml"), "{}", said(&checked));
    }
    let text = fs::read_to_string(packaging().join("etc/influx.toml")).unwrap();
    let set: Vec<_> = text.lines().filter_map(|it| it.strip_prefix('#')).filter(|it| !it.starts_with(' ')).collect();
    let path = folder.join("influx.toml");
    fs::write(&path, set.join("\n")).unwrap();
    let checked =
        Command::new(programs.join("vmmd_influx")).arg("--check").arg("--config").arg(&path).output().unwrap();
    let lines = said(&checked);
    assert!(!lines.contains("unknown field") && !lines.contains("TOML"), "{lines}");
    fs::remove_dir_all(folder).unwrap();
}

/// The lines of a unit that set this.
fn settings_of(unit: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(packaging().join("systemd").join(unit)).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_services_agree_with_their_programs() {
    let Some(programs) = programs("the_services_agree_with_their_programs") else { return };
    for (unit, program, _) in SERVICES {
        let start = settings_of(unit, "ExecStart");
        assert_eq!(start[0].trim_start_matches('-'), format!("/usr/sbin/{program}"));
        if program == "vmmd" {
            // It begins as root, and what it started goes on without it.
            assert!(settings_of(unit, "User").is_empty());
            assert_eq!(settings_of(unit, "KillMode"), ["process"]);
            assert_eq!(settings_of(unit, "DelegateSubgroup"), ["vmmd"]);
            continue;
        }
        // A program that has a user of its own says so in its help; the others are who vmmd's deciding half is.
        let help = said(&Command::new(programs.join(program)).arg("--help").output().unwrap());
        let user = default_of(&help, "user").and_then(|it| it.split(' ').next().map(str::to_owned));
        let user = user.unwrap_or_else(|| "fulmar".into());
        assert_eq!(settings_of(unit, "User"), [user.as_str()], "{unit}");
        let users = fs::read_to_string(packaging().join("sysusers.conf")).unwrap();
        assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))), "{user}");
        assert_eq!(settings_of(unit, "Group"), ["fulmar"], "{unit}");
        assert_eq!(settings_of(unit, "CapabilityBoundingSet"), [""], "{unit}");
    }
    // What a service may write belongs to its user.
    let folders = fs::read_to_string(packaging().join("tmpfiles.conf")).unwrap();
    for (folder, unit) in [("log", "vmmd_log.service"), ("revoked", "vmmd_tls.service")] {
        let path = format!("/var/lib/albatross/{folder}");
        let line = folders.lines().find(|line| line.contains(&format!(" {path} "))).unwrap();
        assert_eq!(line.split_whitespace().nth(3), settings_of(unit, "User").first().map(String::as_str), "{path}");
        assert!(settings_of(unit, "ReadWritePaths")[0].split(' ').any(|it| it == path), "{unit}");
    }
    // Sockets lie where clients look.
    for (program, socket) in fulmar_tests::managed::DAEMONS {
        let there = settings_of(&format!("{program}.socket"), "ListenStream");
        assert_eq!(there, [format!("/run/albatross/util/{socket}")]);
    }
    for unit in fs::read_dir(packaging().join("systemd")).unwrap() {
        let name = unit.unwrap().file_name().into_string().unwrap();
        let known = SERVICES
            .iter()
            .any(|(unit, ..)| *unit == name || unit.replace(['@'], "").replace(".service", ".socket") == name);
        assert!(known, "{name} is tested by nobody");
    }
}

/// A copy of this machine's root: what is written there is in memory, and goes with the mounts.
struct Copy {
    root: PathBuf,
}

impl Copy {
    fn new(folder: &Path) -> Result<Self, String> {
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

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(words).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs it, and it must go well; what it said.
    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        said(&output)
    }

    /// dpkg. What the package depends on need not be as new here as it asks for: nobody starts a service.
    fn dpkg(&self, words: &[&str]) -> String {
        self.run(&[&["dpkg", "--force-depends"], words].concat())
    }

    fn install(&self, package: &Path) -> String {
        fs::copy(package, self.root.join("tmp/fulmar.deb")).unwrap();
        self.dpkg(&["--install", "/tmp/fulmar.deb"])
    }

    /// A daemon, with the user, the capabilities and the socket that its units give it.
    fn start(&self, program: &str) -> Daemon {
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
    fn tender(&self) -> u32 {
        let records = fs::read_dir(self.root.join("run/albatross/units")).unwrap();
        let texts = records.filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
        let pids: Vec<u32> = texts.filter_map(|text| text.split_whitespace().next()?.parse().ok()).collect();
        assert_eq!(pids.len(), 1, "{pids:?}");
        pids[0]
    }

    fn start_vmmd(&self) -> Daemon {
        let vmmd = self.start("vmmd");
        let answers = || self.command(&["vmmc_local", "info"]).output().unwrap().status.success();
        assert!(wait_until(answers), "{}", vmmd.said());
        vmmd
    }

    /// How the unikernel fares: how often it was started, and whether it is up.
    fn runs(&self) -> (u64, bool) {
        let text = self.run(&["vmmc_local", "info"]);
        let row = text.lines().find(|line| line.starts_with(":web ")).unwrap_or_else(|| panic!("{text}"));
        let words: Vec<_> = row.split_whitespace().collect();
        (words[3].parse().unwrap(), words[1] == "up")
    }
}

/// One that was started.
struct Daemon {
    child: Child,
    lines: PathBuf,
}

impl Daemon {
    fn said(&self) -> String {
        fs::read_to_string(&self.lines).unwrap_or_default()
    }

    fn end(mut self) {
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
struct Tender(u32);

impl Drop for Tender {
    fn drop(&mut self) {
        let _ = kill(pid_of(self.0), Signal::SIGKILL);
    }
}

/// Runs `body` in a copy of this machine's root.
fn in_copy(test: &str, body: impl FnOnce(&Copy) + Send) {
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

#[test]
fn a_unikernel_runs_on_while_the_package_is_upgraded_and_removed() {
    let test = "a_unikernel_runs_on_while_the_package_is_upgraded_and_removed";
    let Some((old, new)) = packages(test) else { return };
    let image = programs(test).unwrap().join("guests/hello.spt");
    in_copy(test, |copy| {
        let installed = copy.install(old);
        assert!(installed.contains("to begin: systemctl enable --now vmmd"), "{installed}");
        let users = fs::read_to_string(copy.root.join("etc/passwd")).unwrap();
        let uid = |name: &str| -> u32 {
            let line = users.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
            line.split(':').nth(2).unwrap().parse().unwrap()
        };
        for (folder, owner, mode) in [
            ("run/albatross", 0, 0o755),
            ("run/albatross/util", uid("fulmar"), 0o755),
            ("var/lib/albatross", uid("fulmar"), 0o750),
            ("var/lib/albatross/log", uid("fulmar"), 0o700),
        ] {
            let found = fs::metadata(copy.root.join(folder)).unwrap();
            assert_eq!((found.uid(), found.mode() & 0o777), (owner, mode), "{folder}");
        }

        let others = ["vmmd_console", "vmmd_log"].map(|it| copy.start(it));
        let vmmd = copy.start_vmmd();
        fs::copy(&image, copy.root.join("tmp/hello.spt")).unwrap();
        copy.run(&["vmmc_local", "create", "web", "/tmp/hello.spt", "--mem", "16"]);
        let tender = Tender(copy.tender());
        let program = || fs::read_link(format!("/proc/{}/exe", tender.0)).unwrap().display().to_string();
        assert!(program().ends_with("/usr/sbin/fulmar-tender"), "{}", program());

        // What the administrator says stays said.
        let settings = copy.root.join("etc/fulmar/log.toml");
        fs::write(&settings, "days = 7\n").unwrap();
        let upgraded = copy.install(new);
        assert!(upgraded.contains(&format!("({NEW}) over ({OLD})")), "{upgraded}");
        assert_eq!(fs::read_to_string(&settings).unwrap(), "days = 7\n");
        // As postinst does it where systemd runs.
        others.into_iter().for_each(Daemon::end);
        let others = ["vmmd_console", "vmmd_log"].map(|it| copy.start(it));
        vmmd.end();
        let vmmd = copy.start_vmmd();
        assert_eq!((copy.tender(), copy.runs()), (tender.0, (1, true)), "{}", vmmd.said());
        assert!(program().ends_with("(deleted)"), "it is the old tender that runs: {}", program());
        assert!(copy.run(&["vmmc_local", "--version"]).starts_with("vmmc_local "));

        vmmd.end();
        let removed = copy.dpkg(&["--remove", "fulmar"]);
        assert!(removed.contains(&format!("unikernels run on, as these processes: {}\n", tender.0)), "{removed}");
        assert!(removed.contains(&format!("kill {}\n", tender.0)) && removed.contains("rm -r /var/lib/albatross"));
        assert!(!is_gone(pid_of(tender.0)) && settings.exists() && !copy.root.join("usr/sbin/vmmd").exists());
        let purged = copy.dpkg(&["--purge", "fulmar"]);
        assert!(purged.contains("rm -r /var/lib/albatross") && purged.contains("the users fulmar,"), "{purged}");
        assert!(!settings.exists() && !is_gone(pid_of(tender.0)));
        others.into_iter().for_each(Daemon::end);

        // Installed again, it finds what runs.
        copy.install(new);
        let vmmd = copy.start_vmmd();
        assert_eq!((copy.tender(), copy.runs()), (tender.0, (1, true)), "{}", vmmd.said());
        copy.run(&["vmmc_local", "destroy", "web"]);
        assert!(wait_until(|| is_gone(pid_of(tender.0))));
        vmmd.end();
        let removed = copy.dpkg(&["--purge", "fulmar"]);
        assert!(!removed.contains("unikernels run on"), "{removed}");
    });
}

/// Where systemd runs, it is told: by a stand-in that notes what it was told.
#[test]
fn a_service_manager_is_told_of_what_comes_and_goes() {
    let test = "a_service_manager_is_told_of_what_comes_and_goes";
    let Some((old, new)) = packages(test) else { return };
    in_copy(test, |copy| {
        fs::create_dir_all(copy.root.join("run/systemd/system")).unwrap();
        let (systemctl, notes) = (copy.root.join("usr/bin/systemctl"), copy.root.join("tmp/notes"));
        // Not by way of the file that is there: it may be a link.
        let _ = fs::remove_file(&systemctl);
        fs::write(&systemctl, "#!/bin/sh\necho \"$*\" >>/tmp/notes\n[ \"$1\" != try-restart ]\n").unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let told = || {
            let text = fs::read_to_string(&notes).unwrap_or_default();
            fs::write(&notes, "").unwrap();
            // Other packages have triggers.
            text.lines()
                .filter(|line| line.contains("vmmd") || *line == "daemon-reload")
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        copy.install(old);
        assert_eq!(told(), ["daemon-reload"], "nothing begins by itself");
        // One that does not come back is no reason to leave a package half installed.
        let upgraded = copy.install(new);
        assert!(upgraded.contains("not all daemons have started again"), "{upgraded}");
        let restarts = "try-restart vmmd_console.service vmmd_log.service vmmd.service vmmd_stats.service vmmd_tls.service \
                        vmmd_influx.service";
        assert_eq!(told().iter().filter(|it| *it != "daemon-reload").collect::<Vec<_>>(), [restarts]);
        copy.dpkg(&["--remove", "fulmar"]);
        let told = told();
        for (unit, ..) in SERVICES {
            let line = match unit.split_once('@') {
                Some((name, _)) => format!("--quiet stop {name}@*.service"),
                None => format!("--quiet disable --now {unit}"),
            };
            assert!(told.contains(&line), "{unit}: {told:?}");
        }
        assert_eq!(told.last().map(String::as_str), Some("daemon-reload"));
    });
}

/// The lines that `docs/install.md` has people type: what they do is done here in the way that a copy of the root has for it.
#[test]
fn what_the_page_has_people_type_can_be_typed() {
    let test = "what_the_page_has_people_type_can_be_typed";
    let Some((_, package)) = packages(test) else { return };
    let page = fs::read_to_string(packaging().join("../docs/install.md")).unwrap();
    let blocks = page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let lines: Vec<_> = blocks.flat_map(str::lines).collect();
    in_copy(test, |copy| {
        let mut daemons = Vec::new();
        for line in &lines {
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                // It has made the package.
                ["cargo", "xtask", "deb"] => {}
                ["apt", "install", path] => {
                    let name = format!("./target/debian/fulmar_{}_amd64.deb", env!("CARGO_PKG_VERSION"));
                    assert_eq!(*path, name);
                    copy.install(package);
                }
                ["systemctl", "enable", "--now", unit] => {
                    let units = copy.root.join("usr/lib/systemd/system");
                    assert!(units.join(format!("{unit}.service")).exists(), "{line}");
                    if *unit == "vmmd" {
                        daemons.push(copy.start_vmmd());
                    }
                }
                ["usermod", options @ .., "\"$SUDO_USER\""] => {
                    copy.run(&[&["usermod"], options, &["nobody"]].concat());
                }
                ["vmmc_local", ..] => drop(copy.run(&words)),
                ["apt", "remove", name] => {
                    daemons.drain(..).for_each(Daemon::end);
                    copy.dpkg(&["--remove", name]);
                }
                other => panic!("nobody tries: {other:?}"),
            }
        }
        assert!(lines.len() >= 6 && daemons.is_empty(), "{lines:?}");
    });
}

/// systemd reads the units, and says how much is open in them.
#[test]
fn systemd_has_nothing_to_say_about_the_units() {
    let test = "systemd_has_nothing_to_say_about_the_units";
    let Some((_, package)) = packages(test) else { return };
    if !is_there("systemd-analyze") {
        return skip(test, "systemd is not installed");
    }
    in_copy(test, |copy| {
        copy.install(package);
        let units = copy.root.join("usr/lib/systemd/system");
        let names = fs::read_dir(units).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        for name in names.filter(|name| name.starts_with("vmmd")) {
            let unit = format!("/usr/lib/systemd/system/{}", name.replace('@', "@1"));
            let output = copy.command(&["systemd-analyze", "verify", "--man=no", &unit]).output().unwrap();
            // What is older than the package asks for knows less; and what it says of other units is not about ours.
            let ours = |line: &&str| line.contains("vmmd") && !line.contains("DelegateSubgroup");
            let wrong = said(&output).lines().filter(ours).map(str::to_owned).collect::<Vec<_>>();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        for (unit, _, most) in SERVICES {
            let unit = unit.replace('@', "@1");
            let threshold = format!("--threshold={most}");
            let words = ["systemd-analyze", "security", "--offline=true", "--no-pager", &threshold, &unit];
            let output = copy.command(&words).output().unwrap();
            assert!(output.status.success(), "{unit} is more open than {most}: {}", said(&output));
        }
    });
}
