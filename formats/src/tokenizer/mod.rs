//! The tokenizer section: a vocabulary with its merges or scores, read in place.
//!
//! A merge is a token and a place to cut it, so that the merge table needs no pairs of ids:
//!
//! ```text
//! merge(left, right):
//!     search the ranks, sorted by (bytes of their result, split),
//!         for (bytes(left) ++ bytes(right), length(left))
//! ```
//!
//! `docs/tokenizer-section.md` gives the layout byte for byte.

mod check;
mod numbers;
mod ordered;
mod pipeline;
mod problem;
mod view;
#[cfg(feature = "write")]
mod write;

pub use ordered::Narrowing;
pub use pipeline::{BertNormalizer, Decoding, Model, Normalizer, PreTokenizer, SpacePrefix};
pub use problem::{TokenizerFormatError, TokenizerProblem};
pub use view::{AddedToken, TokenizerView};
#[cfg(feature = "write")]
pub use write::{
    AddedFlags, TokenizerExtension, TokenizerParts, TokenizerWriteError, write_extended_tokenizer,
    write_tokenizer,
};

/// Version of the layout for byte-level BPE without a normalizer: what the larger head of [`TOKENIZER_VERSION_EXTENDED`] says is
/// not needed then.
pub const TOKENIZER_VERSION: u8 = 1;
/// Version of the layout for every other tokenizer.
pub const TOKENIZER_VERSION_EXTENDED: u8 = 2;
/// Most bytes a token may have.
pub const MAX_TOKEN_BYTES: usize = u8::MAX as usize;
/// Id that stands for no token, such as that of a byte that has none.
pub const NO_TOKEN: u32 = u32::MAX;
/// Continues a word in WordPiece.
pub const CONTINUATION: &[u8] = b"##";

const HEAD_BYTES: usize = 32;
/// Bytes of the head of version 2.
const EXTENDED_HEAD_BYTES: usize = 64;
/// Tokens that share one entry of the array of block starts.
const BLOCK_TOKENS: usize = 32;
/// Ids and ranks are u16 up to this many of them, u32 above.
const MAX_NARROW: usize = 1 << 16;

const FLAG_EXPLICIT_RESULTS: u8 = 1 << 0;
const FLAG_EXPLICIT_BYTE_TOKENS: u8 = 1 << 1;
const FLAG_ADD_PREFIX_SPACE: u8 = 1 << 2;
const FLAG_IGNORE_MERGES: u8 = 1 << 3;
const KNOWN_FLAGS: u8 =
    FLAG_EXPLICIT_RESULTS | FLAG_EXPLICIT_BYTE_TOKENS | FLAG_ADD_PREFIX_SPACE | FLAG_IGNORE_MERGES;

const FLAG_FUSE_UNKNOWN: u8 = 1 << 0;
const FLAG_WIDE_SCORES: u8 = 1 << 1;
const KNOWN_EXTENDED_FLAGS: u8 = FLAG_FUSE_UNKNOWN | FLAG_WIDE_SCORES;

const ADDED_SPECIAL: u8 = 1 << 0;
const ADDED_NORMALIZED: u8 = 1 << 1;
const ADDED_SINGLE_WORD: u8 = 1 << 2;
const ADDED_LEFT_STRIP: u8 = 1 << 3;
const ADDED_RIGHT_STRIP: u8 = 1 << 4;

/// Position of a byte in GPT-2's byte alphabet: the printable bytes first, then the others, each in order.
///
/// Trainers number the tokens of single bytes in this order, since the character that stands for a byte that isn't printable
/// is U+0100 and up.
pub fn byte_alphabet_position(byte: u8) -> u8 {
    match byte {
        33..=126 => byte - 33,
        161..=172 => byte - 161 + 94,
        174..=255 => byte - 174 + 106,
        0..=32 => byte + 188,
        127..=160 => byte - 127 + 221,
        173 => 255,
    }
}
