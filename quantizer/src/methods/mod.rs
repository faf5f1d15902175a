//! Quantization methods: mathematics on matrices, without files or models.
//!
//! Letters: `W0` (m x n) are the weights of a linear layer, a row an output channel; `X` (n x k) its inputs
//! when the layers before it are quantized, `Xf` (n x k) its inputs in the full-precision model, for the same
//! k tokens. The solvers see the tokens through two moments only, `H = X X^T` (the Hessian) and `D = (Xf - X)
//! X^T` (the drift), both n x n and on any common scale.
//!
//! All methods but `rtn` are one column sweep ([`sweep`]) under different configurations; the files of this
//! folder named after a method hold its configuration and its source.
//!
//! ```
//! use faer::Mat;
//! use rescomp_quantizer::methods::{GroupSize, Method, SolverOptions, prepare, solve};
//!
//! let weights = Mat::from_fn(4, 8, |i, j| ((i * 8 + j) as f32).sin());
//! let hessian = Mat::from_fn(8, 8, |i, j| 0.5_f32.powi(i.abs_diff(j) as i32));
//! let options = SolverOptions::new(3, GroupSize::elements(4)?);
//! // Once for all matrices that share their input:
//! let prepared = prepare(hessian.as_ref(), None, &options)?;
//! let configuration = Method::RescompExact.configuration(options.bits);
//! let solution = solve(weights.as_ref(), &prepared, configuration.as_ref(), &options)?;
//! assert_eq!(solution.codes.len(), 4 * 8);
//! # Ok::<(), rescomp_quantizer::methods::MethodError>(())
//! ```

mod error;
pub mod exact;
pub mod factors;
pub mod gptaq;
pub mod gptq;
pub mod low_rank;
mod matrix;
mod options;
#[cfg(test)]
mod reference;
pub mod refine;
pub mod rescomp;
pub mod rtn;
mod solution;
pub mod sweep;

use std::fmt;
use std::str::FromStr;

pub use error::MethodError;
pub use factors::{Prepared, prepare};
pub use low_rank::{Alternation, FirstFactors, LowRank, corrected_values};
pub(crate) use matrix::widened;
pub use options::{ClipSearch, GroupSize, LazyVariant, SolverOptions, Start, SweepConfiguration};
pub use refine::{RefineLimits, Refined, refine};
pub use solution::{Loss, Objective, Solution, asymmetric_loss};
pub use sweep::{StaticScales, solve, solve_with_scales, static_scales};

/// The methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Round to nearest: no compensation, no calibration.
    Rtn,
    /// Compensates each column's rounding error in the columns to come.
    Gptq,
    /// GPTQ that also answers for the drift of its inputs.
    Gptaq,
    /// GPTAQ with the compensation-aware error, as published.
    Rescomp,
    /// ResComp's stated objective solved exactly.
    RescompExact,
}

impl Method {
    /// All methods, from the simplest.
    pub const ALL: [Self; 5] = [Self::Rtn, Self::Gptq, Self::Gptaq, Self::Rescomp, Self::RescompExact];

    /// The name on the command line and in a container's provenance.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rtn => "rtn",
            Self::Gptq => "gptq",
            Self::Gptaq => "gptaq",
            Self::Rescomp => "rescomp",
            Self::RescompExact => "rescomp-exact",
        }
    }

    /// The sweep's configuration at `bits` bits a code; `None` for [`Method::Rtn`], which has no sweep.
    pub const fn configuration(self, bits: u8) -> Option<SweepConfiguration> {
        match self {
            Self::Rtn => None,
            Self::Gptq => Some(gptq::CONFIGURATION),
            Self::Gptaq => Some(gptaq::CONFIGURATION),
            Self::Rescomp => Some(rescomp::configuration(bits)),
            Self::RescompExact => Some(exact::CONFIGURATION),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = MethodError;

    fn from_str(text: &str) -> Result<Self, MethodError> {
        options::by_name("method", text, &Self::ALL, Self::name)
    }
}
