//! The main thread with an encoder: one text after the other.

use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::encoder::Encoder;

use super::job::{Event, Failure, Input, Job, Task, Usage};
use super::worker::{check_tokens, does_not_run};
use crate::embedder::Sequence;
use crate::error::Error;
use crate::interrupt;

/// What runs jobs.
pub(super) struct EmbeddingWorker<'a> {
    path: &'a Path,
    container: &'a CheckedContainer<'a>,
    encoder: Encoder<'a>,
}

impl<'a> EmbeddingWorker<'a> {
    pub(super) fn new(
        path: &'a Path,
        container: &'a CheckedContainer<'a>,
        encoder: Encoder<'a>,
    ) -> EmbeddingWorker<'a> {
        EmbeddingWorker { path, container, encoder }
    }

    /// Runs a job to its end, or until nobody waits for it.
    pub(super) fn run(&mut self, job: Job) {
        let Job { task, events } = job;
        let unwanted = || interrupt::requested() || events.is_closed();
        if unwanted() {
            return;
        }
        let done = match &task {
            Task::Embed { inputs } => self.embed(inputs, &unwanted),
            Task::Complete { .. } | Task::Chat { .. } => Err(self.no_next_token()),
        };
        // Nobody may be there any more: `unwanted` says so.
        let _ = match done {
            Ok((vectors, usage)) => {
                events.send(Event::Vectors(vectors)).and_then(|()| events.send(Event::Done(usage)))
            }
            Err(failure) => events.send(Event::Failed(failure)),
        };
    }

    fn no_next_token(&self) -> Failure {
        let architecture = self.container.manifest().spec.architecture.name();
        let message = format!(
            "{architecture} is an encoder: it makes vectors of texts and has no next token; use POST /v1/embeddings"
        );
        Failure::other(400, Some("no_next_token"), message)
    }

    /// The vector of each input, and how many tokens they have.
    fn embed(
        &mut self,
        inputs: &[Input],
        unwanted: &dyn Fn() -> bool,
    ) -> Result<(Vec<Vec<f32>>, Usage), Failure> {
        // All are checked before the first is run.
        let all = inputs.iter().map(|input| self.tokens(input)).collect::<Result<Vec<_>, _>>()?;
        let (mut vectors, mut usage) = (Vec::with_capacity(all.len()), Usage::default());
        for tokens in &all {
            if unwanted() {
                return Err(Failure::ending());
            }
            let vector =
                self.encoder.embed(tokens).map_err(|error| does_not_run(&Error::input(self.path, error)))?;
            vectors.push(vector.to_vec());
            usage.prompt += tokens.len();
        }
        Ok((vectors, usage))
    }

    /// All that the model reads of an input: tokens are taken as they are, with nothing around them.
    fn tokens(&self, input: &Input) -> Result<Vec<u32>, Failure> {
        let tokens = match input {
            Input::Text(text) => {
                let sequence = Sequence::new(self.container, text)
                    .map_err(|error| Failure::parameter("input", error))?;
                sequence.tokens
            }
            Input::Tokens(tokens) => tokens.clone(),
        };
        check_tokens("input", self.container, &tokens, self.encoder.tokens())?;
        Ok(tokens)
    }
}
