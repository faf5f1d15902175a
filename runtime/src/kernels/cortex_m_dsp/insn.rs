//! The instructions. Where the processor isn't one of these, in tests, the same in plain Rust.
#![allow(unsafe_code, reason = "processor instructions")]

#[cfg(target_arch = "arm")]
use core::arch::asm;

/// `sum` plus the products of the low and of the high halves, as signed numbers. The sum must fit 32 bits: beyond them the flag Q would be set,
/// which the compiler is told that it isn't.
#[inline(always)]
pub(super) fn smlad(a: u32, b: u32, sum: i32) -> i32 {
    #[cfg(target_arch = "arm")]
    {
        let mut result = sum;
        // SAFETY: reads and writes registers only.
        unsafe {
            asm!("smlad {sum}, {a}, {b}, {sum}", sum = inout(reg) result, a = in(reg) a, b = in(reg) b,
                options(pure, nomem, nostack, preserves_flags));
        }
        result
    }
    #[cfg(not(target_arch = "arm"))]
    {
        let half = |word: u32, high: bool| i32::from((if high { word >> 16 } else { word }) as i16);
        sum + half(a, false) * half(b, false) + half(a, true) * half(b, true)
    }
}

/// Bytes 0 and 2 as signed numbers of 16 bits.
#[inline(always)]
pub(super) fn sxtb16(word: u32) -> u32 {
    #[cfg(target_arch = "arm")]
    {
        let result;
        // SAFETY: reads and writes registers only.
        unsafe {
            asm!("sxtb16 {result}, {word}", result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags));
        }
        result
    }
    #[cfg(not(target_arch = "arm"))]
    {
        let [low, _, high, _] = word.to_le_bytes();
        u32::from(i16::from(low as i8) as u16) | u32::from(i16::from(high as i8) as u16) << 16
    }
}

/// Bytes 1 and 3 as signed numbers of 16 bits.
#[inline(always)]
pub(super) fn sxtb16_odd(word: u32) -> u32 {
    #[cfg(target_arch = "arm")]
    {
        let result;
        // SAFETY: reads and writes registers only.
        unsafe {
            asm!("sxtb16 {result}, {word}, ror #8", result = lateout(reg) result, word = in(reg) word,
                options(pure, nomem, nostack, preserves_flags));
        }
        result
    }
    #[cfg(not(target_arch = "arm"))]
    sxtb16(word >> 8)
}

/// `a * b + sum`, rounded once.
#[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
#[inline(always)]
pub(in crate::kernels) fn fma(a: f32, b: f32, sum: f32) -> f32 {
    let mut result = sum;
    // SAFETY: reads and writes registers only. It may set flags of exceptions, which nothing reads.
    unsafe {
        asm!("vfma.f32 {sum}, {a}, {b}", sum = inout(sreg) result, a = in(sreg) a, b = in(sreg) b,
            options(pure, nomem, nostack));
    }
    result
}

/// The square root, rounded once.
#[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
#[inline(always)]
pub(in crate::kernels) fn square_root(value: f32) -> f32 {
    let result;
    // SAFETY: reads and writes registers only. It may set flags of exceptions, which nothing reads.
    unsafe {
        asm!("vsqrt.f32 {result}, {value}", result = out(sreg) result, value = in(sreg) value,
            options(pure, nomem, nostack));
    }
    result
}

/// The number with these bits of binary16, exactly.
#[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
#[inline(always)]
pub(in crate::kernels) fn widened(bits: u16) -> f32 {
    let mut result = f32::from_bits(bits.into());
    // SAFETY: reads and writes registers only. It may set flags of exceptions, which nothing reads.
    unsafe {
        asm!("vcvtb.f32.f16 {number}, {number}", number = inout(sreg) result, options(pure, nomem, nostack));
    }
    result
}

/// Likewise of two numbers: one move to the registers of floats for both.
#[inline(always)]
pub(super) fn widened_pair([low, high]: [u16; 2]) -> [f32; 2] {
    #[cfg(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf"))]
    {
        let pair = f32::from_bits(u32::from(low) | u32::from(high) << 16);
        let (first, second);
        // SAFETY: reads and writes registers only. It may set flags of exceptions, which nothing reads.
        unsafe {
            asm!("vcvtb.f32.f16 {first}, {pair}", "vcvtt.f32.f16 {pair}, {pair}", first = out(sreg) first,
                pair = inout(sreg) pair => second, options(pure, nomem, nostack));
        }
        [first, second]
    }
    #[cfg(not(all(feature = "cortex-m-dsp", target_arch = "arm", target_abi = "eabihf")))]
    [low, high].map(crate::kernels::scalar::widened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_do_what_their_manual_says() {
        let pair = |low: i16, high: i16| u32::from(low as u16) | u32::from(high as u16) << 16;
        assert_eq!(smlad(pair(3, -5), pair(-7, 127), 1000), 1000 - 21 - 635);
        assert_eq!(smlad(pair(i16::MIN, 0), pair(i16::MAX, 9), -1), -1 - 0x8000 * 0x7fff);
        let word = u32::from_le_bytes([0x80, 0x7f, 0xff, 0x81]);
        assert_eq!(sxtb16(word), pair(-128, -1));
        assert_eq!(sxtb16_odd(word), pair(127, -127));
    }
}
