//! The container file of rescomp.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "write"))]
extern crate alloc;

pub mod spec;
pub mod tokenizer;
