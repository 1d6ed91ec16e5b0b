//! The turns of the event loop. Nothing blocks but a measurement, which takes some ten microseconds a unikernel. Nobody waits for a
//! subscriber.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fulmar_core::limits::{
    NAME_BYTES_MAX, STATS_CONNECTIONS_MAX, STATS_FRAME_BYTES_MAX, STATS_OUTPUT_BYTES_MAX, STATS_TALK_MS_MAX,
};
use fulmar_core::wire::Message;
use fulmar_host::clients::{Bounds, Client, Clients, Role, Serve, Served};
use fulmar_host::meter::Meter;
use fulmar_host::service::Service;
use fulmar_host::warning;
use mio::Token;

use crate::link::Link;
use crate::subscription::{Subscription, fill};
use crate::targets::{Record, Targets};

/// Bytes of a text in a reply.
const TEXT_BYTES_MAX: usize = 512;

/// How far we go for clients. A reply is a text, a name, and what is around them; what is measured is longer.
const BOUNDS: Bounds = Bounds {
    connections: STATS_CONNECTIONS_MAX,
    frame_bytes: STATS_FRAME_BYTES_MAX,
    message_bytes: TEXT_BYTES_MAX + NAME_BYTES_MAX + 128,
    text_bytes: TEXT_BYTES_MAX,
    output_bytes: STATS_OUTPUT_BYTES_MAX,
    talk_ms: STATS_TALK_MS_MAX,
};

/// The whole program.
pub(crate) struct Server<M: Meter> {
    pub(crate) clients: Clients<Subscription>,
    pub(crate) link: Link,
    pub(crate) targets: Targets<M>,
    /// What was last measured.
    pub(crate) records: Vec<Record>,
    interval: Duration,
    /// When to measure next; nothing while nobody is subscribed.
    measure_at: Option<Instant>,
}

impl<M: Meter> Server<M> {
    /// Serves `listener` with what `meter` measures, and hears from `vmmd` what there is.
    pub(crate) fn new(
        signals: UnixStream,
        listener: UnixListener,
        vmmd: PathBuf,
        meter: M,
        interval: Duration,
        service: Service,
    ) -> io::Result<Self> {
        let mut clients = Clients::new(&BOUNDS, signals, listener, service)?;
        let link = Link::new(vmmd, clients.new_token());
        let targets = Targets::new(meter);
        Ok(Self { clients, link, targets, records: Vec::new(), interval, measure_at: None })
    }

    /// Somebody has subscribed: the first is told at once, others with it at the next time.
    pub(crate) fn expect_measurement(&mut self) {
        if self.measure_at.is_none() {
            self.measure_at = Some(Instant::now());
        }
    }

    /// Measures what is subscribed to, and sends it.
    fn measure(&mut self) {
        // Whoever has ended is not to be measured: hear of it first.
        self.serve_link();
        let subscriptions = self.clients.all().filter_map(Client::subscription);
        let wanted: BTreeSet<_> = subscriptions.map(|subscription| subscription.header.name).collect();
        self.records.clear();
        if wanted.is_empty() {
            self.records.shrink_to_fit();
            self.measure_at = None;
            return;
        }
        self.records = self.targets.measure(&wanted);
        let now = Instant::now();
        // After a measurement that came late the next one is not hurried: rates are worked out from what lies between two.
        let is_apart = |next: &Instant| next.saturating_duration_since(now) > self.interval / 2;
        let next = self.measure_at.and_then(|at| at.checked_add(self.interval)).filter(is_apart);
        self.measure_at = next.or_else(|| now.checked_add(self.interval));
        for token in self.clients.subscribed() {
            // What it has not taken of those before is lost to it.
            if let Some(Role::Subscribed(subscription)) = self.clients.get_mut(token).map(|client| &mut client.role) {
                subscription.at = 0;
            }
            self.send(token);
        }
    }
}

impl<M: Meter> Serve for Server<M> {
    type Subscription = Subscription;

    fn clients(&mut self) -> &mut Clients<Subscription> {
        &mut self.clients
    }

    fn run(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.call_vmmd();
            if !self.clients.wait(&mut ready, &[self.measure_at, self.link.alarm()])? {
                return Ok(());
            }
            for token in ready.drain(..) {
                if token == self.link.token() {
                    self.serve_link();
                } else {
                    self.client_turn(token);
                }
            }
            self.close_late();
            if self.measure_at.is_some_and(|at| at <= Instant::now()) {
                self.measure();
            }
        }
    }

    fn message(&mut self, token: Token, message: &Message<'_>) {
        self.command(token, message);
    }

    fn send(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(token) else { return };
        let was_behind = client.is_behind();
        let served = client.serve(|client| {
            fill(client, &self.records);
            true
        });
        if served != Served::Open {
            return self.close(token);
        }
        let has_more = client.subscription().is_some_and(|subscription| subscription.at < self.records.len());
        let of_subscriber_ms = (client.waiting() > 0 || has_more).then_some(STATS_TALK_MS_MAX);
        self.clients.settle(token, was_behind, false, of_subscriber_ms);
    }

    fn close_slow(&mut self, token: Token) {
        if let Some(Subscription { header, .. }) = self.clients.get(token).and_then(Client::subscription) {
            warning!(name = header.name; "{}: a subscriber that reads too slowly is closed", header.name);
        }
        self.close(token);
    }
}
