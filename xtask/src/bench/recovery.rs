//! A `vmmd` that comes up: a thousand unikernels that run are adopted, a thousand that the host has lost are started again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use fulmar_core::wire::{self, Command, ConsoleCommand, Frame, Message, Payload, Success, UnikernelCommand, Window};
use fulmar_tests::built::Kind;
use fulmar_tests::siege;
use fulmar_tests::system::{System, is_gone, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, create, median};
use crate::steps::{Done, Failure};

const UNIKERNELS: usize = 1_000;

/// Starts of `vmmd`.
const ADOPTIONS: usize = 5;

/// More than are being launched at once.
const LAST: usize = 32;

/// Memory of each, MB: its image needs no more.
const MEMORY_MB: i64 = 2;

pub(super) fn run(bench: &Bench) -> Done {
    let mut system = bench.system()?;
    let bare = create::bare_tender(bench)?;
    bench.add(Figure::time("recovery", "bare spt tender: start to first console byte", bare));
    let path = bench.guests.image("hello", Kind::Spt);
    let image = std::fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let vmmd = system.socket("vmmd.sock");
    for number in 0..UNIKERNELS {
        let config = load::config(&image, load::arguments(MEMORY_MB, &[]));
        load::ask(&vmmd, &load::frame(&name(number), Command::Unikernel(UnikernelCommand::Create(config)))?)?;
    }
    let before = tenders(&system);
    let mut times = Vec::new();
    for _ in 0..ADOPTIONS {
        end_vmmd(&mut system)?;
        let begun = Instant::now();
        system.start_vmmd(&[])?;
        expect_running(&system)?;
        times.push(begun.elapsed());
        if tenders(&system) != before {
            return Err(Failure("a unikernel was not adopted but started again".into()));
        }
    }
    let what = format!("{UNIKERNELS} adopted, from exec to the first listing");
    bench.add(Figure::time("recovery", &what, median(&mut times)).aim(1.0));

    end_vmmd(&mut system)?;
    for pid in &before {
        let _ = kill(pid_of(*pid), Signal::SIGKILL);
    }
    if !wait_until(|| before.iter().all(|pid| is_gone(pid_of(*pid)))) {
        return Err(Failure("the unikernels do not end".into()));
    }
    let begun = Instant::now();
    system.start_vmmd(&[])?;
    expect_running(&system)?;
    expect_last_words(&system)?;
    let all = begun.elapsed();
    let each = all / u32::try_from(UNIKERNELS).unwrap_or(u32::MAX);
    let ratio = each.as_secs_f64() / bare.as_secs_f64();
    let what = format!("{UNIKERNELS} restored, from exec until the last speaks");
    bench.add(Figure::time("recovery", &what, all));
    bench.add(Figure::new("recovery", "each of these, by a bare tender", Unit::Ratio, ratio).aim(2.0));
    Ok(system.stop()?)
}

/// Ends `vmmd` without a word.
fn end_vmmd(system: &mut System) -> Done {
    let control = siege::control_half(system.pid("vmmd")?);
    let _ = kill(pid_of(control), Signal::SIGKILL);
    system.end("vmmd", Signal::SIGKILL)?;
    if wait_until(|| is_gone(pid_of(control))) { Ok(()) } else { Err(Failure("vmmd does not end".into())) }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

fn tenders(system: &System) -> BTreeSet<u32> {
    siege::tenders(system.folder()).into_iter().collect()
}

/// Waits until all are listed as running.
fn expect_running(system: &System) -> Done {
    let info = load::frame(":", Command::Unikernel(UnikernelCommand::Info))?;
    let socket = system.socket("vmmd.sock");
    let mut failed = None;
    let all = wait_until(|| {
        let running = running(&socket, &info);
        failed = running.as_ref().err().map(ToString::to_string);
        running.map_or(true, |running| running == UNIKERNELS)
    });
    match failed {
        Some(error) => Err(Failure(error)),
        None if all => Ok(()),
        None => Err(Failure(format!("not all run; the log:\n{}", system.log("vmmd")))),
    }
}

/// How many are listed as running.
fn running(socket: &Path, info: &[u8]) -> Done<usize> {
    let mut connection = Connection::open(socket)?;
    connection.send(info)?;
    match wire::decode(Frame::whole(connection.receive()?)) {
        Ok(Message { payload: Payload::Success(Success::Infos(infos)), .. }) => {
            Ok(infos.iter().filter(|entry| entry.info.started.is_some()).count())
        }
        other => Err(Failure(format!("unexpected reply: {other:?}"))),
    }
}

/// Waits for the first word of each of the last that were started: by then those before have long spoken.
fn expect_last_words(system: &System) -> Done {
    let subscribe = Command::Console(ConsoleCommand::Subscribe(Window::Count(1)));
    let mut listeners = Vec::new();
    for number in UNIKERNELS - LAST..UNIKERNELS {
        let mut listener = Connection::open(&system.socket("console.sock"))?;
        listener.send(&load::frame(&name(number), subscribe)?)?;
        listener.success()?;
        listeners.push(listener);
    }
    listeners.iter_mut().try_for_each(Connection::success)
}

fn name(number: usize) -> String {
    format!("u{number}")
}
