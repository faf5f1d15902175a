//! Distributing bytes over tensors: each gets one of its formats, so that the losses add up to the least that fits.
//!
//! A multiple-choice knapsack, solved by dynamic programming over bytes in units: sizes are rounded up to a unit, so what is chosen
//! always fits, and it is the best one whose rounded sizes fit. The unit is the smallest that keeps the table small; with the 64-byte
//! alignment of sections as the unit (files of up to a few megabytes), nothing is rounded.

use rescomp_formats::section::SECTION_ALIGNMENT_BYTES;

/// The most units of the budget.
const MOST_UNITS: u64 = 1 << 16;

/// A format that a tensor could have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What it takes.
    pub bytes: u64,
    /// What it costs; finite, 0 or more.
    pub loss: f64,
}

/// Why nothing could be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{budget_bytes} bytes are not enough: the smallest formats take {smallest_bytes}")]
pub struct TooSmall {
    /// What there is.
    pub budget_bytes: u64,
    /// What the smallest candidates take together.
    pub smallest_bytes: u64,
}

/// For each tensor the index of one of its candidates: those with the least sum of losses whose bytes are at most `budget_bytes`
/// together.
///
/// # Errors
/// [`TooSmall`].
///
/// # Panics
/// Where a tensor has no candidate.
pub fn allocate(tensors: &[Vec<Candidate>], budget_bytes: u64) -> Result<Vec<usize>, TooSmall> {
    let smallest = |candidates: &Vec<Candidate>| candidates.iter().map(|candidate| candidate.bytes).min();
    let smallest_bytes: u64 = tensors.iter().map(|tensor| smallest(tensor).expect("a candidate")).sum();
    let too_small = TooSmall { budget_bytes, smallest_bytes };
    // More than everything needs is no use, and would make units coarser.
    let largest = |candidates: &Vec<Candidate>| candidates.iter().map(|candidate| candidate.bytes).max();
    let largest_bytes: u64 = tensors.iter().filter_map(largest).sum();
    let spare = |unit: u64| budget_bytes.min(largest_bytes + tensors.len() as u64 * unit) / unit;
    let mut unit = SECTION_ALIGNMENT_BYTES as u64;
    while spare(unit) > MOST_UNITS {
        unit *= 2;
    }
    if smallest_bytes > budget_bytes {
        return Err(too_small);
    }
    loop {
        match within_units(tensors, unit, spare(unit) as usize) {
            Some(chosen) => return Ok(chosen),
            // Rounding up took what was there: finer units.
            None if unit > 1 => unit /= 2,
            None => return Err(too_small),
        }
    }
}

/// The best choice whose sizes, each rounded up to units, are at most `budget` together.
fn within_units(tensors: &[Vec<Candidate>], unit: u64, budget: usize) -> Option<Vec<usize>> {
    // least[b]: the least sum of losses of the tensors so far in at most b units; infinite where they don't fit.
    let mut least = vec![0.0; budget + 1];
    let mut choices: Vec<Vec<u16>> = Vec::with_capacity(tensors.len());
    for candidates in tensors {
        let mut next = vec![f64::INFINITY; budget + 1];
        let mut choice = vec![u16::MAX; budget + 1];
        for (index, candidate) in candidates.iter().enumerate() {
            let size = candidate.bytes.div_ceil(unit) as usize;
            for units in size..=budget {
                let loss = least[units - size] + candidate.loss;
                if loss < next[units] {
                    next[units] = loss;
                    choice[units] = index as u16;
                }
            }
        }
        choices.push(choice);
        least = next;
    }
    if !least[budget].is_finite() {
        return None;
    }
    let mut units = budget;
    let mut chosen = vec![0; tensors.len()];
    for (tensor, choice) in choices.iter().enumerate().rev() {
        chosen[tensor] = usize::from(choice[units]);
        units -= tensors[tensor][chosen[tensor]].bytes.div_ceil(unit) as usize;
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn totals(tensors: &[Vec<Candidate>], chosen: &[usize]) -> (u64, f64) {
        let picked = || tensors.iter().zip(chosen).map(|(tensor, at)| tensor[*at]);
        (picked().map(|candidate| candidate.bytes).sum(), picked().map(|candidate| candidate.loss).sum())
    }

    /// Every combination.
    fn brute_force(tensors: &[Vec<Candidate>], budget: u64) -> Option<f64> {
        let mut best: Option<f64> = None;
        let mut chosen = vec![0; tensors.len()];
        loop {
            let (bytes, loss) = totals(tensors, &chosen);
            if bytes <= budget && best.is_none_or(|best| loss < best) {
                best = Some(loss);
            }
            let Some(tensor) = (0..tensors.len()).find(|tensor| chosen[*tensor] + 1 < tensors[*tensor].len())
            else {
                return best;
            };
            chosen[tensor] += 1;
            chosen[..tensor].fill(0);
        }
    }

    proptest! {
        #[test]
        fn the_best_of_all_combinations_is_found(
            tensors in prop::collection::vec(prop::collection::vec((1..60_u64, 0.0..10.0_f64), 1..4), 1..6),
            budget in 1..200_u64,
        ) {
            let of = |(units, loss): &(u64, f64)| Candidate { bytes: 64 * units, loss: *loss };
            let tensors: Vec<Vec<Candidate>> =
                tensors.iter().map(|candidates| candidates.iter().map(of).collect()).collect();
            match (allocate(&tensors, 64 * budget), brute_force(&tensors, 64 * budget)) {
                (Ok(chosen), Some(expected)) => {
                    let (bytes, loss) = totals(&tensors, &chosen);
                    prop_assert!(bytes <= 64 * budget && (loss - expected).abs() < 1e-9, "{} {}", loss, expected);
                }
                (Err(error), None) => prop_assert!(error.smallest_bytes > error.budget_bytes),
                (found, expected) => prop_assert!(false, "{:?} {:?}", found, expected),
            }
        }

        #[test]
        fn what_is_chosen_fits_whatever_the_sizes(
            tensors in prop::collection::vec(prop::collection::vec((1..3_000_000_000_u64, 0.0..10.0_f64), 1..4), 1..6),
            budget in 1..9_000_000_000_u64,
        ) {
            let of = |(bytes, loss): &(u64, f64)| Candidate { bytes: *bytes, loss: *loss };
            let tensors: Vec<Vec<Candidate>> =
                tensors.iter().map(|candidates| candidates.iter().map(of).collect()).collect();
            let smallest: u64 = tensors.iter().map(|t| t.iter().map(|c| c.bytes).min().unwrap()).sum();
            // Within a hundred-thousandth of the smallest sizes, units may be too coarse to find it.
            prop_assume!(smallest > budget || smallest + smallest / 1000 < budget);
            match allocate(&tensors, budget) {
                Ok(chosen) => prop_assert!(totals(&tensors, &chosen).0 <= budget),
                Err(_) => prop_assert!(smallest > budget),
            }
        }
    }

    #[test]
    fn a_budget_for_everything_gives_the_least_losses() {
        let tensors = vec![
            vec![Candidate { bytes: 10, loss: 1.0 }, Candidate { bytes: 20, loss: 0.5 }],
            vec![Candidate { bytes: 90, loss: 0.1 }, Candidate { bytes: 70, loss: 0.2 }],
        ];
        assert_eq!(allocate(&tensors, u64::MAX), Ok(vec![1, 0]));
        assert_eq!(allocate(&tensors, 79), Err(TooSmall { budget_bytes: 79, smallest_bytes: 80 }));
    }
}
