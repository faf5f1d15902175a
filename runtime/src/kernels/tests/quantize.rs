//! Quantization of activations.

use super::*;
use std::{format, vec};

fn run(kernels: &Kernels, input: &[f32], step: usize) -> (bool, Vec<i8>, Vec<f32>) {
    let padded = input.len().next_multiple_of(32);
    let mut codes = vec![77; padded];
    let mut scales = vec![f32::NAN; padded.div_ceil(step)];
    let finite = (kernels.quantize_activations)(input, step, &mut codes, &mut scales);
    (finite, codes, scales)
}

#[test]
fn tables_agree_and_follow_the_definition() {
    let mut random = Random(21);
    for length in 1..=300 {
        for step in [32, 64, 128] {
            for kind in KINDS {
                let input = &random.values(kind, length + 1)[1..];
                let (finite, codes, scales) = run(scalar(), input, step);
                assert!(finite);
                for kernels in others() {
                    let what = format!("{} {kind:?} {length} {step}", kernels.name);
                    let (finite, found_codes, found_scales) = run(kernels, input, step);
                    assert!(finite, "{what}");
                    assert_eq!(found_codes, codes, "{what}");
                    assert_same_bits(&found_scales, &scales, &what);
                }
                for (index, x) in input.chunks(step).enumerate() {
                    let peak = x.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
                    let usable = peak >= 2f32.powi(-100);
                    assert_eq!(scales[index], if usable { peak / 127.0 } else { 0.0 });
                    for (x, &code) in x.iter().zip(&codes[index * step..]) {
                        let expected = if usable { (x * (127.0 / peak)).round_ties_even() } else { 0.0 };
                        assert_eq!(f32::from(code), expected, "{x} of {peak}");
                    }
                }
                assert!(codes[length..].iter().all(|&code| code == 0));
            }
        }
    }
}

#[test]
fn ties_go_to_even() {
    let mut input = [0.0; 32];
    input[..7].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]);
    for kernels in available() {
        let (finite, codes, scales) = run(kernels, &input, 32);
        assert!(finite);
        assert_eq!(codes[..8], [127, 0, 2, 2, 0, -2, -2, 0]);
        assert_eq!(scales, [1.0]);
    }
}

#[test]
fn what_is_not_finite_is_refused_wherever_it_stands() {
    for kernels in available() {
        for length in [1, 15, 16, 17, 40, 100, 130] {
            for place in 0..length {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut input = vec![1.0; length];
                    input[place] = bad;
                    assert!(!run(kernels, &input, 64).0, "{} {bad} at {place} of {length}", kernels.name);
                }
            }
        }
    }
}

#[test]
fn the_ends_of_the_range_are_handled() {
    for kernels in available() {
        for tiny in [0.0, -0.0, 1e-45, -1e-40, 2f32.powi(-101)] {
            let (finite, codes, scales) = run(kernels, &[tiny; 33], 32);
            assert!(finite);
            assert_eq!(codes, [0; 64]);
            assert_same_bits(&scales, &[0.0, 0.0], kernels.name);
        }
        for peak in [2f32.powi(-100), 1.0, f32::MAX] {
            let (finite, codes, scales) = run(kernels, &[peak, -peak, 0.0], 32);
            assert!(finite);
            assert_eq!(codes[..4], [127, -127, 0, 0]);
            assert_same_bits(&scales, &[peak / 127.0], kernels.name);
        }
    }
}
