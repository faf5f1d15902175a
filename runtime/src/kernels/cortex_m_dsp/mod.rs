//! 32-bit ARM with DSP instructions: Cortex-M4, M7, M33, M55. Two products of 16 bits an instruction (SMLAD), eight bits widened to 16 two at
//! a time (SXTB16). The float operations are loops over single numbers (floats).
//!
//! ```text
//! product (walk)              eight tiles share the activations of a step, made ready once (prepared)
//!   Unit (paired, even, int8) adds units of 32 columns to the integer sums of some rows and tokens
//!     units, insn             assembly; plain Rust elsewhere, so that every machine tests all but it
//! ```
//! There is nothing to detect: a program for a microcontroller is built for one processor, and the feature `cortex-m-dsp` says that it has
//! these instructions. Where it has not, the assembler refuses them.

mod attention_int8;
mod even;
mod floats;
pub(in crate::kernels) mod insn;
mod int8;
mod paired;
mod prepared;
mod units;
mod walk;

use super::{AttentionF16, Kernels, scalar};
use crate::parts::Part;

/// The portable table with the products of this folder, and its float operations on keys and values of binary16.
static KERNELS: Kernels = Kernels {
    name: "cortex_m_dsp",
    int2: paired::INT2.if_built(Part::Int2),
    int3: paired::INT3.if_built(Part::Int3),
    int4: paired::INT4.if_built(Part::Int4),
    int5: even::INT5.if_built(Part::Int5),
    int6: even::INT6.if_built(Part::Int6),
    int8: int8::INT8.if_built(Part::Int8),
    quantize_activations: floats::quantize_activations,
    attention_f16: AttentionF16 {
        keep: floats::keep_f16,
        scores: floats::scores_f16,
        weighted_sums: floats::weighted_sums_f16,
    }
    .if_built(),
    dot_lanes: floats::dot_lanes,
    rms_norm: floats::rms_norm,
    rms_norm_in_place: floats::rms_norm_in_place,
    softmax: floats::softmax,
    silu_multiply: floats::silu_multiply,
    add: floats::add,
    rotate: floats::rotate,
    attention_int8: attention_int8::ATTENTION.if_built(),
    ..scalar::KERNELS
};

/// The table, where every processor of the target runs it.
#[cfg(target_arch = "arm")]
pub(super) const fn kernels() -> &'static Kernels {
    &KERNELS
}

/// The table: in programs built for a processor with DSP instructions, and in tests, which compute in their place.
pub fn detect() -> Option<&'static Kernels> {
    Some(&KERNELS)
}
