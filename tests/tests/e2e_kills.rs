//! Random kills under load: whatever of `vmmd` dies and whenever, what was acknowledged is there afterwards, what is listed
//! runs once, what nobody touched was not stopped, and in the end nothing is left over. `SEED=...` repeats a run.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fulmar_tests::acknowledged::Subject;
use fulmar_tests::bridge::with_bridge;
use fulmar_tests::choose::{Choose, Seeded};
use fulmar_tests::mixture::Mixture;
use fulmar_tests::siege::{self, Siege, control_half, expect_gone, kill_9};
use fulmar_tests::system::wait_until;
use nix::sys::signal::Signal;

/// Kills of a run; two at once count as one.
const KILLS: u32 = 110;

/// Clients that ask at once.
const CLIENTS: usize = 4;

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Victim {
    ControlHalf,
    HostHalf,
    BothHalves,
    /// Both halves, and then `vmmd` once more while it comes up.
    WhileComingUp,
    Console,
    Log,
    Tender,
}

impl Victim {
    const ALL: [Self; 14] = [
        Self::ControlHalf,
        Self::ControlHalf,
        Self::HostHalf,
        Self::HostHalf,
        Self::BothHalves,
        Self::BothHalves,
        Self::WhileComingUp,
        Self::WhileComingUp,
        Self::Console,
        Self::Console,
        Self::Log,
        Self::Log,
        Self::Tender,
        Self::Tender,
    ];
}

/// A unikernel that nobody asks anything of: its process, and by what it is seen whether that is still so.
type InPeace = BTreeMap<String, (u32, u64)>;

fn given_seed() -> Option<u64> {
    std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"))
}

#[test]
fn kills_of_a_fixed_seed() {
    let Some(mut siege) = Siege::begin("kills_of_a_fixed_seed") else { return };
    kills(&mut siege, given_seed().unwrap_or(3), false);
    siege.count_again();
    siege.end();
}

#[test]
fn kills_of_a_fresh_seed_with_networks() {
    with_bridge("kills_of_a_fresh_seed_with_networks", None, |siege, net| {
        // The host may have some of its own.
        let namespaces = || -> Vec<String> {
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            mounts.lines().filter(|line| line.contains(" - nsfs ")).map(str::to_owned).collect()
        };
        let before = namespaces();
        let fresh = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        kills(siege, given_seed().unwrap_or(fresh), true);
        let interfaces = siege::files(&net.join("class/net"));
        assert!(!interfaces.iter().any(|name| name.starts_with("vmmtap")), "{interfaces:?}");
        assert_eq!(namespaces(), before, "a namespace is kept by a mount");
        siege.count_again();
        siege.expect_nothing_left();
    });
}

fn kills(siege: &mut Siege, seed: u64, has_bridge: bool) {
    eprintln!("SEED={seed}");
    siege.start_log();
    let mixture = Mixture::new(siege, has_bridge);
    let mut choices = Seeded::new(seed);
    let mut counts = BTreeMap::<Victim, u32>::new();
    let mut kept = 0;
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (mixture, seed) = (&mixture, seed.wrapping_add(1 + number as u64));
            scope.spawn(move || mixture.ask(number, seed));
        }
        // Whatever happens, they are not to wait for each other.
        let _end = Ending(&mixture);
        for _ in 0..KILLS {
            let answers = mixture.answers() + 1 + u64::from(choices.below(24));
            assert!(wait_until(|| mixture.answers() >= answers), "nobody is answered\n{}", siege.system.log("vmmd"));
            // Not only just after an answer.
            std::thread::sleep(Duration::from_micros(choices.below(4000).into()));
            let victim = *choose(&mut choices, &Victim::ALL);
            kept += strike(siege, &mixture, victim, &mut choices);
            *counts.entry(victim).or_default() += 1;
        }
    });
    eprintln!("{KILLS} kills {counts:?}, {} changes acknowledged, {kept} processes adopted", mixture.changes());
    assert!(mixture.changes() > u64::from(KILLS) && kept > KILLS as usize, "there was no load");
    check(siege, &mixture, &InPeace::new());
    for name in mixture.found(siege).into_keys() {
        if let Subject::Unikernel(name) = name {
            assert!(wait_until(|| siege.has_console(&name)), "{name}\n{}", siege.system.log("vmmd_console"));
        }
    }
    mixture.remove_all(siege);
    siege.expect_clean();
}

/// Ends the clients.
struct Ending<'a>(&'a Mixture);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn choose<'a, T>(choices: &mut impl Choose, items: &'a [T]) -> &'a T {
    &items[choices.below(items.len() as u32) as usize]
}

/// Kills somebody and sees what has become of everything. How many processes are the same as before.
fn strike(siege: &mut Siege, mixture: &Mixture, victim: Victim, choices: &mut Seeded) -> usize {
    let halves = [siege.vmmd, control_half(siege.vmmd)];
    match victim {
        Victim::Console => {
            siege.system.end("vmmd_console", Signal::SIGKILL).unwrap();
            siege.console = siege.system.start_console().unwrap();
            return 0;
        }
        Victim::Log => {
            siege.system.end("vmmd_log", Signal::SIGKILL).unwrap();
            siege.start_log();
            return 0;
        }
        Victim::Tender => {
            kill_a_tender(siege, mixture, choices);
            return 0;
        }
        Victim::ControlHalf | Victim::HostHalf | Victim::BothHalves | Victim::WhileComingUp => {}
    }
    let in_peace = in_peace(siege, mixture);
    match victim {
        Victim::ControlHalf => kill_9(halves[1]),
        Victim::HostHalf => kill_9(halves[0]),
        _ => halves.iter().for_each(|half| kill_9(*half)),
    }
    expect_gone(&halves);
    let _quiet = mixture.quiet();
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
    if victim == Victim::WhileComingUp {
        siege.system.launch_vmmd().unwrap();
        std::thread::sleep(Duration::from_micros(choices.below(20_000).into()));
        siege.system.end("vmmd", Signal::SIGKILL).unwrap();
    }
    siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
    check(siege, mixture, &in_peace)
}

/// The unikernels that nobody asks anything of. Their processes are looked for after that was seen.
fn in_peace(siege: &Siege, mixture: &Mixture) -> InPeace {
    let before = mixture.known().in_peace();
    let running = siege.running();
    let one = |(name, disturbed): (String, u64)| match running.get(&name).map(Vec::as_slice) {
        Some([pid]) => Some((name, (*pid, disturbed))),
        // It is being started, after a rest say.
        _ => None,
    };
    before.into_iter().filter_map(one).collect()
}

/// Nothing that was acknowledged is lost, nothing runs twice, and nobody was stopped.
fn check(siege: &Siege, mixture: &Mixture, before: &InPeace) -> usize {
    let in_peace = mixture.known().in_peace();
    let found = mixture.found(siege);
    if let Err(lost) = mixture.known().settle(&found) {
        panic!("{lost}\n{}", siege.system.log("vmmd"));
    }
    let running = siege.expect_listed_runs_once();
    let mut kept = 0;
    for (name, (pid, disturbed)) in before {
        if in_peace.get(name) == Some(disturbed) {
            let log = || siege.system.log("vmmd");
            assert_eq!(running.get(name), Some(pid), "{name} was stopped\n{}", log());
            kept += 1;
        }
    }
    kept
}

/// Kills the process of a unikernel that nobody asks anything of. It may have been started again, or be gone.
fn kill_a_tender(siege: &Siege, mixture: &Mixture, choices: &mut Seeded) {
    let _quiet = mixture.quiet();
    let in_peace: Vec<(String, (u32, u64))> = in_peace(siege, mixture).into_iter().collect();
    if in_peace.is_empty() {
        return;
    }
    let (name, (pid, _)) = choose(choices, &in_peace);
    kill_9(*pid);
    mixture.known().may_end(&Subject::Unikernel(name.clone()));
    expect_gone(&[*pid]);
}

#[test]
fn what_is_missing_is_seen() {
    // The checks of this file find what they look for: a unikernel that is destroyed behind their back.
    let Some(siege) = Siege::begin("what_is_missing_is_seen") else { return };
    let mixture = Mixture::new(&siege, false);
    assert_eq!(siege.client(&["create", "k0:a", &siege.image("hello"), "--arg=--number=1"]).code, 0);
    assert!(mixture.known().settle(&mixture.found(&siege)).is_err());
    assert_eq!(siege.client(&["destroy", "k0:a"]).code, 0);
    mixture.known().settle(&mixture.found(&siege)).unwrap();
    siege.end();
}
