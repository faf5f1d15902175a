//! Quantizes a transformer checkpoint and writes a rescomp container.
