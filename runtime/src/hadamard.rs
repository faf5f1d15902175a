//! Hadamard transforms: `x -> x (H_K (x) H_2^p) / sqrt(n)` of rows of `n = K 2^p` values, an orthogonal change of basis whose entries are all
//! of one size, in `n (K + p)` additions.
//!
//! `H_2^p` is Sylvester's matrix. `K` is 1, or the smallest order of Paley's two constructions (R. E. A. C. Paley, "On orthogonal matrices",
//! J. Math. Phys. 12, 1933, lemmas 2 and 4) whose quotient is a power of two: from quadratic residues, so there is no table of matrices. The
//! orders 12, 20, 28, 36, 44, 60, 68, 76, 84, 104, 108, 124, 132, 140, 152, 164, 180 and more serve the widths of models; of what is left
//! (172 2^p, say) there is no transform.
//!
//! One generic text serves the host's f64 and the kernels' f32. Every sum is taken in one order, without fused multiply-adds, so that results
//! are the same bits on every machine (docs/numerics.md).

use core::ops::{Add, Mul, Neg, Sub};

/// The largest order of a dense block.
pub const MAX_ORDER: usize = 256;
/// Columns that the dense block takes together.
const TOGETHER: usize = 8;

/// What a transform computes with: f32 or f64.
pub trait Number:
    Copy + Default + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
}

impl Number for f32 {}
impl Number for f64 {}

/// How the signs of the dense block follow from quadratic residues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Construction {
    /// There is no dense block.
    Sylvester,
    /// Paley's first: order `q + 1`, q a prime, 3 modulo 4.
    First,
    /// Paley's second: order `2 (q + 1)`, q a prime, 1 modulo 4.
    Second,
}

/// The transform of rows of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hadamard {
    elems: usize,
    /// K.
    order: usize,
    construction: Construction,
    /// Quadratic character of each number below 2 q modulo q: 0, 1 or -1.
    characters: [i8; 2 * MAX_ORDER],
}

impl Hadamard {
    /// The transform of rows of `elems` values; `None` where there is none.
    pub fn new(elems: usize) -> Option<Hadamard> {
        if elems == 0 {
            return None;
        }
        let power_of_two = 1 << elems.trailing_zeros();
        let odd = elems / power_of_two;
        if odd == 1 {
            let construction = Construction::Sylvester;
            return Some(Hadamard { elems, order: 1, construction, characters: [0; 2 * MAX_ORDER] });
        }
        // Orders above 2 are multiples of four.
        let mut order = odd.checked_mul(4)?;
        while order <= MAX_ORDER && elems.is_multiple_of(order) {
            let q = order - 1;
            if q % 4 == 3 && is_prime(q) {
                let construction = Construction::First;
                return Some(Hadamard { elems, order, construction, characters: characters(q) });
            }
            let q = order / 2 - 1;
            if q % 4 == 1 && is_prime(q) {
                let construction = Construction::Second;
                return Some(Hadamard { elems, order, construction, characters: characters(q) });
            }
            order *= 2;
        }
        None
    }

    /// Values of a row.
    pub fn elems(&self) -> usize {
        self.elems
    }

    /// The order of the dense block, 1 where there is none: a value takes as many additions, and one for each doubling.
    pub fn order(&self) -> usize {
        self.order
    }

    /// The sign of an element of the dense block.
    fn positive(&self, row: usize, col: usize) -> bool {
        match self.construction {
            Construction::Sylvester => true,
            Construction::First => match (row, col) {
                _ if row == col => true,
                (0, _) => true,
                (_, 0) => false,
                _ => self.character(self.order - 1, row, col) > 0,
            },
            Construction::Second => {
                let q = self.order / 2 - 1;
                let lower_right = row % 2 == 1 && col % 2 == 1;
                match (row / 2, col / 2) {
                    // On the diagonal [[1, -1], [-1, -1]], elsewhere [[1, 1], [1, -1]] times the conference matrix.
                    (a, b) if a == b => row.is_multiple_of(2) && col.is_multiple_of(2),
                    (0, _) | (_, 0) => !lower_right,
                    (a, b) => (self.character(q, a, b) > 0) != lower_right,
                }
            }
        }
    }

    /// The character of the difference of two numbers, counted from 1, modulo q.
    fn character(&self, q: usize, row: usize, col: usize) -> i8 {
        self.characters[q + row - col]
    }

    /// Transforms a row in its own place. `scale` is one over the root of its length, so that lengths stay.
    ///
    /// # Panics
    /// Where `values` are of another length.
    #[inline(always)]
    pub fn apply<T: Number>(&self, values: &mut [T], scale: T) {
        assert_eq!(values.len(), self.elems, "values of a row");
        let run = self.elems / self.order;
        for values in values.chunks_exact_mut(run) {
            sylvester(values);
        }
        if self.order > 1 {
            self.apply_dense_block(values, run);
        }
        values.iter_mut().for_each(|value| *value = *value * scale);
    }

    /// Multiplies with the dense block, over the values `run` apart.
    #[inline(always)]
    fn apply_dense_block<T: Number>(&self, values: &mut [T], run: usize) {
        let mut before = [[T::default(); TOGETHER]; MAX_ORDER];
        let mut at = 0;
        while at < run {
            let width = TOGETHER.min(run - at);
            for (row, before) in before[..self.order].iter_mut().enumerate() {
                before[..width].copy_from_slice(&values[row * run + at..][..width]);
            }
            for col in 0..self.order {
                let mut sums = [T::default(); TOGETHER];
                for (row, before) in before[..self.order].iter().enumerate() {
                    match self.positive(row, col) {
                        true => sums.iter_mut().zip(before).for_each(|(sum, value)| *sum = *sum + *value),
                        false => sums.iter_mut().zip(before).for_each(|(sum, value)| *sum = *sum - *value),
                    }
                }
                values[col * run + at..][..width].copy_from_slice(&sums[..width]);
            }
            at += width;
        }
    }
}

/// Sylvester's transform of a power of two of values: butterflies, the nearest neighbours first.
#[inline(always)]
fn sylvester<T: Number>(values: &mut [T]) {
    let mut half = 1;
    while half < values.len() {
        for pair in values.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        half *= 2;
    }
}

fn is_prime(number: usize) -> bool {
    number > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

/// The quadratic character of each number below `2 q` modulo the prime `q`, which is below [`MAX_ORDER`].
fn characters(q: usize) -> [i8; 2 * MAX_ORDER] {
    let mut characters = [0; 2 * MAX_ORDER];
    characters[1..q].fill(-1);
    (1..q).for_each(|root| characters[root * root % q] = 1);
    characters.copy_within(..q, q);
    characters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(elems: usize) -> std::vec::Vec<std::vec::Vec<f64>> {
        let hadamard = Hadamard::new(elems).expect("an order");
        let row = |at: usize| {
            let mut row = std::vec![0.0; elems];
            row[at] = 1.0;
            hadamard.apply(&mut row, 1.0);
            row
        };
        (0..elems).map(row).collect()
    }

    #[test]
    fn all_entries_are_of_one_size_and_rows_are_orthogonal() {
        let mut tried = 0;
        for elems in (1..=264).chain([576, 768, 896, 960, 1152, 1536]) {
            if Hadamard::new(elems).is_none() {
                continue;
            }
            tried += 1;
            let matrix = matrix(elems);
            assert!(matrix.iter().flatten().all(|entry| entry.abs() == 1.0), "{elems}");
            // Every row of a large matrix against some others.
            for (at, row) in matrix.iter().enumerate() {
                for other in (0..elems).filter(|other| elems < 100 || (at + other) % 7 == 0) {
                    let dot: f64 = row.iter().zip(&matrix[other]).map(|(a, b)| a * b).sum();
                    assert_eq!(dot, if at == other { elems as f64 } else { 0.0 }, "{elems}: {at}, {other}");
                }
            }
        }
        assert!(tried > 60, "{tried}");
    }

    #[test]
    fn widths_of_models_have_a_transform_and_others_are_refused() {
        for elems in [
            32, 64, 80, 96, 128, 256, 384, 576, 768, 896, 960, 1024, 1152, 1536, 2048, 2560, 2816, 3072,
            4864, 5632, 8192, 8960,
        ] {
            assert!(Hadamard::new(elems).is_some(), "{elems}");
        }
        for elems in [0, 3, 6, 10, 11008, usize::MAX] {
            assert!(Hadamard::new(elems).is_none(), "{elems}");
        }
    }

    #[test]
    fn lengths_stay() {
        for elems in [64, 576, 1536] {
            let hadamard = Hadamard::new(elems).expect("an order");
            let mut values: std::vec::Vec<f64> = (0..elems).map(|at| (at as f64 * 0.7).sin()).collect();
            let before: f64 = values.iter().map(|value| value * value).sum();
            hadamard.apply(&mut values, 1.0 / (elems as f64).sqrt());
            let after: f64 = values.iter().map(|value| value * value).sum();
            assert!((after / before - 1.0).abs() < 1e-12, "{elems}: {before}, {after}");
        }
    }
}
