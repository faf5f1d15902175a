//! `rescomp check`: runs the container's windows and compares with what the host recorded.
//!
//! The logits must be the host's bit for bit, so their digest decides; the other figures say how far off a machine is that misses
//! it. The windows run twice, token by token and in tiles, as decode and prefill use different kernels. An encoder's texts: `embeddings`, a classifier's
//! images: `images`.

mod embeddings;
mod images;

use std::time::Instant;

use rescomp_formats::check_windows::CheckWindows;
use rescomp_formats::container::{CheckedContainer, Integrity};
use rescomp_formats::manifest::{Check, CheckRecord};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval::{self, Measured};
use rescomp_runtime::session::Session;
use serde::Serialize;

use crate::error::Error;
use crate::exit::Exit;
use crate::flags::CheckFlags;
use crate::machine::{self, Engine, Place};
use crate::mapped;
use crate::output::{self, hex};
use crate::table::Table;
use crate::tensors::{self, TensorKernels};
use crate::trust::Trust;
use embeddings::{EmbeddingBounds, EmbeddingFigures};
use images::{ImageBounds, ImageFigures};

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    measured: Measurements,
    passed: bool,
    /// Time of comparing every kernel with its known answer, which all gave.
    self_check_seconds: f64,
    seconds: f64,
    tensor_kernels: Vec<TensorKernels>,
}

/// What the host recorded, what this device measured, and how far apart they may be.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Measurements {
    Windows {
        reference_nll: f64,
        host: Figures,
        device: Figures,
        /// Of the device's logits where each window runs in tiles.
        prefill_logits_sha256: String,
        bounds: Bounds,
    },
    Embeddings {
        host: EmbeddingFigures,
        device: EmbeddingFigures,
        bounds: EmbeddingBounds,
    },
    Images {
        host: ImageFigures,
        device: ImageFigures,
        bounds: ImageBounds,
    },
}

/// A check that has run.
struct Checked {
    measured: Measurements,
    comparisons: Vec<Comparison>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    nll: f64,
    mean_kl: f64,
    same_top1: u32,
    positions: u32,
    logits_sha256: String,
}

#[derive(Debug, Serialize)]
struct Bounds {
    nll_difference: f64,
    kl_difference: f64,
    same_top1_difference: f64,
    digest: &'static str,
}

/// One line of the comparison.
struct Comparison {
    quantity: &'static str,
    full_precision: String,
    host: String,
    device: String,
    bound: String,
    ok: bool,
}

impl Comparison {
    /// Of a share of positions, or of images, whose most likely class is the full-precision model's.
    fn same_top1(host: f64, device: f64, bound: f64) -> Comparison {
        Comparison {
            quantity: "same top-1, share",
            full_precision: "1".to_owned(),
            host: format!("{host:.6}"),
            device: format!("{device:.6}"),
            bound: bound.to_string(),
            ok: within(host, device, bound),
        }
    }

    /// Of a quantity that the full-precision model has none of.
    fn difference(quantity: &'static str, host: f64, device: f64, bound: f64) -> Comparison {
        Comparison {
            quantity,
            full_precision: "0".to_owned(),
            host: format!("{host:.9}"),
            device: format!("{device:.9}"),
            bound: format!("{bound:e}"),
            ok: within(host, device, bound),
        }
    }

    /// Of how many there were.
    fn count(quantity: &'static str, host: u32, device: u32) -> Comparison {
        Comparison {
            quantity,
            full_precision: String::new(),
            host: host.to_string(),
            device: device.to_string(),
            bound: "equal".to_owned(),
            ok: host == device,
        }
    }

    /// Of what the model computed.
    fn digest(flags: &CheckFlags, quantity: &'static str, host: &[u8; 32], device: &[u8; 32]) -> Comparison {
        Comparison {
            quantity,
            full_precision: String::new(),
            host: short(host),
            device: short(device),
            bound: digest_bound(flags).to_owned(),
            ok: flags.any_digest || host == device,
        }
    }
}

/// A comparison with NaN is false: such a difference misses every bound.
fn within(host: f64, device: f64, bound: f64) -> bool {
    (host - device).abs() <= bound
}

fn digest_bound(flags: &CheckFlags) -> &'static str {
    if flags.any_digest { "any" } else { "equal" }
}

/// Runs the command.
///
/// # Errors
/// Where the container or the command line is wrong, or a bound is missed.
pub(crate) fn run(flags: &CheckFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let self_check = machine::self_check(&flags.machine)?;
    let file = mapped::open(path, flags.machine.load)?;
    let container = Trust::new(&flags.machine.trust)?.open(path, &file, Integrity::Digest)?;
    let engine = Engine::new(&flags.machine, &container)?;
    let manifest = container.manifest();
    let (windows, texts) = (container.check_windows(), container.check_embeddings());
    let checked = match (windows, texts, container.check_images(), &manifest.check) {
        (Some(windows), _, _, Check::Windows(record)) => {
            check_windows(flags, &container, &engine, &windows, record)
        }
        (_, Some(texts), _, Check::Embeddings(record)) => {
            embeddings::check(flags, &container, &engine, &texts, record)
        }
        (_, _, Some(images), Check::Images(record)) => {
            images::check(flags, &container, &engine, &images, record)
        }
        // No container is checked whose record is of another kind than its section.
        _ => Err(Error::input(path, "the container has nothing to check itself with")),
    }?;
    let Checked { measured, comparisons, seconds } = checked;
    let report = Report {
        place: Place::new(path, &engine),
        measured,
        passed: comparisons.iter().all(|comparison| comparison.ok),
        self_check_seconds: self_check.as_secs_f64(),
        seconds,
        tensor_kernels: tensors::tensor_kernels(&container, engine.kernels()),
    };
    let json = output::json(&report)?;
    if let Some(file) = &flags.report {
        output::write_whole(file, &json)?;
    }
    output::text(&if flags.json { json } else { in_words(&report, &comparisons) });
    let missed: Vec<&str> = comparisons
        .iter()
        .filter(|comparison| !comparison.ok)
        .map(|comparison| comparison.quantity)
        .collect();
    if missed.is_empty() {
        return Ok(Exit::Success);
    }
    Err(Error::failed(path, format_args!("the check missed its bound: {}", missed.join(", "))))
}

/// Runs a decoder's windows.
fn check_windows(
    flags: &CheckFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
    windows: &CheckWindows<'_>,
    record: &CheckRecord,
) -> Result<Checked, Error> {
    let path = &flags.machine.container;
    let limits = machine::limits(windows.sizes().positions);
    let mut memory = machine::session_memory(path, container, limits)?;
    let mut session = machine::session(path, container, engine, limits, memory.blocks())?;
    let start = Instant::now();
    let (device, prefill) = measure(&mut session, windows).map_err(|error| Error::input(path, error))?;
    let seconds = start.elapsed().as_secs_f64();
    let comparisons = compare(flags, record, &device, prefill);
    let measured = Measurements::Windows {
        reference_nll: record.reference_nll,
        host: Figures {
            nll: record.nll,
            mean_kl: record.mean_kl,
            same_top1: record.same_top1,
            positions: record.positions,
            logits_sha256: hex(&record.logits_sha256),
        },
        device: Figures {
            nll: device.nll,
            mean_kl: device.mean_kl,
            same_top1: device.same_top1,
            positions: device.positions,
            logits_sha256: hex(&device.logits_sha256),
        },
        prefill_logits_sha256: hex(&prefill),
        bounds: Bounds {
            nll_difference: flags.max_nll_difference,
            kl_difference: flags.max_kl_difference,
            same_top1_difference: flags.max_top1_difference,
            digest: digest_bound(flags),
        },
    };
    Ok(Checked { measured, comparisons, seconds })
}

/// Measures the windows token by token, and digests their logits once more from tiles.
fn measure(
    session: &mut Session<'_>,
    windows: &CheckWindows<'_>,
) -> Result<(Measured, [u8; 32]), RuntimeError> {
    let measured = eval::measure(session, windows, |_| ())?;
    Ok((measured, eval::digest_in_tiles(session, windows, |_| ())?))
}

fn compare(flags: &CheckFlags, host: &CheckRecord, device: &Measured, prefill: [u8; 32]) -> Vec<Comparison> {
    let same = [share(host.same_top1, host.positions), share(device.same_top1, device.positions)];
    vec![
        Comparison {
            full_precision: format!("{:.6}", host.reference_nll),
            ..Comparison::difference("NLL, nats a token", host.nll, device.nll, flags.max_nll_difference)
        },
        Comparison::difference(
            "mean KL, nats a token",
            host.mean_kl,
            device.mean_kl,
            flags.max_kl_difference,
        ),
        Comparison::same_top1(same[0], same[1], flags.max_top1_difference),
        Comparison::count("positions", host.positions, device.positions),
        Comparison::digest(flags, "logits, SHA-256", &host.logits_sha256, &device.logits_sha256),
        // Compared with this machine's own: decode and prefill agree on every machine.
        Comparison {
            quantity: "logits of prefill",
            full_precision: String::new(),
            host: String::new(),
            device: short(&prefill),
            bound: "equal".to_owned(),
            ok: prefill == device.logits_sha256,
        },
    ]
}

fn share(count: u32, positions: u32) -> f64 {
    f64::from(count) / f64::from(positions)
}

/// The beginning of a digest: the report has all of it.
fn short(digest: &[u8; 32]) -> String {
    hex(&digest[..8]) + ".."
}

fn in_words(report: &Report, comparisons: &[Comparison]) -> String {
    let mut table = Table::with_header(["quantity", "full precision", "host", "this device", "bound", "ok"]);
    for line in comparisons {
        let dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        table.row([
            line.quantity.to_owned(),
            dash(&line.full_precision),
            dash(&line.host),
            line.device.clone(),
            line.bound.clone(),
            if line.ok { "yes" } else { "NO" }.to_owned(),
        ]);
    }
    let mut machine = Table::default();
    report.place.show(&mut machine);
    machine.pair("seconds", format_args!("{:.3}", report.seconds));
    format!("{table}\n{}\n{machine}", tensors::table(&report.tensor_kernels))
}
