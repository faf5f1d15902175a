//! Every table against `scalar`, bit for bit, and `scalar` against f64 with derived bounds.

mod accuracy;
mod attention_int8;
mod floats;
mod products;
mod quantize;

use super::*;
use crate::self_check::Random;
use std::vec::Vec;

impl Random {
    /// From `lowest..=highest`.
    fn code(&mut self, lowest: i8, highest: i8) -> i8 {
        let span = (i64::from(highest) - i64::from(lowest) + 1) as u64;
        (i64::from(lowest) + ((self.bits() >> 33) % span) as i64) as i8
    }

    fn values(&mut self, kind: Kind, length: usize) -> Vec<f32> {
        (0..length)
            .map(|i| {
                let x = self.unit();
                match kind {
                    Kind::Usual => 4.0 * x,
                    Kind::Denormal => x * 1e-39,
                    Kind::Huge => x * 3e38,
                    Kind::Zeros => [0.0, -0.0][i % 2],
                    Kind::Mixed => {
                        x * [0.0, 1e-30, 1.0, -1e3, 90.0, 1e-40, -0.0][(self.bits() >> 40) as usize % 7]
                    }
                }
            })
            .collect()
    }
}

/// What test vectors are made of.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Usual,
    Denormal,
    Huge,
    Zeros,
    Mixed,
}

const KINDS: [Kind; 5] = [Kind::Usual, Kind::Denormal, Kind::Huge, Kind::Zeros, Kind::Mixed];

/// Equal bits, all NaN counting as one: docs/numerics.md leaves their sign and payload open.
#[track_caller]
fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            f.to_bits() == e.to_bits() || (f.is_nan() && e.is_nan()),
            "{what}: element {i} is {f:e} ({:#010x}), expected {e:e} ({:#010x})",
            f.to_bits(),
            e.to_bits()
        );
    }
}

fn scalar() -> &'static Kernels {
    available().next().expect("scalar")
}

/// A lone dot product of the table: the score of one key.
fn dot(kernels: &Kernels, a: &[f32], b: &[f32]) -> f32 {
    let mut score = [f32::NAN];
    (kernels.attention_f32.scores)(a, a.len(), &kept_keys(b, b.len(), 0), 0, 1.0, &mut score);
    score[0]
}

/// Rows of `length` as the keys of positions from `first` on, among numbers that are none.
fn kept_keys(rows: &[f32], length: usize, first: usize) -> Vec<f32> {
    let positions = (first + rows.len() / length).next_multiple_of(POSITIONS_TOGETHER);
    let mut keys = std::vec![f32::NAN; positions * length];
    for (row, values) in rows.chunks_exact(length).enumerate() {
        keep_key_f32(values, first + row, &mut keys);
    }
    keys
}

fn others() -> impl Iterator<Item = &'static Kernels> {
    available().skip(1)
}

#[test]
fn tables_are_found_by_name_slowest_first() {
    assert_eq!(scalar().name, "scalar");
    for kernels in available() {
        assert!(core::ptr::eq(by_name(kernels.name).expect(kernels.name), kernels));
        std::eprintln!("runs {}", kernels.name);
    }
    assert_eq!(best().name, available().last().expect("scalar").name);
    assert!(by_name("").is_none());
}

/// On the machines that have them, so that a broken `detect` doesn't pass as a lack of backends.
#[test]
#[cfg(feature = "std")]
fn detection_agrees_with_the_processor() {
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        by_name("avx2").is_some(),
        std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("fma")
            && std::is_x86_feature_detected!("f16c")
    );
    #[cfg(target_arch = "x86_64")]
    assert_eq!(
        by_name("avx512").is_some(),
        by_name("avx2").is_some()
            && std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512vnni")
    );
    #[cfg(target_arch = "aarch64")]
    {
        assert!(by_name("neon").is_some());
        let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
        assert_eq!(by_name("neon_dotprod").is_some(), dotprod);
        let i8mm = std::arch::is_aarch64_feature_detected!("i8mm");
        assert_eq!(by_name("neon_i8mm").is_some(), dotprod && i8mm);
    }
}
