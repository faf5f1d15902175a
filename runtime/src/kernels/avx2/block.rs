//! A block of a codebook product, for AVX2 and AVX-512 VNNI: everything but the integer products of a unit.

/// Implements `Block` for `Codebook`, from what the module has:
///
/// - `add_quads::<WORDS, TOKENS>(sums, levels: [__m256i; 8], activations)`, which adds the products of a unit's levels plus bound;
/// - `add_offset::<WORDS>(sums, activations: __m256i)`, which adds the bound times the activations, in lanes of four.
///
/// A macro, because a function's target features can't be generic.
macro_rules! blocks {
    ($features:literal, most_tokens: $most_tokens:literal) => {
        impl<const WORDS: usize> Block<WORDS> for Codebook {
            const MOST_TOKENS: usize = $most_tokens;
            type Tables = Tables;
            type Sums = __m256;

            #[inline(always)]
            fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Tables {
                // SAFETY: instantiated only in the functions above, which have AVX2.
                unsafe { lookup::tables::<WORDS>(levels, multipliers) }
            }

            #[inline(always)]
            fn zero() -> __m256 {
                // SAFETY: instantiated only in the functions above, which have AVX2.
                unsafe { _mm256_setzero_ps() }
            }

            #[inline(always)]
            fn rows(sums: __m256, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS] {
                // SAFETY: instantiated only in the functions above, which have AVX2 and F16C.
                unsafe { lookup::rows(sums, row_scales, unit) }
            }

            #[inline(always)]
            fn add<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
                tables: Tables,
                weights: [&[[Word; WORDS]]; TILES],
                scale_codes: [ScaleCodes; TILES],
                activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
                scales: [&[f32]; TOKENS],
                sums: &mut [[__m256; TOKENS]; TILES],
            ) {
                // SAFETY: instantiated only in the functions above, which have AVX2 and FMA.
                unsafe {
                    add::<WORDS, TILES, TOKENS, BLOCK_STEPS, GROUP>(
                        tables,
                        weights,
                        scale_codes,
                        activations,
                        scales,
                        sums,
                    )
                }
            }

            #[inline(always)]
            fn add_rest<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
                tables: Tables,
                weights: [&[[Word; WORDS]]; TILES],
                scale_codes: [ScaleCodes; TILES],
                activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
                scales: [&[f32]; TOKENS],
                sums: &mut [[__m256; TOKENS]; TILES],
            ) {
                // SAFETY: instantiated only in the functions above, which have AVX2 and FMA.
                unsafe {
                    add::<WORDS, TILES, TOKENS, 0, GROUP>(
                        tables,
                        weights,
                        scale_codes,
                        activations,
                        scales,
                        sums,
                    )
                }
            }
        }

        /// As many steps as `STEPS` says, or where that is 0 the units that there are.
        #[inline]
        #[target_feature(enable = $features)]
        fn add<
            const WORDS: usize,
            const TILES: usize,
            const TOKENS: usize,
            const STEPS: usize,
            const GROUP: usize,
        >(
            tables: Tables,
            weights: [&[[Word; WORDS]]; TILES],
            scale_codes: [ScaleCodes; TILES],
            activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
            activation_scales: [&[f32]; TOKENS],
            sums: &mut [[__m256; TOKENS]; TILES],
        ) {
            let units = if STEPS > 0 { STEPS * STEP_UNITS } else { weights[0].len() };
            for step in 0..units.div_ceil(STEP_UNITS) {
                let step_units = STEP_UNITS * step..units.min(STEP_UNITS * (step + 1));
                let mut totals = [[_mm256_setzero_si256(); TOKENS]; TILES];
                // Written out for both cases: one loop over the units of a group took 7 % longer in decode on AVX2.
                if GROUP == 32 {
                    for unit in step_units {
                        let nibble = 4 * (unit % STEP_UNITS);
                        let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
                        let mut offsets = [_mm256_setzero_si256(); TOKENS];
                        add_unit(
                            &tables,
                            weights.map(|w| &w[unit]),
                            activations.map(|a| &a[unit]),
                            &mut integers,
                            &mut offsets,
                        );
                        add_group(
                            &tables,
                            scale_codes.map(|codes| codes[step] >> nibble),
                            integers,
                            offsets,
                            &mut totals,
                        );
                    }
                } else {
                    let mut integers = [[_mm256_setzero_si256(); TOKENS]; TILES];
                    let mut offsets = [_mm256_setzero_si256(); TOKENS];
                    for unit in step_units {
                        add_unit(
                            &tables,
                            weights.map(|w| &w[unit]),
                            activations.map(|a| &a[unit]),
                            &mut integers,
                            &mut offsets,
                        );
                    }
                    add_group(
                        &tables,
                        scale_codes.map(|codes| codes[0] >> (4 * step)),
                        integers,
                        offsets,
                        &mut totals,
                    );
                }
                for token in 0..TOKENS {
                    let scale = _mm256_set1_ps(activation_scales[token][step]);
                    for tile in 0..TILES {
                        let total = _mm256_cvtepi32_ps(totals[tile][token]);
                        sums[tile][token] = _mm256_fmadd_ps(total, scale, sums[tile][token]);
                    }
                }
            }
        }

        /// Adds a unit's products of levels plus bound to `integers`, and of the bound alone to `offsets`, there not yet by row.
        #[inline]
        #[target_feature(enable = $features)]
        fn add_unit<const WORDS: usize, const TILES: usize, const TOKENS: usize>(
            tables: &Tables,
            weights: [&[Word; WORDS]; TILES],
            activations: [&[i8; UNIT_ELEMS]; TOKENS],
            integers: &mut [[__m256i; TOKENS]; TILES],
            offsets: &mut [__m256i; TOKENS],
        ) {
            for token in 0..TOKENS {
                // SAFETY: has AVX2.
                let codes = unsafe { load(activations[token]) };
                offsets[token] = add_offset::<WORDS>(offsets[token], codes);
            }
            for tile in 0..TILES {
                let quads = quads(tables, weights[tile]);
                for token in 0..TOKENS {
                    let sums = integers[tile][token];
                    integers[tile][token] = add_quads::<WORDS, TOKENS>(sums, quads, activations[token]);
                }
            }
        }
    };
}
pub(in crate::kernels) use blocks;
