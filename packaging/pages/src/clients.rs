//! The pages of the clients, one for each subcommand too, and what completes their command lines in a shell.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{Foot, PagesError, put, roff};

/// The clients.
fn commands() -> [Command; 5] {
    use fulmar_client::{ca, local, program::command, remote, request};
    [
        command::<local::CommandLine>(),
        command::<remote::stored::CommandLine>(),
        command::<remote::bistro::CommandLine>(),
        command::<ca::CommandLine>(),
        command::<request::CommandLine>(),
    ]
}

/// Writes all of it.
pub(crate) fn write(out: &Path, foot: &Foot) -> Result<(), PagesError> {
    for mut command in commands() {
        let name = command.get_name().to_owned();
        for (shell, file) in [
            (Shell::Bash, format!("bash/{name}")),
            (Shell::Zsh, format!("zsh/_{name}")),
            (Shell::Fish, format!("fish/{name}.fish")),
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
            put(&out.join(file), &text)?;
        }
        command = command.disable_help_subcommand(true);
        command.build();
        pages_of(&command, None, out, foot)?;
    }
    Ok(())
}

/// The page of a command and those of its subcommands.
fn pages_of(command: &Command, above: Option<&str>, out: &Path, foot: &Foot) -> Result<(), PagesError> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = out.join("man/man1").join(format!("{name}.1"));
    let text = page(command, &name, above, foot).map_err(|error| PagesError::File(path.clone(), error))?;
    put(&path, &text)?;
    let subcommands = command.get_subcommands().filter(|it| !it.is_hide_set());
    for subcommand in subcommands {
        pages_of(subcommand, Some(&name), out, foot)?;
    }
    Ok(())
}

fn page(command: &Command, name: &str, above: Option<&str>, foot: &Foot) -> io::Result<Vec<u8>> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let title = name.to_uppercase();
    let man = Man::new(command.clone()).title(title).date(&foot.date).source(format!("Fulmar {}", foot.version));
    let man = man.manual("Fulmar");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    // Its lines stand as they are: clap_mangen would make one paragraph of them.
    for part in after.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let (heading, body) = match part.trim_start_matches('\n').split_once('\n') {
            Some((heading, body)) if heading.starts_with("Exit codes:") => ("EXIT STATUS", body),
            Some((heading, body)) if heading.starts_with("Example") => ("EXAMPLES", body),
            _ => ("NOTES", part),
        };
        text.extend(format!(".SH {heading}\n{}", roff::verbatim(body)).into_bytes());
    }
    let also = match above {
        Some(above) => format!(".BR {above} (1)"),
        None => ".BR vmmd (8),\n.BR vmmc_local (1),\n.BR vmmc_bistro (1),\n.BR vmmp_ca (1)".to_owned(),
    };
    text.extend(format!(".SH SEE ALSO\n{}\n", roff_names(&also)).into_bytes());
    Ok(text)
}

/// Names of pages with the hyphens that a user types.
fn roff_names(text: &str) -> String {
    text.replace('-', "\\-")
}
