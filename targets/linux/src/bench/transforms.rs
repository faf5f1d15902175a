//! What the Hadamard transforms of a rotated model take of a decoded token.

use std::time::Instant;

use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::kernels::Kernels;
use serde::Serialize;

use crate::machine;

/// Tokens whose transforms are timed together.
const TOKENS: usize = 8;

/// The transforms of a token.
#[derive(Debug, Serialize)]
pub(super) struct Transforms {
    /// How many.
    pub(super) count: usize,
    /// Seconds that they take, on the calling thread, the median.
    pub(super) seconds_per_token: f64,
    /// Of the time of a decoded token.
    pub(super) share_of_decode: f64,
}

/// Times the transforms of a token; none where the model has none. `tokens_per_second` is decode's.
pub(super) fn time(
    spec: &ModelSpec,
    kernels: &Kernels,
    repeats: usize,
    tokens_per_second: f64,
) -> Option<Transforms> {
    let widths = [
        spec.online.output.then_some(spec.query_width()),
        spec.online.down.then_some(spec.intermediate as usize),
    ];
    let transforms: Vec<Hadamard> = widths.into_iter().flatten().filter_map(Hadamard::new).collect();
    if transforms.is_empty() {
        return None;
    }
    let layers = spec.layers as usize;
    let widest = widths.into_iter().flatten().max().unwrap_or_default();
    // Which numbers makes no difference to the time; a transform keeps their size.
    let mut row: Vec<f32> = (0..widest).map(|index| (index % 7) as f32 - 3.0).collect();
    let mut seconds: Vec<f64> = (0..repeats.max(1))
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TOKENS * layers {
                for (transform, width) in transforms.iter().zip(widths.into_iter().flatten()) {
                    (kernels.hadamard)(transform, &mut row[..width]);
                }
            }
            machine::seconds(start.elapsed()) / TOKENS as f64
        })
        .collect();
    std::hint::black_box(&row);
    seconds.sort_by(f64::total_cmp);
    let seconds_per_token = seconds[seconds.len() / 2];
    Some(Transforms {
        count: transforms.len() * layers,
        seconds_per_token,
        share_of_decode: seconds_per_token * tokens_per_second,
    })
}
