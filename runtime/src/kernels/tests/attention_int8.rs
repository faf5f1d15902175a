//! Attention over int8 codes.

use super::*;
use std::{format, vec};

/// Lengths of heads: those with code of their own, others of whole registers, and what is left of one.
const HEADS: [usize; 13] = [2, 8, 16, 20, 32, 48, 64, 80, 96, 128, 256, 258, 1024];

/// What heads are made of.
#[derive(Clone, Copy, Debug)]
enum Head {
    /// Any numbers.
    Kind(Kind),
    /// Every code is 127.
    Largest,
    /// 127 and -127 in turn.
    Alternating,
    /// All but one code is small.
    OnePeak,
    /// Below the smallest peak.
    Tiny,
    NotFinite(f32),
}

const MADE_OF: [Head; 10] = [
    Head::Kind(Kind::Usual),
    Head::Largest,
    Head::Kind(Kind::Mixed),
    Head::Alternating,
    Head::OnePeak,
    Head::Kind(Kind::Huge),
    Head::Tiny,
    Head::Kind(Kind::Denormal),
    Head::Kind(Kind::Zeros),
    Head::Kind(Kind::Usual),
];

fn head(random: &mut Random, of: Head, length: usize) -> Vec<f32> {
    match of {
        Head::Kind(kind) => random.values(kind, length),
        Head::Largest => vec![3.0; length],
        Head::Alternating => (0..length).map(|i| [3.0, -3.0][i % 2]).collect(),
        Head::OnePeak => {
            let mut values = random.values(Kind::Usual, length);
            values[length / 3] = -400.0;
            values
        }
        Head::Tiny => vec![2f32.powi(-101); length],
        Head::NotFinite(number) => {
            let mut values = random.values(Kind::Usual, length);
            values[length / 2] = number;
            values
        }
    }
}

/// The codes and the scale of a head, by the definition.
fn quantized(values: &[f32]) -> (Vec<i8>, f32) {
    let peak = f32::from_bits(values.iter().map(|value| value.abs().to_bits()).max().unwrap_or(0));
    if !peak.is_finite() {
        return (vec![0; values.len()], f32::NAN);
    }
    if peak < 2f32.powi(-100) {
        return (vec![0; values.len()], 0.0);
    }
    let inverse = 127.0 / peak;
    (values.iter().map(|value| (value * inverse).round_ties_even() as i8).collect(), peak / 127.0)
}

fn score(query: &[f32], key: &[i8], key_scale: f32, scale: f32) -> f32 {
    let (query, query_scale) = quantized(query);
    let sum: i32 = query.iter().zip(key).map(|(query, key)| i32::from(*query) * i32::from(*key)).sum();
    sum as f32 * (key_scale * (query_scale * scale))
}

/// The weighted sum of values (rows of codes) from position `first` on, by the definition.
fn weighted_sum(weights: &[f32], first: usize, values: &[Vec<i8>], scales: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0_f32; values[0].len()];
    let mut at = first;
    while at < first + weights.len() {
        let end = (first + weights.len()).min((at / 64 + 1) * 64);
        let products: Vec<f32> = (at..end).map(|t| weights[t - first] * scales[t]).collect();
        let peak = f32::from_bits(products.iter().map(|product| product.abs().to_bits()).max().unwrap_or(0));
        let (unit, inverse) = match peak {
            _ if !peak.is_finite() => (f32::NAN, 0.0),
            _ if peak < 2f32.powi(-100) => (0.0, 0.0),
            _ => (peak / 16383.0, 16383.0 / peak),
        };
        for (d, sum) in sums.iter_mut().enumerate() {
            let codes = products.iter().map(|product| (product * inverse).round_ties_even() as i32);
            let exact: i32 =
                codes.zip(&values[at..end]).map(|(code, value)| code * i32::from(value[d])).sum();
            *sum = lanes::Elementwise::fma(exact as f32, unit, *sum);
        }
        at = end;
    }
    sums
}

#[test]
fn kept_keys_follow_the_definition() {
    let mut random = Random(31);
    let not_finite = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(Head::NotFinite);
    for length in (1..=130).chain(HEADS) {
        for of in MADE_OF.into_iter().chain(not_finite) {
            let values = head(&mut random, of, length);
            let (codes, scale) = quantized(&values);
            for kernels in available() {
                let mut found = vec![77; length];
                let what = format!("{} {of:?} {length}", kernels.name);
                let found_scale = (kernels.attention_int8.keep_key)(&values, &mut found);
                assert_same_bits(&[found_scale], &[scale], &what);
                assert_eq!(found, codes, "{what}");
            }
        }
    }
}

#[test]
fn scores_follow_the_definition() {
    let mut random = Random(32);
    for (index, length) in HEADS.into_iter().enumerate() {
        for count in 0..=if length > 128 { 10 } else { 130 } {
            let queries = 1 + (count + index) % 5;
            let of = |random: &mut Random, index: usize| head(random, MADE_OF[index % MADE_OF.len()], length);
            let values: Vec<f32> = (0..queries).flat_map(|query| of(&mut random, query + count)).collect();
            let (mut keys, mut scales) = (vec![], vec![]);
            for key in 0..count {
                let key = of(&mut random, if count % 3 == 0 { 1 } else { key });
                let (codes, scale) = quantized(&key);
                keys.extend(codes);
                scales.push(scale);
            }
            // Beyond the keys that are asked for.
            keys.extend([127; 3]);
            scales.extend([f32::NAN; 2]);
            let definition: Vec<f32> = values
                .chunks_exact(length)
                .flat_map(|query| {
                    let keys = keys.chunks_exact(length).zip(&scales).take(count);
                    keys.map(move |(key, scale)| score(query, key, *scale, 0.3)).collect::<Vec<f32>>()
                })
                .collect();
            for kernels in available() {
                let mut found = vec![f32::INFINITY; queries * count];
                (kernels.attention_int8.scores)(&values, length, &keys, &scales, 0.3, &mut found);
                assert_same_bits(
                    &found,
                    &definition,
                    &format!("{} {length} {count} {queries}", kernels.name),
                );
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_scores() {
    let mut random = Random(33);
    for length in HEADS {
        let mut queries = random.values(Kind::Usual, 3 * length);
        let keys: Vec<i8> = (0..6 * length).map(|_| random.code(-127, 127)).collect();
        let scales = [0.1, 0.2, f32::NAN, 0.3, 0.4, 0.5];
        queries[2 * length - 1] = f32::NEG_INFINITY;
        for kernels in available() {
            let mut found = vec![0.0; 18];
            (kernels.attention_int8.scores)(&queries, length, &keys, &scales, 0.3, &mut found);
            for (index, found) in found.iter().enumerate() {
                let expected = index / 6 == 1 || index % 6 == 2;
                assert_eq!(found.is_nan(), expected, "{} {length} {index}", kernels.name);
            }
        }
    }
}

/// Values of one head, as each table keeps them, in memory that held other bytes.
struct Kept {
    codes: Vec<Vec<i8>>,
    scales: Vec<f32>,
    by_table: Vec<(&'static Kernels, Vec<i8>)>,
}

fn keep(random: &mut Random, positions: usize, length: usize, of: impl Fn(usize) -> Head) -> Kept {
    let elems = positions.next_multiple_of(4) * length;
    let garbage: Vec<i8> = (0..elems).map(|_| random.code(-128, 127)).collect();
    let mut by_table: Vec<_> = available().map(|kernels| (kernels, garbage.clone())).collect();
    let (mut codes, mut scales) = (vec![], vec![]);
    for position in 0..positions {
        let values = head(random, of(position), length);
        let (own, scale) = quantized(&values);
        for (kernels, kept) in &mut by_table {
            let found = (kernels.attention_int8.keep_value)(&values, position, kept);
            assert_same_bits(&[found], &[scale], &format!("{} {length} {position}", kernels.name));
        }
        codes.push(own);
        scales.push(scale);
    }
    Kept { codes, scales, by_table }
}

/// Runs every table and compares it with the definition.
fn compare(kept: &Kept, rows: &[Vec<f32>], first: usize, what: &str) {
    let length = kept.codes[0].len();
    let definition: Vec<f32> =
        rows.iter().flat_map(|row| weighted_sum(row, first, &kept.codes, &kept.scales)).collect();
    for (kernels, values) in &kept.by_table {
        let mut found = vec![f32::INFINITY; rows.len() * length];
        let weights: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [f32]> = found.chunks_exact_mut(length).collect();
        (kernels.attention_int8.weighted_sums)(&weights, first, values, &kept.scales, &mut outputs);
        assert_same_bits(&found, &definition, &format!("{} {what}", kernels.name));
    }
}

/// Softmax's weights, or any of both signs.
fn weights(random: &mut Random, count: usize, sharpness: f32) -> Vec<f32> {
    let mut scores: Vec<f32> = (0..count).map(|_| sharpness * random.unit()).collect();
    if !count.is_multiple_of(5) {
        (scalar().softmax)(&mut scores);
    }
    scores
}

#[test]
fn weighted_sums_follow_the_definition() {
    let mut random = Random(34);
    for (index, length) in HEADS.into_iter().enumerate() {
        for count in 1..=if length > 128 { 9 } else { 130 } {
            // From the beginning of a block, of a grain, from inside one, across one end of a block and two.
            let first = [0, 0, 1, 4, 62, 63, 64, 0, 66, 127][(count + index) % 10];
            let kept = keep(&mut random, first + count, length, |position| match count % 4 {
                0 => Head::Largest,
                1 => Head::Kind(Kind::Usual),
                _ => MADE_OF[position % MADE_OF.len()],
            });
            let rows: Vec<Vec<f32>> = (0..1 + (count + index) % 5)
                // Consecutive tokens see one position more each.
                .map(|row| weights(&mut random, count - (row / 2).min(count), [1.0, 8.0, 80.0][count % 3]))
                .collect();
            compare(&kept, &rows, first, &format!("{length} {count} from {first}, {} rows", rows.len()));
        }
    }
}

/// The longest sum of a block, with every code at its end: 64 * 16383 * 127.
#[test]
fn the_largest_sums_do_not_overflow() {
    let mut random = Random(35);
    for length in HEADS {
        for of in [Head::Largest, Head::Alternating] {
            let kept = keep(&mut random, 128, length, |_| of);
            compare(
                &kept,
                &[vec![1.0; 128], vec![-1.0; 128], vec![1.0; 127], vec![0.5; 128]],
                0,
                &format!("{of:?} {length}"),
            );
        }
    }
}

#[test]
fn weights_that_are_not_finite_show_and_small_ones_add_nothing() {
    let mut random = Random(36);
    for length in HEADS {
        let kept = keep(&mut random, 70, length, |_| Head::Kind(Kind::Usual));
        let not_finite = keep(&mut random, 70, length, |position| match position {
            68 => Head::NotFinite(f32::NAN),
            _ => Head::Kind(Kind::Usual),
        });
        let usual = weights(&mut random, 70, 3.0);
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
            let mut row = usual.clone();
            row[65] = bad;
            compare(&kept, &[usual.clone(), row.clone()], 0, &format!("{bad} {length}"));
            assert!(weighted_sum(&row, 0, &kept.codes, &kept.scales).iter().all(|sum| sum.is_nan()));
        }
        compare(&not_finite, &[usual.clone(), usual[..60].to_vec()], 0, &format!("kept NaN {length}"));
        for small in [0.0, 1e-45, 1e-40, 1e-30, 1e-20] {
            let mut row = vec![small; 70];
            compare(&kept, core::slice::from_ref(&row), 0, &format!("{small} {length}"));
            row[3] = 0.5;
            compare(&kept, &[row, vec![], vec![0.0; 66]], 0, &format!("{small} and a large one {length}"));
        }
    }
}

#[test]
#[should_panic(expected = "weighted sum beyond its values")]
fn values_end_with_a_whole_grain() {
    let (values, scales, mut output) = ([0; 9 * 8], [1.0; 9], [0.0; 8]);
    (scalar().attention_int8.weighted_sums)(&[&[1.0; 9]], 0, &values, &scales, &mut [&mut output]);
}

/// Against exact arithmetic on the numbers that were quantized. Each key and query code is off by half at most, and each weight's code.
#[test]
fn attention_over_codes_is_near_exact_attention() {
    let mut random = Random(37);
    for length in [16, 64, 128] {
        let (query, count) = (random.values(Kind::Usual, length), 130);
        let heads: Vec<Vec<f32>> = (0..count).map(|_| random.values(Kind::Usual, length)).collect();
        let weights = weights(&mut random, count, 4.0);
        let table = scalar().attention_int8;
        let (mut keys, mut key_scales) = (vec![0; count * length], vec![]);
        let (mut values, mut value_scales) = (vec![0; count.next_multiple_of(4) * length], vec![]);
        for (position, (head, key)) in heads.iter().zip(keys.chunks_exact_mut(length)).enumerate() {
            key_scales.push((table.keep_key)(head, key));
            value_scales.push((table.keep_value)(head, position, &mut values));
        }
        let mut scores = vec![0.0; count];
        (table.scores)(&query, length, &keys, &key_scales, 1.0, &mut scores);
        let magnitudes = |values: &[f32]| values.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        let peak = |values: &[f32]| values.iter().fold(0.0, |peak, value| f64::from(value.abs()).max(peak));
        for (head, &score) in heads.iter().zip(&scores) {
            let exact: f64 =
                query.iter().zip(head).map(|(query, key)| f64::from(*query) * f64::from(*key)).sum();
            // Half a code of each, times the other one; the second order, and roundings, in the last factor.
            let bound =
                (peak(&query) / 254.0 * magnitudes(head) + peak(head) / 254.0 * magnitudes(&query)) * 1.01;
            assert!((f64::from(score) - exact).abs() <= bound, "{length}: {score} is not {exact}");
        }
        let mut output = vec![0.0; length];
        (table.weighted_sums)(&[&weights], 0, &values, &value_scales, &mut [&mut output]);
        for (d, &found) in output.iter().enumerate() {
            let exact: f64 =
                weights.iter().zip(&heads).map(|(w, head)| f64::from(*w) * f64::from(head[d])).sum();
            // Half a value's code, times its weight; half a weight's code, of its block's largest product, times 127.
            let values: f64 =
                weights.iter().zip(&heads).map(|(w, head)| f64::from(w.abs()) * peak(head) / 254.0).sum();
            let products: Vec<f32> = weights.iter().zip(&value_scales).map(|(w, scale)| w * scale).collect();
            let weights: f64 =
                products.chunks(64).map(|block| block.len() as f64 * peak(block) / 32766.0 * 127.0).sum();
            let bound = (values + weights) * 1.01;
            assert!((f64::from(found) - exact).abs() <= bound, "{length} {d}: {found} is not {exact}");
        }
    }
}
