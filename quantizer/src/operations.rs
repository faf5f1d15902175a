//! How many floating-point operations calibrating and solving take, counted over the products that the method needs: what a
//! measured time is held against. A multiplication and an addition are two.
//!
//! For a set of matrices with n inputs and k calibration tokens in windows of T, a matrix of it having m outputs:
//!
//! ```text
//! forward       2 streams x 2 k m n a matrix
//! attention     2 streams x 2 products x k (T + 1) h a block, h the width of all heads
//! moments       k n (n + 1) for H, which is symmetric; 2 k n^2 for D
//! factors       (2/3) n^3 for each of 1 or 2 Hessians;  (7/3) n^3 for each ridge's D (H + ridge)^-1
//! sweeps        m n^2 each, and 2 m n^2 for an exact start
//! refinement    5 m n^2 a sweep: two products with the Hessian, and half of one for the scales
//! losses        2 m n^2 each, and 2 m n^2 for W0 D
//! ```
//! Of refinement, only the sweeps that a matrix was given in the end are counted, once while choosing and once for the solution.

use crate::calibrate::MatrixReport;
use crate::choose::SWEEPS;
use crate::methods::{Method, Start};
use crate::plan::BlockPlan;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::{Architecture, ModelSpec};
use rescomp_runtime::linear::LinearSet;
use serde::Serialize;
use std::time::Instant;

/// Floating-point operations by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Operations {
    /// The linear layers' products, in both streams.
    pub forward: f64,
    /// Attention, in both streams.
    pub attention: f64,
    /// H and D.
    pub moments: f64,
    /// Factorizations and corrections.
    pub factors: f64,
    /// Sweeps over columns.
    pub sweeps: f64,
    /// Refinement.
    pub refinement: f64,
    /// Losses on held-out tokens and for the report.
    pub losses: f64,
}

impl Operations {
    /// All of them, by name.
    pub const fn parts(&self) -> [(&'static str, f64); 7] {
        [
            ("forward", self.forward),
            ("attention", self.attention),
            ("moments", self.moments),
            ("factors", self.factors),
            ("sweeps", self.sweeps),
            ("refinement", self.refinement),
            ("losses", self.losses),
        ]
    }

    /// Their sum.
    pub fn total(&self) -> f64 {
        self.parts().iter().map(|(_, operations)| operations).sum()
    }

    /// What the blocks of a model took that were quantized as `plan` says, on `windows` windows of `positions` tokens, with the
    /// outcome `reports`.
    pub fn of_blocks(
        plan: &BlockPlan,
        spec: &ModelSpec,
        windows: usize,
        positions: usize,
        reports: &[MatrixReport],
    ) -> Operations {
        let k = (windows * positions) as f64;
        let layers = f64::from(spec.layers);
        let mut all = Operations {
            attention: 4.0 * k * (positions as f64 + 1.0) * spec.query_width() as f64 * layers,
            ..Operations::default()
        };
        let configuration = plan.configuration(plan.options.bits);
        let chooses = windows > 1 && configuration.is_some_and(|it| plan.tuning.chooses(&it));
        let candidates = configuration.map_or_else(Vec::new, |it| plan.tuning.candidates(it));
        let exact = |start: Start| matches!(start, Start::Exact { .. });
        let ridges = {
            let mut tried: Vec<Start> = candidates.iter().map(|candidate| candidate.start).collect();
            tried.dedup_by_key(
                |start| if let Start::Exact { ridge, .. } = start { Some(*ridge) } else { None },
            );
            tried.into_iter().filter(|start| exact(*start)).count()
        };
        for set in LinearSet::of(spec.architecture) {
            let shape = |kind: &SectionKind| {
                kind.shape(spec).map_or((0.0, 0.0), |(rows, columns)| (f64::from(rows), f64::from(columns)))
            };
            let n = set.kinds().first().map_or(0.0, |kind| shape(kind).1);
            all.moments += layers * (k * n * (n + 1.0) + 2.0 * k * n * n);
            if configuration.is_some() {
                let hessians = if chooses { 2.0 } else { 1.0 };
                let corrections = if chooses { ridges as f64 } else { 0.0 };
                all.factors += layers * n.powi(3) * (2.0 / 3.0 * hessians + 7.0 / 3.0 * corrections);
            }
            for kind in set.kinds() {
                let (m, n) = shape(kind);
                all.forward += layers * 4.0 * k * m * n;
                // H and D in the report.
                all.losses += layers * 4.0 * m * n * n;
                if chooses {
                    let tried = candidates.len() as f64;
                    let starts = candidates.iter().filter(|candidate| exact(candidate.start)).count() as f64;
                    all.sweeps += layers * (tried + 2.0 * starts) * m * n * n;
                    all.losses += layers * 2.0 * (tried + 1.0 + (SWEEPS.len() - 1) as f64) * m * n * n;
                }
            }
        }
        for report in reports {
            let kind = SectionKind::ALL.into_iter().find(|kind| kind.name() == report.kind);
            let (rows, columns) = kind.and_then(|kind| kind.shape(spec)).unwrap_or_default();
            let (m, n) = (f64::from(rows), f64::from(columns));
            if plan.method == Method::Rtn || report.rounded_because.is_some() {
                continue;
            }
            let start = if report.ridge.is_some() { 2.0 } else { 0.0 };
            all.sweeps += (1.0 + start) * m * n * n;
            if report.ridge.is_some() {
                all.factors += 7.0 / 3.0 * n.powi(3) / set_size(spec.architecture, report.kind);
            }
            all.refinement += 5.0 * report.refine_sweeps as f64 * m * n * n * if chooses { 2.0 } else { 1.0 };
        }
        all
    }
}

/// Floating-point operations a second of large f32 matrix products on all threads of rayon's pool: the best of several.
pub fn measured_peak() -> f64 {
    const SIZE: usize = 1536;
    let factor = Mat::<f32>::from_fn(SIZE, SIZE, |i, j| ((i * 7 + j * 3) % 17) as f32 - 8.0);
    let mut product = Mat::<f32>::zeros(SIZE, SIZE);
    let best = (0..6)
        .map(|_| {
            let start = Instant::now();
            matmul(&mut product, Accum::Replace, &factor, &factor, 1.0, Par::rayon(0));
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * (SIZE as f64).powi(3) / best
}

/// Matrices that share an input with this one, itself included.
fn set_size(architecture: Architecture, kind: &str) -> f64 {
    let sets = LinearSet::of(architecture).into_iter().map(LinearSet::kinds);
    let own = sets.into_iter().find(|kinds| kinds.iter().any(|other| other.name() == kind));
    own.map_or(1.0, |kinds| kinds.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::methods::{GroupSize, SolverOptions};
    use std::path::Path;

    #[test]
    fn the_parts_are_what_the_shapes_say() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/stories-1m");
        let spec = Checkpoint::open(&folder).unwrap().spec;
        let count = |method, windows| {
            let plan = BlockPlan::new(method, SolverOptions::new(3, GroupSize::Row));
            Operations::of_blocks(&plan, &spec, windows, 512, &[])
        };
        let rtn = count(Method::Rtn, 2);
        // 6 layers of 128 x (128 + 64 + 64 + 128) and three matrices of 128 x 384.
        let weights = 6.0 * (128.0 * 384.0 + 3.0 * 128.0 * 384.0);
        assert_eq!(rtn.forward, 4.0 * 1024.0 * weights);
        // Three sets with 128 inputs and one with 384.
        let moments = 3.0 * (3.0 * 128.0 * 128.0 + 128.0) + 3.0 * 384.0 * 384.0 + 384.0;
        assert_eq!(rtn.moments, 6.0 * 1024.0 * moments);
        assert_eq!((rtn.factors, rtn.sweeps, rtn.refinement), (0.0, 0.0, 0.0));
        let exact = count(Method::RescompExact, 16);
        assert_eq!(exact.forward, 8.0 * rtn.forward);
        assert!(exact.factors > 0.0 && exact.sweeps > 0.0 && exact.losses > rtn.losses);
        // Strength 0, and two strengths with each of three ridges.
        let cubes = 3.0 * 128_f64.powi(3) + 384_f64.powi(3);
        assert!((exact.factors / cubes / 6.0 - (4.0 / 3.0 + 7.0)).abs() < 1e-9);
        assert_eq!(exact.total(), exact.parts().iter().map(|part| part.1).sum::<f64>());
    }
}
