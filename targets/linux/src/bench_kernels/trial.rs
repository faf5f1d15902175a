//! One product and the quantization of its activations, with the memory they need.

use std::hint::black_box;
use std::time::Instant;

use rescomp_formats::matrix::MatrixView;
use rescomp_runtime::kernels::{Activations, Kernels, MatrixProduct, OutputRows, TILE_ROWS};
use serde::Serialize;

use super::synthetic::Synthetic;
use crate::error::Error;
use crate::machine::seconds;

/// A measurement lasts at least this long, in seconds: far above what the clock can tell apart.
const MEASURED_SECONDS: f64 = 2e-3;

/// Most calls in a measurement.
const MOST_CALLS: f64 = 1e6;

/// Seconds that a call takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Seconds {
    pub(crate) median: f64,
    pub(crate) fastest: f64,
    pub(crate) slowest: f64,
}

/// Kernels on a matrix and some tokens.
pub(crate) struct Trial<'a> {
    /// The table of kernels.
    pub(crate) kernels: &'static Kernels,
    matrix: MatrixView<'a>,
    product: MatrixProduct,
    /// The product's name.
    pub(crate) name: &'static str,
    /// Tokens at once.
    pub(crate) tokens: usize,
    input: Vec<f32>,
    codes: Vec<i8>,
    scales: Vec<f32>,
    output: Vec<f32>,
}

impl<'a> Trial<'a> {
    /// Makes activations and room for the results.
    ///
    /// # Errors
    /// `Exit::Failed`, should the matrix not be one.
    pub(crate) fn new(
        kernels: &'static Kernels,
        matrix: &'a Synthetic,
        tokens: usize,
    ) -> Result<Self, Error> {
        let shape = matrix.shape();
        let (product, name) = kernels.matrix_product(shape, tokens);
        Ok(Trial {
            kernels,
            matrix: matrix.view()?,
            product,
            name,
            tokens,
            input: (0..tokens * shape.cols()).map(|index| (index * 7919 % 251) as f32 / 32.0 - 4.0).collect(),
            codes: vec![0; tokens * shape.padded_cols()],
            scales: vec![0.0; tokens * shape.steps()],
            output: vec![0.0; tokens * shape.rows()],
        })
    }

    /// Quantizes the activations of all tokens. Whether they are finite, as these are.
    pub(crate) fn quantize(&mut self) -> bool {
        let shape = self.matrix.shape();
        let codes = self.codes.chunks_exact_mut(shape.padded_cols());
        let scales = self.scales.chunks_exact_mut(shape.steps());
        let mut finite = true;
        for ((input, codes), scales) in self.input.chunks_exact(shape.cols()).zip(codes).zip(scales) {
            finite &=
                (self.kernels.quantize_activations)(black_box(input), shape.step_elems(), codes, scales);
        }
        finite
    }

    /// Multiplies.
    pub(crate) fn multiply(&mut self) {
        let rows = self.matrix.shape().rows();
        let activations = Activations { codes: &self.codes, scales: &self.scales, tokens: self.tokens };
        let mut output = OutputRows::new(&mut self.output, self.tokens, rows);
        (self.product)(black_box(&self.matrix), &activations, 0..rows.div_ceil(TILE_ROWS), &mut output);
        black_box(&self.output);
    }
}

/// Times the products and the quantizations of all trials: in every one of `repeats` rounds each of them once, so that what else the machine
/// does meets all alike. The product comes first.
pub(crate) fn time(repeats: usize, trials: &mut [Trial<'_>]) -> Vec<[Seconds; 2]> {
    const WORKS: [fn(&mut Trial<'_>); 2] = [
        |trial| trial.multiply(),
        |trial| {
            black_box(trial.quantize());
        },
    ];
    let timed = |trial: &mut Trial<'_>, work: fn(&mut Trial<'_>), calls: usize| {
        let start = Instant::now();
        (0..calls).for_each(|_| work(trial));
        seconds(start.elapsed()) / calls as f64
    };
    let calls: Vec<[usize; 2]> = trials
        .iter_mut()
        .map(|trial| {
            WORKS.map(|work| {
                // The first call also brings everything into the caches.
                timed(trial, work, 1);
                (MEASURED_SECONDS / timed(trial, work, 1)).clamp(1.0, MOST_CALLS).ceil() as usize
            })
        })
        .collect();
    let mut all = vec![[Vec::new(), Vec::new()]; trials.len()];
    for _ in 0..repeats.max(1) {
        for ((trial, calls), all) in trials.iter_mut().zip(&calls).zip(&mut all) {
            for ((work, calls), all) in WORKS.into_iter().zip(calls).zip(all) {
                all.push(timed(trial, work, *calls));
            }
        }
    }
    all.into_iter().map(|works| works.map(Seconds::of)).collect()
}

impl Seconds {
    /// Of measurements, of which there is at least one.
    fn of(mut all: Vec<f64>) -> Seconds {
        all.sort_by(f64::total_cmp);
        let last = all.len() - 1;
        Seconds { median: (all[last / 2] + all[last.div_ceil(2)]) / 2.0, fastest: all[0], slowest: all[last] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench_kernels::flags::{Group, Levels, Shape};
    use rescomp_runtime::kernels;

    #[test]
    fn every_table_computes_the_same_products() {
        for bits in [2, 3, 4, 5, 6, 8] {
            for tokens in [1, 3, 4] {
                let shape = Shape { rows: 24, cols: 160 };
                let matrix = Synthetic::new(shape, Group::Elems(64), bits, Levels::Normal).expect("a matrix");
                let outputs: Vec<Vec<u32>> = kernels::available()
                    .map(|kernels| {
                        let mut trial = Trial::new(kernels, &matrix, tokens).expect("a trial");
                        assert!(trial.name.contains(&format!("int{bits}")), "{}", trial.name);
                        assert!(trial.quantize());
                        trial.multiply();
                        trial.output.iter().map(|value| value.to_bits()).collect()
                    })
                    .collect();
                assert!(outputs.iter().all(|output| *output == outputs[0]));
                assert!(outputs[0].iter().any(|bits| *bits != outputs[0][0]), "all alike");
            }
        }
    }

    #[test]
    fn times_are_in_order() {
        let matrix = Synthetic::new(Shape { rows: 8, cols: 64 }, Group::Elems(64), 4, Levels::Normal)
            .expect("a matrix");
        let trial = |tokens| Trial::new(kernels::best(), &matrix, tokens).expect("a trial");
        let times = time(3, &mut [trial(1), trial(2)]);
        assert_eq!(times.len(), 2);
        for time in times.iter().flatten() {
            assert!(time.fastest > 0.0 && time.fastest <= time.median && time.median <= time.slowest);
        }
        let of = Seconds::of(vec![3.0, 1.0, 2.0, 8.0]);
        assert_eq!((of.fastest, of.median, of.slowest), (1.0, 2.5, 8.0));
    }
}
