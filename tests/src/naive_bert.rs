//! A BERT forward that shares nothing with the runtime's: f64, straight loops.
//!
//! Written from the papers (arXiv 1810.04805, 1607.06450, 1606.08415, 1908.10084).

use rescomp_formats::section::{SectionKind as K, SectionName};
use rescomp_formats::spec::{Activation, ModelSpec, Pooling};

use crate::naive::attend;

type Rows = Vec<Vec<f64>>;

pub(crate) fn multiply(weights: &Rows, bias: &[f64], input: &[f64]) -> Vec<f64> {
    let product = |row: &Vec<f64>| row.iter().zip(input).map(|(w, x)| w * x).sum::<f64>();
    weights.iter().zip(bias).map(|(row, bias)| product(row) + bias).collect()
}

pub(crate) fn layer_norm(input: &[f64], gain: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let n = input.len() as f64;
    let mean = input.iter().sum::<f64>() / n;
    let variance = input.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let each =
        |((x, gain), bias): ((&f64, &f64), &f64)| (x - mean) / (variance + epsilon).sqrt() * gain + bias;
    input.iter().zip(gain).zip(bias).map(each).collect()
}

/// erf by its series, which converges fast for what a hidden layer holds.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..400 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

pub(crate) fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            x / 2.0 * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// The states of a text's tokens behind the last block. `weights` gives a matrix by its rows, a gain or a bias as one row.
pub fn states(spec: &ModelSpec, weights: &dyn Fn(SectionName) -> Rows, tokens: &[u32]) -> Rows {
    let of_model = |kind| weights(SectionName { kind, layer: None });
    let epsilon = f64::from(spec.norm_epsilon);
    let (embedding, positions) = (of_model(K::Embedding), of_model(K::Positions).concat());
    let (gain, bias) = (of_model(K::EmbeddingNorm).concat(), of_model(K::EmbeddingNormBias).concat());
    let scale = f64::from(spec.variant.embedding_scale);
    let mut stream: Rows = Vec::new();
    for (&token, position) in tokens.iter().zip(positions.chunks(spec.hidden as usize)) {
        let sum: Vec<f64> =
            embedding[token as usize].iter().zip(position).map(|(x, p)| scale * x + p).collect();
        stream.push(layer_norm(&sum, &gain, &bias, epsilon));
    }
    for layer in 0..spec.layers as u16 {
        let of = |kind| weights(SectionName { kind, layer: Some(layer) });
        let vector = |kind| of(kind).concat();
        let product = |matrix, bias, input: &[f64]| multiply(&of(matrix), &vector(bias), input);
        let all = |matrix, bias| stream.iter().map(|x| product(matrix, bias, x)).collect::<Rows>();
        let (queries, keys, values) =
            (all(K::Query, K::QueryBias), all(K::Key, K::KeyBias), all(K::Value, K::ValueBias));
        let mut next = Vec::new();
        for (x, query) in stream.iter().zip(&queries) {
            let attended = attend(spec, query, &keys, &values);
            let added =
                |x: &[f64], y: Vec<f64>| -> Vec<f64> { x.iter().zip(y).map(|(x, y)| x + y).collect() };
            let sum = added(x, product(K::Output, K::OutputBias, &attended));
            let x = layer_norm(&sum, &vector(K::AttentionNorm), &vector(K::AttentionNormBias), epsilon);
            let up = product(K::Up, K::UpBias, &x);
            let up: Vec<f64> = up.into_iter().map(|x| activated(spec.variant.activation, x)).collect();
            let sum = added(&x, product(K::Down, K::DownBias, &up));
            next.push(layer_norm(&sum, &vector(K::MlpNorm), &vector(K::MlpNormBias), epsilon));
        }
        stream = next;
    }
    stream
}

/// The vector of these states.
///
/// # Panics
/// Where the model is no encoder.
pub fn embedding(spec: &ModelSpec, states: &Rows) -> Vec<f64> {
    let rule = spec.embedding().expect("an encoder");
    let vector: Vec<f64> = match rule.pooling {
        Pooling::Cls => states[0].clone(),
        Pooling::Mean => (0..states[0].len())
            .map(|at| states.iter().map(|state| state[at]).sum::<f64>() / states.len() as f64)
            .collect(),
    };
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    match rule.normalized {
        true => vector.iter().map(|x| x / length).collect(),
        false => vector,
    }
}
