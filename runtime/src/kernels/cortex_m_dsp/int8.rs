//! 8 bits: SXTB16 widens codes of two lanes of a quad, SMLAD multiplies them.

use super::prepared::{Prepared, UNIT_RUNS, by_lanes};
use super::units::add_widened;
use super::walk::{SUMS, Unit, Word, products};
use crate::kernels::Products;
use rescomp_formats::encodings::{CodeWidth, UNIT_ELEMS};
use rescomp_formats::matrix::MatrixView;

pub(super) const INT8: Products = products!("int8", Int8, 8, true);

struct Int8;

impl Unit<8> for Int8 {
    const WIDTH: CodeWidth = CodeWidth::Int8;
    type Tables = ();

    fn tables(_: &MatrixView<'_>) {}
    fn prepare(codes: &[[i8; UNIT_ELEMS]], prepared: &mut Prepared) {
        by_lanes(codes, prepared);
    }
    #[inline(always)]
    fn add<const TOKENS: usize>(
        (): &(),
        units: &[[Word; 8]],
        block: usize,
        activations: &[Prepared; TOKENS],
        first: usize,
        sums: &mut [i32; SUMS],
    ) {
        add_widened::<TOKENS>(units.as_flattened(), block, activations, first * UNIT_RUNS, sums);
    }
}
