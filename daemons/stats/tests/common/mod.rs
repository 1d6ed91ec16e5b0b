//! A real `vmmd_stats` in a folder of its own, unikernels that are processes doing nothing, clients, and a `vmmd` that says what
//! a test wants.

#![allow(dead_code, reason = "each test program uses a part of this")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::{Deref, DerefMut};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use fulmar_core::name::Name;
use fulmar_core::wire::{
    self, Command as WireCommand, Data, Frame, Header, List, Message, Payload, StatsCommand, Success, Tap, encode_frame,
};
use fulmar_host::socket::listen;
use fulmar_tests::daemon;
use fulmar_tests::raw::{Answer, Raw};
use fulmar_tests::system::PATIENCE;

/// A run folder, and the daemon that serves it.
pub(crate) struct Daemon(daemon::Daemon);

impl Daemon {
    /// A daemon in a new folder, ready to serve, with a short time between measurements.
    pub(crate) fn start() -> Self {
        let mut daemon = daemon::Daemon::prepare(env!("CARGO_BIN_EXE_vmmd_stats"), "stat.sock");
        daemon.add_options(&["--interval", "0.1"]);
        daemon.serve();
        Self(daemon)
    }

    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.socket())
    }

    /// Somebody who gets what is measured of this name or path.
    pub(crate) fn subscribe(&self, name: &str) -> Raw {
        let mut client = self.connect();
        let answer = client.ask(name, WireCommand::Stats(StatsCommand::Subscribe));
        assert_eq!(answer, Answer::Done("subscribed".into()));
        client
    }

    /// Asks for something else than a subscription.
    pub(crate) fn ask(&self, name: &str, command: StatsCommand<'_>) -> Answer {
        self.connect().ask(name, WireCommand::Stats(command))
    }

    /// Has a process watched as a unikernel without networks.
    pub(crate) fn add(&self, name: &str, process: &Process) {
        assert_eq!(self.ask(name, add(process.pid(), "", &[])), Answer::Done("added".into()));
    }

    /// Listens where `vmmd` would.
    pub(crate) fn vmmd(&self) -> UnixListener {
        let listener = listen(&self.folder.join("run/util/vmmd.sock"), 0o660).unwrap();
        listener.set_nonblocking(false).unwrap();
        listener
    }
}

impl Deref for Daemon {
    type Target = daemon::Daemon;

    fn deref(&self) -> &daemon::Daemon {
        &self.0
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut daemon::Daemon {
        &mut self.0
    }
}

pub(crate) fn add<'a>(pid: i64, device: &'a str, taps: &'a [Tap<'a>]) -> StatsCommand<'a> {
    StatsCommand::Add { device, pid, taps: List::Items(taps) }
}

/// A process that does nothing, ended with this.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start() -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> i64 {
        self.0.id().into()
    }

    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The name, the sequence and the start of the process of the next measurement.
pub(crate) fn next(client: &mut Raw) -> Option<(String, u64, (i64, i64))> {
    let bytes = client.receive_bytes()?;
    let message = wire::decode(Frame::whole(&bytes)).unwrap();
    let Payload::Data(Data::Stats(usage)) = message.payload else { panic!("{message:?}") };
    let start = usage.memory.unwrap().start;
    Some((message.header.name.to_string(), message.header.sequence, (start.seconds, start.microseconds)))
}

/// The name of the next measurement.
pub(crate) fn next_name(client: &mut Raw) -> String {
    next(client).unwrap().0
}

/// The end of `vmmd` of the link.
pub(crate) struct Vmmd(pub(crate) Raw);

impl Vmmd {
    /// Takes the call of the daemon, which must say what it is.
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut link = Raw(stream);
        let bytes = link.receive_bytes().unwrap();
        let message = wire::decode(Frame::whole(&bytes)).unwrap();
        assert_eq!(message.header, Header::new(0, Name::ROOT));
        assert_eq!(message.payload, Payload::Command(WireCommand::Stats(StatsCommand::Initial)));
        Self(link)
    }

    /// As [`Vmmd::accept`], and consents.
    pub(crate) fn link(listener: &UnixListener) -> Self {
        let mut link = Self::accept(listener);
        link.say(":", 0, Payload::Success(Success::Empty));
        link
    }

    pub(crate) fn say(&mut self, name: &str, sequence: u64, payload: Payload<'_>) {
        let header = Header::new(sequence, Name::parse(name).unwrap());
        let mut buffer = vec![0; 16 * 1024];
        assert!(self.0.send(encode_frame(&Message { header, payload }, &mut buffer).unwrap()));
    }

    /// Says a command and takes the answer.
    pub(crate) fn tell(&mut self, name: &str, command: StatsCommand<'_>) -> Answer {
        self.say(name, 1, Payload::Command(WireCommand::Stats(command)));
        self.0.receive()
    }
}
