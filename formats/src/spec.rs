//! The shape of a model: everything the runtime must know beside the weights themselves.

use crate::hadamard::Hadamard;
use crate::image_input::ImageInput;
use serde::{Deserialize, Serialize};

/// Most end-of-text tokens a model may have.
pub const MAX_END_TOKENS: usize = 8;
/// Most matrices that an embedding may be divided into.
pub const MAX_EMBEDDING_BANDS: u8 = 8;

/// Which forward runs a model, named after the first that had it as Hugging Face's `model_type` names that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Architecture {
    /// Llama: RMSNorm, rotary positions, grouped-query attention, a gated MLP. Mistral, Phi-3, SmolLM3, Granite and the first Gemma, too.
    Llama,
    /// Llama with biases of queries, keys and values.
    Qwen2,
    /// Llama with an RMSNorm of each head's queries and keys.
    Qwen3,
    /// Llama with an RMSNorm behind attention and behind the MLP, too.
    Gemma2,
    /// Gemma 2 with an RMSNorm of each head's queries and keys, and rotary frequencies of their own for layers with a window.
    Gemma3,
    /// GPT-NeoX (Pythia): LayerNorm, rotary positions in a part of the head, biases, attention and MLP side by side.
    GptNeox,
    /// GPT-2: LayerNorm, learned positions, biases. OPT, too.
    Gpt2,
    /// BERT, an encoder: LayerNorm behind attention and MLP, learned positions, biases, every token sees all. RoBERTa and DistilBERT, too.
    Bert,
    /// ViT, a classifier of images: LayerNorm, learned positions, biases, every token sees all. DeiT, too.
    Vit,
    /// GPT-Neo: GPT-2 without biases of queries, keys and values; of layers with and without a window the first has none.
    GptNeo,
    /// OLMo 2: Llama with RMSNorms behind attention and MLP alone, and one of all queries and one of all keys.
    Olmo2,
    /// StableLM: LayerNorm, rotary positions in a part of the head, a gated MLP, biases of queries, keys and values.
    StableLm,
}

/// What kind of thing a model is, by what it reads and what comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ModelKind {
    /// Tokens in, logits of the next one out.
    Decoder,
    /// Tokens of a text in, a vector out.
    Encoder,
    /// An image in, logits of its class out.
    Classifier,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Architecture; 12] = [
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::GptNeox,
        Architecture::Gpt2,
        Architecture::Bert,
        Architecture::Vit,
        Architecture::GptNeo,
        Architecture::Olmo2,
        Architecture::StableLm,
    ];

    /// The name as Hugging Face's `model_type` spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Gemma2 => "gemma2",
            Architecture::Gemma3 => "gemma3_text",
            Architecture::GptNeox => "gpt_neox",
            Architecture::Gpt2 => "gpt2",
            Architecture::Bert => "bert",
            Architecture::Vit => "vit",
            Architecture::GptNeo => "gpt_neo",
            Architecture::Olmo2 => "olmo2",
            Architecture::StableLm => "stablelm",
        }
    }

    /// Whether the MLP has a gate.
    pub const fn has_gate(self) -> bool {
        !self.has_layer_norm() || matches!(self, Architecture::StableLm)
    }

    /// Whether norms are LayerNorms, with a bias, and not RMSNorms.
    pub const fn has_layer_norm(self) -> bool {
        use Architecture as A;
        matches!(self, A::GptNeox | A::Gpt2 | A::GptNeo | A::StableLm | A::Bert | A::Vit)
    }

    /// Whether it is an encoder: every token sees all of its text, and what comes out is one vector of the text, not logits of a next token.
    pub const fn is_encoder(self) -> bool {
        matches!(self, Architecture::Bert)
    }

    /// Whether it is a classifier of images.
    pub const fn is_classifier(self) -> bool {
        matches!(self, Architecture::Vit)
    }

    /// Whether it has a next token.
    pub const fn is_decoder(self) -> bool {
        matches!(self.kind(), ModelKind::Decoder)
    }

    /// What kind of thing its models are.
    pub const fn kind(self) -> ModelKind {
        match self {
            Architecture::Bert => ModelKind::Encoder,
            Architecture::Vit => ModelKind::Classifier,
            _ => ModelKind::Decoder,
        }
    }

    /// Whether every token sees all others, and not those before it alone.
    pub const fn sees_all(self) -> bool {
        !self.is_decoder()
    }

    /// Whether queries and keys are normalized: each head's by itself, of OLMo 2 all of a token's together.
    pub const fn has_head_norms(self) -> bool {
        matches!(self, Architecture::Qwen3 | Architecture::Gemma3 | Architecture::Olmo2)
    }

    /// Whether there are norms in front of attention and MLP, and not behind them alone.
    pub const fn norms_before(self) -> bool {
        !matches!(self, Architecture::Bert | Architecture::Olmo2)
    }

    /// Whether what attention and MLP give, and the MLP's hidden layer, have biases: those without a gate.
    pub const fn has_output_bias(self) -> bool {
        !self.has_gate()
    }

    /// Whether queries, keys and values have biases.
    pub const fn has_query_bias(self) -> bool {
        matches!(self, Architecture::Qwen2)
            || (self.has_layer_norm() && !matches!(self, Architecture::GptNeo))
    }

    /// Whether positions are learned vectors, and not rotations.
    pub const fn has_learned_positions(self) -> bool {
        use Architecture as A;
        matches!(self, A::Gpt2 | A::GptNeo | A::Bert | A::Vit)
    }

    /// Whether layers with a window have rotary frequencies of their own.
    pub const fn has_local_frequencies(self) -> bool {
        matches!(self, Architecture::Gemma3)
    }
}

/// What an MLP applies to its gate or, where it has none, to its hidden layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Activation {
    /// `x / (1 + exp(-x))` (arXiv:1702.03118).
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` (arXiv:1606.08415, section 2).
    GeluTanh,
    /// `x / 2 (1 + erf(x / sqrt(2)))` (arXiv:1606.08415, section 2).
    Gelu,
    /// `max(x, 0)`.
    Relu,
}

/// In what a model differs from others of its architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Variant {
    /// Of the MLP.
    pub activation: Activation,
    /// Elements of a head that rotary positions turn, from its first on: even; 0 where positions are learned.
    pub rotary_dim: u32,
    /// Positions that a token sees in layers with a window, its own included; 0: no layer has one.
    pub sliding_window: u32,
    /// Where there are windows, every so many-th layer has none, of GPT-Neo from the first on; 0: all layers have one.
    pub global_every: u32,
    /// Every so many-th layer rotates nothing, and knows no positions but by the mask (SmolLM3); 0: all rotate.
    pub unrotated_every: u32,
    /// What the products of queries and keys are multiplied with; 0: one over the root of `head_dim`.
    pub score_scale: f32,
    /// Scores stay below this, as `cap * tanh(score / cap)` (Gemma 2, arXiv:2408.00118, section 2); 0: they go as far as they go.
    pub score_cap: f32,
    /// Likewise the logits.
    pub logit_cap: f32,
    /// What a token's embedding is multiplied with where it enters the first block.
    pub embedding_scale: f32,
    /// Attention and MLP of a block have the same input, and their outputs are added to it together (GPT-NeoX, StableLM).
    pub parallel_residual: bool,
}

impl Variant {
    /// A plain model with gates (SiLU) and heads of this width, rotated whole.
    pub const fn plain(head_dim: u32) -> Variant {
        Variant {
            activation: Activation::Silu,
            rotary_dim: head_dim,
            sliding_window: 0,
            global_every: 0,
            unrotated_every: 0,
            score_scale: 0.0,
            score_cap: 0.0,
            logit_cap: 0.0,
            embedding_scale: 1.0,
            parallel_residual: false,
        }
    }
}

/// How an encoder makes one vector of the states of a text's tokens behind the last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Pooling {
    /// Their mean (Reimers and Gurevych, arXiv:1908.10084, section 3).
    Mean,
    /// The state of the first token (`[CLS]`).
    Cls,
}

impl Pooling {
    /// The name in reports, as sentence-transformers has it.
    pub const fn name(self) -> &'static str {
        match self {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }
}

/// What an encoder makes of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TextEmbedding {
    /// How the tokens' states become one vector.
    pub pooling: Pooling,
    /// The vector is divided by its length.
    pub normalized: bool,
}

/// Changes of basis that the forward takes part in, where a model's weights were rotated (docs/methods.md). Most rotations are folded
/// into weights and leave nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OnlineTransforms {
    /// The input of the output projections passes a Hadamard transform, over all heads.
    pub output: bool,
    /// Likewise the input of the down projections.
    pub down: bool,
    /// The input of a tied head passes a matrix, which turns the basis of a rotated stream so that the embedding can serve as the head.
    pub head_input: bool,
}

/// What comes out of a model. A variant is numbered by its place among those that are read, so only the last ones may be
/// left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Output {
    /// Logits of the next token, of a decoder.
    NextToken,
    /// A vector of a text, of an encoder.
    #[cfg_attr(not(any(feature = "encoders", feature = "classifiers")), serde(skip_deserializing))]
    Vector(TextEmbedding),
    /// Logits of an image's class, of a classifier.
    #[cfg_attr(not(feature = "classifiers"), serde(skip_deserializing))]
    Classes(ImageInput),
}

/// Sizes and constants of a model. All sizes are in elements, tokens or counts, never in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ModelSpec {
    /// Which forward runs it.
    pub architecture: Architecture,
    /// Tokens in the vocabulary: rows of the embedding and of the head. Of a classifier the classes.
    pub vocabulary: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width inside the MLP.
    pub intermediate: u32,
    /// Number of transformer blocks.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Width of one head; even.
    pub head_dim: u32,
    /// Most positions a sequence may have; of a classifier those that an image has.
    pub context: u32,
    /// Added to the mean square in RMSNorm, to the variance in LayerNorm.
    pub norm_epsilon: f32,
    /// What is not the same in all models of the architecture.
    pub variant: Variant,
    /// The head is the embedding matrix, stored once.
    pub tied_head: bool,
    /// How many matrices the embedding's rows are divided into: bands of tokens, each with bits and groups of its own.
    pub embedding_bands: u8,
    /// The token that starts a text, where the model has one.
    pub begin_token: Option<u32>,
    /// Tokens that end a text.
    pub end_tokens: heapless::Vec<u32, MAX_END_TOKENS>,
    /// The container has a chat template.
    pub chat_template: bool,
    /// What comes out.
    pub output: Output,
    /// What of a rotation is left to the forward.
    pub online: OnlineTransforms,
}

impl ModelSpec {
    /// Width of all query heads together: outputs of the query projection, inputs of the output projection.
    pub fn query_width(&self) -> usize {
        self.heads as usize * self.head_dim as usize
    }

    /// Width of all key heads together (and of all value heads).
    pub fn kv_width(&self) -> usize {
        self.kv_heads as usize * self.head_dim as usize
    }

    /// What an encoder makes of a text; none of other models.
    pub fn embedding(&self) -> Option<TextEmbedding> {
        match self.output {
            Output::Vector(embedding) => Some(embedding),
            Output::NextToken | Output::Classes(_) => None,
        }
    }

    /// What a classifier reads; none of other models.
    pub fn image(&self) -> Option<&ImageInput> {
        match &self.output {
            Output::Classes(image) => Some(image),
            Output::NextToken | Output::Vector(_) => None,
        }
    }

    /// How many positions a token sees in this layer, its own included; `None`: all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let Variant { sliding_window, global_every, .. } = self.variant;
        // The first of a period has none, or its last.
        let place = if self.architecture == Architecture::GptNeo { layer } else { layer + 1 };
        // A period of 0 has no multiples.
        let global = global_every > 0 && place.is_multiple_of(global_every as usize);
        (sliding_window > 0 && !global).then_some(sliding_window as usize)
    }

    /// Whether this layer rotates queries and keys by their positions.
    pub fn rotates(&self, layer: usize) -> bool {
        let every = self.variant.unrotated_every as usize;
        // A period of 0 has no multiples.
        self.variant.rotary_dim > 0 && !(every > 0 && (layer + 1).is_multiple_of(every))
    }
}

/// Why a spec isn't one: a size out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpecError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub found: u32,
    /// What it must be.
    pub expected: &'static str,
}

impl core::fmt::Display for SpecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.field, self.expected, self.found)
    }
}

impl core::error::Error for SpecError {}

impl ModelSpec {
    /// Checks every size against its bounds, so that later products cannot overflow.
    ///
    /// # Errors
    /// The first field out of its bounds.
    #[inline(never)]
    pub fn check(&self) -> Result<(), SpecError> {
        let within = |field, found, highest, expected| {
            if (1..=highest).contains(&found) { Ok(()) } else { Err(SpecError { field, found, expected }) }
        };
        within("vocabulary", self.vocabulary, 1 << 20, "1 to 1048576")?;
        within("hidden", self.hidden, 1 << 16, "1 to 65536")?;
        within("intermediate", self.intermediate, 1 << 18, "1 to 262144")?;
        within("layers", self.layers, 512, "1 to 512")?;
        within("heads", self.heads, 1024, "1 to 1024")?;
        within("kv_heads", self.kv_heads, 1024, "1 to 1024")?;
        within("head_dim", self.head_dim, 1024, "1 to 1024")?;
        within("context", self.context, 1 << 20, "1 to 1048576")?;
        within("embedding_bands", self.embedding_bands.into(), MAX_EMBEDDING_BANDS.into(), "1 to 8")?;
        if !self.head_dim.is_multiple_of(2) {
            return Err(SpecError { field: "head_dim", found: self.head_dim, expected: "an even number" });
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(SpecError {
                field: "kv_heads",
                found: self.kv_heads,
                expected: "a divisor of heads",
            });
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon >= 0.0) {
            let found = self.norm_epsilon.to_bits();
            return Err(SpecError {
                field: "norm_epsilon (its bits)",
                found,
                expected: "a finite number, 0 or more",
            });
        }
        self.check_variant()?;
        self.check_output()?;
        self.check_online()?;
        for token in self.begin_token.iter().chain(&self.end_tokens) {
            if *token >= self.vocabulary {
                return Err(SpecError {
                    field: "begin or end token",
                    found: *token,
                    expected: "a token of the vocabulary",
                });
            }
        }
        Ok(())
    }

    /// An encoder has no next token: no head, no conversations, no windows; a decoder has no vector of a text. A classifier has no tokens at all.
    #[inline(never)]
    fn check_output(&self) -> Result<(), SpecError> {
        let refused = |field, found, expected| Err(SpecError { field, found, expected });
        let (kind, number) = match self.output {
            Output::NextToken => (ModelKind::Decoder, 0),
            Output::Vector(_) => (ModelKind::Encoder, 1),
            Output::Classes(_) => (ModelKind::Classifier, 2),
        };
        if kind != self.architecture.kind() {
            let expected = "0 (a next token) of a decoder, 1 (a vector of a text) of an encoder, 2 (classes of an image) of a classifier";
            return refused("output", number, expected);
        }
        if self.architecture.is_decoder() {
            return Ok(());
        }
        let none = "0 with an encoder or a classifier";
        if self.tied_head {
            return refused("tied_head", 1, none);
        }
        if self.chat_template {
            return refused("chat_template", 1, none);
        }
        if self.variant.sliding_window > 0 {
            return refused("sliding_window", self.variant.sliding_window, none);
        }
        let Some(image) = self.image().filter(|_| cfg!(feature = "classifiers")) else { return Ok(()) };
        image.check()?;
        let none = "0 with a classifier";
        if image.tokens() != self.context {
            return refused("context", self.context, "as many as an image has tokens");
        }
        if self.embedding_bands != 1 {
            return refused("embedding_bands", self.embedding_bands.into(), "1 with a classifier");
        }
        if let Some(token) = self.begin_token.iter().chain(&self.end_tokens).next() {
            return refused("begin or end token", *token, "none with a classifier");
        }
        if self.variant.embedding_scale != 1.0 {
            let found = self.variant.embedding_scale.to_bits();
            return refused("embedding_scale (its bits)", found, "1 with a classifier");
        }
        if self.variant.logit_cap != 0.0 {
            return refused("logit_cap (its bits)", self.variant.logit_cap.to_bits(), none);
        }
        Ok(())
    }

    /// There is a transform for every width that passes one, and a tied head behind the matrix of its input.
    #[inline(never)]
    fn check_online(&self) -> Result<(), SpecError> {
        let widths = [
            ("online output", self.online.output, self.query_width()),
            ("online down", self.online.down, self.intermediate as usize),
        ];
        for (field, asked, width) in widths {
            if cfg!(feature = "hadamard") && asked && Hadamard::new(width).is_none() {
                let expected = "a width that has a Hadamard transform";
                return Err(SpecError { field, found: width as u32, expected });
            }
        }
        if self.online.head_input && !self.tied_head {
            let expected = "0 where the head is a matrix of its own, or there is none";
            return Err(SpecError { field: "online head_input", found: 1, expected });
        }
        Ok(())
    }

    #[inline(never)]
    fn check_variant(&self) -> Result<(), SpecError> {
        let Variant { activation, rotary_dim, sliding_window, global_every, unrotated_every, .. } =
            self.variant;
        let refused = |field, found, expected| Err(SpecError { field, found, expected });
        let gated = self.architecture.has_gate();
        if gated != matches!(activation, Activation::Silu)
            && !(gated && matches!(activation, Activation::GeluTanh))
        {
            let expected = "SiLU or tanh's GELU with a gate, GELU, tanh's GELU or ReLU without";
            return refused("activation", activation as u32, expected);
        }
        let rotated = !self.architecture.has_learned_positions();
        if rotated != (rotary_dim > 0) || rotary_dim > self.head_dim || !rotary_dim.is_multiple_of(2) {
            let expected = "an even number of at most head_dim, 0 exactly where positions are learned";
            return refused("rotary_dim", rotary_dim, expected);
        }
        if sliding_window > 1 << 20 {
            return refused("sliding_window", sliding_window, "0 to 1048576");
        }
        if global_every > 512 {
            return refused("global_every", global_every, "0 to 512");
        }
        if unrotated_every > 512 || (unrotated_every > 0 && !rotated) {
            return refused("unrotated_every", unrotated_every, "0 to 512, 0 where positions are learned");
        }
        if self.variant.parallel_residual
            && !matches!(self.architecture, Architecture::GptNeox | Architecture::StableLm)
        {
            return refused("parallel_residual", 1, "0 with this architecture");
        }
        let Variant { score_scale, score_cap, logit_cap, embedding_scale, .. } = self.variant;
        for (field, number, least) in [
            ("score_scale (its bits)", score_scale, 0.0),
            ("score_cap (its bits)", score_cap, 0.0),
            ("logit_cap (its bits)", logit_cap, 0.0),
            ("embedding_scale (its bits)", embedding_scale, f32::MIN_POSITIVE),
        ] {
            if !(least..=1e6).contains(&number) {
                return refused(field, number.to_bits(), "a number from 0 to 1e6, a scale above 0");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> ModelSpec {
        ModelSpec {
            architecture: Architecture::Llama,
            vocabulary: 260,
            hidden: 32,
            intermediate: 48,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            context: 64,
            norm_epsilon: 1e-5,
            variant: Variant::plain(8),
            tied_head: true,
            embedding_bands: 1,
            begin_token: Some(0),
            end_tokens: heapless::Vec::from_slice(&[0]).unwrap(),
            chat_template: false,
            output: Output::NextToken,
            online: OnlineTransforms::default(),
        }
    }

    /// What comes out of a test's model of this architecture.
    fn output(architecture: Architecture) -> Output {
        match architecture.kind() {
            ModelKind::Decoder => Output::NextToken,
            ModelKind::Encoder => Output::Vector(TextEmbedding { pooling: Pooling::Mean, normalized: true }),
            ModelKind::Classifier => Output::Classes(crate::image_input::tests::input()),
        }
    }

    /// A test's model of this architecture, but for the variant.
    pub(crate) fn of(architecture: Architecture) -> ModelSpec {
        let mut spec = ModelSpec {
            architecture,
            tied_head: architecture.is_decoder(),
            output: output(architecture),
            ..spec()
        };
        if architecture.is_classifier() {
            spec.begin_token = None;
            spec.end_tokens.clear();
        }
        spec
    }

    #[test]
    fn sizes_out_of_bounds_are_named() {
        assert_eq!(spec().check(), Ok(()));
        let field = |spec: ModelSpec| spec.check().unwrap_err().field;
        assert_eq!(field(ModelSpec { hidden: 0, ..spec() }), "hidden");
        assert_eq!(field(ModelSpec { layers: 513, ..spec() }), "layers");
        for bands in [0, 9] {
            assert_eq!(field(ModelSpec { embedding_bands: bands, ..spec() }), "embedding_bands");
        }
        assert_eq!(field(ModelSpec { kv_heads: 3, ..spec() }), "kv_heads");
        assert_eq!(field(ModelSpec { head_dim: 7, ..spec() }), "head_dim");
        assert_eq!(field(ModelSpec { norm_epsilon: f32::NAN, ..spec() }), "norm_epsilon (its bits)");
        assert_eq!(field(ModelSpec { begin_token: Some(260), ..spec() }), "begin or end token");
    }

    #[test]
    fn variants_that_no_forward_runs_are_named() {
        let of = |architecture: Architecture, variant| {
            ModelSpec { variant, ..super::tests::of(architecture) }.check()
        };
        let plain = || Variant::plain(8);
        let ungated = || Variant { activation: Activation::Gelu, ..plain() };
        let learned = || Variant { rotary_dim: 0, ..ungated() };
        for architecture in Architecture::ALL {
            let variant = match architecture {
                Architecture::Gpt2 | Architecture::Bert | Architecture::Vit => learned(),
                Architecture::GptNeo => Variant { sliding_window: 8, global_every: 2, ..learned() },
                Architecture::GptNeox => Variant { parallel_residual: true, ..ungated() },
                Architecture::StableLm => Variant { parallel_residual: true, rotary_dim: 2, ..plain() },
                _ => Variant {
                    activation: Activation::GeluTanh,
                    sliding_window: 8,
                    global_every: 2,
                    ..plain()
                },
            };
            assert_eq!(of(architecture, variant), Ok(()), "{architecture:?}");
        }
        use Architecture as A;
        let field = |architecture, variant| of(architecture, variant).unwrap_err().field;
        assert_eq!(field(A::Llama, ungated()), "activation");
        assert_eq!(field(A::Qwen2, Variant { activation: Activation::Relu, ..plain() }), "activation");
        assert_eq!(field(A::GptNeox, plain()), "activation");
        assert_eq!(field(A::Llama, Variant { rotary_dim: 0, ..plain() }), "rotary_dim");
        assert_eq!(field(A::Gpt2, ungated()), "rotary_dim");
        for rotary_dim in [3, 10] {
            assert_eq!(field(A::GptNeox, Variant { rotary_dim, ..ungated() }), "rotary_dim");
        }
        assert_eq!(field(A::Llama, Variant { sliding_window: u32::MAX, ..plain() }), "sliding_window");
        assert_eq!(field(A::Llama, Variant { global_every: 513, ..plain() }), "global_every");
        assert_eq!(field(A::Llama, Variant { unrotated_every: 513, ..plain() }), "unrotated_every");
        assert_eq!(field(A::Gpt2, Variant { unrotated_every: 2, ..learned() }), "unrotated_every");
        assert_eq!(field(A::Llama, Variant { parallel_residual: true, ..plain() }), "parallel_residual");
        for number in [f32::NAN, f32::INFINITY, -1.0] {
            assert_eq!(field(A::Llama, Variant { score_scale: number, ..plain() }), "score_scale (its bits)");
            assert_eq!(field(A::Llama, Variant { score_cap: number, ..plain() }), "score_cap (its bits)");
            assert_eq!(field(A::Llama, Variant { logit_cap: number, ..plain() }), "logit_cap (its bits)");
        }
        let variant = Variant { embedding_scale: 0.0, ..plain() };
        assert_eq!(field(A::Llama, variant), "embedding_scale (its bits)");
    }

    #[test]
    fn layers_without_rotation_are_periodic() {
        let rotates = |rotary_dim, unrotated_every| {
            let variant = Variant { rotary_dim, unrotated_every, ..Variant::plain(8) };
            let spec = ModelSpec { variant, ..spec() };
            (0..4).map(|layer| spec.rotates(layer)).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(rotates(8, 0), [true; 4]);
        assert_eq!(rotates(8, 1), [false; 4]);
        assert_eq!(rotates(8, 2), [true, false, true, false]);
        assert_eq!(rotates(0, 0), [false; 4]);
    }

    #[test]
    fn encoders_have_a_vector_and_no_next_token() {
        let variant = Variant { rotary_dim: 0, activation: Activation::Gelu, ..Variant::plain(8) };
        let bert = ModelSpec { variant: variant.clone(), ..of(Architecture::Bert) };
        assert_eq!(bert.check(), Ok(()));
        let field = |spec: ModelSpec| spec.check().unwrap_err().field;
        assert_eq!(field(ModelSpec { output: Output::NextToken, ..bert.clone() }), "output");
        assert_eq!(field(ModelSpec { tied_head: true, ..bert.clone() }), "tied_head");
        assert_eq!(field(ModelSpec { chat_template: true, ..bert.clone() }), "chat_template");
        let windowed = Variant { sliding_window: 4, ..variant };
        assert_eq!(field(ModelSpec { variant: windowed, ..bert.clone() }), "sliding_window");
        assert_eq!(field(ModelSpec { output: bert.output, ..spec() }), "output");
    }

    #[test]
    fn classifiers_have_an_image_and_no_tokens() {
        let variant = Variant { rotary_dim: 0, activation: Activation::Gelu, ..Variant::plain(8) };
        let vit = ModelSpec { variant: variant.clone(), ..of(Architecture::Vit) };
        assert_eq!(vit.check(), Ok(()));
        let field = |spec: ModelSpec| spec.check().unwrap_err().field;
        assert_eq!(field(ModelSpec { output: Output::NextToken, ..vit.clone() }), "output");
        assert_eq!(field(ModelSpec { output: output(Architecture::Bert), ..vit.clone() }), "output");
        assert_eq!(field(ModelSpec { tied_head: true, ..vit.clone() }), "tied_head");
        assert_eq!(field(ModelSpec { context: 63, ..vit.clone() }), "context");
        assert_eq!(field(ModelSpec { embedding_bands: 2, ..vit.clone() }), "embedding_bands");
        assert_eq!(field(ModelSpec { begin_token: Some(0), ..vit.clone() }), "begin or end token");
        let scaled = Variant { embedding_scale: 2.0, ..variant.clone() };
        assert_eq!(field(ModelSpec { variant: scaled, ..vit.clone() }), "embedding_scale (its bits)");
        let bounded = Variant { logit_cap: 2.0, ..variant };
        assert_eq!(field(ModelSpec { variant: bounded, ..vit.clone() }), "logit_cap (its bits)");
        let image = crate::image_input::ImageInput { patch: 5, ..*vit.image().unwrap() };
        assert_eq!(field(ModelSpec { output: Output::Classes(image), ..vit }), "patch");
    }

    /// Containers of version 6.0 had an optional way to make a vector in this place: the bytes mean the same.
    #[test]
    fn outputs_are_spelled_as_version_6_0_spelled_them() {
        let bytes = |output: &Output| postcard::to_extend(output, std::vec::Vec::new()).unwrap();
        let old =
            |embedding: Option<TextEmbedding>| postcard::to_extend(&embedding, std::vec::Vec::new()).unwrap();
        assert_eq!(bytes(&Output::NextToken), old(None));
        for pooling in [Pooling::Mean, Pooling::Cls] {
            for normalized in [false, true] {
                let embedding = TextEmbedding { pooling, normalized };
                assert_eq!(bytes(&Output::Vector(embedding)), old(Some(embedding)));
            }
        }
    }

    #[test]
    fn online_transforms_without_a_transform_are_named() {
        let check = |output, down, head_input, intermediate, tied_head| {
            let online = OnlineTransforms { output, down, head_input };
            ModelSpec { online, intermediate, tied_head, ..spec() }
                .check()
                .map_err(|error| (error.field, error.found))
        };
        assert_eq!(check(true, true, true, 48, true), Ok(()));
        assert_eq!(check(true, false, false, 46, true), Ok(()));
        assert_eq!(check(false, true, false, 46, true), Err(("online down", 46)));
        assert_eq!(check(false, false, true, 48, false), Err(("online head_input", 1)));
        let odd = ModelSpec { heads: 3, kv_heads: 3, head_dim: 2, variant: Variant::plain(2), ..spec() };
        let online = OnlineTransforms { output: true, ..Default::default() };
        assert_eq!(ModelSpec { online, ..odd }.check().map_err(|error| error.field), Err("online output"));
    }

    #[test]
    fn windows_are_periodic() {
        let windows = |sliding_window, global_every| {
            let variant = Variant { sliding_window, global_every, ..Variant::plain(8) };
            let spec = ModelSpec { variant, ..spec() };
            (0..6).map(|layer| spec.window(layer)).collect::<std::vec::Vec<_>>()
        };
        assert_eq!(windows(0, 0), [None; 6]);
        assert_eq!(windows(0, 2), [None; 6]);
        assert_eq!(windows(5, 0), [Some(5); 6]);
        assert_eq!(windows(5, 3), [Some(5), Some(5), None, Some(5), Some(5), None]);
        let variant = Variant { sliding_window: 5, global_every: 3, ..Variant::plain(8) };
        let neo = ModelSpec { variant, ..of(Architecture::GptNeo) };
        let windows = [0, 1, 2, 3, 4, 5].map(|layer| neo.window(layer));
        assert_eq!(windows, [None, Some(5), Some(5), None, Some(5), Some(5)]);
    }
}
