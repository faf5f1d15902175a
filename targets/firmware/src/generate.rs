//! The most likely text behind a prompt.

use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::eval::argmax;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels::Kernels;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use rescomp_runtime::tokenizer::{Decoder, Tokenizer};

use crate::check::TILE;
use crate::command::MAX_PROMPT_BYTES;
use crate::failure::Failure;

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model ended it.
    EndToken,
    /// As many tokens as were asked for.
    MaxTokens,
    /// As many as the memory has room for, or the model has positions.
    ContextFull,
}

/// What was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Why it ends.
    pub ending: Ending,
}

/// Continues `prompt` with the most likely tokens, at most `max_tokens`, and hands their text to `sink` as soon as it is whole.
///
/// # Errors
/// [`Failure`] where the prompt or the model doesn't run in `memory`.
#[inline(never)]
pub fn generate(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    memory: &mut [MemoryBlock],
    prompt: &str,
    max_tokens: usize,
    mut sink: impl FnMut(&str),
) -> Result<Generated, Failure> {
    let spec = &container.manifest().spec;
    let tokenizer = match container.tokenizer() {
        Some(tokenizer) if spec.architecture.is_decoder() => Tokenizer::new(tokenizer),
        _ => return Err(Failure::NoDecoder),
    };
    // Encoding works on at most four numbers a byte.
    let mut tokens = [0; 4 * MAX_PROMPT_BYTES + 1];
    let begin = spec.begin_token.map_or(0, |begin| {
        tokens[0] = begin;
        1
    });
    let count = begin + tokenizer.encode(prompt, false, &mut tokens[begin..])?;
    let tokens = &tokens[..count];
    if tokens.is_empty() {
        return Err(Failure::EmptyPrompt);
    }
    let most = count.saturating_add(max_tokens).min(spec.context as usize);
    let context = SessionPlan::largest_context(container, TILE, most, memory.len() as u64)?;
    if count > context {
        return Err(Failure::LongPrompt { tokens: count, context });
    }
    let machine = Machine { kernels, executor: &Serial };
    let limits = Limits { context, tile: TILE };
    let mut session = Session::new(container, machine, limits, ActivationFormat::Int8, memory)?;
    let mut text = Decoder::inside(tokenizer);
    let mut next = argmax(session.run(tokens)?);
    let mut generated = 0;
    let ending = loop {
        if generated == max_tokens {
            break Ending::MaxTokens;
        }
        if spec.end_tokens.contains(&next) {
            break Ending::EndToken;
        }
        if !tokenizer.is_special(next) {
            text.push(next, &mut sink);
        }
        generated += 1;
        if generated == max_tokens {
            break Ending::MaxTokens;
        }
        if session.position() == context {
            break Ending::ContextFull;
        }
        next = argmax(session.run(&[next])?);
    };
    text.finish(&mut sink);
    Ok(Generated { prompt_tokens: count, tokens: generated, ending })
}
