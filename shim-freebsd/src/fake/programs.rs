//! What the programs of the fake kernel do when they begin: Solo5's tender, bhyve, and what loads kernels for it.

use super::{Device, FakeKernel};

/// What comes of loading the kernel of a virtual machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loads {
    /// It is loaded.
    Well,
    /// There is none, and what was to load it says so.
    Fails,
    /// It is waited for for ever.
    Never,
}

impl FakeKernel {
    /// Lets what loads kernels do this from now on.
    pub(crate) fn load(&self, loads: Loads) {
        self.state_mut().loads = loads;
    }

    /// The command line of a process.
    pub(crate) fn line_of(&self, pid: i32) -> String {
        self.state().processes[&pid].line.join(" ")
    }

    /// What a program does first.
    pub(super) fn execute(&self, pid: i32) {
        let line = self.state().processes[&pid].line.clone();
        let (called, last) = (line.first().unwrap().as_str(), line.last().unwrap().as_str());
        match called {
            "bhyveload" | "grub-bhyve" => {
                self.make_machine(last);
                let loads = self.state().loads;
                match loads {
                    Loads::Well => self.end(pid, 0),
                    Loads::Fails => self.end(pid, 1 << 8),
                    Loads::Never => {}
                }
            }
            "bhyve" => {
                assert!(self.state().machines.contains(last), "it was loaded before");
                let mut state = self.state_mut();
                for word in &line {
                    let Some(tap) = word.split(',').nth(2).filter(|tap| tap.starts_with("vmmtap")) else { continue };
                    let unit = state.taps.iter().find(|(_, name)| *name == tap).map(|(unit, _)| *unit).unwrap();
                    assert!(!state.is_held(unit), "only one can open it");
                    let fd = state.open(Device::Tap(unit)).unwrap();
                    let process = state.processes.get_mut(&pid).unwrap();
                    let number = 1000 + i32::try_from(process.fds.len()).unwrap();
                    process.fds.insert(number, fd);
                }
                state.processes.get_mut(&pid).unwrap().is_tender = true;
            }
            _ => {
                self.state_mut().processes.get_mut(&pid).unwrap().is_tender = true;
                self.make_machine(&crate::vmm::name_of(pid));
            }
        }
    }
}
