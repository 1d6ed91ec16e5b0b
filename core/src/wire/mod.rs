//! Every message of wire version 5 (`docs/wire.md`): decoded without copying, encoded in one pass.
//!
//! Decoding accepts all that the peer's encoder can produce, and what we encode decodes to the same. Whether a value
//! makes sense (a size of -1) is not decided here. No message may grow what we hold beyond its frame.
//!
//! | file | what is in it |
//! |---|---|
//! | `message` | the header, the payload, [`decode`], [`encode`] and their relatives |
//! | `listing` | replies that are long lists, written from iterators |
//! | `console`, `stats`, `log`, `unikernel`, `policy`, `block` | the commands, a file for each daemon or noun |
//! | `config`, `device` | what a unikernel is made of |
//! | `success`, `info`, `condition`, `host`, `data`, `event`, `usage` | replies and streams |
//! | `list`, `text` | lists that are read lazily, text that nobody checked |

mod block;
mod condition;
mod config;
mod console;
mod data;
mod device;
mod event;
mod host;
mod info;
mod list;
mod listing;
mod log;
mod message;
mod policy;
mod stats;
mod success;
mod text;
mod unikernel;
mod usage;

pub use block::{BlockCommand, BlockInfo};
pub use condition::{Condition, LastRun, NamedCondition, Phase, RunEnd};
pub use config::{Arguments, Config, FailBehaviour, Image, Kind};
pub(crate) use config::{Era, read_argv};
pub use console::{ConsoleCommand, Window};
pub use data::Data;
pub use device::{BlockDevice, Bridge};
pub use event::{Deed, Event, ExitStatus, Login, Loss, Next};
pub use host::{Fact, HostInfo, Use};
pub use info::{Info, InfoBlock, InfoBridge, NamedInfo};
pub(crate) use list::Order;
pub use list::{Encoded, Form, Item, Iter, List};
pub use listing::{InfoForm, encode_blocks, encode_conditions, encode_consoles, encode_infos, encode_policies};
pub use log::{GapCause, LogCommand, LogEntry, LogFrom, Note, Numbered};
pub use message::{
    Command, Frame, Header, Message, Payload, VERSION, decode, encode, encode_frame, encode_head, encode_image_head,
    peek_header,
};
pub use policy::{NamedPolicy, Policy, PolicyCommand};
pub use stats::{StatsCommand, Tap};
pub use success::Success;
pub use text::Text;
pub use unikernel::UnikernelCommand;
pub use usage::{Counter, Interface, Memory, Moment, Rusage, Usage};

pub use crate::der::{Cut, Full, Malformed, Reason};

#[cfg(test)]
mod tests;
