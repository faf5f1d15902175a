//! The accuracy check: runs the container's windows and measures how far the quantized model is from the full-precision one.
//!
//! Everything after the logits is f64 through `libm`, so the figures, too, are the same on every machine.

use crate::error::RuntimeError;
use crate::session::Session;
use rescomp_formats::check_windows::CheckWindows;
use rescomp_formats::kept_classes::KeptClasses;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the windows gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Measured {
    /// Mean negative log-likelihood, nats a token.
    pub nll: f64,
    /// Mean KL divergence from the full-precision model over the kept classes and the rest, nats a token.
    pub mean_kl: f64,
    /// Positions whose most likely token is the full-precision model's.
    pub same_top1: u32,
    /// Positions.
    pub positions: u32,
    /// SHA-256 over the bits of the logits.
    pub logits_sha256: [u8; 32],
}

/// Runs every window through the session. `progress` hears of each finished window.
///
/// # Errors
/// [`RuntimeError`], for one [`RuntimeError::ContextFull`] where the session has fewer positions than a window.
#[inline(never)]
pub fn measure(
    session: &mut Session<'_>,
    windows: &CheckWindows<'_>,
    mut progress: impl FnMut(usize),
) -> Result<Measured, RuntimeError> {
    let sizes = windows.sizes();
    let mut digest = Sha256::new();
    let (mut nll, mut kl, mut same_top1, mut positions) = (0.0, 0.0, 0, 0);
    for window in 0..sizes.windows {
        session.reset();
        // A token at a time needs no memory for the window, and gives the same logits as any other split.
        for position in 0..sizes.positions {
            let logits = session.run(&[windows.token(window, position)])?;
            for logit in logits {
                digest.update(logit.to_le_bytes());
            }
            let normalizer = log_sum_exp(logits);
            let next = windows.token(window, position + 1);
            nll += normalizer - f64::from(logits[next as usize]);
            let place = window * sizes.positions + position;
            kl += coarse_kl(&windows.classes(), place, logits, normalizer);
            let reference = windows.kept(window, position).next().map(|(token, _)| token);
            same_top1 += u32::from(reference == Some(argmax(logits)));
            positions += 1;
        }
        progress(window + 1);
    }
    let count = f64::from(positions);
    let logits_sha256 = digest.finalize().into();
    Ok(Measured { nll: nll / count, mean_kl: kl / count, same_top1, positions, logits_sha256 })
}

/// Tokens that [`digest_in_tiles`] hands to the session at once; the session divides them into its own tiles.
const TOGETHER: usize = 128;

/// SHA-256 over the bits of the windows' logits, where the session runs several tokens at once: the digest that [`measure`] finds, by
/// the kernels of prefill. `progress` hears of each finished window.
///
/// # Errors
/// As [`measure`].
#[inline(never)]
pub fn digest_in_tiles(
    session: &mut Session<'_>,
    windows: &CheckWindows<'_>,
    mut progress: impl FnMut(usize),
) -> Result<[u8; 32], RuntimeError> {
    let sizes = windows.sizes();
    let mut digest = Sha256::new();
    for window in 0..sizes.windows {
        session.reset();
        for first in (0..sizes.positions).step_by(TOGETHER) {
            let positions = first..sizes.positions.min(first + TOGETHER);
            let tokens: heapless::Vec<u32, TOGETHER> =
                positions.map(|position| windows.token(window, position)).collect();
            session.run_each(&tokens, |_, logits| {
                logits.iter().for_each(|logit| digest.update(logit.to_le_bytes()));
            })?;
        }
        progress(window + 1);
    }
    Ok(digest.finalize().into())
}

/// `ln sum exp(logits)`.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |highest, &logit| highest.max(logit));
    let highest = f64::from(highest);
    highest + libm::log(logits.iter().map(|&logit| libm::exp(f64::from(logit) - highest)).sum())
}

/// The most likely token; of equals, the first.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}

/// KL divergence over the kept classes and the rest. The recorded probabilities are rounded; scaling them to sum to 1 makes
/// the divergence's error second order in the rounding.
pub(crate) fn coarse_kl(classes: &KeptClasses<'_>, place: usize, logits: &[f32], normalizer: f64) -> f64 {
    let rest = f64::from(classes.rest(place));
    let mut recorded = rest;
    let mut measured_rest = 1.0;
    let mut divergence = 0.0;
    for (token, log_p) in classes.kept(place) {
        let (p, log_q) = (libm::exp(log_p), f64::from(logits[token as usize]) - normalizer);
        recorded += p;
        measured_rest -= libm::exp(log_q);
        divergence += p * (log_p - log_q);
    }
    if rest > 0.0 {
        // The difference may round to zero or below where the rest is tiny.
        divergence += rest * (libm::log(rest) - libm::log(measured_rest.max(1e-12)));
    }
    // sum (p/z) ln((p/z)/q) = (sum p ln(p/q)) / z - ln z
    divergence / recorded - libm::log(recorded)
}
