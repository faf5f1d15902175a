//! Vectors of texts: the tokens that an encoder reads of a text, and the encoder in its memory.

use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::spec::{Architecture, ModelKind};
use rescomp_runtime::encoder::{self, Encoder, EncoderPlan};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::tokenizer::{Special, Tokenizer};

use crate::conversation::encode;
use crate::error::Error;
use crate::machine::{Engine, SessionMemory};

/// The tokens of a text with those that its tokenizer puts around it, and how many the latter are behind it.
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    behind: usize,
}

impl Sequence {
    /// What an encoder reads of a text.
    ///
    /// # Errors
    /// Says in words why there are no tokens.
    pub(crate) fn new(container: &CheckedContainer<'_>, text: &str) -> Result<Sequence, String> {
        let tokenizer = Tokenizer::new(container.tokenizer().ok_or("the model has no tokenizer")?);
        let mut tokens: Vec<u32> = tokenizer.tokens_before().collect();
        tokens.extend(encode(&tokenizer, text, Special::Nowhere)?);
        let before = tokens.len();
        tokens.extend(tokenizer.tokens_after());
        match tokens.is_empty() {
            true => {
                Err("expected some text, found none, and the tokenizer puts nothing around it".to_owned())
            }
            false => Ok(Sequence { behind: tokens.len() - before, tokens }),
        }
    }

    /// Leaves out the text's last tokens where there are more than `most`.
    pub(crate) fn truncate(&mut self, most: usize) {
        if self.tokens.len() > most {
            let end = self.tokens.len() - self.behind;
            self.tokens.drain(most.saturating_sub(self.behind)..end);
            self.tokens.truncate(most);
        }
    }
}

/// Refuses a decoder.
///
/// # Errors
/// `Exit::Input` naming the architecture and what to use.
pub(crate) fn expect_encoder(path: &Path, container: &CheckedContainer<'_>) -> Result<(), Error> {
    let architecture = container.manifest().spec.architecture;
    match architecture.kind() {
        ModelKind::Encoder => Ok(()),
        ModelKind::Classifier => Err(reads_images(path, architecture)),
        ModelKind::Decoder => Err(Error::input(
            path,
            format_args!(
                "{} is a decoder, whose vectors of texts `serve` has under /v1/embeddings: expected an encoder, as bert",
                architecture.name()
            ),
        )),
    }
}

/// The error of a classifier where a model of texts is needed.
fn reads_images(path: &Path, architecture: Architecture) -> Error {
    Error::input(
        path,
        format_args!(
            "{} is a classifier: it reads images, not texts; use `rescomp classify`",
            architecture.name()
        ),
    )
}

/// Refuses what reads images.
///
/// # Errors
/// `Exit::Input` naming the architecture and what to use.
pub(crate) fn expect_texts(path: &Path, container: &CheckedContainer<'_>) -> Result<(), Error> {
    let architecture = container.manifest().spec.architecture;
    if architecture.is_classifier() { Err(reads_images(path, architecture)) } else { Ok(()) }
}

/// Refuses an encoder or a classifier.
///
/// # Errors
/// `Exit::Input` naming the architecture and what to use.
pub(crate) fn expect_decoder(path: &Path, container: &CheckedContainer<'_>) -> Result<(), Error> {
    let architecture = container.manifest().spec.architecture;
    match architecture.kind() {
        ModelKind::Decoder => Ok(()),
        ModelKind::Classifier => Err(reads_images(path, architecture)),
        ModelKind::Encoder => Err(Error::input(
            path,
            format_args!(
                "{} is an encoder: it makes vectors of texts and has no next token; use `rescomp embed`, or `rescomp serve` and \
                 its /v1/embeddings",
                architecture.name()
            ),
        )),
    }
}

/// Tokens of the longest text where nobody says: the model's.
pub(crate) fn most_tokens(container: &CheckedContainer<'_>) -> usize {
    encoder::most_tokens(&container.manifest().spec)
}

/// The memory of an encoder for texts of at most `tokens` tokens.
///
/// # Errors
/// `Exit::Input` where that is more than the model has, or the memory isn't there.
pub(crate) fn memory(
    path: &Path,
    container: &CheckedContainer<'_>,
    tokens: usize,
) -> Result<SessionMemory, Error> {
    let plan = EncoderPlan::new(container, tokens).map_err(|error| Error::input(path, error))?;
    SessionMemory::new(plan.bytes()).ok_or_else(|| {
        let bytes = plan.bytes();
        Error::input(path, format_args!("no memory for texts of {tokens} tokens: {bytes} bytes"))
    })
}

/// An encoder with int8 activations, as on every device.
///
/// # Errors
/// `Exit::Input`.
pub(crate) fn encoder<'a>(
    path: &Path,
    container: &'a CheckedContainer<'a>,
    engine: &'a Engine,
    tokens: usize,
    memory: &'a mut SessionMemory,
) -> Result<Encoder<'a>, Error> {
    Encoder::new(container, engine.machine(), tokens, ActivationFormat::Int8, memory.blocks())
        .map_err(|error| Error::input(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_a_text_stays_behind_it() {
        let cut = |most| {
            let mut sequence = Sequence { tokens: vec![1, 5, 6, 7, 2, 3], behind: 2 };
            sequence.truncate(most);
            sequence.tokens
        };
        assert_eq!(cut(6), [1, 5, 6, 7, 2, 3]);
        assert_eq!(cut(5), [1, 5, 6, 2, 3]);
        assert_eq!(cut(3), [1, 2, 3]);
        assert_eq!(cut(1), [2]);
    }
}
