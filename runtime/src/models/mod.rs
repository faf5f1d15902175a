//! The architectures, one file each: the forward that serves calibration, evaluation and the device.

pub mod llama;
