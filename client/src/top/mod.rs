//! A view of everything at once that goes on: what runs and what it uses, what paths use of what they may, what happens, and what
//! the chosen unikernel says.
//!
//! | file | what is in it |
//! |---|---|
//! | `survey` | what `vmmd` says, asked now and then |
//! | `feed` | threads that listen to the daemons |
//! | `model` | what is known and chosen, and what a key does to it |
//! | `draw` | a picture of it |
//! | `screen` | the terminal |

pub(crate) mod draw;
pub(crate) mod feed;
pub(crate) mod model;
pub(crate) mod screen;
pub(crate) mod survey;
