//! Hypercalls and rings made of bytes that nobody has looked at, over a real memory with a real disk and a real network.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering::Relaxed;

use super::calls::{Answer, Host};
use super::end::Trap;
use super::ring::{self, Ring};
use crate::device::{Attachment, Device, Devices};
use crate::memory::{Access, Memory, Protection};
use crate::waiting::Waiting;

const MIB: u64 = 1 << 20;
/// The guest's own memory.
const MEMORY_BYTES: u64 = 2 * MIB;
/// The part of it that is read-only.
const READ_ONLY: std::ops::Range<u64> = MIB..MIB + 8192;
const SECTOR_BYTES: u16 = 512;
const SECTORS: u64 = 8;
/// Longer waits are left out.
const WAIT_NS_MAX: u64 = 1000;
/// What stands where nothing of the guest's may write.
const CANARY: u8 = 0xa5;

/// A network, a disk, and whatever the network's other end is to keep open.
fn devices() -> Option<(Devices, UnixDatagram)> {
    let (ours, theirs) = UnixDatagram::pair().ok()?;
    ours.set_nonblocking(true).ok()?;
    theirs.set_nonblocking(true).ok()?;
    theirs.send(b"a frame that has come").ok()?;
    let mut file = std::env::temp_dir();
    file.push(format!("fulmar-fuzz-{}", std::process::id()));
    let mut disk = File::options().read(true).write(true).create(true).truncate(true).open(&file).ok()?;
    std::fs::remove_file(&file).ok()?;
    let capacity_bytes = SECTORS * u64::from(SECTOR_BYTES);
    disk.seek(SeekFrom::Start(capacity_bytes - 1)).ok()?;
    disk.write_all(&[0]).ok()?;
    let net = Attachment::Net { fd: OwnedFd::from(ours), mac: [2; 6], mtu: 1500 };
    let block = Attachment::Block { file: disk, capacity_bytes, sector_bytes: SECTOR_BYTES };
    let named = |(name, attachment): (&str, _)| Device { name: name.to_owned(), attachment };
    Some((Devices { list: [("n", net), ("b", block)].map(named).into() }, theirs))
}

/// What all runs of a fuzzer share: to make it takes longer than a run.
struct Scene {
    memory: Memory,
    devices: Devices,
    waiting: Waiting,
    canary: Vec<u8>,
    _peer: UnixDatagram,
}

thread_local! {
    static SCENE: RefCell<Option<Scene>> = RefCell::new(scene());
}

fn scene() -> Option<Scene> {
    let (devices, peer) = devices()?;
    let waiting = Waiting::new(&devices).ok()?;
    let canary = vec![CANARY; READ_ONLY.end as usize];
    Some(Scene { memory: memory()?, devices, waiting, canary, _peer: peer })
}

/// Calls `work` with a scene whose guest has just begun, and looks afterwards whether it has kept to its own.
fn with_scene(work: impl FnOnce(&Scene)) {
    SCENE.with_borrow_mut(|scene| {
        let Some(scene) = scene else { return };
        if let Ok(own) = scene.memory.bytes_mut(READ_ONLY.end, MEMORY_BYTES - READ_ONLY.end) {
            own.fill(0);
        }
        work(scene);
        // In one comparison: a loop would be slow under a fuzzer's instruments.
        let Scene { memory, canary, .. } = scene;
        let canary = memory.bytes_mut(0, READ_ONLY.end).map(|bytes| *bytes == canary[..]);
        assert_eq!(canary, Ok(true), "a guest has the tender write what it may not");
    });
}

/// A memory whose low and read-only parts, and what lies behind it, are marked.
fn memory() -> Option<Memory> {
    let mut memory = Memory::anywhere(MEMORY_BYTES + ring::BYTES, MEMORY_BYTES).ok()?;
    memory.bytes_mut(0, READ_ONLY.end).ok()?.fill(CANARY);
    let access = Access { readable: true, writable: false, executable: true };
    memory.protect(READ_ONLY, access, Protection::NeverExecutable).ok()?;
    Some(memory)
}

/// Hypercalls: each is a port, an argument and the bytes of its structure.
///
/// # Panics
/// If a call wrote where the guest may not.
pub fn hypercalls(bytes: &[u8]) {
    with_scene(|Scene { memory, devices, waiting, .. }| {
        let host = Host { memory, devices, waiting };
        for call in bytes.chunks(48) {
            let Some(([port, argument @ ..], structure)) = call.split_first_chunk::<5>() else { break };
            call_once(&host, 0x500 + u16::from(*port), u32::from_le_bytes(*argument), structure);
        }
        for offset in (0..ring::BYTES).step_by(4096) {
            assert_eq!(memory.beyond(offset).load(Relaxed), 0);
        }
    });
}

fn call_once(host: &Host<'_>, port: u16, argument: u32, structure: &[u8]) {
    let (memory, at) = (host.memory, u64::from(argument));
    // The guest writes its structure where it can.
    let _ = memory.copy_in(at, structure);
    // Console lines are for a console.
    if port == 0x502 && memory.u64_at(at).is_ok_and(|data| memory.readable(data, 1).is_ok()) {
        return;
    }
    match host.call(port, argument) {
        Ok(Answer::Wait { at }) => {
            if memory.u64_at(at).is_ok_and(|ns| ns <= WAIT_NS_MAX) {
                let _ = host.wait(at, -1);
            }
        }
        Ok(Answer::Halt { cookie, .. }) => drop(Trap::read(memory, cookie)),
        Ok(Answer::Done) => {}
        Err(death) => drop(death.to_string()),
    }
}

/// A ring: its first 64 submissions.
///
/// # Panics
/// If something was written where the guest may not.
pub fn ring(bytes: &[u8]) {
    with_scene(|Scene { memory, devices, .. }| {
        let submissions = (bytes.len() as u64 / ring::SUBMISSION_BYTES).min(64) as u32;
        // Indices run over their end as well.
        let start = u32::MAX - 7;
        for (index, submission) in (0..submissions).zip(bytes.chunks_exact(ring::SUBMISSION_BYTES as usize)) {
            let slot = ring::slot(start.wrapping_add(index));
            for (offset, word) in (0..).step_by(4).zip(submission.chunks_exact(4)) {
                let word = word.first_chunk().copied().unwrap_or_default();
                memory.beyond(slot + offset).store(u32::from_le_bytes(word), Relaxed);
            }
        }
        let Ok(ring) = Ring::new(memory, devices) else { return };
        match ring.serve(start, start.wrapping_add(submissions)) {
            Ok(head) => assert_eq!(head, start.wrapping_add(submissions)),
            Err(death) => drop(death.to_string()),
        }
        for offset in (0..ring::END).step_by(4) {
            memory.beyond(offset).store(0, Relaxed);
        }
    });
}
