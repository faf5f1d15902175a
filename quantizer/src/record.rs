//! Recording the full-precision model on the check windows, for the container.

use crate::dense::DenseLogits;
use rescomp_formats::check_windows::{self, CheckSizes, CheckWindowsError};
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::{check_embeddings, check_images, kept_classes};
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

/// Most bytes of a classifier's check, where one percent of the container is less: images are large.
const IMAGES_BUDGET_BYTES: usize = 64 * 1024;
/// Most images of a classifier's check.
const MAX_IMAGES: usize = 16;
/// Images that a check is to have; pixels are merged until so many fit.
const ENOUGH_IMAGES: usize = 4;

/// How many of `available` images a container of about `container_bytes` can carry, and how many pixels in both directions one of theirs stands for:
/// as few as let enough images fit, and fewer than a patch has.
pub fn images(container_bytes: usize, image: &ImageInput, classes: u32, available: usize) -> (usize, u32) {
    let budget = IMAGES_BUDGET_BYTES.max(container_bytes / 100);
    let most = available.min(MAX_IMAGES);
    let edges = [image.height, image.width];
    let fit = |repeat: u32| {
        let bytes = |count| check_images::section_bytes(count, edges, repeat, classes);
        (1..=most).rev().find(|&count| bytes(count).is_some_and(|bytes| bytes <= budget)).unwrap_or(0)
    };
    // A divisor of a patch's edge tiles the image, too.
    let repeats = (1..image.patch.max(2)).filter(|&repeat| image.patch.is_multiple_of(repeat));
    let largest = repeats.clone().next_back().unwrap_or(1);
    let repeat =
        repeats.into_iter().find(|&repeat| fit(repeat) >= most.min(ENOUGH_IMAGES)).unwrap_or(largest);
    (fit(repeat).max(most.min(1)), repeat)
}

/// The check images' section: the full-precision logits of images, which are stored merged.
///
/// # Errors
/// [`CheckWindowsError`], where there are not as many logits as images.
pub fn record_images(
    images: &[Vec<u8>],
    repeat: u32,
    logits: &[Vec<f32>],
) -> Result<Vec<u8>, CheckWindowsError> {
    let classes = logits.first().map_or(0, Vec::len) as u32;
    let (kept_classes, _) = kept_classes::sizes(classes);
    let (mut rest, mut kept) = (Vec::new(), Vec::new());
    for logits in logits {
        keep(logits, kept_classes, &mut kept, &mut rest);
    }
    check_images::write(images, repeat, &rest, &kept, classes)
}

/// Adds the most likely classes of some logits, most likely first, with their log-probabilities, and the probability of all others.
fn keep(logits: &[f32], classes: usize, kept: &mut Vec<(u32, f64)>, rest: &mut Vec<f32>) {
    let normalizer = log_sum_exp(logits);
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    // Of equals the first, as `argmax` has it.
    tokens.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    let log_probability = |token: u32| f64::from(logits[token as usize]) - normalizer;
    let (most_likely, others) = tokens.split_at(classes);
    kept.extend(most_likely.iter().map(|&token| (token, log_probability(token))));
    rest.push(others.iter().map(|&token| log_probability(token).exp()).sum::<f64>() as f32);
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
            keep(logits, sizes.classes, &mut kept, &mut rest);
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
    fn the_images_keep_the_budget_and_are_as_fine_as_fits() {
        let of = |edge, patch| ImageInput {
            height: edge,
            width: edge,
            patch,
            tokens_before: 1,
            head_tokens: 1,
            rescale: 1.0,
            mean: [0.0; 3],
            deviation: [1.0; 3],
            resize: None,
        };
        // 32 x 32 x 3 bytes, and 4 + 10 (2 + 2) of probabilities an image.
        assert_eq!(images(0, &of(32, 8), 10, 100), (16, 1));
        assert_eq!(images(0, &of(32, 8), 10, 3), (3, 1));
        assert_eq!(images(0, &of(32, 8), 10, 0), (0, 1));
        // 56 x 56 x 3 and 4 + 64 (2 + 2): six fit, of 112 x 112 one would.
        assert_eq!(images(0, &of(224, 16), 1000, 100), (6, 4));
        assert_eq!(images(80_000_000, &of(224, 16), 1000, 100), (5, 1));
        assert_eq!(images(0, &of(224, 16), 1000, 1), (1, 2));
        // Nothing fits: the check is what it is.
        assert_eq!(images(0, &of(4096, 4), 1000, 100), (1, 2));
        for (edge, patch) in [(224, 16), (384, 32), (384, 16), (28, 7), (518, 14)] {
            let (count, repeat) = images(3_000_000, &of(edge, patch), 1000, 40);
            assert!(count > 0 && repeat < patch && edge % repeat == 0, "{edge} {patch}: {count} {repeat}");
        }
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
