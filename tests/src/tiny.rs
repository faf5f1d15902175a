//! Tiny random containers, made without the quantizer, so that emulated boards have them too.
//!
//! Every number comes from integer arithmetic or from single float operations that IEEE 754 rounds in one way, so a container is
//! the same wherever it is made, and what it computes can be compared with a constant. A matrix's numbers depend on its name
//! alone: the layouts hold the same weights, and so do an embedding in bands and one that isn't, where their encoding is the same.

use half::f16;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::chat_template::{ChatTemplate, SystemTexts, Trimmed};
use rescomp_formats::check_windows::{self, CheckSizes};
use rescomp_formats::container::write::{Contents, write};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::error::ContainerError;
use rescomp_formats::image_input::{Filter, ImageInput, Resize};
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::{
    Check, CheckRecord, EmbeddingRecord, ImageRecord, Manifest, Provenance, Text,
};
use rescomp_formats::matrix::{self, CodebookMatrix, LowRankShape, MatrixShape, RANK_UNIT};
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::{
    Activation, Architecture, ModelKind, ModelSpec, OnlineTransforms, Output, Pooling, TextEmbedding, Variant,
};
use rescomp_formats::tokenizer::{PreTokenizer, TokenizerParts, write_tokenizer};
use rescomp_formats::{check_embeddings, check_images, kept_classes, labels};
use rescomp_runtime::memory::AlignedBytes;

/// How the matrices of a tiny container are encoded.
#[derive(Clone, Copy, Debug)]
pub enum Widths {
    /// 2, 3, 4 and 8 bits, in other places in each layer: sets of matrices with one input, and bands of the embedding, differ in
    /// width, group and step.
    Mixed,
    /// All of these bits.
    All(CodeWidth),
    /// As [`Widths::Mixed`], and two of three of the blocks' matrices have a low-rank correction, where they are large enough: sets have
    /// some, all, or none.
    Corrected,
}

/// Odd sizes everywhere: nothing but the number of heads is a power of two, the head is not tied, two query heads share a key.
pub fn odd_spec() -> ModelSpec {
    ModelSpec {
        architecture: Architecture::Llama,
        vocabulary: 263,
        hidden: 48,
        intermediate: 80,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        context: 40,
        norm_epsilon: 1e-5,
        variant: Variant::plain(6),
        tied_head: false,
        embedding_bands: 1,
        begin_token: Some(0),
        end_tokens: heapless::Vec::new(),
        chat_template: false,
        online: Default::default(),
        output: Output::NextToken,
    }
}

/// As little as a model can have: a container of a few kilobytes.
pub fn small_spec() -> ModelSpec {
    ModelSpec {
        vocabulary: 258,
        hidden: 8,
        intermediate: 12,
        layers: 1,
        heads: 2,
        kv_heads: 1,
        head_dim: 4,
        variant: Variant::plain(4),
        context: 8,
        tied_head: true,
        ..odd_spec()
    }
}

/// Rows longer than an activation step, a tied head, one key head for all queries.
pub fn wide_spec() -> ModelSpec {
    ModelSpec {
        vocabulary: 260,
        hidden: 160,
        intermediate: 272,
        layers: 1,
        heads: 5,
        kv_heads: 1,
        head_dim: 32,
        variant: Variant::plain(32),
        tied_head: true,
        ..odd_spec()
    }
}

/// A tied embedding in four bands, and a vocabulary that no tile divides.
pub fn banded_spec() -> ModelSpec {
    ModelSpec { vocabulary: 269, embedding_bands: 4, ..wide_spec() }
}

/// A rotated model whose forward does all that is left of a rotation: widths of 24 (an order of 12 and a doubling) and 80 (of 20), a tied head
/// behind a matrix.
pub fn online_spec() -> ModelSpec {
    let online = OnlineTransforms { output: true, down: true, head_input: true };
    ModelSpec { online, tied_head: true, ..odd_spec() }
}

/// A model of this architecture with everything that it may have: windows, bounds, a part of the head rotated.
pub fn architecture_spec(architecture: Architecture) -> ModelSpec {
    let plain = Variant::plain(6);
    let gelu = Variant { activation: Activation::Gelu, ..plain.clone() };
    let bounded = Variant {
        activation: Activation::GeluTanh,
        sliding_window: 5,
        global_every: 2,
        score_scale: 0.25,
        embedding_scale: 1.5,
        ..plain.clone()
    };
    let variant = match architecture {
        Architecture::Llama => Variant { sliding_window: 7, rotary_dim: 4, ..plain },
        Architecture::Qwen2 | Architecture::Qwen3 => plain,
        Architecture::Gemma2 => Variant { score_cap: 2.0, logit_cap: 3.0, ..bounded },
        Architecture::Gemma3 => bounded,
        Architecture::GptNeox => Variant { rotary_dim: 2, parallel_residual: true, ..gelu },
        Architecture::Gpt2 => Variant { rotary_dim: 0, activation: Activation::GeluTanh, ..gelu },
        Architecture::GptNeo => Variant { rotary_dim: 0, score_scale: 1.0, embedding_scale: 1.0, ..bounded },
        Architecture::Olmo2 => Variant { rotary_dim: 4, ..plain },
        Architecture::StableLm => Variant { rotary_dim: 2, parallel_residual: true, ..plain },
        Architecture::Bert | Architecture::Vit => Variant { rotary_dim: 0, ..gelu },
    };
    // An odd number of layers, so that those with and without a window are not as many.
    let output = match architecture.kind() {
        ModelKind::Decoder => Output::NextToken,
        ModelKind::Encoder => Output::Vector(TextEmbedding { pooling: Pooling::Mean, normalized: true }),
        ModelKind::Classifier => Output::Classes(image_input()),
    };
    let spec = ModelSpec { architecture, layers: 3, variant, output, ..odd_spec() };
    match spec.image() {
        Some(image) => ModelSpec { context: image.tokens(), begin_token: None, vocabulary: 19, ..spec },
        None => spec,
    }
}

/// Images that are wider than high, of two tokens before the patches' and a head of both: 20 x 28 pixels in 35 patches.
pub fn image_input() -> ImageInput {
    ImageInput {
        height: 20,
        width: 28,
        patch: 4,
        tokens_before: 2,
        head_tokens: 2,
        rescale: 1.0 / 255.0,
        mean: [0.25, 0.5, 0.625],
        deviation: [0.5, 0.25, 0.75],
        resize: Some(Resize { height: 22, width: 30, filter: Filter::Bicubic }),
    }
}

/// An image of this size, of large spots and some noise.
pub fn image(input: &ImageInput, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let spots: Vec<u64> = (0..64).map(|_| random.below(200)).collect();
    let width = input.width as usize;
    let mut byte = |at: usize| {
        let (row, column, channel) = (at / 3 / width, at / 3 % width, at % 3);
        (spots[(row / 6 * 8 + column / 6 + 21 * channel) % 64] + random.below(56)) as u8
    };
    (0..input.elems()).map(&mut byte).collect()
}

/// The band of each token: bands are interleaved, and the higher the number, the fewer the tokens.
pub fn token_bands(spec: &ModelSpec) -> Vec<u8> {
    let mut random = Random::new(78);
    let mut band = || {
        let most = random.below(spec.embedding_bands.into());
        random.below(most + 1) as u8
    };
    (0..spec.vocabulary).map(|_| band()).collect()
}

/// Numbers that look random and are the same each time (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Small seeds begin alike.
        (0..8).for_each(|_| _ = random.bits());
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() >> 32) * bound) >> 32
    }

    /// From -1 to 1; 24 bits, so that it is exact.
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) as f32) * (2.0 / 16_777_216.0) - 1.0
    }
}

/// Tokens of the vocabulary.
pub fn tokens(spec: &ModelSpec, count: usize) -> Vec<u32> {
    let mut random = Random::new(77);
    (0..count).map(|_| random.below(spec.vocabulary.into()) as u32).collect()
}

/// A container of random weights.
///
/// # Panics
/// Where the spec isn't a possible one, or its vocabulary is smaller than the tokenizer's 257 (of a classifier it has no tokenizer).
pub fn container(spec: &ModelSpec, widths: Widths, layout: Layout) -> AlignedBytes {
    let file = write::<ContainerError>(&manifest(spec), |name| {
        Ok(match name.kind {
            SectionKind::Tokenizer => Contents::Bytes(tokenizer_section()),
            SectionKind::RopeFrequencies => {
                // One radian a position, then each pair a sixteenth of the one before.
                Contents::U64(
                    (0..spec.variant.rotary_dim / 2)
                        .map(|pair| 2_935_890_503_282_001_226 >> (4 * pair))
                        .collect(),
                )
            }
            SectionKind::LocalRopeFrequencies => {
                // Likewise, each pair an eighth of the one before.
                Contents::U64(
                    (0..spec.variant.rotary_dim / 2)
                        .map(|pair| 2_935_890_503_282_001_226 >> (3 * pair))
                        .collect(),
                )
            }
            SectionKind::CheckWindows => Contents::Bytes(check_section(spec)),
            SectionKind::CheckEmbeddings => Contents::Bytes(check_texts_section(spec)),
            SectionKind::CheckImages => Contents::Bytes(check_images_section(spec)),
            SectionKind::Labels => Contents::Bytes(labels_section(spec)),
            SectionKind::TokenBands => Contents::Bytes(token_bands(spec)),
            SectionKind::ChatTemplate => Contents::Bytes(chat_section()),
            kind if kind.is_matrix() => matrix_section(spec, name, widths, layout),
            kind => {
                let mut random = Random::new(seed(name));
                let (rows, cols) = kind.shape(spec).expect("rows of numbers");
                let least = if kind.is_gain() { 1.0 } else { 0.0 };
                Contents::F32((0..rows * cols).map(|_| least + 0.5 * random.unit()).collect())
            }
        })
    });
    AlignedBytes::new(&file.expect("a possible spec"))
}

fn seed(name: SectionName) -> u64 {
    1000 * name.layer.map_or(0, |layer| u64::from(layer) + 1) + name.kind as u64
}

fn matrix_section(spec: &ModelSpec, name: SectionName, widths: Widths, layout: Layout) -> Contents {
    let band = name.layer.filter(|_| name.kind == SectionKind::Embedding);
    let whole = SectionName { layer: name.layer.filter(|_| band.is_none()), ..name };
    let (all_rows, cols) = name.kind.shape(spec).unwrap_or((spec.vocabulary, spec.hidden));
    let place = whole.kind as usize + whole.layer.map_or(0, usize::from);
    let whole_row = MatrixShape::whole_row(cols);
    let mixed =
        [CodeWidth::Int8, CodeWidth::Int4, CodeWidth::Int8, CodeWidth::Int3, CodeWidth::Int2][place % 5];
    let group_elems = [128, 64, 32, whole_row][place % 4];
    let (width, group_elems) = match (widths, band) {
        (Widths::All(width), _) => (width, group_elems),
        (Widths::Mixed | Widths::Corrected, None) => (mixed, group_elems),
        (Widths::Mixed | Widths::Corrected, Some(band)) => [
            (CodeWidth::Int4, 64),
            (CodeWidth::Int3, 32),
            (CodeWidth::Int2, whole_row),
            (CodeWidth::Int8, 32),
        ][usize::from(band) % 4],
    };
    let rows: Vec<usize> = match band {
        None => (0..all_rows as usize).collect(),
        Some(band) => (0..)
            .zip(token_bands(spec))
            .filter(|(_, of)| u16::from(*of) == band)
            .map(|(row, _)| row)
            .collect(),
    };
    let shape = |rows| MatrixShape::new(rows, cols, group_elems, width, layout).expect("a possible shape");
    let (all, shape) = (shape(all_rows), shape(rows.len() as u32));
    let mut section = vec![0; shape.section_bytes()];
    let random = &mut Random::new(seed(whole));
    match width.levels() {
        Some(levels) => pack_random_codebook(random, &all, levels, &rows, &shape, &mut section),
        None => pack_random_numbers(random, &all, &rows, &shape, &mut section),
    }
    let most = LowRankShape::most(&shape);
    let corrected = matches!(widths, Widths::Corrected) && name.kind.is_block_matrix() && most > 0;
    if !corrected || place % 3 == 2 {
        return Contents::Matrix(shape, section);
    }
    let rank = most.min(RANK_UNIT * (1 + place as u32 % 2));
    let low_rank = LowRankShape::new(shape, rank).expect("a possible rank");
    let [right, left] = [low_rank.right(), low_rank.left()].map(|factor| {
        let mut section = vec![0; factor.section_bytes()];
        let rows: Vec<usize> = (0..factor.rows()).collect();
        pack_random_numbers(random, factor, &rows, factor, &mut section);
        section
    });
    Contents::corrected(low_rank, [&section, &right, &left]).expect("parts of those shapes")
}

/// Some of the rows.
fn pick<T: Copy>(values: &[T], all: &MatrixShape, rows: &[usize]) -> Vec<T> {
    let each = values.len() / all.rows();
    rows.iter().flat_map(|row| values[row * each..][..each].iter().copied()).collect()
}

/// Weights of about 1/sqrt(k), so that the stream keeps its size; every eleventh scale is zero.
fn random_scale(random: &mut Random, index: usize, highest: f32, cols: usize) -> f16 {
    match index % 11 {
        10 => f16::ZERO,
        _ => f16::from_f32(2.0 / (highest * (cols as f32).sqrt()) * (1.0 + 0.5 * random.unit())),
    }
}

fn pack_random_numbers(
    random: &mut Random,
    all: &MatrixShape,
    rows: &[usize],
    shape: &MatrixShape,
    section: &mut [u8],
) {
    let codes: Vec<i8> =
        (0..all.rows() * all.cols()).map(|_| (random.below(255) as i64 - 127) as i8).collect();
    let scales: Vec<f16> =
        (0..all.rows() * all.groups()).map(|index| random_scale(random, index, 127.0, all.cols())).collect();
    matrix::pack_scaled(shape, &pick(&codes, all, rows), &pick(&scales, all, rows), section)
        .expect("codes and scales of that shape");
}

fn pack_random_codebook(
    random: &mut Random,
    all: &MatrixShape,
    levels: usize,
    rows: &[usize],
    shape: &MatrixShape,
    section: &mut [u8],
) {
    let codes: Vec<u8> = (0..all.rows() * all.cols()).map(|_| random.below(levels as u64) as u8).collect();
    let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
    // About an octave of multipliers, and about evenly spaced levels.
    let multipliers = std::array::from_fn(|index| u8::from(groups > 0) * (20 + index as u8));
    let width = i64::from(shape.width().level_bound()) * 2 / levels as i64;
    let level = |index: usize| (2 * index as i64 + 1 - levels as i64) * width / 2;
    let mut chosen = |index| (level(index) + random.below(width as u64 / 2) as i64) as i8;
    let table: Vec<i8> = (0..levels)
        .map(|index| shape.width().fixed_level(index as u8).unwrap_or_else(|| chosen(index)))
        .collect();
    let highest = f32::from(table[levels - 1]) * if groups > 0 { 27.0 } else { 1.0 } * shape.row_scale_unit();
    let scale_codes: Vec<u8> = (0..all.rows() * groups).map(|_| random.below(16) as u8).collect();
    let row_scales: Vec<f16> =
        (0..all.rows()).map(|row| random_scale(random, row, highest, all.cols())).collect();
    let codebook = CodebookMatrix {
        levels: &table,
        multipliers,
        codes: &pick(&codes, all, rows),
        scale_codes: &pick(&scale_codes, all, rows),
        row_scales: &pick(&row_scales, all, rows),
    };
    matrix::pack_codebook(shape, &codebook, section).expect("tables and codes of that shape");
}

/// Two windows of three positions; the probabilities are made up.
fn check_section(spec: &ModelSpec) -> Vec<u8> {
    let sizes = CheckSizes::new(2, 3, spec.vocabulary);
    let kept: Vec<(u32, f64)> =
        (0..6 * sizes.classes as u32).map(|index| (index % spec.vocabulary, -5.0)).collect();
    check_windows::write(&sizes, &tokens(spec, 8), &[0.5; 6], &kept).expect("slices of those sizes")
}

/// Two texts of three and five tokens; the vectors are made up.
fn check_texts_section(spec: &ModelSpec) -> Vec<u8> {
    let mut random = Random::new(79);
    let vectors: Vec<Vec<f32>> = (0..2).map(|_| (0..spec.hidden).map(|_| random.unit()).collect()).collect();
    check_embeddings::write(&[3, 5].map(|length| tokens(spec, length)), &vectors)
        .expect("vectors of one width")
}

/// Two images of which each pixel stands for two by two; the probabilities are made up.
fn check_images_section(spec: &ModelSpec) -> Vec<u8> {
    let mut input = *spec.image().expect("a classifier");
    (input.height, input.width) = (input.height / 2, input.width / 2);
    let (classes, _) = kept_classes::sizes(spec.vocabulary);
    let kept: Vec<(u32, f64)> =
        (0..2 * classes as u32).map(|index| (index % spec.vocabulary, -3.0)).collect();
    check_images::write(&[81, 82].map(|seed| image(&input, seed)), 2, &[0.125; 2], &kept, spec.vocabulary)
        .expect("slices of those sizes")
}

fn labels_section(spec: &ModelSpec) -> Vec<u8> {
    labels::write(&(0..spec.vocabulary).map(|class| format!("class {class}")).collect::<Vec<String>>())
}

/// The 256 bytes and one merge.
fn tokenizer_section() -> Vec<u8> {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.push(b"he".to_vec());
    write_tokenizer(&TokenizerParts {
        tokens,
        byte_tokens: std::array::from_fn(|byte| byte as u32),
        merges: vec![[104, 101, 256]],
        added_tokens: vec![],
        pre_tokenizer: PreTokenizer::Gpt2,
        add_prefix_space: false,
        ignore_merges: false,
    })
    .expect("parts that agree")
}

/// Texts of a conversation.
fn chat_section() -> Vec<u8> {
    let template = ChatTemplate {
        system: Some(SystemTexts { before: "system: ", after: "\nuser: " }),
        first: "\u{1}%d %b %Y\u{1}\nuser: ",
        open: "\nanswer:",
        answered: "\nanswer: ",
        next: "\nuser: ",
        trimmed: Trimmed { system: false, user: true, answer: false },
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: true,
    };
    template.section().expect("few bytes")
}

fn manifest(spec: &ModelSpec) -> Manifest {
    let text = |text: &str| Text::try_from(text).expect("short");
    Manifest {
        spec: spec.clone(),
        provenance: Provenance {
            checkpoint: text("tiny"),
            checkpoint_sha256: [0; 32],
            method: text("random"),
            transform: text("none"),
            bits: 4,
            group_elems: 32,
            head_bits: 8,
            calibration_sha256: [0; 32],
            calibration_tokens: 0,
            target: text("test"),
            tool_version: text("0"),
        },
        check: match spec.architecture.kind() {
            ModelKind::Decoder => Check::Windows(CheckRecord {
                reference_nll: 5.0,
                nll: 5.0,
                mean_kl: 0.0,
                same_top1: 0,
                positions: 6,
                logits_sha256: [0; 32],
            }),
            ModelKind::Classifier => {
                Check::Images(ImageRecord { mean_kl: 0.25, same_top1: 1, images: 2, logits_sha256: [0; 32] })
            }
            ModelKind::Encoder => Check::Embeddings(EmbeddingRecord {
                mean_distance: 0.5,
                largest_distance: 0.75,
                texts: 2,
                embeddings_sha256: [0; 32],
            }),
        },
        cache: CacheFormat::default(),
    }
}
