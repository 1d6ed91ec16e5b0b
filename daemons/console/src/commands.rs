//! What clients ask for: keep a console, follow it, list those that are left over.

use fulmar_core::limits::{CONSOLE_OUTPUTS_BYTES_MAX, CONSOLE_SUBSCRIBERS_MAX};
use fulmar_core::name::Name;
use fulmar_core::wire::{Command, ConsoleCommand, Data, Header, Message, Payload, Success, Window, encode_consoles};
use fulmar_host::clients::{Client, Role, Serve as _};
use fulmar_host::info;
use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::consoles::State;
use crate::fifo::Fifo;
use crate::server::Server;
use crate::stream::now_ms;
use crate::subscription::Subscription;

/// Reply to a command on a path that needs a unikernel.
const NEEDS_NAME: &str = "path used instead of name";

/// Reply to a command on a unikernel that needs a path.
const NEEDS_PATH: &str = "name used";

/// Reply to who wants a console kept and is not `vmmd`.
const NOT_TRUSTED: &str = "only root and the user of the daemons may add a console";

/// The last line of who follows a console that is forgotten.
const FORGOTTEN: &str = "[this console is kept no longer: those of newer unikernels have its place]";

/// What a refused client may do next.
enum Refused {
    /// Ask again on the same client.
    Stays(String),
    /// Nothing.
    Closes(&'static str),
}

impl Server<'_> {
    /// Does what a message says, and answers.
    pub(crate) fn command(&mut self, token: Token, message: &Message<'_>) {
        let header = message.header;
        let done = match message.payload {
            Payload::Command(Command::Console(ConsoleCommand::Add { unikernels })) => {
                self.add(token, &header, unikernels)
            }
            Payload::Command(Command::Console(ConsoleCommand::Subscribe(window))) => {
                self.subscribe(token, &header, window)
            }
            Payload::Command(Command::Console(ConsoleCommand::ListInactive)) => self.list(token, &header),
            _ => Err(Refused::Closes("unknown command: this is the console daemon")),
        };
        let Some(client) = self.clients.get_mut(token) else { return };
        match done {
            Ok(()) => {}
            Err(Refused::Stays(text)) => {
                info!(name = header.name; "{}: {text}", header.name);
                client.put_failure(&header, &text);
            }
            Err(Refused::Closes(text)) => {
                info!(name = header.name; "{}: {text}", header.name);
                client.put_failure(&header, text);
                client.finish();
            }
        }
    }

    /// Reads the console of this unikernel from now on, and keeps at most so many of its path.
    fn add(&mut self, token: Token, header: &Header, unikernels: i64) -> Result<(), Refused> {
        let name = header.name;
        if !self.clients.get(token).is_some_and(|client| client.peer.is_trusted) {
            return Err(Refused::Closes(NOT_TRUSTED));
        }
        if name.is_path() {
            return Err(Refused::Closes(NEEDS_NAME));
        }
        if unikernels < 0 {
            return Err(Refused::Stays(format!("{unikernels} unikernels: the number must not be negative")));
        }
        let fifo = Fifo::open(&self.fifo_folder, &name).map_err(|error| Refused::Stays(error.to_string()))?;
        self.start_reading(&name, fifo)?;
        let keep = usize::try_from(unikernels.max(1)).unwrap_or(usize::MAX);
        while let Some(surplus) = self.consoles.surplus(&name.path(), keep) {
            self.drop_console(&surplus);
        }
        if let Some(client) = self.clients.get_mut(token) {
            client.put(header, Payload::Success(Success::Empty));
        }
        Ok(())
    }

    fn start_reading(&mut self, name: &Name, fifo: Fifo) -> Result<(), Refused> {
        match self.consoles.get(name).map(|console| &console.state) {
            Some(State::Running { fifo: current, .. }) if current.is_same(&fifo) => return Ok(()),
            Some(State::Running { token, .. }) => {
                // What the last incarnation wrote is still in its fifo.
                let token = *token;
                self.drain(token);
            }
            Some(_) => {}
            None if self.consoles.is_full() => {
                let longest = self.consoles.longest_inactive();
                let longest = longest.ok_or_else(|| Refused::Stays("too many consoles are in use".into()))?;
                self.drop_console(&longest);
            }
            None => {}
        }
        let token = self.clients.new_token();
        let registered = self.clients.registry().register(&mut SourceFd(&fifo.raw_fd()), token, Interest::READABLE);
        registered.map_err(|error| Refused::Stays(format!("cannot read the fifo: {error}")))?;
        self.fifos.insert(token, *name);
        self.consoles.entry(name).state = State::Running { fifo, token };
        Ok(())
    }

    /// Forgets a console; who follows it gets what it has written, why it ends, and the end.
    fn drop_console(&mut self, name: &Name) {
        for token in self.consoles.get(name).map(|console| console.subscribers.clone()).unwrap_or_default() {
            self.send(token);
            self.end_subscription(token, FORGOTTEN);
        }
        self.consoles.remove(name);
    }

    /// Tells a subscriber why its subscription ends, and closes it when it has read that.
    pub(crate) fn end_subscription(&mut self, token: Token, last: &str) {
        let Some(client) = self.clients.get_mut(token) else { return };
        if let Some(Subscription { header, .. }) = client.take_subscription() {
            client.put(&header, Payload::Data(Data::Console { unix_ms: now_ms(), line: last.into() }));
            client.finish();
            self.unsubscribe(token, &header.name);
        }
        self.send(token);
    }

    /// Sends the lines of this console from now on, those that are asked for of the past before them.
    fn subscribe(&mut self, token: Token, header: &Header, window: Window) -> Result<(), Refused> {
        let name = header.name;
        if name.is_path() {
            return Err(Refused::Closes(NEEDS_NAME));
        }
        if matches!(window, Window::Count(..0)) {
            return Err(Refused::Closes("the number of lines must not be negative"));
        }
        let console = self.consoles.entry(&name);
        console.subscribers.push(token);
        let text = if matches!(console.state, State::Awaited) { "waiting for VM" } else { "subscribed" };
        let oldest = console.subscribers.first().copied();
        let is_crowded = console.subscribers.len() > CONSOLE_SUBSCRIBERS_MAX;
        let blocks = self.consoles.blocks();
        let cursor = match (self.consoles.get(&name).map(|console| console.history.ring()), window) {
            (Some(ring), Window::Count(count)) => ring.last(blocks, usize::try_from(count).unwrap_or(usize::MAX)),
            (Some(ring), Window::Since(unix_ms)) => ring.since(blocks, unix_ms),
            (None, _) => Default::default(),
        };
        if let Some(client) = self.clients.get_mut(token) {
            client.put_text(header, text);
            client.role = Role::Subscribed(Subscription { header: Box::new(*header), cursor });
        }
        if let Some(oldest) = oldest.filter(|_| is_crowded) {
            info!(name = name; "console of {name}: its oldest subscriber makes room for a new one");
            self.send(oldest);
            self.end_subscription(oldest, &format!("[the console goes on, but {CONSOLE_SUBSCRIBERS_MAX} newer subscribers have its places: subscribe again]"));
        }
        Ok(())
    }

    /// Lists the consoles in this path whose unikernel is gone, by their names as seen from there.
    fn list(&mut self, token: Token, header: &Header) -> Result<(), Refused> {
        if !header.name.is_path() {
            return Err(Refused::Closes(NEEDS_PATH));
        }
        let names = self.consoles.inactive(&header.name);
        let bytes = names.iter().map(|name| name.as_bytes().len() + 4).sum::<usize>() + 512;
        let waiting: usize = self.clients.all().map(Client::output_capacity).sum();
        if waiting + bytes > CONSOLE_OUTPUTS_BYTES_MAX {
            return Err(Refused::Closes("too much waits to be sent to others: try again"));
        }
        let mut buffer = vec![0; bytes];
        let names = names.into_iter().map(|name| name.relative_to(&header.name));
        let frame = encode_consoles(header, names, &mut buffer);
        let frame = frame.map_err(|_| Refused::Closes("the list is too long: list a path below this one"))?;
        if let Some(client) = self.clients.get_mut(token) {
            client.output(frame.len()).extend_from_slice(frame);
        }
        Ok(())
    }
}
