//! Our tender beside the original ones, which an operator names in `SOLO5_HVT` and `SOLO5_SPT`. Every figure is measured pair
//! by pair in one run, so that whatever else the machine does hits both.

mod block;
mod echo;
mod figures;
mod http;
mod memory;
mod network;
mod stage;
mod start;

use std::fs::File;

use fulmar_tests::built::Kind;
use fulmar_tests::skips::skip;
use fulmar_tests::system;

use super::Bench;
use crate::guard;
use crate::steps::Done;
use figures::Figures;
use stage::{Side, Stage};

/// How many times slower a guest's instructions are where KVM interprets them, at least.
const INTERPRETED: u64 = 5;

pub(super) fn run(bench: &Bench) -> Done {
    let folder = system::make_folder("tender")?;
    bench.guards.borrow_mut().push(guard::start(&folder)?);
    let spt = Stage::new(bench, &folder, Kind::Spt)?;
    let hvt = Stage::new(bench, &folder, Kind::Hvt)?;
    let mut figures = Figures::new();
    start::run(&spt, &mut figures, start::PAIRS)?;
    // Under hvt such a user may not open /dev/kvm, and the original cannot be handed an open one.
    start::run_as_vmmd(&spt, &mut figures)?;
    memory::run(&spt, &mut figures)?;
    memory::run_as_vmmd(&spt, &mut figures)?;
    with_devices(&spt, &mut figures)?;
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        skip("bench tender (hvt)", &format!("/dev/kvm: {error}"));
    } else if rounds(&hvt)?.saturating_mul(INTERPRETED) < rounds(&spt)? {
        start::run(&hvt, &mut figures, start::PAIRS_INTERPRETED)?;
        memory::run(&hvt, &mut figures)?;
        skip("bench tender (hvt: networks, disks)", "KVM interprets its guests here, so that would measure KVM");
    } else {
        start::run(&hvt, &mut figures, start::PAIRS)?;
        memory::run(&hvt, &mut figures)?;
        with_devices(&hvt, &mut figures)?;
    }
    figures.end(&bench.report);
    Ok(system::clean(&folder)?)
}

fn with_devices(stage: &Stage, figures: &mut Figures) -> Done {
    http::run(stage, figures)?;
    echo::run(stage, figures)?;
    block::run(stage, figures)
}

/// How far a guest that does nothing but compute comes in a second.
fn rounds(stage: &Stage) -> Done<u64> {
    let said = stage.said(stage.command(Side::Ours).arg(stage.image("spin")).arg("--seconds=1"))?;
    stage::number(&said, "spin: ", " rounds")
}
