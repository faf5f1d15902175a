//! `rescomp check` of a classifier: runs the container's images and compares the logits of their classes with what the host recorded.
//!
//! The logits must be the host's bit for bit, so their digest decides; the other figures say how far off a machine is that misses it.

use std::time::Instant;

use rescomp_formats::check_images::CheckImages;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::ImageRecord;
use rescomp_runtime::eval_images::{MeasuredImages, measure_images};
use serde::Serialize;

use super::{Checked, Comparison, Measurements, share, short};
use crate::classifier;
use crate::error::Error;
use crate::flags::CheckFlags;
use crate::machine::Engine;
use crate::output::hex;

/// Figures over the embedded images.
#[derive(Debug, Serialize)]
pub(super) struct ImageFigures {
    mean_kl: f64,
    same_top1: u32,
    images: u32,
    logits_sha256: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ImageBounds {
    kl_difference: f64,
    same_top1_difference: f64,
    digest: &'static str,
}

/// Runs the images.
///
/// # Errors
/// Where the model does not run.
pub(super) fn check(
    flags: &CheckFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
    images: &CheckImages<'_>,
    record: &ImageRecord,
) -> Result<Checked, Error> {
    let path = &flags.machine.container;
    let mut memory = classifier::memory(path, container)?;
    let mut classifier = classifier::classifier(path, container, engine, &mut memory)?;
    let start = Instant::now();
    let device =
        measure_images(&mut classifier, images, |_| ()).map_err(|error| Error::input(path, error))?;
    let seconds = start.elapsed().as_secs_f64();
    let host = ImageFigures {
        mean_kl: record.mean_kl,
        same_top1: record.same_top1,
        images: record.images,
        logits_sha256: hex(&record.logits_sha256),
    };
    let found = ImageFigures {
        mean_kl: device.mean_kl,
        same_top1: device.same_top1,
        images: device.images,
        logits_sha256: hex(&device.logits_sha256),
    };
    let bounds = ImageBounds {
        kl_difference: flags.max_kl_difference,
        same_top1_difference: flags.max_top1_difference,
        digest: if flags.any_digest { "any" } else { "equal" },
    };
    let comparisons = compare(flags, record, &device);
    Ok(Checked { measured: Measurements::Images { host, device: found, bounds }, comparisons, seconds })
}

fn compare(flags: &CheckFlags, host: &ImageRecord, device: &MeasuredImages) -> Vec<Comparison> {
    let shares = [share(host.same_top1, host.images), share(device.same_top1, device.images)];
    // A comparison with NaN is false: such a difference misses every bound.
    let within = |[a, b]: [f64; 2], bound: f64| (a - b).abs() <= bound;
    vec![
        Comparison {
            quantity: "mean KL, nats an image",
            full_precision: "0".to_owned(),
            host: format!("{:.9}", host.mean_kl),
            device: format!("{:.9}", device.mean_kl),
            bound: format!("{:e}", flags.max_kl_difference),
            ok: within([host.mean_kl, device.mean_kl], flags.max_kl_difference),
        },
        Comparison {
            quantity: "same top-1, share",
            full_precision: "1".to_owned(),
            host: format!("{:.6}", shares[0]),
            device: format!("{:.6}", shares[1]),
            bound: flags.max_top1_difference.to_string(),
            ok: within(shares, flags.max_top1_difference),
        },
        Comparison {
            quantity: "images",
            full_precision: String::new(),
            host: host.images.to_string(),
            device: device.images.to_string(),
            bound: "equal".to_owned(),
            ok: host.images == device.images,
        },
        Comparison {
            quantity: "logits, SHA-256",
            full_precision: String::new(),
            host: short(&host.logits_sha256),
            device: short(&device.logits_sha256),
            bound: if flags.any_digest { "any" } else { "equal" }.to_owned(),
            ok: flags.any_digest || host.logits_sha256 == device.logits_sha256,
        },
    ]
}
