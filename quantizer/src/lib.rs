//! Quantizes a transformer checkpoint and writes a rescomp container.

pub mod grids;
pub mod methods;
