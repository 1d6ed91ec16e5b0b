//! What a tender's process may use beside the CPUs it is pinned to. One table, each line with its reason.

use fulmar_core::halves::LaunchPlan;
use fulmar_core::limits::{IMAGE_BYTES_MAX, STATUS_RECORD_BYTES};
use nix::sys::resource::Resource;

const MIB: u64 = 1024 * 1024;

/// What a tender needs of its address space beside guest and image: its program, the C library, stacks.
const OWN_BYTES_MAX: u64 = 64 * MIB;

/// What a tender opens itself: KVM's virtual machine and CPU, a timer, an epoll, an event.
const OWN_FDS_MAX: u64 = 16;

/// A tender forks nothing; an hvt tender may have a thread for each ring. What ran under the account before counts until
/// it is reaped, and an adopted one is reaped by init in its own time.
pub(crate) const THREADS_MAX: u64 = 32;

/// The limits of a process.
pub(crate) type Limits = [Option<(Resource, u64)>; 9];

/// The limits for one plan whose fds end before `fds`, and whose largest block device has `file_bytes`. `own_account` tells
/// whether no other process has its user id.
pub(crate) fn limits(plan: &LaunchPlan<'_>, fds: u64, file_bytes: u64, own_account: bool) -> Limits {
    let guest = u64::from(plan.memory_mb).saturating_mul(MIB);
    [
        // A core file would hold the guest's secrets, and it would fill the disk.
        Some((Resource::RLIMIT_CORE, 0)),
        // No more fds than it was given and needs.
        Some((Resource::RLIMIT_NOFILE, fds.saturating_add(OWN_FDS_MAX))),
        // Guest memory, the image mapped or read at once, and itself: what the policy was charged for, roughly.
        Some((Resource::RLIMIT_AS, guest.saturating_add(IMAGE_BYTES_MAX).saturating_add(OWN_BYTES_MAX))),
        // Counted for each user, so it means something only where the user is the tender's own.
        own_account.then_some((Resource::RLIMIT_NPROC, THREADS_MAX)),
        // A block device is a file, written in place, and the record of its status is one. No file of its grows.
        Some((Resource::RLIMIT_FSIZE, file_bytes.max(STATUS_RECORD_BYTES as u64))),
        // It locks no memory, sends no messages and needs no place before others, whatever vmmd was allowed.
        Some((Resource::RLIMIT_MEMLOCK, 0)),
        Some((Resource::RLIMIT_MSGQUEUE, 0)),
        Some((Resource::RLIMIT_NICE, 0)),
        Some((Resource::RLIMIT_RTPRIO, 0)),
    ]
}
