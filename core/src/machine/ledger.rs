//! Who may use what, and who uses it: the policies by path, each with the use of all that lies below it.
//!
//! The one law: for every path, what is charged below it is within its policy. It holds because a charge and a policy
//! are checked against every ancestor up to the root policy, which is what the host has. While a change of a policy is
//! being made durable both the old and the new one are in force.

use super::refused::{NotAdmitted, PolicyRefused, Refused};
use super::table::{Named, Table};
use crate::limits::{TAPS_MAX, TAPS_PER_MB, TENDER_MEMORY_MB, TENDER_TABLES_DIVISOR};
use crate::name::Name;
use crate::policy::{Bridge, CpuSet, Policy};

/// What is charged below a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Usage {
    /// Number of unikernels.
    pub unikernels: u64,
    /// Their memory, MiB.
    pub memory_mb: u64,
    /// Block devices, used or not, MiB.
    pub block_mb: u64,
    /// Their networks, each of which is a tap.
    pub networks: u64,
}

impl Usage {
    /// With another one.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            unikernels: self.unikernels.saturating_add(other.unikernels),
            memory_mb: self.memory_mb.saturating_add(other.memory_mb),
            block_mb: self.block_mb.saturating_add(other.block_mb),
            networks: self.networks.saturating_add(other.networks),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            unikernels: self.unikernels.saturating_sub(other.unikernels),
            memory_mb: self.memory_mb.saturating_sub(other.memory_mb),
            block_mb: self.block_mb.saturating_sub(other.block_mb),
            networks: self.networks.saturating_sub(other.networks),
        }
    }

    /// Memory that the host has to have for it, MiB: of the guests, of their tenders and of the kernel. It is counted for all
    /// together, so that nothing is lost or gained by rounding when one goes.
    #[must_use]
    pub fn host_memory_mb(self) -> u64 {
        let tenders = self.unikernels.saturating_mul(TENDER_MEMORY_MB);
        let kernel = self.memory_mb.div_ceil(TENDER_TABLES_DIVISOR).saturating_add(self.networks.div_ceil(TAPS_PER_MB));
        self.memory_mb.saturating_add(tenders).saturating_add(kernel)
    }
}

/// What one unikernel is charged for.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// Guest memory, MiB.
    pub memory_mb: u64,
    /// The CPUs it may run on.
    pub cpus: &'a CpuSet,
    /// The bridges of its network devices.
    pub bridges: &'a [Bridge],
}

/// A change of a policy that is not yet durable.
#[derive(Clone, PartialEq, Eq, Hash)]
#[repr(u8)] // a tag of its own, 0 for the first: see `Machine::new`
#[expect(clippy::large_enum_variant, reason = "it lives in its account's slot; boxes need alloc")]
pub enum Pending {
    /// No change.
    None,
    /// This policy is to stand here.
    Set(Policy),
    /// The policy is to go.
    Remove,
}

/// A path with a policy, or with one on its way.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Account {
    path: Name,
    /// Whether `policy` is in force; not before the first one is durable.
    settled: bool,
    policy: Policy,
    pending: Pending,
    used: Usage,
}

impl Named for Account {
    const EMPTY: Self = Self {
        path: Name::EMPTY,
        settled: false,
        policy: Policy::NOTHING,
        pending: Pending::None,
        used: Usage { unikernels: 0, memory_mb: 0, block_mb: 0, networks: 0 },
    };

    fn name(&self) -> &Name {
        &self.path
    }
}

impl Account {
    /// The path.
    pub fn path(&self) -> &Name {
        &self.path
    }

    /// The durable policy, if there is one.
    pub fn policy(&self) -> Option<&Policy> {
        self.settled.then_some(&self.policy)
    }

    /// What is being made durable.
    pub fn pending(&self) -> &Pending {
        &self.pending
    }

    /// What is charged below the path.
    pub fn used(&self) -> Usage {
        self.used
    }

    /// The policies that are in force: the durable one and the one that is on its way.
    pub fn in_force(&self) -> impl Iterator<Item = &Policy> {
        let coming = match &self.pending {
            Pending::Set(policy) => Some(policy),
            Pending::None | Pending::Remove => None,
        };
        self.policy().into_iter().chain(coming)
    }

    /// What counts of this memory towards the policy: at the root policy, which is the host's, all that the host has to have.
    #[must_use]
    pub fn memory_mb_of(&self, usage: Usage) -> u64 {
        if self.path.is_root() { usage.host_memory_mb() } else { usage.memory_mb }
    }

    fn admit(&self, charge: &Charge<'_>) -> Result<(), Refused> {
        let networks = u64::try_from(charge.bridges.len()).unwrap_or(u64::MAX);
        let asked = Usage { unikernels: 1, memory_mb: charge.memory_mb, block_mb: 0, networks };
        let (used_mb, coming_mb) = (self.memory_mb_of(self.used), self.memory_mb_of(self.used.plus(asked)));
        for policy in self.in_force() {
            if self.used.unikernels >= policy.unikernels {
                return Err(Refused::Unikernels { allowed: policy.unikernels });
            }
            if coming_mb > policy.memory_mb {
                let (allowed_mb, asked_mb) = (policy.memory_mb, coming_mb.saturating_sub(used_mb));
                return Err(Refused::Memory { allowed_mb, used_mb, asked_mb });
            }
            if let Some(cpu) = charge.cpus.first_outside(&policy.cpus) {
                return Err(if self.path.is_root() { Refused::HostCpu(cpu) } else { Refused::Cpu(cpu) });
            }
            if let Some(bridge) = charge.bridges.iter().find(|bridge| !policy.bridges.has(bridge)) {
                let bridge = *bridge;
                return Err(if self.path.is_root() { Refused::HostBridge(bridge) } else { Refused::Bridge(bridge) });
            }
        }
        if self.path.is_root() && networks > TAPS_MAX.saturating_sub(self.used.networks) {
            return Err(Refused::HostTaps { used: self.used.networks, asked: networks });
        }
        Ok(())
    }

    fn admit_block(&self, asked_mb: u64) -> Result<(), Refused> {
        for policy in self.in_force() {
            let Some(allowed_mb) = policy.block_mb else { return Err(Refused::NoBlocks) };
            let used_mb = self.used.block_mb;
            if asked_mb > allowed_mb.saturating_sub(used_mb) {
                return Err(Refused::Blocks { allowed_mb, used_mb, asked_mb });
            }
        }
        Ok(())
    }
}

/// What runs below a path, in sum: what a new policy there must allow.
#[derive(Clone, Debug)]
pub struct Below {
    /// Number, memory and block storage.
    pub used: Usage,
    /// All CPUs in use.
    pub cpus: CpuSet,
    /// A bridge in use that the new policy lacks.
    pub foreign_bridge: Option<Bridge>,
}

/// The policies and their use.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ledger<const P: usize> {
    accounts: Table<Account, P>,
}

impl<const P: usize> Ledger<P> {
    /// Without any policy: nothing is admitted before the root policy is known.
    pub(super) const fn new() -> Self {
        Self { accounts: Table::new() }
    }

    /// Sets the root policy: what the host has now. What runs already stays, even where the host has shrunk.
    pub fn set_root(&mut self, policy: Policy) {
        if let Some(root) = self.accounts.find(&Name::ROOT).and_then(|slot| self.accounts.get_mut(slot)) {
            root.policy = policy;
        } else {
            // There is room: `restore` leaves it.
            let _ = self.accounts.insert(Account { path: Name::ROOT, settled: true, policy, ..Account::EMPTY });
        }
    }

    /// The root policy.
    pub fn root(&self) -> Option<&Policy> {
        self.account_at(&Name::ROOT)?.policy()
    }

    /// The account in a slot.
    pub fn account(&self, slot: u16) -> Option<&Account> {
        self.accounts.get(slot).filter(|account| *account.path() != Name::EMPTY)
    }

    /// The account at exactly this path.
    pub fn account_at(&self, path: &Name) -> Option<&Account> {
        self.accounts.get(self.accounts.find(path)?)
    }

    /// All accounts with their slots, in the order of listings.
    pub fn slots(&self) -> impl Iterator<Item = (u16, &Account)> {
        self.accounts.iter()
    }

    /// The accounts with their slots.
    pub(super) fn table(&self) -> &Table<Account, P> {
        &self.accounts
    }

    /// The accounts at `path` and below it, in the order of listings.
    pub fn listing(&self, path: &Name) -> impl DoubleEndedIterator<Item = &Account> {
        self.accounts.below(path).iter().filter_map(|slot| self.accounts.get(*slot))
    }

    /// Whether all ancestors of `name` allow this charge.
    ///
    /// # Errors
    /// The first refusal, from the path upwards.
    pub fn admit(&self, name: &Name, charge: &Charge<'_>) -> Result<(), NotAdmitted> {
        if self.root().is_none() {
            return Err(NotAdmitted { refused: Refused::Unikernels { allowed: 0 }, above: u8::MAX });
        }
        self.ask_ancestors(name, |account| account.admit(charge))
    }

    /// Whether all ancestors of `name` allow a block device of this size.
    ///
    /// # Errors
    /// The first refusal, from the path upwards.
    pub fn admit_block(&self, name: &Name, size_mb: u64) -> Result<(), NotAdmitted> {
        if self.root().is_none() {
            return Err(NotAdmitted { refused: Refused::NoBlocks, above: u8::MAX });
        }
        self.ask_ancestors(name, |account| account.admit_block(size_mb))
    }

    fn ask_ancestors(&self, name: &Name, ask: impl Fn(&Account) -> Result<(), Refused>) -> Result<(), NotAdmitted> {
        // A path has fewer labels than a name has bytes.
        for (above, path) in (0..=u8::MAX).zip(name.ancestors()) {
            if let Some(account) = self.account_at(&path) {
                ask(account).map_err(|refused| NotAdmitted { refused, above })?;
            }
        }
        Ok(())
    }

    /// Charges this to all ancestors of `name`.
    pub fn charge(&mut self, name: &Name, usage: Usage) {
        self.change(name, |account| account.used = account.used.plus(usage));
    }

    /// Takes back what [`Ledger::charge`] did.
    pub fn release(&mut self, name: &Name, usage: Usage) {
        self.change(name, |account| account.used = account.used.minus(usage));
    }

    /// Charges a block device to all ancestors of `name`.
    pub fn charge_block(&mut self, name: &Name, size_mb: u64) {
        self.change(name, |account| account.used.block_mb = account.used.block_mb.saturating_add(size_mb));
    }

    /// Takes back what [`Ledger::charge_block`] did.
    pub fn release_block(&mut self, name: &Name, size_mb: u64) {
        self.change(name, |account| account.used.block_mb = account.used.block_mb.saturating_sub(size_mb));
    }

    fn change(&mut self, name: &Name, apply: impl Fn(&mut Account)) {
        for path in name.ancestors() {
            if let Some(account) = self.accounts.find(&path).and_then(|slot| self.accounts.get_mut(slot)) {
                apply(account);
            }
        }
    }

    /// Whether `policy` may stand at `path`, below which `below` runs.
    ///
    /// # Errors
    /// What stands against it.
    pub fn check(&self, path: &Name, policy: &Policy, below: &Below) -> Result<(), PolicyRefused> {
        self.check_above(path, policy)?;
        self.check_below(path, policy, below, |_| false)
    }

    /// Whether the policies above `path` contain this one.
    ///
    /// # Errors
    /// [`PolicyRefused::Above`].
    pub fn check_above(&self, path: &Name, policy: &Policy) -> Result<(), PolicyRefused> {
        for above in path.ancestors().skip(1).filter_map(|path| self.account_at(&path)) {
            above.in_force().try_for_each(|above| above.contains(policy)).map_err(PolicyRefused::Above)?;
        }
        Ok(())
    }

    /// Whether this policy contains those below `path`, but for some that are looked at elsewhere, and what runs there.
    ///
    /// # Errors
    /// What stands against it.
    pub fn check_below(
        &self,
        path: &Name,
        policy: &Policy,
        below: &Below,
        is_elsewhere: impl Fn(&Name) -> bool,
    ) -> Result<(), PolicyRefused> {
        for slot in self.accounts.below(path) {
            let Some(account) = self.accounts.get(*slot) else { continue };
            if account.path != *path && !is_elsewhere(&account.path) {
                account.in_force().try_for_each(|sub| policy.contains(sub)).map_err(PolicyRefused::Below)?;
            }
        }
        let (running, allowed) = (below.used.unikernels, policy.unikernels);
        if running > allowed {
            return Err(PolicyRefused::RunningUnikernels { running, allowed });
        }
        let (used_mb, allowed_mb) = (below.used.memory_mb, policy.memory_mb);
        if used_mb > allowed_mb {
            return Err(PolicyRefused::RunningMemory { used_mb, allowed_mb });
        }
        if let Some(cpu) = below.cpus.first_outside(&policy.cpus) {
            return Err(PolicyRefused::RunningCpu(cpu));
        }
        if let Some(bridge) = below.foreign_bridge {
            return Err(PolicyRefused::RunningBridge(bridge));
        }
        let (used_mb, allowed_mb) = (below.used.block_mb, policy.block_mb);
        if used_mb > allowed_mb.unwrap_or(0) {
            return Err(PolicyRefused::RunningBlocks { used_mb, allowed_mb });
        }
        Ok(())
    }

    /// For how many more paths there is room.
    pub fn room(&self) -> usize {
        P.saturating_sub(self.accounts.len())
    }

    /// Takes in a policy that is durable already.
    ///
    /// # Errors
    /// [`PolicyRefused::Full`].
    pub fn restore(&mut self, path: Name, policy: Policy) -> Result<(), PolicyRefused> {
        self.forget(&path);
        if self.root().is_none() && self.accounts.len().saturating_add(1) >= P {
            return Err(PolicyRefused::Full);
        }
        let account = Account { path, settled: true, policy, ..Account::EMPTY };
        self.accounts.insert(account).map(|_| ()).map_err(|_| PolicyRefused::Full)
    }

    /// Takes back [`Ledger::restore`].
    pub fn forget(&mut self, path: &Name) {
        if let Some(slot) = self.accounts.find(path) {
            self.accounts.remove(slot);
        }
    }

    /// Begins to set a checked policy: it is in force from now on, beside the one that it replaces.
    ///
    /// # Errors
    /// [`PolicyRefused::Full`], [`PolicyRefused::Busy`].
    pub fn begin_set(&mut self, path: &Name, policy: Policy, used: Usage) -> Result<u16, PolicyRefused> {
        let slot = match self.accounts.find(path) {
            Some(slot) => slot,
            None => {
                let account = Account { path: *path, used, ..Account::EMPTY };
                self.accounts.insert(account).map_err(|_| PolicyRefused::Full)?
            }
        };
        match self.accounts.get_mut(slot) {
            Some(account) if matches!(account.pending, Pending::None) => {
                account.pending = Pending::Set(policy);
                Ok(slot)
            }
            _ => Err(PolicyRefused::Busy),
        }
    }

    /// Begins to remove the policy at `path`: it stays in force until that is durable.
    ///
    /// # Errors
    /// [`PolicyRefused::Unknown`], [`PolicyRefused::Busy`].
    pub fn begin_remove(&mut self, path: &Name) -> Result<u16, PolicyRefused> {
        let slot = self.accounts.find(path).ok_or(PolicyRefused::Unknown)?;
        match self.accounts.get_mut(slot) {
            Some(account) if !matches!(account.pending, Pending::None) => Err(PolicyRefused::Busy),
            Some(account) if account.settled => {
                account.pending = Pending::Remove;
                Ok(slot)
            }
            _ => Err(PolicyRefused::Unknown),
        }
    }

    /// Ends a change: it is durable, or it has failed and the policy is what it was.
    pub fn end(&mut self, slot: u16, durable: bool) {
        let Some(account) = self.accounts.get_mut(slot) else { return };
        match (core::mem::replace(&mut account.pending, Pending::None), durable) {
            (Pending::Set(policy), true) => {
                account.policy = policy;
                account.settled = true;
            }
            (Pending::Remove, true) => account.settled = false,
            _ => {}
        }
        if !account.settled {
            self.accounts.remove(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_of_all_together_end_where_the_host_has_no_more() {
        let mut ledger = Ledger::<4>::new();
        let bridge = Bridge::new(b"b").unwrap();
        let (mut bridges, cpus) = (crate::policy::Bridges::EMPTY, CpuSet::first(1));
        bridges.insert(bridge).unwrap();
        let most = u64::MAX;
        ledger.set_root(Policy { unikernels: most, cpus, memory_mb: most, block_mb: None, bridges });
        let (name, other) = (Name::parse("tenant:web").unwrap(), Name::parse("web").unwrap());
        let ask = |ledger: &Ledger<4>, name: &Name, networks: usize| {
            let bridges = [bridge; 3];
            ledger.admit(name, &Charge { memory_mb: 1, cpus: &cpus, bridges: bridges.get(..networks).unwrap() })
        };
        let usage = |networks| Usage { unikernels: 1, memory_mb: 1, block_mb: 0, networks };
        ledger.charge(&name, usage(TAPS_MAX - 2));
        for asked in [&name, &other] {
            assert_eq!(ask(&ledger, asked, 2), Ok(()));
            let refused = Refused::HostTaps { used: TAPS_MAX - 2, asked: 3 };
            assert_eq!(ask(&ledger, asked, 3).unwrap_err().refused, refused);
        }
        ledger.charge(&other, usage(2));
        assert!(ask(&ledger, &name, 1).is_err() && ask(&ledger, &name, 0).is_ok());
        ledger.release(&other, usage(2));
        assert_eq!(ask(&ledger, &name, 2), Ok(()));
    }
}
