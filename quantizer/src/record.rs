//! Recording the full-precision model on the check windows, for the container.

use crate::dense::DenseLogits;
use rescomp_formats::check_embeddings;
use rescomp_formats::check_windows::{self, CheckSizes, CheckWindowsError};
use rescomp_runtime::eval::log_sum_exp;

/// Most bytes of the section, where one percent of the container is less: half of what the format allows, since they count.
const BUDGET_BYTES: usize = 32 * 1024;
/// Positions of a window.
const POSITIONS: usize = 122;
/// Most windows, however large the container: the check is to take seconds.
const MAX_WINDOWS: usize = 4;

/// The windows that a container of about `container_bytes` can carry, for a vocabulary and a context.
pub fn sizes(container_bytes: usize, vocabulary: u32, context: usize) -> CheckSizes {
    let budget = BUDGET_BYTES.max(container_bytes / 100);
    let fits = |windows: usize, positions: usize| {
        let sizes = CheckSizes::new(windows, positions, vocabulary);
        sizes.section_bytes().is_some_and(|bytes| bytes <= budget)
    };
    let positions = (1..=POSITIONS.min(context)).rev().find(|&positions| fits(1, positions)).unwrap_or(1);
    let windows = (1..=MAX_WINDOWS).rev().find(|&windows| fits(windows, positions)).unwrap_or(1);
    CheckSizes::new(windows, positions, vocabulary)
}

/// Most texts of an encoder's check.
const MAX_TEXTS: usize = 16;

/// How many of the texts, of these lengths and in their order, a container of about `container_bytes` can carry with their vectors of `width`
/// numbers: one where there is any.
pub fn texts(
    container_bytes: usize,
    lengths: impl ExactSizeIterator<Item = usize> + Clone,
    width: usize,
) -> usize {
    let budget = BUDGET_BYTES.max(container_bytes / 100);
    let fits = |&count: &usize| check_embeddings::section_bytes(lengths.clone().take(count), width) <= budget;
    let most = lengths.len().min(MAX_TEXTS);
    (1..=most).rev().find(fits).unwrap_or(most.min(1))
}

/// What the full-precision model says on the check windows.
#[derive(Clone, Debug)]
pub struct Record {
    /// The section.
    pub section: Vec<u8>,
    /// Mean negative log-likelihood of the full-precision model, nats a token.
    pub reference_nll: f64,
    /// Positions in all windows.
    pub positions: u32,
}

/// Records the model on windows of `sizes.positions + 1` tokens.
///
/// # Errors
/// [`CheckWindowsError`], where the number of windows or their lengths disagree with `sizes`.
///
/// # Panics
/// Where `windows` aren't those that `model` has run over, or have no token after the last position.
pub fn record(
    model: &DenseLogits<'_>,
    windows: &[Vec<u32>],
    sizes: &CheckSizes,
) -> Result<Record, CheckWindowsError> {
    let (mut rest, mut kept, mut nll) = (Vec::new(), Vec::new(), 0.0);
    for (index, window) in windows.iter().enumerate() {
        let logits = model.window(index);
        for (position, logits) in logits.chunks_exact(logits.len() / sizes.positions).enumerate() {
            let normalizer = log_sum_exp(logits);
            nll += normalizer - f64::from(logits[window[position + 1] as usize]);
            let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
            // Of equals the first, as `argmax` has it.
            tokens.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
            let log_probability = |token: u32| f64::from(logits[token as usize]) - normalizer;
            let (most_likely, others) = tokens.split_at(sizes.classes);
            kept.extend(most_likely.iter().map(|&token| (token, log_probability(token))));
            rest.push(others.iter().map(|&token| log_probability(token).exp()).sum::<f64>() as f32);
        }
    }
    let tokens: Vec<u32> = windows.concat();
    let positions = windows.len() * sizes.positions;
    Ok(Record {
        section: check_windows::write(sizes, &tokens, &rest, &kept)?,
        reference_nll: nll / positions as f64,
        positions: positions as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_keep_the_budget_and_use_it() {
        let count = |container_bytes, lengths: &[usize], width| {
            texts(container_bytes, lengths.iter().copied(), width)
        };
        assert_eq!(count(0, &[20; 40], 384), MAX_TEXTS);
        assert_eq!(count(0, &[20; 5], 384), 5);
        assert_eq!(count(0, &[], 384), 0);
        // 8 bytes, and 4 + 80 + 4096 a text.
        assert_eq!(count(0, &[20; 40], 1024), (32 * 1024 - 8) / 4180);
        assert_eq!(count(5_000_000, &[20; 40], 1024), (50_000 - 8) / 4180);
        assert_eq!(count(0, &[20; 40], 60_000), 1);
    }

    #[test]
    fn the_windows_keep_the_budget_and_use_it() {
        for vocabulary in [2, 63, 64, 1024, 1 << 16, (1 << 16) + 1, 151_936] {
            for container_bytes in [0, 100_000, 3_276_800, 5_000_000, 20_000_000, 4_000_000_000] {
                for context in [1, 16, 122, 123, 4096] {
                    let found = sizes(container_bytes, vocabulary, context);
                    let budget = (32 * 1024).max(container_bytes / 100);
                    let bytes = |windows, positions| {
                        CheckSizes::new(windows, positions, vocabulary).section_bytes().unwrap()
                    };
                    let CheckSizes { windows, positions, .. } = found;
                    let case =
                        format!("{vocabulary} tokens, {container_bytes} bytes, context {context}: {found:?}");
                    assert!(bytes(windows, positions) <= budget, "{case}");
                    assert!((1..=POSITIONS.min(context)).contains(&positions), "{case}");
                    assert!((1..=MAX_WINDOWS).contains(&windows), "{case}");
                    // As long as can be, then as many as can be.
                    let longest = positions == POSITIONS.min(context);
                    assert!(longest || bytes(1, positions + 1) > budget, "{case}");
                    assert!(windows == MAX_WINDOWS || bytes(windows + 1, positions) > budget, "{case}");
                }
            }
        }
    }
}
