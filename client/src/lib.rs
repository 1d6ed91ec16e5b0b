//! The clients of the daemons. One file a subcommand, thin programs; whoever carries the bytes is behind a trait.
//!
//! | room | what is in it |
//! |---|---|
//! | [`local`] | `vmmc_local`: the command line, from arguments to exit code |
//! | [`ca`] | `vmmp_ca`: signs, lists, revokes |
//! | [`request`] | `vmmp_request`: asks for certificates |
//! | [`remote`] | `vmmc_remote` and `vmmc_bistro`: other hosts, by TLS |
//! | [`program`] | what all programs have in common |
//! | [`commands`] | the subcommands |
//! | [`arguments`] | what a unikernel runs with |
//! | [`connection`] | frames, time-outs, the ways to a daemon |
//! | [`image`], [`devices`] | a unikernel's image in a file, and whether it fits what it is given |
//! | `fetch` | the reply that is an image |
//! | [`content`] | the content of a block device, on its way to a daemon |
//! | [`new_file`] | files that are written with what a daemon sends |
//! | [`deploy`] | bringing a host to what a manifest wants |
//! | [`import`] | bringing a host of albatross over |
//! | [`options`] | values on the command line |
//! | `progress` | how far an upload or download is, on a terminal |
//! | [`output`] | tables, JSON, text |
//! | [`pki`] | keys, certificates, requests, lists of revoked certificates |
//! | `top` | the view of everything at once |
//! | [`error`] | what can go wrong, and the exit codes |

pub mod arguments;
pub mod ca;
pub mod commands;
pub mod connection;
pub mod content;
pub mod deploy;
pub mod devices;
pub mod error;
mod fetch;
pub mod image;
pub mod import;
mod input;
pub mod local;
pub mod new_file;
pub mod options;
pub mod output;
pub mod pki;
pub mod program;
mod progress;
pub mod remote;
pub mod request;
mod top;
