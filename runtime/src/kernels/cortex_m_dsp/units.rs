//! Products of a few rows and tokens along some columns, in assembly: four sums, a dozen registers, nothing spilled, whatever the compiler is
//! told to optimize for. Where the processor isn't one of these, in tests, the same in plain Rust.
//!
//! `TOKENS` is 1, and the sums are those of four rows, or 2, and they are those of two rows, of each for the first and the second token. `block`
//! says which rows of a tile: `4 / TOKENS * block` and those after it. Between a load and the use of its result stands another load.
#![allow(unsafe_code, reason = "assembly")]

use super::prepared::{Prepared, UNIT_RUNS};
use super::walk::{STEP_UNITS, SUMS, Word};

#[cfg(target_arch = "arm")]
use core::arch::asm;

/// Pairs of levels by byte, as signed numbers of 16 bits, that of the first quad in the low half.
pub(super) type Table = [u32; 256];
/// Likewise two pairs.
pub(super) type WideTable = [[u32; 2]; 256];

/// Panics where the rows aren't in a tile, or there are fewer activations than columns.
#[inline(always)]
fn check<const TOKENS: usize>(block: usize, first_run: usize, runs: usize) {
    const { assert!(TOKENS == 1 || TOKENS == 2) };
    assert!(block < 2 * TOKENS && first_run + runs <= STEP_UNITS * UNIT_RUNS, "beyond a tile or a step");
}

/// One loop over words for the rows of a block: its lines, and what is special in it.
///
/// `w` is the block's rows of the word, `p` the activations, `a`, `b`, `t`, `u` are free.
#[cfg(target_arch = "arm")]
macro_rules! along_words {
    ($words:ident, $block:ident, $activations:ident, $run:expr, $sums:ident, $tokens:ident: [$($line:expr),*] $($operands:tt)*) => {{
        let rows = &$words.as_flattened()[SUMS / $tokens * $block..];
        let [mut s0, mut s1, mut s2, mut s3] = *$sums;
        // SAFETY: reads the block's rows of each word, words being 32 bytes apart, and as many activations as `check` found to be there, those of a
        // second token behind those of the first. A byte indexes all of a table.
        unsafe {
            asm!("2:", $($line,)* "add {w}, {w}, #32", "cmp {w}, {end}", "bne 2b",
                w = inout(reg) rows.as_ptr() => _, end = in(reg) rows.as_ptr().wrapping_add(8 * $words.len()),
                p = inout(reg) $activations.as_ptr().cast::<super::prepared::Run>().wrapping_add($run) => _,
                a = out(reg) _, t = out(reg) _, u = out(reg) _,
                s0 = inout(reg) s0, s1 = inout(reg) s1, s2 = inout(reg) s2, s3 = inout(reg) s3
                $($operands)*, options(pure, readonly, nostack));
        }
        *$sums = [s0, s1, s2, s3];
    }};
}

/// A lane of four rows for one token, by a table; the numbers are where its bytes are.
#[cfg(target_arch = "arm")]
macro_rules! looked_up_by_one {
    ($r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
        concat!(
            "ldr {a}, [{p}], #4\n",
            "ldrb {t}, [{w}, #",
            $r0,
            "]\n",
            "ldrb {u}, [{w}, #",
            $r1,
            "]\n",
            "ldr {t}, [{table}, {t}, lsl #2]\n",
            "ldr {u}, [{table}, {u}, lsl #2]\n",
            "smlad {s0}, {t}, {a}, {s0}\n",
            "ldrb {t}, [{w}, #",
            $r2,
            "]\n",
            "smlad {s1}, {u}, {a}, {s1}\n",
            "ldrb {u}, [{w}, #",
            $r3,
            "]\n",
            "ldr {t}, [{table}, {t}, lsl #2]\n",
            "ldr {u}, [{table}, {u}, lsl #2]\n",
            "smlad {s2}, {t}, {a}, {s2}\n",
            "smlad {s3}, {u}, {a}, {s3}\n",
        )
    };
}

/// A lane of two rows for two tokens, likewise.
#[cfg(target_arch = "arm")]
macro_rules! looked_up_by_two {
    ($r0:literal, $r1:literal) => {
        concat!(
            "ldrb {t}, [{w}, #",
            $r0,
            "]\n",
            "ldrb {u}, [{w}, #",
            $r1,
            "]\n",
            "ldr {a}, [{p}]\n",
            "ldr {t}, [{table}, {t}, lsl #2]\n",
            "ldr {u}, [{table}, {u}, lsl #2]\n",
            "smlad {s0}, {t}, {a}, {s0}\n",
            "smlad {s2}, {u}, {a}, {s2}\n",
            "ldr {a}, [{p}, #{token}]\n",
            "add {p}, {p}, #4\n",
            "smlad {s1}, {t}, {a}, {s1}\n",
            "smlad {s3}, {u}, {a}, {s3}\n",
        )
    };
}

/// Adds the products of words whose bytes index a table, eight columns each; the activations are those from run `first_run` on.
#[inline(always)]
pub(super) fn add_looked_up<const TOKENS: usize>(
    table: &Table,
    words: &[Word],
    block: usize,
    activations: &[Prepared; TOKENS],
    first_run: usize,
    sums: &mut [i32; SUMS],
) {
    check::<TOKENS>(block, first_run, words.len());
    if words.is_empty() {
        return;
    }
    #[cfg(target_arch = "arm")]
    if TOKENS == 1 {
        along_words!(words, block, activations, first_run, sums, TOKENS:
            [looked_up_by_one!(0, 4, 8, 12), looked_up_by_one!(1, 5, 9, 13), looked_up_by_one!(2, 6, 10, 14), looked_up_by_one!(3, 7, 11, 15)],
            table = in(reg) table.as_ptr());
    } else {
        along_words!(words, block, activations, first_run, sums, TOKENS:
            [looked_up_by_two!(0, 4), looked_up_by_two!(1, 5), looked_up_by_two!(2, 6), looked_up_by_two!(3, 7)],
            table = in(reg) table.as_ptr(), token = const size_of::<Prepared>());
    }
    #[cfg(not(target_arch = "arm"))]
    each_row::<TOKENS>(words, block, sums, |index, word, token, sum| {
        let run = activations[token].runs[first_run + index];
        word.into_iter()
            .zip(run)
            .fold(sum, |sum, (byte, pair)| super::insn::smlad(table[usize::from(byte)], pair, sum))
    });
}

/// A lane of four rows by a table of two pairs; the activations of the second lie a run behind those of the first.
#[cfg(target_arch = "arm")]
macro_rules! looked_up_twice {
    ($a:literal, $b:literal, $r0:literal, $r1:literal, $r2:literal, $r3:literal) => {
        concat!(
            "ldr {a}, [{p}, #",
            $a,
            "]\n",
            "ldr {b}, [{p}, #",
            $b,
            "]\n",
            looked_up_twice!($r0, "{s0}"),
            looked_up_twice!($r1, "{s1}"),
            looked_up_twice!($r2, "{s2}"),
            looked_up_twice!($r3, "{s3}"),
        )
    };
    ($row:literal, $sum:literal) => {
        concat!(
            "ldrb {t}, [{w}, #",
            $row,
            "]\n",
            "add {t}, {table}, {t}, lsl #3\n",
            "ldrd {u}, {t}, [{t}]\n",
            "smlad ",
            $sum,
            ", {u}, {a}, ",
            $sum,
            "\n",
            "smlad ",
            $sum,
            ", {t}, {b}, ",
            $sum,
            "\n",
        )
    };
}

/// Adds the products of words whose bytes index a table of two pairs, sixteen columns each. For one token.
#[inline(always)]
pub(super) fn add_looked_up_twice(
    table: &WideTable,
    words: &[Word],
    block: usize,
    activations: &[Prepared; 1],
    first_run: usize,
    sums: &mut [i32; SUMS],
) {
    check::<1>(block, first_run, 2 * words.len());
    if words.is_empty() {
        return;
    }
    #[cfg(target_arch = "arm")]
    {
        const ONE: usize = 1;
        along_words!(words, block, activations, first_run, sums, ONE:
            [looked_up_twice!(0, 16, 0, 4, 8, 12), looked_up_twice!(4, 20, 1, 5, 9, 13), looked_up_twice!(8, 24, 2, 6, 10, 14),
             looked_up_twice!(12, 28, 3, 7, 11, 15), "add {p}, {p}, #32"],
            table = in(reg) table.as_ptr(), b = out(reg) _);
    }
    #[cfg(not(target_arch = "arm"))]
    each_row::<1>(words, block, sums, |index, word, token, mut sum| {
        let runs = &activations[token].runs[first_run + 2 * index..][..2];
        for (lane, byte) in word.into_iter().enumerate() {
            let [low, high] = table[usize::from(byte)];
            sum = super::insn::smlad(high, runs[1][lane], super::insn::smlad(low, runs[0][lane], sum));
        }
        sum
    });
}

/// A row of a quad for one token.
#[cfg(target_arch = "arm")]
macro_rules! widened_by_one {
    ($row:literal, $sum:literal) => {
        concat!(
            "ldr {t}, [{w}, #",
            $row,
            "]\n",
            "sxtb16 {u}, {t}\n",
            "sxtb16 {t}, {t}, ror #8\n",
            "smlad ",
            $sum,
            ", {u}, {a}, ",
            $sum,
            "\n",
            "smlad ",
            $sum,
            ", {t}, {b}, ",
            $sum,
            "\n",
        )
    };
}

/// Two rows of a quad for two tokens: `$rotated` lanes.
#[cfg(target_arch = "arm")]
macro_rules! widened_by_two {
    ($rotated:literal) => {
        concat!(
            "ldr {t}, [{w}]\n",
            "ldr {u}, [{w}, #4]\n",
            "ldr {a}, [{p}]\n",
            "sxtb16 {t}, {t}",
            $rotated,
            "\n",
            "sxtb16 {u}, {u}",
            $rotated,
            "\n",
            "smlad {s0}, {t}, {a}, {s0}\n",
            "smlad {s2}, {u}, {a}, {s2}\n",
            "ldr {a}, [{p}, #{token}]\n",
            "add {p}, {p}, #4\n",
            "smlad {s1}, {t}, {a}, {s1}\n",
            "smlad {s3}, {u}, {a}, {s3}\n",
        )
    };
}

/// Adds the products of words of 8 bits a code, a quad each; the activations are those from run `first_run` on, half a run a quad.
#[inline(always)]
pub(super) fn add_widened<const TOKENS: usize>(
    words: &[Word],
    block: usize,
    activations: &[Prepared; TOKENS],
    first_run: usize,
    sums: &mut [i32; SUMS],
) {
    check::<TOKENS>(block, first_run, words.len().div_ceil(2));
    if words.is_empty() {
        return;
    }
    #[cfg(target_arch = "arm")]
    if TOKENS == 1 {
        along_words!(words, block, activations, first_run, sums, TOKENS:
            ["ldrd {a}, {b}, [{p}], #8", widened_by_one!(0, "{s0}"), widened_by_one!(4, "{s1}"), widened_by_one!(8, "{s2}"),
             widened_by_one!(12, "{s3}")],
            b = out(reg) _);
    } else {
        along_words!(words, block, activations, first_run, sums, TOKENS:
            [widened_by_two!(""), widened_by_two!(", ror #8")],
            token = const size_of::<Prepared>());
    }
    #[cfg(not(target_arch = "arm"))]
    each_row::<TOKENS>(words, block, sums, |index, word, token, sum| {
        let run = activations[token].runs[first_run + index / 2];
        let word = u32::from_le_bytes(word);
        let (even, odd) = (super::insn::sxtb16(word), super::insn::sxtb16_odd(word));
        let place = index % 2 * 2;
        super::insn::smlad(odd, run[place + 1], super::insn::smlad(even, run[place], sum))
    });
}

/// Calls `add` for each word and each sum, with the word's index, that of the row, the token, and the sum.
#[cfg(not(target_arch = "arm"))]
fn each_row<const TOKENS: usize>(
    words: &[Word],
    block: usize,
    sums: &mut [i32; SUMS],
    add: impl Fn(usize, [u8; 4], usize, i32) -> i32,
) {
    for (index, word) in words.iter().enumerate() {
        for (place, sum) in sums.iter_mut().enumerate() {
            let (row, token) = (place / TOKENS, place % TOKENS);
            *sum = add(index, word[SUMS / TOKENS * block + row], token, *sum);
        }
    }
}
