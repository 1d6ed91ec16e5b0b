//! Going through all states that a small host can reach, with the real machine in its middle.
//!
//! | room | what is in it |
//! |---|---|
//! | [`model`] | the simulated host as a graph |
//! | [`graphs`] | what can happen in each |
//! | [`audit`] | whether states that count as one go on as one |
//! | [`table`] | which input leads from which phase where |
//! | [`brief`] | the checks that a planted bug must not pass |
//! | [`mutants`] | planting bugs |

pub mod audit;
pub mod brief;
pub mod graphs;
pub mod model;
pub mod mutants;
pub mod table;
