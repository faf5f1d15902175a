//! Answering: the loop that `generate`, `chat` and `serve` run.
//!
//! ```text
//! logits = run(what of the prompt the session does not hold)
//! repeat: token = choose(logits);  end at an end token;  hand its text on;  end at a stop string or a limit;  logits = run(token)
//! ```
//! The session keeps what it has run. A prompt that begins alike, as the next turn of a conversation does, goes on behind what is the
//! same; the result does not depend on it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use rescomp_formats::container::CheckedContainer;
use rescomp_formats::section::SectionKind;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::sample::{Candidate, Sampler};
use rescomp_runtime::session::Session;
use rescomp_runtime::tokenizer::Tokenizer;

use crate::error::Error;
use crate::machine::TILE;
use crate::text::AnswerText;

/// Tokens that run before the next look at whether the answer is still wanted.
const PREFILL_TOKENS: usize = 8 * TILE;

/// Why a text ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    EndToken(u32),
    StopText(String),
    MaxTokens,
    ContextFull(usize),
    Interrupted,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::EndToken(token) => write!(f, "end token {token}"),
            Ending::StopText(text) => write!(f, "stop text {text:?}"),
            Ending::MaxTokens => f.write_str("the most tokens allowed"),
            Ending::ContextFull(positions) => write!(f, "the context of {positions} positions is full"),
            Ending::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Where an answer ends, and how its text begins.
#[derive(Clone, Debug)]
pub(crate) struct AnswerOptions<'o> {
    /// Most tokens.
    pub(crate) max_tokens: usize,
    /// Texts to end before.
    pub(crate) stops: &'o [String],
    /// Tokens that end it.
    pub(crate) end_tokens: &'o [u32],
    /// The text goes on behind the prompt's: its first space is one.
    pub(crate) inside: bool,
}

/// What an answer took.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) ending: Ending,
    /// Tokens of the prompt that ran: those that the session held already did not.
    pub(crate) prompt_tokens: usize,
    pub(crate) prompt_time: Duration,
    pub(crate) generated: usize,
    /// Tokens that ran to find the next one, and the time of that: the first token comes from the prompt's logits.
    pub(crate) decoded: usize,
    pub(crate) decode_time: Duration,
}

/// A session, and what it holds.
pub(crate) struct Answerer<'a> {
    path: &'a Path,
    container: &'a CheckedContainer<'a>,
    session: Session<'a>,
    /// The tokens whose keys and values the session holds.
    held: Vec<u32>,
    candidates: Vec<Candidate>,
}

impl<'a> Answerer<'a> {
    /// With a session that has run nothing.
    pub(crate) fn new(path: &'a Path, container: &'a CheckedContainer<'a>, session: Session<'a>) -> Self {
        Answerer { path, container, session, held: Vec::new(), candidates: Vec::new() }
    }

    /// The container.
    pub(crate) fn container(&self) -> &'a CheckedContainer<'a> {
        self.container
    }

    /// Positions of the session.
    pub(crate) fn context(&self) -> usize {
        self.session.context()
    }

    /// Answers a prompt of at least one token, and at most as many as the session has positions. Text goes to `sink` as soon as it is whole;
    /// `unwanted` is asked after some tokens of the prompt, and after each of the answer.
    ///
    /// # Errors
    /// Where the model does not run.
    pub(crate) fn answer(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        options: &AnswerOptions<'_>,
        unwanted: &dyn Fn() -> bool,
        sink: &mut dyn FnMut(&str),
    ) -> Result<Summary, Error> {
        let mut summary = Summary {
            ending: Ending::MaxTokens,
            prompt_tokens: 0,
            prompt_time: Duration::ZERO,
            generated: 0,
            decoded: 0,
            decode_time: Duration::ZERO,
        };
        // The most likely token needs no list of the others.
        let listed = if sampler.is_greedy() { 0 } else { self.container.manifest().spec.vocabulary as usize };
        self.candidates.resize(listed, Candidate::zeroed());
        let mut candidates = std::mem::take(&mut self.candidates);
        let missing = RuntimeError::Missing { kind: SectionKind::Tokenizer.name(), layer: None };
        let tokenizer = self.container.tokenizer().ok_or_else(|| Error::input(self.path, missing))?;
        let mut text = AnswerText::new(Tokenizer::new(tokenizer), options.stops, options.inside);
        let mut token = 0;
        let mut left = prompt.len() - self.go_back_to(prompt);
        for tokens in prompt[prompt.len() - left..].chunks(PREFILL_TOKENS) {
            if unwanted() {
                return Ok(Summary { ending: Ending::Interrupted, ..summary });
            }
            let start = Instant::now();
            let logits = self.run(tokens)?;
            summary.prompt_tokens += tokens.len();
            summary.prompt_time += start.elapsed();
            left -= tokens.len();
            if left == 0 && options.max_tokens > 0 {
                token = sampler.choose(logits, &mut candidates);
            }
        }
        let start = Instant::now();
        summary.ending = loop {
            if summary.generated == options.max_tokens {
                break Ending::MaxTokens;
            }
            if options.end_tokens.contains(&token) {
                break Ending::EndToken(token);
            }
            summary.generated += 1;
            let (piece, stop) = text.push(token);
            if !piece.is_empty() {
                sink(&piece);
            }
            if let Some(stop) = stop {
                break Ending::StopText(stop);
            }
            if unwanted() {
                break Ending::Interrupted;
            }
            if summary.generated == options.max_tokens {
                break Ending::MaxTokens;
            }
            if self.session.position() == self.session.context() {
                break Ending::ContextFull(self.session.context());
            }
            let logits = self.run(&[token])?;
            summary.decoded += 1;
            token = sampler.choose(logits, &mut candidates);
        };
        summary.decode_time = start.elapsed();
        self.candidates = candidates;
        if !matches!(summary.ending, Ending::StopText(_)) {
            let rest = text.finish();
            if !rest.is_empty() {
                sink(&rest);
            }
        }
        Ok(summary)
    }

    /// The mean of the head's inputs at all tokens, of length 1; `None` where it was not wanted any more.
    ///
    /// # Errors
    /// Where the model does not run.
    pub(crate) fn embedding(
        &mut self,
        tokens: &[u32],
        unwanted: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<f32>>, Error> {
        self.session.reset();
        self.held.clear();
        let mut sums = vec![0.0_f64; self.container.manifest().spec.hidden as usize];
        for tokens in tokens.chunks(PREFILL_TOKENS) {
            if unwanted() {
                return Ok(None);
            }
            let add = |_: usize, hidden: &[f32]| {
                sums.iter_mut().zip(hidden).for_each(|(sum, &number)| *sum += f64::from(number));
            };
            self.session.run_hidden(tokens, add).map_err(|error| Error::input(self.path, error))?;
        }
        // What ran can be gone on with, but nobody does.
        self.session.reset();
        // The mean and the sum have one direction.
        let length = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        Ok(Some(sums.iter().map(|sum| (sum / length) as f32).collect()))
    }

    /// Forgets what does not begin the prompt, or is all of it: its last token must run to have logits. Returns how much is left.
    fn go_back_to(&mut self, prompt: &[u32]) -> usize {
        let same = self.held.iter().zip(prompt).take_while(|(held, token)| held == token).count();
        let kept = same.min(prompt.len().saturating_sub(1));
        self.session.rewind(kept);
        self.held.truncate(kept);
        kept
    }

    fn run(&mut self, tokens: &[u32]) -> Result<&[f32], Error> {
        let before = self.session.position();
        self.held.truncate(before);
        match self.session.run(tokens) {
            Ok(logits) => {
                self.held.extend_from_slice(tokens);
                Ok(logits)
            }
            // Where it stopped is not known to the token: what ran before is all that is sure.
            Err(error) => Err(Error::input(self.path, error)),
        }
    }
}
