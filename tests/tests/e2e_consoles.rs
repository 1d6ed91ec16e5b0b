//! Several consoles at once, as people follow them: each line after its name, whole, in colours on a terminal alone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use fulmar_tests::siege::Siege;
use fulmar_tests::skips::skip;

/// The lines that a program prints, until it is ended.
struct Lines {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Lines {
    fn of(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Reads until each of these has been seen in some line, and gives back all lines.
    fn until(&mut self, texts: &[&str]) -> Vec<String> {
        let mut heard = Vec::<String>::new();
        while !texts.iter().all(|text| heard.iter().any(|line| line.contains(text))) {
            assert!(heard.len() < 1000, "{heard:#?}");
            heard.push(self.lines.next().expect("it has ended").unwrap());
        }
        heard
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn several_consoles_are_followed_at_once() {
    const TEST: &str = "several_consoles_are_followed_at_once";
    let Some(siege) = Siege::begin(TEST) else { return };
    let image = siege.image("hello");
    assert_eq!(siege.client(&["add-policy", "two:", "2", "--mem", "64", "--cpu", "0"]).code, 0);
    assert_eq!(siege.client(&["create", "two:a", &image, "--mem", "16"]).code, 0);
    // One does not run yet, and one is named twice.
    let names = ["console", "-f", "two:a", "two:longer", "two:a"];
    let mut both = Lines::of(siege.system.client(&names));
    both.until(&["two:a      20"]);
    assert_eq!(siege.client(&["create", "two:longer", &image, "--mem", "16"]).code, 0);
    let heard = both.until(&["I am longer", "two:longer 20", "tick 1"]);
    for line in &heard {
        assert!(line.starts_with("two:a      20") || line.starts_with("two:longer 20"), "{line}");
    }
    assert_eq!(heard.iter().filter(|line| line.starts_with("two:longer") && line.contains("I am longer")).count(), 1);
    drop(both);

    let mut documents = Lines::of(siege.system.client(&[&names[..], &["--json"]].concat()));
    for line in documents.until(&["\"two:a\"", "\"two:longer\""]) {
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(document["line"].is_string() && document["time"].is_string(), "{document}");
    }
    drop(documents);

    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        skip(TEST, "there is no `script` to pretend a terminal: colours are not tried");
        return siege.system.stop().unwrap();
    }
    let client = siege.system.client(&names);
    let words: Vec<_> = std::iter::once(client.get_program()).chain(client.get_args()).collect();
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
    for (no_color, has_colours) in [(None, true), (Some("1"), false), (Some(""), true)] {
        let mut command = Command::new("script");
        command.args(["-q", "-f", "-c", &words.join(" "), "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
        if let Some(value) = no_color {
            command.env("NO_COLOR", value);
        }
        let heard = Lines::of(command).until(&["two:a", "two:longer"]).concat();
        for colour in ["\u{1b}[36mtwo:a     \u{1b}[0m ", "\u{1b}[33mtwo:longer\u{1b}[0m "] {
            assert_eq!(heard.contains(colour), has_colours, "{no_color:?}: {heard:?}");
        }
    }
    let refused = siege.client(&["console", "two:a", "two:"]);
    assert_eq!(refused.code, 124, "{refused:?}");
    siege.system.stop().unwrap();
}
