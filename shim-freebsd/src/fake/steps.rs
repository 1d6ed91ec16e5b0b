//! A new process of the fake kernel: its fds are copies of ours under numbers of its own.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::FakeKernel;
use crate::abi::CPUSET_SIZE;
use crate::kernel::{AtExec, Steps};
use crate::spawn::{Failed, Pointers, Prepared};

/// One that takes its steps.
struct Child<'a> {
    kernel: &'a FakeKernel,
    fds: RefCell<BTreeMap<RawFd, (OwnedFd, AtExec)>>,
    /// What has been done, in its order.
    done: RefCell<Vec<&'static str>>,
}

impl FakeKernel {
    /// Runs the steps of a new process as if it had been given the word at once: what comes of it, and what it holds then.
    pub(super) fn run(
        &self,
        prepared: &Prepared<'_>,
        line: BorrowedFd<'_>,
    ) -> (Result<(), Failed>, BTreeMap<RawFd, OwnedFd>) {
        let child = Child { kernel: self, fds: RefCell::default(), done: RefCell::default() };
        let mut line_at = -1;
        let failed = prepared.take_steps(&child, line, &mut line_at);
        let executed = child.done.borrow().last() == Some(&"executed");
        if executed {
            let limits = ["limited"; 4];
            let expected = [&["anew", "closed", "pinned"][..], &limits, &["forbidden", "heard", "executed"]].concat();
            assert_eq!(*child.done.borrow(), expected);
        }
        let fds = child.fds.into_inner();
        let held = fds.into_iter().filter(|(_, (_, at_exec))| !executed || *at_exec == AtExec::Stays);
        let held = held.map(|(number, (fd, _))| (number, fd)).collect();
        (if executed { Ok(()) } else { Err(failed) }, held)
    }
}

impl Child<'_> {
    fn step(&self, what: &'static str) -> Result<(), Errno> {
        self.kernel.call()?;
        self.done.borrow_mut().push(what);
        Ok(())
    }
}

impl Steps for Child<'_> {
    fn begin_anew(&self) -> Result<(), Errno> {
        self.step("anew")
    }

    fn duplicate_above(&self, fd: BorrowedFd<'_>, least: RawFd) -> Result<RawFd, Errno> {
        self.kernel.call()?;
        let mut fds = self.fds.borrow_mut();
        let number = (least..).find(|number| !fds.contains_key(number)).unwrap();
        fds.insert(number, (fd.try_clone_to_owned().unwrap(), AtExec::Closes));
        Ok(number)
    }

    fn place(&self, from: RawFd, to: RawFd, at_exec: AtExec) -> Result<(), Errno> {
        self.kernel.call()?;
        assert_ne!(from, to, "a fd is not put where it is");
        let fd = self.fds.borrow().get(&from).ok_or(Errno::EBADF)?.0.try_clone().unwrap();
        self.fds.borrow_mut().insert(to, (fd, at_exec));
        Ok(())
    }

    fn close_from(&self, first: RawFd) -> Result<(), Errno> {
        self.step("closed")?;
        self.fds.borrow_mut().retain(|number, _| *number < first);
        Ok(())
    }

    fn pin(&self, cpus: &[u8]) -> Result<(), Errno> {
        assert!(cpus.len() == CPUSET_SIZE && cpus.iter().any(|byte| *byte != 0), "EDEADLK for no CPU at all");
        self.step("pinned")
    }

    fn limit(&self, _: i32, _: u64) -> Result<(), Errno> {
        self.step("limited")
    }

    fn forbid_privileges(&self) -> Result<(), Errno> {
        self.step("forbidden")
    }

    fn wait_for_word(&self, line: RawFd) -> Result<(), Errno> {
        assert!(self.fds.borrow().contains_key(&line), "the line is where it is said to be");
        self.step("heard")
    }

    fn execute(&self, program: RawFd, _: &Pointers<'_>, _: &Pointers<'_>) -> Errno {
        assert_eq!(self.fds.borrow()[&program].1, AtExec::Closes);
        self.step("executed").err().unwrap_or(Errno::UnknownErrno)
    }
}
