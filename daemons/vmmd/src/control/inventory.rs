//! What there is of the host and what of it is used, for whoever asks: most is known here, the rest is asked of the machine and of
//! the host half. Nothing is decided by it.

use fulmar_core::halves::Abilities;
use fulmar_core::limits::{
    CONNECTIONS_MAX, CONNECTIONS_PER_USER_MAX, EVENTS_WAITING_BYTES_MAX, IMAGES_BYTES_MAX, SPOOL_BYTES_MAX, UNITS_MAX,
    WIRE_INT_MAX,
};
use fulmar_core::machine::HOST_USES;
use fulmar_core::policy::Bridge;
use fulmar_core::wire::{self, Fact, HostInfo, List, Message, Payload, Success, Text, Use};
use fulmar_host::disk::Folder;
use fulmar_host::error;
use fulmar_host::files;

use super::Control;
use super::connections::Stage;
use super::host::Asking;

/// What is told beside what the machine knows.
const OWN_USES: usize = 11;

impl Control<'_> {
    /// A client asks about the host. The answer waits for that of the host half.
    pub(super) fn ask_about_host(&mut self, index: u16) {
        let serial = self.connections.get(index).serial;
        // As many as there are connections can ask.
        let _ = self.askers.push((index, serial));
        if self.askers.len() == 1 {
            self.ask(Asking::Files);
        }
    }

    /// Answers all who asked about the host, whose other half has so many files open and may have so many.
    pub(super) fn tell_of_host(&mut self, open: u64, limit: u64) {
        for (index, serial) in std::mem::take(&mut self.askers) {
            let connection = self.connections.get(index);
            if connection.serial == serial && connection.stream.is_some() && connection.stage == Stage::Waiting {
                self.tell_one_of_host(index, open, limit);
                self.connections.wake(index);
            }
        }
    }

    fn tell_one_of_host(&mut self, index: u16, open: u64, limit: u64) {
        let Some(header) = self.machine.reply_header(index) else { return };
        let mut uses = heapless::Vec::<Use<'_>, { HOST_USES + OWN_USES }>::new();
        uses.extend(self.machine.uses_of_host());
        uses.extend(self.own_uses(index));
        uses.extend([
            entry("host-half-files", open, limit),
            entry("control-half-files", files::count_open(), files::limit()),
        ]);
        let facts = facts(&self.abilities);
        let cpus: Vec<i64> = self.root.cpus.iter().collect();
        let bridges: Vec<&str> = self.root.bridges.as_slice().iter().map(Bridge::as_str).collect();
        let host = HostInfo {
            version: Text(env!("CARGO_PKG_VERSION").as_bytes()),
            cpuids: List::Items(&cpus),
            bridges: List::Items(&bridges),
            uses: List::Items(&uses),
            facts: List::Items(&facts),
        };
        let message = Message { header, payload: Payload::Success(Success::Host(host)) };
        let buffer_bytes = self.connections.reply.len();
        match wire::encode_frame(&message, &mut self.connections.reply) {
            Ok(frame) => {
                let begin = buffer_bytes - frame.len();
                self.connections.get(index).keep = false;
                self.send(index, begin);
            }
            Err(error) => {
                error!("{error}");
                self.give_up(index);
            }
        }
    }

    fn own_uses(&mut self, index: u16) -> [Use<'static>; OWN_USES - 2] {
        let (journal, journal_max) = self.worker.journal_bytes();
        let fifos = self.console.fifos.count();
        let space = self.images.space().unwrap_or_default();
        let uid = self.uid_of(index);
        [
            entry("fifos", fifos, UNITS_MAX as u64),
            entry("image-bytes", self.spools.kept_bytes(), IMAGES_BYTES_MAX),
            entry("spool-bytes", self.spools.bytes(), SPOOL_BYTES_MAX),
            entry("journal-bytes", journal, journal_max),
            entry("disk-bytes", space.bytes - space.free_bytes, space.bytes),
            entry("event-bytes", self.log_link.waiting_bytes(), EVENTS_WAITING_BYTES_MAX as u64),
            // None should be.
            entry("events-lost", self.log_link.lost_in_all(), 0),
            entry("connections", self.connections.count() as u64, CONNECTIONS_MAX as u64),
            entry("connections-of-user", self.connections.count_of(uid) as u64, CONNECTIONS_PER_USER_MAX as u64),
        ]
    }
}

fn entry(what: &'static str, used: u64, limit: u64) -> Use<'static> {
    let number = |value: u64| i64::try_from(value).unwrap_or(WIRE_INT_MAX).min(WIRE_INT_MAX);
    Use { what: Text(what.as_bytes()), used: number(used), limit: number(limit) }
}

/// What bounds the memory of each tender, and what its processes.
pub(super) fn bounds(abilities: &Abilities) -> (&'static str, &'static str) {
    let memory = if abilities.memory_cgroup { "cgroup" } else { "address space" };
    let processes = match (abilities.pids_cgroup, abilities.accounts, abilities.solo5) {
        (true, ..) => "cgroup",
        (false, true, _) => "account",
        (false, false, false) => "filter of system calls",
        // It is root, in capability mode.
        (false, false, true) => "nothing",
    };
    (memory, processes)
}

/// What cannot be done on this host, and why.
pub(super) fn lacks(abilities: &Abilities) -> impl Iterator<Item = &'static str> {
    let Abilities { accounts, taps, kvm, tender, solo5, bhyve, .. } = *abilities;
    let no_tender = match bhyve {
        Some(_) => "no solo5-hvt was found (--tender names one): images cannot run, virtual machines of bhyve can",
        None => "the tender program was not found: nothing can be launched",
    };
    let (no_kvm, no_accounts) = match solo5 {
        true => (
            "the kernel has no module vmm: nothing can be launched; load it (kldload vmm)",
            "all tenders run as root, who alone may make virtual machines, until they enter capability mode",
        ),
        false => (
            "/dev/kvm cannot be opened: hvt images cannot run, spt images can",
            "no privilege to change users, or those from --tender-uid-base on are not mapped here: \
             all tenders run under one account, without capabilities",
        ),
    };
    let needs = [
        (tender, no_tender),
        (kvm, no_kvm),
        (taps, "taps cannot be made: unikernels with networks cannot run"),
        (accounts, no_accounts),
    ];
    needs.into_iter().filter(|(has, _)| !has).map(|(_, what)| what)
}

/// What can be had on this host, and what bounds a tender.
fn facts(abilities: &Abilities) -> [Fact<'static>; 6] {
    let Abilities { accounts, taps, kvm, tender, .. } = *abilities;
    let yes = |is: bool| if is { "yes" } else { "no" };
    let (memory, processes) = bounds(abilities);
    [
        ("tender", yes(tender)),
        ("kvm", yes(kvm)),
        ("taps", yes(taps)),
        ("accounts", yes(accounts)),
        ("memory-bound", memory),
        ("processes-bound", processes),
    ]
    .map(|(what, how)| Fact { what: what.into(), how: how.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_is_no_more_than_what_lacks() {
        let all = Abilities {
            accounts: true,
            taps: true,
            kvm: true,
            tender: true,
            solo5: true,
            memory_cgroup: false,
            pids_cgroup: false,
            bhyve: Some(7),
        };
        let said = |abilities| lacks(&abilities).collect::<Vec<_>>();
        assert!(said(all).is_empty());
        let no_tender = Abilities { tender: false, ..all };
        assert_eq!(
            said(no_tender),
            ["no solo5-hvt was found (--tender names one): images cannot run, virtual machines of bhyve can"]
        );
        let nothing = Abilities { bhyve: None, ..no_tender };
        assert_eq!(said(nothing), ["the tender program was not found: nothing can be launched"]);
        // There is no bhyve without it.
        let no_vmm = said(Abilities { kvm: false, bhyve: None, ..all });
        assert_eq!(no_vmm, ["the kernel has no module vmm: nothing can be launched; load it (kldload vmm)"]);
        let no_kvm = said(Abilities { kvm: false, solo5: false, bhyve: None, ..all });
        assert_eq!(no_kvm, ["/dev/kvm cannot be opened: hvt images cannot run, spt images can"]);
        assert_eq!(said(Abilities { taps: false, accounts: false, ..all }).len(), 2);
    }
}
