//! The pages that are written by hand. Each is a man(7) page with places such as `@OPTIONS@`, alone on a line, where what the program
//! says comes; `@SETTINGS vmmd_log@` is what another program says. `@VERSION@` and `@DATE@` may stand anywhere.

use std::fs;
use std::path::Path;

use crate::help::Help;
use crate::{Foot, PagesError, put};

/// Writes all of them.
pub(crate) fn write(programs: &Path, out: &Path, foot: &Foot) -> Result<(), PagesError> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../man");
    let fail = |error| PagesError::File(folder.clone(), error);
    for entry in fs::read_dir(&folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let text = fs::read_to_string(&path).map_err(|error| PagesError::File(path.clone(), error))?;
        let (program, section) = (path.file_stem().unwrap_or_default(), path.extension().unwrap_or_default());
        let page = fill(&text, &path, &programs.join(program), foot)?;
        let place = out.join(format!("man/man{}", section.display())).join(path.file_name().unwrap_or_default());
        put(&place, page.as_bytes())?;
    }
    Ok(())
}

fn fill(text: &str, path: &Path, program: &Path, foot: &Foot) -> Result<String, PagesError> {
    let text = text.replace("@VERSION@", &foot.version).replace("@DATE@", &foot.date);
    let mut page = String::new();
    for line in text.lines() {
        let Some(place) = line.strip_prefix('@').and_then(|it| it.strip_suffix('@')) else {
            page += line;
            page += "\n";
            continue;
        };
        let (place, of) = match place.split_once(' ') {
            Some((place, other)) => (place, program.with_file_name(other)),
            None => (place, program.to_owned()),
        };
        let says = Help::of(&of)?.at(place);
        page += &says.ok_or_else(|| PagesError::Place(path.to_owned(), place.to_owned()))?;
    }
    Ok(page)
}
