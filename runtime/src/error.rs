//! Why the runtime stops: which layer or token, what was expected and what was found.

use crate::linear::LinearSet;
use core::fmt;
use rescomp_formats::spec::ModelKind;

/// Why the runtime stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum RuntimeError {
    /// The caller's memory is too small.
    Memory {
        /// Bytes that the session needs.
        needed_bytes: u64,
        /// Bytes that it was given.
        given_bytes: u64,
    },
    /// A limit is zero or above what the model allows.
    Limit {
        /// The limit.
        name: &'static str,
        /// The least it may be.
        lowest: u64,
        /// The most it may be.
        highest: u64,
        /// What it is.
        found: u64,
    },
    /// The sequence is full.
    ContextFull {
        /// Positions in use.
        position: u64,
        /// Tokens that were to follow.
        tokens: u64,
        /// Positions that the session has.
        context: u64,
    },
    /// A token isn't in the vocabulary.
    Token {
        /// The token.
        found: u32,
        /// Tokens in the vocabulary.
        vocabulary: u32,
    },
    /// No token was given where one is needed.
    NoTokens,
    /// An activation is infinite or not a number: the weights are broken, or overflowed.
    NotFinite {
        /// The layer; `None` outside of the layers: at the head, or at an image's patches.
        layer: Option<u32>,
        /// The matrices whose input it is; `None` outside of the layers.
        set: Option<LinearSet>,
    },
    /// The model is of another kind: an encoder has no next token, a decoder no vector of a text.
    Kind {
        /// The model's architecture.
        architecture: &'static str,
        /// What it is.
        kind: ModelKind,
    },
    /// An image has another size than the model reads.
    Pixels {
        /// Numbers that the model's image has.
        expected: u64,
        /// Numbers found.
        found: u64,
    },
    /// The program was built without a part of the runtime that the container needs ([`crate::parts`]).
    NotBuilt {
        /// The part: a feature of this crate.
        part: &'static str,
    },
    /// The model lacks a section that its architecture has: the caller's `Weights` are incomplete.
    Missing {
        /// Name of the section's kind.
        kind: &'static str,
        /// The layer, where it has one.
        layer: Option<u32>,
    },
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Memory { needed_bytes, given_bytes } => {
                write!(f, "the session needs {needed_bytes} bytes of memory, {given_bytes} were given")
            }
            Self::Limit { name, lowest, highest, found } => {
                write!(f, "{name}: expected {lowest} to {highest}, found {found}")
            }
            Self::ContextFull { position, tokens, context } => {
                write!(
                    f,
                    "{position} positions are in use and {tokens} tokens were to follow, but the context is {context}"
                )
            }
            Self::Token { found, vocabulary } => {
                write!(f, "token {found} isn't in the vocabulary of {vocabulary}")
            }
            Self::NoTokens => f.write_str("no token was given"),
            Self::NotFinite { layer, set } => {
                f.write_str("an activation is infinite or not a number: ")?;
                match layer {
                    Some(layer) => write!(f, "layer {layer}")?,
                    None => f.write_str("outside of the layers")?,
                }
                match set {
                    Some(set) => write!(f, ", input of {}", set.name()),
                    None => Ok(()),
                }
            }
            Self::Kind { architecture, kind: ModelKind::Encoder } => {
                write!(f, "{architecture} is an encoder: it makes vectors of texts, and has no next token")
            }
            Self::Kind { architecture, kind: ModelKind::Decoder } => {
                write!(f, "{architecture} is a decoder: it has a next token, and makes no vectors of texts")
            }
            Self::Kind { architecture, kind: ModelKind::Classifier } => {
                write!(
                    f,
                    "{architecture} is a classifier: it reads images, and has neither a next token nor vectors of texts"
                )
            }
            Self::Pixels { expected, found } => {
                write!(f, "an image of the model's size has {expected} numbers, found {found}")
            }
            Self::NotBuilt { part } => {
                write!(
                    f,
                    "the container needs `{part}`, and this program was built without it (a feature of rescomp-runtime)"
                )
            }
            Self::Missing { kind, layer } => {
                write!(f, "the model has no {kind}")?;
                match layer {
                    Some(layer) => write!(f, " in layer {layer}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl core::error::Error for RuntimeError {}
