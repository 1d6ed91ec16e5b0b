//! `top`: shows everything at once and goes on, or once as a table or a document.

use std::io::{IsTerminal, stdin, stdout};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Args;
use fulmar_core::name::Name;
use serde_json::{Value, json};

use super::Context;
use crate::error::Failure;
use crate::options;
use crate::output::table::{Align, Table};
use crate::top::draw::{cells, shares};
use crate::top::feed;
use crate::top::model::Model;
use crate::top::screen;
use crate::top::survey::{Domain, Share};

/// How long measurements are waited for that are shown once; where others are subscribed they come later, or without rates.
const MEASURED: Duration = Duration::from_secs(2);

/// The command line of `top`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  vmmc_local top
  vmmc_local top shop: --once")]
pub struct Top {
    /// A path, for all in it and below; all where it is missing
    #[arg(value_name = "PATH", value_parser = options::path)]
    path: Option<Name>,
    /// Show it once, and end
    #[arg(long)]
    once: bool,
    /// Ask vmmd again after N seconds
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

impl Top {
    /// Does it.
    ///
    /// # Errors
    /// [`Failure`], as it says.
    pub fn run(&self, context: &mut Context<'_>) -> Result<(), Failure> {
        let path = self.path.unwrap_or(context.door.root());
        if self.once || context.json {
            return show_once(context, path);
        }
        if !stdin().is_terminal() || !stdout().is_terminal() {
            let text = "top needs a terminal: add --once or --json".to_owned();
            return Err(Failure::Usage { text });
        }
        screen::show(context.door, path, Duration::from_secs(self.interval))
    }
}

fn show_once(context: &mut Context<'_>, path: Name) -> Result<(), Failure> {
    let mut model = Model::default();
    model.hear(feed::News::Survey(crate::top::survey::ask(context.door, path)?));
    let (sender, news) = channel();
    feed::usage(context.door.again(), path, sender);
    let end = Instant::now() + MEASURED;
    while model.measured.len() < model.unikernels.len() && model.away.is_empty() {
        match news.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(it) => model.hear(it),
            Err(_) => break,
        }
    }
    if let Some(why) = model.away.values().next() {
        context.note(&format!("nothing is measured: {why}"));
    }
    if context.json {
        let document = document(&model);
        return context.print_json(&document);
    }
    let mut table =
        Table::new([("NAME", Align::Left), ("STATE", Align::Left), ("RUNS", Align::Right), ("MEMORY", Align::Right)]);
    for name in model.rows() {
        let [name, state, runs, _, _, memory, ..] = cells(&model, &name, context.now_unix_ms);
        table.push([name, state, runs, memory]);
    }
    if table.is_empty() {
        context.note(&format!("no unikernel at {path} or below"));
    } else {
        table.write(context.out).map_err(Failure::print)?;
    }
    if model.domains.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ("PATH", Align::Left),
        ("UNIKERNELS", Align::Left),
        ("MEMORY", Align::Left),
        ("BLOCK", Align::Left),
    ]);
    for (path, domain) in &model.domains {
        let [unikernels, memory, block] = shares(domain);
        table.push([path.to_string(), unikernels, memory, block]);
    }
    writeln!(context.out).and_then(|()| table.write(context.out)).map_err(Failure::print)
}

fn document(model: &Model) -> Value {
    let unikernels = model.unikernels.iter().map(|(name, it)| {
        json!({
            "name": name.as_str(),
            "state": it.phase.map(fulmar_core::wire::Phase::as_str),
            "started": it.started_unix_ms.map(crate::output::text::timestamp),
            "restarts": it.restarts,
            "memory_mb": it.memory_mb,
            "resident_bytes": model.measured.get(name).map(|measured| measured.resident),
        })
    });
    let share = |share: Share| json!({ "used": share.used, "allowed": share.allowed });
    let domains = model.domains.iter().map(|(path, domain)| {
        let Domain { unikernels, memory_mb, block_mb } = *domain;
        json!({
            "path": path.as_str(),
            "unikernels": share(unikernels),
            "memory_mb": share(memory_mb),
            "block_mb": share(block_mb),
        })
    });
    json!({ "unikernels": unikernels.collect::<Vec<_>>(), "domains": domains.collect::<Vec<_>>() })
}
