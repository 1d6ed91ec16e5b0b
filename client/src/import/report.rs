//! What becomes of each item of an import: a line for people as it happens, one document for programs at the end.

use serde_json::{Value, json};

use crate::commands::Context;
use crate::error::Failure;
use crate::output::text::{heading, plain};

/// What is brought over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Policy,
    Block,
    Unikernel,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Block => "block",
            Self::Unikernel => "unikernel",
        }
    }
}

/// What becomes of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It came over, or would.
    Imported,
    /// It is there already, the same.
    There,
    /// It is not wanted here, and that is right.
    LeftOut,
    /// Something else of its name is there, which stays.
    Conflict,
    /// It cannot come over.
    Refused,
}

impl Fate {
    /// In JSON: a promise to scripts.
    fn name(self) -> &'static str {
        match self {
            Self::Imported => "imported",
            Self::There => "there",
            Self::LeftOut => "left out",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
        }
    }

    /// Whether something of albatross is not here afterwards.
    pub(super) fn is_loss(self) -> bool {
        matches!(self, Self::Conflict | Self::Refused)
    }

    fn words(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Imported, false) => "came over",
            (Self::Imported, true) => "would come over",
            (Self::There, _) => "is there already",
            (Self::LeftOut, _) => "left out",
            (Self::Conflict, _) => "conflict",
            (Self::Refused, false) => "did not come over",
            (Self::Refused, true) => "would not come over",
        }
    }
}

/// An item's fate, why, and what mends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) fate: Fate,
    pub(super) reason: Option<String>,
    pub(super) remedy: Option<String>,
}

impl Outcome {
    pub(super) fn plain(fate: Fate) -> Self {
        Self { fate, reason: None, remedy: None }
    }

    pub(super) fn because(fate: Fate, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::plain(fate) }
    }

    pub(super) fn mended_by(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// The report of an import.
pub(super) struct Report<'c, 'a> {
    pub(super) context: &'c mut Context<'a>,
    dry_run: bool,
    name_width: usize,
    items: Vec<Value>,
    lost: usize,
}

impl<'c, 'a> Report<'c, 'a> {
    /// A report whose names have up to `name_width` characters.
    pub(super) fn new(context: &'c mut Context<'a>, dry_run: bool, name_width: usize) -> Self {
        Self { context, dry_run, name_width, items: Vec::new(), lost: 0 }
    }

    /// What the state file holds, and the heading of what follows.
    pub(super) fn begin(&mut self, holds: &str) -> Result<(), Failure> {
        if self.context.json {
            return Ok(());
        }
        let (out, width) = (&mut self.context.out, self.name_width);
        writeln!(out, "{holds}\n{:<9}  {:<width$}  RESULT", "WHAT", "NAME").map_err(Failure::print)
    }

    /// One item is done with.
    pub(super) fn item(&mut self, kind: Kind, name: &str, outcome: &Outcome) -> Result<(), Failure> {
        let Outcome { fate, reason, remedy } = outcome;
        self.lost += usize::from(fate.is_loss());
        self.items.push(json!({
            "kind": kind.name(), "name": name, "result": fate.name(), "reason": reason, "remedy": remedy,
        }));
        if self.context.json {
            return Ok(());
        }
        let (out, width) = (&mut self.context.out, self.name_width);
        let name = plain(name.as_bytes());
        let mut text = format!("{:<9}  {name:<width$}  {}", kind.name(), fate.words(self.dry_run));
        if let Some(reason) = reason {
            text.push_str(": ");
            text.push_str(&plain(reason.as_bytes()));
        }
        if let Some(remedy) = remedy {
            text.push_str(&format!("\n{:<9}  {:<width$}  {}", "", "", plain(remedy.as_bytes())));
        }
        // At once: the next item can take a while.
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::print)
    }

    /// This item was the last that was tried; what became of it is not known.
    pub(super) fn stopped_at(&mut self, kind: Kind, name: &str) {
        let name = heading(&plain(name.as_bytes()));
        self.context.note(&format!("stopped at {} {name} import again, what came over stays", kind.name()));
    }

    /// The end, which came `early` when the rest was not tried.
    ///
    /// # Errors
    /// [`Failure::Print`], [`Failure::Incomplete`] where something did not come over.
    pub(super) fn end(self, file: &str, generation: u8, early: bool) -> Result<(), Failure> {
        let (lost, items) = (self.lost, self.items.len());
        if self.context.json {
            self.context.print_json(&json!({
                "state": file, "generation": generation, "dry_run": self.dry_run, "items": self.items,
                "complete": lost == 0 && !early,
            }))?;
        }
        if lost > 0 { Err(Failure::Incomplete { lost, items, dry_run: self.dry_run }) } else { Ok(()) }
    }
}
