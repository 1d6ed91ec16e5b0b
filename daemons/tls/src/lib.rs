//! The TLS end: it takes commands from afar. Who somebody is and what is to be done stands in the certificates that come with the
//! handshake; what comes of it is said to the daemons of this host over their sockets. It has no privilege, and decides nothing but
//! whether a chain of certificates is what it must be.
//!
//! | file | what is in it |
//! |---|---|
//! | `options` | the command lines of both programs |
//! | `start` | how both begin and end |
//! | `keys` | the files of the CA and of the server |
//! | `verdict` | whether a chain is good, and what it asks for |
//! | `revoked` | the lists of revoked certificates, in memory and on the disk |
//! | `server` | the event loop: who is ready, who is late, who is one too many |
//! | `connection` | one client: the handshake, then between it and a daemon of this host, stage by stage (`steps`) |
//! | `local` | a conversation with a daemon of this host |
//! | `removal` | what is removed with a revocation |
//! | `events` | what the event log is told |

mod connection;
mod events;
mod keys;
mod local;
mod options;
mod removal;
mod revoked;
mod server;
pub mod start;
mod verdict;
