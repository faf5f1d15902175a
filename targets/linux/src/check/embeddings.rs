//! `rescomp check` of an encoder: runs the container's texts and compares their vectors with what the host recorded.
//!
//! The vectors must be the host's bit for bit, so their digest decides; the distances say how far off a machine is that misses it.

use std::time::Instant;

use rescomp_formats::check_embeddings::CheckEmbeddings;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::manifest::EmbeddingRecord;
use rescomp_runtime::eval_embeddings::{MeasuredEmbeddings, measure_embeddings};
use serde::Serialize;

use super::{Checked, Comparison, Measurements, digest_bound};
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
    let bounds =
        EmbeddingBounds { distance_difference: flags.max_distance_difference, digest: digest_bound(flags) };
    let comparisons = compare(flags, record, &device);
    Ok(Checked { measured: Measurements::Embeddings { host, device: found, bounds }, comparisons, seconds })
}

fn compare(flags: &CheckFlags, host: &EmbeddingRecord, device: &MeasuredEmbeddings) -> Vec<Comparison> {
    let distance = |quantity, host, device| {
        Comparison::difference(quantity, host, device, flags.max_distance_difference)
    };
    vec![
        distance("mean of 1 - cosine", host.mean_distance, device.mean_distance),
        distance("largest 1 - cosine", host.largest_distance, device.largest_distance),
        Comparison::count("texts", host.texts, device.texts),
        Comparison::digest(flags, "vectors, SHA-256", &host.embeddings_sha256, &device.embeddings_sha256),
    ]
}
