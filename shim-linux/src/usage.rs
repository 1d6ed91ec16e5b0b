//! What a process has used, from `/proc`, what went through its taps, from one listing of all of them, and what it has read from and
//! written to storage, from the file of `vmmd`.
//!
//! Whose the numbers are is settled by the pidfd: it is opened first, then the process is looked at, and what was read counts
//! only if the process of the pidfd lives afterwards. A process id that was given again in between belongs to somebody whose
//! pidfd that is not. A tap lives as long as its holder, so its index, noted while that lived, is its own.

mod text;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fulmar_core::wire::{Interface, Memory, Moment};
use fulmar_host::meter::{BLOCK_READ, BLOCK_WRITTEN, Meter, MeterError, Sample, Subject};
use fulmar_host::shim::Process;
use fulmar_host::traffic::{BlockTraffic, TRAFFIC_BYTES_MAX, TRAFFIC_FILE, TrafficLine};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use self::text::{Stat, Ticks};
use crate::netlink::{LinkCounters, Netlink};
use crate::{sys, watch};

/// Bytes of any of the files that are read: `status` is the longest with some 1,500.
const FILE_BYTES_MAX: usize = 8 * 1024;

/// The kernel's word for taps.
const TAP_KIND: &str = "tun";

/// This host.
#[derive(Debug)]
pub struct LinuxMeter {
    netlink: Netlink,
    boot: u64,
    ticks: Ticks,
    /// The taps as they were when last listed, by their index.
    links: HashMap<u32, (Vec<u8>, LinkCounters)>,
    /// Where `vmmd` says what is read and written, and what it last said of which process.
    traffic_file: PathBuf,
    traffic: HashMap<(u32, u64), BlockTraffic>,
    buffer: Vec<u8>,
}

/// A tap of a process.
#[derive(Debug)]
struct Tap {
    name: Vec<u8>,
    /// Nothing where there was none of this name.
    index: Option<u32>,
}

/// A process that is known.
#[derive(Debug)]
pub struct Target {
    pid: Pid,
    pidfd: OwnedFd,
    /// As a shim tells it from a later one of its id.
    process: Process,
    start: Moment,
    taps: Vec<Tap>,
}

impl LinuxMeter {
    /// Prepares to look at processes and taps of the network namespace in which this is called, and at what `vmmd` says in this run
    /// folder.
    ///
    /// # Errors
    /// Where the kernel has no rtnetlink for us.
    pub fn new(run: &Path) -> Result<Self, Errno> {
        let per_second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u64::try_from(ticks).ok());
        Ok(Self {
            netlink: Netlink::open()?,
            boot: watch::boot(),
            ticks: Ticks::per_second(per_second.unwrap_or(100)),
            links: HashMap::new(),
            traffic_file: run.join(TRAFFIC_FILE),
            traffic: HashMap::new(),
            buffer: vec![0; FILE_BYTES_MAX],
        })
    }

    /// The content of a file of this process.
    fn read_file(&mut self, pid: Pid, file: &str) -> Result<&[u8], MeterError> {
        let mut length = 0;
        let read = File::open(format!("/proc/{pid}/{file}")).and_then(|mut file| {
            while let Some(rest) = self.buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
                match file.read(rest) {
                    Ok(0) => break,
                    Ok(count) => length += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        match read {
            Ok(()) => Ok(self.buffer.get(..length).unwrap_or_default()),
            // There is no such process, or it has ended since the file was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MeterError::Gone),
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Err(MeterError::Gone),
            Err(error) => Err(MeterError::Os(error)),
        }
    }

    /// Reads what `vmmd` says; it may not be there, or say nothing.
    fn read_traffic(&mut self) -> io::Result<()> {
        self.traffic.clear();
        let file = match File::open(&self.traffic_file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let mut text = String::new();
        file.take(TRAFFIC_BYTES_MAX as u64).read_to_string(&mut text)?;
        let lines = text.lines().filter_map(TrafficLine::parse);
        self.traffic.extend(lines.map(|TrafficLine(process, traffic)| ((process.pid, process.started), traffic)));
        Ok(())
    }

    fn stat(&mut self, pid: Pid) -> Result<Stat, MeterError> {
        text::stat(self.read_file(pid, "stat")?).ok_or_else(|| nonsense("stat"))
    }

    /// When a process started by the clock on the wall.
    fn start(&self, started: u64) -> Moment {
        let since_boot = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        let age = since_boot.saturating_sub(self.ticks.duration(started));
        let start = SystemTime::now().checked_sub(age).and_then(|it| it.duration_since(SystemTime::UNIX_EPOCH).ok());
        text::moment(start.unwrap_or_default())
    }
}

impl Meter for LinuxMeter {
    type Target = Target;

    fn open(&mut self, subject: Subject<'_>, taps: &[&str]) -> Result<Target, MeterError> {
        let pid = i32::try_from(subject.pid).ok().filter(|pid| *pid > 0).ok_or(MeterError::Gone)?;
        let pid = Pid::from_raw(pid);
        let pidfd = sys::open_pidfd(pid).map_err(|errno| match errno {
            // The second says that it is a thread of another process.
            Errno::ESRCH | Errno::EINVAL => MeterError::Gone,
            errno => MeterError::Os(errno.into()),
        })?;
        let stat = match self.read_file(pid, "stat") {
            // It is there, and we are not shown it.
            Err(MeterError::Gone) if lives(&pidfd)? => {
                let hidden = "/proc shows only one's own processes: mount it without hidepid, or let our group see all";
                return Err(MeterError::Os(io::Error::other(hidden)));
            }
            stat => stat?,
        };
        let started = watch::started(stat).ok_or(MeterError::Gone)?;
        let process = Process { pid: subject.pid, started: self.boot ^ started };
        if subject.started.is_some_and(|expected| expected != process.started) {
            return Err(MeterError::Gone);
        }
        let find = |name: &&str| {
            let index =
                self.netlink.index_of(TAP_KIND, name.as_bytes()).map_err(|errno| MeterError::Os(errno.into()))?;
            Ok(Tap { name: name.as_bytes().to_vec(), index })
        };
        let taps = taps.iter().map(find).collect::<Result<_, MeterError>>()?;
        let target = Target { pid, pidfd, process, start: self.start(started), taps };
        if lives(&target.pidfd)? { Ok(target) } else { Err(MeterError::Gone) }
    }

    fn begin(&mut self) -> io::Result<()> {
        self.links.clear();
        let Self { netlink, links, .. } = self;
        let listed = netlink.counters_of(TAP_KIND, &mut |index, name, counters| {
            links.insert(index, (name.to_vec(), counters));
        });
        if listed.is_err() {
            links.clear();
        }
        // Each is tried, whatever came of the other.
        let traffic = self.read_traffic().map_err(|error| {
            io::Error::new(error.kind(), format!("could not read {}: {error}", self.traffic_file.display()))
        });
        listed?;
        traffic
    }

    fn read(&mut self, target: &Target) -> Result<Sample, MeterError> {
        let stat = self.stat(target.pid)?;
        let pages = text::statm(self.read_file(target.pid, "statm")?).ok_or_else(|| nonsense("statm"))?;
        let switches = text::switches(self.read_file(target.pid, "status")?);
        let counted = |(place, tap): (usize, &Tap)| {
            let (name, counters) = self.links.get(&tap.index?)?;
            (*name == tap.name).then(|| (place, interface(counters)))
        };
        let interfaces = target.taps.iter().enumerate().filter_map(counted).collect();
        let Process { pid, started } = target.process;
        let traffic = self.traffic.get(&(pid, started));
        let sample = Sample {
            rusage: text::rusage(&stat, switches, traffic.copied().unwrap_or_default(), self.ticks),
            memory: Some(Memory { start: target.start, ..text::memory(&stat, pages, self.ticks) }),
            interfaces,
            counters: traffic.map(counters),
        };
        if lives(&target.pidfd)? { Ok(sample) } else { Err(MeterError::Gone) }
    }
}

/// As [`watch::lives`].
fn lives(pidfd: &OwnedFd) -> Result<bool, MeterError> {
    watch::lives(pidfd.as_fd()).map_err(|errno| MeterError::Os(errno.into()))
}

fn nonsense(file: &str) -> MeterError {
    MeterError::Os(io::Error::other(format!("/proc/PID/{file} has another form than expected")))
}

fn counters(traffic: &BlockTraffic) -> Vec<(String, i64)> {
    [(BLOCK_READ, traffic.read_bytes), (BLOCK_WRITTEN, traffic.written_bytes)]
        .map(|(name, bytes)| (name.to_owned(), text::count(bytes)))
        .to_vec()
}

/// What the host received is what the guest put in: the input.
fn interface(counters: &LinkCounters) -> Interface<'static> {
    let count = text::count;
    Interface {
        flags: i64::from(counters.flags),
        mtu: i64::from(counters.mtu),
        input_packets: count(counters.received_packets),
        input_errors: count(counters.received_errors),
        output_packets: count(counters.sent_packets),
        output_errors: count(counters.sent_errors),
        collisions: count(counters.collisions),
        input_bytes: count(counters.received_bytes),
        output_bytes: count(counters.sent_bytes),
        input_mcast: count(counters.multicast),
        input_dropped: count(counters.received_dropped),
        output_dropped: count(counters.sent_dropped),
        ..Interface::default()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn subject(pid: u32, started: Option<u64>) -> Subject<'static> {
        Subject { pid, started, device: "" }
    }

    fn child() -> Child {
        let mut command = Command::new("sleep");
        // One that a failed test leaves behind ends by itself and holds nothing open.
        command.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    #[test]
    fn a_process_has_numbers_while_it_lives_and_none_afterwards() {
        let mut meter = LinuxMeter::new(Path::new("/nonexistent")).unwrap();
        let mut child = child();
        let target = meter.open(subject(child.id(), None), &["none"]).unwrap();
        meter.begin().unwrap();
        // While it begins to run its program it has nothing.
        let has_memory = |sample: &Sample| sample.memory.is_some_and(|memory| memory.rss > 0);
        assert!(fulmar_tests::system::wait_until(|| has_memory(&meter.read(&target).unwrap())));
        let sample = meter.read(&target).unwrap();
        let memory = sample.memory.unwrap();
        assert!(memory.vsize > 4096 * memory.rss && sample.rusage.maxrss == memory.rss, "{sample:?}");
        assert!(sample.interfaces.is_empty() && sample.counters.is_none());
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let age = i64::try_from(age.as_secs()).unwrap() - memory.start.seconds;
        assert!((0..100).contains(&age), "started {age} s ago");
        assert_eq!(meter.read(&target).unwrap().memory.unwrap().start, memory.start);
        // Killed and not yet waited for: the id is still taken, and /proc still has it.
        child.kill().unwrap();
        nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(target.pid),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        )
        .unwrap();
        assert!(matches!(meter.read(&target), Err(MeterError::Gone)));
        assert!(matches!(meter.open(subject(child.id(), None), &[]), Err(MeterError::Gone)));
        child.wait().unwrap();
        assert!(matches!(meter.read(&target), Err(MeterError::Gone)));
        assert!(matches!(meter.open(subject(child.id(), None), &[]), Err(MeterError::Gone)));
    }

    #[test]
    fn what_vmmd_says_is_of_the_process_that_it_names() {
        let folder = fulmar_tests::system::make_folder("traffic").unwrap();
        let mut meter = LinuxMeter::new(&folder).unwrap();
        let this = watch::Watch::new().unwrap().identify(Pid::this()).unwrap();
        let target = meter.open(subject(this.pid, None), &[]).unwrap();
        let (file, line) = (folder.join(TRAFFIC_FILE), format!("{} {} 1024 4096\n", this.pid, this.started));
        let counters = |meter: &mut LinuxMeter| {
            let sample = meter.read(&target).unwrap();
            let bytes = sample.counters.map(|counters| [counters[0].1, counters[1].1]);
            assert_eq!([sample.rusage.inblock, sample.rusage.outblock], bytes.unwrap_or_default().map(|it| it / 512));
            bytes
        };
        let others = format!("1 2 3 4\n{} {} 5 6\nnonsense\n", this.pid, this.started ^ 1);
        for (text, expected) in [
            (None, None),
            (Some(others.clone()), None),
            (Some(format!("{others}{line}")), Some([1024, 4096])),
            (Some(String::new()), None),
        ] {
            text.iter().for_each(|text| std::fs::write(&file, text).unwrap());
            meter.begin().unwrap();
            assert_eq!(counters(&mut meter), expected, "{text:?}");
        }
        // What cannot be read is told, and nothing of it is kept.
        std::fs::write(&file, line).unwrap();
        meter.begin().unwrap();
        std::fs::write(&file, [0xff]).unwrap();
        let error = meter.begin().unwrap_err().to_string();
        assert!(error.contains("block-traffic"), "{error}");
        assert_eq!(counters(&mut meter), None);
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_process_that_started_at_another_time_is_another() {
        let mut meter = LinuxMeter::new(Path::new("/nonexistent")).unwrap();
        let this = watch::Watch::new().unwrap().identify(Pid::this()).unwrap();
        assert!(meter.open(subject(this.pid, Some(this.started)), &[]).is_ok());
        for started in [this.started ^ 1, 0] {
            assert!(matches!(meter.open(subject(this.pid, Some(started)), &[]), Err(MeterError::Gone)));
        }
        for pid in [0, u32::MAX, i32::MAX.cast_unsigned()] {
            assert!(matches!(meter.open(subject(pid, None), &[]), Err(MeterError::Gone)), "{pid}");
        }
    }

    /// The process id is one that has been given again: the pidfd of the one before finds that out, whatever /proc says.
    #[test]
    fn what_is_read_of_a_successor_is_not_taken_for_the_process() {
        let mut meter = LinuxMeter::new(Path::new("/nonexistent")).unwrap();
        let (mut ended, mut successor) = (child(), child());
        let target = meter.open(subject(ended.id(), None), &[]).unwrap();
        ended.kill().unwrap();
        ended.wait().unwrap();
        let other = Target { pid: Pid::from_raw(i32::try_from(successor.id()).unwrap()), ..target };
        assert!(matches!(meter.read(&other), Err(MeterError::Gone)));
        successor.kill().unwrap();
        successor.wait().unwrap();
    }
}
