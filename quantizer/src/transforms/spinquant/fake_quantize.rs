//! Weights that the forward sees quantized and the gradient sees through: round to nearest on the grids of containers.
//!
//! ```text
//! forward             Q(W): levels, clip search and coded scales as methods/rtn has them
//! straight through    dL/dW = dL/dQ                                  (Bengio et al., arXiv 1308.3432)
//! scaled error        dL/dW = dL/dQ + (sum dL/dQ e) / (sum w^2) W    sums over a group; e = Q - W
//! ```
//! The second is the gradient of `W + (e / s) s(W)` with s the root mean square of the group's weights and `e / s` held: errors of rounding
//! are proportional to the scale of their group, and straight through, nothing tells the optimizer so.

use super::operations::{flat, wrap};
use crate::methods::SolverOptions;
use crate::methods::rtn::round_to_nearest;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use faer::MatRef;
use rayon::prelude::*;

/// How the gradient of a quantized weight becomes that of the weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// As it is.
    StraightThrough,
    /// With what the error of rounding gains as its group's scale does.
    ScaledError,
}

/// The operation on a matrix of `outputs x inputs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct FakeQuantize {
    pub(super) options: SolverOptions,
    pub(super) estimator: Estimator,
}

impl CustomOp1 for FakeQuantize {
    fn name(&self) -> &'static str {
        "fake quantization"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let weights = MatRef::from_row_major_slice(flat(storage, layout)?, rows, columns);
        let solution = round_to_nearest(weights, &self.options).map_err(wrap)?;
        Ok((CpuStorage::F32(solution.values()), layout.shape().clone()))
    }

    fn bwd(&self, weights: &Tensor, quantized: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if self.estimator == Estimator::StraightThrough {
            return Ok(Some(gradient.clone()));
        }
        let (rows, columns) = weights.dims2()?;
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let (weights, quantized, mut through) = (values(weights)?, values(quantized)?, values(gradient)?);
        let group = self.options.group.group_elems(columns);
        let of_rows = weights.par_chunks(columns).zip(quantized.par_chunks(columns));
        through.par_chunks_mut(columns).zip(of_rows).for_each(|(through, (weights, quantized))| {
            let groups = weights.chunks(group).zip(quantized.chunks(group));
            for (through, (weights, quantized)) in through.chunks_mut(group).zip(groups) {
                scale_error(weights, quantized, through);
            }
        });
        Ok(Some(Tensor::from_vec(through, (rows, columns), gradient.device())?))
    }
}

/// Adds to the gradient of a group what its scale contributes.
fn scale_error(weights: &[f32], quantized: &[f32], gradient: &mut [f32]) {
    let power: f32 = weights.iter().map(|weight| weight * weight).sum();
    if power <= f32::MIN_POSITIVE {
        return;
    }
    let errors = quantized.iter().zip(weights).map(|(quantized, weight)| quantized - weight);
    let along: f32 = errors.zip(&*gradient).map(|(error, gradient)| error * gradient).sum();
    let share = along / power;
    gradient.iter_mut().zip(weights).for_each(|(gradient, weight)| *gradient += share * weight);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::GroupSize;
    use candle_core::{Device, Var};

    const ROWS: usize = 5;
    const COLUMNS: usize = 40;

    fn number(at: usize) -> f32 {
        ((at * at + 7 * at) as f32 * 0.37).sin() + 0.3 * (at as f32 * 1.7).cos()
    }

    fn options() -> SolverOptions {
        // The last group of a row is shorter.
        SolverOptions::for_container(2, GroupSize::elements(16).unwrap())
    }

    /// Quantized weights, and the gradient of their product with fixed numbers.
    fn run(weights: &[f32], estimator: Estimator) -> (Vec<f32>, Vec<f32>) {
        let variable = Var::from_slice(weights, (ROWS, COLUMNS), &Device::Cpu).unwrap();
        let quantized = variable.apply_op1(FakeQuantize { options: options(), estimator }).unwrap();
        let factors: Vec<f32> = (0..ROWS * COLUMNS).map(|at| number(at + 1000)).collect();
        let factors = Tensor::from_vec(factors, (ROWS, COLUMNS), &Device::Cpu).unwrap();
        let loss = quantized.mul(&factors).unwrap().sum_all().unwrap();
        let gradient = loss.backward().unwrap().remove(&variable).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
        (values(&quantized), values(&gradient))
    }

    #[test]
    fn weights_are_what_containers_hold_and_gradients_pass() {
        let weights: Vec<f32> = (0..ROWS * COLUMNS).map(number).collect();
        let (found, gradient) = run(&weights, Estimator::StraightThrough);
        let solution =
            round_to_nearest(MatRef::from_row_major_slice(&weights, ROWS, COLUMNS), &options()).unwrap();
        assert_eq!(found, solution.values());
        assert!(found.iter().zip(&weights).any(|(found, weight)| (found - weight).abs() > 0.1));
        let factors: Vec<f32> = (0..ROWS * COLUMNS).map(|at| number(at + 1000)).collect();
        assert_eq!(gradient, factors);
    }

    #[test]
    fn the_scaled_error_is_the_derivative_of_what_it_stands_for() {
        let weights: Vec<f32> = (0..ROWS * COLUMNS).map(number).collect();
        let (quantized, gradient) = run(&weights, Estimator::ScaledError);
        let size = |group: &[f64]| (group.iter().map(|w| w * w).sum::<f64>() / group.len() as f64).sqrt();
        let weights: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        // sum of factors times W + (e / s) s(W) over one group.
        for (row, group) in [(0, 0..16), (2, 16..32), (4, 32..40)] {
            let all: Vec<usize> = group.map(|column| row * COLUMNS + column).collect();
            let original: Vec<f64> = all.iter().map(|&at| weights[at]).collect();
            let loss = |now: &[f64]| -> f64 {
                let scale = size(now) / size(&original);
                let term = |(index, &at): (usize, &usize)| {
                    f64::from(number(at + 1000))
                        * (now[index] + (f64::from(quantized[at]) - weights[at]) * scale)
                };
                all.iter().enumerate().map(term).sum()
            };
            for index in 0..all.len() {
                let step = 1e-5;
                let at = |by: f64| {
                    let mut now = original.clone();
                    now[index] += by;
                    loss(&now)
                };
                let expected = (at(step) - at(-step)) / (2.0 * step);
                let found = f64::from(gradient[all[index]]);
                assert!((found - expected).abs() < 1e-4, "{row}, {index}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn weights_that_are_no_numbers_are_an_error() {
        let weights = Var::from_slice(&[1.0_f32, f32::NAN], (1, 2), &Device::Cpu).unwrap();
        let operation = FakeQuantize { options: options(), estimator: Estimator::StraightThrough };
        let error = weights.apply_op1(operation).unwrap_err().to_string();
        assert!(error.contains("NaN"), "{error}");
    }
}
