//! Says which address its network `service` has, and then sends a frame to everybody once a second until it is destroyed.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, Net, clock, say, unikernel, wait_until};

/// The least that Ethernet carries, without its check sum.
const FRAME_BYTES: usize = 60;
/// For local experiments (IEEE 802): nobody else minds it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

unikernel!(main, [net("service")]);

fn main(guest: &Guest) -> i32 {
    let Some(net) = Net::find(guest, "service") else {
        say!("network: FAILED: there is none");
        return 1;
    };
    let mac = net.mac();
    let [a, b, c, d, e, f] = mac.map(u32::from);
    say!("network: address ", a, " ", b, " ", c, " ", d, " ", e, " ", f);
    let mut frame = [0; FRAME_BYTES];
    let fields = [0xff; 6].into_iter().chain(mac).chain(ETHERTYPE);
    for (place, byte) in frame.iter_mut().zip(fields) {
        *place = byte;
    }
    loop {
        if !net.write(&frame) {
            say!("network: FAILED: a frame was not taken");
            return 1;
        }
        wait_until(clock::in_seconds(1));
    }
}
