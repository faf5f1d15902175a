//! What a decoder's keys and values are kept as.

use serde::{Deserialize, Serialize};

/// What keys and values are kept as, from one token to the next (docs/numerics.md).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CacheFormat {
    /// Binary16 numbers, each by itself.
    #[default]
    Binary16,
    /// int8 codes, and an f32 scale for each position's key and value of a head: about half of the bytes.
    Int8,
}

impl CacheFormat {
    /// Its name in reports and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            CacheFormat::Binary16 => "f16",
            CacheFormat::Int8 => "int8",
        }
    }

    /// Bytes of the key (and of the value) of a position and a head of `head_dim` elements.
    pub const fn head_bytes(self, head_dim: u32) -> u64 {
        match self {
            CacheFormat::Binary16 => 2 * head_dim as u64,
            CacheFormat::Int8 => head_dim as u64 + 4,
        }
    }
}
