//! The float operations of a backend, from its lanes and its processor features.

/// Instantiates every operation of [`super::canonical`] for the lanes `$lanes`, each as a safe function whose body is compiled with
/// `$features`.
///
/// The functions may only be reached through a table that `detect` hands out on a processor with these features.
macro_rules! instantiate {
    ($lanes:ty, $features:literal: $($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(
            fn $name($($argument: $type),*) $(-> $result)? {
                #[target_feature(enable = $features)]
                fn compiled($($argument: $type),*) $(-> $result)? {
                    $crate::kernels::canonical::$name::<$lanes>($($argument),*)
                }
                // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
                unsafe { compiled($($argument),*) }
            }
        )*
    };
    ($lanes:ty, $features:literal) => {
        $crate::kernels::instantiate::instantiate! { $lanes, $features:
            quantize_activations(input: &[f32], step_elems: usize, codes: &mut [i8], scales: &mut [f32]) -> bool;
            keep_f16(values: &[f32], kept: &mut [u16]);
            scores_f32(queries: &[f32], head_dim: usize, keys: &[f32], first: usize, scale: f32, scores: &mut [f32]);
            scores_f16(queries: &[f32], head_dim: usize, keys: &[u16], scale: f32, scores: &mut [f32]);
            dot_lanes(lanes: &mut [f32; 16], a: &[f32], b: &[f32]);
            rms_norm(input: &[f32], gain: &[f32], epsilon: f32, output: &mut [f32]);
            rms_norm_in_place(values: &mut [f32], gain: &[f32], epsilon: f32);
            layer_norm(input: &[f32], gain: &[f32], bias: &[f32], epsilon: f32, output: &mut [f32]);
            gelu_tanh(values: &mut [f32]);
            gelu(values: &mut [f32]);
            soft_cap(values: &mut [f32], cap: f32);
            softmax(scores: &mut [f32]);
            weighted_sums_f32(weights: &[&[f32]], values: &[f32], outputs: &mut [&mut [f32]]);
            weighted_sums_f16(weights: &[&[f32]], values: &[u16], outputs: &mut [&mut [f32]]);
            silu_multiply(gate: &mut [f32], up: &[f32]);
            add(sum: &mut [f32], addend: &[f32]);
            rotate(head: &mut [f32], cos: &[f32], sin: &[f32]);
            hadamard(transform: &rescomp_formats::hadamard::Hadamard, row: &mut [f32]);
        }
    };
}
pub(super) use instantiate;

/// Attention over int8 codes by the sums `$sums` of a backend: the constant `ATTENTION`.
///
/// The functions may only be reached through a table that `detect` hands out on a processor with these features.
macro_rules! attention_int8 {
    ($sums:ty, $features:literal) => {
        $crate::kernels::instantiate::instantiate! { $sums, $features:
            keep_key_int8(values: &[f32], codes: &mut [i8]) -> f32;
            keep_value_int8(values: &[f32], position: usize, kept: &mut [i8]) -> f32;
            scores_int8(queries: &[f32], head_dim: usize, keys: &[i8], key_scales: &[f32], scale: f32, scores: &mut [f32]);
            weighted_sums_int8(weights: &[&[f32]], first: usize, values: &[i8], value_scales: &[f32], outputs: &mut [&mut [f32]]);
        }

        pub(in $crate::kernels) const ATTENTION: $crate::kernels::AttentionInt8 = $crate::kernels::AttentionInt8 {
            keep_key: keep_key_int8,
            keep_value: keep_value_int8,
            scores: scores_int8,
            weighted_sums: weighted_sums_int8,
        };
    };
}
pub(super) use attention_int8;

/// The table called `$name`, of the operations that [`instantiate`] made and the products of the modules `codebook` and `int8` beside them,
/// and attention of `attention_int8`.
macro_rules! table {
    ($name:literal) => {
        $crate::kernels::Kernels {
            name: $name,
            int2: codebook::INT2.if_built($crate::parts::Part::Int2),
            int3: codebook::INT3.if_built($crate::parts::Part::Int3),
            int4: codebook::INT4.if_built($crate::parts::Part::Int4),
            int5: codebook::INT5.if_built($crate::parts::Part::Int5),
            int6: codebook::INT6.if_built($crate::parts::Part::Int6),
            int8: int8::INT8.if_built($crate::parts::Part::Int8),
            quantize_activations,
            attention_f32: $crate::kernels::AttentionF32 {
                scores: scores_f32,
                weighted_sums: weighted_sums_f32,
            }
            .if_built(),
            attention_f16: $crate::kernels::AttentionF16 {
                keep: keep_f16,
                scores: scores_f16,
                weighted_sums: weighted_sums_f16,
            }
            .if_built(),
            attention_int8: attention_int8::ATTENTION.if_built(),
            dot_lanes,
            rms_norm,
            rms_norm_in_place,
            layer_norm: if cfg!(feature = "layer-norm") {
                layer_norm
            } else {
                $crate::kernels::absent::layer_norm
            },
            gelu_tanh: if cfg!(feature = "gelu") { gelu_tanh } else { $crate::kernels::absent::gelu },
            gelu: if cfg!(feature = "gelu") { gelu } else { $crate::kernels::absent::gelu },
            soft_cap: if cfg!(feature = "soft-cap") { soft_cap } else { $crate::kernels::absent::soft_cap },
            softmax,
            silu_multiply,
            add,
            rotate,
            hadamard: if cfg!(feature = "hadamard") { hadamard } else { $crate::kernels::absent::hadamard },
        }
    };
}
pub(super) use table;

/// The products of a backend: for each width a constant, its name, its walk, and the functions' names, under which profilers and
/// `cargo xtask test` know them. In place of one walk each function may have its own way to compute.
///
/// The functions may only be reached through a table that `detect` hands out on a processor with these features.
macro_rules! products {
    ($features:literal, $backend:literal:
     $($constant:ident = $width:literal, $walk:ty, $gemv:ident, $gemm:ident;)*) => {
        $crate::kernels::instantiate::products! { $features, $backend:
            $($constant = $width,
              $gemv: $crate::kernels::nr8k4::gemv::<$walk>,
              $gemm: $crate::kernels::nr8k4::gemm::<$walk>;)*
        }
    };
    ($features:literal, $backend:literal:
     $($constant:ident = $width:literal, $gemv:ident: $by_gemv:expr, $gemm:ident: $by_gemm:expr;)*) => {
        $(
            pub(in $crate::kernels) const $constant: $crate::kernels::Products = {
                use $crate::kernels::{Activations, OutputRows, Products};
                use core::ops::Range;
                use rescomp_formats::matrix::MatrixView;

                #[inline(never)]
                #[target_feature(enable = $features)]
                fn $gemv(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    $by_gemv(m, a, tiles, output);
                }

                #[inline(never)]
                #[target_feature(enable = $features)]
                fn $gemm(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    $by_gemm(m, a, tiles, output);
                }

                fn gemv(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
                    unsafe { $gemv(m, a, tiles, output) }
                }

                fn gemm(m: &MatrixView<'_>, a: &Activations<'_>, tiles: Range<usize>, output: &mut OutputRows<'_>) {
                    // SAFETY: only reachable through the table, which leaves its folder through `detect` alone.
                    unsafe { $gemm(m, a, tiles, output) }
                }

                Products {
                    gemv,
                    gemm,
                    gemv_name: concat!("gemv_", $width, "_nr8k4_", $backend),
                    gemm_name: concat!("gemm_", $width, "_nr8k4_", $backend),
                }
            };
        )*
    };
}
pub(super) use products;
