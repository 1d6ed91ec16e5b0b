//! `cargo xtask pictures`: what people see on a terminal, as pictures for the README: the demo, and `vmmc_local top` beside some
//! unikernels. The programs are the real ones; what they draw is read as a terminal reads it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fulmar_tests::built::Kind;
use fulmar_tests::system::{self, System};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::build;
use crate::guard;
use crate::steps::{Done, Failure, root};

const COLUMNS: u16 = 110;
/// Rows of `top`, and of the demo, which says more the longer it builds.
const TOP_ROWS: u16 = 30;
const DEMO_ROWS: u16 = 48;

/// Until `top` has drawn plots.
const WATCHED: Duration = Duration::from_secs(24);

/// A cell of the picture.
const CELL_WIDTH: f32 = 8.4;
const CELL_HEIGHT: f32 = 18.0;

/// The unikernels beside which `top` is shown: name, image, memory in MB.
const SHOWN: [(&str, &str, &str); 6] = [
    ("shop:web", "hello", "32"),
    ("shop:stock", "hello", "16"),
    ("shop:mail", "hello", "64"),
    ("lab:model", "spin", "16"),
    ("lab:notes", "hello", "16"),
    ("monitor", "hello", "8"),
];

pub(crate) fn run() -> Done {
    let mut demo = Command::new(std::env::current_exe().map_err(|error| Failure(error.to_string()))?);
    demo.arg("demo");
    // Builds first, so that the picture is of the rest.
    let programs = build::programs()?;
    let guests = build::guests(&programs)?;
    save("docs/demo.svg", &screen(&mut demo, DEMO_ROWS, None)?)?;

    let folder = system::make_folder("picture")?;
    let guard = guard::start(&folder)?;
    let mut system = System::new(folder, programs.folder().to_path_buf())?;
    system.start_vmmd(&[])?;
    system.start_console()?;
    system.start_log(&[])?;
    system.start_stats(&["--interval", "1"].map(OsStr::new))?;
    for path in [["shop:", "4", "--mem=128", "--cpu=0"], ["lab:", "3", "--mem=64", "--cpu=1"]] {
        client(&system, &[&["add-policy"], path.as_slice()].concat())?;
    }
    for (name, image, mb) in SHOWN {
        let image = guests.image(image, Kind::Spt);
        let cpu = if name.starts_with("lab") { "1" } else { "0" };
        let image = image.to_string_lossy();
        client(&system, &["create", name, &image, "--mem", mb, "--cpu", cpu])?;
    }
    let mut top = system.client(&["top", "--interval", "1"]);
    let drawn = screen(&mut top, TOP_ROWS, Some(WATCHED));
    system.stop()?;
    drop(guard);
    save("docs/top.svg", &drawn?)
}

fn client(system: &System, words: &[&str]) -> Done {
    let said = system.client(words).stdout(Stdio::null()).status().map_err(|error| Failure(error.to_string()))?;
    if said.success() { Ok(()) } else { Err(Failure(format!("vmmc_local {}: {said}", words.join(" ")))) }
}

/// What a program has drawn on a terminal when it has ended, or when it was ended after a time.
fn screen(command: &mut Command, rows: u16, after: Option<Duration>) -> Done<vt100::Parser> {
    let failed = |error: &dyn std::fmt::Display| Failure(format!("no terminal: {error}"));
    let size = Winsize { ws_row: rows, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(Some(&size), None).map_err(|error| failed(&error))?;
    let end = || pair.slave.try_clone().map_err(|error| failed(&error));
    command.env("TERM", "xterm-256color").stdin(end()?).stdout(end()?).stderr(end()?);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    // The command holds the other end too: without it the end of the program is seen.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(pair.slave);
    let mut written = File::from(pair.master);
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read) = written.read(&mut buffer) {
            if sender.send(buffer.get(..read).unwrap_or_default().to_vec()).is_err() {
                return;
            }
        }
    });
    let mut terminal = vt100::Parser::new(rows, COLUMNS, 0);
    let begun = Instant::now();
    let left = || after.map_or(system::PATIENCE, |after| after.saturating_sub(begun.elapsed()));
    while let Ok(piece) = pieces.recv_timeout(left()) {
        terminal.process(&piece);
    }
    if after.is_some() {
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX)), Signal::SIGKILL);
    }
    let ended = child.wait().map_err(|error| failed(&error))?;
    if after.is_none() && !ended.success() { Err(Failure(format!("{command:?}: {ended}"))) } else { Ok(terminal) }
}

fn save(file: &str, terminal: &vt100::Parser) -> Done {
    let path = root().join(file);
    fs::write(&path, draw(terminal)).map_err(|error| Failure(format!("cannot write {file}: {error}")))?;
    println!("== {file}");
    Ok(())
}

/// The screen as SVG, from the first command that is typed there, if any, and without the empty rows below; a run of cells of one look is
/// one text.
fn draw(terminal: &vt100::Parser) -> String {
    let screen = terminal.screen();
    let (rows, columns) = screen.size();
    let is_used =
        |row: &u16| (0..columns).any(|column| screen.cell(*row, column).is_some_and(|cell| cell.has_contents()));
    let last = (0..rows).rfind(is_used).unwrap_or(0);
    let is_typed = |row: &u16| screen.contents_between(*row, 0, *row, 2) == "$ ";
    let first = (0..=last).find(is_typed).unwrap_or(0);
    let (width, height) = (f32::from(columns) * CELL_WIDTH + 24.0, f32::from(last - first + 1) * CELL_HEIGHT + 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"monospace\" \
         font-size=\"14\" xml:space=\"preserve\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16191d\"/>\n"
    );
    for row in first..=last {
        let mut column = 0;
        while column < columns {
            let Some(cell) = screen.cell(row, column) else { break };
            let look = look(cell);
            let begin = column;
            let mut text = String::new();
            while let Some(cell) = screen.cell(row, column).filter(|cell| self::look(cell) == look) {
                text.push_str(if cell.has_contents() { cell.contents() } else { " " });
                column += 1;
                if column == columns {
                    break;
                }
            }
            put(&mut svg, row - first, begin, column - begin, &text, &look);
        }
    }
    svg + "</svg>\n"
}

/// Colour of the text, of what is behind it, and whether it is bold.
type Look = (&'static str, Option<&'static str>, bool);

fn look(cell: &vt100::Cell) -> Look {
    let (front, back) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
    if cell.inverse() {
        (back.unwrap_or("#16191d"), Some(front.unwrap_or("#d7dadd")), cell.bold())
    } else {
        (front.unwrap_or("#d7dadd"), back, cell.bold())
    }
}

/// A colour of a terminal as a terminal shows it; none where it has its own.
fn colour(colour: vt100::Color) -> Option<&'static str> {
    const COLOURS: [&str; 16] = [
        "#3a3f45", "#d9605a", "#7bb661", "#d6a84b", "#5f9bd6", "#b07cc6", "#55b0b0", "#d7dadd", "#7d848c", "#f0837c",
        "#9bd182", "#ecc873", "#86b8ea", "#cb9edd", "#7fcfcf", "#ffffff",
    ];
    match colour {
        vt100::Color::Default | vt100::Color::Rgb(..) => None,
        vt100::Color::Idx(index) => COLOURS.get(usize::from(index)).copied(),
    }
}

fn put(svg: &mut String, row: u16, column: u16, cells: u16, text: &str, (front, back, is_bold): &Look) {
    let (x, y) = (12.0 + f32::from(column) * CELL_WIDTH, 12.0 + f32::from(row) * CELL_HEIGHT);
    let width = f32::from(cells) * CELL_WIDTH;
    if let Some(back) = back {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{CELL_HEIGHT}\" fill=\"{back}\"/>"
        );
    }
    if !text.trim().is_empty() {
        let weight = if *is_bold { " font-weight=\"bold\"" } else { "" };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{width:.1}\" fill=\"{front}\"{weight}>{text}</text>",
            y + 13.5
        );
    }
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn what_was_before_the_first_command_is_left_out() {
        let mut terminal = vt100::Parser::new(5, 20, 0);
        terminal.process(b"building\r\n$ create\r\ncreated");
        let svg = draw(&terminal);
        assert!(
            !svg.contains("building") && svg.contains(">$ create") && svg.contains("viewBox=\"0 0 192 60\""),
            "{svg}"
        );
    }

    #[test]
    fn colours_and_places_are_those_of_the_screen() {
        let mut terminal = vt100::Parser::new(5, 20, 0);
        terminal.process(b"plain \x1b[31mred <\x1b[0m\r\n\x1b[7;1mbar\x1b[0m");
        let svg = draw(&terminal);
        assert!(svg.contains("fill=\"#d9605a\">red &lt;</text>"), "{svg}");
        assert!(svg.contains("font-weight=\"bold\">bar</text>"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 192 60\""), "{svg}");
    }
}
