//! Quantization grids: which values a weight may take, and how the scale of a group is chosen.

mod real;
pub mod uniform;

pub use real::Real;
pub use uniform::{Grid, ScaleFormat, ScaleSearch, UnsupportedBits};
