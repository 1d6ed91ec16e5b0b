//! A creation: until it is acknowledged, durably, and until the unikernel's first byte; beside the bare tender.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use fulmar_core::wire::{Command, ConsoleCommand, Text, UnikernelCommand, Window};

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, median};
use crate::steps::{Done, Failure};
use fulmar_tests::built::Kind;

const ROUNDS: usize = 60;

/// Creations with a destruction each.
const PAIRS: u32 = 200;

pub(super) fn run(bench: &Bench) -> Done {
    let bare = bare_tender(bench)?;
    bench.add(Figure::time("create", "bare spt tender: start to first console byte", bare));
    let system = bench.system()?;
    let (vmmd, console) = (system.socket("vmmd.sock"), system.socket("console.sock"));
    let path = bench.guests.image("hello", Kind::Spt);
    let image = std::fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let argv = [Text::from("--ticks=0")];
    let (mut acknowledged, mut spoken) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = format!("u{round}");
        let window = Window::Count(1);
        let subscribe = load::frame(&name, Command::Console(ConsoleCommand::Subscribe(window)))?;
        let mut listener = Connection::open(&console)?;
        listener.send(&subscribe)?;
        listener.success()?;
        // Each round another image, so that none is in the store already: trailing bytes are not loaded.
        let mut image = image.clone();
        image.extend_from_slice(&round.to_be_bytes());
        let config = load::config(&image, load::arguments(16, &argv));
        let create = load::frame(&name, Command::Unikernel(UnikernelCommand::Create(config)))?;
        let begun = Instant::now();
        let mut connection = Connection::open(&vmmd)?;
        connection.send(&create)?;
        let first_byte = std::thread::scope(|scope| {
            let heard = scope.spawn(|| listener.success().map(|()| begun.elapsed()));
            connection.success()?;
            acknowledged.push(begun.elapsed());
            heard.join().map_err(|_| Failure("the listener died".into()))?
        })?;
        spoken.push(first_byte);
        let destroy = load::frame(&name, Command::Unikernel(UnikernelCommand::Destroy))?;
        // It may have ended by itself already.
        let _ = load::ask(&vmmd, &destroy);
    }
    let first_byte = median(&mut spoken);
    let acknowledged = median(&mut acknowledged);
    bench.add(Figure::time("create", "acknowledged, durably", acknowledged).aim(0.003).peer(0.015, 0.015));
    bench.add(Figure::time("create", "request to first console byte, through vmmd_console", first_byte));
    let above = first_byte.saturating_sub(bare);
    bench.add(Figure::time("create", "that, above the bare tender", above).aim(0.002).peer(0.008, 0.008));
    let image = std::fs::read(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let config = load::config(&image, load::arguments(16, &[]));
    let create = load::frame("again", Command::Unikernel(UnikernelCommand::Create(config)))?;
    let destroy = load::frame("again", Command::Unikernel(UnikernelCommand::Destroy))?;
    let begun = Instant::now();
    for _ in 0..PAIRS {
        load::ask(&vmmd, &create)?;
        load::ask(&vmmd, &destroy)?;
    }
    let rate = f64::from(PAIRS) / begun.elapsed().as_secs_f64();
    bench.add(Figure::new("create", "and destroyed, one pair after the other", Unit::PerSecond, rate));
    Ok(system.stop()?)
}

/// From before the tender is started until its first console byte.
pub(super) fn bare_tender(bench: &Bench) -> Done<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut tender = Process::new(bench.programs.path("fulmar-tender"));
        tender.arg0("solo5-spt").arg("--mem=16").arg("--").arg(bench.guests.image("hello", Kind::Spt)).arg("--ticks=0");
        let mut child = tender
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure(format!("cannot start the tender: {error}")))?;
        let mut byte = [0];
        if let Some(output) = &mut child.stdout {
            output.read_exact(&mut byte).map_err(|error| Failure(format!("the tender said nothing: {error}")))?;
        }
        times.push(begun.elapsed());
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(median(&mut times))
}
