//! The texts of `/proc/PID/`, as far as statistics need them. Pure: bytes in, numbers out.

use std::time::Duration;

use fulmar_core::wire::{Memory, Moment, Rusage};
use fulmar_host::traffic::BlockTraffic;

/// Microseconds of a second.
const SECOND_US: u64 = 1_000_000;

/// The kernel's unit of `ru_inblock` and `ru_oublock`.
const BLOCK_BYTES: u64 = 512;

/// The kernel's unit of time towards programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ticks {
    per_second: u64,
}

impl Ticks {
    pub(super) fn per_second(per_second: u64) -> Self {
        Self { per_second: per_second.max(1) }
    }

    pub(super) fn duration(self, ticks: u64) -> Duration {
        Duration::from_micros(u64::try_from(self.us(ticks)).unwrap_or(u64::MAX))
    }

    fn us(self, ticks: u64) -> u128 {
        u128::from(ticks) * u128::from(SECOND_US) / u128::from(self.per_second)
    }
}

/// What there is of `stat`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    minor_faults: u64,
    major_faults: u64,
    user_ticks: u64,
    system_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
    swaps: u64,
}

/// Pages of a process, as `statm` has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Pages {
    text: u64,
    /// Stack included: the kernel does not tell them apart.
    data: u64,
}

/// How often a process gave the CPU up, and how often it was taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Switches {
    voluntary: u64,
    involuntary: u64,
}

/// Reads `stat`. Fields are counted from 1, as proc(5) does.
pub(super) fn stat(text: &[u8]) -> Option<Stat> {
    // The second field is the program's name in parentheses, and may have any character in it.
    let after = text.iter().rposition(|byte| *byte == b')')?;
    let fields = text.get(after + 1..)?.trim_ascii().split(|byte| *byte == b' ');
    let fields: Vec<&[u8]> = fields.collect();
    let field = |number: usize| self::number(fields.get(number - 3)?);
    Some(Stat {
        minor_faults: field(10)?,
        major_faults: field(12)?,
        user_ticks: field(14)?,
        system_ticks: field(15)?,
        virtual_bytes: field(23)?,
        resident_pages: field(24)?,
        swaps: field(36)?,
    })
}

/// Reads `statm`: size, resident, shared, text, library, data, dirty.
pub(super) fn statm(text: &[u8]) -> Option<Pages> {
    let mut fields = text.trim_ascii().split(|byte| *byte == b' ').map(number);
    let code = fields.nth(3)??;
    Some(Pages { text: code, data: fields.nth(1)?? })
}

/// Finds the two counts in `status`; 0 where they are not.
pub(super) fn switches(text: &[u8]) -> Switches {
    let mut switches = Switches::default();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(value) = line.strip_prefix(b"voluntary_ctxt_switches:") {
            switches.voluntary = number(value.trim_ascii()).unwrap_or(0);
        } else if let Some(value) = line.strip_prefix(b"nonvoluntary_ctxt_switches:") {
            switches.involuntary = number(value.trim_ascii()).unwrap_or(0);
        }
    }
    switches
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// As the wire has counts.
pub(super) fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// As the wire has times.
pub(super) fn moment(since: Duration) -> Moment {
    Moment { seconds: count(since.as_secs()), microseconds: i64::from(since.subsec_micros()) }
}

/// What `getrusage` would say, as far as `/proc` has it, and of the first thread what it has read and written.
pub(super) fn rusage(stat: &Stat, switches: Switches, traffic: BlockTraffic, ticks: Ticks) -> Rusage {
    Rusage {
        utime: moment(ticks.duration(stat.user_ticks)),
        stime: moment(ticks.duration(stat.system_ticks)),
        maxrss: count(stat.resident_pages),
        minflt: count(stat.minor_faults),
        majflt: count(stat.major_faults),
        nswap: count(stat.swaps),
        inblock: count(traffic.read_bytes / BLOCK_BYTES),
        outblock: count(traffic.written_bytes / BLOCK_BYTES),
        nvcsw: count(switches.voluntary),
        nivcsw: count(switches.involuntary),
        ..Rusage::default()
    }
}

/// What `kinfo_proc` would say, without the start.
pub(super) fn memory(stat: &Stat, pages: Pages, ticks: Ticks) -> Memory {
    let runtime = ticks.us(stat.user_ticks).saturating_add(ticks.us(stat.system_ticks));
    Memory {
        vsize: count(stat.virtual_bytes),
        rss: count(stat.resident_pages),
        tsize: count(pages.text),
        dsize: count(pages.data),
        ssize: count(pages.data),
        runtime: i64::try_from(runtime).unwrap_or(i64::MAX),
        ..Memory::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "S 1 77 77 0 -1 4194560 168 9 3 8 250 2 5 6 20 0 1 0 8123456 36265984 412 \
                        18446744073709551615 1 1 0 0 0 0 0 4096 0 0 4 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0";

    #[test]
    fn stat_is_read_behind_any_name() {
        let expected = Stat {
            minor_faults: 168,
            major_faults: 3,
            user_ticks: 250,
            system_ticks: 2,
            virtual_bytes: 36_265_984,
            resident_pages: 412,
            swaps: 4,
        };
        for name in ["solo5-spt", ") Z 1", "", "a b (c", "\u{fc}"] {
            assert_eq!(stat(format!("77 ({name}) {STAT}\n").as_bytes()), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_is_no_stat_is_none() {
        let whole = format!("77 (a) {STAT}");
        for cut in 0..whole.find(" 4 0 17").unwrap_or(0) {
            assert_eq!(stat(&whole.as_bytes()[..cut]), None, "{cut}");
        }
        for (from, to) in
            [(" 250 ", " -1 "), (" 412 ", " x "), (" 168 ", " 99999999999999999999 "), (" 4 0 17", "  0 17")]
        {
            assert_eq!(stat(whole.replacen(from, to, 1).as_bytes()), None, "{to}");
        }
    }

    #[test]
    fn statm_and_status() {
        assert_eq!(statm(b"8854 412 380 5 0 90 0\n"), Some(Pages { text: 5, data: 90 }));
        for text in [&b""[..], b"1 2 3", b"1 2 3 4 5", b"1 2 3 x 5 6 7", b"1 2 3 4 5 -6 7"] {
            assert_eq!(statm(text), None);
        }
        let text = b"Name:\tvoluntary_ctxt_switches: 9\nvoluntary_ctxt_switches:\t2\nnonvoluntary_ctxt_switches:\t17\n";
        assert_eq!(switches(text), Switches { voluntary: 2, involuntary: 17 });
        assert_eq!(switches(b"voluntary_ctxt_switches:\tx"), Switches::default());
    }

    #[test]
    fn ticks_become_seconds_and_microseconds() {
        let ticks = Ticks::per_second(100);
        let stat = stat(format!("77 (a) {STAT}").as_bytes()).unwrap();
        let traffic = BlockTraffic { read_bytes: 1024, written_bytes: 4097 };
        let rusage = rusage(&stat, Switches { voluntary: 2, involuntary: 17 }, traffic, ticks);
        assert_eq!(rusage.utime, Moment { seconds: 2, microseconds: 500_000 });
        assert_eq!(rusage.stime, Moment { seconds: 0, microseconds: 20_000 });
        assert_eq!((rusage.maxrss, rusage.minflt, rusage.majflt, rusage.nswap), (412, 168, 3, 4));
        assert_eq!((rusage.nvcsw, rusage.nivcsw), (2, 17));
        assert_eq!((rusage.inblock, rusage.outblock), (2, 8));
        let memory = memory(&stat, Pages { text: 5, data: 90 }, ticks);
        assert_eq!((memory.runtime, memory.rss, memory.vsize), (2_520_000, 412, 36_265_984));
        assert_eq!((memory.tsize, memory.dsize, memory.ssize), (5, 90, 90));
        assert_eq!(Ticks::per_second(0).duration(3), Duration::from_secs(3));
        assert_eq!(Ticks::per_second(100).us(u64::MAX), u128::from(u64::MAX) * 10_000);
    }
}
