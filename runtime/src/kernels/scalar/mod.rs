//! The reference backend: plain Rust, every machine.

mod lanes;
pub(super) mod portable;

use super::lanes::LANES;
use super::{Kernels, ProductNames, canonical};

type Scalar = [f32; LANES];

static KERNELS: Kernels = Kernels {
    name: "scalar",
    gemv_int8: portable::product,
    gemm_int8: portable::product,
    product_names: ProductNames {
        gemv_int8: "gemv_int8_nr8k4_portable",
        gemm_int8: "gemm_int8_nr8k4_portable",
    },
    quantize_activations: canonical::quantize_activations::<Scalar>,
    dot: canonical::dot::<Scalar>,
    dot_lanes: canonical::dot_lanes::<Scalar>,
    rms_norm: canonical::rms_norm::<Scalar>,
    softmax: canonical::softmax::<Scalar>,
    weighted_sum: canonical::weighted_sum::<Scalar>,
    silu_multiply: canonical::silu_multiply::<Scalar>,
    add: canonical::add::<Scalar>,
    rotate: canonical::rotate::<Scalar>,
};

/// The table, for any processor.
pub(super) fn kernels() -> &'static Kernels {
    &KERNELS
}

/// The table, which every processor runs.
pub fn detect() -> Option<&'static Kernels> {
    Some(&KERNELS)
}
