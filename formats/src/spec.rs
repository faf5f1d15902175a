//! The shape of a model: everything the runtime must know beside the weights themselves.

use serde::{Deserialize, Serialize};

/// Most end-of-text tokens a model may have.
pub const MAX_END_TOKENS: usize = 8;
/// Most matrices that an embedding may be divided into.
pub const MAX_EMBEDDING_BANDS: u8 = 8;

/// The architecture, named as Hugging Face names it (`model_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Architecture {
    /// Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
    Llama,
}

impl Architecture {
    /// The name as Hugging Face's `model_type` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
        }
    }
}

/// Sizes and constants of a decoder. All sizes are in elements, tokens or counts, never in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ModelSpec {
    /// Which forward runs it.
    pub architecture: Architecture,
    /// Tokens in the vocabulary: rows of the embedding and of the head.
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
    /// Width of one head; even, for the rotary pairs.
    pub head_dim: u32,
    /// Most positions a sequence may have.
    pub context: u32,
    /// Added to the mean square in RMSNorm.
    pub norm_epsilon: f32,
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
            tied_head: true,
            embedding_bands: 1,
            begin_token: Some(0),
            end_tokens: heapless::Vec::from_slice(&[0]).unwrap(),
            chat_template: false,
        }
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
}
