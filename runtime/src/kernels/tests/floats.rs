//! The float operations.

use super::*;
use std::{format, vec};

/// Row lengths to test; each begins one element into its memory, so that nothing is aligned.
fn lengths() -> impl Iterator<Item = usize> {
    1..=300
}

#[test]
fn dot_products_agree() {
    let mut random = Random(11);
    for length in lengths() {
        for kind in KINDS {
            let (a, b) = (random.values(kind, length + 1), random.values(kind, length + 1));
            let expected = dot(scalar(), &a[1..], &b[1..]);
            let mut lanes = [1.0; 16];
            (scalar().dot_lanes)(&mut lanes, &a[1..], &b[1..]);
            for kernels in others() {
                let what = format!("{} {kind:?} {length}", kernels.name);
                assert_same_bits(&[dot(kernels, &a[1..], &b[1..])], &[expected], &what);
                let mut found = [1.0; 16];
                (kernels.dot_lanes)(&mut found, &a[1..], &b[1..]);
                assert_same_bits(&found, &lanes, &what);
            }
        }
    }
}

#[test]
fn a_dot_product_in_parts_is_the_whole() {
    let mut random = Random(12);
    let (a, b) = (random.values(Kind::Mixed, 300), random.values(Kind::Usual, 300));
    for kernels in available() {
        let mut lanes = [0.0; 16];
        for range in [0..16, 16..144, 144..300] {
            (kernels.dot_lanes)(&mut lanes, &a[range.clone()], &b[range]);
        }
        assert_same_bits(&[fold_sum(&lanes)], &[dot(kernels, &a, &b)], kernels.name);
    }
}

/// A dot product, spelled out.
fn defined_dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (index, lane) in lanes.iter_mut().enumerate() {
            let [a, b] = [a, b].map(|values| values.get(index).copied().unwrap_or(0.0));
            *lane = lanes::Elementwise::fma(a, b, *lane);
        }
    }
    fold_sum(&lanes)
}

/// Positions that rows of scores begin at: of blocks of sixteen, the first, others and the last.
const FIRST: [usize; 4] = [0, 5, 15, 16];

#[test]
fn scores_agree() {
    let mut random = Random(17);
    for length in lengths() {
        for (heads, tokens) in [(0, 3), (1, 0), (1, 1), (2, 2), (3, 8), (4, 9), (2, 45), (5, 21)] {
            let queries = random.values(Kind::Usual, heads * length);
            let keys = random.values(KINDS[length % 5], tokens * length);
            let definition: Vec<f32> = queries
                .chunks_exact(length)
                .flat_map(|query| keys.chunks_exact(length).map(|key| defined_dot(query, key) * 0.3))
                .collect();
            for (kernels, first) in available().flat_map(|kernels| FIRST.map(|first| (kernels, first))) {
                let mut found = vec![f32::NAN; heads * tokens];
                let keys = kept_keys(&keys, length, first);
                (kernels.attention_f32.scores)(&queries, length, &keys, first, 0.3, &mut found);
                let what = format!("{} {length} {heads} {tokens} from {first} on", kernels.name);
                assert_same_bits(&found, &definition, &what);
            }
        }
    }
}

#[test]
fn element_operations_agree() {
    let mut random = Random(13);
    for length in lengths() {
        for kind in KINDS {
            let (a, b) = (random.values(kind, length + 1), random.values(kind, length + 1));
            let run = |kernels: &Kernels| {
                let mut results = vec![];
                let mut x = a.clone();
                (kernels.rms_norm)(&a[1..], &b[1..], 1e-5, &mut x[1..]);
                results.push(x);
                let mut x = a.clone();
                (kernels.rms_norm_in_place)(&mut x[1..], &b[1..], 1e-5);
                assert_same_bits(&x[1..], &results[0][1..], kernels.name);
                let mut x = a.clone();
                (kernels.layer_norm)(&a[1..], &b[1..], &a[1..], 1e-5, &mut x[1..]);
                results.push(x);
                for operation in [kernels.gelu_tanh, kernels.gelu] {
                    let mut x = a.clone();
                    operation(&mut x[1..]);
                    results.push(x);
                }
                let mut x = a.clone();
                (kernels.soft_cap)(&mut x[1..], 30.0);
                results.push(x);
                let mut x = a.clone();
                (kernels.softmax)(&mut x[1..]);
                results.push(x);
                let mut x = a.clone();
                (kernels.silu_multiply)(&mut x[1..], &b[1..]);
                results.push(x);
                let mut x = a.clone();
                (kernels.add)(&mut x[1..], &b[1..]);
                results.push(x);
                if length % 2 == 0 {
                    let mut x = a.clone();
                    (kernels.rotate)(&mut x[1..], &b[1..=length / 2], &b[1 + length / 2..]);
                    results.push(x);
                }
                results
            };
            let expected = run(scalar());
            for kernels in others() {
                for (index, (found, expected)) in run(kernels).iter().zip(&expected).enumerate() {
                    let what = format!("{} operation {index} {kind:?} {length}", kernels.name);
                    assert_same_bits(found, expected, &what);
                }
            }
        }
    }
}

/// Rows of weights in a call: none, as many as share loads, more; all of a length and not.
const ROWS: [&[usize]; 7] = [&[], &[0], &[5], &[3, 4], &[5, 5, 5], &[4, 4, 5, 5], &[1, 2, 3, 4, 5, 5]];

/// The weighted sums of these rows.
fn weighted_sums<S>(of: WeightedSums<S>, weights: &[Vec<f32>], values: &[S], length: usize) -> Vec<f32> {
    let mut outputs = vec![f32::NAN; weights.len() * length];
    let weights: Vec<&[f32]> = weights.iter().map(Vec::as_slice).collect();
    let mut slices: Vec<&mut [f32]> = outputs.chunks_exact_mut(length).collect();
    of(&weights, values, &mut slices);
    outputs
}

#[test]
fn weighted_sums_agree() {
    let mut random = Random(14);
    for length in lengths() {
        let kind = KINDS[length % 5];
        for rows in ROWS {
            let weights: Vec<_> = rows.iter().map(|&tokens| random.values(Kind::Usual, tokens)).collect();
            let values = random.values(kind, 5 * length + 1);
            // The definition, spelled out.
            let of_column = |weights: &[f32], d: usize| {
                let products = weights.iter().zip(values[1..].chunks_exact(length));
                products
                    .fold(0.0_f32, |sum, (weight, values)| lanes::Elementwise::fma(*weight, values[d], sum))
            };
            let definition: Vec<f32> = weights
                .iter()
                .flat_map(|weights| (0..length).map(move |d| (weights, d)))
                .map(|(weights, d)| of_column(weights, d))
                .collect();
            for kernels in available() {
                let found =
                    weighted_sums(kernels.attention_f32.weighted_sums, &weights, &values[1..], length);
                let what = format!("{} {kind:?} {length} {rows:?}", kernels.name);
                assert_same_bits(&found, &definition, &what);
            }
        }
    }
}

/// Binary16 numbers are widened exactly: attention over them is that over the same numbers as f32.
#[test]
fn attention_over_binary16_is_that_over_the_same_numbers() {
    let mut random = Random(23);
    for length in lengths() {
        for (heads, tokens) in [(1, 1), (2, 5), (3, 8), (4, 5), (5, 21)] {
            let queries = random.values(Kind::Usual, heads * length);
            let rows = (0..heads).map(|head| random.values(Kind::Usual, tokens - head % 2));
            let weights: Vec<Vec<f32>> = rows.collect();
            // Without the lowest bit of the exponent: subnormal numbers and large ones, none infinite.
            let halves: Vec<u16> =
                (0..tokens * length + 1).map(|_| (random.bits() >> 48) as u16 & 0xfbff).collect();
            let widened: Vec<f32> = halves.iter().map(|bits| half::f16::from_bits(*bits).to_f32()).collect();
            for kernels in available() {
                let what = format!("{} {length} {heads} {tokens}", kernels.name);
                let (of_f16, of_f32) = (kernels.attention_f16, kernels.attention_f32);
                let [mut found, mut expected] =
                    [vec![f32::NAN; heads * tokens], vec![f32::NAN; heads * tokens]];
                (of_f16.scores)(&queries, length, &halves[1..], 0.3, &mut found);
                (of_f32.scores)(
                    &queries,
                    length,
                    &kept_keys(&widened[1..], length, 0),
                    0,
                    0.3,
                    &mut expected,
                );
                assert_same_bits(&found, &expected, &what);
                let found = weighted_sums(of_f16.weighted_sums, &weights, &halves[1..], length);
                let expected = weighted_sums(of_f32.weighted_sums, &weights, &widened[1..], length);
                assert_same_bits(&found, &expected, &what);
            }
        }
    }
}

#[test]
fn what_is_kept_is_the_nearest_and_finite() {
    let one = 1.0 + 1.0 / 2048.0;
    let numbers: [(f32, f32); 9] = [
        (0.0, 0.0),
        (1.0, 1.0),
        // Halfway between 1 and the next number: the even one.
        (one, 1.0),
        (1.0 + 3.0 / 2048.0, 1.0 + 2.0 / 1024.0),
        (-65504.0, -65504.0),
        (1e9, 65504.0),
        (f32::NEG_INFINITY, -65504.0),
        (1e-9, 0.0),
        (f32::NAN, f32::NAN),
    ];
    let mut random = Random(29);
    for kernels in available() {
        for length in lengths() {
            let mut values = random.values(KINDS[length % 5], length);
            let mut expected: Vec<f32> = values
                .iter()
                .map(|value| half::f16::from_f32(value.clamp(-65504.0, 65504.0)).to_f32())
                .collect();
            let (value, kept) = numbers[length % numbers.len()];
            (values[length / 2], expected[length / 2]) = (value, kept);
            let mut halves = vec![0x7c00; length];
            (kernels.attention_f16.keep)(&values, &mut halves);
            let found: Vec<f32> = halves.iter().map(|bits| half::f16::from_bits(*bits).to_f32()).collect();
            assert_same_bits(&found, &expected, &format!("{} {length}", kernels.name));
        }
    }
}

/// Every lane of a register takes the same path through `exp` as a lone value does.
#[test]
fn exp_agrees_with_the_scalar_function_everywhere() {
    let mut values: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.03).collect();
    values.extend([
        0.0,
        -0.0,
        -87.0,
        -87.000_01,
        88.375,
        88.4,
        1e-40,
        -1e-40,
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ]);
    for kernels in available() {
        for chunk in values.chunks(16) {
            // silu(-x) * (1 + e^x) / -x would divide; the softmax of (0, x <= 0) shows e^x itself: e^0 = 1.
            for &x in chunk.iter().filter(|x| **x <= 0.0) {
                let mut scores = [0.0, x];
                (kernels.softmax)(&mut scores);
                let factor = 1.0 / (1.0 + exp(x));
                assert_same_bits(&scores, &[factor, exp(x) * factor], kernels.name);
            }
            let mut gate: Vec<f32> = chunk.to_vec();
            (kernels.silu_multiply)(&mut gate, &vec![1.0; chunk.len()]);
            let expected: Vec<f32> = chunk.iter().map(|&x| x / (1.0 + exp(-x))).collect();
            assert_same_bits(&gate, &expected, kernels.name);
        }
    }
}

#[test]
fn softmax_survives_its_edges() {
    for kernels in available() {
        (kernels.softmax)(&mut []);
        let mut one = [-1e30];
        (kernels.softmax)(&mut one);
        assert_eq!(one, [1.0]);
        let mut equal = [f32::MAX; 32];
        (kernels.softmax)(&mut equal);
        assert_eq!(equal, [1.0 / 32.0; 32]);
        let mut masked = [f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        (kernels.softmax)(&mut masked);
        assert_eq!(masked, [0.0, 1.0, 0.0]);
    }
}
