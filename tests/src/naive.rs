//! A Llama forward that shares nothing with the runtime's: f64, straight loops, one token after another, no cache layout, no tiles.
//!
//! Written from the papers (arXiv 2302.13971, 2305.13245, 2104.09864) and Hugging Face's pairing of rotary elements.

use crate::naive_hadamard::transformed;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::matrix::MatrixView;
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::ModelSpec;

type Rows = Vec<Vec<f64>>;

fn multiply(weights: &Rows, input: &[f64]) -> Vec<f64> {
    weights.iter().map(|row| row.iter().zip(input).map(|(w, x)| w * x).sum()).collect()
}

fn normalize(input: &[f64], gain: &[f64], epsilon: f64) -> Vec<f64> {
    let mean_square = input.iter().map(|x| x * x).sum::<f64>() / input.len() as f64;
    input.iter().zip(gain).map(|(x, gain)| x / (mean_square + epsilon).sqrt() * gain).collect()
}

fn rotate(head: &mut [f64], position: usize, frequencies: &[f64]) {
    let half = head.len() / 2;
    for (pair, frequency) in frequencies.iter().enumerate() {
        let (sine, cosine) = (position as f64 * frequency).sin_cos();
        let (a, b) = (head[pair], head[pair + half]);
        head[pair] = a * cosine - b * sine;
        head[pair + half] = b * cosine + a * sine;
    }
}

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Binary16, as on devices.
    F16,
    /// As they are.
    Exact,
}

impl Cache {
    fn kept(self, row: Vec<f64>) -> Vec<f64> {
        match self {
            Cache::F16 => row.into_iter().map(|value| half::f16::from_f64(value).to_f64()).collect(),
            Cache::Exact => row,
        }
    }
}

/// The logits of every position. `weights` gives a matrix by its rows, a norm's gain as one row; `frequencies` are radians a position.
pub fn logits(
    spec: &ModelSpec,
    frequencies: &[f64],
    weights: &dyn Fn(SectionName) -> Rows,
    tokens: &[u32],
    cache: Cache,
) -> Rows {
    let of_model = |kind| weights(SectionName { kind, layer: None });
    let epsilon = f64::from(spec.norm_epsilon);
    let width = spec.head_dim as usize;
    let embedding = of_model(SectionKind::Embedding);
    let mut stream: Rows = tokens.iter().map(|&token| embedding[token as usize].clone()).collect();
    for layer in 0..spec.layers as u16 {
        let of_layer = |kind| weights(SectionName { kind, layer: Some(layer) });
        let gain = of_layer(SectionKind::AttentionNorm).concat();
        let [query, key, value, output] =
            [SectionKind::Query, SectionKind::Key, SectionKind::Value, SectionKind::Output].map(of_layer);
        let (mut keys, mut values): (Rows, Rows) = Default::default();
        for (position, x) in stream.iter_mut().enumerate() {
            let hidden = normalize(x, &gain, epsilon);
            let (mut q, mut k) = (multiply(&query, &hidden), multiply(&key, &hidden));
            q.chunks_mut(width)
                .chain(k.chunks_mut(width))
                .for_each(|head| rotate(head, position, frequencies));
            keys.push(cache.kept(k));
            values.push(cache.kept(multiply(&value, &hidden)));
            let mut attended = attend(spec, &q, &keys, &values);
            if spec.online.output {
                attended = transformed(&attended);
            }
            x.iter_mut().zip(multiply(&output, &attended)).for_each(|(x, y)| *x += y);
        }
        let norm = of_layer(SectionKind::MlpNorm).concat();
        let [gate, up, down] = [SectionKind::Gate, SectionKind::Up, SectionKind::Down].map(of_layer);
        for x in &mut stream {
            let hidden = normalize(x, &norm, epsilon);
            let silu = |x: f64| x / (1.0 + (-x).exp());
            let mut gated: Vec<f64> = multiply(&gate, &hidden)
                .into_iter()
                .zip(multiply(&up, &hidden))
                .map(|(gate, up)| silu(gate) * up)
                .collect();
            if spec.online.down {
                gated = transformed(&gated);
            }
            x.iter_mut().zip(multiply(&down, &gated)).for_each(|(x, y)| *x += y);
        }
    }
    let norm = of_model(SectionKind::FinalNorm).concat();
    let head = if spec.tied_head { embedding } else { of_model(SectionKind::Head) };
    let head_input = spec.online.head_input.then(|| of_model(SectionKind::HeadInput));
    let input = |x: &[f64]| {
        let hidden = normalize(x, &norm, epsilon);
        head_input.as_ref().map_or(hidden.clone(), |turn| multiply(turn, &hidden))
    };
    stream.iter().map(|x| multiply(&head, &input(x))).collect()
}

/// A matrix's rows as the container's own decoder gives them, its correction added, or a norm's gain or a bias as one row.
///
/// # Panics
/// Where the container has no such section.
pub fn rows(container: &CheckedContainer<'_>, name: SectionName) -> Rows {
    let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
    match container.matrix(name) {
        Some(matrix) => {
            let decoded = |matrix: &MatrixView<'_>| -> Rows {
                let row = |row| {
                    let mut values = vec![0.0; matrix.shape().cols()];
                    matrix.decode_row(row, &mut values);
                    wide(&values)
                };
                (0..matrix.shape().rows()).map(row).collect()
            };
            let mut values = decoded(&matrix);
            if let Some(factors) = container.low_rank(name) {
                let right = decoded(&factors.right);
                for (row, left) in values.iter_mut().zip(decoded(&factors.left)) {
                    for (left, right) in left.iter().zip(&right) {
                        row.iter_mut().zip(right).for_each(|(value, right)| *value += left * right);
                    }
                }
            }
            values
        }
        None => vec![wide(container.floats(name).expect("a section of the model"))],
    }
}

/// What the heads of one token give: `query` sees all of `keys`, and the weighted sums of `values` stand one head after the other.
pub(crate) fn attend(spec: &ModelSpec, query: &[f64], keys: &Rows, values: &Rows) -> Vec<f64> {
    let (width, sharing) = (spec.head_dim as usize, (spec.heads / spec.kv_heads) as usize);
    let mut attended = Vec::new();
    for (head, q) in query.chunks(width).enumerate() {
        let own = head / sharing * width..(head / sharing + 1) * width;
        let score = |k: &Vec<f64>| {
            let dot: f64 = q.iter().zip(&k[own.clone()]).map(|(q, k)| q * k).sum();
            (dot / (width as f64).sqrt()).exp()
        };
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let total: f64 = scores.iter().sum();
        for element in own.clone() {
            attended.push(scores.iter().zip(values).map(|(s, v)| s / total * v[element]).sum());
        }
    }
    attended
}

/// Asserts that f32 logits (positions x vocabulary) are the naive ones, to `share` of the largest.
///
/// # Panics
/// Where they aren't.
pub fn assert_close(found: &[f32], expected: &Rows, share: f64) {
    let largest = expected.iter().flatten().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    assert!(largest > 0.5 && largest < 1e3, "logits up to {largest} show little");
    assert_eq!(found.len(), expected.len() * expected[0].len());
    let worst = found
        .iter()
        .zip(expected.iter().flatten())
        .map(|(found, expected)| (f64::from(*found) - expected).abs())
        .fold(0.0, f64::max);
    println!("off by {worst:e} at most, the largest logit being {largest}");
    assert!(worst <= share * largest, "off by {worst:e}, the largest logit being {largest}");
}
