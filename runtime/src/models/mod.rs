//! The architectures, one file each: the forward that serves calibration, evaluation and the device. `attention` is what they share.

mod attention;
mod cache;
pub mod llama;

pub use cache::CacheElem;
