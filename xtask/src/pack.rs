//! `cargo xtask pack`: quantize a model for a target, write what the device needs, and check it there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::spec::ModelSpec;
use rescomp_formats::tokenizer::TokenizerView;
use rescomp_quantizer::calibrate::{CalibrationError, Progress, Run};
use rescomp_quantizer::chat_template;
use rescomp_quantizer::checkpoint::Checkpoint;
use rescomp_quantizer::journal::{Found, Identity, Journal, JournalError};
use rescomp_quantizer::methods::{self, ClipSearch, GroupSize, LazyVariant, SolverOptions};
use rescomp_quantizer::pack::{self, CheckFigures, PackFailure, PackOptions, PackReport, Packed};
use rescomp_quantizer::plan::{BlockPlan, MatrixFormat};
use rescomp_quantizer::transforms::TransformKind;
use rescomp_runtime::Machine;
use rescomp_runtime::memory::AlignedBytes;
use rescomp_runtime::parts::{Part, Parts};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::allocation::{self, Allocation};
use crate::check::{self, CONTAINER_FILE, CheckResult, RUNNER_FILE, check_everywhere, dist, verdict};
use crate::error::Error;
use crate::flags::{Choice, Clip, Joiner, KvCache, Method, PackFlags, Variant};
use crate::image::description::ImageDescription;
use crate::image::plan::{self, MemoryPlan};
use crate::image::{self, Contents};
use crate::interrupt::{self, write_program, write_whole};
use crate::model::{self, WindowChoice};
use crate::progress::Shown;
use crate::runner::Program;
use crate::signing::Signature;
use crate::system::Install;
use crate::target::{Runner, Target};
use crate::transform::{self, Selection};
use crate::{classifier, encoder, host, output, root, runner};

/// Folder of the finished layers, in the output folder while there is no container.
const JOURNAL_FOLDER: &str = "model.rescomp.partial";

/// Tokens after the calibration windows that are set aside for the check windows.
const CHECK_TOKENS: usize = 512;

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    target: String,
    output: PathBuf,
    /// How bits were distributed over the matrices, where they were.
    allocation: Option<Allocation>,
    /// What was tried before a transform was chosen, where one was.
    transform_choice: Option<Selection>,
    pack: PackReport,
    /// The public key that signed the container, in hexadecimal digits, where one did.
    signed_by: Option<String>,
    /// Which release of it was signed.
    release: Option<u64>,
    /// Layers that came from an earlier run.
    restored_layers: usize,
    /// What an image takes of its device's memory, where there is one.
    memory: Option<MemoryPlan>,
    check: Option<CheckResult>,
    seconds: f64,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Input` for a model, text or option that cannot be, `Exit::Missing` for a missing tool, `Exit::Disk` for a file that
/// cannot be written, `Exit::Failed` where the check misses a bound. Finished layers are kept where `--resume` can use them.
pub(crate) fn run(flags: &PackFlags) -> Result<(), Error> {
    let start = Instant::now();
    let root = root::root()?;
    let install = Install::unless(flags.no_install);
    let target = Target::load(&flags.target)?;
    let model_path = model::path(flags.model.as_deref())?;
    let output_folder = flags.output.clone().unwrap_or_else(|| dist(&root, &target));

    // What may be wrong or missing is found out before the long work: the model, its text, the folder, the toolchain.
    let checkpoint = model::checkpoint(&model_path)?;
    if flags.method == Method::Rtn && flags.refine.is_some_and(|refine| refine != Choice::Given(0)) {
        return Err(Error::input("--refine needs a method that is calibrated, and rtn is not"));
    }
    if target.image.is_some() {
        encoder::expect_decoder(&checkpoint.spec, "image of it yet; a target with Linux runs it")?;
    }
    check_low_rank(flags)?;
    let mut options = pack_options(flags, &target, &checkpoint, &model_path)?;
    model::check_weights(&checkpoint)?;
    check_writable(&output_folder)?;
    let signature = flags.sign.as_deref().map(|key| Signature::new(key, flags.release)).transpose()?;
    let pool = host::thread_pool(flags.threads)?;
    let machine = host::machine(&pool);
    let (checkpoint, transform_choice) = transform::transformed(machine, flags, checkpoint, &options)?;
    let allocation = allocation::plan(machine, flags, &checkpoint, &mut options)?;
    let mut journal = open_journal(flags, &checkpoint, &options, &output_folder)?;
    let signed_by = signature.as_ref().map(Signature::public_hex);
    // Only an image leaves parts out.
    let parts = match &target.image {
        Some(_) => Contents::Parts(parts(&checkpoint.spec, &options)?),
        None => Contents::Parts(Parts::BUILT),
    };
    let mut program = runner::build(&root, &target, install, signed_by.as_deref(), parts)?;

    if let Some(description) = &target.image {
        plan::check_code(&target.name, description, &program.sizes()?, &checkpoint, &options)?;
    }
    let (Packed { file, mut report }, restored_layers) =
        quantize(machine, &checkpoint, &options, &mut journal)?;
    let container = output_folder.join(CONTAINER_FILE);
    let file = match &signature {
        Some(signature) => signature.sign(&container, &file)?,
        None => file.to_vec(),
    };
    report.file_bytes = file.len() as u64;
    let mut memory = None;
    if let Some(description) = &target.image {
        let planned =
            runner::build(&root, &target, install, None, Contents::Container(&file)).and_then(|image| {
                memory = Some(plan_memory(&target, description, &image, &file)?);
                Ok(image)
            });
        program = planned.map_err(|error| with_kept_layers(error, &journal))?;
    }
    let recipe = allocation::recipe_of(&checkpoint, &options)?;
    check_memory(&target, &report)
        .and_then(|()| check_bytes(flags, &report))
        .and_then(|()| write_output(&output_folder, &file, &program, &recipe, &target, &report))
        .map_err(|error| with_kept_layers(error, &journal))?;
    journal.remove().map_err(|error| journal_error(&error))?;
    interrupt::set_remedy(None);
    let check = match flags.no_check {
        true => None,
        false => Some(check_everywhere(&target, &program, &container, &report.check, install)?),
    };
    let seconds = start.elapsed().as_secs_f64();
    let target = target.name.clone();
    let output = output_folder;
    let release = signature.map(|signature| signature.release);
    let report = Report {
        target,
        output,
        allocation,
        transform_choice,
        pack: report,
        signed_by,
        release,
        restored_layers,
        memory,
        check,
        seconds,
    };
    write_whole(&report.output.join("report.json"), output::json(&report)?.as_bytes())?;
    if flags.json {
        output::line(&output::json(&report)?);
    } else {
        print(&report);
    }
    report.check.as_ref().map_or(Ok(()), verdict)
}

/// The parts of the runtime that an image will need: all widths and groups where its formats aren't known yet.
fn parts(spec: &ModelSpec, options: &PackOptions) -> Result<Parts, Error> {
    let view = TokenizerView::parse(&options.tokenizer).map_err(|error| Error::input(error.to_string()))?;
    let plan = &options.plan;
    let mut formats: Vec<MatrixFormat> = Vec::new();
    if let (true, Some(vocabulary)) = (plan.formats.is_empty(), &plan.vocabulary) {
        formats.push(MatrixFormat::plain(plan.options.bits, plan.options.group));
        formats
            .extend(vocabulary.embedding.iter().copied().chain((!spec.tied_head).then_some(vocabulary.head)));
    }
    let elements = |group| match group {
        GroupSize::Elements(elements) => Some(elements.get()),
        GroupSize::Row => None,
    };
    let mut known: Vec<_> = formats
        .iter()
        .filter_map(|format| Some((CodeWidth::from_bits(format.bits)?, elements(format.group))))
        .collect();
    if known.is_empty() {
        let groups = [Some(32), Some(64), None];
        known.extend(CodeWidth::ALL.into_iter().flat_map(|width| groups.map(|group| (width, group))));
    }
    if spec.online.head_input {
        known.push((CodeWidth::Int8, Some(64)));
    }
    let corrected = plan.rank > 0 || plan.formats.values().any(|format| format.rank > 0);
    if corrected {
        known.push((CodeWidth::Int8, None));
    }
    let parts = Parts::of_formats(spec, &view, options.layout, options.cache, known);
    Ok(if corrected { parts.with(Part::LowRank) } else { parts })
}

/// What the image with this container takes.
fn plan_memory(
    target: &Target,
    description: &ImageDescription,
    image: &Program,
    file: &[u8],
) -> Result<MemoryPlan, Error> {
    let bytes = AlignedBytes::new(file);
    let container = model::container(Path::new(CONTAINER_FILE), &bytes)?;
    MemoryPlan::new(&target.name, description, &image.sizes()?, &container)
}

/// Finds out whether files can be made in the folder, or in what it will be made in.
fn check_writable(folder: &Path) -> Result<(), Error> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    tempfile::tempfile_in(there)
        .map(|_| ())
        .map_err(|error| Error::disk("write to the folder", folder, &error))
}

/// The quantizer's options, from the command line and the texts that it names.
fn pack_options(
    flags: &PackFlags,
    target: &Target,
    checkpoint: &Checkpoint,
    model_path: &Path,
) -> Result<PackOptions, Error> {
    let spec = &checkpoint.spec;
    if flags.kv_cache != KvCache::F16 && !spec.architecture.is_decoder() {
        let architecture = spec.architecture.name();
        return Err(Error::input(format!(
            "--kv-cache: {architecture} is no decoder: it keeps no keys and values"
        )));
    }
    if let Some(input) = spec.image() {
        return classifier_options(flags, target, spec, input);
    }
    if flags.calibration_images.is_some() {
        let architecture = spec.architecture.name();
        return Err(Error::input(format!("--calibration-images: {architecture} reads texts, not images"))
            .remedy("give --calibration TEXT"));
    }
    let text =
        model::text_file(flags.calibration.as_deref(), model_path, "calibration.txt", "--calibration")?;
    let tokenizer = model::tokenizer_section(checkpoint)?;
    if spec.architecture.is_encoder() {
        return encoder_options(flags, target, spec, tokenizer, &text);
    }
    let context = model::context(flags.context, spec)?;
    let choice =
        WindowChoice { context, skip: flags.calibration_offset, count: Some(flags.calibration_windows) };
    let calibration = model::windows(&tokenizer, spec, &text, flags.joiner, choice)?;
    let check_tokens = check_tokens(flags, context, &tokenizer, checkpoint, &text)?;
    let chat_template = chat_template::import(checkpoint);
    for warning in &chat_template.warnings {
        output::note(&format!("warning: {warning}"));
    }
    Ok(PackOptions {
        plan: block_plan(flags),
        layout: flags.layout.unwrap_or(target.layout).into(),
        calibration,
        calibration_positions: context,
        check_tokens,
        check_texts: Vec::new(),
        images: None,
        tokenizer,
        chat_template,
        cache: flags.kv_cache.into(),
        target: target.name.clone(),
    })
}

/// Likewise of a classifier of images.
fn classifier_options(
    flags: &PackFlags,
    target: &Target,
    spec: &ModelSpec,
    input: &ImageInput,
) -> Result<PackOptions, Error> {
    classifier::expect_no_text_flags(flags, spec)?;
    Ok(PackOptions {
        plan: block_plan(flags),
        layout: flags.layout.unwrap_or(target.layout).into(),
        calibration: Vec::new(),
        calibration_positions: 0,
        check_tokens: Vec::new(),
        check_texts: Vec::new(),
        images: Some(classifier::pack_images(flags, spec, input)?),
        tokenizer: Vec::new(),
        chat_template: Default::default(),
        cache: CacheFormat::default(),
        target: target.name.clone(),
    })
}

/// Likewise of an encoder.
fn encoder_options(
    flags: &PackFlags,
    target: &Target,
    spec: &ModelSpec,
    tokenizer: Vec<u8>,
    text: &Path,
) -> Result<PackOptions, Error> {
    if distributes(flags) {
        encoder::expect_decoder(spec, "divergence that says which matrices need which bits")?;
    }
    let texts = encoder::pack_texts(flags, &tokenizer, spec, text)?;
    Ok(PackOptions {
        plan: block_plan(flags),
        layout: flags.layout.unwrap_or(target.layout).into(),
        calibration: texts.calibration,
        calibration_positions: texts.positions,
        check_tokens: Vec::new(),
        check_texts: texts.check,
        images: None,
        tokenizer,
        chat_template: Default::default(),
        cache: CacheFormat::default(),
        target: target.name.clone(),
    })
}

/// The tokens that follow the calibration windows: the check is on text that the quantizer has not seen.
fn check_tokens(
    flags: &PackFlags,
    context: usize,
    tokenizer: &[u8],
    checkpoint: &Checkpoint,
    text: &Path,
) -> Result<Vec<u32>, Error> {
    let seen = (flags.calibration_offset + flags.calibration_windows) * (context + 1);
    let window = CHECK_TOKENS;
    let choice = WindowChoice { context: window - 1, skip: seen.div_ceil(window), count: Some(1) };
    let joiner: Joiner = flags.joiner;
    Ok(model::windows(tokenizer, &checkpoint.spec, text, joiner, choice)?.concat())
}

/// Whether bits are distributed over the matrices.
fn distributes(flags: &PackFlags) -> bool {
    flags.target_bpw.is_some() || flags.max_bytes.is_some()
}

/// Refuses ranks that mean nothing with the other flags.
fn check_low_rank(flags: &PackFlags) -> Result<(), Error> {
    let corrects = flags.low_rank.iter().any(|rank| *rank > 0);
    if corrects && !matches!(flags.method, Method::Gptq | Method::RescompExact) {
        return Err(Error::input("--low-rank needs --method gptq or rescomp-exact"));
    }
    if flags.low_rank.len() > 1 && !distributes(flags) {
        return Err(Error::input("--low-rank takes several ranks only with --target-bpw or --max-bytes"));
    }
    Ok(())
}

/// Method, configuration and solver options of the blocks.
fn block_plan(flags: &PackFlags) -> BlockPlan {
    let (method, group) = (methods::Method::from(flags.method), flags.group_size.into());
    let variant = flags.variant.map(|variant| match variant {
        Variant::Paper => LazyVariant::Paper,
        Variant::Original => LazyVariant::Original,
        Variant::AllWeights => LazyVariant::AllWeights,
    });
    let options = if flags.exportable {
        SolverOptions::for_export(flags.bits, group)
    } else {
        SolverOptions { spacing: flags.levels.into(), ..SolverOptions::for_container(flags.bits, group) }
    };
    let mut plan = BlockPlan::new(method, options).with_head_bits(flags.head_bits);
    plan.variant = variant;
    plan.rank = if distributes(flags) { 0 } else { flags.low_rank.first().copied().unwrap_or(0) };
    if let Some(clip) = flags.clip {
        plan.clip = Some(match clip {
            Clip::Off => ClipSearch::Off,
            Clip::Plain => ClipSearch::Plain,
            Clip::HessianDiagonal => ClipSearch::HessianDiagonal,
        });
    }
    let tuning = &mut plan.tuning;
    tuning.strength = flags.strength.map_or(tuning.strength, Choice::setting);
    tuning.ridge = flags.ridge.map_or(tuning.ridge, Choice::setting);
    tuning.refine = flags.refine.map_or(tuning.refine, Choice::setting);
    plan
}

/// The finished layers of a run that was stopped, and what is to become of them.
fn open_journal(
    flags: &PackFlags,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    output_folder: &Path,
) -> Result<Journal, Error> {
    let folder = output_folder.join(JOURNAL_FOLDER);
    let program = host::program_digest()?;
    let identity = Identity::new(checkpoint, options.inputs(), &options.plan, &program);
    let (journal, found) =
        Journal::open(&folder, identity, flags.resume).map_err(|error| journal_error(&error))?;
    let folder = folder.display();
    let layers = checkpoint.spec.layers;
    match (flags.resume, found) {
        (true, Found::Blocks(done)) if done > 0 => {
            output::note(&format!("resuming: {done} of {layers} layers are finished in {folder}"));
        }
        (true, Found::DamagedHead) => output::note(&format!(
            "note: {folder}/head.json is damaged: there is no telling whose layers these are; starting at the first layer"
        )),
        (true, _) => {
            output::note(&format!("note: no finished layer in {folder}; starting at the first layer"))
        }
        (false, Found::Blocks(done)) if done > 0 => output::note(&format!(
            "note: {done} of {layers} layers are finished in {folder}; --resume would go on after them, this run replaces them"
        )),
        (false, Found::OtherRun | Found::DamagedHead) => {
            output::note(&format!("note: replacing the finished layers of another run in {folder}"));
        }
        (false, _) => {}
    }
    Ok(journal)
}

fn journal_error(error: &JournalError) -> Error {
    match error {
        JournalError::Disk { doing, path, cause } => Error::disk(doing, path, cause),
        JournalError::Settings { .. } => Error::input(error.to_string())
            .remedy("give the options of that run, or leave out --resume to start at the first layer"),
        JournalError::Encode { .. } => Error::failed(error.to_string()),
    }
}

/// Says of an error after which the finished layers are still good that they are.
fn with_kept_layers(error: Error, journal: &Journal) -> Error {
    match journal.has_blocks() {
        true => error.remedy(kept_layers(journal)),
        false => error,
    }
}

fn kept_layers(journal: &Journal) -> String {
    format!(
        "the same command with --resume goes on after the layers that are finished in {}",
        journal.folder().display()
    )
}

/// Quantizes, showing how far it is. Returns the number of layers that came from an earlier run, too.
fn quantize(
    machine: Machine<'_>,
    checkpoint: &Checkpoint,
    options: &PackOptions,
    journal: &mut Journal,
) -> Result<(Packed, usize), Error> {
    let inputs = options.inputs();
    let tokens = inputs.count() * inputs.tokens(&checkpoint.spec);
    let mut shown = Shown::new(&options.plan, &checkpoint.spec, tokens);
    let kept = kept_layers(journal);
    let mut progress = |progress: Progress<'_>| {
        if let Progress::Block { .. } = progress {
            interrupt::set_remedy(Some(kept.clone()));
        }
        shown.hear(progress);
    };
    let mut run = Run { journal: Some(journal), progress: &mut progress };
    let packed = pack::pack_run(machine, checkpoint, options, &mut run);
    shown.finish();
    match packed {
        Ok(packed) => Ok((packed, shown.restored)),
        Err(PackFailure::Calibration(CalibrationError::Journal(error))) => {
            let error = journal_error(&error);
            if !journal.has_blocks() {
                // Nothing of use, and the folder may be the reason that the disk is full. The error above matters more than another.
                let _ = journal.remove();
            }
            Err(with_kept_layers(error, journal))
        }
        Err(PackFailure::Calibration(error)) => {
            // It would end in the same place again.
            let error = Error::input(error.to_string());
            Err(match journal.remove() {
                Ok(()) => error,
                Err(removing) => error.because(removing.to_string()),
            })
        }
        Err(error) => Err(with_kept_layers(Error::input(error.to_string()), journal)),
    }
}

/// Whether the file is as small as it was to be.
fn check_bytes(flags: &PackFlags, report: &PackReport) -> Result<(), Error> {
    match flags.max_bytes {
        Some(most) if report.file_bytes > most => Err(Error::failed(format!(
            "the container has {} bytes; --max-bytes {most} was estimated too tightly",
            report.file_bytes
        ))),
        _ => Ok(()),
    }
}

fn check_memory(target: &Target, report: &PackReport) -> Result<(), Error> {
    match target.memory_bytes {
        Some(limit) if report.file_bytes > limit => Err(Error::failed(format!(
            "the container has {} bytes, and {} has a memory of {limit} bytes",
            report.file_bytes, target.name
        ))),
        _ => Ok(()),
    }
}

/// Writes the device's files. The sums come last: a folder whose sums are right is complete.
fn write_output(
    folder: &Path,
    container: &[u8],
    program: &Program,
    recipe: &str,
    target: &Target,
    report: &PackReport,
) -> Result<(), Error> {
    let expected = output::json(&report.check)?;
    let readme = device_readme(target, report);
    let mut files: Vec<(&str, Vec<u8>)> = vec![(CONTAINER_FILE, container.to_vec())];
    for (name, path) in program.files() {
        files.push((name, std::fs::read(path).map_err(|error| Error::disk("read", path, &error))?));
    }
    files.extend([
        ("expected.json", expected.into_bytes()),
        ("recipe.toml", recipe.as_bytes().to_vec()),
        ("README.md", readme.into_bytes()),
    ]);
    let mut sums = String::new();
    for (name, bytes) in &files {
        let path = folder.join(name);
        match *name {
            RUNNER_FILE => write_program(&path, bytes)?,
            _ => write_whole(&path, bytes)?,
        }
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sums.push_str(&format!("{digest}  {name}\n"));
    }
    write_whole(&folder.join("SHA256SUMS"), sums.as_bytes())
}

/// Bits and groups in words.
fn formats(report: &PackReport) -> String {
    let blocks = report.matrices.iter().map(|matrix| matrix.format);
    let formats: BTreeSet<(u8, String)> =
        blocks.map(|format| (format.bits, format.group.to_string())).collect();
    let bits: BTreeSet<String> = formats.iter().map(|(bits, _)| bits.to_string()).collect();
    let groups: BTreeSet<&str> = formats.iter().map(|(_, group)| group.as_str()).collect();
    let list = |items: Vec<&str>| items.join(", ");
    let head: Vec<String> = report
        .vocabulary
        .iter()
        .map(|matrix| format!("{} {} bits", matrix.kind, matrix.format.bits))
        .collect();
    format!(
        "{} bits, groups of {}, {}",
        list(bits.iter().map(String::as_str).collect()),
        list(groups.into_iter().collect()),
        head.join(", ")
    )
}

/// What was folded into the weights, where something was.
fn folded(report: &PackReport) -> String {
    match report.transform == TransformKind::None.name() {
        true => String::new(),
        false => format!(" after {}", report.transform),
    }
}

/// What a person at the device needs to know.
fn device_readme(target: &Target, report: &PackReport) -> String {
    let formats = formats(report);
    let use_it = match target.runner {
        Runner::Linux => linux_use(&report.check),
        Runner::CortexM | Runner::BareAarch64 => image::readme(target),
    };
    format!(
        "# {checkpoint} for {target}\n\n\
         {checkpoint}, quantized with {method}{folded}, {formats}:\n\
         {bpw:.3} bits a weight, {bytes} bytes.\n\n\
         {use_it}",
        checkpoint = report.checkpoint,
        target = target.name,
        method = report.method,
        folded = folded(report),
        bpw = report.bits_per_weight,
        bytes = report.file_bytes,
    )
}

fn linux_use(check: &CheckFigures) -> String {
    let (commands, computed) = match check {
        CheckFigures::Windows(_) => (
            format!(
                "\x20   ./{RUNNER_FILE} generate {CONTAINER_FILE} --prompt \"Once upon a time\"\n\
                 \x20   ./{RUNNER_FILE} bench {CONTAINER_FILE}\n"
            ),
            "text windows inside the container and must give the very logits",
        ),
        CheckFigures::Images(_) => (
            format!("\x20   ./{RUNNER_FILE} classify {CONTAINER_FILE} picture.jpg\n"),
            "images inside the container and must give the very logits",
        ),
        CheckFigures::Embeddings(_) => (
            format!("\x20   ./{RUNNER_FILE} embed {CONTAINER_FILE} \"Once upon a time\"\n"),
            "texts inside the container and must give the very vectors",
        ),
    };
    format!(
        "Copy this folder to the device, then:\n\n\
         \x20   sha256sum -c SHA256SUMS\n\
         \x20   ./{RUNNER_FILE} check {CONTAINER_FILE}\n\
         {commands}\n\
         `check` runs the {computed} that the host recorded\n\
         (`expected.json`); it ends with exit code 0, or with 1 where a bound is missed.\n"
    )
}

/// What the low-rank corrections gained; `None` where there are none.
fn corrections(report: &PackReport) -> Option<String> {
    let corrected: Vec<_> =
        report.matrices.iter().filter_map(|matrix| Some((matrix, matrix.low_rank?))).collect();
    let ranks: BTreeSet<usize> = corrected.iter().map(|(_, correction)| correction.rank).collect();
    let ranks: Vec<String> = ranks.into_iter().map(|rank| rank.to_string()).collect();
    let lost: f64 = corrected.iter().map(|(matrix, _)| matrix.relative_error.ln()).sum();
    let without: f64 = corrected.iter().map(|(_, correction)| correction.relative_error_without.ln()).sum();
    let share = ((lost - without) / corrected.len() as f64).exp();
    (!corrected.is_empty()).then(|| {
        format!(
            "low-rank corrections of {} of {} matrices, ranks {}: {:.1} % of the error that their bits leave without, on (geometric) average",
            corrected.len(),
            report.matrices.len(),
            ranks.join(", "),
            100.0 * share
        )
    })
}

fn print(report: &Report) {
    let pack = &report.pack;
    output::line(&format!(
        "{}: {} parameters, {}{}, {}, layout {}{}",
        pack.checkpoint,
        pack.parameters,
        pack.method,
        folded(pack),
        formats(pack),
        pack.layout,
        pack.kv_cache.map(|format| format!(", KV cache {format}")).unwrap_or_default()
    ));
    output::line(&format!(
        "{:.3} bits a weight, {} bytes, calibrated on {} tokens",
        pack.bits_per_weight, pack.file_bytes, pack.calibration_tokens
    ));
    if let Some(choice) = &report.transform_choice {
        output::line(&choice.in_words());
    }
    if let Some(found) = &pack.held_out_images {
        output::line(&classifier::summary(found));
    }
    if let Some(corrections) = corrections(pack) {
        output::line(&corrections);
    }
    if report.restored_layers > 0 {
        output::line(&format!("{} layers came from the earlier run", report.restored_layers));
    }
    for warning in &pack.warnings {
        output::line(&format!("WARNING: {warning}"));
    }
    if let (Some(key), Some(release)) = (&report.signed_by, report.release) {
        output::line(&format!("signed as release {release} by key {key}; the program loads nothing else"));
    }
    if let Some(memory) = &report.memory {
        output::line("");
        memory.print();
    }
    match &report.check {
        Some(check) => {
            output::line("");
            check::print(check);
            if let Some(why) = &check.not_checked {
                output::line(&format!(
                    "NOT CHECKED on {}: there is nowhere to run it here. {why}",
                    report.target
                ));
            }
        }
        None => output::line("NOT CHECKED on the target: --no-check was given."),
    }
    output::line("");
    output::line(&format!("wrote {} in {:.1} s", report.output.display(), report.seconds));
}
