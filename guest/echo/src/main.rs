//! Gives back what it is sent, over UDP and TCP, on port 7 or `--port=N`. `--ipv4=10.0.0.2/24` and perhaps
//! `--gateway=10.0.0.1`, or `--dhcp`, say its address.
#![no_std]
#![no_main]

use fulmar_guest::{Guest, say, unikernel};
use fulmar_stack::{Memory, Stack};
use smoltcp::iface::{SocketHandle, SocketStorage};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Duration;

/// Connections at once.
const CONNECTIONS: usize = 8;
/// The sockets of the connections, the one for datagrams, and the stack's own.
const SOCKETS: usize = CONNECTIONS + 2;
const TCP_BYTES: usize = 4096;
/// A datagram that fits into a frame, and how many can wait.
const UDP_BYTES: usize = 1536;
const UDP_WAITING: usize = 8;
const PORT: u64 = 7;
/// How long somebody may say nothing while we wait for him to take what we have.
const SILENCE: Duration = Duration::from_secs(10);

unikernel!(main, [net("service")]);

fn main(guest: &Guest) -> i32 {
    let mut marks = [udp::PacketMetadata::EMPTY; 2 * UDP_WAITING];
    let mut storage = [const { SocketStorage::EMPTY }; SOCKETS];
    match serve(guest, &mut storage, &mut marks) {
        Some(never) => match never {},
        None => 1,
    }
}

enum Never {}

/// `None` after having said why it cannot.
fn serve<'a>(
    guest: &Guest,
    storage: &'a mut [SocketStorage<'a>],
    marks: &'a mut [udp::PacketMetadata],
) -> Option<Never> {
    let mut memory = Memory::of(guest);
    let mut stack = Stack::begin(guest, &mut memory, storage)?;
    let Some(port) = u16::try_from(guest.number("port").unwrap_or(PORT)).ok().filter(|port| *port > 0) else {
        say!("echo: FAILED: --port= must be 1 to 65535");
        return None;
    };
    let mut connections = [None; CONNECTIONS];
    for place in &mut connections {
        *place = Some(stack.add_tcp(&mut memory, TCP_BYTES, TCP_BYTES)?);
    }
    let (in_marks, out_marks) = marks.split_at_mut(UDP_WAITING);
    let incoming = udp::PacketBuffer::new(in_marks, memory.take(UDP_BYTES * UDP_WAITING)?);
    let outgoing = udp::PacketBuffer::new(out_marks, memory.take(UDP_BYTES * UDP_WAITING)?);
    let mut socket = udp::Socket::new(incoming, outgoing);
    socket.bind(port).ok()?;
    let datagrams = stack.sockets().add(socket);
    let mut room = [0; UDP_BYTES];
    say!("echo: serving port ", port);
    // Who has read the line above is served: nothing is taken in before the sockets listen.
    loop {
        for handle in connections.into_iter().flatten() {
            answer(stack.sockets().get_mut(handle), port, &mut room);
        }
        answer_datagrams(&mut stack, datagrams, port, &mut room);
        stack.send();
        stack.wait(u64::MAX);
        stack.poll();
    }
}

fn answer(socket: &mut tcp::Socket<'_>, port: u16, room: &mut [u8]) {
    if matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait) {
        socket.abort();
        socket.set_timeout(Some(SILENCE));
        socket.set_keep_alive(Some(SILENCE / 2));
        // The port is not 0 and the socket is closed: this cannot fail.
        let _ = socket.listen(port);
    }
    while socket.can_recv() && socket.can_send() {
        let free = (socket.send_capacity() - socket.send_queue()).min(room.len());
        let Some(room) = room.get_mut(..free) else { return };
        let Ok(len) = socket.recv_slice(room) else { return };
        // There is room for all of it.
        let _ = room.get(..len).map(|bytes| socket.send_slice(bytes));
    }
    if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
        socket.close();
    }
}

fn answer_datagrams(stack: &mut Stack<'_>, handle: SocketHandle, port: u16, room: &mut [u8]) {
    let socket = stack.sockets().get_mut::<udp::Socket<'_>>(handle);
    while socket.can_send()
        && let Ok((len, from)) = socket.recv_slice(room)
    {
        // Two of us would else send each other the same for ever.
        if from.endpoint.port != port {
            // A datagram that finds no room is lost, as datagrams are.
            let _ = room.get(..len).map(|bytes| socket.send_slice(bytes, from));
        }
    }
}
