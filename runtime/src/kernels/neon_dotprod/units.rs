//! The products of a unit of one tile and one token, each in one piece of assembly: loads of four registers at once, and products in an
//! order that needs few registers. The compiler has neither from intrinsics.
//!
//! At 5 and 6 bits a piece works in registers 26 and 27, too.

use super::fields;
use super::pieces::{both_rows, load, multiply, piece};
use core::arch::aarch64::*;
use core::arch::asm;
use rescomp_formats::encodings::int3::LOW_CODE;

/// Low nibbles to registers 22 and 23, high ones to 24 and 25, of two registers.
macro_rules! nibbles {
    ($low_rows:literal, $high_rows:literal) => {
        concat!(
            both_rows!("and", "v22", "v23", $low_rows, $high_rows, "{mask:v}.16b"),
            both_rows!("ushr", "v24", "v25", $low_rows, $high_rows, "#4"),
        )
    };
}

/// What a register holds by a table, of one register or two.
macro_rules! look_up {
    ($target:literal, $table:literal, $index:literal) => {
        concat!("tbl ", $target, ".16b, {{ ", $table, " }}, ", $index, ".16b\n")
    };
}

/// Two quads of codes in each half of a tile: what is under `$mask` by one table, what is above `$shift` bits by another.
macro_rules! word {
    ($low_rows:literal, $high_rows:literal, $mask:literal, $even_table:literal, $shift:literal, $odd_table:literal,
     $activations:literal, $even:literal, $odd:literal) => {
        concat!(
            both_rows!("and", "v22", "v23", $low_rows, $high_rows, $mask),
            both_rows!("ushr", "v24", "v25", $low_rows, $high_rows, $shift),
            look_up!("v22", $even_table, "v22"),
            look_up!("v23", $even_table, "v23"),
            look_up!("v24", $odd_table, "v24"),
            look_up!("v25", $odd_table, "v25"),
            multiply!("v22", "v23", $activations, $even),
            multiply!("v24", "v25", $activations, $odd),
        )
    };
}

/// A word whose nibbles are codes.
macro_rules! word_of_nibbles {
    ($low_rows:literal, $high_rows:literal, $activations:literal, $even:literal, $odd:literal) => {
        word!(
            $low_rows,
            $high_rows,
            "{mask:v}.16b",
            "{t0:v}.16b",
            "#4",
            "{t0:v}.16b",
            $activations,
            $even,
            $odd
        )
    };
}

/// A word of 3 bits: four times the low codes, for which the table in registers 30 and 31 is, and the high ones.
macro_rules! word_of_three_bits {
    ($low_rows:literal, $high_rows:literal, $activations:literal, $even:literal, $odd:literal) => {
        word!(
            $low_rows,
            $high_rows,
            "{low:v}.16b",
            "v30.16b, v31.16b",
            "#5",
            "v28.16b",
            $activations,
            $even,
            $odd
        )
    };
}

/// The spare bits of three words, joined below others, which the table in registers 28 and 29 ignores.
macro_rules! joined_of_three_bits {
    ($low_rows:literal, $high_rows:literal, $activations:literal, $even:literal, $odd:literal) => {
        word!(
            $low_rows,
            $high_rows,
            "{code:v}.16b",
            "v28.16b",
            "#3",
            "v28.16b, v29.16b",
            $activations,
            $even,
            $odd
        )
    };
}

/// A word of nibbles of two codes each.
macro_rules! word_of_two {
    ($low_rows:literal, $high_rows:literal, $activations:literal) => {
        concat!(
            nibbles!($low_rows, $high_rows),
            look_up!($low_rows, "{t0:v}.16b", "v22"),
            look_up!($high_rows, "{t0:v}.16b", "v23"),
            look_up!("v22", "{t1:v}.16b", "v22"),
            look_up!("v23", "{t1:v}.16b", "v23"),
            multiply!($low_rows, $high_rows, $activations, "0"),
            multiply!("v22", "v23", $activations, "1"),
            look_up!($low_rows, "{t0:v}.16b", "v24"),
            look_up!($high_rows, "{t0:v}.16b", "v25"),
            look_up!("v24", "{t1:v}.16b", "v24"),
            look_up!("v25", "{t1:v}.16b", "v25"),
            multiply!($low_rows, $high_rows, $activations, "2"),
            multiply!("v24", "v25", $activations, "3"),
        )
    };
}

/// A word of high nibbles, with the nibbles of their low bits in two registers, which two tables serve.
macro_rules! stacked_word {
    ($low_rows:literal, $high_rows:literal, $of_low:literal, $of_high:literal, $even_table:literal, $odd_table:literal,
     $activations:literal, $even:literal, $odd:literal) => {
        concat!(
            nibbles!($low_rows, $high_rows),
            look_up!("v22", "{t0:v}.16b", "v22"),
            look_up!("v23", "{t0:v}.16b", "v23"),
            look_up!($low_rows, $even_table, $of_low),
            look_up!($high_rows, $even_table, $of_high),
            "add v22.16b, v22.16b, ",
            $low_rows,
            ".16b\n",
            "add v23.16b, v23.16b, ",
            $high_rows,
            ".16b\n",
            look_up!("v24", "{t0:v}.16b", "v24"),
            look_up!("v25", "{t0:v}.16b", "v25"),
            look_up!($low_rows, $odd_table, $of_low),
            look_up!($high_rows, $odd_table, $of_high),
            multiply!("v22", "v23", $activations, $even),
            "add v24.16b, v24.16b, ",
            $low_rows,
            ".16b\n",
            "add v25.16b, v25.16b, ",
            $high_rows,
            ".16b\n",
            multiply!("v24", "v25", $activations, $odd),
        )
    };
}

/// Adds the products of a unit of `WORDS` bits with `tables` of levels. Where `BY_CODES`, at 4 bits, the products are those of the
/// codes themselves.
///
/// # Safety
/// `words` points at the words of a unit.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn add_codebook_unit<const WORDS: usize, const BY_CODES: bool>(
    t: &[int8x16_t; 5],
    words: &mut *const u8,
    activations: [int8x16_t; 2],
    sums: &mut [int32x4_t],
) {
    let mask = vdupq_n_u8(15);
    match WORDS {
        2 => piece!(
            words,
            activations,
            sums,
            [load!("v16", "v19", "64"), word_of_two!("v16", "v17", "x"), word_of_two!("v18", "v19", "y")],
            [mask = in(vreg) mask, t0 = in(vreg) t[0], t1 = in(vreg) t[1],]
        ),
        3 => piece!(
            words,
            activations,
            sums,
            [
                load!("v16", "v19", "64"),
                load!("v20", "v21", "32"),
                word_of_three_bits!("v16", "v17", "x", "0", "1"),
                word_of_three_bits!("v18", "v19", "x", "2", "3"),
                both_rows!("sli", "v18", "v19", "v16", "v17", "#2"),
                word_of_three_bits!("v20", "v21", "y", "0", "1"),
                both_rows!("sli", "v20", "v21", "v18", "v19", "#2"),
                joined_of_three_bits!("v20", "v21", "y", "2", "3")
            ],
            [
                low = in(vreg) vdupq_n_u8(LOW_CODE),
                code = in(vreg) vdupq_n_u8(7),
                in("v28") t[0],
                in("v29") t[0],
                in("v30") t[1],
                in("v31") t[2],
            ]
        ),
        4 if BY_CODES => piece!(
            words,
            activations,
            sums,
            [
                load!("v16", "v19", "64"),
                nibbles!("v16", "v17"),
                multiply!("v22", "v23", "x", "0"),
                multiply!("v24", "v25", "x", "1"),
                nibbles!("v18", "v19"),
                multiply!("v22", "v23", "x", "2"),
                multiply!("v24", "v25", "x", "3"),
                load!("v16", "v19", "64"),
                nibbles!("v16", "v17"),
                multiply!("v22", "v23", "y", "0"),
                multiply!("v24", "v25", "y", "1"),
                nibbles!("v18", "v19"),
                multiply!("v22", "v23", "y", "2"),
                multiply!("v24", "v25", "y", "3")
            ],
            [mask = in(vreg) mask,]
        ),
        4 => piece!(
            words,
            activations,
            sums,
            [
                load!("v16", "v19", "64"),
                word_of_nibbles!("v16", "v17", "x", "0", "1"),
                word_of_nibbles!("v18", "v19", "x", "2", "3"),
                load!("v16", "v19", "64"),
                word_of_nibbles!("v16", "v17", "y", "0", "1"),
                word_of_nibbles!("v18", "v19", "y", "2", "3")
            ],
            [mask = in(vreg) mask, t0 = in(vreg) t[0],]
        ),
        // The low bits come last in memory and serve all words: at 5 bits, a nibble of them two words, at 6 bits one.
        5 => piece!(
            words,
            activations,
            sums,
            [
                "ldp q20, q21, [{words}, #128]",
                load!("v16", "v19", "64"),
                "ushr v26.16b, v20.16b, #4",
                "ushr v27.16b, v21.16b, #4",
                "and v20.16b, v20.16b, {mask:v}.16b",
                "and v21.16b, v21.16b, {mask:v}.16b",
                stacked_word!("v16", "v17", "v20", "v21", "{t1:v}.16b", "{t2:v}.16b", "x", "0", "1"),
                stacked_word!("v18", "v19", "v20", "v21", "{t3:v}.16b", "{t4:v}.16b", "x", "2", "3"),
                load!("v16", "v19", "64"),
                stacked_word!("v16", "v17", "v26", "v27", "{t1:v}.16b", "{t2:v}.16b", "y", "0", "1"),
                stacked_word!("v18", "v19", "v26", "v27", "{t3:v}.16b", "{t4:v}.16b", "y", "2", "3"),
                "add {words}, {words}, #32"
            ],
            [
                mask = in(vreg) mask,
                t0 = in(vreg) t[0],
                t1 = in(vreg) t[1],
                t2 = in(vreg) t[2],
                t3 = in(vreg) t[3],
                t4 = in(vreg) t[4],
                out("v26") _,
                out("v27") _,
            ]
        ),
        _ => piece!(
            words,
            activations,
            sums,
            [
                "ldp q20, q21, [{words}, #128]",
                load!("v16", "v19", "64"),
                "ushr v26.16b, v20.16b, #4",
                "ushr v27.16b, v21.16b, #4",
                "and v20.16b, v20.16b, {mask:v}.16b",
                "and v21.16b, v21.16b, {mask:v}.16b",
                stacked_word!("v16", "v17", "v20", "v21", "{t1:v}.16b", "{t2:v}.16b", "x", "0", "1"),
                stacked_word!("v18", "v19", "v26", "v27", "{t1:v}.16b", "{t2:v}.16b", "x", "2", "3"),
                "ldp q20, q21, [{words}, #96]",
                load!("v16", "v19", "64"),
                "ushr v26.16b, v20.16b, #4",
                "ushr v27.16b, v21.16b, #4",
                "and v20.16b, v20.16b, {mask:v}.16b",
                "and v21.16b, v21.16b, {mask:v}.16b",
                stacked_word!("v16", "v17", "v20", "v21", "{t1:v}.16b", "{t2:v}.16b", "y", "0", "1"),
                stacked_word!("v18", "v19", "v26", "v27", "{t1:v}.16b", "{t2:v}.16b", "y", "2", "3"),
                "add {words}, {words}, #64"
            ],
            [
                mask = in(vreg) mask,
                t0 = in(vreg) t[0],
                t1 = in(vreg) t[1],
                t2 = in(vreg) t[2],
                out("v26") _,
                out("v27") _,
            ]
        ),
    }
}

/// Adds the products of a unit of 8 bits, of two tiles: four sums at a time, since those of one tile would wait for each other.
///
/// # Safety
/// Both `words` point at the words of a unit.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn add_int8_units(
    words: &mut [*const u8; 2],
    activations: [int8x16_t; 2],
    sums: &mut [int32x4_t; 4],
) {
    macro_rules! two_words {
        ($activations:literal, $even:literal, $odd:literal) => {
            concat!(
                "ld1 {{ v16.16b-v19.16b }}, [{first}], #64\n",
                "ld1 {{ v20.16b-v23.16b }}, [{second}], #64\n",
                "sdot {a:v}.4s, v16.16b, {",
                $activations,
                ":v}.4b[",
                $even,
                "]\n",
                "sdot {b:v}.4s, v17.16b, {",
                $activations,
                ":v}.4b[",
                $even,
                "]\n",
                "sdot {c:v}.4s, v20.16b, {",
                $activations,
                ":v}.4b[",
                $even,
                "]\n",
                "sdot {d:v}.4s, v21.16b, {",
                $activations,
                ":v}.4b[",
                $even,
                "]\n",
                "sdot {a:v}.4s, v18.16b, {",
                $activations,
                ":v}.4b[",
                $odd,
                "]\n",
                "sdot {b:v}.4s, v19.16b, {",
                $activations,
                ":v}.4b[",
                $odd,
                "]\n",
                "sdot {c:v}.4s, v22.16b, {",
                $activations,
                ":v}.4b[",
                $odd,
                "]\n",
                "sdot {d:v}.4s, v23.16b, {",
                $activations,
                ":v}.4b[",
                $odd,
                "]\n",
            )
        };
    }
    // SAFETY: the caller vouches for the words; the processor has the instructions.
    unsafe {
        asm!(
            two_words!("x", "0", "1"),
            two_words!("x", "2", "3"),
            two_words!("y", "0", "1"),
            two_words!("y", "2", "3"),
            first = inout(reg) words[0],
            second = inout(reg) words[1],
            a = inout(vreg) sums[0],
            b = inout(vreg) sums[1],
            c = inout(vreg) sums[2],
            d = inout(vreg) sums[3],
            x = in(vreg) activations[0],
            y = in(vreg) activations[1],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _,
            out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// Where the bytes of 16 multipliers go: the low bytes of 16 numbers. Indices beyond the register give zero.
static SPREAD: [[u8; 16]; 4] = [
    [0, 255, 255, 255, 1, 255, 255, 255, 2, 255, 255, 255, 3, 255, 255, 255],
    [4, 255, 255, 255, 5, 255, 255, 255, 6, 255, 255, 255, 7, 255, 255, 255],
    [8, 255, 255, 255, 9, 255, 255, 255, 10, 255, 255, 255, 11, 255, 255, 255],
    [12, 255, 255, 255, 13, 255, 255, 255, 14, 255, 255, 255, 15, 255, 255, 255],
];

/// The multipliers of 16 rows to registers 16 to 19.
macro_rules! multipliers {
    () => {
        concat!(
            "ld1 {{ v16.16b-v19.16b }}, [{spread}]\n",
            "tbl v20.16b, {{ {multipliers:v}.16b }}, {nibbles:v}.16b\n",
            "tbl v16.16b, {{ v20.16b }}, v16.16b\n",
            "tbl v17.16b, {{ v20.16b }}, v17.16b\n",
            "tbl v18.16b, {{ v20.16b }}, v18.16b\n",
            "tbl v19.16b, {{ v20.16b }}, v19.16b\n",
        )
    };
}

/// Multiplies the sums of two tiles by the multipliers that `nibbles` name, a row each.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn multiply(multipliers: uint8x16_t, nibbles: uint8x16_t, sums: &mut [int32x4_t; 4]) {
    // SAFETY: loads from a table of 64 bytes, on a processor that has the instructions.
    unsafe {
        asm!(
            multipliers!(),
            "mul {a:v}.4s, {a:v}.4s, v16.4s",
            "mul {b:v}.4s, {b:v}.4s, v17.4s",
            "mul {c:v}.4s, {c:v}.4s, v18.4s",
            "mul {d:v}.4s, {d:v}.4s, v19.4s",
            spread = in(reg) SPREAD.as_ptr(),
            multipliers = in(vreg) multipliers,
            nibbles = in(vreg) nibbles,
            a = inout(vreg) sums[0],
            b = inout(vreg) sums[1],
            c = inout(vreg) sums[2],
            d = inout(vreg) sums[3],
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
            options(readonly, nostack, preserves_flags),
        );
    }
}

/// `row_sums = fma(f32(sums * multipliers + totals), scale, row_sums)`, without totals where they are none, the multipliers as for
/// [`multiply`]. Where `BY_CODES` the integers have the binary places of [`fields`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn end_step<const WORDS: usize, const BY_CODES: bool>(
    multipliers: uint8x16_t,
    nibbles: uint8x16_t,
    sums: [int32x4_t; 4],
    totals: Option<[int32x4_t; 4]>,
    scale: f32,
    row_sums: &mut [float32x4_t; 4],
) {
    macro_rules! end {
        ([$($multiply:expr),*], [$($name:ident = $total:expr),*]) => {
            match if BY_CODES { fields::places::<WORDS>() } else { 0 } {
                2 => end!([$($multiply),*], ", #2", [$($name = $total),*]),
                3 => end!([$($multiply),*], ", #3", [$($name = $total),*]),
                _ => end!([$($multiply),*], "", [$($name = $total),*]),
            }
        };
        ([$($multiply:expr),*], $places:literal, [$($name:ident = $total:expr),*]) => {
            // SAFETY: loads from a table of 64 bytes, on a processor that has the instructions.
            unsafe {
                asm!(
                    multipliers!(),
                    $($multiply,)*
                    concat!("scvtf v16.4s, v16.4s", $places),
                    concat!("scvtf v17.4s, v17.4s", $places),
                    concat!("scvtf v18.4s, v18.4s", $places),
                    concat!("scvtf v19.4s, v19.4s", $places),
                    "fmla {e:v}.4s, v16.4s, {scale:v}.s[0]",
                    "fmla {f:v}.4s, v17.4s, {scale:v}.s[0]",
                    "fmla {g:v}.4s, v18.4s, {scale:v}.s[0]",
                    "fmla {h:v}.4s, v19.4s, {scale:v}.s[0]",
                    spread = in(reg) SPREAD.as_ptr(),
                    multipliers = in(vreg) multipliers,
                    nibbles = in(vreg) nibbles,
                    scale = in(vreg) scale,
                    a = in(vreg) sums[0],
                    b = in(vreg) sums[1],
                    c = in(vreg) sums[2],
                    d = in(vreg) sums[3],
                    $($name = in(vreg) $total,)*
                    e = inout(vreg) row_sums[0],
                    f = inout(vreg) row_sums[1],
                    g = inout(vreg) row_sums[2],
                    h = inout(vreg) row_sums[3],
                    out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                    options(readonly, nostack, preserves_flags),
                );
            }
        };
    }
    macro_rules! products {
        () => {
            concat!(
                "mul v16.4s, v16.4s, {a:v}.4s\n",
                "mul v17.4s, v17.4s, {b:v}.4s\n",
                "mul v18.4s, v18.4s, {c:v}.4s\n",
                "mul v19.4s, v19.4s, {d:v}.4s\n",
            )
        };
    }
    match totals {
        None => end!([products!()], []),
        Some([i, j, k, l]) => end!(
            [
                products!(),
                "add v16.4s, v16.4s, {i:v}.4s",
                "add v17.4s, v17.4s, {j:v}.4s",
                "add v18.4s, v18.4s, {k:v}.4s",
                "add v19.4s, v19.4s, {l:v}.4s"
            ],
            [i = i, j = j, k = k, l = l]
        ),
    }
}
