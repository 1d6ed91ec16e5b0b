//! `docs/security.md`: the tables of what has to be trusted and of the calls that are allowed, against what the processes are made of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The processes as the table has them: the package of each, and what of that package's source is not its own.
const PROCESSES: &[(&str, &str, &[&str])] = &[
    ("`vmmd`, host half", "fulmar-vmmd", &["control", "decide.rs"]),
    ("`vmmd`, control half", "fulmar-vmmd", &["host_half"]),
    ("`vmmd_console`", "fulmar-console", &[]),
    ("`vmmd_log`", "fulmar-log", &[]),
    ("`vmmd_stats`", "fulmar-stats", &[]),
    ("`vmmd_tls`", "fulmar-tls", &[]),
    ("`vmmd_influx`", "fulmar-influx", &[]),
    ("`fulmar-tender`", "fulmar-tender", &[]),
];

/// Files and folders that no user has.
const NOT_SHIPPED: &[&str] = &["tests", "tests.rs", "fuzzing.rs", "fake.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// What cargo knows of the workspace on Linux.
struct Packages {
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
}

impl Packages {
    fn read() -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ]);
        let said = command.current_dir(root()).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let metadata: Value = serde_json::from_slice(&said.stdout).unwrap();
        let by_id = |list: &Value| array(list).iter().map(|it| (text(it, "id").to_owned(), it.clone())).collect();
        Self { packages: by_id(&metadata["packages"]), nodes: by_id(&metadata["resolve"]["nodes"]) }
    }

    /// The package and all that ends up in its program: what only the compiler runs does not.
    fn linked(&self, name: &str) -> Vec<&Value> {
        let (id, _) = self.packages.iter().find(|(_, package)| text(package, "name") == name).unwrap();
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![id.as_str()]);
        while let Some(id) = ahead.pop() {
            let for_compiler = |target: &Value| array(&target["kind"]).iter().any(|kind| kind == "proc-macro");
            if array(&self.packages[id]["targets"]).iter().any(for_compiler) || !seen.insert(id) {
                continue;
            }
            let of_program =
                |dependency: &&Value| array(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
            ahead.extend(array(&self.nodes[id]["deps"]).iter().filter(of_program).map(|it| text(it, "pkg")));
        }
        seen.into_iter().map(|id| &self.packages[id]).collect()
    }
}

/// Lines of Rust below a folder that are neither blank nor all comment, without tests.
fn lines_below(folder: &Path, without: &[&str]) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let counted = entries.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        !NOT_SHIPPED.contains(&name) && !without.contains(&name)
    });
    let count = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => lines_below(&path, &[]),
        Some(kind) if kind == "rs" => lines_of(&fs::read_to_string(path).unwrap()),
        _ => 0,
    };
    counted.map(count).sum()
}

fn lines_of(source: &str) -> usize {
    // Tests stand at the end of a file.
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn lines_are_counted_as_the_document_says() {
    assert_eq!(
        lines_of("//! What.\n\nfn f() {} // why\n    // because\n\n#[cfg(test)]\nmod tests {\n    fn g() {}\n}\n"),
        1
    );
    assert_eq!(lines_of("#[cfg(test)]\nmod tests;\n"), 2);
}

#[test]
fn the_table_of_what_is_trusted_is_true() {
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let section = document.split("\n## ").find(|section| section.starts_with("The processes")).unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(names, PROCESSES.iter().map(|(process, ..)| *process).collect::<Vec<_>>(), "the processes");
    let packages = Packages::read();
    let mut wrong = Vec::new();
    for (row, (_, name, without)) in rows.iter().zip(PROCESSES) {
        let (ours, others): (Vec<&Value>, Vec<&Value>) =
            packages.linked(name).into_iter().partition(|package| package["source"].is_null());
        let lines: usize = ours
            .iter()
            .map(|package| {
                let source = Path::new(text(package, "manifest_path")).with_file_name("src");
                lines_below(&source, if text(package, "name") == *name { without } else { &[] })
            })
            .sum();
        assert!(lines > 1000, "{name}: {lines}");
        let crates = others.len();
        let said: usize = row[4].replace(',', "").parse().unwrap_or(0);
        if said.abs_diff(lines) * 20 > lines || row[5] != crates.to_string() {
            let lines = lines.next_multiple_of(100);
            let lines = format!("{},{:03}", lines / 1000, lines % 1000);
            wrong.push(format!("| {} | {lines} | {crates} |", row[..4].join(" | ")));
        }
    }
    assert!(wrong.is_empty(), "docs/security.md should have these rows:\n{}", wrong.join("\n"));
}

/// Each row of which no test can be sure says why: `e2e_sandbox.rs` and `daemons/tls/tests/sandbox.rs` see all others.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn the_numbers_of_allowed_calls_are_true() {
    use fulmar_shim_linux::sandbox::{Program, Unseen, rows};
    let document = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut wrong = Vec::new();
    let kinds = [Unseen::Memory, Unseen::Race, Unseen::Library, Unseen::Module, Unseen::Kernel, Unseen::Build];
    for (process, program) in [
        ("`vmmd`, control half", Program::Control),
        ("`vmmd_console`", Program::Console),
        ("`vmmd_log`", Program::Log),
        ("`vmmd_stats`", Program::Stats),
        ("`vmmd_tls`", Program::Tls),
        ("`vmmd_influx`", Program::Influx),
    ] {
        let rows = rows(program);
        let seen = rows.iter().filter(|row| row.unseen.is_none()).count();
        let unseen = kinds.map(|kind| rows.iter().filter(|row| row.unseen == Some(kind)).count().to_string());
        let row = format!("| {process} | {seen} | {} |", unseen.join(" | "));
        if !document.contains(&row) {
            wrong.push(row);
        }
    }
    assert!(wrong.is_empty(), "docs/security.md should have these rows:\n{}", wrong.join("\n"));
}
