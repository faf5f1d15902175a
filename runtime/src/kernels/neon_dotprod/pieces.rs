//! What the pieces of assembly for one tile share ([`super::units`], [`super::fields`]).
//!
//! A piece reads the words at `{words}` (by 16 bytes: rows 0 to 3 of a word, rows 4 to 7, the next word), moves it behind them, and adds
//! to `{a}` and `{b}`, the sums of rows 0 to 3 and 4 to 7. `{x}` and `{y}` are the activations of a unit, quads 0 to 3 and 4 to 7. It works
//! in registers 16 to 25.

/// Loads registers one after another.
macro_rules! load {
    ($first:literal, $last:literal, $bytes:literal) => {
        concat!("ld1 {{ ", $first, ".16b-", $last, ".16b }}, [{words}], #", $bytes, "\n")
    };
}

/// The same operation on both halves of a tile.
macro_rules! both_rows {
    ($operation:literal, $a:literal, $b:literal, $low_rows:literal, $high_rows:literal, $with:literal) => {
        concat!(
            $operation, " ", $a, ".16b, ", $low_rows, ".16b, ", $with, "\n", $operation, " ", $b, ".16b, ",
            $high_rows, ".16b, ", $with, "\n",
        )
    };
}

/// Adds the products of a quad: one register a half of the tile.
macro_rules! multiply {
    ($low_rows:literal, $high_rows:literal, $activations:literal, $quad:literal) => {
        concat!(
            "sdot {a:v}.4s, ",
            $low_rows,
            ".16b, {",
            $activations,
            ":v}.4b[",
            $quad,
            "]\n",
            "sdot {b:v}.4s, ",
            $high_rows,
            ".16b, {",
            $activations,
            ":v}.4b[",
            $quad,
            "]\n",
        )
    };
}

/// The piece with the operands that all have, and others: named ones, then registers.
macro_rules! piece {
    ($words:ident, $activations:ident, $sums:ident, [$($instructions:expr),*], [$($operands:tt)*]) => {
        // SAFETY: the caller vouches for the words; the processor has the instructions.
        unsafe {
            asm!(
                $($instructions,)*
                words = inout(reg) *$words,
                a = inout(vreg) $sums[0],
                b = inout(vreg) $sums[1],
                x = in(vreg) $activations[0],
                y = in(vreg) $activations[1],
                $($operands)*
                out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _,
                out("v21") _, out("v22") _, out("v23") _, out("v24") _, out("v25") _,
                options(readonly, nostack, preserves_flags),
            );
        }
    };
}

pub(super) use {both_rows, load, multiply, piece};
