//! Quantizes a transformer checkpoint and writes a rescomp container.

pub mod calibrate;
pub mod checkpoint;
pub mod corpus;
pub mod dense;
pub mod grids;
pub mod methods;
pub mod moments;
