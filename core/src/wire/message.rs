//! The message around everything: header, payload, frame.

use crate::der::{Cut, Full, Malformed, Reader, Reason, Writer, tag};
use crate::name::Name;
use crate::wire::block::BlockCommand;
use crate::wire::config::Image;
use crate::wire::console::{ConsoleCommand, Window};
use crate::wire::data::Data;
use crate::wire::log::LogCommand;
use crate::wire::policy::PolicyCommand;
use crate::wire::stats::StatsCommand;
use crate::wire::success::Success;
use crate::wire::text::Text;
use crate::wire::unikernel::UnikernelCommand;

/// The version of the protocol that is spoken here.
pub const VERSION: i64 = 5;

/// The bytes of one message, the large octet string that it may have taken out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// All but the octets that were taken out. The length before a frame is not part of it.
    pub head: &'a [u8],
    /// Where they were taken out.
    pub cut: Option<Cut>,
}

impl<'a> Frame<'a> {
    /// A frame of which nothing was taken out.
    #[must_use]
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self { head: bytes, cut: None }
    }
}

/// What every message begins with, and its reply repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Version of the protocol; always [`VERSION`] when decoded.
    pub version: i64,
    /// Chosen by who asks, echoed by who answers.
    pub sequence: u64,
    /// What the message is about.
    pub name: Name,
}

impl Header {
    /// A header of our version.
    #[must_use]
    pub fn new(sequence: u64, name: Name) -> Self {
        Self { version: VERSION, sequence, name }
    }

    /// Reads into `self`: a name is large, so that handing it up from function to function would cost more than all else.
    #[inline]
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        let mut inner = reader.open(tag::SEQUENCE)?;
        let start = inner;
        self.version = inner.integer()?;
        if self.version != VERSION {
            return Err(start.error(Reason::Version(self.version)));
        }
        self.sequence = inner.number()?.cast_unsigned();
        inner.assign_name(&mut self.name)?;
        inner.finish()
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.within(tag::SEQUENCE, |writer| {
            writer.text(self.name.as_bytes());
            writer.number(self.sequence.cast_signed());
            writer.integer(self.version);
        });
    }
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// What it is about.
    pub header: Header,
    /// What it says.
    pub payload: Payload<'a>,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// Do this.
    Command(Command<'a>),
    /// It was done.
    Success(Success<'a>),
    /// It was not done, and why.
    Failure(Text<'a>),
    /// A piece of a stream.
    Data(Data<'a>),
}

/// What can be asked for, by the daemon that does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Of the console daemon.
    Console(ConsoleCommand),
    /// Of the statistics daemon.
    Stats(StatsCommand<'a>),
    /// Of the event log: send this much of the past and then each event as it comes.
    Log(Window),
    /// About unikernels.
    Unikernel(UnikernelCommand<'a>),
    /// About policies.
    Policy(PolicyCommand<'a>),
    /// About block devices.
    Block(BlockCommand<'a>),
    /// About the host; one of our additions.
    Host,
    /// Of the event log, with all that it has; one of our additions.
    Events(LogCommand),
    /// Of the TLS end: take the list of revoked certificates that follows; one of our additions.
    Revoke {
        /// Whether what is at the path of the name and below it goes as well.
        remove: bool,
    },
}

/// The tags of our additions, far from those of the peer.
const HOST: u8 = tag::context(30);
const EVENTS: u8 = tag::context(29);
const REVOKE: u8 = tag::context(28);

impl<'a> Command<'a> {
    /// Reads the next element and hands it to `put`.
    #[inline]
    pub(crate) fn read(reader: &mut Reader<'a>, put: impl FnOnce(Self)) -> Result<(), Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, ConsoleCommand::read).map(|command| put(Self::Console(command))),
            0xa1 => reader.within(choice, StatsCommand::read).map(|command| put(Self::Stats(command))),
            0xa2 => reader.within(choice, Window::read).map(|window| put(Self::Log(window))),
            0xa3 => {
                reader.within(choice, |reader| UnikernelCommand::read(reader, |command| put(Self::Unikernel(command))))
            }
            0xa4 => reader.within(choice, PolicyCommand::read).map(|command| put(Self::Policy(command))),
            0xa5 => reader.within(choice, BlockCommand::read).map(|command| put(Self::Block(command))),
            EVENTS => reader.within(choice, LogCommand::read).map(|command| put(Self::Events(command))),
            HOST => reader.within(choice, Reader::null).map(|()| put(Self::Host)),
            REVOKE => reader.within(choice, Reader::boolean).map(|remove| put(Self::Revoke { remove })),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Console(command) => writer.within(tag::context(0), |writer| command.write(writer)),
            Self::Stats(command) => writer.within(tag::context(1), |writer| command.write(writer)),
            Self::Log(window) => writer.within(tag::context(2), |writer| window.write(writer)),
            Self::Unikernel(command) => writer.within(tag::context(3), |writer| command.write(writer)),
            Self::Policy(command) => writer.within(tag::context(4), |writer| command.write(writer)),
            Self::Block(command) => writer.within(tag::context(5), |writer| command.write(writer)),
            Self::Events(command) => writer.within(EVENTS, |writer| command.write(writer)),
            Self::Host => writer.within(HOST, Writer::null),
            Self::Revoke { remove } => writer.within(REVOKE, |writer| writer.boolean(*remove)),
        }
    }
}

impl<'a> Payload<'a> {
    /// Reads the next element and hands it to `put`.
    #[inline]
    fn read(reader: &mut Reader<'a>, put: impl FnOnce(Self)) -> Result<(), Malformed> {
        let Some(choice) = reader.peek() else { return Err(reader.error(Reason::Truncated)) };
        match choice {
            0xa0 => reader.within(choice, |reader| Command::read(reader, |command| put(Self::Command(command)))),
            0xa1 => reader.within(choice, Success::read).map(|success| put(Self::Success(success))),
            0xa2 => reader.within(choice, Reader::text).map(|text| put(Self::Failure(Text(text)))),
            0xa3 => reader.within(choice, Data::read).map(|data| put(Self::Data(data))),
            _ => Err(reader.error(Reason::Choice)),
        }
    }

    /// The octets that can be too many to be held, where this has some.
    #[must_use]
    pub fn image(&self) -> Option<&Image<'a>> {
        match self {
            Self::Command(Command::Unikernel(
                UnikernelCommand::Create(config) | UnikernelCommand::ForceCreate(config),
            )) => Some(&config.image),
            Self::Command(Command::Block(BlockCommand::OldAdd { data, .. })) => data.as_ref(),
            Self::Command(Command::Block(BlockCommand::OldSet { data, .. })) => Some(data),
            Self::Success(Success::Image { image, .. } | Success::OldBlockImage { image, .. }) => Some(image),
            Self::Data(Data::Block(chunk)) => chunk.as_ref(),
            _ => None,
        }
    }

    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Command(command) => writer.within(tag::context(0), |writer| command.write(writer)),
            Self::Success(success) => writer.within(tag::context(1), |writer| success.write(writer)),
            Self::Failure(text) => writer.within(tag::context(2), |writer| writer.text(text.0)),
            Self::Data(data) => writer.within(tag::context(3), |writer| data.write(writer)),
        }
    }
}

/// Reads a message.
///
/// # Errors
/// [`Malformed`] where it is not one of version 5; [`peek_header`] may still tell what to answer to.
pub fn decode(frame: Frame<'_>) -> Result<Message<'_>, Malformed> {
    // A message is large, by its name and its largest command: it is made where the caller wants it and never moved.
    let mut message = Ok(Message { header: Header::new(0, Name::ROOT), payload: Payload::Failure(Text(&[])) });
    if let Ok(place) = &mut message
        && let Err(error) = place.read(frame)
    {
        message = Err(error);
    }
    message
}

impl<'a> Message<'a> {
    #[inline]
    fn read(&mut self, frame: Frame<'a>) -> Result<(), Malformed> {
        let mut reader = Reader::with_cut(frame.head, frame.cut);
        let mut inner = reader.open(tag::SEQUENCE)?;
        self.header.read(&mut inner)?;
        Payload::read(&mut inner, |payload| self.payload = payload)?;
        inner.finish()?;
        reader.finish()?;
        match (frame.cut, self.payload.image()) {
            (None, _) => Ok(()),
            (Some(cut), Some(Image::Diverted { len })) if *len == cut.len => Ok(()),
            // What was taken out was in no place where the grammar has octets.
            (Some(cut), _) => Err(Malformed::new(Reason::Diverted, cut.at)),
        }
    }
}

/// Reads the header of a message whose rest may be wrong, missing or too long: for the refusal.
#[must_use]
pub fn peek_header(head: &[u8]) -> Option<Header> {
    let rest = head.strip_prefix(&[tag::SEQUENCE])?;
    let (first, rest) = rest.split_first()?;
    let digits = if *first < 0x80 { 0 } else { usize::from(*first & 0x7f) };
    let mut header = Header::new(0, Name::ROOT);
    header.read(&mut Reader::new(rest.get(digits..)?)).ok()?;
    Some(header)
}

/// Writes a message to the end of `buffer`, without the length that goes before it.
///
/// # Errors
/// [`Full`] when `buffer` is too small, or when the message has octets that are not in memory ([`encode_head`]).
pub fn encode<'b>(message: &Message<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
    let mut writer = Writer::new(buffer);
    write(&mut writer, &message.header, |writer| message.payload.write(writer));
    writer.finish()
}

/// Writes a message with its length before it, ready to be sent.
///
/// # Errors
/// As [`encode`].
pub fn encode_frame<'b>(message: &Message<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], Full> {
    match encode_head(message, buffer)? {
        Frame { head, cut: None } => Ok(head),
        Frame { cut: Some(_), .. } => Err(Full),
    }
}

/// Writes a message with its length before it and says where the octets belong that are sent from elsewhere
/// ([`Image::Diverted`]): the length counts them.
///
/// # Errors
/// [`Full`] when `buffer` is too small, or the whole is longer than a frame can be.
pub fn encode_head<'b>(message: &Message<'_>, buffer: &'b mut [u8]) -> Result<Frame<'b>, Full> {
    let mut writer = Writer::new(buffer);
    write(&mut writer, &message.header, |writer| message.payload.write(writer));
    finish_frame(writer)
}

/// Writes the reply that hands out a unikernel's image, up to the image: its `len` octets are sent after it.
/// The length of the frame stands before it and counts them.
///
/// # Errors
/// As [`encode_head`].
pub fn encode_image_head<'b>(
    header: &Header,
    compressed: bool,
    len: u64,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], Full> {
    let payload = Payload::Success(Success::Image { compressed, image: Image::Diverted { len } });
    encode_head(&Message { header: *header, payload }, buffer).map(|frame| frame.head)
}

/// Writes a message of this header around the payload.
#[inline]
pub(crate) fn write(writer: &mut Writer<'_>, header: &Header, payload: impl FnOnce(&mut Writer<'_>)) {
    writer.within(tag::SEQUENCE, |writer| {
        payload(writer);
        header.write(writer);
    });
}

/// Puts the length before the message, and where it went.
pub(crate) fn finish_frame<'b>(mut writer: Writer<'b>) -> Result<Frame<'b>, Full> {
    let len = i32::try_from(writer.written()).map_err(|_| Full)?;
    writer.bytes(&len.to_be_bytes());
    let (head, cut) = writer.finish_cut()?;
    Ok(Frame { head, cut })
}
