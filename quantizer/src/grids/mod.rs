//! Quantization grids: which values a weight may take, and how the scale of a group is chosen and stored.

pub mod coding;
pub mod levels;
mod real;
pub mod scales;

pub use coding::{RowScales, ScaleCoding};
pub use levels::{Grid, Spacing, UnsupportedBits};
pub use real::Real;
pub use scales::{ScaleFormat, ScaleSearch};
