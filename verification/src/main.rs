//! `cargo xtask verify` runs this.

use std::time::Instant;
use fulmar_verification::{graphs::{self, Size}, model::Search};
use stateright::{Checker, HasDiscoveries, Model};

fn main() {
    let size = match std::env::args().nth(2).as_deref() { Some("usual") => Size::Usual, Some("larger") => Size::Larger, _ => Size::Brief };
    if std::env::args().nth(1).as_deref() == Some("audit") {
        for graph in graphs::all(size) { match fulmar_verification::audit::audit(&Search::new(graph), 60000) { Ok(a) => println!("{a:?}"), Err(e) => println!("{}", e.replace("\\n", "\n")) } }
 return; }
    for graph in graphs::all(size) {
        let begun = Instant::now();
        let name = graph.name;
        let checker = Search::new(graph).checker().threads(2).finish_when(HasDiscoveries::Any).spawn_dfs().join();
        println!("{name}: {} states, {} edges, depth {}, {:.1} s", checker.unique_state_count(), checker.state_count(), checker.max_depth(), begun.elapsed().as_secs_f64());
        for (what, path) in checker.discoveries() {
            println!("not so: {what}");
            let last = path.last_state().clone();
            for action in path.into_actions() { println!("    {action:?}"); }
            println!("{:?} {:?}", last.violation, checker.model().settle(&last));
        }
    }
}
