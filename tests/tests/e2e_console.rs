//! What a unikernel writes while `vmmd` and the console daemon die and come back. Nothing is lost for the sake of `vmmd`; without
//! a console daemon the fifo keeps as much as it holds, and what is lost is lost behind that.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use fulmar_core::wire::{self, Command, ConsoleCommand, Data, Frame, Payload, Window};
use fulmar_tests::choose::{Choose, Seeded};
use fulmar_tests::raw::{Raw, frame};
use fulmar_tests::siege::{Siege, control_half, expect_gone, kill_9, pid_of};
use fulmar_tests::system::wait_until;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};

/// The unikernel that writes.
const NAME: &str = "siege:chatty";

/// Bytes of each of its lines, their end included; a read of the console daemon takes whole ones.
const LINE_BYTES: usize = 64;

/// Bytes that the console daemon has in its hands at a time: read from the fifo and not yet passed on.
const HANDS_BYTES: usize = 4096;

/// Somebody who follows a console until it is closed, and the numbers of the lines that he heard.
struct Listener {
    heard: Arc<Mutex<Vec<u64>>>,
    thread: JoinHandle<()>,
}

impl Listener {
    fn subscribe(siege: &Siege) -> Self {
        let mut client = Raw::connect(&siege.system.socket("console.sock"));
        assert!(client.send(&frame(NAME, Command::Console(ConsoleCommand::Subscribe(Window::Count(1024))))));
        let heard = Arc::<Mutex<Vec<u64>>>::default();
        let told = Arc::clone(&heard);
        let thread = std::thread::spawn(move || {
            while let Some(number) = next_line(&mut client) {
                // What confirms the subscription has none.
                told.lock().unwrap_or_else(PoisonError::into_inner).extend(number);
            }
        });
        Self { heard, thread }
    }

    fn heard(&self) -> Vec<u64> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more lines have been heard.
    fn expect_more(&self, siege: &Siege, lines: usize) {
        let wanted = self.heard().len() + lines;
        let heard = wait_until(|| self.heard().len() >= wanted);
        let logs = || [siege.system.log("vmmd"), siege.system.log("vmmd_console")].concat();
        assert!(heard, "{} lines instead of {wanted}\n{}", self.heard().len(), logs());
    }

    /// All that was heard, when the console daemon is gone.
    fn all(self) -> Vec<u64> {
        self.thread.join().unwrap();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The next message: of a line its number.
fn next_line(client: &mut Raw) -> Option<Option<u64>> {
    let mut length = [0; 4];
    client.0.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    client.0.read_exact(&mut bytes).ok()?;
    let Payload::Data(Data::Console { line, .. }) = wire::decode(Frame::whole(&bytes)).unwrap().payload else {
        return Some(None);
    };
    let text = String::from_utf8(line.0.to_vec()).unwrap();
    let rest = text.strip_prefix("chatty: line ").unwrap_or_else(|| panic!("a line of nobody: {text}"));
    assert_eq!(text.len(), LINE_BYTES - 1, "a part of a line: {text}");
    Some(Some(rest.split(' ').next().unwrap().parse().unwrap()))
}

/// Where lines are missing: how many lines came before in one piece, and how many are missing.
fn gaps(heard: &[u64]) -> Vec<(usize, u64)> {
    let steps = heard.windows(2).enumerate();
    steps
        .filter(|(_, pair)| pair[1] != pair[0] + 1)
        .map(|(at, pair)| (at + 1, pair[1].wrapping_sub(pair[0] + 1)))
        .collect()
}

fn begin(test: &str) -> Option<(Siege, Listener)> {
    let siege = Siege::begin(test)?;
    let words = ["create", NAME, &siege.image("chatty"), "--arg=--pause-us=1000"];
    let said = siege.client(&words);
    assert_eq!(said.code, 0, "{said:?}");
    let listener = Listener::subscribe(&siege);
    listener.expect_more(&siege, 50);
    Some((siege, listener))
}

fn kill_vmmd(siege: &mut Siege, both: bool) {
    let halves = [control_half(siege.vmmd), siege.vmmd];
    halves.iter().take(1 + usize::from(both)).for_each(|half| kill_9(*half));
    expect_gone(&halves);
    siege.system.end("vmmd", Signal::SIGTERM).unwrap();
}

#[test]
fn the_death_of_vmmd_costs_no_line() {
    let Some((mut siege, listener)) = begin("the_death_of_vmmd_costs_no_line") else { return };
    for round in 0..6 {
        kill_vmmd(&mut siege, round % 2 == 0);
        // A while without any.
        listener.expect_more(&siege, 200);
        siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        listener.expect_more(&siege, 100);
    }
    let pids = siege.expect_listed_runs_once();
    assert_eq!(pids.len(), 1);
    assert_eq!(siege.client(&["destroy", NAME]).code, 0);
    siege.system.end("vmmd_console", Signal::SIGTERM).unwrap();
    let heard = listener.all();
    println!("{} lines heard over 6 deaths of vmmd", heard.len());
    assert_eq!(gaps(&heard), []);
    siege.console = siege.system.start_console().unwrap();
    siege.count_again();
    siege.end();
}

/// Waits until the unikernel's fifo is full, and for some lines more, which are lost.
fn fill_fifo(siege: &Siege) {
    let fifo = open_fifo(siege);
    let has_room = || {
        let mut fds = [PollFd::new(fifo.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
    };
    assert!(wait_until(|| !has_room()), "the fifo does not fill");
    let tender = siege.running()[NAME][0];
    let writes = || {
        let io = fs::read_to_string(format!("/proc/{tender}/io")).unwrap();
        io.lines().find_map(|line| line.strip_prefix("syscw: ")?.parse::<u64>().ok()).unwrap()
    };
    // No room for a page more, but perhaps for some lines.
    let enough = writes() + 200;
    assert!(wait_until(|| writes() >= enough), "the unikernel does not write any more");
}

/// Neither reads nor writes.
fn open_fifo(siege: &Siege) -> File {
    let path = siege.system.run().join("fifo").join(NAME);
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

#[test]
fn the_death_of_the_console_daemon_costs_what_the_fifo_does_not_hold() {
    let Some((mut siege, mut listener)) = begin("the_death_of_the_console_daemon") else { return };
    let fifo_bytes = usize::try_from(fcntl(open_fifo(&siege), FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap();
    let mut choices = Seeded::new(5);
    let mut known = Vec::new();
    for (fills, with_vmmd) in [(false, false), (true, false), (false, true), (true, true), (false, false)] {
        listener.expect_more(&siege, 50 + choices.below(200) as usize);
        if with_vmmd {
            kill_vmmd(&mut siege, true);
        } else {
            // It is not to find the new one before somebody listens.
            kill(pid_of(control_half(siege.vmmd)), Signal::SIGSTOP).unwrap();
        }
        siege.system.end("vmmd_console", Signal::SIGKILL).unwrap();
        let before = listener.all();
        assert_eq!(gaps(&before), known);
        if fills {
            fill_fifo(&siege);
        }
        siege.console = siege.system.start_console().unwrap();
        listener = Listener::subscribe(&siege);
        if with_vmmd {
            siege.vmmd = siege.system.start_vmmd(&[]).unwrap();
        } else {
            kill(pid_of(control_half(siege.vmmd)), Signal::SIGCONT).unwrap();
        }
        listener.expect_more(&siege, fifo_bytes / LINE_BYTES + 300);
        let after = listener.heard();
        let in_hands = after[0].checked_sub(before.last().unwrap() + 1).expect("a line came twice");
        known = gaps(&after);
        println!(
            "fifo full: {fills}, vmmd too: {with_vmmd}: {in_hands} lines died with it, then (lines, lost): {known:?}"
        );
        assert!(in_hands as usize * LINE_BYTES <= HANDS_BYTES, "{in_hands} lines");
        assert!(known.len() <= 1 && (!fills || known.len() == 1), "{known:?}");
        for (lines, _) in &known {
            assert!(
                lines * LINE_BYTES >= fifo_bytes,
                "lost after {lines} lines, and the fifo holds {fifo_bytes} bytes"
            );
        }
    }
    assert_eq!(siege.client(&["destroy", NAME]).code, 0);
    siege.system.end("vmmd_console", Signal::SIGTERM).unwrap();
    listener.all();
    siege.console = siege.system.start_console().unwrap();
    siege.expect_clean();
    siege.count_again();
    siege.end();
}
