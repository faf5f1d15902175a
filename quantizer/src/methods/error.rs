//! Why a matrix could not be quantized.

use crate::grids::UnsupportedBits;

/// Errors of [`super::prepare`] and [`super::solve`]. The caller knows which tensor it passed and adds its
/// name.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// A matrix has the wrong shape.
    #[error("the {matrix} matrix is {}x{}, expected {}x{}", found.0, found.1, expected.0, expected.1)]
    Shape {
        /// `weights`, `hessian` or `drift`.
        matrix: &'static str,
        /// Rows and columns it should have.
        expected: (usize, usize),
        /// Rows and columns it has.
        found: (usize, usize),
    },
    /// A matrix holds an infinity or a NaN.
    #[error("the {matrix} matrix holds {value} at row {row}, column {column}: expected finite numbers")]
    NotFinite {
        /// `weights`, `hessian` or `drift`.
        matrix: &'static str,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// The infinity or NaN.
        value: f64,
    },
    /// No grid has this number of bits.
    #[error(transparent)]
    Bits(#[from] UnsupportedBits),
    /// A group of no weights.
    #[error("a group of 0 weights: expected 1 or more, or a whole row")]
    GroupOfZero,
    /// Dynamic groups of permuted columns.
    #[error(
        "dynamic groups with activation order would mix the columns of several groups (the runtime has no g_idx): use \
         static groups, the natural order, or one group a row"
    )]
    DynamicGroupsWithActivationOrder,
    /// Dynamic groups whose scales are coded.
    #[error(
        "dynamic groups with coded scales: a row's scales are coded together, so they must be known before the sweep: use static \
         groups, f16 scales, or one group a row"
    )]
    DynamicGroupsWithCodedScales,
    /// A strength, ridge or damping that is negative, infinite or NaN.
    #[error("{option} is {found}: expected a finite number, 0 or more")]
    Option {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: f64,
    },
    /// `solve` was given other options than `prepare`.
    #[error("prepared with {option} {prepared}, but solving with {option} {asked}")]
    PreparedOtherwise {
        /// Name of the option.
        option: &'static str,
        /// Value at `prepare`.
        prepared: String,
        /// Value at `solve`.
        asked: String,
    },
    /// No input of the layer was ever active.
    #[error("every diagonal entry of the {0}x{0} Hessian is 0: the layer saw no input during calibration")]
    HessianZero(usize),
    /// A sum of squares is negative.
    #[error("the Hessian's diagonal entry {index} is {value}: expected 0 or more")]
    HessianNegative {
        /// Row and column of the entry.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// The two triangles differ.
    #[error("the Hessian is not symmetric: {value} at ({row}, {column}), {mirrored} at ({column}, {row})")]
    HessianNotSymmetric {
        /// Row of the first entry.
        row: usize,
        /// Column of the first entry.
        column: usize,
        /// The first entry.
        value: f64,
        /// The entry with row and column exchanged.
        mirrored: f64,
    },
    /// Cholesky's factorization failed at every damping that was tried.
    #[error("the Hessian is not positive definite, even with a damping of {damping} times its mean diagonal")]
    NotPositiveDefinite {
        /// The largest damping that was tried.
        damping: f64,
    },
    /// The compensation grew beyond the range of numbers.
    #[error("the compensated weight at row {row}, column {column} is no longer finite: the method diverged")]
    Diverged {
        /// Row of the weights.
        row: usize,
        /// Column of the weights, in the original order.
        column: usize,
    },
    /// A low-rank correction of what a method quantizes whose sweep does more than compensate, or that has none.
    #[error(
        "a low-rank correction needs a method whose sweep compensates and does nothing else: gptq or rescomp-exact"
    )]
    CorrectionOfMethod,
    /// A name that means nothing here.
    #[error("unknown {kind} `{found}`: expected one of {expected}")]
    UnknownName {
        /// What should have been named.
        kind: &'static str,
        /// What was given.
        found: String,
        /// The known names.
        expected: String,
    },
}

impl MethodError {
    /// Whether the method cannot solve what the tokens say of this matrix's input, so that rounding to nearest is what is left: not
    /// the fault of an option, of a shape or of the weights.
    pub fn is_about_the_data(&self) -> bool {
        match self {
            Self::HessianZero(_)
            | Self::HessianNegative { .. }
            | Self::HessianNotSymmetric { .. }
            | Self::NotPositiveDefinite { .. }
            | Self::Diverged { .. } => true,
            Self::NotFinite { matrix, .. } => *matrix != "weights",
            Self::Shape { .. }
            | Self::Bits(_)
            | Self::GroupOfZero
            | Self::DynamicGroupsWithActivationOrder
            | Self::DynamicGroupsWithCodedScales
            | Self::Option { .. }
            | Self::PreparedOtherwise { .. }
            | Self::CorrectionOfMethod
            | Self::UnknownName { .. } => false,
        }
    }
}
