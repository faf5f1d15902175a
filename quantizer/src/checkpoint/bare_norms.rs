//! LayerNorms without gains and biases (OLMo) as RMSNorms of gain 1.
//!
//! A LayerNorm takes the mean off its input, and divides what is left by the root of its mean square: it is an RMSNorm of an input whose mean is 0.
//! The stream is a sum of embeddings and of what output and down projections give, and nothing but norms read it; so the mean is taken off these
//! once, in their weights. A tied head stays the embedding: what it multiplies has a mean of 0, so that a number taken off a whole row of weights
//! changes no product. Source: Ashkboos et al., "SliceGPT", arXiv 2401.15024, section 3.1.

use rescomp_formats::section::SectionKind as K;

use super::layer::{LayerWeights, Matrix};

/// Takes the mean off each row: what a token's embedding adds to the stream.
pub(super) fn center_rows(matrix: &mut Matrix) {
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        let mean = row.iter().map(|&value| f64::from(value)).sum::<f64>() / row.len() as f64;
        row.iter_mut().for_each(|value| *value = (f64::from(*value) - mean) as f32);
    }
}

/// Takes the mean over all outputs off those of both projections that write to the stream.
pub(super) fn center_layer(weights: &mut LayerWeights) {
    for kind in [K::Output, K::Down] {
        weights.matrix_mut(kind).into_iter().for_each(center_outputs);
    }
}

fn center_outputs(matrix: &mut Matrix) {
    let mut means = vec![0.0_f64; matrix.cols];
    for row in matrix.data.chunks_exact(matrix.cols) {
        means.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value));
    }
    means.iter_mut().for_each(|mean| *mean /= matrix.rows as f64);
    for row in matrix.data.chunks_exact_mut(matrix.cols) {
        row.iter_mut().zip(&means).for_each(|(value, mean)| *value = (f64::from(*value) - mean) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_the_stream_has_no_mean() {
        let matrix = || Matrix { rows: 2, cols: 3, data: vec![1.0, 2.0, 6.0, 3.0, -2.0, 8.0] };
        let mut rows = matrix();
        center_rows(&mut rows);
        assert_eq!(rows.data, [-2.0, -1.0, 3.0, 0.0, -5.0, 5.0]);
        let mut outputs = matrix();
        center_outputs(&mut outputs);
        assert_eq!(outputs.data, [-1.0, 2.0, -1.0, 1.0, -2.0, 1.0]);
    }
}
