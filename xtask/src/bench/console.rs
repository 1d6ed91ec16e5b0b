//! A thousand unikernels that write without end: what the console daemon keeps up with, what memory it has, and whether `vmmd`, which
//! shares only the machine with it, takes notice.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fulmar_core::limits::CONSOLES_BYTES_MAX;
use fulmar_core::wire::{Command, ConsoleCommand, UnikernelCommand, Window};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::load::{self, Connection};
use super::report::{Figure, Unit};
use super::{Bench, median, on_cpu, resident_kb};
use crate::steps::{Done, Failure};

const UNIKERNELS: usize = 1_000;

/// What each writes at once: some lines, and more than a fifo's page.
const LINE: &[u8] =
    b"2026-11-26T12:00:00Z something has happened to somebody, and this line says what it was and why\n";
const LINES: usize = 60;

/// Questions to `vmmd` while nobody writes, and while all do.
const QUESTIONS: usize = 2_000;

pub(super) fn run(bench: &Bench) -> Done {
    let system = bench.system()?;
    let (console, vmmd) = (system.pid("vmmd_console")?, system.pid("vmmd")?);
    let socket = system.socket("console.sock");
    let mut told = Connection::open(&socket)?;
    let fifos: Vec<File> = (0..UNIKERNELS)
        .map(|number| {
            let name = format!("bench:u{number}");
            let fifo = make_fifo(&system.run().join("fifo").join(&name))?;
            let add = Command::Console(ConsoleCommand::Add { unikernels: 2 * UNIKERNELS as i64 });
            told.send(&load::frame(&name, add)?)?;
            told.success().map(|()| fifo)
        })
        .collect::<Done<_>>()?;
    let info = load::frame(":", Command::Unikernel(UnikernelCommand::Info))?;
    let quiet = ask(&system.socket("vmmd.sock"), &info)?;
    bench.add(Figure::time("console", "info of vmmd, nobody writes", quiet));
    bench.add(Figure::kb("console", "vmmd_console, nobody writes", resident_kb(console)?));
    bench.add(Figure::kb("console", "host half of vmmd, nobody writes", resident_kb(vmmd)?));
    let (written, has_enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let (asked, took, cpu, most_kb) = std::thread::scope(|scope| {
        scope.spawn(|| write(&fifos, &written, &has_enough));
        let measured = (|| {
            // Until each ring has been filled.
            let mut follower = Connection::open(&socket)?;
            follower.send(&load::frame("bench:u0", Command::Console(ConsoleCommand::Subscribe(Window::Count(0))))?)?;
            for _ in 0..2_000 {
                // One that reads too slowly is closed when the ring has passed it.
                if follower.success().is_err() {
                    break;
                }
            }
            let (begun, before, bytes) = (Instant::now(), on_cpu(console)?, written.load(Ordering::Relaxed));
            let mut most_kb = 0;
            let asked = ask(&system.socket("vmmd.sock"), &info)?;
            while begun.elapsed() < Duration::from_secs(5) {
                most_kb = most_kb.max(resident_kb(console)?);
                std::thread::sleep(Duration::from_millis(50));
            }
            written.fetch_sub(bytes, Ordering::Relaxed);
            Ok::<_, Failure>((asked, begun.elapsed(), on_cpu(console)? - before, most_kb))
        })();
        has_enough.store(true, Ordering::Relaxed);
        measured
    })?;
    let seconds = took.as_secs_f64();
    let rate = written.load(Ordering::Relaxed) as f64 / seconds;
    let lines = rate / LINE.len() as f64;
    let add = |what: &str, unit, value| bench.add(Figure::new("console", what, unit, value));
    add(&format!("{UNIKERNELS} write without end: taken in"), Unit::BytesPerSecond, rate);
    add("the same, in lines", Unit::PerSecond, lines);
    add("vmmd_console meanwhile: of one CPU", Unit::Percent, cpu.as_secs_f64() / seconds * 100.0);
    // The lines alone may have this much; the rest is what it takes to keep them.
    let bound = CONSOLES_BYTES_MAX as f64;
    bench.add(Figure::kb("console", "vmmd_console meanwhile, at most", most_kb));
    add("that, by the bound of the lines alone", Unit::Ratio, most_kb as f64 * 1024.0 / bound);
    bench.add(Figure::time("console", "info of vmmd meanwhile", asked));
    // Writers and both daemons share the machine.
    add("that, by info while nobody writes", Unit::Ratio, asked.as_secs_f64() / quiet.as_secs_f64());
    bench.add(Figure::kb("console", "host half of vmmd afterwards", resident_kb(vmmd)?));
    Ok(system.stop()?)
}

/// A fifo as `vmmd` makes it, held open for reading too.
fn make_fifo(path: &Path) -> Done<File> {
    let failed = |error: std::io::Error| Failure(format!("{}: {error}", path.display()));
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH)
        .map_err(|errno| failed(errno.into()))?;
    let folder = fs::metadata(path.parent().unwrap_or(path)).map_err(failed)?;
    let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&folder), std::os::unix::fs::MetadataExt::gid(&folder));
    std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(failed)?;
    OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(path).map_err(failed)
}

/// Writes to all in turn, as much as each takes.
fn write(fifos: &[File], written: &AtomicU64, has_enough: &AtomicBool) {
    let block = LINE.repeat(LINES);
    while !has_enough.load(Ordering::Relaxed) {
        let mut is_full = true;
        for mut fifo in fifos {
            match fifo.write(&block) {
                Ok(bytes) => {
                    written.fetch_add(bytes as u64, Ordering::Relaxed);
                    is_full = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if is_full {
            std::thread::yield_now();
        }
    }
}

/// The usual time of an answer.
fn ask(socket: &Path, frame: &[u8]) -> Done<Duration> {
    let mut times = vec![Duration::ZERO; QUESTIONS];
    for time in &mut times {
        let sent = Instant::now();
        let mut connection = Connection::open(socket)?;
        connection.send(frame)?;
        connection.receive()?;
        *time = sent.elapsed();
    }
    Ok(median(&mut times))
}
