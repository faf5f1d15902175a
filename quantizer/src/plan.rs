//! What is to be done with a model's matrices: the method, and for every matrix its bits and groups.

use crate::bands::Bands;
use crate::choose::Tuning;
use crate::grids::{ScaleFormat, Spacing};
use crate::methods::{ClipSearch, GroupSize, LazyVariant, Method, SolverOptions, SweepConfiguration};
use rescomp_formats::matrix::RANK_UNIT;
use rescomp_formats::section::SectionKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Bits, groups and the low-rank correction of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixFormat {
    /// Bits a code: 2, 3, 4, 5, 6 or 8.
    pub bits: u8,
    /// How many columns share a scale.
    #[serde(serialize_with = "group_text", deserialize_with = "group_of_text")]
    pub group: GroupSize,
    /// Rank of its low-rank correction, a multiple of 32; 0 for none. Of matrices of blocks alone.
    #[serde(default)]
    pub rank: u32,
}

impl MatrixFormat {
    /// Without a correction.
    pub const fn plain(bits: u8, group: GroupSize) -> MatrixFormat {
        MatrixFormat { bits, group, rank: 0 }
    }

    /// The rank of the correction of a matrix of this shape: no larger than the matrix has rows and columns.
    pub fn rank_of(&self, rows: usize, columns: usize) -> usize {
        usable_rank(self.rank, rows, columns)
    }
}

/// As much of a rank as a matrix of this shape can have.
pub(crate) fn usable_rank(rank: u32, rows: usize, columns: usize) -> usize {
    let unit = RANK_UNIT as usize;
    (rank as usize).min(rows.min(columns)) / unit * unit
}

/// A group size as the command line spells it.
fn group_text<S: Serializer>(group: &GroupSize, output: S) -> Result<S::Ok, S::Error> {
    output.collect_str(group)
}

fn group_of_text<'de, D: Deserializer<'de>>(input: D) -> Result<GroupSize, D::Error> {
    String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
}

/// How a matrix is solved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solver {
    /// The sweep; `None` where the method is round-to-nearest.
    pub configuration: Option<SweepConfiguration>,
    /// Bits, groups, damping and the rest.
    pub options: SolverOptions,
    /// Rank of the low-rank correction at most; 0 for none.
    pub rank: u32,
}

/// Formats of the matrices with a row a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// The bands of the embedding, where it has several.
    pub bands: Option<Bands>,
    /// Of the embedding, and of the head where it is tied: one, or one for each band.
    pub embedding: Vec<MatrixFormat>,
    /// Of a head of its own.
    pub head: MatrixFormat,
}

impl Vocabulary {
    /// The same format for both, without bands.
    pub fn same(format: MatrixFormat) -> Self {
        Vocabulary { bands: None, embedding: vec![format], head: format }
    }

    /// The embedding's matrices: the band of each, where it has bands, and the format.
    pub fn embedding_matrices(&self) -> impl Iterator<Item = (Option<u8>, MatrixFormat)> {
        let banded = self.bands.is_some();
        (0_u8..).zip(&self.embedding).map(move |(band, format)| (banded.then_some(band), *format))
    }
}

/// How the matrices of a model are quantized.
#[derive(Clone, Debug)]
pub struct BlockPlan {
    /// The method.
    pub method: Method,
    /// The lazy variant; `None` for the method's own.
    pub variant: Option<LazyVariant>,
    /// The clip search; `None` for the one that measured best at each number of bits.
    pub clip: Option<ClipSearch>,
    /// Damping and the rest, and the format of every matrix that is not in `formats`.
    pub options: SolverOptions,
    /// Rank of the low-rank correction of every matrix of a block that is not in `formats`; 0 for none.
    pub rank: u32,
    /// What is chosen for each matrix.
    pub tuning: Tuning,
    /// Format of the embedding and the head; `None` to leave them as in the checkpoint.
    pub vocabulary: Option<Vocabulary>,
    /// Matrices with a format of their own, by layer and kind's name.
    pub formats: BTreeMap<(usize, &'static str), MatrixFormat>,
}

impl BlockPlan {
    /// A method with its defaults: for `rescomp-exact`, strength, ridge and refinement are chosen, and at 2 and 3 bits the clip search
    /// weighs by the Hessian's diagonal; everything as published for the others. Levels and scales are those of `options`.
    pub fn new(method: Method, options: SolverOptions) -> BlockPlan {
        let (tuning, clip) = match method {
            Method::RescompExact => (Tuning::AUTO, None),
            Method::Rtn | Method::Gptq | Method::Gptaq | Method::Rescomp => {
                (Tuning::PLAIN, Some(options.clip))
            }
        };
        let (variant, vocabulary, formats) = (None, None, BTreeMap::new());
        BlockPlan { method, variant, clip, options, rank: 0, tuning, vocabulary, formats }
    }

    /// The same with embedding and head quantized to `bits`, in the groups of the blocks.
    #[must_use]
    pub fn with_head_bits(mut self, bits: u8) -> BlockPlan {
        self.vocabulary = Some(Vocabulary::same(MatrixFormat::plain(bits, self.options.group)));
        self
    }

    /// Whether the method needs calibration.
    pub fn calibrates(&self) -> bool {
        self.configuration(self.options.bits).is_some()
    }

    /// The sweep at `bits` bits; `None` for round-to-nearest.
    pub fn configuration(&self, bits: u8) -> Option<SweepConfiguration> {
        let configuration = self.method.configuration(bits)?;
        Some(self.variant.map_or(configuration, |variant| configuration.with_variant(variant)))
    }

    /// The format of a matrix.
    pub fn format(&self, layer: usize, kind: SectionKind) -> MatrixFormat {
        let default = MatrixFormat { bits: self.options.bits, group: self.options.group, rank: self.rank };
        self.formats.get(&(layer, kind.name())).copied().unwrap_or(default)
    }

    /// How a matrix is solved.
    pub fn solver(&self, layer: usize, kind: SectionKind) -> Solver {
        self.solver_for(self.format(layer, kind))
    }

    /// How a matrix of this format is solved.
    pub fn solver_for(&self, MatrixFormat { bits, group, rank }: MatrixFormat) -> Solver {
        // Measured (docs/methods.md): where few bits make the scale clip much, it pays to clip what matters least.
        let clip =
            self.clip.unwrap_or(if bits <= 3 { ClipSearch::HessianDiagonal } else { ClipSearch::Plain });
        let scale_format = match (bits, self.options.scale_format) {
            // At 8 bits nothing is to be saved, and a coarser scale would be the larger error.
            (8, format) if format.is_coded() => ScaleFormat::F16,
            (_, format) => format,
        };
        let spacing = match (bits, scale_format) {
            // What has coded scales goes into a container, which has one grid for these bits.
            (5 | 6, format) if format.is_coded() => Spacing::Normal,
            _ => self.options.spacing,
        };
        let options = SolverOptions { bits, group, clip, spacing, scale_format, ..self.options };
        Solver { configuration: self.configuration(bits), options, rank }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_have_one_grid_at_5_and_6_bits_and_scales_of_their_own_at_8() {
        let group = GroupSize::Row;
        let solver = |options: SolverOptions, bits| {
            let options = SolverOptions { spacing: Spacing::Uniform, ..options };
            let plan = BlockPlan::new(Method::RescompExact, options);
            let options = plan.solver_for(MatrixFormat::plain(bits, group)).options;
            (options.spacing, options.scale_format, options.clip)
        };
        let (container, published) = (SolverOptions::for_container(4, group), SolverOptions::new(4, group));
        for (bits, spacing, format) in [
            (4, Spacing::Uniform, ScaleFormat::Coded),
            (5, Spacing::Normal, ScaleFormat::Coded),
            (6, Spacing::Normal, ScaleFormat::Coded),
            (8, Spacing::Uniform, ScaleFormat::F16),
        ] {
            assert_eq!(solver(container, bits), (spacing, format, ClipSearch::Plain));
            assert_eq!(solver(published, bits), (Spacing::Uniform, ScaleFormat::F16, ClipSearch::Plain));
        }
    }
}
