//! The reference backend: plain Rust, every machine.

mod lanes;
pub(super) mod portable;

#[cfg(any(all(target_arch = "arm", feature = "cortex-m-dsp"), all(test, not(target_arch = "arm"))))]
pub(super) use lanes::widened;

use super::attention_int8::Int8Sums;
use super::lanes::LANES;
use super::{AttentionF16, AttentionF32, AttentionInt8, Kernels, MatrixProduct, absent, canonical};
use crate::parts::Part;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::MatrixShape;

type Scalar = [f32; LANES];

/// The definition of the sums.
struct ScalarSums;

impl Int8Sums for ScalarSums {
    type Lanes = Scalar;
    const TOGETHER: usize = 1;
}

/// The table as a value, which others begin with.
pub(super) const KERNELS: Kernels = Kernels {
    name: "scalar",
    int2: portable::products(Layout::Nr8k4, CodeWidth::Int2).if_built(Part::Int2),
    int3: portable::products(Layout::Nr8k4, CodeWidth::Int3).if_built(Part::Int3),
    int4: portable::products(Layout::Nr8k4, CodeWidth::Int4).if_built(Part::Int4),
    int5: portable::products(Layout::Nr8k4, CodeWidth::Int5).if_built(Part::Int5),
    int6: portable::products(Layout::Nr8k4, CodeWidth::Int6).if_built(Part::Int6),
    int8: portable::products(Layout::Nr8k4, CodeWidth::Int8).if_built(Part::Int8),
    quantize_activations: canonical::quantize_activations::<Scalar>,
    attention_f32: AttentionF32 {
        scores: canonical::scores_f32::<Scalar>,
        weighted_sums: canonical::weighted_sums_f32::<Scalar>,
    }
    .if_built(),
    attention_f16: AttentionF16 {
        keep: canonical::keep_f16::<Scalar>,
        scores: canonical::scores_f16::<Scalar>,
        weighted_sums: canonical::weighted_sums_f16::<Scalar>,
    }
    .if_built(),
    attention_int8: AttentionInt8 {
        keep_key: canonical::keep_key_int8::<ScalarSums>,
        keep_value: canonical::keep_value_int8::<ScalarSums>,
        scores: canonical::scores_int8::<ScalarSums>,
        weighted_sums: canonical::weighted_sums_int8::<ScalarSums>,
    }
    .if_built(),
    dot_lanes: canonical::dot_lanes::<Scalar>,
    rms_norm: canonical::rms_norm::<Scalar>,
    rms_norm_in_place: canonical::rms_norm_in_place::<Scalar>,
    layer_norm: if cfg!(feature = "layer-norm") {
        canonical::layer_norm::<Scalar>
    } else {
        absent::layer_norm
    },
    gelu_tanh: if cfg!(feature = "gelu") { canonical::gelu_tanh::<Scalar> } else { absent::gelu },
    gelu: if cfg!(feature = "gelu") { canonical::gelu::<Scalar> } else { absent::gelu },
    soft_cap: if cfg!(feature = "soft-cap") { canonical::soft_cap::<Scalar> } else { absent::soft_cap },
    softmax: canonical::softmax::<Scalar>,
    silu_multiply: canonical::silu_multiply::<Scalar>,
    add: canonical::add::<Scalar>,
    rotate: canonical::rotate::<Scalar>,
    hadamard: if cfg!(feature = "hadamard") { canonical::hadamard::<Scalar> } else { absent::hadamard },
};

/// The product that all others are compared with, for any number of tokens, with its name.
pub fn reference_product(shape: &MatrixShape) -> (MatrixProduct, &'static str) {
    let products = portable::products(shape.layout(), shape.width());
    (products.gemm, products.gemm_name)
}

static TABLE: Kernels = KERNELS;

/// The table, for any processor.
pub(super) fn kernels() -> &'static Kernels {
    &TABLE
}

/// The table, which every processor runs. A program without the layout `rows`, whose products are these, does without where its target has a
/// table of its own.
pub fn detect() -> Option<&'static Kernels> {
    (super::BASELINE.is_none() || cfg!(feature = "rows-layout")).then_some(&TABLE)
}
