//! The container file of rescomp.
#![no_std]
#![forbid(unsafe_code)]

pub mod spec;
