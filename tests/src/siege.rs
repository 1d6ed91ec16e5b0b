//! A running system under attack: the real daemons, hostile clients, and a count of everything that could leak.
//!
//! All that is attacked lives below the path [`PATH`], whose policy has room for one unikernel. When the attack is over the
//! counts are as before, and one creation takes that whole policy: so nothing of the ledger leaked either.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fulmar_core::wire::{self, ConsoleCommand, Window};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::built::Kind;
use crate::raw::{Answer, Raw};
use crate::skips::skip;
use crate::system::{self, System, is_gone, wait_until};

/// Where `vmmd` says, in the run folder, what is read and written (fulmar-files(5)).
const TRAFFIC_FILE: &str = "block-traffic";

/// Where attacks happen: a path with room for one unikernel of [`MEMORY_MB`] on CPU 0 and no bridge.
pub const PATH: &str = "siege:";

/// Memory that the policy of [`PATH`] allows, MB.
pub const MEMORY_MB: u32 = 64;

/// Empty files that the image store keeps open.
const SPARE_MAX: usize = 4;

/// How long a line of a console may take, also where KVM interprets.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(60);

/// A system that is attacked.
#[derive(Debug)]
pub struct Siege {
    /// The system.
    pub system: System,
    /// The process of the host half of `vmmd`.
    pub vmmd: u32,
    /// The process of `vmmd_console`.
    pub console: u32,
    /// The process of `vmmd_log`, where there is one.
    log: Option<u32>,
    before: Option<Census>,
}

/// What there is of everything that could leak.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// File descriptors of the host half, the control half and the console daemon.
    fds: [usize; 3],
    /// Children of the host half.
    children: usize,
    /// Tenders whose output goes into this system.
    tenders: usize,
    /// Files in the image store, spools included.
    images: BTreeSet<String>,
    /// Files of block devices.
    blocks: BTreeSet<String>,
    /// Consoles.
    fifos: BTreeSet<String>,
    /// Records of processes.
    units: BTreeSet<String>,
}

/// What came of a run of `vmmc_local`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// The built programs; nothing, said aloud, where nobody built them.
#[must_use]
pub fn programs(test: &str) -> Option<PathBuf> {
    let programs = std::env::var_os("FULMAR_PROGRAMS").map(PathBuf::from);
    if programs.is_none() {
        skip(test, "FULMAR_PROGRAMS does not say where the built programs are: run `cargo xtask test`");
    }
    programs
}

impl Siege {
    /// Starts both daemons in a folder of their own. Nothing where the programs are missing.
    #[must_use]
    pub fn begin(test: &str) -> Option<Self> {
        let programs = programs(test)?;
        let system = System::new(system::make_folder("siege").unwrap(), programs).unwrap();
        Some(Self::begin_in(system))
    }

    /// As [`Siege::begin`], in a system that has been prepared.
    #[must_use]
    pub fn begin_in(mut system: System) -> Self {
        let vmmd = system.start_vmmd(&[]).unwrap();
        let console = system.start_console().unwrap();
        let mut siege = Self { system, vmmd, console, log: None, before: None };
        let policy = ["add-policy", PATH, "1", "--mem", &MEMORY_MB.to_string(), "--cpu", "0"];
        let added = siege.client(&policy);
        assert_eq!(added.code, 0, "{added:?}");
        // The first unikernel makes what is then kept: memory, the link to the console daemon.
        siege.create_whole();
        assert!(wait_until(|| siege.has_console("siege:whole")), "{}", siege.system.log("vmmd_console"));
        siege.destroy_whole();
        siege.before = Some(siege.settled_census());
        siege
    }

    /// Runs `vmmc_local` to its end.
    #[must_use]
    pub fn client(&self, words: &[&str]) -> Said {
        said(&self.system.client(words).output().unwrap())
    }

    /// As [`Siege::client`], for words after a `--`: the option that says where the daemons are comes first.
    #[must_use]
    pub fn client_before(&self, words: &[&str]) -> Said {
        let mut command = Command::new(system::programs().join("vmmc_local"));
        said(&command.arg("--run").arg(self.system.run()).args(words).output().unwrap())
    }

    /// The path of a unikernel's image for the tender that runs everywhere.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        self.image_for(name, Kind::Spt)
    }

    /// The tenders that can run here. Skips hvt, aloud, where there is no KVM.
    #[must_use]
    pub fn kinds(&self, test: &str) -> Vec<Kind> {
        if self.system.log("vmmd").contains("/dev/kvm cannot be opened") {
            skip(&format!("{test} (hvt)"), "no /dev/kvm");
            return vec![Kind::Spt];
        }
        vec![Kind::Spt, Kind::Hvt]
    }

    /// The only tender, once there is just one.
    pub fn the_tender(&self) -> u32 {
        let mut found = Vec::new();
        let one = wait_until(|| {
            found = tenders(self.system.folder());
            found.len() == 1
        });
        assert!(one, "{found:?}\n{}\n{}", self.system.log("vmmd"), self.system.log("vmmd_console"));
        found[0]
    }

    /// The path of a unikernel's image for this tender.
    #[must_use]
    pub fn image_for(&self, name: &str, kind: Kind) -> String {
        let programs = system::programs();
        programs.join("guests").join(format!("{name}.{}", kind.name())).to_string_lossy().into_owned()
    }

    /// The daemon answers, and `log` of it has a line with this text.
    pub fn expect_log(&self, program: &str, text: &str) {
        let logged = wait_until(|| self.system.log(program).contains(text));
        assert!(logged, "no line with '{text}' in the log of {program}:\n{}", self.system.log(program));
    }

    /// Follows a console until a line has this text.
    pub fn expect_line(&self, name: &str, text: &str) {
        let mut command = self.system.client(&["console", name]);
        let mut console = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(console.stdout.take().unwrap()).lines();
        let (said, heard) = std::sync::mpsc::channel();
        let found = std::thread::scope(|scope| {
            // Nobody may be there any more to hear it.
            scope.spawn(move || {
                let _ = said.send(lines.map_while(Result::ok).any(|line| line.contains(text)));
            });
            let found = heard.recv_timeout(CONSOLE_PATIENCE).unwrap_or(false);
            console.kill().unwrap();
            console.wait().unwrap();
            found
        });
        assert!(found, "no line with '{text}'\n{}", self.system.log("vmmd_console"));
    }

    /// The daemon still serves.
    pub fn expect_service(&self) {
        let info = self.client(&["info"]);
        assert_eq!(info.code, 0, "{info:?}");
    }

    /// Whether a unikernel is listed.
    #[must_use]
    pub fn is_listed(&self, name: &str) -> bool {
        self.names().iter().any(|listed| listed == name)
    }

    /// The names of all unikernels, as the daemon has them.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let listed = self.client(&["info", "--json"]);
        assert_eq!(listed.code, 0, "{listed:?}");
        let value: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
        let list = value.as_array().or_else(|| value.get("unikernels")?.as_array()).unwrap();
        list.iter().map(|unikernel| unikernel["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether the console daemon has been told of a unikernel, whether it still runs or not.
    #[must_use]
    pub fn has_console(&self, name: &str) -> bool {
        let subscribe = wire::Command::Console(ConsoleCommand::Subscribe(Window::Count(0)));
        Raw::connect(&self.system.socket("console.sock")).ask(name, subscribe) == Answer::Done("subscribed".into())
    }

    /// One unikernel takes all that the policy of [`PATH`] allows, and is destroyed again.
    pub fn take_whole_policy(&self) {
        self.create_whole();
        self.destroy_whole();
    }

    fn create_whole(&self) {
        let image = self.image("hello");
        let created = self.client(&["create", "siege:whole", &image, "--mem", &MEMORY_MB.to_string()]);
        assert_eq!(created.code, 0, "{created:?}\n{}", self.system.log("vmmd"));
    }

    fn destroy_whole(&self) {
        let destroyed = self.client(&["destroy", "siege:whole"]);
        assert_eq!(destroyed.code, 0, "{destroyed:?}\n{}", self.system.log("vmmd"));
    }

    /// What there is now.
    #[must_use]
    pub fn census(&self) -> Census {
        let run = self.system.run();
        let children = children(self.vmmd);
        let control = children.iter().find(|pid| arguments(**pid).iter().any(|word| word == "--control-half"));
        let mut images = files(&self.system.state().join("images"));
        let spare = take_spare(&mut images, &self.system.state().join("images"));
        let [host, control, console] = [self.vmmd, control.copied().unwrap_or(0), self.console].map(count_fds);
        Census {
            fds: [host, control.saturating_sub(spare), console],
            children: children.len(),
            tenders: tenders(self.system.folder()).len(),
            images,
            blocks: files(&self.system.state().join("block")),
            fifos: files(&run.join("fifo")),
            units: files(&run.join("units")),
        }
    }

    /// The counts when nothing is going on any more.
    fn settled_census(&self) -> Census {
        let mut last = self.census();
        let mut same = 0;
        wait_until(|| {
            let now = self.census();
            same = if now == last && now.tenders == 0 && now.fifos.is_empty() { same + 1 } else { 0 };
            last = now;
            same > 5
        });
        last
    }

    /// Starts `vmmd` again, whatever has become of the one before.
    pub fn start_vmmd_again(&mut self) {
        self.system.end("vmmd", Signal::SIGTERM).unwrap();
        self.vmmd = self.system.start_vmmd(&[]).unwrap();
    }

    /// The processes of each unikernel, by its full name: its output goes into a fifo that is called after it.
    #[must_use]
    pub fn running(&self) -> BTreeMap<String, Vec<u32>> {
        let mut running: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for pid in tenders(self.system.folder()) {
            // One that has ended since has none.
            let Ok(fifo) = fs::read_link(format!("/proc/{pid}/fd/1")) else { continue };
            let name = fifo.file_name().unwrap_or_default().to_string_lossy().into_owned();
            running.entry(name.trim_end_matches(" (deleted)").to_owned()).or_default().push(pid);
        }
        running
    }

    /// Waits until exactly what is listed runs, each once, and gives their processes.
    #[must_use]
    pub fn expect_listed_runs_once(&self) -> BTreeMap<String, u32> {
        let once = |running: &BTreeMap<String, Vec<u32>>| {
            let one = |(name, pids): (&String, &Vec<u32>)| match pids.as_slice() {
                [pid] => Some((name.clone(), *pid)),
                _ => None,
            };
            running.iter().map(one).collect::<Option<BTreeMap<_, _>>>()
        };
        let mut found = None;
        wait_until(|| {
            let listed: BTreeSet<String> = self.names().into_iter().collect();
            found = once(&self.running()).filter(|running| running.keys().eq(listed.iter()));
            found.is_some()
        });
        found.unwrap_or_else(|| {
            panic!("running {:?}\nlisted {:?}\n{}", self.running(), self.names(), self.system.log("vmmd"))
        })
    }

    /// Nothing is left but the daemons and what they have when nothing was ever asked of them.
    pub fn expect_clean(&self) {
        let (run, state) = (self.system.run(), self.system.state());
        let leftovers = || {
            let mut images = files(&state.join("images"));
            take_spare(&mut images, &state.join("images"));
            let folders = [state.join("block"), run.join("fifo"), run.join("units")];
            let others = folders.iter().flat_map(|folder| files(folder));
            let processes = self.processes().into_iter().map(|pid| format!("{pid} {:?}", arguments(pid)));
            let measured = fs::read_to_string(run.join(TRAFFIC_FILE)).unwrap_or_default();
            let measured = measured.lines().map(str::to_owned);
            images.into_iter().chain(others).chain(processes).chain(measured).collect::<Vec<_>>()
        };
        let clean = wait_until(|| leftovers().is_empty());
        assert!(clean, "left: {:?}\n{}", leftovers(), self.system.log("vmmd"));
        for (folder, known, of_log) in [
            (&state, &["block", "images", "journal", "lock"][..], "log"),
            (&run, &["fifo", "units", "util", "vmmd.lock"], ""),
            (&run.join("util"), &["console.lock", "console.sock", "vmmd.sock"], "log.sock"),
        ] {
            let mut known: BTreeSet<String> = known.iter().map(|it| (*it).to_owned()).collect();
            if self.log.is_some() && !of_log.is_empty() {
                known.insert(of_log.to_owned());
            }
            // Where the system counts what is read and written, that is written anew at any time.
            let found: BTreeSet<String> =
                files(folder).into_iter().filter(|it| !it.starts_with(TRAFFIC_FILE)).collect();
            assert_eq!(found, known, "{}", folder.display());
        }
    }

    /// The processes of this system, dying ones included, besides the daemons.
    fn processes(&self) -> Vec<u32> {
        let folder = self.system.folder().to_string_lossy().into_owned();
        let daemons = [self.vmmd, control_half(self.vmmd), self.console];
        let names_it = |pid: &u32| arguments(*pid).iter().any(|word| word.contains(&folder));
        let ours = processes().filter(names_it).chain(tenders(self.system.folder())).chain(children(self.vmmd));
        ours.filter(|pid| !daemons.contains(pid) && self.log != Some(*pid)).collect()
    }

    /// Starts `vmmd_log`, or starts it again.
    pub fn start_log(&mut self) {
        self.log = Some(self.system.start_log(&[]).unwrap());
    }

    /// Begins counting anew: after a daemon was started again.
    pub fn count_again(&mut self) {
        // What the two daemons hold for each other is among what is counted.
        let linked = || {
            let log = self.system.log("vmmd");
            let last = |text: &str| log.rfind(text);
            let here = last("the console daemon is here");
            let log_here = last("the event log is here");
            let log_is = self.log.is_none()
                || (log_here > last("journal: generation") && log_here > last("the event log is gone"));
            here > last("journal: generation") && here > last("the console daemon is gone") && log_is
        };
        assert!(wait_until(linked), "{}", self.system.log("vmmd"));
        self.before = Some(self.settled_census());
    }

    /// Nothing that the attack made is left, and the whole policy can be used.
    pub fn expect_nothing_left(&self) {
        let before = self.before.clone().unwrap();
        let same = wait_until(|| self.census() == before);
        assert!(same, "before: {before:?}\nafter: {:?}\n{}", self.census(), self.system.log("vmmd"));
        assert!(self.names().is_empty(), "{:?}", self.names());
        self.take_whole_policy();
        let same = wait_until(|| self.census() == before);
        assert!(same, "before: {before:?}\nafter: {:?}", self.census());
    }

    /// The end of a test: nothing is left, and the system stops cleanly.
    pub fn end(self) {
        self.expect_service();
        self.expect_nothing_left();
        self.system.stop().unwrap();
    }
}

/// Kills a process, which is not waited for.
pub fn kill_9(pid: u32) {
    let _ = kill(pid_of(pid), Signal::SIGKILL);
}

/// Waits until these processes are gone.
pub fn expect_gone(pids: &[u32]) {
    let gone = |pid: &u32| is_gone(pid_of(*pid));
    assert!(wait_until(|| pids.iter().all(gone)), "{:?}", pids.iter().map(|pid| arguments(*pid)).collect::<Vec<_>>());
}

/// As the system's functions want it.
#[must_use]
pub fn pid_of(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}

/// What a finished program said.
#[must_use]
pub fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Copies a program so that it can be run at once. Another process does it: where this one had the copy open for writing, a
/// fork in another thread could keep it so, and what is being written cannot be run.
pub fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success(), "{}", from.display());
}

/// The names of a folder's files.
#[must_use]
pub fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The processes of this machine.
fn processes() -> impl Iterator<Item = u32> {
    files(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok())
}

/// The arguments of a process.
#[must_use]
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The children of a process, zombies included.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    processes().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The process that decides, of this `vmmd`.
#[must_use]
pub fn control_half(vmmd: u32) -> u32 {
    let is_control = |pid: &u32| arguments(*pid).iter().any(|word| word == "--control-half");
    children(vmmd).into_iter().find(is_control).expect("a control half")
}

/// The tenders of a system: their output goes into a fifo of its folder.
#[must_use]
pub fn tenders(folder: &Path) -> Vec<u32> {
    let fifos = folder.join("run/fifo");
    let writes_there = |pid: &u32| {
        let is_tender = arguments(*pid).first().is_some_and(|word| word.contains("/solo5-"));
        is_tender && fs::read_link(format!("/proc/{pid}/fd/1")).is_ok_and(|path| path.starts_with(&fifos))
    };
    processes().filter(writes_there).collect()
}

/// Leaves the few empty files out that are kept open to be used again. How many.
fn take_spare(images: &mut BTreeSet<String>, folder: &Path) -> usize {
    let is_spare =
        |name: &String| name.starts_with("tmp-") && fs::metadata(folder.join(name)).is_ok_and(|found| found.len() == 0);
    let spare: Vec<String> = images.iter().filter(|name| is_spare(name)).take(SPARE_MAX).cloned().collect();
    images.retain(|name| !spare.contains(name));
    spare.len()
}

fn count_fds(pid: u32) -> usize {
    files(Path::new(&format!("/proc/{pid}/fd"))).len()
}
