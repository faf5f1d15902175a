//! The kernel table: every operation of the forward pass as a safe `fn` pointer, and the list of tables this machine can run.
//!
//! A backend is a folder that fills in the table: `Kernels { name, int4, .., ..parent }`, struct update being the
//! inheritance neon -> neon_dotprod -> neon_i8mm. Its functions need instructions that not every processor
//! has, so the table leaves the folder only through `detect()`, and nobody else can build one. All backends agree bit for
//! bit: `docs/numerics.md` defines the result, [`canonical`] holds the float operations (written once, over sixteen lanes),
//! and each backend holds its own integer products, which are exact in any order inside a step.
//!
//! Shapes: m tokens, n rows (outputs), k columns (inputs, padded to a multiple of 32). Rows are handed out in tiles of eight.

mod absent;
mod activations;
mod attention;
mod attention_f16;
mod attention_f32;
mod attention_int8;
mod canonical;
mod lanes;
mod output;
mod product_f32;
mod quantized;
pub mod scalar;
#[cfg(test)]
mod tests;

#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod code_products;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod instantiate;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod nr8k4;
#[cfg(any(target_arch = "aarch64", target_arch = "x86_64"))]
mod prefetch;

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(any(all(target_arch = "arm", feature = "cortex-m-dsp"), all(test, not(target_arch = "arm"))))]
pub mod cortex_m_dsp;
#[cfg(all(target_arch = "aarch64", feature = "id-registers", not(feature = "std")))]
mod id_registers;
#[cfg(target_arch = "aarch64")]
pub mod neon;
#[cfg(target_arch = "aarch64")]
pub mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
pub mod neon_i8mm;

pub use attention_f32::{POSITIONS_TOGETHER, keep_key_f32};
pub use attention_int8::GRAIN as POSITION_GRAIN;
pub(crate) use canonical::square_root;
pub use canonical::{exp, sin_cos_turn};
pub use output::OutputRows;
pub use product_f32::matrix_product_f32;
pub use quantized::{Activations, MatrixProduct};

use crate::parts::Part;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::hadamard::Hadamard;
use rescomp_formats::layouts::Layout;
use rescomp_formats::matrix::MatrixShape;

/// Rows in the tile that matrix products count in, whatever the layout.
pub const TILE_ROWS: usize = 8;

/// One function per operation; a backend overrides what it improves. Every function panics where slice lengths disagree with
/// its documentation, and computes what docs/numerics.md defines.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The name of the table: "scalar", "cortex_m_dsp", "avx2", "avx512", "neon", "neon_dotprod" or "neon_i8mm".
    pub name: &'static str,
    /// Products with matrices of 2 bits in layout nr8k4.
    pub int2: Products,
    /// Likewise of 3 bits.
    pub int3: Products,
    /// Likewise of 4 bits.
    pub int4: Products,
    /// Likewise of 5 bits.
    pub int5: Products,
    /// Likewise of 6 bits.
    pub int6: Products,
    /// Likewise of 8 bits.
    pub int8: Products,
    /// Quantizes one token's `input` (k values) in steps of `step_elems` columns to `codes` (k padded to a multiple of 32) and
    /// `scales` (one a step). False where a value is NaN or infinite; `codes` and `scales` are then meaningless.
    pub quantize_activations:
        fn(input: &[f32], step_elems: usize, codes: &mut [i8], scales: &mut [f32]) -> bool,
    /// Attention over keys and values that are kept as f32.
    pub attention_f32: AttentionF32,
    /// Attention over keys and values that are kept as binary16.
    pub attention_f16: AttentionF16,
    /// Attention over keys and values that are kept as int8 codes with a scale for each head.
    pub attention_int8: AttentionInt8,
    /// Continues a dot product by sixteen lanes: `lanes[i mod 16] = fma(a[i], b[i], lanes[i mod 16])`. A dot product of several
    /// slices is right where all but the last are multiples of sixteen long; [`fold_sum`] ends it.
    pub dot_lanes: fn(lanes: &mut [f32; 16], &[f32], &[f32]),
    /// RMSNorm (arXiv:1910.07467, equation 4) of one token: `input`, `gain` and `output` have the same length.
    pub rms_norm: fn(input: &[f32], gain: &[f32], epsilon: f32, output: &mut [f32]),
    /// [`Kernels::rms_norm`] of `values` in their own place.
    pub rms_norm_in_place: fn(values: &mut [f32], gain: &[f32], epsilon: f32),
    /// LayerNorm (arXiv:1607.06450, equations 3 and 4) of one token: all slices have the same length.
    pub layer_norm: LayerNorm,
    /// GELU by tanh (arXiv:1606.08415, section 2) of each value.
    pub gelu_tanh: fn(values: &mut [f32]),
    /// GELU (likewise) of each value.
    pub gelu: fn(values: &mut [f32]),
    /// `values[i] = cap * tanh(values[i] / cap)`.
    pub soft_cap: fn(values: &mut [f32], cap: f32),
    /// Softmax in place. No score may be NaN.
    pub softmax: fn(scores: &mut [f32]),
    /// `gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i]` (SwiGLU, arXiv:2002.05202, section 2).
    pub silu_multiply: fn(gate: &mut [f32], up: &[f32]),
    /// `sum[i] += addend[i]`.
    pub add: fn(sum: &mut [f32], addend: &[f32]),
    /// Rotates a head of even length in halves (rotary embedding, arXiv:2104.09864, equation 34, paired as Hugging Face does):
    /// `cos` and `sin` have half its length.
    pub rotate: fn(head: &mut [f32], cos: &[f32], sin: &[f32]),
    /// The Hadamard transform of a row, in its own place; lengths stay.
    pub hadamard: fn(transform: &Hadamard, row: &mut [f32]),
}

/// [`Kernels::layer_norm`].
pub type LayerNorm = fn(input: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, output: &mut [f32]);

/// Queries that share the loads of keys and values at most.
pub const MOST_TOGETHER: usize = 4;

/// Attention's operations on the bits of binary16 numbers, which several queries share.
#[derive(Clone, Copy, Debug)]
pub struct AttentionF16 {
    /// Keeps keys or values: the nearest numbers, none infinite.
    pub keep: fn(values: &[f32], kept: &mut [u16]),
    /// For each query, `scores[t] = dot(query, keys[t]) * scale`: `queries` are any number of `head_dim` values, `scores` as many rows of one
    /// length, `keys` at least so many keys.
    pub scores: fn(queries: &[f32], head_dim: usize, keys: &[u16], scale: f32, scores: &mut [f32]),
    /// For each row of weights and its output, `output[d] = sum over t of weights[t] * values[t][d]`, `t` rising: `values` has rows as long as
    /// an output, at least as many as any row has weights. [`MOST_TOGETHER`] rows share the loads of values.
    pub weighted_sums: WeightedSums<u16>,
}

/// Attention's operations on f32 numbers.
#[derive(Clone, Copy, Debug)]
pub struct AttentionF32 {
    /// [`AttentionF16::scores`] of keys that [`keep_key_f32`] kept: `keys` begin at position 0, rows of scores at position `first`.
    pub scores: ScoresF32,
    /// [`AttentionF16::weighted_sums`].
    pub weighted_sums: WeightedSums<f32>,
}

/// [`AttentionF32::scores`].
pub type ScoresF32 =
    fn(queries: &[f32], head_dim: usize, keys: &[f32], first: usize, scale: f32, scores: &mut [f32]);

/// [`AttentionF16::weighted_sums`].
pub type WeightedSums<S> = fn(weights: &[&[f32]], values: &[S], outputs: &mut [&mut [f32]]);

/// Attention's operations on int8 codes. A head's key or value (`head_dim` numbers, at most 1024, of one position) has one scale; where a number
/// isn't finite the scale is NaN, and so is what is computed from it.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInt8 {
    /// Keeps a key as `codes`, as many as `values`; returns its scale.
    pub keep_key: fn(values: &[f32], codes: &mut [i8]) -> f32,
    /// Keeps the value of a position among those of one head and sequence, `kept`: a multiple of four positions, as many codes each as `values`.
    /// Returns its scale. Where the codes lie is the table's own matter: only its `weighted_sums` can read them. Those of other positions stay.
    pub keep_value: fn(values: &[f32], position: usize, kept: &mut [i8]) -> f32,
    /// [`AttentionF16::scores`] with the queries quantized likewise; `key_scales` are one for each key.
    pub scores: ScoresInt8,
    /// [`AttentionF16::weighted_sums`] of rows of weights that begin at position `first`: `values`, all that `keep_value` keeps in, and
    /// `value_scales` begin at position 0. What was never kept may be any codes.
    pub weighted_sums: WeightedSumsInt8,
}

/// [`AttentionInt8::scores`].
pub type ScoresInt8 =
    fn(queries: &[f32], head_dim: usize, keys: &[i8], key_scales: &[f32], scale: f32, scores: &mut [f32]);

/// [`AttentionInt8::weighted_sums`].
pub type WeightedSumsInt8 =
    fn(weights: &[&[f32]], first: usize, values: &[i8], value_scales: &[f32], outputs: &mut [&mut [f32]]);

/// The integer products of one kind of matrix. Both give the same for any number of tokens.
#[derive(Clone, Copy, Debug)]
pub struct Products {
    /// Made for one token.
    pub gemv: MatrixProduct,
    /// Made for several.
    pub gemm: MatrixProduct,
    /// Full name, e.g. "gemv_int4_nr8k4_neon_dotprod".
    gemv_name: &'static str,
    gemm_name: &'static str,
}

impl Kernels {
    /// The integer products for matrices of one kind. Layouts without kernels of their own get the portable ones, and their names
    /// say so.
    pub fn products(&self, layout: Layout, width: CodeWidth) -> Products {
        match (layout, width) {
            (Layout::Nr8k4, CodeWidth::Int2) => self.int2,
            (Layout::Nr8k4, CodeWidth::Int3) => self.int3,
            (Layout::Nr8k4, CodeWidth::Int4) => self.int4,
            (Layout::Nr8k4, CodeWidth::Int5) => self.int5,
            (Layout::Nr8k4, CodeWidth::Int6) => self.int6,
            (Layout::Nr8k4, CodeWidth::Int8) => self.int8,
            (Layout::Rows, width) => {
                scalar::portable::products(Layout::Rows, width).if_built(Part::RowsLayout)
            }
        }
    }

    /// The integer product for matrices of this shape and this many tokens, with its full name, e.g.
    /// "gemv_int4_nr8k4_neon_dotprod".
    pub fn matrix_product(&self, shape: &MatrixShape, tokens: usize) -> (MatrixProduct, &'static str) {
        let products = self.products(shape.layout(), shape.width());
        match tokens {
            1 => (products.gemv, products.gemv_name),
            _ => (products.gemm, products.gemm_name),
        }
    }
}

/// Ends a dot product made with [`Kernels::dot_lanes`]: folds the lanes in halves.
pub fn fold_sum(lanes: &[f32; 16]) -> f32 {
    lanes::Lanes::fold_sum(*lanes)
}

/// The table that every processor of this target runs, where that isn't `scalar`: kernels of its own that need nothing detected.
const BASELINE: Option<&'static Kernels> = {
    #[cfg(all(target_arch = "arm", feature = "cortex-m-dsp"))]
    let table = Some(cortex_m_dsp::kernels());
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", not(feature = "std")))]
    let table = Some(neon::kernels());
    #[cfg(not(any(
        all(target_arch = "arm", feature = "cortex-m-dsp"),
        all(target_arch = "aarch64", target_feature = "neon", not(feature = "std"))
    )))]
    let table = None;
    table
};

type Detect = fn() -> Option<&'static Kernels>;

/// Slowest first. Tests run the kernels of microcontrollers too, with plain Rust in the place of their instructions.
const BACKENDS: &[Detect] = &[
    scalar::detect,
    #[cfg(any(all(target_arch = "arm", feature = "cortex-m-dsp"), all(test, not(target_arch = "arm"))))]
    cortex_m_dsp::detect,
    #[cfg(target_arch = "x86_64")]
    avx2::detect,
    #[cfg(target_arch = "x86_64")]
    avx512::detect,
    #[cfg(target_arch = "aarch64")]
    neon::detect,
    #[cfg(target_arch = "aarch64")]
    neon_dotprod::detect,
    #[cfg(target_arch = "aarch64")]
    neon_i8mm::detect,
];

/// Every table this machine can run, slowest first. `scalar` is always the first.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    BACKENDS.iter().filter_map(|detect| detect())
}

/// The fastest table this machine can run.
pub fn best() -> &'static Kernels {
    match BASELINE {
        Some(baseline) => available().last().unwrap_or(baseline),
        None => available().last().unwrap_or(scalar::kernels()),
    }
}

/// The table of this name, where this machine can run it.
pub fn by_name(name: &str) -> Option<&'static Kernels> {
    available().find(|kernels| kernels.name == name)
}
