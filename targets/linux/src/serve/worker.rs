//! The main thread: one job after the other, on one session.

use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::date::Date;
use rescomp_runtime::sample::Sampler;

use super::job::{Event, Failure, Finish, Input, Job, Messages, Sampling, Task, Usage};
use crate::answer::{AnswerOptions, Answerer, Ending};
use crate::conversation::{ChatModel, NO_TEMPLATE};
use crate::error::Error;
use crate::interrupt;
use crate::prompt;

/// What runs jobs.
pub(super) struct Worker<'a> {
    answerer: Answerer<'a>,
    chat: Option<ChatModel<'a>>,
    /// Tokens that end a completion.
    end_tokens: Vec<u32>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(answerer: Answerer<'a>, date: Option<Date>) -> Worker<'a> {
        let container = answerer.container();
        let chat = ChatModel::of(container, date);
        let end_tokens = container.manifest().spec.end_tokens.to_vec();
        Worker { answerer, chat, end_tokens }
    }

    /// Runs a job to its end, or until nobody waits for it.
    pub(super) fn run(&mut self, job: Job) {
        let Job { task, events } = job;
        let unwanted = || interrupt::requested() || events.is_closed();
        if unwanted() {
            return;
        }
        let mut send = |event| {
            // Nobody may be there any more: `unwanted` says so.
            let _ = events.send(event);
        };
        let done = match &task {
            Task::Complete { prompts, sampling } => self.complete(prompts, sampling, &unwanted, &mut send),
            Task::Chat { messages, sampling } => self.chat(messages, sampling, &unwanted, &mut send),
            Task::Embed { inputs } => self.embed(inputs, &unwanted, &mut send),
        };
        send(match done {
            Ok(usage) => Event::Done(usage),
            Err(failure) => Event::Failed(failure),
        });
    }

    fn complete(
        &mut self,
        prompts: &[Input],
        sampling: &Sampling,
        unwanted: &dyn Fn() -> bool,
        send: &mut dyn FnMut(Event),
    ) -> Result<Usage, Failure> {
        // All are checked before the first is run: a stream has no status once it has begun.
        let all = self.all_tokens("prompt", prompts)?;
        send(Event::Begins(all.len()));
        let end_tokens = self.end_tokens.clone();
        let mut usage = Usage::default();
        for (index, (tokens, prompt)) in all.iter().zip(prompts).enumerate() {
            // Behind a prompt the first space is one.
            let inside = !matches!(prompt, Input::Text(text) if text.is_empty());
            let stops = &sampling.stops;
            self.answer(index, tokens, sampling, stops, &end_tokens, inside, unwanted, send, &mut usage)?;
        }
        Ok(usage)
    }

    fn chat(
        &mut self,
        messages: &Messages,
        sampling: &Sampling,
        unwanted: &dyn Fn() -> bool,
        send: &mut dyn FnMut(Event),
    ) -> Result<Usage, Failure> {
        let Some(chat) = &self.chat else {
            return Err(Failure::other(400, Some("no_chat_template"), NO_TEMPLATE));
        };
        let Messages { system, turns, user } = messages;
        let tokens = chat
            .tokens(system.as_deref(), turns, user)
            .map_err(|error| Failure::parameter("messages", error))?;
        self.check_length("messages", &tokens)?;
        let stops = [sampling.stops.as_slice(), chat.stops()].concat();
        let end_tokens = chat.end_tokens().to_vec();
        send(Event::Begins(1));
        let mut usage = Usage::default();
        self.answer(0, &tokens, sampling, &stops, &end_tokens, false, unwanted, send, &mut usage)?;
        Ok(usage)
    }

    #[expect(clippy::too_many_arguments, reason = "what an answer of a request needs, each once")]
    fn answer(
        &mut self,
        index: usize,
        tokens: &[u32],
        sampling: &Sampling,
        stops: &[String],
        end_tokens: &[u32],
        inside: bool,
        unwanted: &dyn Fn() -> bool,
        send: &mut dyn FnMut(Event),
        usage: &mut Usage,
    ) -> Result<(), Failure> {
        let mut sampler = Sampler::new(sampling.options)
            .map_err(|error| Failure::parameter(error.option, error.to_string()))?;
        let options = AnswerOptions {
            max_tokens: sampling.max_tokens.unwrap_or(usize::MAX),
            stops,
            end_tokens,
            inside,
        };
        let summary = self
            .answerer
            .answer(tokens, &mut sampler, &options, unwanted, &mut |text| {
                send(Event::Piece(index, text.to_owned()));
            })
            .map_err(|error| does_not_run(&error))?;
        usage.prompt += tokens.len();
        usage.completion += summary.generated;
        let finish = match summary.ending {
            Ending::EndToken(_) | Ending::StopText(_) => Finish::Stop,
            Ending::MaxTokens | Ending::ContextFull(_) => Finish::Length,
            Ending::Interrupted => return Err(Failure::ending()),
        };
        send(Event::Ends(index, finish));
        Ok(())
    }

    fn embed(
        &mut self,
        inputs: &[Input],
        unwanted: &dyn Fn() -> bool,
        send: &mut dyn FnMut(Event),
    ) -> Result<Usage, Failure> {
        let all = self.all_tokens("input", inputs)?;
        let mut vectors = Vec::with_capacity(all.len());
        let mut usage = Usage::default();
        for tokens in &all {
            let vector = self.answerer.embedding(tokens, unwanted).map_err(|error| does_not_run(&error))?;
            vectors.push(vector.ok_or_else(Failure::ending)?);
            usage.prompt += tokens.len();
        }
        send(Event::Vectors(vectors));
        Ok(usage)
    }

    fn all_tokens(&self, name: &str, inputs: &[Input]) -> Result<Vec<Vec<u32>>, Failure> {
        inputs.iter().map(|input| self.tokens(name, input)).collect()
    }

    fn tokens(&self, name: &str, input: &Input) -> Result<Vec<u32>, Failure> {
        let container = self.answerer.container();
        let tokens = match input {
            Input::Text(text) => {
                prompt::tokens(container, text, false).map_err(|error| Failure::parameter(name, error))?
            }
            Input::Tokens(tokens) => tokens.clone(),
        };
        check_tokens(name, container, &tokens, self.answerer.context())?;
        Ok(tokens)
    }

    fn check_length(&self, name: &str, tokens: &[u32]) -> Result<(), Failure> {
        check_length(name, tokens, self.answerer.context())
    }
}

/// Refuses tokens that are none of the model's, no tokens, and more than the context.
pub(super) fn check_tokens(
    name: &str,
    container: &CheckedContainer<'_>,
    tokens: &[u32],
    context: usize,
) -> Result<(), Failure> {
    let vocabulary = container.manifest().spec.vocabulary;
    if let Some(token) = tokens.iter().find(|&&token| token >= vocabulary) {
        return Err(Failure::parameter(
            name,
            format_args!("expected tokens below {vocabulary}, found {token}"),
        ));
    }
    if tokens.is_empty() {
        return Err(Failure::parameter(name, "expected one token or more, found none"));
    }
    check_length(name, tokens, context)
}

fn check_length(name: &str, tokens: &[u32], context: usize) -> Result<(), Failure> {
    let found = tokens.len();
    if found <= context {
        return Ok(());
    }
    let message = format_args!("expected at most {context} tokens, the context, found {found}");
    Err(Failure { code: Some("context_length_exceeded"), ..Failure::parameter(name, message) })
}

/// The model's numbers overflow: no request can help that.
pub(super) fn does_not_run(error: &Error) -> Failure {
    Failure::other(500, Some("model_does_not_run"), error.to_string())
}
