//! A step of a product of 8 bits, for AVX2 and AVX-512 VNNI: everything but the sums.

/// Implements `Step` for `Int8`, from the module's `add::<TILES, TOKENS, UNITS>`, whose target features can't be generic.
macro_rules! steps {
    (most_tokens: $most_tokens:literal) => {
        impl Step for Int8 {
            const MOST_TOKENS: usize = $most_tokens;
            type Sums = __m256;

            #[inline(always)]
            fn zero() -> __m256 {
                // SAFETY: likewise.
                unsafe { _mm256_setzero_ps() }
            }

            #[inline(always)]
            fn rows(sums: __m256) -> [f32; TILE_ROWS] {
                let mut rows = [0.0; TILE_ROWS];
                // SAFETY: eight writable values; likewise.
                unsafe { _mm256_storeu_ps(rows.as_mut_ptr(), sums) };
                rows
            }

            #[inline(always)]
            fn add<const TILES: usize, const TOKENS: usize, const UNITS: usize>(
                weights: [&[[Word; WORDS]]; TILES],
                weight_scales: [&[u16; TILE_ROWS]; TILES],
                activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
                activation_scales: [f32; TOKENS],
                sums: &mut [[__m256; TOKENS]; TILES],
            ) {
                // SAFETY: instantiated only in the products of this module, which have the features.
                unsafe {
                    add::<TILES, TOKENS, UNITS>(weights, weight_scales, activations, activation_scales, sums)
                }
            }
        }
    };
}
pub(in crate::kernels) use steps;
