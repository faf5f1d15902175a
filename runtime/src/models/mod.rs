//! The architectures, one file each: the forward that serves calibration, evaluation and the device.

mod cache;
pub mod llama;

pub use cache::CacheElem;
