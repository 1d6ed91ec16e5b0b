//! States that count as one go on as one: tried at all that are met twice, up to some number of states a graph.

use fulmar_verification::audit::audit;
use fulmar_verification::graphs::{Size, all};
use fulmar_verification::model::Search;

const STATES_MAX: usize = 3_000;

#[test]
fn what_counts_as_one_goes_on_as_one() {
    let mut pairs = 0;
    for graph in all(Size::Usual) {
        let name = graph.name;
        match audit(&Search::new(graph), STATES_MAX) {
            Ok(audit) => pairs += audit.pairs,
            Err(violation) => panic!("{name}: {violation}"),
        }
    }
    assert!(pairs > 9 * STATES_MAX, "{pairs}");
}
