//! A ViT forward that shares nothing with the runtime's: f64, straight loops.
//!
//! Written from the papers (arXiv 2010.11929, 2012.12877, 1607.06450, 1606.08415).

use rescomp_formats::section::{SectionKind as K, SectionName};
use rescomp_formats::spec::ModelSpec;

use crate::naive::attend;
use crate::naive_bert::{activated, layer_norm, multiply};

type Rows = Vec<Vec<f64>>;

/// The numbers of each patch: its pixels by rows, red, green and blue.
fn patches(spec: &ModelSpec, rgb: &[u8]) -> Rows {
    let image = spec.image().expect("a classifier");
    let [height, width, edge] = [image.height, image.width, image.patch].map(|size| size as usize);
    let number = |y: usize, x: usize, channel: usize| {
        let byte = f64::from(rgb[(y * width + x) * 3 + channel]);
        (byte * f64::from(image.rescale) - f64::from(image.mean[channel]))
            / f64::from(image.deviation[channel])
    };
    let mut patches = Vec::new();
    for top in (0..height).step_by(edge) {
        for left in (0..width).step_by(edge) {
            let mut patch = Vec::new();
            for y in top..top + edge {
                for x in left..left + edge {
                    patch.extend((0..3).map(|channel| number(y, x, channel)));
                }
            }
            patches.push(patch);
        }
    }
    patches
}

/// The logits of an image's classes. `weights` gives a matrix by its rows, a gain or a bias as one row.
///
/// # Panics
/// Where the model is no classifier.
pub fn logits(spec: &ModelSpec, weights: &dyn Fn(SectionName) -> Rows, rgb: &[u8]) -> Vec<f64> {
    let image = spec.image().expect("a classifier");
    let of_model = |kind| weights(SectionName { kind, layer: None });
    let epsilon = f64::from(spec.norm_epsilon);
    let hidden = spec.hidden as usize;
    let positions = of_model(K::Positions).concat();
    let projection = of_model(K::Patches);
    let nothing = vec![0.0; hidden];
    let mut stream: Rows = vec![nothing.clone(); image.tokens_before as usize];
    stream.extend(patches(spec, rgb).iter().map(|patch| multiply(&projection, &nothing, patch)));
    for (x, position) in stream.iter_mut().zip(positions.chunks(hidden)) {
        x.iter_mut().zip(position).for_each(|(x, p)| *x += p);
    }
    for layer in 0..spec.layers as u16 {
        let of = |kind| weights(SectionName { kind, layer: Some(layer) });
        let vector = |kind| of(kind).concat();
        let product = |matrix, bias, input: &[f64]| multiply(&of(matrix), &vector(bias), input);
        let norm = |gain, bias, x: &[f64]| layer_norm(x, &vector(gain), &vector(bias), epsilon);
        let normed: Rows = stream.iter().map(|x| norm(K::AttentionNorm, K::AttentionNormBias, x)).collect();
        let all = |matrix, bias| normed.iter().map(|x| product(matrix, bias, x)).collect::<Rows>();
        let (queries, keys, values) =
            (all(K::Query, K::QueryBias), all(K::Key, K::KeyBias), all(K::Value, K::ValueBias));
        for (x, query) in stream.iter_mut().zip(&queries) {
            let attended = attend(spec, query, &keys, &values);
            x.iter_mut().zip(product(K::Output, K::OutputBias, &attended)).for_each(|(x, y)| *x += y);
            let up = product(K::Up, K::UpBias, &norm(K::MlpNorm, K::MlpNormBias, x));
            let up: Vec<f64> = up.into_iter().map(|x| activated(spec.variant.activation, x)).collect();
            x.iter_mut().zip(product(K::Down, K::DownBias, &up)).for_each(|(x, y)| *x += y);
        }
    }
    let (gain, bias) = (of_model(K::FinalNorm).concat(), of_model(K::FinalNormBias).concat());
    let states = stream.iter().take(image.head_tokens as usize);
    let read: Vec<f64> = states.flat_map(|x| layer_norm(x, &gain, &bias, epsilon)).collect();
    multiply(&of_model(K::Head), &of_model(K::HeadBias).concat(), &read)
}
