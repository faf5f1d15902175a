//! The weights of one block, by what they are.

use faer::MatRef;
use rescomp_formats::section::{SectionKind, layer_sections};
use rescomp_formats::spec::ModelSpec;

/// A dense matrix in row-major order: row `r` holds the weights of output `r`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * cols` elements.
    pub data: Vec<f32>,
}

impl Matrix {
    /// The weights of one output.
    ///
    /// # Panics
    /// `row` is not below `rows`.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..][..self.cols]
    }

    /// The matrix as faer sees it.
    pub(crate) fn view(&self) -> MatRef<'_, f32> {
        MatRef::from_row_major_slice(&self.data, self.rows, self.cols)
    }
}

/// The weights of one transformer block: what its architecture has (`rescomp_formats::section::layer_sections`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerWeights {
    matrices: Vec<(SectionKind, Matrix)>,
    vectors: Vec<(SectionKind, Vec<f32>)>,
}

impl LayerWeights {
    /// Adds a part: a vector is a matrix of one column.
    pub(super) fn insert(&mut self, kind: SectionKind, part: Matrix) {
        match kind.is_matrix() {
            true => self.matrices.push((kind, part)),
            false => self.vectors.push((kind, part.data)),
        }
    }

    /// The matrix of a kind; `None` where the block has none.
    pub fn matrix(&self, kind: SectionKind) -> Option<&Matrix> {
        self.matrices.iter().find(|(of, _)| *of == kind).map(|(_, matrix)| matrix)
    }

    /// The matrix of a kind, to be replaced; `None` where the block has none.
    pub fn matrix_mut(&mut self, kind: SectionKind) -> Option<&mut Matrix> {
        self.matrices.iter_mut().find(|(of, _)| *of == kind).map(|(_, matrix)| matrix)
    }

    /// The gain of a norm, or a bias; `None` where the block has none.
    pub fn vector(&self, kind: SectionKind) -> Option<&[f32]> {
        self.vectors.iter().find(|(of, _)| *of == kind).map(|(_, values)| values.as_slice())
    }

    /// The gain of a norm, or a bias, to be replaced; `None` where the block has none.
    pub fn vector_mut(&mut self, kind: SectionKind) -> Option<&mut [f32]> {
        self.vectors.iter_mut().find(|(of, _)| *of == kind).map(|(_, values)| values.as_mut_slice())
    }

    /// All numbers of a kind; `None` where the block has none.
    pub(crate) fn values_mut(&mut self, kind: SectionKind) -> Option<&mut [f32]> {
        if kind.is_matrix() {
            return self.matrix_mut(kind).map(|matrix| matrix.data.as_mut_slice());
        }
        self.vector_mut(kind)
    }

    /// Adds the vectors that the architecture has and the files don't: gains of 1, biases of 0; and where attention and MLP have one norm, it is
    /// both of theirs.
    pub(super) fn fill_vectors(&mut self, spec: &ModelSpec) {
        for &kind in layer_sections(spec.architecture) {
            if kind.is_matrix() || self.vector(kind).is_some() {
                continue;
            }
            let shared = match kind {
                SectionKind::MlpNorm => self.vector(SectionKind::AttentionNorm),
                SectionKind::MlpNormBias => self.vector(SectionKind::AttentionNormBias),
                _ => None,
            };
            let (_, width) = kind.shape(spec).unwrap_or_default();
            let same = if kind.is_gain() { 1.0 } else { 0.0 };
            let values = shared.map_or_else(|| vec![same; width as usize], <[f32]>::to_vec);
            self.vectors.push((kind, values));
        }
    }

    /// All gains and biases.
    pub fn vectors(&self) -> impl Iterator<Item = (SectionKind, &[f32])> {
        self.vectors.iter().map(|(kind, values)| (*kind, values.as_slice()))
    }
}

/// A norm outside of the blocks: before the head, or of an encoder's embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamNorm {
    /// `hidden` numbers.
    pub gain: Vec<f32>,
    /// As many of a LayerNorm, none of an RMSNorm.
    pub bias: Vec<f32>,
    /// Hidden x hidden and symmetric: what the norm's output passes in front of a tied head, where the stream was rotated.
    pub head_input: Option<Matrix>,
}

impl StreamNorm {
    /// As the forward takes it.
    pub fn view(&self) -> rescomp_runtime::models::Norm<'_> {
        rescomp_runtime::models::Norm { gain: &self.gain, bias: &self.bias }
    }
}
