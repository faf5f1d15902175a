//! What low-rank corrections leave of a matrix's error, for distributing bytes over bits and ranks.
//!
//! ```text
//! for each number of bits b and rank r among the formats: solve all rows in the plan's groups, without a correction and with one
//!     kept(b, r) = the loss with the correction / the loss without        on the matrix's own inputs
//! e(t, (b, group, r)) = e(t, (b, group)) kept(b, r)                       for every group size
//! ```
//! All rows, unlike errors of plain formats: a correction of a few rows is another thing, a rank of 32 being all there is of 32 rows.
//! What a correction keeps is measured on the tokens that it was fitted to, which flatters it; so distributions with corrections have
//! to prove themselves in trials against the best without ([`crate::distribute`]).

use super::alone;
use crate::methods::low_rank::{Alternation, FirstFactors, Problem};
use crate::methods::{MethodError, Objective, Prepared, corrected_values};
use crate::plan::{BlockPlan, MatrixFormat, usable_rank};
use faer::MatRef;
use std::collections::BTreeMap;

/// Shares of the loss by bits and rank; 1 where there is no correction.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<(u8, u32), f64>);

impl Kept {
    /// For the ranks of `formats`; `weights` are all rows of the matrix, `hessian` is of its inputs.
    ///
    /// # Errors
    /// Those of the solvers.
    pub(super) fn measure(
        weights: MatRef<'_, f64>,
        prepared: &Prepared<f64>,
        hessian: MatRef<'_, f64>,
        plan: &BlockPlan,
        formats: &[MatrixFormat],
    ) -> Result<Kept, MethodError> {
        let mut kept = BTreeMap::new();
        for &MatrixFormat { bits, rank, .. } in formats {
            let usable = usable_rank(rank, weights.nrows(), weights.ncols());
            if usable > 0 && !kept.contains_key(&(bits, rank)) {
                kept.insert((bits, rank), share(weights, prepared, hessian, plan, bits, usable)?);
            }
        }
        Ok(Kept(kept))
    }

    /// Of a format.
    pub(super) fn of(&self, format: MatrixFormat) -> f64 {
        self.0.get(&(format.bits, format.rank)).copied().unwrap_or(1.0)
    }
}

fn share(
    weights: MatRef<'_, f64>,
    prepared: &Prepared<f64>,
    hessian: MatRef<'_, f64>,
    plan: &BlockPlan,
    bits: u8,
    rank: usize,
) -> Result<f64, MethodError> {
    let format = MatrixFormat::plain(bits, plan.options.group);
    let options = plan.solver_for(format).options;
    let objective = Objective::new(weights, hessian, None)?;
    let plain = objective.of(&alone(weights, prepared, plan, format)?)?.total();
    let problem = Problem { weights, target: weights, prepared, options: &options, sweeps: super::SWEEPS };
    let mut least = plain;
    for first in FirstFactors::ALL {
        problem.alternate(Alternation { rank, first, rounds: 1 }, |_, solution, low_rank| {
            let values = corrected_values(solution, Some(low_rank));
            let values = MatRef::from_row_major_slice(&values, solution.rows, solution.columns);
            least = objective.of_values(values)?.total().min(least);
            Ok(())
        })?;
    }
    Ok(if plain > 0.0 { least / plain } else { 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::{Candidate, allocate};
    use crate::encode::section_bytes;
    use crate::methods::{GroupSize, Method, SolverOptions, prepare};
    use faer::Mat;
    use rescomp_formats::layouts::Layout;

    const M: usize = 256;
    const N: usize = 256;

    fn noise(seed: usize, index: usize) -> f64 {
        let mixed = (index + 7919 * seed).wrapping_mul(2_654_435_761) % 1_000_003;
        (mixed * 48_271 % 1_000_003) as f64 / 500_001.5 - 1.0
    }

    fn matrix(seed: usize, rows: usize, columns: usize) -> Mat<f64> {
        Mat::from_fn(rows, columns, |i, j| noise(seed, i * columns + j))
    }

    /// What is best of the formats within so many bytes.
    fn chosen(weights: &Mat<f64>, budget_bytes: u64) -> MatrixFormat {
        let group = GroupSize::elements(64).unwrap();
        let options = SolverOptions::for_container(3, group);
        let plan = BlockPlan::new(Method::RescompExact, options);
        let inputs = matrix(1, 2 * N, N);
        let hessian = inputs.transpose() * &inputs;
        let prepared = prepare(hessian.as_ref(), None, &options).unwrap();
        let plain = [2, 3, 4, 5, 6, 8].map(|bits| MatrixFormat::plain(bits, group));
        let corrected = [2, 3, 4].map(|bits| MatrixFormat { rank: 32, ..MatrixFormat::plain(bits, group) });
        let formats: Vec<MatrixFormat> = plain.into_iter().chain(corrected).collect();
        let kept = Kept::measure(weights.as_ref(), &prepared, hessian.as_ref(), &plan, &formats).unwrap();
        let candidate = |format: &MatrixFormat| {
            let plain = MatrixFormat { rank: 0, ..*format };
            let solution = alone(weights.as_ref(), &prepared, &plan, plain).unwrap();
            let loss = solution.loss(weights.as_ref(), hessian.as_ref(), None).unwrap() * kept.of(*format);
            let bytes = section_bytes((M, N), *format, Layout::Nr8k4).unwrap() as u64;
            Candidate { bytes, loss }
        };
        let candidates: Vec<Candidate> = formats.iter().map(candidate).collect();
        formats[allocate(&[candidates], budget_bytes).unwrap()[0]]
    }

    /// Bytes of a plain matrix of these bits.
    fn bytes(bits: u8) -> u64 {
        let format = MatrixFormat::plain(bits, GroupSize::elements(64).unwrap());
        section_bytes((M, N), format, Layout::Nr8k4).unwrap() as u64
    }

    #[test]
    fn bytes_go_to_a_correction_where_it_pays_and_to_bits_where_they_do() {
        // A few strong directions and weak noise: two bits and a correction of two more bits a weight are better than four or five bits.
        let strong = matrix(2, M, 8) * matrix(3, 8, N) + matrix(4, M, N) * faer::Scale(0.02);
        assert_eq!(chosen(&strong, bytes(5)).rank, 32);
        // White weights: at no budget. (The correction takes as many bytes as two bits more.)
        let white = matrix(5, M, N);
        for bits in [3, 4, 5, 6, 8] {
            let found = chosen(&white, bytes(bits));
            assert_eq!((found.bits, found.rank), (bits, 0));
        }
    }
}
