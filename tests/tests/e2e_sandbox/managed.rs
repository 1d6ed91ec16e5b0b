//! Each daemon as a service manager has it, with its lines in the log of the system.

use std::path::Path;

use fulmar_shim_linux::sandbox::Program;
use fulmar_tests::managed::{DAEMONS, Place, hear, listen_at};
use fulmar_tests::namespace::Disk;
use fulmar_tests::siege::{control_half, pid_of};
use fulmar_tests::system::PATIENCE;
use fulmar_tests::trace::{Trace, Traced};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};

use super::Seen;

/// Adds what is seen of them while they are ready, alive and ending.
pub(crate) fn watch(seen: &mut Seen) {
    let Some(place) = Place::begin("no_row_of_the_tables_is_spare") else { return };
    // Where no log daemon of this machine is, one of this test is.
    let run = Disk::mount(Path::new("/run"), 1 << 20, MsFlags::empty());
    let lines = (!Path::new("/dev/log").exists()).then(|| listen_at(Path::new("/run/log")));
    for (name, program) in
        DAEMONS.iter().map(|(name, _)| *name).chain(["vmmd_influx"]).map(|name| (name, program(name)))
    {
        let notify = place.folder.join("notify");
        let manager = listen_at(&notify);
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = place.command(name);
        command.args(["--log", "syslog"]).env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "100000");
        let wait = || {
            for text in ["READY=1", "WATCHDOG=1"] {
                assert!(
                    std::iter::from_fn(|| hear(&manager).ok()).any(|said| said.starts_with(text)),
                    "{name}: {text}"
                );
            }
        };
        let calls = if program == Program::Control {
            let mut running = place.start(command);
            wait();
            let trace = Trace::begin(pid_of(control_half(running.child.id())));
            // One half ends with the other.
            kill(pid_of(running.child.id()), Signal::SIGTERM).unwrap();
            let calls = trace.end();
            running.child.wait().unwrap();
            calls
        } else {
            let traced = Traced::start(&command, place.folder.join("lines"));
            wait();
            traced.end()
        };
        seen.push((program, calls));
    }
    drop((lines, run));
}

fn program(name: &str) -> Program {
    match name {
        "vmmd" => Program::Control,
        "vmmd_console" => Program::Console,
        "vmmd_log" => Program::Log,
        "vmmd_stats" => Program::Stats,
        _ => Program::Influx,
    }
}
