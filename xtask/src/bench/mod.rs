//! `cargo xtask bench`: the figures that this project promises, measured on the real programs.
//!
//! It gives medians and ratios with the machine's name, as a table, as JSON and as a picture, and beside a run that was saved. It
//! asserts nothing: machines are shared and noisy.

mod codec;
#[cfg(target_os = "linux")]
mod console;
mod create;
mod disk;
mod info;
mod load;
mod memory;
mod plot;
mod policies;
mod publish;
mod recovery;
mod report;
mod scale;
#[cfg(target_os = "linux")]
mod stats;
#[cfg(target_os = "linux")]
mod tender;
mod tls;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use fulmar_tests::system::{self, System};

use crate::build::{self, Programs};
use crate::guard;
use crate::steps::{Done, Failure};
use fulmar_tests::built::Guests;
use report::{Figure, Report};

/// One benchmark.
type Benchmark = fn(&Bench) -> Done;

/// What a benchmark needs.
pub(crate) struct Bench {
    programs: Programs,
    guests: Guests,
    /// One for each system: should this process be killed, they clean up.
    guards: RefCell<Vec<Child>>,
    /// What was measured so far.
    report: Report,
}

/// What is wanted of a run.
#[derive(Default)]
struct Options<'a> {
    names: Vec<&'a str>,
    json: Option<&'a Path>,
    plot: Option<&'a Path>,
    before: Option<Report>,
    is_strict: bool,
    is_published: bool,
}

impl<'a> Options<'a> {
    fn parse(words: &[&'a str]) -> Done<Self> {
        let mut options = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut file =
                || words.next().map(Path::new).ok_or_else(|| Failure(format!("{word} wants the name of a file")));
            match word {
                // What is wrong with a file is known before anything is measured.
                "--json" => options.json = Some(writable(file()?)?),
                "--plot" => options.plot = Some(writable(file()?)?),
                "--compare" => options.before = Some(Report::load(file()?)?),
                "--strict" => options.is_strict = true,
                "--publish" => options.is_published = true,
                _ if word.starts_with('-') => {
                    return Err(Failure(format!(
                        "{word}: there are --json, --plot and --compare, each with a FILE, --strict and --publish"
                    )));
                }
                name => options.names.push(name),
            }
        }
        if options.is_published && !options.names.is_empty() {
            return Err(Failure("--publish is for all of them: leave the names out".into()));
        }
        Ok(options)
    }
}

/// This file, which is made where it is not there yet.
fn writable(path: &Path) -> Done<&Path> {
    let opened = File::options().create(true).append(true).open(path);
    opened.map(|_| path).map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))
}

/// Runs those whose names are given, or all.
pub(crate) fn run(words: &[&str]) -> Done {
    let options = Options::parse(words)?;
    let names = &options.names;
    let all: &[(&str, Benchmark)] = &[
        ("codec", codec::run),
        ("disk", disk::run),
        ("info", info::run),
        ("create", create::run),
        ("policies", policies::run),
        ("memory", memory::run),
        ("recovery", recovery::run),
        ("scale", scale::run),
        #[cfg(target_os = "linux")]
        ("console", console::run),
        #[cfg(target_os = "linux")]
        ("stats", stats::run),
        #[cfg(target_os = "linux")]
        ("tender", tender::run),
        ("tls", tls::run),
    ];
    if let Some(unknown) = names.iter().find(|name| !all.iter().any(|(known, _)| known == *name)) {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        return Err(Failure(format!("no benchmark is called `{unknown}`; there are: {}", known.join(", "))));
    }
    let programs = build::programs()?;
    let guests = build::guests(&programs)?;
    let bench = Bench { programs, guests, guards: RefCell::default(), report: Report::new(machine()) };
    println!("\nmachine: {}", bench.report.machine);
    for (name, benchmark) in all {
        if names.is_empty() || names.contains(name) {
            println!("\n## {name}");
            benchmark(&bench)?;
        }
    }
    if let Some(before) = &options.before {
        bench.report.compare(before);
    }
    if let Some(path) = options.json {
        bench.report.save(path)?;
    }
    if let Some(path) = options.plot {
        plot::save(&bench.report, path)?;
    }
    if options.is_published {
        publish::publish(&bench.report)?;
    }
    if options.is_strict { bench.report.expect_aims() } else { Ok(()) }
}

/// The machine's name, processor and kernel, in one line.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let name = read("/proc/sys/kernel/hostname");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{}, {cpus} x {}, Linux {}", name.trim(), model.trim_start_matches([' ', '\t', ':']), kernel.trim())
}

impl Bench {
    /// A system with both daemons, from the built programs.
    fn system(&self) -> Done<System> {
        self.system_of(self.programs.folder(), &[])
    }

    /// Says a figure and keeps it.
    fn add(&self, figure: Figure) {
        self.report.add(figure);
    }

    fn system_of(&self, programs: &Path, options: &[&OsStr]) -> Done<System> {
        let folder = system::make_folder("bench")?;
        self.guards.borrow_mut().push(guard::start(&folder)?);
        let mut system = System::new(folder, programs.to_path_buf())?;
        system.start_vmmd(options)?;
        system.start_console()?;
        Ok(system)
    }
}

/// Time that a process has been on a CPU.
fn on_cpu(pid: u32) -> Done<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.map(Duration::from_nanos).ok_or_else(|| Failure("the kernel does not tell how long the daemon ran".into()))
}

/// Memory of a process that is in use, kB.
fn resident_kb(pid: u32) -> Done<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kb = line.split_whitespace().next().and_then(|number| number.parse().ok());
    kb.ok_or_else(|| Failure("the daemon is gone".into()))
}

/// The middle of some times.
fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
