//! Which files a daemon can still reach, whoever owns them: its own folders, by Landlock, where the kernel has it.

use std::path::{Path, PathBuf};

use fulmar_host::debug;
use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};

use super::Program;

/// The newest rights that are taken away; a kernel that knows fewer takes those.
const KNOWN: ABI = ABI::V5;

/// What a program may reach.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reach {
    /// All but executing, below these.
    own: Vec<PathBuf>,
    /// Reading, of these and below.
    read: &'static [&'static str],
}

/// Each with what it opens after it has begun.
fn reach(program: Program, run: &Path, state: Option<&Path>) -> Reach {
    let read: &[&str] = match program {
        // What processes use.
        Program::Stats => &["/proc"],
        // Who is who, what is open, what cannot be guessed.
        Program::Control => &["/etc/passwd", "/proc", "/dev/urandom"],
        Program::Log => &["/dev/urandom"],
        Program::Tls | Program::Console | Program::Influx => &[],
    };
    let shared = ["util", "fifo"].map(|name| run.join(name));
    // An administrator may have put a link there.
    let blocks = state.filter(|_| program == Program::Control).map(|state| state.join("block"));
    Reach { own: shared.into_iter().chain(state.map(Path::to_owned)).chain(blocks).collect(), read }
}

/// From here on this process reaches no file but those of its run folder, of its part of the state folder and what it reads besides.
/// Called while there is one thread. Where the kernel has no Landlock it is only said so: its user is what holds it then.
pub fn enclose(program: Program, run: &Path, state: Option<&Path>) {
    match restrict(&reach(program, run, state)) {
        Ok(RulesetStatus::FullyEnforced) => debug!("Landlock: only own folders can be reached"),
        Ok(RulesetStatus::PartiallyEnforced) => {
            debug!("Landlock: only own folders can be reached, as far as this kernel knows")
        }
        Ok(RulesetStatus::NotEnforced) => debug!("Landlock: not in this kernel, files are held by users alone"),
        Err(error) => debug!("Landlock: not used, files are held by users alone: {error}"),
    }
}

fn restrict(reach: &Reach) -> Result<RulesetStatus, RulesetError> {
    let all: BitFlags<AccessFs> = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(&reach.own, all))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(reach.read, AccessFs::ReadFile | AccessFs::ReadDir))?;
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_is_reached_but_what_is_its_own() {
        let folder = fulmar_tests::system::make_folder("enclosure").unwrap();
        let (run, state) = (folder.join("run"), folder.join("state"));
        for made in [&run.join("util"), &state] {
            fs::create_dir_all(made).unwrap();
        }
        // It holds for the thread that asks for it.
        let enclosed = || {
            let status = restrict(&reach(Program::Stats, &run, Some(&state))).unwrap();
            let wrote = [&run.join("util/new"), &state.join("new")].map(|file| fs::write(file, "new").is_ok());
            assert_eq!((wrote, fs::read("/proc/self/stat").is_ok()), ([true; 2], true));
            if status == RulesetStatus::NotEnforced {
                return fulmar_tests::skips::skip(
                    "nothing_is_reached_but_what_is_its_own",
                    "no Landlock in this kernel",
                );
            }
            assert!(fs::write(run.join("new"), "new").is_err() && fs::write(folder.join("new"), "new").is_err());
            assert!(fs::read("/etc/passwd").is_err() && fs::write("/proc/self/comm", "new").is_err());
            assert!(std::process::Command::new("/bin/true").status().is_err());
        };
        std::thread::scope(|scope| scope.spawn(enclosed).join()).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn each_reaches_its_own_part() {
        let (run, state) = (Path::new("/run/x"), Path::new("/state"));
        let console = reach(Program::Console, run, None);
        assert_eq!(console, Reach { own: vec!["/run/x/util".into(), "/run/x/fifo".into()], read: &[] });
        let control = reach(Program::Control, run, Some(state));
        assert!(control.own.contains(&"/state".into()) && control.own.contains(&"/state/block".into()));
        assert_eq!(control.read, ["/etc/passwd", "/proc", "/dev/urandom"]);
    }
}
