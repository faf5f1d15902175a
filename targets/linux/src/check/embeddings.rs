//! `rescomp check` of an encoder: runs the container's texts and compares their vectors with what the host recorded.
//!
//! The vectors must be the host's bit for bit, so their digest decides; the distances say how far off a machine is that misses it.

use std::time::Instant;

use rescomp_formats::check_embeddings::CheckEmbeddings;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::EmbeddingRecord;
use rescomp_runtime::eval_embeddings::{MeasuredEmbeddings, measure_embeddings};
use serde::Serialize;

use super::{Checked, Comparison, short};
use crate::embedder;
use crate::error::Error;
use crate::flags::CheckFlags;
use crate::machine::Engine;
use crate::output::hex;

/// Figures over the embedded texts.
#[derive(Debug, Serialize)]
pub(super) struct EmbeddingFigures {
    mean_distance: f64,
    largest_distance: f64,
    texts: u32,
    embeddings_sha256: String,
}

#[derive(Debug, Serialize)]
pub(super) struct EmbeddingBounds {
    distance_difference: f64,
    digest: &'static str,
}

/// Runs the texts.
///
/// # Errors
/// Where the model does not run.
pub(super) fn check(
    flags: &CheckFlags,
    container: &CheckedContainer<'_>,
    engine: &Engine,
    texts: &CheckEmbeddings<'_>,
    record: &EmbeddingRecord,
) -> Result<Checked, Error> {
    let path = &flags.machine.container;
    let longest = texts.longest();
    let mut memory = embedder::memory(path, container, longest)?;
    let mut encoder = embedder::encoder(path, container, engine, longest, &mut memory)?;
    let start = Instant::now();
    let device = measure_embeddings(&mut encoder, texts, &mut vec![0; longest], |_| ())
        .map_err(|error| Error::input(path, error))?;
    let seconds = start.elapsed().as_secs_f64();
    let host = EmbeddingFigures {
        mean_distance: record.mean_distance,
        largest_distance: record.largest_distance,
        texts: record.texts,
        embeddings_sha256: hex(&record.embeddings_sha256),
    };
    let found = EmbeddingFigures {
        mean_distance: device.mean_distance,
        largest_distance: device.largest_distance,
        texts: device.texts,
        embeddings_sha256: hex(&device.embeddings_sha256),
    };
    let bounds = EmbeddingBounds {
        distance_difference: flags.max_distance_difference,
        digest: if flags.any_digest { "any" } else { "equal" },
    };
    Ok(Checked::embeddings(host, found, bounds, compare(flags, record, &device), seconds))
}

fn compare(flags: &CheckFlags, host: &EmbeddingRecord, device: &MeasuredEmbeddings) -> Vec<Comparison> {
    let most = flags.max_distance_difference;
    let distance = |quantity, host: f64, device: f64| Comparison {
        quantity,
        full_precision: "0".to_owned(),
        host: format!("{host:.9}"),
        device: format!("{device:.9}"),
        bound: format!("{most:e}"),
        // A comparison with NaN is false: such a difference misses every bound.
        ok: (host - device).abs() <= most,
    };
    vec![
        distance("mean of 1 - cosine", host.mean_distance, device.mean_distance),
        distance("largest 1 - cosine", host.largest_distance, device.largest_distance),
        Comparison {
            quantity: "texts",
            full_precision: String::new(),
            host: host.texts.to_string(),
            device: device.texts.to_string(),
            bound: "equal".to_owned(),
            ok: host.texts == device.texts,
        },
        Comparison {
            quantity: "vectors, SHA-256",
            full_precision: String::new(),
            host: short(&host.embeddings_sha256),
            device: short(&device.embeddings_sha256),
            bound: if flags.any_digest { "any" } else { "equal" }.to_owned(),
            ok: flags.any_digest || host.embeddings_sha256 == device.embeddings_sha256,
        },
    ]
}
