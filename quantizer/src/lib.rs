//! Quantizes a transformer checkpoint and writes a rescomp container.

pub mod tokenizer_json;
