//! Measuring an encoder on texts: how far its vectors are from the full-precision model's, and whether texts that were similar still are.
//!
//! Cosines are f64. The rank correlation is Spearman's ("The Proof and Measurement of Association between Two Things", American Journal of
//! Psychology, 1904), over the cosines of all pairs of texts, equal ones sharing the mean of their ranks.

use crate::checkpoint::Checkpoint;
use crate::dense::DenseError;
use crate::embeddings::dense_embeddings;
use bytemuck::Zeroable;
use rayon::prelude::*;
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval_embeddings::cosine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use serde::Serialize;

/// What texts gave. A distance is one less the cosine of the two models' vectors of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EmbeddingEvaluation {
    /// Mean of the distances.
    pub mean_distance: f64,
    /// Their median.
    pub median_distance: f64,
    /// Their 99th percentile.
    pub p99_distance: f64,
    /// The largest.
    pub largest_distance: f64,
    /// Spearman's rank correlation of the cosines of all pairs of texts; `None` for fewer than three texts.
    pub rank_correlation: Option<f64>,
    /// Bits that the weights take on average, everything counted.
    pub bits_per_weight: f64,
    /// Bytes of the container.
    pub file_bytes: u64,
    /// Texts.
    pub texts: u64,
    /// Their tokens.
    pub tokens: u64,
    /// How the activations entered the matrix products.
    pub activations: &'static str,
    /// The kernel table.
    pub kernels: &'static str,
}

/// Why a measurement stopped.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingError {
    /// The full-precision model could not run.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// The container could not run.
    #[error("container: {0}")]
    Container(#[from] RuntimeError),
    /// The two models' vectors differ in width.
    #[error("the reference {reference} has vectors of {expected} numbers, the model of {found}")]
    Width {
        /// Name of the reference.
        reference: String,
        /// Its width.
        expected: u32,
        /// The model's.
        found: u32,
    },
    /// There are no texts.
    #[error("no texts to measure on")]
    NoTexts,
}

/// Compares a container with its full-precision model on the tokens of texts. `progress` hears of each block of the reference, and of each text.
///
/// # Errors
/// [`EmbeddingError`].
pub fn evaluate_embeddings(
    machine: Machine<'_>,
    container: &CheckedContainer<'_>,
    activations: ActivationFormat,
    reference: &Checkpoint,
    texts: &[Vec<u32>],
    progress: &(dyn Fn() + Sync),
) -> Result<EmbeddingEvaluation, EmbeddingError> {
    let longest = texts.iter().map(Vec::len).max().ok_or(EmbeddingError::NoTexts)?;
    let (expected, found) = (reference.spec.hidden, container.manifest().spec.hidden);
    if expected != found {
        return Err(EmbeddingError::Width { reference: reference.name(), expected, found });
    }
    let plan = EncoderPlan::new(container, longest)?;
    let full = dense_embeddings(machine, reference, texts, |_| progress())?;
    // Every thread has an encoder of its own: cheaper than to split each of its products over threads.
    let serial = Machine { executor: &Serial, ..machine };
    let memory = || vec![MemoryBlock::zeroed(); plan.blocks() as usize];
    let embed = |memory: &mut Vec<MemoryBlock>, text: &Vec<u32>| {
        let mut encoder = Encoder::new(container, serial, longest, activations, memory)?;
        let vector = encoder.embed(text)?.to_vec();
        progress();
        Ok(vector)
    };
    let vectors: Vec<Vec<f32>> =
        texts.par_iter().map_init(memory, embed).collect::<Result<_, RuntimeError>>()?;
    let mut distances: Vec<f64> =
        vectors.iter().zip(&full).map(|(found, full)| 1.0 - of(found, full)).collect();
    distances.sort_by(f64::total_cmp);
    let quantile = |share: f64| distances[((distances.len() - 1) as f64 * share).round() as usize];
    Ok(EmbeddingEvaluation {
        mean_distance: distances.iter().sum::<f64>() / distances.len() as f64,
        median_distance: quantile(0.5),
        p99_distance: quantile(0.99),
        largest_distance: quantile(1.0),
        rank_correlation: (texts.len() > 2).then(|| rank_correlation(&pairs(&vectors), &pairs(&full))),
        bits_per_weight: container.container().bits_per_weight(),
        file_bytes: container.container().file_bytes() as u64,
        texts: texts.len() as u64,
        tokens: texts.iter().map(|text| text.len() as u64).sum(),
        activations: match activations {
            ActivationFormat::Int8 => "int8",
            ActivationFormat::F32 => "f32",
        },
        kernels: machine.kernels.name,
    })
}

/// How often [`evaluate_embeddings`] calls `progress`.
pub fn steps(reference: &Checkpoint, texts: usize) -> usize {
    reference.spec.layers as usize + texts
}

fn of(a: &[f32], b: &[f32]) -> f64 {
    cosine(a.iter().copied(), b.iter().copied())
}

/// The cosines of all pairs.
fn pairs(vectors: &[Vec<f32>]) -> Vec<f64> {
    let row =
        |(index, a): (usize, &Vec<f32>)| vectors[index + 1..].iter().map(|b| of(a, b)).collect::<Vec<f64>>();
    vectors.par_iter().enumerate().map(row).collect::<Vec<_>>().concat()
}

/// Spearman's rank correlation; 0 where one side has but one rank.
pub fn rank_correlation(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let (mut product, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(&b) {
        product += (a - mean) * (b - mean);
        squares_a += (a - mean) * (a - mean);
        squares_b += (b - mean) * (b - mean);
    }
    let lengths = (squares_a * squares_b).sqrt();
    if lengths > 0.0 { product / lengths } else { 0.0 }
}

/// The rank of each value, from 0; equal ones have the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (equal.len() - 1) as f64 / 2.0;
        equal.iter().for_each(|&index| ranks[index] = rank);
        first += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranks_and_their_correlation() {
        assert_eq!(ranks(&[3.0, 1.0, 2.0, 1.0]), [3.0, 0.5, 2.0, 0.5]);
        assert!((rank_correlation(&[1.0, 2.0, 5.0], &[0.1, 0.2, 100.0]) - 1.0).abs() < 1e-15);
        assert!((rank_correlation(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-15);
        assert_eq!(rank_correlation(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), 0.0);
        // scipy.stats.spearmanr([1, 2, 2, 4, 3], [2, 1, 3, 5, 4])
        assert!(
            (rank_correlation(&[1.0, 2.0, 2.0, 4.0, 3.0], &[2.0, 1.0, 3.0, 5.0, 4.0])
                - 0.820_782_681_668_123_4)
                .abs()
                < 1e-12
        );
    }

    proptest! {
        /// Against the definition without ties: 1 - 6 sum d^2 / (n (n^2 - 1)).
        #[test]
        fn without_ties_it_is_the_textbooks_formula(keys in proptest::collection::btree_set(0..10_000_i32, 3..40), seed in any::<u64>()) {
            let a: Vec<f64> = keys.iter().map(|&key| f64::from(key)).collect();
            let n = a.len();
            let b: Vec<f64> = (0..n).map(|i| ((i as u64 + 1).wrapping_mul(seed | 1) % 1_000_003) as f64 + i as f64 * 1e-6).collect();
            prop_assume!(ranks(&b).iter().all(|rank| rank.fract() == 0.0));
            let squares: f64 = ranks(&a).iter().zip(ranks(&b)).map(|(a, b)| (a - b) * (a - b)).sum();
            let n = n as f64;
            let expected = 1.0 - 6.0 * squares / (n * (n * n - 1.0));
            prop_assert!((rank_correlation(&a, &b) - expected).abs() < 1e-12);
        }
    }
}
