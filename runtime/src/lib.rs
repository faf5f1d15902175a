//! Runs a rescomp container on the device.
#![no_std]
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod executor;
pub mod kernels;
#[cfg(feature = "std")]
pub mod threads;
