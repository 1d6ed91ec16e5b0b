//! A web server: `/` is a page with its name, how long it runs and how often it was asked; `/health` says ok; `/bytes/N` is N
//! bytes. It serves several clients at once, more than one request each.
//!
//! `--ipv4=10.0.0.2/24` and perhaps `--gateway=10.0.0.1`, or `--dhcp`, say its address; `--port=N` its port (80), `--name=`
//! its name. With `--fetch=10.0.0.3` or `--fetch=10.0.0.3:8080` it asks another server for its page once a second, and says
//! on its console what came.
#![no_std]
#![no_main]

mod answer;
mod connection;
mod fetch;
mod request;

use fulmar_guest::{Guest, clock, say, unikernel};
use fulmar_stack::{Memory, Stack, address};
use smoltcp::iface::SocketStorage;

use answer::Site;
use connection::Connection;
use fetch::Fetch;

/// Clients at once.
const CONNECTIONS: usize = 8;
/// The sockets of the clients, the one to fetch with, and the stack's own.
const SOCKETS: usize = CONNECTIONS + 2;
const IN_BYTES: usize = 2048;
const OUT_BYTES: usize = 16384;
const PORT: u16 = 80;

unikernel!(main, [net("service")]);

fn main(guest: &Guest) -> i32 {
    let mut storage = [const { SocketStorage::EMPTY }; SOCKETS];
    match serve(guest, &mut storage) {
        Some(never) => match never {},
        None => 1,
    }
}

enum Never {}

/// `None` after having said why it cannot.
fn serve<'a>(guest: &Guest, storage: &'a mut [SocketStorage<'a>]) -> Option<Never> {
    let mut memory = Memory::of(guest);
    let mut stack = Stack::begin(guest, &mut memory, storage)?;
    let Some(port) = u16::try_from(guest.number("port").unwrap_or(PORT.into())).ok().filter(|port| *port > 0) else {
        say!("http: FAILED: --port= must be 1 to 65535");
        return None;
    };
    let mut connections = [const { None }; CONNECTIONS];
    for place in &mut connections {
        let handle = stack.add_tcp(&mut memory, IN_BYTES, OUT_BYTES)?;
        *place = Some(Connection::new(handle, port, memory.take(request::HEAD_BYTES_MAX)?));
    }
    let mut fetch = None;
    if let Some(server) = guest.argument("fetch") {
        let Some(server) = address::endpoint(server, PORT) else {
            say!("http: FAILED: --fetch= must be an address, like 10.0.0.3 or 10.0.0.3:8080");
            return None;
        };
        fetch = Some(Fetch::new(stack.add_tcp(&mut memory, IN_BYTES, IN_BYTES)?, server));
    }
    let name = guest.argument("name").unwrap_or(b"a unikernel");
    let mut site = Site { name, begun_ns: clock::monotonic_ns(), requests: 0 };
    say!("http: ", name, " serves port ", port);
    // Who has read the line above is served: nothing is taken in before the sockets listen.
    loop {
        let mut next_ns = u64::MAX;
        for connection in connections.iter_mut().flatten() {
            let socket = stack.sockets().get_mut(connection.handle);
            next_ns = next_ns.min(connection.serve(socket, &mut site));
        }
        if let Some(fetch) = &mut fetch {
            next_ns = next_ns.min(fetch.go_on(&mut stack));
        }
        stack.send();
        stack.wait(next_ns);
        stack.poll();
    }
}
