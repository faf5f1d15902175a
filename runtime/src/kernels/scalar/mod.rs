//! The reference backend: plain Rust, every machine.

mod lanes;
pub(super) mod portable;

#[cfg(any(all(target_arch = "arm", feature = "cortex-m-dsp"), all(test, not(target_arch = "arm"))))]
pub(super) use lanes::widened;

use super::lanes::LANES;
use super::{Attention, Kernels, canonical};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;

type Scalar = [f32; LANES];

/// The table as a value, which others begin with.
pub(super) const KERNELS: Kernels = Kernels {
    name: "scalar",
    int2: portable::products(Layout::Nr8k4, CodeWidth::Int2),
    int3: portable::products(Layout::Nr8k4, CodeWidth::Int3),
    int4: portable::products(Layout::Nr8k4, CodeWidth::Int4),
    int5: portable::products(Layout::Nr8k4, CodeWidth::Int5),
    int6: portable::products(Layout::Nr8k4, CodeWidth::Int6),
    int8: portable::products(Layout::Nr8k4, CodeWidth::Int8),
    quantize_activations: canonical::quantize_activations::<Scalar>,
    attention_f32: Attention {
        keep: canonical::keep_f32::<Scalar>,
        scores: canonical::scores_f32::<Scalar>,
        weighted_sums: canonical::weighted_sums_f32::<Scalar>,
    },
    attention_f16: Attention {
        keep: canonical::keep_f16::<Scalar>,
        scores: canonical::scores_f16::<Scalar>,
        weighted_sums: canonical::weighted_sums_f16::<Scalar>,
    },
    dot_lanes: canonical::dot_lanes::<Scalar>,
    rms_norm: canonical::rms_norm::<Scalar>,
    rms_norm_in_place: canonical::rms_norm_in_place::<Scalar>,
    layer_norm: canonical::layer_norm::<Scalar>,
    gelu_tanh: canonical::gelu_tanh::<Scalar>,
    gelu: canonical::gelu::<Scalar>,
    soft_cap: canonical::soft_cap::<Scalar>,
    softmax: canonical::softmax::<Scalar>,
    silu_multiply: canonical::silu_multiply::<Scalar>,
    add: canonical::add::<Scalar>,
    rotate: canonical::rotate::<Scalar>,
};

static TABLE: Kernels = KERNELS;

/// The table, for any processor.
pub(super) fn kernels() -> &'static Kernels {
    &TABLE
}

/// The table, which every processor runs.
pub fn detect() -> Option<&'static Kernels> {
    Some(&TABLE)
}
