//! What a daemon may ask of the kernel once it has begun: a table of calls with a reason each, of which whatever is not in it ends the
//! process; and what it reaches by these calls. A daemon that was taken over can do no more than this with what its user may do
//! anyway: it starts no program, connects to no other host, looks into no other process.

mod enclosure;
mod tables;

use std::collections::BTreeMap;
use std::fmt;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

pub use self::enclosure::{Enclosure, enclose};
pub use self::tables::rows;

/// A program that has a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `vmmd_tls` and `vmmd_tls_inetd`.
    Tls,
    /// `vmmd_console`.
    Console,
    /// `vmmd_log`.
    Log,
    /// `vmmd_stats`.
    Stats,
    /// `vmmd_influx`.
    Influx,
    /// The half of `vmmd` that decides.
    Control,
}

/// One row of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The number of the call on this machine.
    pub call: libc::c_long,
    /// The place and the value of an argument, where only one is allowed.
    pub argument: Option<(u8, u64)>,
    /// Why the program cannot do without it.
    pub why: &'static str,
    /// Why no test can be sure to see it, where that is so.
    pub unseen: Option<Unseen>,
}

/// Why no test can be sure to see a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unseen {
    /// Which call brings memory, the allocator chooses by what it has.
    Memory,
    /// It depends on which of two threads is faster.
    Race,
    /// Other versions of the C library make it, in the place of another row.
    Library,
    /// Modules of the C library make it, ways to look up names that only some systems have.
    Module,
    /// The kernel is asked only on machines without a clock that programs can read.
    Kernel,
    /// Only builds with debug assertions make it.
    Build,
}

/// Why a program could not be confined, with what the kernel says.
#[derive(Debug)]
pub enum NotConfined {
    /// To the calls of its table.
    Calls(String),
    /// To what it reaches, although the kernel has Landlock.
    Reach(String),
}

impl fmt::Display for NotConfined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calls(said) => write!(
                f,
                "the program could not be confined by seccomp ({said}): run a kernel with CONFIG_SECCOMP_FILTER"
            ),
            Self::Reach(said) => write!(
                f,
                "the program could not be enclosed by Landlock ({said}): start it where landlock_add_rule and \
                 landlock_restrict_self are allowed, in fewer than 16 layers of Landlock"
            ),
        }
    }
}

impl std::error::Error for NotConfined {}

/// Confines this process, with all of its threads, for ever to what the table of `program` allows. It can gain no privilege afterwards.
///
/// # Errors
/// [`NotConfined::Calls`].
pub fn confine(program: Program) -> Result<(), NotConfined> {
    let said = |error: &dyn fmt::Display| NotConfined::Calls(error.to_string());
    let mut rules = BTreeMap::new();
    for row in rows(program) {
        let rules: &mut Vec<SeccompRule> = rules.entry(row.call).or_default();
        if let Some((place, value)) = row.argument {
            let is = SeccompCondition::new(place, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
            let rule = is.and_then(|is| SeccompRule::new(vec![is])).map_err(|error| said(&error))?;
            rules.push(rule);
        }
    }
    let machine = std::env::consts::ARCH.try_into().map_err(|error: seccompiler::BackendError| said(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, machine);
    let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| said(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| said(&error))
}
