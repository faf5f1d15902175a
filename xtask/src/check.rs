//! `cargo xtask check`: a container computes on its target what the host measured.

use std::path::{Path, PathBuf};

use rescomp_quantizer::pack::CheckFigures;
use serde::Serialize;

use crate::error::Error;
use crate::figures::{self, Figures};
use crate::flags::CheckFlags;
use crate::runner::{self, DeviceReport, Places};
use crate::system::Install;
use crate::target::Target;
use crate::{model, output, root};

/// Name of the container in an output folder.
pub(crate) const CONTAINER_FILE: &str = "model.rescomp";
/// Name of the runner in an output folder.
pub(crate) const RUNNER_FILE: &str = "rescomp";

/// A check in every place where the target's program can be run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckResult {
    /// Mean negative log-likelihood of the full-precision model, nats a token; `None` of an encoder.
    pub(crate) reference_nll: Option<f64>,
    /// What the host recorded in the container.
    pub(crate) host: Figures,
    /// What the host measured again, with each of its kernel tables, and what each place of the target measured.
    pub(crate) places: Vec<DeviceReport>,
    /// Why there is no place, where there is none.
    pub(crate) not_checked: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Failed` when a bound is missed, `Exit::Missing` when the program can't be built or run.
pub(crate) fn run(flags: &CheckFlags) -> Result<(), Error> {
    let root = root::root()?;
    let install = Install::unless(flags.no_install);
    let target = Target::load(&flags.target)?;
    let folder = dist(&root, &target);
    let container = flags.container.clone().unwrap_or_else(|| folder.join(CONTAINER_FILE));
    let bytes = model::container_bytes(&container)?;
    let record = CheckFigures::from(&model::container(&container, &bytes)?.manifest().check);
    let program = runner::build(&root, &target, install, None)?;
    let result = check_everywhere(&target, &program, &container, &record, install)?;
    if flags.json {
        output::line(&output::json(&result)?);
    } else {
        figures::print_table(result.reference_nll, &result.host, &result.places);
    }
    if let Some(why) = &result.not_checked {
        return Err(Error::missing("the container was not checked: there is nowhere to run it").because(why));
    }
    verdict(&result)
}

/// The output folder of a target.
pub(crate) fn dist(root: &Path, target: &Target) -> PathBuf {
    root.join("dist").join(&target.name)
}

/// Runs the check in every place.
///
/// # Errors
/// `Exit::Failed` when the program does not start or prints no report. Missed bounds are no error here: see [`verdict`].
pub(crate) fn check_everywhere(
    target: &Target,
    program: &Path,
    container: &Path,
    record: &CheckFigures,
    install: Install,
) -> Result<CheckResult, Error> {
    let check = |emulated, kernels| runner::check(program, container, &target.bounds, emulated, kernels);
    let mut not_checked = None;
    let mut reports = runner::check_here(container, record.digest())?;
    match runner::places(target, install) {
        Places::Here => {
            reports.push(check(None, None)?);
            reports.push(check(None, Some("scalar"))?);
        }
        Places::Emulated(emulator, cpus) => {
            for cpu in &cpus {
                reports.push(check(Some((&emulator, cpu.as_str())), None)?);
            }
            // The definition of the result, on the last processor.
            if let Some(cpu) = cpus.last() {
                reports.push(check(Some((&emulator, cpu.as_str())), Some("scalar"))?);
            }
        }
        Places::Nowhere(why) => not_checked = Some(why),
    }
    let reference_nll = record.windows().map(|figures| figures.reference_nll);
    Ok(CheckResult { reference_nll, host: Figures::from(record), places: reports, not_checked })
}

/// Whether every place kept the bounds.
///
/// # Errors
/// `Exit::Failed` naming the places that missed them.
pub(crate) fn verdict(result: &CheckResult) -> Result<(), Error> {
    let missed: Vec<String> = result
        .places
        .iter()
        .filter(|report| !report.passed)
        .map(|report| format!("{} ({})", report.place, report.kernels))
        .collect();
    if missed.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("the check missed its bounds on {}", missed.join(", "))))
}
