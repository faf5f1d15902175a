//! The inputs of a block's sets in the full-precision stream, from its run to that of the quantized stream.

use rayon::prelude::*;
use rescomp_runtime::linear::LinearSet;
use std::collections::BTreeMap;

use crate::vectorized::vectorized;

/// Elements that one task copies.
pub(super) const PART: usize = 1 << 16;
/// The bit of a number's sign.
const SIGN: u32 = 1 << 31;

/// Inputs by set. Memory that was used for one block serves the next: there is a gigabyte of it for a million tokens, which the
/// system would clear page by page each time.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    inputs: BTreeMap<LinearSet, Vec<f32>>,
    spare: Vec<Vec<f32>>,
}

impl Kept {
    /// Keeps a copy of a set's input, and says whether all of it is finite.
    #[must_use]
    pub(crate) fn keep(&mut self, set: LinearSet, input: &[f32]) -> bool {
        let fits = |(_, spare): &(usize, &Vec<f32>)| spare.len() >= input.len();
        let best = self.spare.iter().enumerate().filter(fits).min_by_key(|(_, spare)| spare.len());
        let mut copy = match best.map(|(at, _)| at) {
            Some(at) => self.spare.swap_remove(at),
            None => bytemuck::zeroed_vec(input.len()),
        };
        copy.truncate(input.len());
        let copied = |(to, from): (&mut [f32], &[f32])| {
            to.copy_from_slice(from);
            all_finite(to)
        };
        let finite =
            copy.par_chunks_mut(PART).zip(input.par_chunks(PART)).map(copied).reduce(|| true, |a, b| a & b);
        self.inputs.insert(set, copy);
        finite
    }

    /// Takes a set's input. It can be taken once.
    pub(crate) fn take(&mut self, set: LinearSet) -> Option<Vec<f32>> {
        self.inputs.remove(&set)
    }

    /// Gives memory back that was taken.
    pub(crate) fn give_back(&mut self, memory: Vec<f32>) {
        self.spare.push(memory);
    }
}

/// Whether no value is infinite or a NaN. A loop that stops at the first would not be vectorized.
pub(super) fn all_finite(values: &[f32]) -> bool {
    let largest = vectorized(
        #[inline(always)]
        || values.iter().fold(0, |largest, value| (value.to_bits() & !SIGN).max(largest)),
    );
    largest < f32::INFINITY.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_taken_once_and_its_memory_used_again() {
        let mut kept = Kept::default();
        assert!(kept.keep(LinearSet::Down, &[1.0; 9]) && kept.keep(LinearSet::Output, &[2.0; 3]));
        let down = kept.take(LinearSet::Down).unwrap();
        assert_eq!((down.as_slice(), kept.take(LinearSet::Down)), (&[1.0; 9][..], None));
        let memory = down.as_ptr();
        kept.give_back(down);
        assert!(kept.keep(LinearSet::GateUp, &[3.0; 8]));
        let again = kept.take(LinearSet::GateUp).unwrap();
        assert_eq!((again.as_slice(), again.as_ptr()), (&[3.0; 8][..], memory));
        assert_eq!(kept.take(LinearSet::Output), Some(vec![2.0; 3]));
        assert_eq!(kept.take(LinearSet::QueryKeyValue), None);
    }

    #[test]
    fn one_broken_value_is_found_wherever_it_stands() {
        let mut kept = Kept::default();
        for elems in [1, 17, PART, 2 * PART + 5] {
            for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, elems / 2, elems - 1] {
                    let mut input = vec![f32::MAX; elems];
                    assert!(kept.keep(LinearSet::Down, &input) && all_finite(&input));
                    input[at] = broken;
                    assert!(!kept.keep(LinearSet::Down, &input) && !all_finite(&input), "{broken} at {at}");
                }
            }
        }
    }
}
