//! The container file of rescomp: manifest, section table, bit-packed encodings and kernel layouts.
//!
//! no_std and without an allocator; feature `write` adds what the host needs to make a container. docs/container.md is the
//! format's definition.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "write"))]
extern crate alloc;

#[cfg(target_endian = "big")]
compile_error!("containers are little-endian and are read in place: big-endian targets aren't supported");

pub mod cache_format;
pub mod chat_template;
pub mod check_embeddings;
pub mod check_images;
pub mod check_windows;
pub mod container;
pub mod encodings;
pub mod error;
pub mod hadamard;
pub mod image_input;
pub mod kept_classes;
pub mod labels;
pub mod layouts;
pub mod manifest;
pub mod matrix;
pub mod section;
pub mod spec;
pub mod tokenizer;
