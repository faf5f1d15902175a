//! Attention over int8 codes: SXTB16 widens two codes of a word, SMLAD multiplies them. In weighted sums a word is the values of four positions.

use super::insn::{smlad, sxtb16, sxtb16_odd};
use crate::kernels::attention_int8::{BLOCK, Block, Int8Sums, KEYS};
use crate::kernels::lanes::{Elementwise, LANES};
use crate::kernels::{AttentionInt8, canonical};

pub(super) const ATTENTION: AttentionInt8 = AttentionInt8 {
    keep_key: canonical::keep_key_int8::<AttentionSums>,
    keep_value: canonical::keep_value_int8::<AttentionSums>,
    scores: canonical::scores_int8::<AttentionSums>,
    weighted_sums: canonical::weighted_sums_int8::<AttentionSums>,
};

struct AttentionSums;

/// Codes of a word.
const WORD: usize = 4;
/// Columns whose sums fit the registers.
const COLUMNS: usize = 4;

impl Int8Sums for AttentionSums {
    type Lanes = [f32; LANES];
    const INTERLEAVED: usize = WORD;
    const TOGETHER: usize = 1;

    #[inline(always)]
    fn scores<const Q: usize, const N: usize>(
        queries: [&[i8]; Q],
        factors: [f32; Q],
        keys: [&[i8]; KEYS],
        key_scales: &[f32; KEYS],
    ) -> [[f32; KEYS]; Q] {
        let mut scores = [[0.0; KEYS]; Q];
        for ((scores, query), factor) in scores.iter_mut().zip(queries).zip(factors) {
            let [mut a, mut b, mut c, mut d] = [0; KEYS];
            let (words, rest) = query.as_chunks::<WORD>();
            let keys = keys.map(|key| &key[..query.len()]);
            let [of_a, of_b, of_c, of_d] = keys.map(|key| &key.as_chunks::<WORD>().0[..words.len()]);
            for (index, query) in words.iter().enumerate() {
                let query = widened(query);
                a = add(query, &of_a[index], a);
                b = add(query, &of_b[index], b);
                c = add(query, &of_c[index], c);
                d = add(query, &of_d[index], d);
            }
            let sums = [a, b, c, d].into_iter().zip(keys).zip(key_scales);
            for (score, ((mut sum, key), scale)) in scores.iter_mut().zip(sums) {
                for (query, key) in rest.iter().zip(&key[words.len() * WORD..]) {
                    sum += i32::from(*query) * i32::from(*key);
                }
                *score = sum as f32 * (scale * factor);
            }
        }
        scores
    }

    #[inline(always)]
    fn columns<const Q: usize>(block: &Block<'_, Q>, outputs: &mut [&mut [f32]; Q]) -> usize {
        let whole = outputs[0].len() / COLUMNS * COLUMNS;
        for ((codes, output), &unit) in block.codes.iter().zip(outputs).zip(&block.units) {
            let mut weights = [[0; 2]; BLOCK / WORD];
            for (pairs, [a, b, c, d]) in weights.iter_mut().zip(codes.as_chunks::<WORD>().0) {
                *pairs = [pair(*a, *c), pair(*b, *d)];
            }
            let weights = &weights[..block.positions.div_ceil(WORD)];
            let quad = WORD * output.len();
            for (tile, output) in output.as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
                let [mut a, mut b, mut c, mut d] = [0; COLUMNS];
                let values = block.values.get(tile * WORD * COLUMNS..).unwrap_or_default();
                for (&weights, values) in weights.iter().zip(values.chunks(quad)) {
                    let Some([of_a, of_b, of_c, of_d]) = values.as_chunks().0.first_chunk() else { break };
                    a = add(weights, of_a, a);
                    b = add(weights, of_b, b);
                    c = add(weights, of_c, c);
                    d = add(weights, of_d, d);
                }
                for (output, sum) in output.iter_mut().zip([a, b, c, d]) {
                    *output = (sum as f32).fma(unit, *output);
                }
            }
        }
        whole
    }
}

/// Codes 0 and 2 of a word, and 1 and 3, in 16 bits each.
#[inline(always)]
fn widened(codes: &[i8; WORD]) -> [u32; 2] {
    let word = u32::from_le_bytes(codes.map(|code| code as u8));
    [sxtb16(word), sxtb16_odd(word)]
}

/// Two numbers as halves of a word, the first in the low one.
#[inline(always)]
fn pair(low: i16, high: i16) -> u32 {
    u32::from(low as u16) | u32::from(high as u16) << 16
}

/// Adds the products of a word's codes and numbers that are widened.
#[inline(always)]
fn add(numbers: [u32; 2], codes: &[i8; WORD], sum: i32) -> i32 {
    let [even, odd] = widened(codes);
    smlad(odd, numbers[1], smlad(even, numbers[0], sum))
}
