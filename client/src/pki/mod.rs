//! Keys, certificates, requests and lists of revoked certificates: made, read, and told in words.
//!
//! What a chain means is decided in the core, where the daemon has it too; here are the files, and what makes them.

pub mod chain;
pub mod encode;
pub mod files;
pub mod issue;
pub mod key;
pub mod passphrase;
pub mod read;
pub mod register;
pub mod words;
