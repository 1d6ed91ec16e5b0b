//! `cargo xtask demo`: one unikernel from source to its end, before a person's eyes, and nothing left behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;

use fulmar_tests::system::{self, System};

use crate::build::{self, Programs};
use crate::guard;
use crate::steps::{Done, Failure};
use fulmar_tests::built::Kind;

/// Lines of the console that the demo shows before it goes on.
const CONSOLE_LINES: usize = 4;

/// Runs the demo; with `keep` everything stays up.
pub(crate) fn run(keep: bool) -> Done {
    let programs = build::programs()?;
    let guests = build::guests(&programs)?;
    let kvm = said_of_host();
    let image = guests.image("hello", if kvm { Kind::Hvt } else { Kind::Spt });

    let folder = system::make_folder("demo")?;
    let mut guard = guard::start(&folder)?;
    // From here on the guard cleans up, whatever happens to this process.
    let mut demo = Demo { system: System::new(folder, programs.folder().to_path_buf())? };
    let shown = demo.show(&image);
    if keep && shown.is_ok() {
        if let Some(pipe) = &mut guard.stdin {
            pipe.write_all(b"k").map_err(|error| Failure(format!("cannot tell the guard to leave: {error}")))?;
        }
        guard.wait().map_err(|error| Failure(format!("the guard is lost: {error}")))?;
        remember(demo.system.folder())?;
        demo.say_how_to_go_on(&programs);
        demo.system.leave();
        return Ok(());
    }
    if shown.is_ok() {
        demo.vmmc(&["destroy", "hello"])?;
    }
    println!("\n== cleaning up");
    drop(guard.stdin.take());
    let cleaned = guard.wait().map_err(|error| Failure(format!("the guard is lost: {error}")))?;
    demo.system.leave();
    shown?;
    if !cleaned.success() {
        return Err(Failure("not everything could be cleaned up".into()));
    }
    println!("== done: no process and no folder is left");
    Ok(())
}

/// Ends what a demo with `--keep` has left running.
pub(crate) fn stop() -> Done {
    let note = kept_note();
    let folder = fs::read_to_string(&note)
        .map_err(|_| Failure("no demo is running: `cargo xtask demo --keep` starts one".into()))?;
    system::clean(Path::new(folder.trim()))?;
    let _ = fs::remove_file(note);
    println!("== the demo is stopped, nothing is left");
    Ok(())
}

/// Where the folder of a demo that stays up is noted.
fn kept_note() -> PathBuf {
    crate::steps::target().join("demo-folder")
}

fn remember(folder: &Path) -> Done {
    let note = kept_note();
    fs::write(&note, folder.as_os_str().as_encoded_bytes())
        .map_err(|error| Failure(format!("cannot write {}: {error}", note.display())))
}

/// Says in a line each what this host cannot do; whether hvt images can run.
fn said_of_host() -> bool {
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    match &kvm {
        Ok(_) => println!("-- /dev/kvm can be used: the unikernel runs on the hvt tender"),
        Err(error) => println!("-- no /dev/kvm ({error}): the unikernel runs on the spt tender"),
    }
    if !nix::unistd::geteuid().is_root() {
        println!("-- not root: all processes run under your user, no unikernel gets a user of its own");
        println!("-- not root: no taps, so no network (this unikernel needs none)");
    }
    kvm.is_ok()
}

struct Demo {
    system: System,
}

impl Demo {
    fn show(&mut self, image: &Path) -> Done {
        println!("== starting vmmd, vmmd_console and vmmd_log in {}", self.system.folder().display());
        self.system.start_vmmd(&[])?;
        self.system.start_console()?;
        self.system.start_log(&[])?;
        // As short as a person would type it.
        let here = std::env::current_dir().unwrap_or_default();
        let image = image.strip_prefix(&here).unwrap_or(image).to_string_lossy();
        self.vmmc(&["create", "hello", &image, "--mem", "16"])?;
        self.follow_console()?;
        self.vmmc(&["info"])
    }

    /// Shows a command as a person would type it, and runs it.
    fn vmmc(&self, words: &[&str]) -> Done {
        println!("\n$ vmmc_local {}", words.join(" "));
        match self.system.client(words).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure(format!("vmmc_local {}: {status}", words.join(" ")))),
            Err(error) => Err(Failure(format!("cannot run vmmc_local: {error}"))),
        }
    }

    /// Follows the console until some lines have come.
    fn follow_console(&self) -> Done {
        println!("\n$ vmmc_local console hello");
        let mut command = self.system.client(&["console", "hello"]);
        let mut console = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure(format!("cannot run vmmc_local: {error}")))?;
        let output = console.stdout.take().ok_or_else(|| Failure("the console has no output".into()))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let shown = (0..CONSOLE_LINES).try_for_each(|_| match lines.recv_timeout(system::PATIENCE) {
            Ok(line) => {
                println!("{line}");
                Ok(())
            }
            Err(_) => Err(Failure("the unikernel said nothing on its console".into())),
        });
        let _ = console.kill();
        let _ = console.wait();
        shown?;
        println!("(and so on; the demo stops following here)");
        Ok(())
    }

    fn say_how_to_go_on(&self, programs: &Programs) {
        let client = programs.path("vmmc_local");
        let (client, run) = (client.display(), self.system.run());
        let run = run.display();
        println!("\nIt stays up. Try next:");
        println!("  {client} --run {run} console hello");
        println!("  {client} --run {run} info --json");
        println!("  cargo xtask demo --stop");
    }
}
