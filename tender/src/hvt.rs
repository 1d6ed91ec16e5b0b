//! hvt
use crate::{arguments::RunArguments, device::Devices, image::ImageFile, refusal::Refusal};
use fulmar_core::solo5::Elf;
use std::process::ExitCode;
pub(crate) struct Prepared;
pub(crate) struct Confined;
pub(crate) struct Running;
impl Prepared {
    pub(crate) fn new(_: &RunArguments, _: &ImageFile, _: &Elf, _: Devices) -> Result<Prepared, Refusal> {
        Ok(Prepared)
    }
    pub(crate) fn confine(self) -> Result<Confined, Refusal> {
        Ok(Confined)
    }
}
impl Confined {
    pub(crate) fn run(self) -> Running {
        Running
    }
}
impl Running {
    pub(crate) fn until_end(self) -> Result<ExitCode, Refusal> {
        Ok(ExitCode::FAILURE)
    }
}
