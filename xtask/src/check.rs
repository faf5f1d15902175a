//! `cargo xtask check`: a container computes on its target what the host measured.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rescomp_quantizer::pack::CheckFigures;
use serde::Serialize;

use crate::deploy;
use crate::error::Error;
use crate::figures::{self, Figures};
use crate::flags::CheckFlags;
use crate::image::Contents;
use crate::image::{self, Boards, Image};
use crate::interrupt::write_whole;
use crate::runner::{self, DeviceReport, Places, Program};
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
    /// What an image tells when nobody asks it for anything else, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) story: Option<Story>,
}

/// The most likely text behind a prompt.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Story {
    /// On the host.
    pub(crate) host: String,
    /// The places that told another one, and which.
    pub(crate) others: Vec<(String, String)>,
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
    let paths = flags.report.as_deref().map(|path| Ok((path, output::beside(path, "json")?))).transpose()?;
    let result = match &flags.host {
        Some(host) => check_device(host, flags, &target, &container, &record)?,
        None => {
            let program = runner::build(&root, &target, install, None, Contents::Container(&bytes))?;
            check_everywhere(&target, &program, &container, &record, install)?
        }
    };
    if let Some((markdown, json)) = paths {
        let text =
            format!("# Check of {}\n\n```text\n{}\n```\n", container.display(), lines(&result).join("\n"));
        write_whole(markdown, text.as_bytes())?;
        write_whole(&json, output::json(&result)?.as_bytes())?;
    }
    if flags.json {
        output::line(&output::json(&result)?);
    } else {
        print(&result);
    }
    if let Some(why) = &result.not_checked {
        return Err(Error::missing("the container was not checked: there is nowhere to run it").because(why));
    }
    verdict(&result)
}

/// Prints the table, and the story where there is one.
pub(crate) fn print(result: &CheckResult) {
    lines(result).iter().for_each(|line| output::line(line));
}

/// The table for people, and the story where there is one.
fn lines(result: &CheckResult) -> Vec<String> {
    let mut lines = figures::table(result.reference_nll, &result.host, &result.places);
    if let Some(Story { host, others }) = &result.story {
        lines.push(String::new());
        lines.push(format!("the host's story, greedy: {host}"));
        for report in result.places.iter().filter(|report| report.place.starts_with("QEMU")) {
            let other = others.iter().find(|(place, _)| *place == report.place);
            let text = other.map_or("the same".to_owned(), |(_, text)| format!("ANOTHER: {text}"));
            lines.push(format!("{}: {text}", report.place));
        }
    }
    lines
}

/// The output folder of a target.
pub(crate) fn dist(root: &Path, target: &Target) -> PathBuf {
    root.join("dist").join(&target.name)
}

/// Runs the check of what is live on a device.
fn check_device(
    host: &str,
    flags: &CheckFlags,
    target: &Target,
    container: &Path,
    record: &CheckFigures,
) -> Result<CheckResult, Error> {
    if target.image.is_some() {
        let name = &target.name;
        return Err(Error::input(format!("--host: {name} has an image, which ssh doesn't reach")));
    }
    let mut places = runner::check_here(container, record.digest())?;
    let mut device = deploy::check_live(host, &flags.remote, &target.bounds)?;
    // It kept to its own container's record, which may be another one.
    device.passed &= device.device.digest() == Some(record.digest());
    places.push(device);
    Ok(CheckResult {
        reference_nll: record.windows().map(|figures| figures.reference_nll),
        host: Figures::from(record),
        places,
        not_checked: None,
        story: None,
    })
}

/// Runs the check in every place.
///
/// # Errors
/// `Exit::Failed` when the program does not start or prints no report. Missed bounds are no error here: see [`verdict`].
pub(crate) fn check_everywhere(
    target: &Target,
    program: &Program,
    container: &Path,
    record: &CheckFigures,
    install: Install,
) -> Result<CheckResult, Error> {
    let mut reports = runner::check_here(container, record.digest())?;
    let mut story = None;
    let not_checked = match program {
        Program::Linux(program) => check_program(target, program, container, install, &mut reports)?,
        Program::Image(image) => {
            let told = story.insert(Story { host: image::story_here(container)?, others: Vec::new() });
            check_image(target, image, install, &mut reports, told)?
        }
    };
    let host = Figures::from(record);
    let reference_nll = record.windows().map(|figures| figures.reference_nll);
    Ok(CheckResult { reference_nll, host, places: reports, not_checked, story })
}

/// Wherever a program can be run. Why that is nowhere, if it is.
fn check_program(
    target: &Target,
    program: &Path,
    container: &Path,
    install: Install,
    reports: &mut Vec<DeviceReport>,
) -> Result<Option<String>, Error> {
    let check = |emulated, kernels| runner::check(program, container, &target.bounds, emulated, kernels);
    match runner::places(target, install) {
        Places::Here => {
            reports.push(check(None, None)?);
            reports.push(check(None, Some("scalar"))?);
        }
        Places::Emulated(emulator, cpus) => {
            // The definition of the result, on the last processor: what takes longest begins first.
            let scalar = cpus.last().map(|cpu| (cpu, Some("scalar")));
            let runs: Vec<_> = scalar.into_iter().chain(cpus.iter().map(|cpu| (cpu, None))).collect();
            // Each has one thread and takes minutes where the model is large: side by side, as many as the host has processors.
            let checked: Result<Vec<_>, _> = runs
                .par_iter()
                .map(|(cpu, kernels)| check(Some((&emulator, cpu.as_str())), *kernels))
                .collect();
            let mut checked = checked?;
            checked.rotate_left(usize::from(scalar.is_some()));
            reports.extend(checked);
        }
        Places::Nowhere(why) => return Ok(Some(why)),
    }
    Ok(None)
}

/// On every board that the target's description has emulated. Why on none, if so.
fn check_image(
    target: &Target,
    image: &Image,
    install: Install,
    reports: &mut Vec<DeviceReport>,
    told: &mut Story,
) -> Result<Option<String>, Error> {
    let emulated = target.image.as_ref().map_or(&[][..], |image| &image.emulated);
    if emulated.is_empty() {
        return Ok(Some(format!("{} names no board to emulate", target.name)));
    }
    let boards = match Boards::find(target, install) {
        Ok(boards) => boards,
        Err(error) => return Ok(Some(error.to_string())),
    };
    for board in emulated {
        let (report, story) = boards.check(image, board)?;
        if story != told.host {
            told.others.push((report.place.clone(), story));
        }
        reports.push(report);
    }
    Ok(None)
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
    if !missed.is_empty() {
        return Err(Error::failed(format!("the check missed its bounds on {}", missed.join(", "))));
    }
    match result.story.iter().flat_map(|story| &story.others).next() {
        Some((place, other)) => {
            Err(Error::failed(format!("{place} tells another story than the host: {other:?}")))
        }
        None => Ok(()),
    }
}
