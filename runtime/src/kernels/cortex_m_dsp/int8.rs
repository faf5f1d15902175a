//! 8 bits: SXTB16 widens codes of two lanes of a quad, SMLAD multiplies them.

use super::insn::{smlad, sxtb16, sxtb16_odd};
use super::prepared::Prepared;
use super::walk::{RowWords, Unit, products};
use crate::kernels::Products;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

pub(super) const INT8: Products = products!("int8", Int8, 8);

struct Int8;

impl Unit<8> for Int8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    type Tables = ();

    fn tables(_: &MatrixView<'_>) {}
    #[inline(always)]
    fn prepare(codes: &[i8; UNIT_ELEMS]) -> Prepared {
        Prepared::by_lanes(codes)
    }
    #[inline(always)]
    fn add<const ROWS: usize, const TOKENS: usize>(
        (): &(),
        words: [&RowWords<ROWS>; 8],
        activations: [&Prepared; TOKENS],
        sums: &mut [[i32; TOKENS]; ROWS],
    ) {
        for (quad, word) in words.into_iter().enumerate() {
            let pairs = activations.map(|activations| {
                [activations.pairs[quad / 2][quad % 2 * 2], activations.pairs[quad / 2][quad % 2 * 2 + 1]]
            });
            for (sums, word) in sums.iter_mut().zip(word) {
                let word = u32::from_le_bytes(*word);
                let (even, odd) = (sxtb16(word), sxtb16_odd(word));
                for (sum, pairs) in sums.iter_mut().zip(pairs) {
                    *sum = smlad(odd, pairs[1], smlad(even, pairs[0], *sum));
                }
            }
        }
    }
}
