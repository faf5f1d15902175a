//! The matrices of a model, as the forward sees them.
//!
//! A block's forward (`models/`) knows no weights: it asks [`BlockWeights`] for a norm's gain, or for the products of one input
//! with a set of matrices. [`QuantizedWeights`] answers from a container. The quantizer answers from a checkpoint, and, while
//! it calibrates, watches the input of each set and replaces the set's matrices before it answers: so there is one forward
//! for calibration, evaluation and the device, and no observer beside it.

mod low_rank;

use crate::Machine;
use crate::error::RuntimeError;
use crate::executor::{MOST_OUTPUTS, ROW_GRANULARITY, RowShare, for_each_part, for_each_row_share};
use crate::kernels::{Activations, Kernels, OutputRows, TILE_ROWS, matrix_product_f32};
use crate::memory::{Arena, slice_bytes};
use crate::models::Norm;
use core::ops::Range;
use low_rank::{LowRankMemory, MOST_MATRICES};
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::matrix::{LowRankView, MatrixShape, MatrixView};
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::{Architecture, MAX_EMBEDDING_BANDS};

/// Matrices of a block that share one input, in the order in which a block uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LinearSet {
    /// Query, key, value.
    QueryKeyValue,
    /// Output projection of attention.
    Output,
    /// Gate and up.
    GateUp,
    /// Up, where there is no gate.
    Up,
    /// Down.
    Down,
}

impl LinearSet {
    /// The sets of a block, in order.
    pub const fn of(architecture: Architecture) -> [LinearSet; 4] {
        Self::with_gate(architecture.has_gate())
    }

    /// The sets of a block with or without a gate, in order.
    pub const fn with_gate(has_gate: bool) -> [LinearSet; 4] {
        let up = if has_gate { LinearSet::GateUp } else { LinearSet::Up };
        [LinearSet::QueryKeyValue, LinearSet::Output, up, LinearSet::Down]
    }

    /// The matrices, in the order of `outputs` in [`Weights::apply`].
    pub const fn kinds(self) -> &'static [SectionKind] {
        match self {
            LinearSet::QueryKeyValue => &[SectionKind::Query, SectionKind::Key, SectionKind::Value],
            LinearSet::Output => &[SectionKind::Output],
            LinearSet::GateUp => &[SectionKind::Gate, SectionKind::Up],
            LinearSet::Up => &[SectionKind::Up],
            LinearSet::Down => &[SectionKind::Down],
        }
    }

    /// The name in reports and errors.
    pub const fn name(self) -> &'static str {
        match self {
            LinearSet::QueryKeyValue => "query, key, value",
            LinearSet::Output => "output",
            LinearSet::GateUp => "gate, up",
            LinearSet::Up => "up",
            LinearSet::Down => "down",
        }
    }
}

/// What happens to the products of a set.
#[derive(Debug)]
pub enum Then<'s> {
    /// Nothing.
    Nothing,
    /// The only product is added to this, m x n like it.
    AddTo(&'s mut [f32]),
    /// The first, the gate, becomes `silu(gate) * up` with the second, up.
    SiluMultiply,
    /// Likewise `gelu(gate) * up`, with tanh's GELU.
    GeluMultiply,
}

impl Then<'_> {
    /// Does it on all threads, a part of the tokens each.
    pub fn run(self, machine: Machine<'_>, tokens: usize, products: &mut [&mut [f32]]) {
        let width = |values: &[f32]| (values.len() / tokens.max(1)).max(1);
        match (self, products) {
            (Then::AddTo(sum), [product, ..]) => {
                let width = width(sum);
                for_each_part(machine.executor, sum, product, width, machine.kernels.add);
            }
            (Then::SiluMultiply, [gate, up, ..]) => {
                let width = width(gate);
                for_each_part(machine.executor, gate, up, width, machine.kernels.silu_multiply);
            }
            (Then::GeluMultiply, [gate, up, ..]) => {
                let width = width(gate);
                for_each_part(machine.executor, gate, up, width, |gate, up| {
                    gelu_multiply(machine.kernels, gate, up)
                });
            }
            _ => {}
        }
    }
}

/// `gate[i] = gelu(gate[i]) * up[i]`, with tanh's GELU.
fn gelu_multiply(kernels: &Kernels, gate: &mut [f32], up: &[f32]) {
    (kernels.gelu_tanh)(gate);
    gate.iter_mut().zip(up).for_each(|(gate, up)| *gate *= up);
}

/// What a forward needs of the weights of one block.
pub trait BlockWeights {
    /// Why it may fail.
    type Error;

    /// The gain of a norm, or a bias.
    ///
    /// # Errors
    /// The implementor's own.
    fn vector(&self, kind: SectionKind) -> Result<&[f32], Self::Error>;

    /// For each matrix of the set: `output (m x n) = input (m x k) W^T`, for `m = tokens`.
    ///
    /// # Errors
    /// The implementor's own.
    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), Self::Error>;

    /// [`BlockWeights::apply`], then what `then` says. Where products are computed by rows on several threads, each does this with its rows: one
    /// parallel part for all of it.
    ///
    /// # Errors
    /// The implementor's own.
    fn apply_then(
        &mut self,
        machine: Machine<'_>,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
        then: Then<'_>,
    ) -> Result<(), Self::Error> {
        self.apply(set, tokens, input, outputs)?;
        then.run(machine, tokens, outputs);
        Ok(())
    }
}

/// How activations enter a matrix product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ActivationFormat {
    /// int8 codes with an f32 scale a step: what devices run.
    Int8,
    /// f32, for accuracy work: tells the error of the weights from that of the activations.
    F32,
}

/// The weights of a container, with memory for quantized activations.
#[derive(Debug)]
pub struct QuantizedWeights<'a> {
    container: &'a CheckedContainer<'a>,
    machine: Machine<'a>,
    activations: ActivationFormat,
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    /// The logits band by band, where the embedding is tied and has bands.
    banded_logits: &'a mut [f32],
    /// The head's input in the basis of the embedding, where the stream has another.
    head_input: &'a mut [f32],
    /// For matrices with a correction.
    low_rank: LowRankMemory<'a>,
}

impl<'a> QuantizedWeights<'a> {
    /// Elements of the codes and of the scales for tiles of `tile` tokens: the most that any matrix needs.
    fn elems(container: &CheckedContainer<'_>, tile: u64) -> (u64, u64) {
        let mut most = (0, 0);
        let tied = container.manifest().spec.tied_head;
        for (name, _) in container.container().entries() {
            // An embedding that isn't the head as well is only looked up.
            if name.kind == SectionKind::Embedding && !tied {
                continue;
            }
            if let Some(matrix) = container.matrix(name) {
                let shape = matrix.shape();
                most = (most.0.max(shape.padded_cols() as u64), most.1.max(shape.steps() as u64));
            }
        }
        (most.0.saturating_mul(tile), most.1.saturating_mul(tile))
    }

    /// Elements of the logits band by band.
    fn banded_logits_elems(container: &CheckedContainer<'_>) -> u64 {
        let spec = &container.manifest().spec;
        if spec.tied_head && spec.embedding_bands > 1 { spec.vocabulary.into() } else { 0 }
    }

    /// Elements of the head's input in the basis of the embedding.
    fn head_input_elems(container: &CheckedContainer<'_>) -> u64 {
        let spec = &container.manifest().spec;
        if spec.online.head_input { spec.hidden.into() } else { 0 }
    }

    /// Bytes that [`QuantizedWeights::carve`] takes.
    pub fn bytes(container: &CheckedContainer<'_>, tile: u64) -> u64 {
        let (codes, scales) = Self::elems(container, tile);
        slice_bytes::<i8>(codes)
            .saturating_add(slice_bytes::<f32>(scales))
            .saturating_add(slice_bytes::<f32>(Self::banded_logits_elems(container)))
            .saturating_add(slice_bytes::<f32>(Self::head_input_elems(container)))
            .saturating_add(LowRankMemory::bytes(container, tile))
    }

    /// Takes memory for tiles of at most `tile` tokens.
    pub fn carve(
        container: &'a CheckedContainer<'a>,
        machine: Machine<'a>,
        activations: ActivationFormat,
        tile: u64,
        arena: &mut Arena<'a>,
    ) -> Self {
        let (codes, scales) = Self::elems(container, tile);
        QuantizedWeights {
            container,
            machine,
            activations,
            codes: arena.take(codes as usize),
            scales: arena.take(scales as usize),
            banded_logits: arena.take(Self::banded_logits_elems(container) as usize),
            head_input: arena.take(Self::head_input_elems(container) as usize),
            low_rank: LowRankMemory::carve(container, tile, arena),
        }
    }

    fn matrix(&self, kind: SectionKind, layer: Option<usize>) -> Result<MatrixView<'a>, RuntimeError> {
        let name = SectionName { kind, layer: layer.map(|layer| layer as u16) };
        let missing = RuntimeError::Missing { kind: kind.name(), layer: layer.map(|layer| layer as u32) };
        self.container.matrix(name).ok_or(missing)
    }

    /// A band of the embedding, or the embedding where it is one matrix.
    fn embedding(&self, band: Option<u8>) -> Result<MatrixView<'a>, RuntimeError> {
        let kind = SectionKind::Embedding;
        let name = SectionName { kind, layer: band.map(u16::from) };
        self.container.matrix(name).ok_or(RuntimeError::Missing { kind: kind.name(), layer: None })
    }

    /// Products of one input with several matrices of as many columns. The input is quantized once for each length of step that
    /// occurs among them.
    fn products(
        &mut self,
        matrices: &[MatrixView<'a>],
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
        then: Then<'_>,
    ) -> Result<(), NotFinite> {
        let machine = self.machine;
        if cfg!(feature = "f32") && self.activations == ActivationFormat::F32 {
            if !input.iter().all(|value| value.is_finite()) {
                return Err(NotFinite);
            }
            let product = |matrix: &MatrixView<'_>, tiles, out: &mut OutputRows<'_>| {
                matrix_product_f32(machine.kernels, matrix, input, tokens, tiles, out);
            };
            for_each_share(machine, matrices, tokens, outputs, then, product);
            return Ok(());
        }
        let step = |matrix: &MatrixView<'_>| matrix.shape().step_elems();
        let one_step = matrices.iter().all(|matrix| step(matrix) == step(&matrices[0]));
        if let (Some(first), true) = (matrices.first(), one_step) {
            let activations = self.quantize(first.shape(), tokens, input)?;
            // By reference, as below: one instance of its code.
            let product = &integer_product(machine, &activations);
            for_each_share(machine, matrices, tokens, outputs, then, product);
            return Ok(());
        }
        for (index, first) in matrices.iter().enumerate() {
            if matrices[..index].iter().any(|earlier| step(earlier) == step(first)) {
                continue;
            }
            let activations = self.quantize(first.shape(), tokens, input)?;
            let product = integer_product(machine, &activations);
            for (matrix, output) in matrices.iter().zip(&mut *outputs) {
                if step(matrix) == step(first) {
                    let (matrix, output) = (core::slice::from_ref(matrix), core::slice::from_mut(output));
                    for_each_share(machine, matrix, tokens, output, Then::Nothing, &product);
                }
            }
        }
        then.run(machine, tokens, outputs);
        Ok(())
    }

    /// Quantizes the input of matrices with the columns and the step of `shape`.
    fn quantize(
        &mut self,
        shape: &MatrixShape,
        tokens: usize,
        input: &[f32],
    ) -> Result<Activations<'_>, NotFinite> {
        let codes = &mut self.codes[..tokens * shape.padded_cols()];
        let scales = &mut self.scales[..tokens * shape.steps()];
        quantize(self.machine, shape, input, codes, scales)?;
        Ok(Activations { codes, scales, tokens })
    }

    /// What [`QuantizedWeights::quantize`] made last, for matrices with the same columns and step.
    fn quantized(&self, shape: &MatrixShape, tokens: usize) -> Activations<'_> {
        let codes = &self.codes[..tokens * shape.padded_cols()];
        Activations { codes, scales: &self.scales[..tokens * shape.steps()], tokens }
    }
}

/// Quantizes the tokens of `input` for matrices with the columns and the step of `shape`.
fn quantize(
    machine: Machine<'_>,
    shape: &MatrixShape,
    input: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
) -> Result<(), NotFinite> {
    for ((values, codes), scales) in input
        .chunks_exact(shape.cols())
        .zip(codes.chunks_exact_mut(shape.padded_cols()))
        .zip(scales.chunks_exact_mut(shape.steps()))
    {
        if !(machine.kernels.quantize_activations)(values, shape.step_elems(), codes, scales) {
            return Err(NotFinite);
        }
    }
    Ok(())
}

/// The integer product of a matrix with these activations.
fn integer_product<'a>(
    machine: Machine<'a>,
    activations: &'a Activations<'_>,
) -> impl Fn(&MatrixView<'_>, Range<usize>, &mut OutputRows<'_>) + Sync {
    move |matrix, tiles, out| {
        let (product, _) = machine.kernels.matrix_product(matrix.shape(), activations.tokens);
        product(matrix, activations, tiles, out);
    }
}

/// Bytes of weights, times tokens, that make another thread worth its while: about as long as threads take to meet.
const BYTES_PER_THREAD: usize = 16 << 10;

/// Runs `product` for each matrix, and then what `then` says, in one parallel part: each thread with its share of every output's rows.
fn for_each_share(
    machine: Machine<'_>,
    matrices: &[MatrixView<'_>],
    tokens: usize,
    outputs: &mut [&mut [f32]],
    then: Then<'_>,
    product: impl Fn(&MatrixView<'_>, Range<usize>, &mut OutputRows<'_>) + Sync,
) {
    let kernels = machine.kernels;
    let mut views = heapless::Vec::<OutputRows<'_>, MOST_OUTPUTS>::new();
    for (matrix, output) in matrices.iter().zip(outputs) {
        // No set and no head has more matrices.
        let _ = views.push(OutputRows::new(output, tokens, matrix.shape().rows()));
    }
    let (silu, gelu) = (matches!(then, Then::SiluMultiply), matches!(then, Then::GeluMultiply));
    if let (Then::AddTo(sum), [matrix]) = (then, matrices) {
        let _ = views.push(OutputRows::new(sum, tokens, matrix.shape().rows()));
    }
    let bytes: usize = matrices.iter().map(|matrix| matrix.shape().section_bytes()).sum();
    let most_tasks = bytes.saturating_mul(tokens) / BYTES_PER_THREAD;
    for_each_row_share(machine.executor, &mut views, ROW_GRANULARITY, most_tasks, |shares| {
        for (matrix, RowShare { range, rows }) in matrices.iter().zip(&mut *shares) {
            product(matrix, range.start / TILE_ROWS..range.end.div_ceil(TILE_ROWS), rows);
        }
        for token in 0..tokens {
            match shares {
                [gate, up] if silu => {
                    (kernels.silu_multiply)(gate.rows.token_rows(token), up.rows.token_rows(token));
                }
                [gate, up] if gelu => {
                    gelu_multiply(kernels, gate.rows.token_rows(token), up.rows.token_rows(token));
                }
                // One more than there are matrices: the sum.
                [product, sum] if matrices.len() == 1 => {
                    (kernels.add)(sum.rows.token_rows(token), product.rows.token_rows(token));
                }
                _ => {}
            }
        }
    });
}

/// An input that can't be quantized.
struct NotFinite;

const OUTSIDE_NOT_FINITE: RuntimeError = RuntimeError::NotFinite { layer: None, set: None };

impl<'a> QuantizedWeights<'a> {
    /// Writes the embedding of a token (`hidden` numbers). The token is in the vocabulary.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn embed(&self, token: u32, output: &mut [f32]) -> Result<(), RuntimeError> {
        let token = token as usize;
        let (band, row) = match self.container.token_bands() {
            None => (None, token),
            // Counting bytes is little beside a block's products, and a table of rows would take four bytes a token for good.
            Some(bands) => {
                let band = bands[token];
                (Some(band), bands[..token].iter().filter(|&&other| other == band).count())
            }
        };
        self.embedding(band)?.decode_row(row, output);
        Ok(())
    }

    /// What stands at a position: `hidden` numbers where positions are learned, else nothing.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn position(&self, position: usize) -> Result<&'a [f32], RuntimeError> {
        let spec = &self.container.manifest().spec;
        if !spec.architecture.has_learned_positions() {
            return Ok(&[]);
        }
        let positions = self.floats(SectionKind::Positions, None)?;
        Ok(&positions[position * spec.hidden as usize..][..spec.hidden as usize])
    }

    /// The products of patches' numbers (m x numbers of a patch) with the matrix that makes tokens of them (m x hidden), of a classifier.
    ///
    /// # Errors
    /// [`RuntimeError::NotFinite`] or [`RuntimeError::Missing`].
    pub fn patches(&mut self, tokens: usize, input: &[f32], output: &mut [f32]) -> Result<(), RuntimeError> {
        let matrix = self.matrix(SectionKind::Patches, None)?;
        self.products(&[matrix], tokens, input, &mut [output], Then::Nothing)
            .map_err(|NotFinite| OUTSIDE_NOT_FINITE)
    }

    /// The bias of a classifier's head.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn head_bias(&self) -> Result<&'a [f32], RuntimeError> {
        self.floats(SectionKind::HeadBias, None)
    }

    /// The last norm, but of an encoder.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn final_norm(&self) -> Result<Norm<'a>, RuntimeError> {
        self.norm(SectionKind::FinalNorm, SectionKind::FinalNormBias)
    }

    /// The norm of the embeddings, of an encoder.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`].
    pub fn embedding_norm(&self) -> Result<Norm<'a>, RuntimeError> {
        self.norm(SectionKind::EmbeddingNorm, SectionKind::EmbeddingNormBias)
    }

    fn norm(&self, gain: SectionKind, bias: SectionKind) -> Result<Norm<'a>, RuntimeError> {
        let has_bias = self.container.manifest().spec.architecture.has_layer_norm();
        let bias = if has_bias { self.floats(bias, None)? } else { &[] };
        Ok(Norm { gain: self.floats(gain, None)?, bias })
    }

    /// The logits of one normalized hidden state (of a classifier those that its head reads, one behind the other): `vocabulary` numbers.
    ///
    /// # Errors
    /// [`RuntimeError::NotFinite`] or [`RuntimeError::Missing`].
    pub fn logits(&mut self, hidden: &[f32], output: &mut [f32]) -> Result<(), RuntimeError> {
        if self.head_input.is_empty() {
            return self.head_product(hidden, output);
        }
        let turn = self.matrix(SectionKind::HeadInput, None)?;
        // Taken out, since `products` borrows all of `self`.
        let turned = core::mem::take(&mut self.head_input);
        let made = self
            .products(&[turn], 1, hidden, &mut [&mut *turned], Then::Nothing)
            .map_err(|NotFinite| OUTSIDE_NOT_FINITE)
            .and_then(|()| self.head_product(turned, output));
        self.head_input = turned;
        made
    }

    /// The product of the head with its input.
    fn head_product(&mut self, hidden: &[f32], output: &mut [f32]) -> Result<(), RuntimeError> {
        let tied = self.container.manifest().spec.tied_head;
        match self.container.token_bands() {
            Some(token_bands) if tied => self.logits_of_bands(token_bands, hidden, output),
            _ => {
                let head = if tied { self.embedding(None) } else { self.matrix(SectionKind::Head, None) }?;
                self.products(&[head], 1, hidden, &mut [output], Then::Nothing)
                    .map_err(|NotFinite| OUTSIDE_NOT_FINITE)
            }
        }
    }

    /// The logits of an embedding in bands: the products of all bands, put into the order of tokens.
    fn logits_of_bands(
        &mut self,
        token_bands: &[u8],
        hidden: &[f32],
        output: &mut [f32],
    ) -> Result<(), RuntimeError> {
        const BANDS: usize = MAX_EMBEDDING_BANDS as usize;
        let mut bands = heapless::Vec::<MatrixView<'_>, BANDS>::new();
        for band in 0..self.container.manifest().spec.embedding_bands {
            // No container has more than `BANDS`.
            let _ = bands.push(self.embedding(Some(band))?);
        }
        // Taken out, since `products` borrows all of `self`.
        let banded = core::mem::take(&mut self.banded_logits);
        let mut outputs: [&mut [f32]; BANDS] = Default::default();
        // Where the logit of a band's next token lies.
        let mut next = [0; BANDS];
        let (mut start, mut rest) = (0, &mut *banded);
        for ((band, output), next) in bands.iter().zip(&mut outputs).zip(&mut next) {
            *next = start;
            start += band.shape().rows();
            (*output, rest) = rest.split_at_mut(band.shape().rows());
        }
        let made = self.products(&bands, 1, hidden, &mut outputs[..bands.len()], Then::Nothing);
        for (logit, &band) in output.iter_mut().zip(token_bands) {
            let next = &mut next[usize::from(band)];
            *logit = banded[*next];
            *next += 1;
        }
        self.banded_logits = banded;
        made.map_err(|NotFinite| OUTSIDE_NOT_FINITE)
    }

    /// The weights of a block.
    pub fn layer<'w>(&'w mut self, layer: usize) -> QuantizedLayer<'w, 'a> {
        QuantizedLayer { weights: self, layer }
    }

    fn floats(&self, kind: SectionKind, layer: Option<usize>) -> Result<&'a [f32], RuntimeError> {
        let name = SectionName { kind, layer: layer.map(|layer| layer as u16) };
        let missing = RuntimeError::Missing { kind: kind.name(), layer: layer.map(|layer| layer as u32) };
        self.container.floats(name).ok_or(missing)
    }
}

/// The weights of one block of a container.
#[derive(Debug)]
pub struct QuantizedLayer<'w, 'a> {
    weights: &'w mut QuantizedWeights<'a>,
    layer: usize,
}

impl BlockWeights for QuantizedLayer<'_, '_> {
    type Error = RuntimeError;

    fn vector(&self, kind: SectionKind) -> Result<&[f32], RuntimeError> {
        self.weights.floats(kind, Some(self.layer))
    }

    fn apply(
        &mut self,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
    ) -> Result<(), RuntimeError> {
        self.apply_then(self.weights.machine, set, tokens, input, outputs, Then::Nothing)
    }

    fn apply_then(
        &mut self,
        _machine: Machine<'_>,
        set: LinearSet,
        tokens: usize,
        input: &[f32],
        outputs: &mut [&mut [f32]],
        then: Then<'_>,
    ) -> Result<(), RuntimeError> {
        let mut matrices = heapless::Vec::<MatrixView<'_>, MOST_MATRICES>::new();
        let mut corrections = heapless::Vec::<Option<LowRankView<'_>>, MOST_MATRICES>::new();
        for &kind in set.kinds() {
            let matrix = self.weights.matrix(kind, Some(self.layer))?;
            // No set has more matrices.
            let _ = matrices.push(matrix);
            let name = SectionName { kind, layer: Some(self.layer as u16) };
            let _ = corrections.push(self.weights.container.low_rank(name));
        }
        let error = RuntimeError::NotFinite { layer: Some(self.layer as u32), set: Some(set) };
        // A program without the part runs no container that has corrections (crate::parts).
        let corrected = cfg!(feature = "low-rank") && corrections.iter().any(Option::is_some);
        let made = match corrected {
            false => self.weights.products(&matrices, tokens, input, outputs, then),
            true => self.weights.corrected_products(&matrices, &corrections, tokens, input, outputs, then),
        };
        made.map_err(|NotFinite| error)
    }
}
