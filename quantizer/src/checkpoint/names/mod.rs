//! Under which names, and in which order, weight files hold an architecture's tensors: tables, a file each.
//!
//! A stored tensor may hold several of a block's parts, one after the other or head by head, and may be transposed. [`Stored::split`] takes it
//! apart.

mod bert;
mod gguf;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod llama;
mod olmo;
mod opt;
mod phi3;
mod stablelm;
mod vit;

pub(super) use bert::{BERT, DISTILBERT, ROBERTA};
pub(super) use gguf::{
    GGUF_GEMMA, GGUF_GEMMA2, GGUF_GEMMA3, GGUF_GPT_NEOX, GGUF_GPT2, GGUF_LLAMA, GGUF_PHI3, GGUF_QWEN2,
    GGUF_QWEN3,
};
pub(super) use gpt_neo::GPT_NEO;
pub(super) use gpt_neox::GPT_NEOX;
pub(super) use gpt2::GPT2;
pub(super) use llama::{GEMMA, GEMMA2, GEMMA3, GEMMA3_WITH_IMAGES, LLAMA, QWEN2, QWEN3};
pub(super) use olmo::{OLMO, OLMO2};
pub(super) use opt::OPT;
pub(super) use phi3::PHI3;
pub(super) use stablelm::{
    STABLE_LM, STABLE_LM_PARALLEL, STABLE_LM_PARALLEL_WITH_BIASES, STABLE_LM_WITH_BIASES,
};
pub(super) use vit::{DEIT, DEIT_WITH_TEACHER, VIT};

use super::Matrix;
use rescomp_formats::section::SectionKind;
use rescomp_formats::spec::ModelSpec;

/// The names of an architecture's tensors in one kind of file.
#[derive(Debug)]
pub(super) struct Names {
    /// What files put in front of all names but the head's: the first under which there is an embedding.
    pub(super) prefixes: &'static [&'static str],
    /// `[vocabulary, hidden]`; of a classifier of images the convolution over patches.
    pub(super) embedding: &'static str,
    /// `[context, hidden]`, where positions are learned.
    pub(super) positions: Option<&'static str>,
    /// Rows in front of the first position's.
    pub(super) unused_positions: usize,
    /// `[token types, hidden]`, where a token has a type. A text by itself has type 0, whose row is added to all positions.
    pub(super) token_types: Option<&'static str>,
    /// Gain of the norm outside of the blocks: behind the last, or in front of the first of an encoder.
    pub(super) norm: &'static str,
    /// Its bias, where it is a LayerNorm.
    pub(super) norm_bias: Option<&'static str>,
    /// `[vocabulary, hidden]`; its whole name. Encoders have none.
    pub(super) head: &'static str,
    /// In front of a layer's number.
    pub(super) layers: &'static str,
    /// The tensors of a layer, in runs that families share.
    pub(super) stored: &'static [&'static [Stored]],
    /// Ends of the names of tensors that say nothing: buffers that follow from the sizes.
    pub(super) passed_over: &'static [&'static str],
    /// Beginnings of the names of tensors of other parts of the model: of its sight.
    pub(super) parts_passed_over: &'static [&'static str],
    /// Gains of norms are stored less 1.
    pub(super) gains_less_one: bool,
    /// Norms are LayerNorms without gains and biases: nothing of them is stored, and `norm` is no tensor. What is written to the stream is
    /// given out without its mean, so that RMSNorms of gain 1 compute the same.
    pub(super) bare_norms: bool,
    /// Rotary pairs are neighbours in the rows of queries and keys, elements `2 i` and `2 i + 1` of a head, and not of the head's halves.
    pub(super) neighbour_pairs: bool,
    /// Of a classifier of images, what else is outside of the blocks.
    pub(super) image: Option<&'static ImageNames>,
}

/// The names of what a classifier of images has outside of its blocks.
#[derive(Debug)]
pub(super) struct ImageNames {
    /// Bias of the convolution over patches, `[hidden]`.
    pub(super) patch_bias: &'static str,
    /// The tokens in front of the patches', `[1, 1, hidden]` each.
    pub(super) tokens: &'static [&'static str],
    /// Weight and bias of the head of each of the first tokens, whole names.
    pub(super) heads: &'static [(&'static str, &'static str)],
}

/// A tensor of a layer.
#[derive(Debug)]
pub(super) struct Stored {
    /// Behind the layer's number and a dot.
    pub(super) name: &'static str,
    /// What it holds.
    pub(super) kinds: &'static [SectionKind],
    /// How.
    pub(super) order: Order,
}

/// How a stored tensor holds its parts, `[outputs, inputs]` each, or a number an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    /// One after the other, outputs in rows.
    Rows,
    /// One after the other, outputs in columns.
    Columns,
    /// Outputs in rows: for each head, its outputs of the first part, of the second, and so on.
    Heads,
}

/// A tensor that is stored by itself.
const fn whole(name: &'static str, kinds: &'static [SectionKind]) -> Stored {
    Stored { name, kinds, order: Order::Rows }
}

impl Names {
    /// The tensors of a layer.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &'static Stored> + use<> {
        self.stored.iter().copied().flatten()
    }

    /// The name of a layer's tensor.
    pub(super) fn of_layer(&self, prefix: &str, layer: usize, stored: &Stored) -> String {
        format!("{prefix}{}{layer}.{}", self.layers, stored.name)
    }
}

impl Stored {
    /// Outputs of all parts, and inputs: 1 of vectors.
    fn outputs_and_inputs(&self, spec: &ModelSpec) -> (usize, usize) {
        let parts = self.kinds.iter().map(|kind| outputs_and_inputs(*kind, spec));
        parts.fold((0, 1), |(outputs, _), (n, k)| (outputs + n, k))
    }

    /// The shape of the tensor in the file.
    pub(super) fn shape(&self, spec: &ModelSpec) -> Vec<usize> {
        let (outputs, inputs) = self.outputs_and_inputs(spec);
        match (self.kinds.iter().all(|kind| kind.is_matrix()), self.order) {
            (false, _) => vec![outputs],
            (true, Order::Columns) => vec![inputs, outputs],
            (true, Order::Rows | Order::Heads) => vec![outputs, inputs],
        }
    }

    /// The parts of the tensor's numbers, each with outputs in rows.
    pub(super) fn split(&self, spec: &ModelSpec, data: Vec<f32>) -> Vec<(SectionKind, Matrix)> {
        let (outputs, inputs) = self.outputs_and_inputs(spec);
        let data = match self.order {
            Order::Columns if inputs > 1 => transposed(&data, outputs),
            _ => data,
        };
        let (heads, all) = (spec.heads as usize, self.kinds.len());
        let mut first = 0;
        let mut part = |index: usize, kind: SectionKind| {
            let (rows, cols) = outputs_and_inputs(kind, spec);
            let data = match self.order {
                Order::Heads => {
                    let of_head = rows / heads * cols;
                    data.chunks_exact(of_head).skip(index).step_by(all).flatten().copied().collect()
                }
                Order::Rows | Order::Columns => data[first..first + rows * cols].to_vec(),
            };
            first += rows * cols;
            (kind, Matrix { rows, cols, data })
        };
        self.kinds.iter().enumerate().map(|(index, kind)| part(index, *kind)).collect()
    }
}

/// Outputs and inputs of a part; 1 input of a vector.
fn outputs_and_inputs(kind: SectionKind, spec: &ModelSpec) -> (usize, usize) {
    let (rows, cols) = kind.shape(spec).unwrap_or_default();
    match kind.is_matrix() {
        true => (rows as usize, cols as usize),
        false => (cols as usize, 1),
    }
}

/// A matrix of so many columns with rows and columns exchanged.
fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| data.iter().skip(column).step_by(columns)).copied().collect()
}

/// Rows of queries or keys, from pairs of neighbours in each head to pairs of the head's halves.
pub(super) fn neighbours_to_halves(stored: &Matrix, head_dim: usize) -> Matrix {
    let pairs = head_dim / 2;
    let source = |row: usize| {
        let (head, within) = (row / head_dim, row % head_dim);
        head * head_dim + 2 * (within % pairs) + within / pairs
    };
    let data = (0..stored.rows).flat_map(|row| stored.row(source(row))).copied().collect();
    Matrix { rows: stored.rows, cols: stored.cols, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SectionKind as K;
    use rescomp_formats::section::layer_sections;
    use rescomp_formats::spec::{Activation, Architecture, Output, Variant};

    fn spec(architecture: Architecture) -> ModelSpec {
        let activation = if architecture.has_gate() { Activation::Silu } else { Activation::Gelu };
        ModelSpec {
            architecture,
            vocabulary: 10,
            hidden: 4,
            intermediate: 6,
            layers: 1,
            heads: 2,
            kv_heads: 2,
            head_dim: 2,
            context: 8,
            norm_epsilon: 1e-5,
            variant: Variant { activation, ..Variant::plain(2) },
            tied_head: true,
            embedding_bands: 1,
            begin_token: None,
            end_tokens: Default::default(),
            chat_template: false,
            online: Default::default(),
            output: Output::NextToken,
        }
    }

    #[test]
    fn every_table_holds_what_its_architecture_has() {
        use Architecture as A;
        for (names, architecture) in [
            (&LLAMA, A::Llama),
            (&GGUF_LLAMA, A::Llama),
            (&GGUF_GEMMA, A::Llama),
            (&GGUF_PHI3, A::Llama),
            (&GGUF_QWEN2, A::Qwen2),
            (&GGUF_QWEN3, A::Qwen3),
            (&GGUF_GEMMA2, A::Gemma2),
            (&GGUF_GEMMA3, A::Gemma3),
            (&GGUF_GPT_NEOX, A::GptNeox),
            (&GGUF_GPT2, A::Gpt2),
            (&GEMMA, A::Llama),
            (&PHI3, A::Llama),
            (&QWEN2, A::Qwen2),
            (&QWEN3, A::Qwen3),
            (&GEMMA2, A::Gemma2),
            (&GEMMA3, A::Gemma3),
            (&GEMMA3_WITH_IMAGES, A::Gemma3),
            (&GPT_NEOX, A::GptNeox),
            (&GPT2, A::Gpt2),
            (&OPT, A::Gpt2),
            (&GPT_NEO, A::GptNeo),
            (&OLMO2, A::Olmo2),
            (&STABLE_LM_WITH_BIASES, A::StableLm),
            (&BERT, A::Bert),
            (&ROBERTA, A::Bert),
            (&DISTILBERT, A::Bert),
            (&VIT, A::Vit),
            (&DEIT, A::Vit),
            (&DEIT_WITH_TEACHER, A::Vit),
        ] {
            let mut found: Vec<u16> =
                names.tensors().flat_map(|stored| stored.kinds).map(|kind| *kind as u16).collect();
            let mut expected: Vec<u16> =
                layer_sections(architecture).iter().map(|kind| *kind as u16).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{names:?}");
            assert_eq!(names.norm_bias.is_some(), architecture.has_layer_norm());
            assert_eq!(names.positions.is_some(), architecture.has_learned_positions());
            for stored in names.tensors() {
                let matrices = stored.kinds.iter().filter(|kind| kind.is_matrix()).count();
                assert!([0, stored.kinds.len()].contains(&matrices), "{stored:?}");
            }
        }
    }

    #[test]
    fn tensors_are_taken_apart() {
        let spec = spec(Architecture::GptNeox);
        let kinds = &[K::Query, K::Key, K::Value];
        let of = |order, data: &[f32]| {
            let stored = Stored { name: "", kinds, order };
            assert_eq!(stored.shape(&spec), if order == Order::Columns { [4, 12] } else { [12, 4] });
            stored.split(&spec, data.to_vec()).into_iter().map(|(_, part)| part.data[0]).collect::<Vec<_>>()
        };
        // Row r holds 10 r, 10 r + 1, ...
        let rows: Vec<f32> = (0..12).flat_map(|r| (0..4).map(move |c| (10 * r + c) as f32)).collect();
        assert_eq!(of(Order::Rows, &rows), [0.0, 40.0, 80.0]);
        // Two rows of each kind a head: rows 0, 1, 6, 7 are queries.
        assert_eq!(of(Order::Heads, &rows), [0.0, 20.0, 40.0]);
        let stored = Stored { name: "", kinds, order: Order::Heads };
        let keys = &stored.split(&spec, rows.clone())[1].1;
        assert_eq!(keys.data.iter().step_by(4).copied().collect::<Vec<_>>(), [20.0, 30.0, 80.0, 90.0]);
        assert_eq!(of(Order::Columns, &transposed(&rows, 4)), [0.0, 40.0, 80.0]);

        let biases =
            Stored { name: "", kinds: &[K::QueryBias, K::KeyBias, K::ValueBias], order: Order::Heads };
        assert_eq!(biases.shape(&spec), [12]);
        let parts = biases.split(&spec, (0..12).map(|i| i as f32).collect());
        assert_eq!(parts[2].1.data, [4.0, 5.0, 10.0, 11.0]);
    }

    #[test]
    fn neighbours_become_halves_in_every_head() {
        // Two heads of six: the first elements of the pairs are 0, 2, 4, the second ones 1, 3, 5.
        let stored = Matrix { rows: 12, cols: 2, data: (0..24).map(|at| at as f32 / 2.0).collect() };
        let rows: Vec<f32> = (0..12).map(|row| neighbours_to_halves(&stored, 6).row(row)[0]).collect();
        assert_eq!(rows, [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 6.0, 8.0, 10.0, 7.0, 9.0, 11.0]);
        assert_eq!(neighbours_to_halves(&stored, 6).row(11), stored.row(11));
    }
}
