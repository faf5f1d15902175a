//! Runs a rescomp container on the device: no_std, no allocator, all memory from the caller.
//!
//! ```text
//! Container::open(bytes)?.check(..)?      formats: nothing unchecked is run
//! SessionPlan::new(&container, limits)?   how much memory
//! Session::new(..)?                       carve it
//! session.run(&tokens)? -> logits         models::llama -> linear -> kernels
//! ...
//! EncoderPlan::new, Encoder::new          likewise of an encoder
//! encoder.embed(&tokens)? -> vector       models::bert -> linear -> kernels
//! ...
//! ClassifierPlan::new, Classifier::new    likewise of a classifier
//! classifier.classify(pixels)? -> logits  models::vit -> linear -> kernels
//! ```
//! A weight's way: `session` asks `models::llama` for a block, which asks `linear::QuantizedWeights` for a product, which calls
//! the kernel that the table names for the matrix's width and layout.
#![no_std]
#[cfg(any(test, feature = "std"))]
extern crate std;

mod cache_memory;
pub mod chat;
pub mod classifier;
pub mod date;
pub mod encoder;
pub mod error;
pub mod eval;
pub mod eval_embeddings;
pub mod eval_images;
pub mod executor;
pub mod kernel_comparison;
pub mod kernels;
pub mod linear;
pub mod memory;
pub mod models;
pub mod parts;
pub mod sample;
pub mod self_check;
pub mod session;
#[cfg(feature = "std")]
pub mod threads;
pub mod tokenizer;

/// What computes: a kernel table and an executor.
#[derive(Clone, Copy)]
pub struct Machine<'a> {
    /// Every operation, for this processor.
    pub kernels: &'static kernels::Kernels,
    /// Runs parts of an operation in parallel.
    pub executor: &'a dyn executor::Executor,
}

impl core::fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Machine {{ kernels: {}, threads: {} }}", self.kernels.name, self.executor.threads())
    }
}
