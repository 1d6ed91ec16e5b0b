//! The clients of the daemons. One file a subcommand, thin programs; whoever carries the bytes is behind a trait.
//!
//! | room | what is in it |
//! |---|---|
//! | [`local`] | `vmmc_local`: the command line, from arguments to exit code |
//! | [`commands`] | the subcommands |
//! | [`arguments`] | what a unikernel runs with |
//! | [`connection`] | frames, time-outs, the ways to a daemon |
//! | [`image`], [`devices`] | a unikernel's image in a file, and whether it fits what it is given |
//! | `fetch` | the reply that is an image |
//! | [`options`] | values on the command line |
//! | [`output`] | tables, JSON, text |
//! | [`error`] | what can go wrong, and the exit codes |

pub mod arguments;
pub mod commands;
pub mod connection;
pub mod devices;
pub mod error;
mod fetch;
pub mod image;
pub mod local;
pub mod options;
pub mod output;
