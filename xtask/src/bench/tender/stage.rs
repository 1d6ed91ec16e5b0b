//! The tenders of one kind, ours and perhaps the original, with the same images in one folder that every user can reach.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fulmar_tests::built::Kind;

use super::figures::Samples;
use crate::bench::Bench;
use crate::steps::{Done, Failure};

/// The images that are run.
const IMAGES: [&str; 5] = ["hello", "http", "echo", "block", "spin"];

/// An ordinary user.
const USER: u32 = 4711;

/// Whose tender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Ours,
    Original,
}

impl Side {
    /// A word for it, short enough for the name of a tap.
    pub(super) fn word(self) -> &'static str {
        match self {
            Side::Ours => "ours",
            Side::Original => "original",
        }
    }
}

/// What the tenders are started from.
pub(super) struct Stage {
    pub(super) kind: Kind,
    pub(super) folder: PathBuf,
    sides: Vec<Side>,
}

impl Stage {
    /// Copies the tenders, both under the original's name, and the images.
    pub(super) fn new(bench: &Bench, folder: &Path, kind: Kind) -> Done<Stage> {
        let variable = format!("SOLO5_{}", kind.name().to_uppercase());
        let mut stage = Stage { kind, folder: folder.to_path_buf(), sides: vec![Side::Ours] };
        stage.bring(&bench.programs.path("fulmar-tender"), &stage.program(Side::Ours))?;
        match std::env::var_os(&variable).filter(|path| !path.is_empty()) {
            Some(path) => {
                stage.bring(Path::new(&path), &stage.program(Side::Original))?;
                stage.sides.push(Side::Original);
            }
            None => println!("-- {variable} names no original tender: {} has nothing to compare with", kind.name()),
        }
        for name in IMAGES {
            stage.bring(&bench.guests.image(name, kind), &stage.image(name))?;
        }
        Ok(stage)
    }

    fn bring(&self, from: &Path, to: &Path) -> Done {
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::copy(from, to))
            .map(drop)
            .map_err(|error| Failure(format!("cannot copy {} to {}: {error}", from.display(), to.display())))
    }

    fn program(&self, side: Side) -> PathBuf {
        self.folder.join(side.word()).join(format!("solo5-{}", self.kind.name()))
    }

    /// The image of a unikernel.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.{}", self.kind.name()))
    }

    /// A tender with 16 MiB for its guest, whose console is a pipe.
    pub(super) fn command(&self, side: Side) -> Command {
        let mut command = Command::new(self.program(side));
        command.arg("--mem=16").stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    /// A tender with `hello` as `vmmd` starts it, who hands over the image and has a user for each; to be called in an empty
    /// network. The original takes a path.
    pub(super) fn command_of_vmmd(&self, side: Side, image: &File) -> Command {
        let mut command = self.command(side);
        command.uid(USER).gid(USER);
        match side {
            Side::Ours => command.arg(format!("@{}", image.as_raw_fd())),
            Side::Original => command.arg(self.image("hello")),
        };
        command
    }

    /// The sides that there are.
    pub(super) fn sides(&self) -> &[Side] {
        &self.sides
    }

    /// Measures so many pairs of `N` figures each; one side is first, then the other.
    pub(super) fn pairs<const N: usize>(
        &self,
        pairs: usize,
        mut measure: impl FnMut(Side) -> Done<[f64; N]>,
    ) -> Done<[Samples; N]> {
        let mut all = [const { Samples::NONE }; N];
        for pair in 0..pairs {
            let mut sides = self.sides.clone();
            if pair % 2 == 1 {
                sides.reverse();
            }
            for side in sides {
                for (samples, value) in all.iter_mut().zip(measure(side)?) {
                    samples.push(side, value);
                }
            }
        }
        Ok(all)
    }

    /// Starts a unikernel that ends with what this gives, or, should this process be killed, with its guard.
    pub(super) fn start(&self, command: &mut Command) -> Done<Running> {
        let child = command.spawn().map_err(|error| Failure(format!("cannot start {command:?}: {error}")))?;
        let running = Running(child);
        let pid = running.pid().to_string();
        let units = self.folder.join("run").join("units");
        fs::create_dir_all(&units)
            .and_then(|()| fs::write(units.join(&pid), &pid))
            .map_err(|error| Failure(format!("cannot note a process: {error}")))?;
        Ok(running)
    }

    /// All that a unikernel says until it ends well.
    pub(super) fn said(&self, command: &mut Command) -> Done<String> {
        let mut running = self.start(command)?;
        let said = running.console_until(None)?;
        match running.0.wait() {
            Ok(status) if status.success() => Ok(said),
            Ok(status) => Err(Failure(format!("{command:?} ended with {status}: {said}"))),
            Err(error) => Err(Failure(format!("{command:?} is lost: {error}"))),
        }
    }
}

/// A unikernel that runs.
pub(super) struct Running(Child);

impl Running {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until it has said this.
    pub(super) fn await_console(&mut self, wanted: &str) -> Done {
        self.console_until(Some(wanted)).map(drop)
    }

    fn console_until(&mut self, wanted: Option<&str>) -> Done<String> {
        let mut text = String::new();
        let Some(console) = &mut self.0.stdout else { return Ok(text) };
        let mut bytes = [0; 512];
        while wanted.is_none_or(|wanted| !text.contains(wanted)) {
            let len = console.read(&mut bytes).map_err(|error| Failure(format!("cannot read a console: {error}")))?;
            text.push_str(&String::from_utf8_lossy(&bytes[..len]));
            if len == 0 {
                return match wanted {
                    Some(wanted) => Err(Failure(format!("a console ended without `{wanted}`: {text}"))),
                    None => Ok(text),
                };
            }
        }
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number between two texts of a console.
pub(super) fn number(said: &str, before: &str, behind: &str) -> Done<u64> {
    let mut found = said.lines().filter_map(|line| line.strip_prefix(before)?.split_once(behind)?.0.parse().ok());
    found.next().ok_or_else(|| Failure(format!("no number between `{before}` and `{behind}`: {said}")))
}

/// Opens a file that a child is to find under the same number.
pub(super) fn open_to_hand_over(path: &Path) -> Done<File> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let file = File::open(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|error| Failure(format!("cannot hand over: {error}")))?;
    Ok(file)
}
