//! The shape of a model: everything the runtime must know beside the weights themselves.

use serde::{Deserialize, Serialize};

/// Most end-of-text tokens a model may have.
pub const MAX_END_TOKENS: usize = 8;

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
    /// The token that starts a text, where the model has one.
    pub begin_token: Option<u32>,
    /// Tokens that end a text.
    pub end_tokens: heapless::Vec<u32, MAX_END_TOKENS>,
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
