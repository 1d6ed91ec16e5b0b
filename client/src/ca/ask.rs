//! Questions to whoever sits at the terminal. Where nobody does, the answer has to be an option.

use std::io::{IsTerminal, stdin};

use super::Context;
use crate::error::Failure;

/// Asks for consent, which only `y` or `yes` is. Where there is no terminal the option is named that stands for it.
pub(super) fn consent(context: &mut Context<'_>, question: &str, option: &str) -> Result<(), Failure> {
    if !stdin().is_terminal() {
        return Err(Failure::Usage { text: format!("there is no terminal to ask '{question}': add {option} if so") });
    }
    let failed = write!(context.notes, "{question} [y/N] ").and_then(|()| context.notes.flush());
    failed.map_err(Failure::print)?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| Failure::Input { file: "standard input".into(), error })?;
    match answer.trim() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Usage { text: "not signed".to_owned() }),
    }
}
