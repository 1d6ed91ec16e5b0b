//! Proves a network `service` and a disk `storage`: says what they are, copies the first sector to the last one, answers one
//! frame with its addresses swapped, and exits with 0 if all held, else says what did not and exits with 1.
#![no_std]
#![no_main]

use fulmar_guest::{Block, Guest, Net, clock, say, unikernel, wait_until};

/// How long it waits for the frame.
const PATIENCE_NS: u64 = 20_000_000_000;
const FRAME_BYTES: usize = 2048;
const SECTOR_BYTES_MAX: usize = 4096;

unikernel!(main, [net("service"), block("storage")]);

fn main(guest: &Guest) -> i32 {
    let (Some(net), Some(disk)) = (Net::find(guest, "service"), Block::find(guest, "storage")) else {
        say!("devices: FAILED: one is missing");
        return 1;
    };
    let [a, .., f] = net.mac();
    say!("network: address ", u32::from(a), "..", u32::from(f), ", mtu ", u32::from(net.mtu()));
    say!("disk: ", disk.capacity_bytes(), " bytes in sectors of ", u32::from(disk.sector_bytes()));
    let held = copies(&disk) & refuses(&disk) & answers(&net);
    say!(if held { "devices: all held" } else { "devices: FAILED" });
    i32::from(!held)
}

/// The last sector becomes what the first one is.
fn copies(disk: &Block) -> bool {
    let mut room = [0; SECTOR_BYTES_MAX];
    let Some(sector) = room.get_mut(..usize::from(disk.sector_bytes())) else { return false };
    let last = disk.capacity_bytes() - u64::from(disk.sector_bytes());
    disk.read(0, sector) && disk.write(last, sector)
}

/// What is not a whole sector of the disk is refused, by the library or by the tender, and does not end us.
fn refuses(disk: &Block) -> bool {
    let mut sector = [0; 512];
    !disk.read(disk.capacity_bytes(), &mut sector)
        && !disk.read(1, &mut sector)
        && !disk.read(u64::MAX - 511, &mut sector)
}

fn answers(net: &Net) -> bool {
    let mut room = [0; FRAME_BYTES];
    let mut len = net.read(&mut room);
    if len.is_none() {
        say!("waiting for a frame");
        let ready = wait_until(clock::monotonic_ns() + PATIENCE_NS);
        if ready & 1 << net.handle() == 0 {
            return false;
        }
        len = net.read(&mut room);
    }
    let Some(frame) = len.and_then(|len| room.get_mut(..len)) else { return false };
    if let Some((to, rest)) = frame.split_at_mut_checked(6)
        && let Some((from, _)) = rest.split_at_mut_checked(6)
    {
        to.swap_with_slice(from);
    }
    net.write(frame)
}
