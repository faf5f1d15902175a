//! `rescomp chat`: a conversation, a line a message, on a terminal or from a file.
//!
//! The session keeps what it has run: each turn runs only what is new. A conversation that fills the context starts over with its last
//! message, and says so.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use rescomp_formats::container::Integrity;
use rescomp_runtime::sample::Sampler;

use crate::answer::{AnswerOptions, Answerer, Ending, Summary};
use crate::conversation::{ChatModel, OwnedTurn};
use crate::embedder;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::ChatFlags;
use crate::interrupt;
use crate::machine::{self, Engine};
use crate::mapped;
use crate::output::{self, Lines};
use crate::trust::Trust;

/// Most bytes of a message: far more than a context holds.
const MOST_BYTES: u64 = 1 << 20;

/// What all answers took together.
#[derive(Default)]
struct Totals {
    answers: usize,
    prompt_tokens: usize,
    prompt_time: Duration,
    generated: usize,
    decoded: usize,
    decode_time: Duration,
}

impl Totals {
    fn add(&mut self, summary: &Summary) {
        self.answers += 1;
        self.prompt_tokens += summary.prompt_tokens;
        self.prompt_time += summary.prompt_time;
        self.generated += summary.generated;
        self.decoded += summary.decoded;
        self.decode_time += summary.decode_time;
    }

    fn report(&self, engine: &Engine) {
        let seconds = self.prompt_time.as_secs_f64();
        output::note(&format!(
            "{} answers; prompts: {} tokens in {seconds:.3} s",
            self.answers, self.prompt_tokens
        ));
        let seconds = machine::seconds(self.decode_time);
        let rate = self.decoded as f64 / seconds;
        output::note(&format!(
            "generated: {} tokens in {seconds:.3} s, {rate:.1} tokens a second",
            self.generated
        ));
        output::note(&format!("kernels: {}, threads: {}", engine.kernels().name, engine.threads()));
    }
}

/// Runs the command.
///
/// # Errors
/// Where the container, the system message or the command line is wrong, and where standard input can't be read.
pub(crate) fn run(flags: &ChatFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let mut sampler = flags.sampling.sampler()?;
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    embedder::expect_decoder(path, &container)?;
    let chat = ChatModel::new(path, &container, flags.date)?;
    let system = flags.system.as_deref();
    // A system message that does not go is an error before the first answer.
    chat.tokens(system, &[], "").map_err(|error| Error::input(path, error))?;
    let engine = Engine::new(&flags.machine, &container)?;
    let limits = machine::conversation_limits(&container, flags.context);
    let mut memory = machine::session_memory(path, &container, limits)?;
    let session = machine::session(path, &container, &engine, limits, memory.blocks())?;
    trust.remember(&container)?;
    let mut answerer = Answerer::new(path, &container, session);
    let stops = [flags.sampling.stop.as_slice(), chat.stops()].concat();
    let options = AnswerOptions {
        max_tokens: flags.sampling.max_tokens,
        stops: &stops,
        end_tokens: chat.end_tokens(),
        inside: false,
    };
    let asks = io::stdin().is_terminal();
    let (mut turns, mut totals) = (Vec::new(), Totals::default());
    while let Some(user) = next_message(asks)? {
        let Some(tokens) = tokens(&chat, system, &mut turns, &user, answerer.context()) else { continue };
        // From here to the answer's end Ctrl-C ends the answer; else it ends the program.
        interrupt::end_by_itself();
        let summary = answer(&mut answerer, &tokens, &mut sampler, &options, &mut turns, user);
        interrupt::end_at_once();
        let summary = summary?;
        if !matches!(summary.ending, Ending::EndToken(_)) {
            output::note(&format!("stopped: {}", summary.ending));
        }
        totals.add(&summary);
    }
    if asks {
        output::text("\n");
    }
    totals.report(&engine);
    Ok(Exit::Success)
}

/// The next line that says something; `None` at the end of standard input.
fn next_message(asks: bool) -> Result<Option<String>, Error> {
    let path = Path::new("standard input");
    loop {
        if asks {
            output::text("> ");
        }
        let mut line = Vec::new();
        io::stdin()
            .lock()
            .take(MOST_BYTES + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::disk(path, format_args!("cannot read: {error}")))?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() as u64 > MOST_BYTES {
            return Err(Error::input(
                path,
                format_args!("expected a line of at most {MOST_BYTES} bytes, found more"),
            ));
        }
        let mut text = crate::prompt::utf8(path, line)?;
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
        if !text.trim().is_empty() {
            return Ok(Some(text));
        }
    }
}

/// The tokens of the conversation with its new message; where there is no room for them, of one that starts with it. `None` where not even that
/// goes, which has been said then.
fn tokens(
    chat: &ChatModel<'_>,
    system: Option<&str>,
    turns: &mut Vec<OwnedTurn>,
    user: &str,
    context: usize,
) -> Option<Vec<u32>> {
    loop {
        match chat.tokens(system, turns, user) {
            Ok(tokens) if tokens.len() <= context => return Some(tokens),
            Ok(_) if !turns.is_empty() => {
                output::note(&format!(
                    "the context of {context} positions is full: the conversation starts over with this message"
                ));
                turns.clear();
            }
            Ok(tokens) => {
                let count = tokens.len();
                output::note(&format!(
                    "error: this message has {count} tokens with what stands around it, but the context is {context}"
                ));
                return None;
            }
            Err(error) => {
                output::note(&format!("error: {error}"));
                return None;
            }
        }
    }
}

fn answer(
    answerer: &mut Answerer<'_>,
    tokens: &[u32],
    sampler: &mut Sampler,
    options: &AnswerOptions<'_>,
    turns: &mut Vec<OwnedTurn>,
    user: String,
) -> Result<Summary, Error> {
    let (mut answer, mut lines) = (String::new(), Lines::after(""));
    let summary = answerer.answer(tokens, sampler, options, &interrupt::requested, &mut |text| {
        answer.push_str(text);
        lines.print(text);
    })?;
    lines.end();
    turns.push(OwnedTurn { user, answer });
    Ok(summary)
}
