//! `rescomp generate`: continues a prompt, or answers it as a message, and streams the text.

use rescomp_formats::container::Integrity;
use rescomp_runtime::self_check::OPERATIONS;

use crate::answer::{AnswerOptions, Answerer, Ending, Summary};
use crate::conversation::ChatModel;
use crate::embedder;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::GenerateFlags;
use crate::interrupt;
use crate::machine::{self, Engine};
use crate::mapped;
use crate::output::{self, Lines};
use crate::prompt;
use crate::trust::Trust;

/// Runs the command.
///
/// # Errors
/// Where the container, the prompt or the command line is wrong.
pub(crate) fn run(flags: &GenerateFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let mut sampler = flags.sampling.sampler()?;
    if flags.self_check {
        let milliseconds = 1e3 * machine::self_check(&flags.machine)?.as_secs_f64();
        output::note(&format!(
            "self-check: {OPERATIONS} kernels give their known answers, {milliseconds:.1} ms"
        ));
    }
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    embedder::expect_decoder(path, &container)?;
    let chat = flags.chat.then(|| ChatModel::new(path, &container, flags.date)).transpose()?;
    let engine = Engine::new(&flags.machine, &container)?;
    let prompt = prompt::text(flags)?;
    let tokens = match &chat {
        Some(chat) => chat
            .tokens(flags.system.as_deref(), &[], &prompt)
            .map_err(|error| Error::input(path, format_args!("prompt: {error}")))?,
        None => prompt::tokens(&container, &prompt, flags.special_tokens)
            .map_err(|error| Error::input(path, error))?,
    };
    let most = container.manifest().spec.context as usize;
    let limits = machine::limits(
        flags.context.unwrap_or_else(|| tokens.len().saturating_add(flags.sampling.max_tokens).min(most)),
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
    let echoed = if flags.no_echo || chat.is_some() { "" } else { prompt.as_str() };
    output::text(echoed);
    let mut lines = Lines::after(echoed);
    let spec = &container.manifest().spec;
    let stops = match &chat {
        Some(chat) => [flags.sampling.stop.as_slice(), chat.stops()].concat(),
        None => flags.sampling.stop.clone(),
    };
    let options = AnswerOptions {
        max_tokens: flags.sampling.max_tokens,
        stops: &stops,
        end_tokens: chat.as_ref().map_or(spec.end_tokens.as_slice(), ChatModel::end_tokens),
        // Behind a prompt the first space is one.
        inside: !echoed.is_empty(),
    };
    let summary = Answerer::new(path, &container, session).answer(
        &tokens,
        &mut sampler,
        &options,
        &interrupt::requested,
        &mut |text| lines.print(text),
    )?;
    lines.end();
    report(&summary, &engine);
    Ok(if summary.ending == Ending::Interrupted { Exit::Interrupted } else { Exit::Success })
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
