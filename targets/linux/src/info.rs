//! `rescomp info`: what a container is, and what runs it here.

use rescomp_formats::container::{CheckedContainer, Integrity, MAJOR, MINOR};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::manifest::{Check, Provenance};
use rescomp_formats::matrix::RANK_UNIT;
use rescomp_formats::section::{SectionEntry, encoding, layout};
use rescomp_formats::spec::{ModelSpec, Output};
use rescomp_runtime::classifier::ClassifierPlan;
use rescomp_runtime::encoder::EncoderPlan;
use rescomp_runtime::session::SessionPlan;
use serde::Serialize;

use crate::embedder;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::InfoFlags;
use crate::machine::{self, Engine};
use crate::mapped::{self, Load};
use crate::output::{self, hex};
use crate::table::Table;
use crate::tensors::{self, TensorKernels};
use crate::trust::Trust;

#[derive(Debug, Serialize)]
struct Info<'a> {
    container: String,
    container_version: String,
    /// The public key that signed it, in hexadecimal digits; whether it is trusted, `--trusted-key` says.
    signed_by: Option<String>,
    /// Of a signed container.
    release: Option<u64>,
    file_bytes: usize,
    parameters: u64,
    bits_per_weight: f64,
    model: &'a ModelSpec,
    provenance: ProvenanceInfo<'a>,
    check: CheckInfo,
    memory: MemoryInfo,
    cpu: String,
    kernels: &'static str,
    kernels_available: Vec<&'static str>,
    threads: usize,
    tensor_kernels: Vec<TensorKernels>,
    sections: Vec<SectionInfo>,
}

#[derive(Debug, Serialize)]
struct ProvenanceInfo<'a> {
    checkpoint: &'a str,
    checkpoint_sha256: String,
    method: &'a str,
    transform: &'a str,
    bits: u8,
    group_elems: u32,
    head_bits: u8,
    calibration_sha256: String,
    calibration_tokens: u64,
    target: &'a str,
    tool_version: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum CheckInfo {
    Windows {
        windows: usize,
        positions: u32,
        reference_nll: f64,
        nll: f64,
        mean_kl: f64,
        same_top1: u32,
        logits_sha256: String,
    },
    Embeddings {
        texts: u32,
        mean_distance: f64,
        largest_distance: f64,
        embeddings_sha256: String,
    },
    Images {
        images: u32,
        repeat: usize,
        mean_kl: f64,
        same_top1: u32,
        logits_sha256: String,
    },
}

#[derive(Debug, Serialize)]
struct MemoryInfo {
    context: usize,
    tile: usize,
    /// What keys and values are kept as; none where none are kept.
    kv_cache: Option<&'static str>,
    kv_cache_bytes: u64,
    scratch_bytes: u64,
    session_bytes: u64,
}

#[derive(Debug, Serialize)]
struct SectionInfo {
    name: String,
    encoding: String,
    layout: Option<&'static str>,
    rows: u32,
    cols: u32,
    group_elems: u32,
    /// Of the matrix's low-rank correction, whose factors are part of the bytes; 0 where it has none.
    rank: u32,
    bytes: u64,
    offset_bytes: u64,
}

/// Runs the command.
///
/// # Errors
/// Where the container or the command line is wrong.
pub(crate) fn run(flags: &InfoFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let file = mapped::open(path, flags.machine.load.or(Some(Load::Map)))?;
    let container = Trust::new(&flags.machine.trust)?.open(path, &file, Integrity::Digest)?;
    let engine = Engine::new(&flags.machine, &container)?;
    let manifest = container.manifest();
    let signer = container.container().signer().map(|key| hex(&key));
    let memory = memory(flags, &container)?;
    let info = Info {
        container: path.display().to_string(),
        container_version: format!("{MAJOR}.{MINOR}"),
        release: signer.is_some().then(|| container.container().release()),
        signed_by: signer,
        file_bytes: file.len(),
        parameters: container.container().parameters(),
        bits_per_weight: container.container().bits_per_weight(),
        model: &manifest.spec,
        provenance: provenance(&manifest.provenance),
        check: check(&container),
        memory,
        cpu: machine::cpu(),
        kernels: engine.kernels().name,
        kernels_available: machine::available_kernels(),
        threads: engine.threads(),
        tensor_kernels: tensors::tensor_kernels(&container, engine.kernels()),
        sections: sections(&container),
    };
    output::text(&if flags.json { output::json(&info)? } else { in_words(&info) });
    Ok(Exit::Success)
}

fn provenance(provenance: &Provenance) -> ProvenanceInfo<'_> {
    ProvenanceInfo {
        checkpoint: &provenance.checkpoint,
        checkpoint_sha256: hex(&provenance.checkpoint_sha256),
        method: &provenance.method,
        transform: &provenance.transform,
        bits: provenance.bits,
        group_elems: provenance.group_elems,
        head_bits: provenance.head_bits,
        calibration_sha256: hex(&provenance.calibration_sha256),
        calibration_tokens: provenance.calibration_tokens,
        target: &provenance.target,
        tool_version: &provenance.tool_version,
    }
}

/// The memory of a session, of an encoder or of a classifier.
fn memory(flags: &InfoFlags, container: &CheckedContainer<'_>) -> Result<MemoryInfo, Error> {
    let wrong = |error| Error::input(&flags.machine.container, error);
    let spec = &container.manifest().spec;
    if let Some(image) = spec.image() {
        let (context, bytes) =
            (image.tokens() as usize, ClassifierPlan::new(container).map_err(wrong)?.bytes());
        if flags.context.is_some_and(|asked| asked != context) {
            return Err(Error::usage(format!("--context: an image of this model has {context} tokens")));
        }
        return Ok(MemoryInfo {
            context,
            tile: context,
            kv_cache: None,
            kv_cache_bytes: 0,
            scratch_bytes: bytes,
            session_bytes: bytes,
        });
    }
    if spec.architecture.is_encoder() {
        let context = flags.context.unwrap_or_else(|| embedder::most_tokens(container));
        let bytes = EncoderPlan::new(container, context).map_err(wrong)?.bytes();
        return Ok(MemoryInfo {
            context,
            tile: context,
            kv_cache: None,
            kv_cache_bytes: 0,
            scratch_bytes: bytes,
            session_bytes: bytes,
        });
    }
    let limits = machine::limits(flags.context.unwrap_or(spec.context as usize));
    let plan = SessionPlan::new(container, limits).map_err(wrong)?;
    Ok(MemoryInfo {
        context: limits.context,
        tile: limits.tile,
        kv_cache: Some(container.manifest().cache.name()),
        kv_cache_bytes: plan.kv_cache_bytes,
        scratch_bytes: plan.scratch_bytes,
        session_bytes: plan.bytes(),
    })
}

fn check(container: &CheckedContainer<'_>) -> CheckInfo {
    match &container.manifest().check {
        Check::Windows(record) => CheckInfo::Windows {
            windows: container.check_windows().map_or(0, |windows| windows.sizes().windows),
            positions: record.positions,
            reference_nll: record.reference_nll,
            nll: record.nll,
            mean_kl: record.mean_kl,
            same_top1: record.same_top1,
            logits_sha256: hex(&record.logits_sha256),
        },
        Check::Embeddings(record) => CheckInfo::Embeddings {
            texts: record.texts,
            mean_distance: record.mean_distance,
            largest_distance: record.largest_distance,
            embeddings_sha256: hex(&record.embeddings_sha256),
        },
        Check::Images(record) => CheckInfo::Images {
            images: record.images,
            repeat: container.check_images().map_or(1, |images| images.repeat()),
            mean_kl: record.mean_kl,
            same_top1: record.same_top1,
            logits_sha256: hex(&record.logits_sha256),
        },
    }
}

fn sections(container: &CheckedContainer<'_>) -> Vec<SectionInfo> {
    let section = |(name, entry): (_, &SectionEntry)| SectionInfo {
        name: format!("{name}"),
        encoding: encoding_name(entry.encoding),
        layout: layout::from_number(entry.layout).map(|layout| layout.name()),
        rows: entry.rows,
        cols: entry.cols,
        group_elems: entry.group_elems,
        rank: u32::from(entry.rank_units) * RANK_UNIT,
        bytes: entry.length_bytes,
        offset_bytes: entry.offset_bytes,
    };
    container.container().entries().map(|(name, entry)| section((name, entry))).collect()
}

fn encoding_name(number: u8) -> String {
    match (number, number.checked_sub(encoding::INT).and_then(CodeWidth::from_bits)) {
        (_, Some(width)) => format!("int{}", width.bits()),
        (encoding::BYTES, _) => "bytes".to_owned(),
        (encoding::U64, _) => "u64".to_owned(),
        (encoding::F32, _) => "f32".to_owned(),
        (other, _) => format!("encoding {other}"),
    }
}

/// What a classifier reads.
fn describe_image(table: &mut Table, image: &ImageInput) {
    table
        .pair("image", format_args!("{} x {} pixels, patches of {}", image.width, image.height, image.patch));
    let rule = image.resize.map_or("files have this size".to_owned(), |resize| {
        format!("files are resized to {} x {}, {}", resize.width, resize.height, resize.filter.name())
    });
    table.pair("resizing", rule);
    table.pair(
        "pixels",
        format_args!("(byte x {} - {:?}) / {:?}", image.rescale, image.mean, image.deviation),
    );
    table.pair(
        "head",
        format_args!("of {} of {} tokens before the patches", image.head_tokens, image.tokens_before),
    );
}

fn in_words(info: &Info<'_>) -> String {
    let (model, made, check, memory) = (info.model, &info.provenance, &info.check, &info.memory);
    let mut table = Table::default();
    table.pair("container", &info.container);
    table.pair("version", &info.container_version);
    if let (Some(key), Some(release)) = (&info.signed_by, info.release) {
        table.pair("signed by", key);
        table.pair("release", release);
    }
    table.pair("file bytes", info.file_bytes);
    table.pair("parameters", info.parameters);
    table.pair("bits a weight", format_args!("{:.3}", info.bits_per_weight));
    table.pair("architecture", model.architecture.name());
    table.pair(if model.image().is_some() { "classes" } else { "vocabulary" }, model.vocabulary);
    table.pair("hidden", model.hidden);
    table.pair("intermediate", model.intermediate);
    table.pair("layers", model.layers);
    table.pair("heads", format_args!("{} of {}", model.heads, model.head_dim));
    table.pair("key-value heads", model.kv_heads);
    table.pair("context", model.context);
    table.pair("norm epsilon", format_args!("{:e}", model.norm_epsilon));
    match (model.output, model.tied_head) {
        (Output::Classes(image), _) => describe_image(&mut table, &image),
        (Output::Vector(embedding), _) => {
            let length = if embedding.normalized { ", of length 1" } else { "" };
            table.pair("vectors", format_args!("{} of the tokens{length}", embedding.pooling.name()));
        }
        (Output::NextToken, true) => table.pair("head", "tied to the embedding"),
        (Output::NextToken, false) => table.pair("head", "a matrix of its own"),
    }
    if model.embedding_bands > 1 {
        table.pair("embedding bands", model.embedding_bands);
    }
    table.pair("begin token", model.begin_token.map_or("none".to_owned(), |token| token.to_string()));
    table.pair("end tokens", format_args!("{:?}", model.end_tokens.as_slice()));
    table.pair("chat template", if model.chat_template { "yes" } else { "none" });
    table.pair("checkpoint", made.checkpoint);
    table.pair("checkpoint SHA-256", &made.checkpoint_sha256);
    table.pair("method", made.method);
    table.pair("transform", made.transform);
    table.pair("bits", format_args!("{}, head {}", made.bits, made.head_bits));
    match made.group_elems {
        0 => table.pair("group", "whole rows"),
        columns => table.pair("group", format_args!("{columns} columns")),
    }
    table.pair("calibration tokens", made.calibration_tokens);
    table.pair("calibration SHA-256", &made.calibration_sha256);
    table.pair("target", made.target);
    table.pair("made by version", made.tool_version);
    match check {
        CheckInfo::Windows { windows, positions, reference_nll, nll, mean_kl, same_top1, logits_sha256 } => {
            table.pair("check windows", format_args!("{windows} ({positions} positions)"));
            table.pair("full-precision NLL", format_args!("{reference_nll:.6} nats a token"));
            table.pair("host NLL", format_args!("{nll:.6} nats a token"));
            table.pair("host mean KL", format_args!("{mean_kl:.6} nats a token"));
            table.pair("host same top-1", format_args!("{same_top1} of {positions}"));
            table.pair("host logits SHA-256", logits_sha256);
        }
        CheckInfo::Embeddings { texts, mean_distance, largest_distance, embeddings_sha256 } => {
            table.pair("check texts", texts);
            table.pair("host mean 1 - cosine", format_args!("{mean_distance:.6}"));
            table.pair("host largest 1 - cosine", format_args!("{largest_distance:.6}"));
            table.pair("host vectors SHA-256", embeddings_sha256);
        }
        CheckInfo::Images { images, repeat, mean_kl, same_top1, logits_sha256 } => {
            table.pair("check images", format_args!("{images}, each pixel stands for {repeat} x {repeat}"));
            table.pair("host mean KL", format_args!("{mean_kl:.6} nats an image"));
            table.pair("host same top-1", format_args!("{same_top1} of {images}"));
            table.pair("host logits SHA-256", logits_sha256);
        }
    }
    table.pair("session context", memory.context);
    if let Some(format) = memory.kv_cache {
        table.pair("KV cache", format);
    }
    table.pair("KV cache bytes", memory.kv_cache_bytes);
    table.pair("scratch bytes", memory.scratch_bytes);
    table.pair("session bytes", memory.session_bytes);
    table.pair("processor", &info.cpu);
    table.pair("kernels", info.kernels);
    table.pair("kernels available", info.kernels_available.join(", "));
    table.pair("threads", info.threads);
    let mut sections =
        Table::with_header(["section", "encoding", "layout", "shape", "group", "rank", "bytes", "offset"]);
    let dash = || "-".to_owned();
    for section in &info.sections {
        sections.row([
            section.name.clone(),
            section.encoding.clone(),
            section.layout.unwrap_or("-").to_owned(),
            if section.rows == 0 { dash() } else { format!("{} x {}", section.rows, section.cols) },
            if section.group_elems == 0 { dash() } else { section.group_elems.to_string() },
            if section.rank == 0 { dash() } else { section.rank.to_string() },
            section.bytes.to_string(),
            section.offset_bytes.to_string(),
        ]);
    }
    format!("{table}\n{}\n{sections}", tensors::table(&info.tensor_kernels))
}
