//! The loss at the head, and its gradient for the head's input, a window at a time: logits of many tokens are never held together.
//!
//! ```text
//! divergence       sum over the vocabulary p (log p - log q), p of the full-precision model       (docs: "KL")
//! cross-entropy    -log q of the token that follows
//! gradient         q - p of the logits, times the derivative of their cap, times the head
//! ```

use crate::checkpoint::Matrix;
use crate::dense::head_logits;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use rescomp_formats::spec::ModelSpec;

/// Tokens that one thread multiplies at a time.
const STRIP_TOKENS: usize = 64;

/// What the quantized model's tokens are measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// The KL divergence from the full-precision model.
    Divergence,
    /// The cross-entropy of the text.
    CrossEntropy,
}

/// What one window is measured against.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target<'a> {
    /// The full-precision model's logits, `positions x vocabulary`.
    Logits(&'a [f32]),
    /// The token behind each position.
    Tokens(&'a [u32]),
}

/// The sum of the losses of a window's tokens, and its gradient for `hidden` (`positions x hidden`, the head's input).
pub(super) fn of_window(
    spec: &ModelSpec,
    head: &Matrix,
    hidden: &[f32],
    target: Target<'_>,
) -> (f64, Vec<f32>) {
    let mut logits = head_logits(spec, head, hidden);
    let (vocabulary, cap) = (head.rows, spec.variant.logit_cap);
    let losses: Vec<f64> = logits
        .par_chunks_mut(vocabulary)
        .enumerate()
        .map(|(token, logits)| match target {
            Target::Logits(all) => divergence(&all[token * vocabulary..][..vocabulary], logits, cap),
            Target::Tokens(tokens) => cross_entropy(tokens[token] as usize, logits, cap),
        })
        .collect();
    let mut gradient = vec![0.0; hidden.len()];
    let strips = logits.par_chunks(STRIP_TOKENS * vocabulary);
    gradient.par_chunks_mut(STRIP_TOKENS * head.cols).zip(strips).for_each(|(gradient, logits)| {
        let tokens = logits.len() / vocabulary;
        matmul(
            MatMut::from_row_major_slice_mut(gradient, tokens, head.cols),
            Accum::Replace,
            MatRef::from_row_major_slice(logits, tokens, vocabulary),
            head.view(),
            1.0,
            Par::Seq,
        );
    });
    // In the order of the tokens, so the same for any number of threads.
    (losses.iter().sum(), gradient)
}

/// The logarithm of the sum of exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |largest, logit| largest.max(*logit));
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// What the cap does to a gradient: `d cap tanh(x / cap) / dx`.
fn through_cap(logit: f32, cap: f32) -> f32 {
    if cap > 0.0 { 1.0 - (logit / cap) * (logit / cap) } else { 1.0 }
}

/// The divergence of one token; `logits` become its gradient for the logits before their cap.
fn divergence(full: &[f32], logits: &mut [f32], cap: f32) -> f64 {
    let (of_full, of_logits) = (log_sum(full), log_sum(logits));
    let mut loss = 0.0;
    for (logit, &full) in logits.iter_mut().zip(full) {
        let (p, q) = (f64::from(full) - of_full, f64::from(*logit) - of_logits);
        let (probability, of_quantized) = (f64::from((p as f32).exp()), f64::from((q as f32).exp()));
        loss += probability * (p - q);
        *logit = (of_quantized - probability) as f32 * through_cap(*logit, cap);
    }
    loss
}

/// The cross-entropy of one token; `logits` become its gradient for the logits before their cap.
fn cross_entropy(token: usize, logits: &mut [f32], cap: f32) -> f64 {
    let all = log_sum(logits);
    let loss = all - f64::from(logits[token]);
    for (at, logit) in logits.iter_mut().enumerate() {
        let of_quantized = (f64::from(*logit) - all).exp() as f32;
        *logit = (of_quantized - f32::from(u8::from(at == token))) * through_cap(*logit, cap);
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use std::path::Path;

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let mut spec = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m"))
            .unwrap()
            .spec;
        let (rows, cols, positions) = (11, 6, 3);
        let number = |at: usize| ((at * 29 + 3) as f32 * 0.61).sin();
        let head = Matrix { rows, cols, data: (0..rows * cols).map(|at| 2.0 * number(at)).collect() };
        let hidden: Vec<f32> = (0..positions * cols).map(|at| number(at + 500)).collect();
        let full: Vec<f32> = (0..positions * rows).map(|at| 2.0 * number(at + 900)).collect();
        let tokens = [4, 0, 10];
        for cap in [0.0, 3.0] {
            spec.variant.logit_cap = cap;
            for target in [Target::Logits(&full), Target::Tokens(&tokens)] {
                let (loss, gradient) = of_window(&spec, &head, &hidden, target);
                assert!(loss > 0.1);
                for at in 0..hidden.len() {
                    let moved = |by: f32| {
                        let mut hidden = hidden.clone();
                        hidden[at] += by;
                        of_window(&spec, &head, &hidden, target).0
                    };
                    let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                    let found = f64::from(gradient[at]);
                    assert!(
                        (found - expected).abs() < 1e-3 * (1.0 + expected.abs()),
                        "{at}: {found}, {expected}"
                    );
                }
            }
            // A model is not far from itself.
            let logits = head_logits(&spec, &head, &hidden);
            let (loss, gradient) = of_window(&spec, &head, &hidden, Target::Logits(&logits));
            assert!(loss.abs() < 1e-6 && gradient.iter().all(|gradient| gradient.abs() < 1e-5), "{loss}");
        }
    }
}
