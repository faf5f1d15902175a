//! Quantizes a transformer checkpoint and writes a rescomp container.

pub mod checkpoint;
pub mod corpus;
pub mod grids;
pub mod methods;
