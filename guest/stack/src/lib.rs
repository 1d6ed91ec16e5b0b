//! The Internet for a unikernel: smoltcp over its network `service`, with the address that its arguments say.
//!
//! `--ipv4=10.0.0.2/24` and perhaps `--gateway=10.0.0.1` give it an address; `--dhcp` lets the network give it one. It answers
//! pings. The rest is the caller's: sockets in a set of fixed size, their buffers out of [`Guest::heap`].
#![no_std]

pub mod address;
mod device;

use fulmar_guest::{Guest, Ipv4, Mac, Net, clock, random, say, wait_until};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address};

use device::Port;

/// Frames that are taken in at once, at most: who floods us does not keep us from our connections.
const FRAMES_AT_ONCE: u32 = 64;
/// How long to wait at most where nothing says when to look again.
const PATIENCE_S: u64 = 60;

/// The network and the sockets on it.
pub struct Stack<'a> {
    interface: Interface,
    port: Port<'a>,
    sockets: SocketSet<'a>,
    dhcp: Option<SocketHandle>,
}

/// Memory for a stack and its sockets, taken piece by piece.
pub struct Memory(&'static mut [u8]);

impl Memory {
    /// All memory of this unikernel that is still free.
    #[must_use]
    pub fn of(guest: &Guest) -> Memory {
        Memory(guest.heap().unwrap_or_default())
    }

    /// So many bytes of it; `None`, said on the console, if there are not so many.
    pub fn take(&mut self, bytes: usize) -> Option<&'static mut [u8]> {
        let taken = self.0.split_off_mut(..bytes);
        if taken.is_none() {
            say!("memory: FAILED: ", bytes, " bytes are wanted and ", self.0.len(), " are free: give more with --mem");
        }
        taken
    }
}

impl<'a> Stack<'a> {
    /// The stack on the network `service`, as the arguments have it. Its sockets, one more than the caller's own, are kept in
    /// `storage`. What goes wrong is said on the console.
    pub fn begin(guest: &Guest, memory: &mut Memory, storage: &'a mut [SocketStorage<'a>]) -> Option<Stack<'a>> {
        let Some(net) = Net::find(guest, "service") else {
            say!("network: FAILED: there is no network 'service'");
            return None;
        };
        let mac = net.mac();
        say!("network: I am ", Mac(mac), ", mtu ", net.mtu());
        let hardware = EthernetAddress(mac);
        if !hardware.is_unicast() {
            say!("network: FAILED: that is an address of a group: set another one");
            return None;
        }
        let mut port = Port::new(net, memory)?;
        let mut config = Config::new(hardware.into());
        config.random_seed = random();
        let interface = Interface::new(config, &mut port, now());
        let mut stack = Stack { interface, port, sockets: SocketSet::new(storage), dhcp: None };
        if guest.has_argument("dhcp") {
            stack.dhcp = Some(stack.sockets.add(dhcpv4::Socket::new()));
            return Some(stack);
        }
        let fixed = guest.argument("ipv4").and_then(address::network);
        let gateway = guest.argument("gateway").map(address::address);
        match (fixed, gateway) {
            (Some((address, prefix)), None | Some(Some(_))) => stack.settle(address, prefix, gateway.flatten()),
            _ => {
                say!("network: FAILED: say --dhcp or --ipv4=10.0.0.2/24, and perhaps --gateway=10.0.0.1");
                return None;
            }
        }
        Some(stack)
    }

    /// Adds a TCP socket with buffers of these sizes.
    pub fn add_tcp(&mut self, memory: &mut Memory, in_bytes: usize, out_bytes: usize) -> Option<SocketHandle> {
        let room = |memory: &mut Memory, bytes| memory.take(bytes).map(tcp::SocketBuffer::new);
        let socket = tcp::Socket::new(room(memory, in_bytes)?, room(memory, out_bytes)?);
        Some(self.sockets.add(socket))
    }

    /// The sockets.
    pub fn sockets(&mut self) -> &mut SocketSet<'a> {
        &mut self.sockets
    }

    /// Begins a connection to this port; `false` if that cannot be, for want of an address perhaps.
    pub fn connect(&mut self, handle: SocketHandle, (to, port): ([u8; 4], u16), from_port: u16) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.interface.context(), (Ipv4Address::from(to), port), from_port).is_ok()
    }

    /// Takes in what has come, and sends what is to go out.
    pub fn poll(&mut self) {
        let now = now();
        self.interface.poll_maintenance(now);
        for _ in 0..FRAMES_AT_ONCE {
            let single = self.interface.poll_ingress_single(now, &mut self.port, &mut self.sockets);
            if matches!(single, PollIngressSingleResult::None) {
                break;
            }
        }
        self.send();
        self.follow_dhcp();
    }

    /// Sends what is to go out.
    pub fn send(&mut self) {
        let now = now();
        while self.interface.poll_egress(now, &mut self.port, &mut self.sockets) == PollResult::SocketStateChanged {}
    }

    /// Waits until a frame comes, a socket has something to do, or the clock reaches `deadline_ns`.
    pub fn wait(&mut self, deadline_ns: u64) {
        let next = self.interface.poll_at(now(), &self.sockets);
        let next_ns = next.map_or(u64::MAX, |at| u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1000));
        let until_ns = deadline_ns.min(next_ns);
        if until_ns > clock::monotonic_ns() {
            wait_until(until_ns.min(clock::in_seconds(PATIENCE_S)));
        }
    }

    /// Takes the address that the network gives, and gives up one that has been taken away.
    fn follow_dhcp(&mut self) {
        let Some(handle) = self.dhcp else { return };
        match self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            Some(dhcpv4::Event::Configured(config)) => {
                let (address, prefix) = (config.address.address().octets(), config.address.prefix_len());
                let router = config.router.map(|router| router.octets());
                self.settle(address, prefix, router);
            }
            Some(dhcpv4::Event::Deconfigured) => {
                self.interface.update_ip_addrs(|addresses| addresses.clear());
                self.interface.routes_mut().remove_default_ipv4_route();
                say!("network: I have no address");
            }
            None => {}
        }
    }

    /// Has this address from now on, if it can be one of a machine.
    fn settle(&mut self, address: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>) {
        if !address::is_of_machine(address) {
            say!("network: ", Ipv4(address), " cannot be mine");
            return;
        }
        say!("network: I have ", Ipv4(address), "/", prefix);
        let ours = IpCidr::new(IpAddress::Ipv4(Ipv4Address::from(address)), prefix);
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            // The list was emptied: there is room.
            let _ = addresses.push(ours);
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            // As above: it is the only route.
            let _ = routes.add_default_ipv4_route(Ipv4Address::from(gateway));
        }
    }
}

/// What smoltcp takes as the time.
fn now() -> Instant {
    Instant::from_micros(i64::try_from(clock::monotonic_ns() / 1000).unwrap_or(i64::MAX))
}
