//! `cargo xtask eval`: measure a model on text.

use rescomp_quantizer::evaluate::{Evaluation, Reference, Subject, evaluate, steps};

use crate::error::Error;
use crate::flags::EvalFlags;
use crate::model::{self, WindowChoice};
use crate::{classifier, encoder, host, output};

/// Runs the command.
///
/// # Errors
/// `Exit::Input` or `Exit::Disk` for what cannot be read, `Exit::Failed` for what cannot be run.
pub(crate) fn run(flags: &EvalFlags) -> Result<(), Error> {
    let pool = host::thread_pool(flags.threads)?;
    let model = flags.model.as_deref().map(model::named_checkpoint).transpose()?;
    let bytes = flags.container.as_deref().map(model::container_bytes).transpose()?.unwrap_or_default();
    let container = flags.container.as_deref().map(|path| model::container(path, &bytes)).transpose()?;
    if let Some((container, input)) =
        container.as_ref().and_then(|container| Some((container, container.manifest().spec.image()?)))
    {
        return classifier::eval(flags, container, input, host::machine(&pool));
    }
    let (subject, section, spec) = match (&container, &model) {
        (Some(container), _) => {
            let (_, section) = container
                .container()
                .entries()
                .next()
                .and_then(|(name, _)| container.container().section(name))
                .ok_or_else(|| Error::input("the container has no tokenizer"))?;
            let subject = Subject::Container(container, flags.activations.into());
            (subject, section.to_vec(), &container.manifest().spec)
        }
        (None, Some(checkpoint)) => {
            (Subject::Checkpoint(checkpoint), model::tokenizer_section(checkpoint)?, &checkpoint.spec)
        }
        (None, None) => return Err(Error::input("either --container or --model is needed")),
    };
    if let (Some(container), true) = (&container, spec.architecture.is_encoder()) {
        return encoder::eval(flags, container, &section, host::machine(&pool));
    }
    encoder::expect_decoder(spec, "perplexity")?;
    let reference = flags.reference.as_deref().map(model::named_checkpoint).transpose()?;
    let context = model::context(flags.context, spec)?;
    let positions = model::positions(context, flags.score_from)?;
    let choice = WindowChoice { context, skip: 0, count: flags.windows };
    let windows = model::windows(&section, spec, flags.text_file()?, flags.joiner, choice)?;
    let reference_steps = reference.as_ref().map_or(0, Reference::steps);
    let bar = host::progress("evaluating", reference_steps + steps(subject, windows.len()));
    let machine = host::machine(&pool);
    let progress = || bar.inc(1);
    let evaluation = reference
        .as_ref()
        .map(|reference| Reference::new(machine, reference, &windows, context, &progress))
        .transpose()
        .and_then(|reference| evaluate(machine, subject, reference.as_ref(), &windows, positions, &progress));
    bar.finish_and_clear();
    let evaluation = evaluation.map_err(|error| Error::failed(error.to_string()))?;
    if flags.json {
        output::line(&output::json(&evaluation)?);
    } else {
        print(&evaluation);
    }
    Ok(())
}

fn print(evaluation: &Evaluation) {
    let row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            output::line(&format!("{name:<26}{value:>14}"));
        }
    };
    row("perplexity", Some(format!("{:.4}", evaluation.perplexity)));
    row("reference perplexity", evaluation.reference_perplexity.map(|value| format!("{value:.4}")));
    row("mean KL, nats a token", evaluation.mean_kl.map(|value| format!("{value:.6}")));
    row("median KL", evaluation.median_kl.map(|value| format!("{value:.6}")));
    row("99th percentile of KL", evaluation.p99_kl.map(|value| format!("{value:.6}")));
    row("same most likely token", evaluation.same_top1.map(|value| format!("{:.2} %", 100.0 * value)));
    row("bits a weight", Some(format!("{:.3}", evaluation.bits_per_weight)));
    row("file bytes", Some(evaluation.file_bytes.to_string()));
    row("tokens", Some(evaluation.tokens.to_string()));
    row("windows", Some(evaluation.windows.to_string()));
    row("activations", Some(evaluation.activations.to_owned()));
    row("kernels", Some(evaluation.kernels.to_owned()));
}
