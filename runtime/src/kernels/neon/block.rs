//! A block of a codebook product, for NEON with and without dotprod: everything but the integer products of a unit.

/// Implements `Block` for `Codebook`, from what the module has:
///
/// - `Integers`: the sums of a tile and a token, with `zero()` and `by_row(Integers) -> [int32x4_t; 2]`;
/// - the macro `unit!(WORDS, TILES, TOKENS, tables, weights, activations, integers, begin: bool)`, which adds the products of a unit,
///   `weights` by tile and `activations` by token, to `integers` by tile and token, or, where told to `begin`, puts them there.
///
/// Macros, because functions with target features are inlined at the compiler's discretion, and it declines four calls of one that
/// is as long as a unit.
macro_rules! blocks {
    ($features:literal, most_tokens: $most_tokens:literal) => {
        impl<const WORDS: usize> Block<WORDS> for Codebook {
            const MOST_TOKENS: usize = $most_tokens;
            type Tables = Tables;
            type Sums = Sums;

            #[inline(always)]
            fn tables(levels: &[i8; TABLE_ENTRIES], multipliers: &[u8; TABLE_ENTRIES]) -> Tables {
                // SAFETY: instantiated only in the products of this module, which have the features.
                unsafe { lookup::tables::<WORDS>(levels, multipliers) }
            }

            #[inline(always)]
            fn zero() -> Sums {
                // SAFETY: likewise.
                unsafe { sums::zero() }
            }

            #[inline(always)]
            fn rows(sums: Sums, row_scales: &[u16; TILE_ROWS], unit: f32) -> [f32; TILE_ROWS] {
                // SAFETY: likewise.
                unsafe { sums::scaled_rows(sums, row_scales, unit) }
            }

            #[inline(always)]
            fn add<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
                tables: Tables,
                weights: [&[[Word; WORDS]]; TILES],
                scale_codes: [ScaleCodes; TILES],
                activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
                scales: [&[f32]; TOKENS],
                sums: &mut [[Sums; TOKENS]; TILES],
            ) {
                // SAFETY: likewise.
                unsafe {
                    add::<WORDS, TILES, TOKENS, GROUP>(
                        tables,
                        weights,
                        scale_codes,
                        activations,
                        scales,
                        sums,
                    );
                }
            }

            #[inline(always)]
            fn add_rest<const TILES: usize, const TOKENS: usize, const GROUP: usize>(
                tables: Tables,
                weights: [&[[Word; WORDS]]; TILES],
                scale_codes: [ScaleCodes; TILES],
                activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
                scales: [&[f32]; TOKENS],
                sums: &mut [[Sums; TOKENS]; TILES],
            ) {
                // SAFETY: likewise.
                unsafe {
                    add_rest::<WORDS, TILES, TOKENS, GROUP>(
                        tables,
                        weights,
                        scale_codes,
                        activations,
                        scales,
                        sums,
                    );
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add<
            const WORDS: usize,
            const TILES: usize,
            const TOKENS: usize,
            const GROUP: usize,
        >(
            tables: Tables,
            weights: [&[[Word; WORDS]]; TILES],
            scale_codes: [ScaleCodes; TILES],
            activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
            scales: [&[f32]; TOKENS],
            sums: &mut [[Sums; TOKENS]; TILES],
        ) {
            macro_rules! step {
                ($step:literal, $first:literal, $second:literal) => {
                    let mut integers = [[zero(); TOKENS]; TILES];
                    let mut totals = [[lookup::zero(); TOKENS]; TILES];
                    let (w, a) = (weights.map(|w| &w[$first]), activations.map(|a| &a[$first]));
                    unit!(WORDS, TILES, TOKENS, tables, w, a, integers, begin: true);
                    if GROUP == 32 {
                        for tile in 0..TILES {
                            let multipliers = lookup::multipliers::<0>(&tables, scale_codes[tile][$step]);
                            for token in 0..TOKENS {
                                totals[tile][token] =
                                    lookup::multiply(by_row(integers[tile][token]), multipliers);
                            }
                        }
                    }
                    let (w, a) = (weights.map(|w| &w[$second]), activations.map(|a| &a[$second]));
                    if GROUP == 32 {
                        unit!(WORDS, TILES, TOKENS, tables, w, a, integers, begin: true);
                    } else {
                        unit!(WORDS, TILES, TOKENS, tables, w, a, integers, begin: false);
                    }
                    for tile in 0..TILES {
                        let multipliers = if GROUP == 32 {
                            lookup::multipliers::<1>(&tables, scale_codes[tile][$step])
                        } else {
                            lookup::multipliers::<$step>(&tables, scale_codes[tile][0])
                        };
                        for token in 0..TOKENS {
                            let integers = by_row(integers[tile][token]);
                            let totals = if GROUP == 32 {
                                lookup::multiply_add(totals[tile][token], integers, multipliers)
                            } else {
                                lookup::multiply(integers, multipliers)
                            };
                            sums[tile][token] =
                                sums::add_total(sums[tile][token], totals, scales[token][$step]);
                        }
                    }
                };
            }
            // Loops over steps and units stay loops, which costs a twelfth of the instructions; so they are written out.
            step!(0, 0, 1);
            step!(1, 2, 3);
        }

        #[inline(never)]
        #[target_feature(enable = $features)]
        fn add_rest<const WORDS: usize, const TILES: usize, const TOKENS: usize, const GROUP: usize>(
            tables: Tables,
            weights: [&[[Word; WORDS]]; TILES],
            scale_codes: [ScaleCodes; TILES],
            activations: [&[[i8; UNIT_ELEMS]]; TOKENS],
            scales: [&[f32]; TOKENS],
            sums: &mut [[Sums; TOKENS]; TILES],
        ) {
            let units = weights[0].len();
            let mut integers = [[zero(); TOKENS]; TILES];
            let mut totals = [[lookup::zero(); TOKENS]; TILES];
            for unit in 0..units {
                let (w, a) = (weights.map(|w| &w[unit]), activations.map(|a| &a[unit]));
                unit!(WORDS, TILES, TOKENS, tables, w, a, integers, begin: false);
                let (step, place) = (unit / STEP_UNITS, unit % STEP_UNITS);
                let is_last = place + 1 == STEP_UNITS || unit + 1 == units;
                if GROUP != 32 && !is_last {
                    continue;
                }
                for tile in 0..TILES {
                    let codes = if GROUP == 32 {
                        scale_codes[tile][step] >> (4 * place)
                    } else {
                        scale_codes[tile][0] >> (4 * step)
                    };
                    let multipliers = lookup::multipliers::<0>(&tables, codes);
                    for token in 0..TOKENS {
                        let integers = by_row(integers[tile][token]);
                        totals[tile][token] =
                            lookup::multiply_add(totals[tile][token], integers, multipliers);
                        if is_last {
                            sums[tile][token] =
                                sums::add_total(sums[tile][token], totals[tile][token], scales[token][step]);
                            totals[tile][token] = lookup::zero();
                        }
                    }
                }
                integers = [[zero(); TOKENS]; TILES];
            }
        }
    };
}
pub(in crate::kernels) use blocks;
