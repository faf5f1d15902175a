//! Quantizes a transformer checkpoint with ResComp and its relatives and writes a rescomp container.
//!
//! ```text
//! checkpoint (Hugging Face folder or GGUF) -> dense (full-precision forward) -> calibrate (two streams, moments, methods)
//!   -> encode (codes and scales to packed sections) -> pack (the container, with what the full-precision model says)
//!   -> export (its weights as files of other programs)
//! ```

pub mod allocate;
pub mod bands;
pub mod calibrate;
pub mod chat_template;
pub mod checkpoint;
pub mod choose;
pub mod classes;
pub mod compare;
pub mod corpus;
pub mod dense;
pub mod distribute;
pub mod embeddings;
pub mod encode;
pub mod evaluate;
pub mod evaluate_embeddings;
pub mod evaluate_images;
pub mod export;
pub mod files;
pub mod grids;
pub mod inputs;
pub mod journal;
pub mod linears;
pub mod methods;
pub mod moments;
pub mod operations;
pub mod pack;
pub mod plan;
pub mod recipe;
pub mod record;
pub mod sensitivity;
pub mod sequences;
pub mod texts;
pub mod tokenizer_json;
pub mod transforms;
pub mod trial;
mod vectorized;
pub mod vocabulary;
pub mod work;
