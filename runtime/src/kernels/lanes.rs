//! Sixteen `f32` lanes: what the canonical operations are written in.
//!
//! A backend implements these two traits for its registers (`[f32; 16]`, two of AVX2, four of NEON), each method being one
//! IEEE 754 operation a lane, so that the operations of [`super::canonical`] give the same bits on all of them.
//!
//! Every method is `#[inline(always)]` and so are the operations over them: a backend instantiates them inside its
//! `#[target_feature]` functions, and only there may the intrinsics become instructions.

/// Lanes of a reduction.
pub(super) const LANES: usize = 16;
/// Sums that [`Lanes::fold_sums`] folds side by side.
pub(super) const FOLDED_TOGETHER: usize = 8;

/// Operations on each lane by itself. `f32` is one lane.
pub(super) trait Elementwise: Copy {
    /// The same value in every lane.
    fn splat(value: f32) -> Self;
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// `self` with the other sign.
    fn negate(self) -> Self;
    /// `self > other ? self : other`: zeros of either sign count as equal, and a NaN on either side gives `other`.
    fn larger(self, other: Self) -> Self;
    /// `self < other ? self : other`, likewise.
    fn smaller(self, other: Self) -> Self;
    /// `value < bound ? +0 : self`.
    fn zero_where_less(self, value: Self, bound: Self) -> Self;
    /// 2 to the power `n`, where `self` is `1.5 * 2^23 + n` with an integer `n` in -126..=127: `n` stands in the low bits.
    fn power_of_two(self) -> Self;
}

/// Sixteen lanes in registers.
pub(super) trait Lanes: Elementwise {
    /// All of the lanes, or half of them.
    type Part: Part;
    /// Values of this type that fit the registers as sums, beside the operands of one more addition to each.
    const SUMS: usize;
    /// Weighted sums that share the loads of values, at most [`super::MOST_TOGETHER`]: with more, too few columns at once would fit the registers
    /// to keep the pipeline full.
    const ROWS: usize;
    /// Whether lanes are in registers, and not in memory: then code for a head or a step of a usual length pays, which is unrolled and takes
    /// tens of kilobytes.
    const IN_REGISTERS: bool = true;

    /// Sixteen values.
    fn load(values: &[f32; LANES]) -> Self;
    /// Sixteen values from binary16, exactly.
    fn load_f16(values: &[u16; LANES]) -> Self;
    /// Writes sixteen values.
    fn store(self, values: &mut [f32; LANES]);
    /// The larger of the bits without sign, as integers: the larger magnitude, and NaN above infinity above all else. `self` has no sign.
    fn larger_magnitude(self, other: Self) -> Self;
    /// Rounds to integers, ties to even. Every lane is above -127.5 and below 127.5.
    fn to_codes(self) -> [i8; LANES];
    /// Likewise of lanes above -32767.5 and below 32767.5.
    fn to_words(self) -> [i16; LANES];
    /// Rounds to binary16, ties to even. No number's magnitude is above 65504, and a NaN stays one.
    fn to_f16(self) -> [u16; LANES];

    /// The largest of lanes without sign, by [`Lanes::larger_magnitude`].
    #[inline(always)]
    fn fold_magnitude(self) -> f32 {
        fold(self, larger_bits)
    }

    /// The largest of all lanes, folded in halves by [`Elementwise::larger`].
    #[inline(always)]
    fn fold_larger(self) -> f32 {
        fold(self, Elementwise::larger)
    }

    /// `a / b` and `b / a`.
    #[inline(always)]
    fn quotients(a: f32, b: f32) -> [f32; 2] {
        [a / b, b / a]
    }

    /// The sum of all lanes, folded in halves.
    #[inline(always)]
    fn fold_sum(self) -> f32 {
        fold(self, Elementwise::add)
    }

    /// [`Lanes::fold_sum`] of eight: folded side by side, they take fewer instructions.
    #[inline(always)]
    fn fold_sums(sums: [Self; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
        sums.map(Self::fold_sum)
    }

    /// Up to sixteen values, then `fill`.
    #[inline(always)]
    fn load_partial(values: &[f32], fill: f32) -> Self {
        let mut padded = [fill; LANES];
        padded[..values.len()].copy_from_slice(values);
        Self::load(&padded)
    }

    /// Writes the first lanes: as many as `values` has.
    #[inline(always)]
    fn store_partial(self, values: &mut [f32]) {
        let mut padded = [0.0; LANES];
        self.store(&mut padded);
        values.copy_from_slice(&padded[..values.len()]);
    }
}

/// All of the sixteen lanes, or half of them: as many as leave registers for several sums and their operands.
pub(super) trait Part: Copy {
    /// What is left of sixteen lanes after the first folds.
    type Folded: Copy;
    /// How many: 16, or 8: lanes `part * LANES ..` are a part.
    const LANES: usize;
    /// +0 in each.
    fn zero() -> Self;
    /// A part of sixteen values.
    fn load(values: &[f32; LANES], part: usize) -> Self;
    /// A part of sixteen values from binary16, exactly.
    fn load_f16(values: &[u16; LANES], part: usize) -> Self;
    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// The first folds of sixteen lanes in two parts. Of one part, `second` is of no meaning.
    fn folded(self, second: Self) -> Self::Folded;
    /// The other folds, of eight sums side by side.
    fn fold_sums(sums: [Self::Folded; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER];
}

/// All lanes as one part.
#[derive(Clone, Copy)]
pub(super) struct Whole<L>(L);

impl<L: Lanes> Part for Whole<L> {
    type Folded = L;
    const LANES: usize = LANES;

    #[inline(always)]
    fn zero() -> Self {
        Whole(L::splat(0.0))
    }
    #[inline(always)]
    fn load(values: &[f32; LANES], _part: usize) -> Self {
        Whole(L::load(values))
    }
    #[inline(always)]
    fn load_f16(values: &[u16; LANES], _part: usize) -> Self {
        Whole(L::load_f16(values))
    }
    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        Whole(self.0.fma(factor.0, addend.0))
    }
    #[inline(always)]
    fn folded(self, _second: Self) -> L {
        self.0
    }
    #[inline(always)]
    fn fold_sums(sums: [L; FOLDED_TOGETHER]) -> [f32; FOLDED_TOGETHER] {
        L::fold_sums(sums)
    }
}

/// A number as it lies in memory.
pub(super) trait Stored: Copy {
    /// 0.
    const ZERO: Self;
    /// Sixteen of them.
    fn load<L: Lanes>(values: &[Self; LANES]) -> L;

    /// Up to sixteen, then zeros.
    #[inline(always)]
    fn load_partial<L: Lanes>(values: &[Self]) -> L {
        let mut padded = [Self::ZERO; LANES];
        padded[..values.len()].copy_from_slice(values);
        Self::load(&padded)
    }
}

impl Stored for f32 {
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn load<L: Lanes>(values: &[f32; LANES]) -> L {
        L::load(values)
    }
}

/// The bits of a binary16 number.
impl Stored for u16 {
    const ZERO: u16 = 0;
    #[inline(always)]
    fn load<L: Lanes>(values: &[u16; LANES]) -> L {
        L::load_f16(values)
    }
}

/// Folds lanes in halves: 16 to 8, 4, 2, 1.
#[inline(always)]
pub(super) fn fold<L: Lanes>(lanes: L, combine: fn(f32, f32) -> f32) -> f32 {
    let mut values = [0.0; LANES];
    lanes.store(&mut values);
    for width in [8, 4, 2, 1] {
        let (low, high) = values.split_at_mut(width);
        for (low, high) in low.iter_mut().zip(high) {
            *low = combine(*low, *high);
        }
    }
    values[0]
}

/// The larger by bits, of values without sign.
#[inline(always)]
fn larger_bits(a: f32, b: f32) -> f32 {
    f32::from_bits(a.to_bits().max(b.to_bits()))
}
