//! The program that runs containers on a target: built here, run natively or emulated.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bytemuck::Zeroable;
use rescomp_quantizer::pack::CheckFigures;
use rescomp_runtime::Machine;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::measure;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use serde::{Deserialize, Serialize};

use crate::check::RUNNER_FILE;
use crate::error::Error;
use crate::image::{self, Image, Sizes};
use crate::qemu::Emulator;
use crate::system::Install;
use crate::target::{Bounds, Target};
use crate::toolchain;
use crate::{command, model, output};

/// Names the one key whose containers the program loads, in the environment of the compiler (targets/linux/src/trust.rs).
const TRUSTED_KEY_VARIABLE: &str = "RESCOMP_TRUSTED_KEY";

/// What runs containers on a target.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    /// A program that reads them from files.
    Linux(PathBuf),
    /// An image that has one in it, or none yet.
    Image(Image),
}

impl Program {
    /// The files to deploy, with their names; the first is executable.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        match self {
            Program::Linux(path) => vec![(RUNNER_FILE, path)],
            Program::Image(image) => image.files(),
        }
    }

    /// How large an image's parts are; none of a program's, whose memory is the system's matter.
    ///
    /// # Errors
    /// `Exit::Disk` and `Exit::Failed`.
    pub(crate) fn sizes(&self) -> Result<Sizes, Error> {
        match self {
            Program::Linux(_) => Ok(Sizes::default()),
            Program::Image(image) => Sizes::of(&image.elf),
        }
    }
}

/// Builds what runs containers on the target: a program, or an image, with `container` in it where one is given. With a public key, in
/// hexadecimal digits, a program will load nothing but containers that this key signed.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when it does not build, `Exit::Input` for a key and an image.
pub(crate) fn build(
    root: &Path,
    target: &Target,
    install: Install,
    trusted_key: Option<&str>,
    container: Option<&[u8]>,
) -> Result<Program, Error> {
    if let Some(description) = &target.image {
        if trusted_key.is_some() {
            let name = &target.name;
            return Err(Error::input(format!(
                "--sign: an image of {name} runs the container that is in it and loads no other: sign the image as the board's loader asks for"
            )));
        }
        return image::build(root, target, description, install, container).map(Program::Image);
    }
    build_program(root, target, install, trusted_key).map(Program::Linux)
}

/// Builds the program of a target with Linux and returns its path.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when it does not build.
pub(crate) fn build_program(
    root: &Path,
    target: &Target,
    install: Install,
    trusted_key: Option<&str>,
) -> Result<PathBuf, Error> {
    let toolchain = toolchain::find(target, install)?;
    let package = target.runner.package();
    let mut build = toolchain.build(root, package, &[]);
    build.envs(trusted_key.map(|key| (TRUSTED_KEY_VARIABLE, key)));
    let status = command::run(&mut build, None)?;
    if !status.success() {
        return Err(Error::failed(format!("{package} does not build for {} ({status})", toolchain.triple)));
    }
    Ok(toolchain.program(package))
}

/// Where a target's program can be run.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    /// On this machine, with each of these kernel tables ("best" stands for the runner's own choice).
    Here,
    /// Under an emulator, on each of these processors.
    Emulated(Emulator, Vec<String>),
    /// Nowhere; why.
    Nowhere(String),
}

/// Finds out where the target's program can be run, installing an emulator where that is allowed.
pub(crate) fn places(target: &Target, install: Install) -> Places {
    if target.architecture.name() == std::env::consts::ARCH && std::env::consts::OS == "linux" {
        return Places::Here;
    }
    // The processors of the table first, then the others that the target is tested on.
    let mut cpus = target.qemu_cpus.clone();
    cpus.extend(target.test_cpus.iter().filter(|cpu| !target.qemu_cpus.contains(cpu)).cloned());
    if cpus.is_empty() {
        return Places::Nowhere(format!("{} names no processor to emulate", target.name));
    }
    match Emulator::find(install).and_then(|emulator| emulator.knows(&cpus).map(|()| emulator)) {
        Ok(emulator) => Places::Emulated(emulator, cpus),
        Err(error) => Places::Nowhere(error.to_string()),
    }
}

/// What `rescomp check --json` prints: the part that is compared here.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DeviceReport {
    /// Where it ran: filled in here.
    #[serde(default)]
    pub(crate) place: String,
    /// The kernel table.
    pub(crate) kernels: String,
    /// Threads.
    pub(crate) threads: usize,
    /// What it measured.
    pub(crate) device: Figures,
    /// The digest of a run in tiles of several tokens.
    pub(crate) prefill_logits_sha256: Option<String>,
    /// Whether every bound was kept.
    pub(crate) passed: bool,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The kernel of each kind of matrix.
    #[serde(default)]
    pub(crate) tensor_kernels: serde_json::Value,
}

/// Figures over the embedded windows.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Figures {
    /// Mean negative log-likelihood, nats a token.
    pub(crate) nll: f64,
    /// Mean KL divergence from the full-precision model; `None` for that model itself.
    pub(crate) mean_kl: Option<f64>,
    /// Positions with the same most likely token.
    pub(crate) same_top1: Option<u32>,
    /// Positions.
    pub(crate) positions: u32,
    /// SHA-256 of the logits, in hexadecimal digits.
    pub(crate) logits_sha256: Option<String>,
}

impl From<&CheckFigures> for Figures {
    fn from(record: &CheckFigures) -> Figures {
        Figures {
            nll: record.nll,
            mean_kl: Some(record.mean_kl),
            same_top1: Some(record.same_top1),
            positions: record.positions,
            logits_sha256: Some(record.logits_sha256.clone()),
        }
    }
}

/// The options of `rescomp check` for these bounds.
pub(crate) fn bounds_arguments(bounds: &Bounds) -> [String; 3] {
    let option = |name: &str, bound: f64| format!("--max-{name}-difference={bound}");
    [
        option("nll", bounds.nll_difference),
        option("kl", bounds.kl_difference),
        option("top1", bounds.same_top1_difference),
    ]
}

/// Runs `rescomp check` in one place. `emulated` is an emulator and its processor.
///
/// # Errors
/// `Exit::Failed` when it does not start or prints no report.
pub(crate) fn check(
    program: &Path,
    container: &Path,
    bounds: &Bounds,
    emulated: Option<(&Emulator, &str)>,
    kernels: Option<&str>,
) -> Result<DeviceReport, Error> {
    let (mut command, place) = match emulated {
        Some((emulator, cpu)) => (emulator.command(cpu, program), format!("QEMU {cpu}")),
        None => (std::process::Command::new(program), "this machine".to_owned()),
    };
    command.arg("check").arg(container).args(["--json", "--threads", "1"]).args(bounds_arguments(bounds));
    if let Some(kernels) = kernels {
        command.args(["--kernels", kernels]);
    }
    output::note(&format!("$ {}", command::show(&command)));
    let shown = || Error::failed(format!("{place}: `rescomp check` printed no report"));
    let result = command.output().map_err(|error| shown().caused_by(&error))?;
    let mut report: DeviceReport = serde_json::from_slice(&result.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&result.stderr);
        shown().because(format!("it ended with {}", result.status)).because(said.trim()).caused_by(&error)
    })?;
    report.place = place;
    Ok(report)
}

/// Measures a container in this process with every kernel table that this machine has: the record against itself, and
/// against the scalar definition.
///
/// # Errors
/// `Exit::Input` for a container that cannot be, `Exit::Failed` for one that does not run.
pub(crate) fn check_here(path: &Path, recorded: &str) -> Result<Vec<DeviceReport>, Error> {
    let bytes = model::container_bytes(path)?;
    let container = model::container(path, &bytes)?;
    let windows = container.check_windows();
    let limits = Limits { context: windows.sizes().positions, tile: 1 };
    let failed = |error: RuntimeError| Error::failed(format!("{}: {error}", path.display()));
    let plan = SessionPlan::new(&container, limits).map_err(failed)?;
    let mut reports = Vec::new();
    for kernels in kernels::available() {
        let start = Instant::now();
        let machine = Machine { kernels, executor: &Serial };
        let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
        let mut session =
            Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory).map_err(failed)?;
        let measured = measure(&mut session, &windows, |_| ()).map_err(failed)?;
        let digest: String = measured.logits_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        reports.push(DeviceReport {
            place: "host".to_owned(),
            kernels: kernels.name.to_owned(),
            threads: 1,
            passed: digest == recorded,
            device: Figures {
                nll: measured.nll,
                mean_kl: Some(measured.mean_kl),
                same_top1: Some(measured.same_top1),
                positions: measured.positions,
                logits_sha256: Some(digest),
            },
            prefill_logits_sha256: None,
            seconds: start.elapsed().as_secs_f64(),
            tensor_kernels: serde_json::Value::Null,
        });
    }
    Ok(reports)
}

/// The table of a check: the full-precision model, the host's record, and every place.
pub(crate) fn table(reference_nll: f64, host: &Figures, places: &[DeviceReport]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<22}{:<14}{:>10}{:>11}{:>11}  {:<18}{:>8}  {}",
        "where", "kernels", "NLL", "KL", "same top-1", "logits digest", "time", "verdict"
    )];
    let mut row = |name: &str, kernels: &str, figures: &Figures, seconds: Option<f64>, verdict: &str| {
        let share =
            |count: u32| format!("{:.2} %", 100.0 * f64::from(count) / f64::from(figures.positions.max(1)));
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.6}"));
        let digest =
            figures.logits_sha256.as_deref().map_or("-", |digest| digest.get(..16).unwrap_or(digest));
        lines.push(format!(
            "{name:<22}{kernels:<14}{:>10}{:>11}{:>11}  {digest:<18}{:>8}  {verdict}",
            number(Some(figures.nll)),
            number(figures.mean_kl),
            figures.same_top1.map_or("-".to_owned(), share),
            seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s")),
        ));
    };
    let reference =
        Figures { nll: reference_nll, mean_kl: None, same_top1: None, logits_sha256: None, ..host.clone() };
    row("full precision", "f32", &reference, None, "reference");
    row("host", "recorded", host, None, "record");
    for report in places {
        let verdict = match (report.passed, report.device.logits_sha256 == host.logits_sha256) {
            (true, true) => "equal",
            (true, false) => "within bounds",
            (false, _) => "MISSED",
        };
        row(&report.place, &report.kernels, &report.device, Some(report.seconds), verdict);
    }
    lines.push(format!(
        "NLL and KL in nats a token over {} positions of the embedded windows; the KL is from the full-precision model.",
        host.positions
    ));
    lines
}
