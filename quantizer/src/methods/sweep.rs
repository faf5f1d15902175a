//! The one solver: a sweep over the columns that rounds each and compensates in those to come.
//!
//! Letters of [`super`]; U and P of [`super::factors`]; `N = strict_upper(diag(U)^-1 U)`; column j in the
//! order of the sweep, `F = j+1..n`.
//!
//! ```text
//! W = W0, or a corrected start (Start)
//! for every lazy block i1..i2 of the columns:
//!     for j in i1..i2:
//!         w = W[:, j];  w0 = W0[:, j];  q = nearest value of the grid of j's group;  Q[:, j] = q
//!         W[:, j+1..i2] -= ((w - q) + a2 (w0 - w)) / U[j, j] * U[j, j+1..i2]
//!         W[:, j+1..i2] += (a1 w + a2 (w0 - w)) * P[j, j+1..i2]
//!         v = w (Paper), q (Original), or w limited to the grid's range (AllWeights)
//!         E[:, j] = ((w - q) + a2 (w0 - v)) / U[j, j];  G[:, j] = a1 v + a2 (w0 - v)
//!     W[:, i2..] += G P[i1..i2, i2..] - E U[i1..i2, i2..]
//! ```
//!
//! - a1 = a2 = 0 is GPTQ (Frantar et al., arXiv 2210.17323; lazy blocks: section 3.3).
//! - a1 > 0 adds GPTAQ's drift term (arXiv 2504.02692).
//! - a2 > 0 adds ResComp's compensation-aware term (arXiv 2604.07955), in the paper `a2 (w0 - w) P2[j, F]`
//!   with `P2 = strict_upper((H + D) U^T) U`. Since `(H + lambda I) U^T = U^-1` is upper triangular with the
//!   diagonal `diag(U)^-1`, and `lambda U^T` is lower triangular, `P2 = P - N`: its N part joins the error,
//!   its P part the gain.
//! - A start of `W0 + W0 D (H + lambda I)^-1` with a1 = a2 = 0 solves the asymmetric objective exactly
//!   ([`super::exact`]; QEP, NeurIPS 2025).
//!
//! Rows do not touch each other, so strips of rows of a fixed size run in parallel, and within a strip a column of a lazy block is
//! rounded for all rows at once, a row a lane of a vector. The update beyond the block is one product a strip.

use std::sync::Arc;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatRef, Par};
use rayon::prelude::*;

use super::factors::{Correction, Prepared, STRIP_ROWS};
use super::matrix::Matrix;
use super::{ClipSearch, LazyVariant, MethodError, Solution, SolverOptions, Start, SweepConfiguration, rtn};
use crate::grids::{Real, ScaleCoding, ScaleSearch};
use crate::vectorized::vectorized;

/// Quantizes `weights` W0 (m x n) with the factors of its input. `configuration` is what
/// [`super::Method::configuration`] returns, or a variation of it; `None` rounds to nearest.
///
/// # Errors
/// [`MethodError::Shape`], [`MethodError::NotFinite`], [`MethodError::PreparedOtherwise`] if `options`
/// disagrees with those of [`super::prepare`], [`MethodError::Option`], [`MethodError::Diverged`],
/// [`MethodError::NotPositiveDefinite`] for the start's ridge, and those of [`SolverOptions::check`].
pub fn solve<T: Real>(
    weights: MatRef<'_, T>,
    prepared: &Prepared<T>,
    configuration: Option<&SweepConfiguration>,
    options: &SolverOptions,
) -> Result<Solution<T>, MethodError> {
    let n = prepared.columns();
    options.check(n)?;
    prepared.check_same(options)?;
    let Some(configuration) = configuration else {
        Matrix::checked("weights", weights, (weights.nrows(), n))?;
        return rtn::round_to_nearest(weights, options);
    };
    let scales = if options.static_groups { Some(static_scales(weights, prepared, options)?) } else { None };
    solve_with_scales(weights, prepared, configuration, options, scales.as_ref())
}

/// The scales of static groups of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticScales<T> {
    /// m x groups, row-major, positive.
    pub values: Vec<T>,
    /// How they are stored, where they are coded.
    pub coding: Option<ScaleCoding<T>>,
}

/// The scales that [`solve`] finds before its sweep. They do not depend on its configuration, so several solutions of the same
/// weights can share them.
///
/// # Errors
/// [`MethodError::Shape`], [`MethodError::NotFinite`], [`MethodError::PreparedOtherwise`], and those of [`SolverOptions::check`].
pub fn static_scales<T: Real>(
    weights: MatRef<'_, T>,
    prepared: &Prepared<T>,
    options: &SolverOptions,
) -> Result<StaticScales<T>, MethodError> {
    let n = prepared.columns();
    let search = options.check(n)?;
    prepared.check_same(options)?;
    let weights = Matrix::checked("weights", weights, (weights.nrows(), n))?;
    let group_elems = options.group.group_elems(n);
    let groups = n.div_ceil(group_elems);
    let importance = match options.clip {
        ClipSearch::HessianDiagonal => Some(prepared.diagonal()),
        ClipSearch::Off | ClipSearch::Plain => None,
    };
    let mut scales = vec![T::ONE; weights.rows() * groups];
    scales.par_chunks_mut(groups).enumerate().for_each(|(row, scales)| {
        let mut weights = weights.row(row).to_vec();
        prepared.dead_columns().iter().for_each(|dead| weights[*dead] = T::ZERO);
        vectorized(
            #[inline(always)]
            || {
                for (group, (weights, scale)) in weights.chunks(group_elems).zip(scales).enumerate() {
                    *scale = match &importance {
                        None => search.scale(weights),
                        Some(importance) => {
                            search.weighted_scale(weights, &importance[group * group_elems..])
                        }
                    };
                }
            },
        );
    });
    let diagonal = prepared.diagonal();
    let importance: Vec<f64> =
        diagonal.chunks(group_elems).map(|group| group.iter().map(|h| h.to_f64()).sum()).collect();
    let coding = search.format.code(&mut scales, groups, Some(&importance));
    Ok(StaticScales { values: scales, coding })
}

/// [`solve`] with given scales of all groups; without, they are found during the sweep.
///
/// # Errors
/// Those of [`solve`], and [`MethodError::Shape`] for the wrong number of scales.
pub fn solve_with_scales<T: Real>(
    weights: MatRef<'_, T>,
    prepared: &Prepared<T>,
    configuration: &SweepConfiguration,
    options: &SolverOptions,
    scales: Option<&StaticScales<T>>,
) -> Result<Solution<T>, MethodError> {
    let n = prepared.columns();
    let search = options.check(n)?;
    prepared.check_same(options)?;
    configuration.check()?;
    let weights = Matrix::checked("weights", weights, (weights.nrows(), n))?;
    let mut solution = Solution::zeros(weights.rows(), n, options.group, search.grid);
    if let Some(scales) = scales {
        let expected = (weights.rows(), solution.groups_per_row());
        if scales.values.len() != solution.scales.len() {
            return Err(MethodError::Shape { matrix: "scales", expected, found: (scales.values.len(), 1) });
        }
        solution.scales.copy_from_slice(&scales.values);
        solution.coding.clone_from(&scales.coding);
    }
    let static_groups = scales.is_some();
    let sweep = Sweep::new(prepared, configuration, options, search, solution.group_elems, static_groups)?;
    solution.ridge = sweep.correction.as_ref().map(|(correction, _)| correction.ridge);

    let groups = solution.groups_per_row();
    let outcomes: Vec<Result<(), MethodError>> = solution
        .codes
        .par_chunks_mut(STRIP_ROWS * n)
        .zip(solution.scales.par_chunks_mut(STRIP_ROWS * groups))
        .enumerate()
        .map(|(strip, (codes, scales))| sweep.strip(&weights, strip * STRIP_ROWS, codes, scales))
        .collect();
    outcomes.into_iter().collect::<Result<(), _>>()?;
    Ok(solution)
}

/// Everything that the strips share.
struct Sweep<'a, T> {
    prepared: &'a Prepared<T>,
    search: ScaleSearch,
    static_groups: bool,
    group_elems: usize,
    block: usize,
    alpha1: T,
    alpha2: T,
    variant: LazyVariant,
    /// P, if the sweep's own updates use it.
    projection: Option<Arc<Matrix<T>>>,
    /// The exact start's matrix and strength.
    correction: Option<(Arc<Correction<T>>, T)>,
    /// The anchored start's matrix P and strength.
    anchor: Option<(Arc<Matrix<T>>, T)>,
}

/// One value of each row of a strip: what the sweep does with a column, it does with all rows at once.
type Lanes<T> = [T; STRIP_ROWS];

/// The columns of a lazy block, in the order of the sweep.
struct Block<T> {
    /// W0.
    original: Vec<Lanes<T>>,
    /// W.
    current: Vec<Lanes<T>>,
    /// E and G.
    errors: Vec<Lanes<T>>,
    gains: Vec<Lanes<T>>,
    codes: Vec<Lanes<i8>>,
}

impl<T: Real> Block<T> {
    fn new(columns: usize) -> Self {
        let zeros = vec![[T::ZERO; STRIP_ROWS]; columns];
        Block {
            original: zeros.clone(),
            current: zeros.clone(),
            errors: zeros.clone(),
            gains: zeros,
            codes: vec![[0; STRIP_ROWS]; columns],
        }
    }

    /// Columns of E or G as a matrix, rows in columns.
    fn transposed(columns: &[Lanes<T>]) -> MatRef<'_, T> {
        MatRef::from_row_major_slice(columns.as_flattened(), columns.len(), STRIP_ROWS)
    }
}

impl<'a, T: Real> Sweep<'a, T> {
    fn new(
        prepared: &'a Prepared<T>,
        configuration: &SweepConfiguration,
        options: &SolverOptions,
        search: ScaleSearch,
        group_elems: usize,
        static_groups: bool,
    ) -> Result<Self, MethodError> {
        let SweepConfiguration { alpha1, alpha2, variant, start } = *configuration;
        let projection = if alpha1 != 0.0 || alpha2 != 0.0 { prepared.projection()? } else { None };
        let correction = match start {
            Start::Exact { strength, ridge } => {
                prepared.correction(ridge)?.map(|correction| (correction, T::from_f64(strength)))
            }
            _ => None,
        };
        let anchor = match start {
            Start::Anchored { strength } => {
                prepared.projection()?.map(|projection| (projection, T::from_f64(strength)))
            }
            _ => None,
        };
        Ok(Self {
            prepared,
            search,
            static_groups,
            group_elems,
            block: options.block.get(),
            alpha1: T::from_f64(alpha1),
            alpha2: T::from_f64(alpha2),
            variant,
            projection,
            correction,
            anchor,
        })
    }

    /// Quantizes the rows from `first` on for which there is room in `codes` and `scales`.
    fn strip(
        &self,
        weights: &Matrix<T>,
        first: usize,
        codes: &mut [i8],
        scales: &mut [T],
    ) -> Result<(), MethodError> {
        let order = self.prepared.order();
        let n = order.len();
        let rows = codes.len() / n;
        let groups = scales.len() / rows;

        // Always a whole strip, so that all products have the same shape; rows beyond the last are 0.
        let mut natural = Matrix::zeros(STRIP_ROWS, n);
        for row in 0..rows {
            let natural = natural.row_mut(row);
            natural.copy_from_slice(weights.row(first + row));
            for &dead in self.prepared.dead_columns() {
                natural[dead] = T::ZERO;
            }
        }
        let original = natural.with_columns(order);
        let mut current = match &self.correction {
            None => original.clone(),
            Some((correction, strength)) => {
                let mut start = natural.clone();
                let matrix = correction.matrix.view();
                matmul(start.view_mut(), Accum::Add, natural.view(), matrix, *strength, Par::Seq);
                start.with_columns(order)
            }
        };
        if let Some((matrix, strength)) = &self.anchor {
            matmul(current.view_mut(), Accum::Add, original.view(), matrix.view(), *strength, Par::Seq);
        }

        let mut block = Block::new(self.block.min(n));
        let mut start = 0;
        while start < n {
            let end = self.block_end(start, n);
            for (column, (w0, w)) in (start..end).zip(block.original.iter_mut().zip(&mut block.current)) {
                for row in 0..STRIP_ROWS {
                    (w0[row], w[row]) = (original.row(row)[column], current.row(row)[column]);
                }
            }
            vectorized(
                #[inline(always)]
                || self.columns(&mut block, &current, scales, start, end),
            )
            .map_err(|(row, column)| MethodError::Diverged { row: first + row, column: order[column] })?;
            for (column, ordered) in order[start..end].iter().zip(&block.codes) {
                codes.chunks_mut(n).zip(ordered).for_each(|(codes, code)| codes[*column] = *code);
            }
            self.update_beyond(&mut current, &block, start, end);
            start = end;
        }
        if !self.search.grid.has_zero() {
            // A dead input's weight can't be 0: then nothing is nearer to the original model than the weight itself.
            for (row, codes) in codes.chunks_mut(n).enumerate() {
                for &dead in self.prepared.dead_columns() {
                    let scale = scales[row * groups + dead / self.group_elems];
                    codes[dead] = self.search.grid.level(weights.row(first + row)[dead], scale);
                }
            }
        }
        Ok(())
    }

    /// The end of the lazy block that starts at `start`. A dynamic group's scale needs the current value of
    /// all its columns, so a group that would begin inside the block and end beyond it begins the next block
    /// instead.
    fn block_end(&self, start: usize, n: usize) -> usize {
        let end = (start + self.block).min(n);
        let last_group = (end - 1) / self.group_elems * self.group_elems;
        let straddles = last_group > start && (last_group + self.group_elems).min(n) > end;
        if !self.static_groups && straddles { last_group } else { end }
    }

    /// Rounds the columns `start..end` of all rows, and compensates among them. `current` has W in front of this block. A weight that is
    /// not finite is an error with its row and column in the strip.
    #[inline(always)]
    fn columns(
        &self,
        block: &mut Block<T>,
        current: &Matrix<T>,
        scales: &mut [T],
        start: usize,
        end: usize,
    ) -> Result<(), (usize, usize)> {
        let (n, order, grid) = (self.prepared.columns(), self.prepared.order(), &self.search.grid);
        let (alpha1, alpha2) = (self.alpha1, self.alpha2);
        let groups = n.div_ceil(self.group_elems);
        for j in start..end {
            let (before, later) = block.current[..end - start].split_at_mut(j - start + 1);
            let (w, w0) = (&before[j - start], &block.original[j - start]);
            let group = order[j] / self.group_elems;
            if !self.static_groups && j % self.group_elems == 0 {
                // A group that ends beyond the block begins with it: what is beyond is as it was.
                let group_end = (j + self.group_elems).min(n);
                let (inside, beyond) = (group_end.min(end) - j - 1, group_end.max(end));
                for (row, scales) in scales.chunks_exact_mut(groups).enumerate() {
                    let mut values: Vec<T> =
                        std::iter::once(w).chain(&later[..inside]).map(|column| column[row]).collect();
                    values.extend_from_slice(&current.row(row)[end..beyond]);
                    scales[group] = self.search.scale(&values);
                }
            }
            // Rows beyond the last are 0.
            let mut scale = [T::ONE; STRIP_ROWS];
            scale.iter_mut().zip(scales.chunks_exact(groups)).for_each(|(to, scales)| *to = scales[group]);
            if let Some(row) = w.iter().position(|w| !w.finite()) {
                return Err((row, j));
            }
            let mut rounded = *w;
            rounded.iter_mut().zip(&scale).for_each(|(w, scale)| *w /= *scale);
            grid.round_all(&mut rounded);

            let factor = self.prepared.factor().row(j);
            let pivot = factor[j];
            let (mut error, mut gain) = ([T::ZERO; STRIP_ROWS], [T::ZERO; STRIP_ROWS]);
            for row in 0..STRIP_ROWS {
                let (w, w0, q) = (w[row], w0[row], scale[row] * rounded[row]);
                block.codes[j - start][row] = rounded[row].to_code();
                error[row] = ((w - q) + alpha2 * (w0 - w)) / pivot;
                gain[row] = alpha1 * w + alpha2 * (w0 - w);
                let cached = match self.variant {
                    LazyVariant::Paper => w,
                    LazyVariant::Original => q,
                    LazyVariant::AllWeights => grid.limit(w, scale[row]),
                };
                block.errors[j - start][row] = ((w - q) + alpha2 * (w0 - cached)) / pivot;
                block.gains[j - start][row] = alpha1 * cached + alpha2 * (w0 - cached);
            }
            let later = later.iter_mut().zip(&factor[j + 1..end]);
            match &self.projection {
                None => later.for_each(|(w, u)| {
                    w.iter_mut().zip(&error).for_each(|(w, error)| *w -= *error * *u);
                }),
                Some(projection) => {
                    for ((w, u), p) in later.zip(&projection.row(j)[j + 1..end]) {
                        let terms = error.iter().zip(&gain);
                        w.iter_mut()
                            .zip(terms)
                            .for_each(|(w, (error, gain))| *w = *w - *error * *u + *gain * *p);
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies the block `start..end` to the columns from `end` on.
    fn update_beyond(&self, current: &mut Matrix<T>, block: &Block<T>, start: usize, end: usize) {
        let n = current.columns();
        if end == n {
            return;
        }
        let (width, beyond) = (end - start, n - end);
        let mut later = current.view_mut().submatrix_mut(0, end, STRIP_ROWS, beyond);
        let mut add = |sign: T, left: &[Lanes<T>], right: &Matrix<T>| {
            let left = Block::transposed(&left[..width]).transpose();
            let right = right.view().submatrix(start, end, width, beyond);
            matmul(later.as_mut(), Accum::Add, left, right, sign, Par::Seq);
        };
        add(-T::ONE, &block.errors, self.prepared.factor());
        if let Some(projection) = &self.projection {
            add(T::ONE, &block.gains, projection);
        }
    }
}
