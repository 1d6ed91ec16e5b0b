//! From the start of a tender to the first byte on the console, and to the end of its guest.

use std::io::Read;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::figures::{Figures, Unit};
use super::network::apart;
use super::stage::{Stage, open_to_hand_over};
use crate::steps::{Done, Failure};

pub(super) const PAIRS: usize = 200;
/// Where KVM interprets.
pub(super) const PAIRS_INTERPRETED: usize = 10;

/// Between two starts: the kernel takes away behind our back what the one before has left.
const PAUSE: Duration = Duration::from_millis(20);
/// Lives without a pause between them, and how often.
const ROW: usize = 20;
const ROWS: usize = 10;

pub(super) fn run(stage: &Stage, figures: &mut Figures, pairs: usize) -> Done {
    let kind = stage.kind.name();
    let [first, end] = stage.pairs(pairs, |side| {
        sleep(PAUSE);
        live(stage.command(side).arg(stage.image("hello")).arg("--ticks=0"))
    })?;
    figures.add(&format!("{kind} hello: start to first byte"), Unit::Seconds, first);
    figures.add(&format!("{kind} hello: start to end"), Unit::Seconds, end);
    let [row] = stage.pairs(ROWS, |side| {
        sleep(PAUSE);
        let begun = Instant::now();
        for _ in 0..ROW {
            live(stage.command(side).arg(stage.image("hello")).arg("--ticks=0"))?;
        }
        Ok([begun.elapsed().as_secs_f64() / ROW as f64])
    })?;
    figures.add(&format!("{kind} hello: one of {ROW} lives in a row"), Unit::Seconds, row);
    Ok(())
}

/// As [`run`], but as `vmmd` starts a tender.
pub(super) fn run_as_vmmd(stage: &Stage, figures: &mut Figures) -> Done {
    let kind = stage.kind.name();
    apart(&format!("bench tender ({kind} start, as under vmmd)"), || {
        let image = open_to_hand_over(&stage.image("hello"))?;
        let [first, end] = stage.pairs(PAIRS, |side| {
            sleep(PAUSE);
            live(stage.command_of_vmmd(side, &image).arg("--ticks=0"))
        })?;
        figures.add(&format!("{kind} hello as under vmmd: start to first byte"), Unit::Seconds, first);
        figures.add(&format!("{kind} hello as under vmmd: start to end"), Unit::Seconds, end);
        Ok(())
    })
}

/// One life: seconds until the first byte of the console, and until the end.
fn live(command: &mut Command) -> Done<[f64; 2]> {
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| Failure(format!("cannot start {command:?}: {error}")))?;
    let mut byte = [0];
    let heard = child.stdout.as_mut().map_or(Ok(()), |console| console.read_exact(&mut byte));
    let first = begun.elapsed();
    let ended = child.wait().map(|status| status.success());
    let end = begun.elapsed();
    match (heard, ended) {
        (Ok(()), Ok(true)) => Ok([first.as_secs_f64(), end.as_secs_f64()]),
        (heard, ended) => Err(Failure(format!("{command:?} did not live well: {heard:?}, {ended:?}"))),
    }
}
