//! `rescomp generate`: continues a prompt and streams the text.
//!
//! ```text
//! logits = run(begin token, prompt)
//! repeat: token = choose(logits);  end at an end token;  print its text;  end at a stop string or a limit;  logits = run(token)
//! ```

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use rescomp_formats::container::{CheckedContainer, Integrity};
use rescomp_runtime::sample::{Candidate, SampleOptions, Sampler};
use rescomp_runtime::self_check::OPERATIONS;
use rescomp_runtime::session::Session;
use rescomp_runtime::tokenizer::{Decoder, Tokenizer};

use crate::error::Error;
use crate::exit::Exit;
use crate::flags::GenerateFlags;
use crate::interrupt;
use crate::machine::{self, Engine, TILE};
use crate::mapped;
use crate::output;
use crate::prompt;
use crate::stop::StopFilter;
use crate::trust::Trust;

/// Tokens of the prompt that run before the next look at Ctrl-C.
const PREFILL_TOKENS: usize = 8 * TILE;

/// Why the text ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
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

/// What a run did.
struct Summary {
    ending: Ending,
    prompt_tokens: usize,
    prompt_time: Duration,
    generated: usize,
    /// Tokens that ran to find the next one, and the time of that: the first token comes from the prompt's logits.
    decoded: usize,
    decode_time: Duration,
}

/// Runs the command.
///
/// # Errors
/// Where the container, the prompt or the command line is wrong.
pub(crate) fn run(flags: &GenerateFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let sampler = sampler(flags)?;
    if flags.self_check {
        let milliseconds = 1e3 * machine::self_check(&flags.machine)?.as_secs_f64();
        output::note(&format!(
            "self-check: {OPERATIONS} kernels give their known answers, {milliseconds:.1} ms"
        ));
    }
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    let engine = Engine::new(&flags.machine, &container)?;
    let prompt = prompt::text(flags)?;
    let tokens = prompt::tokens(path, &container, &prompt, flags.special_tokens)?;
    let most = container.manifest().spec.context as usize;
    let limits = machine::limits(
        flags.context.unwrap_or_else(|| tokens.len().saturating_add(flags.max_tokens).min(most)),
    );
    let mut memory = machine::session_memory(path, &container, limits)?;
    if tokens.len() > limits.context {
        let (count, context) = (tokens.len(), limits.context);
        return Err(Error::input(
            path,
            format_args!("the prompt has {count} tokens, but the context is {context}"),
        ));
    }
    let session = machine::session(path, &container, &engine, limits, memory.blocks())?;
    trust.remember(&container)?;
    interrupt::end_by_itself();
    if !flags.no_echo {
        output::text(&prompt);
    }
    let mut text = Text::new(&container, &flags.stop, if flags.no_echo { "" } else { &prompt });
    let summary = generate(path, &container, session, sampler, &tokens, flags, &mut text)?;
    text.finish(matches!(summary.ending, Ending::StopText(_)));
    report(&summary, &engine);
    Ok(if summary.ending == Ending::Interrupted { Exit::Interrupted } else { Exit::Success })
}

fn sampler(flags: &GenerateFlags) -> Result<Sampler, Error> {
    let options = SampleOptions {
        temperature: flags.temperature,
        top_k: flags.top_k,
        top_p: flags.top_p,
        seed: flags.seed,
    };
    Sampler::new(options).map_err(|error| Error::usage(format!("--{error}").replace("top_p", "top-p")))
}

fn generate(
    path: &Path,
    container: &CheckedContainer<'_>,
    mut session: Session<'_>,
    mut sampler: Sampler,
    prompt: &[u32],
    flags: &GenerateFlags,
    text: &mut Text<'_>,
) -> Result<Summary, Error> {
    let spec = &container.manifest().spec;
    // The most likely token needs no list of the others.
    let listed = if flags.temperature == 0.0 { 0 } else { spec.vocabulary as usize };
    let mut candidates = vec![Candidate::zeroed(); listed];
    let mut summary = Summary {
        ending: Ending::MaxTokens,
        prompt_tokens: 0,
        prompt_time: Duration::ZERO,
        generated: 0,
        decoded: 0,
        decode_time: Duration::ZERO,
    };
    let mut token = 0;
    for tokens in prompt.chunks(PREFILL_TOKENS) {
        if interrupt::requested() {
            return Ok(Summary { ending: Ending::Interrupted, ..summary });
        }
        let start = Instant::now();
        let logits = session.run(tokens).map_err(|error| Error::input(path, error))?;
        summary.prompt_tokens += tokens.len();
        summary.prompt_time += start.elapsed();
        if summary.prompt_tokens == prompt.len() && flags.max_tokens > 0 {
            token = sampler.choose(logits, &mut candidates);
        }
    }
    let start = Instant::now();
    summary.ending = loop {
        if summary.generated == flags.max_tokens {
            break Ending::MaxTokens;
        }
        if spec.end_tokens.contains(&token) {
            break Ending::EndToken(token);
        }
        summary.generated += 1;
        if let Some(stop) = text.push(token) {
            break Ending::StopText(stop);
        }
        if interrupt::requested() {
            break Ending::Interrupted;
        }
        if summary.generated == flags.max_tokens {
            break Ending::MaxTokens;
        }
        if session.position() == session.context() {
            break Ending::ContextFull(session.context());
        }
        let logits = session.run(&[token]).map_err(|error| Error::input(path, error))?;
        summary.decoded += 1;
        token = sampler.choose(logits, &mut candidates);
    };
    summary.decode_time = start.elapsed();
    Ok(summary)
}

/// The text on its way to standard output.
struct Text<'a> {
    tokenizer: Tokenizer<'a>,
    decoder: Decoder<'a>,
    stops: StopFilter,
    /// Whether the next character begins a line.
    at_line_start: bool,
}

impl<'a> Text<'a> {
    /// Text after `before`.
    fn new(container: &CheckedContainer<'a>, stops: &[String], before: &str) -> Text<'a> {
        let tokenizer = Tokenizer::new(container.tokenizer());
        // Behind a prompt the first space is one.
        let decoder = if before.is_empty() { Decoder::new(tokenizer) } else { Decoder::inside(tokenizer) };
        Text {
            tokenizer,
            decoder,
            stops: StopFilter::new(stops),
            at_line_start: before.is_empty() || before.ends_with('\n'),
        }
    }

    /// Prints what a token completes; returns the stop string that ends the text.
    fn push(&mut self, token: u32) -> Option<String> {
        if self.tokenizer.is_special(token) {
            return None;
        }
        let mut complete = String::new();
        self.decoder.push(token, |text| complete.push_str(text));
        let (text, stop) = self.stops.push(&complete);
        let stop = stop.map(str::to_owned);
        self.print(&text);
        stop
    }

    /// Prints what is held back, unless a stop string ended the text, and ends the line.
    fn finish(mut self, stopped: bool) {
        if !stopped {
            let mut rest = String::new();
            self.decoder.finish(|text| rest.push_str(text));
            let (mut text, stop) = self.stops.push(&rest);
            if stop.is_none() {
                text.push_str(&std::mem::replace(&mut self.stops, StopFilter::new(&[])).finish());
            }
            self.print(&text);
        }
        if !self.at_line_start {
            output::text("\n");
        }
    }

    fn print(&mut self, text: &str) {
        if !text.is_empty() {
            output::text(text);
            self.at_line_start = text.ends_with('\n');
        }
    }
}

fn report(summary: &Summary, engine: &Engine) {
    output::note(&format!("stopped: {}", summary.ending));
    let seconds = summary.prompt_time.as_secs_f64();
    output::note(&format!("prompt: {} tokens in {seconds:.3} s", summary.prompt_tokens));
    let (decoded, seconds) = (summary.decoded, machine::seconds(summary.decode_time));
    let rate = decoded as f64 / seconds;
    output::note(&format!(
        "generated: {} tokens in {seconds:.3} s, {rate:.1} tokens a second",
        summary.generated
    ));
    output::note(&format!("kernels: {}, threads: {}", engine.kernels().name, engine.threads()));
}
