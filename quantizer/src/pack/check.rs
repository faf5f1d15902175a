//! What a container is checked by: windows, texts or images with what the full-precision model gives on them, and what the container gives.

use super::{PackFailure, PackOptions};
use crate::checkpoint::Checkpoint;
use crate::classes::{dense_classes, enlarged, shrunk};
use crate::dense::DenseLogits;
use crate::embeddings::dense_embeddings;
use crate::record::{self, Record};
use bytemuck::Zeroable;
use rescomp_formats::check_embeddings;
use rescomp_formats::container::{Container, Integrity};
use rescomp_formats::manifest::{Check, CheckRecord, EmbeddingRecord, ImageRecord};
use rescomp_formats::section::{SectionKind, SectionName};
use rescomp_formats::spec::{ModelKind, ModelSpec};
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::eval;
use rescomp_runtime::eval_embeddings::measure_embeddings;
use rescomp_runtime::eval_images::measure_images;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::session::{Limits, Session, SessionPlan};

/// The section that a container is checked by, and its record, in which what the container gives is still missing.
pub(super) type Recorded = (SectionKind, Vec<u8>, Check);

/// What the full-precision model is run on, for a container of about `container_bytes`.
#[derive(Clone, Copy)]
pub(super) struct Recording<'a> {
    pub(super) machine: Machine<'a>,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) options: &'a PackOptions,
    pub(super) container_bytes: usize,
}

impl Recording<'_> {
    /// Runs the full-precision model on what one of its kind reads.
    pub(super) fn run(&self) -> Result<Recorded, PackFailure> {
        match self.checkpoint.spec.architecture.kind() {
            ModelKind::Decoder => self.windows(),
            ModelKind::Encoder => self.texts(),
            ModelKind::Classifier => self.images(),
        }
    }

    fn windows(&self) -> Result<Recorded, PackFailure> {
        let Recording { machine, checkpoint, options, container_bytes } = *self;
        let spec = &checkpoint.spec;
        let sizes = record::sizes(container_bytes, spec.vocabulary, spec.context as usize);
        let window = sizes.positions + 1;
        let (needed, found) = (sizes.windows * window, options.check_tokens.len());
        if found < needed {
            return Err(PackFailure::CheckTokens { needed, found });
        }
        let windows: Vec<Vec<u32>> =
            options.check_tokens.chunks_exact(window).take(sizes.windows).map(<[u32]>::to_vec).collect();
        let model = DenseLogits::new(machine, checkpoint, &windows, sizes.positions, |_| ())?;
        let Record { section, reference_nll, positions } =
            record::record(&model, &windows, &sizes).map_err(PackFailure::CheckWindows)?;
        let check = Check::Windows(CheckRecord { reference_nll, positions, ..NO_WINDOWS });
        Ok((SectionKind::CheckWindows, section, check))
    }

    fn texts(&self) -> Result<Recorded, PackFailure> {
        let Recording { machine, checkpoint, options, container_bytes } = *self;
        let texts = check_texts(options, &checkpoint.spec, container_bytes);
        if texts.is_empty() {
            return Err(PackFailure::CheckTexts);
        }
        let vectors = dense_embeddings(machine, checkpoint, texts, |_| ())?;
        let section = check_embeddings::write(texts, &vectors).map_err(PackFailure::CheckWindows)?;
        let check = Check::Embeddings(EmbeddingRecord { texts: texts.len() as u32, ..NO_TEXTS });
        Ok((SectionKind::CheckEmbeddings, section, check))
    }

    fn images(&self) -> Result<Recorded, PackFailure> {
        let Recording { machine, checkpoint, options, container_bytes } = *self;
        let spec = &checkpoint.spec;
        let (count, repeat) = check_images_of(options, spec, container_bytes);
        let held_out = options.images.as_ref().map_or(&[][..], |images| &images.held_out);
        let (Some(image), 1..) = (spec.image(), count) else { return Err(PackFailure::CheckImages) };
        let wrong = |rgb: &&Vec<u8>| rgb.len() != image.elems();
        if let Some(rgb) = held_out.iter().find(wrong) {
            let (expected, found) = (image.elems() as u64, rgb.len() as u64);
            return Err(PackFailure::Run(RuntimeError::Pixels { expected, found }));
        }
        // Evenly spaced: files of one class often follow each other.
        let chosen = (0..count).map(|index| &held_out[index * held_out.len() / count]);
        let stored: Vec<Vec<u8>> = chosen.map(|rgb| shrunk(image, rgb, repeat)).collect();
        let shown: Vec<Vec<u8>> = stored.iter().map(|rgb| enlarged(image, rgb, repeat)).collect();
        let logits = dense_classes(machine, checkpoint, &shown, |_| ())?;
        let section = record::record_images(&stored, repeat, &logits).map_err(PackFailure::CheckWindows)?;
        let check = Check::Images(ImageRecord { images: count as u32, ..NO_IMAGES });
        Ok((SectionKind::CheckImages, section, check))
    }
}

/// How many of the held-out images a container of about `container_bytes` can carry, and how many pixels one of theirs stands for.
pub(super) fn check_images_of(
    options: &PackOptions,
    spec: &ModelSpec,
    container_bytes: usize,
) -> (usize, u32) {
    let available = options.images.as_ref().map_or(0, |images| images.held_out.len());
    spec.image().map_or((0, 1), |image| record::images(container_bytes, image, spec.vocabulary, available))
}

/// Those of the check texts that a container of about `container_bytes` can carry.
pub(super) fn check_texts<'o>(
    options: &'o PackOptions,
    spec: &ModelSpec,
    container_bytes: usize,
) -> &'o [Vec<u32>] {
    let all = &options.check_texts;
    let lengths = all.iter().map(Vec::len);
    &all[..record::texts(container_bytes, lengths, spec.hidden as usize)]
}

/// A record of windows on which nothing was measured yet.
pub(super) const NO_WINDOWS: CheckRecord = CheckRecord {
    reference_nll: 0.0,
    nll: 0.0,
    mean_kl: 0.0,
    same_top1: 0,
    positions: 0,
    logits_sha256: [0; 32],
};

/// Likewise of texts.
pub(super) const NO_TEXTS: EmbeddingRecord =
    EmbeddingRecord { mean_distance: 0.0, largest_distance: 0.0, texts: 0, embeddings_sha256: [0; 32] };

/// Likewise of images.
pub(super) const NO_IMAGES: ImageRecord =
    ImageRecord { mean_kl: 0.0, same_top1: 0, images: 0, logits_sha256: [0; 32] };

/// Runs the container on its own windows, texts or images.
pub(super) fn measure(machine: Machine<'_>, file: &[u8]) -> Result<Check, PackFailure> {
    let container = Container::open(file)?.check(Integrity::Crc)?;
    if let Some(images) = container.check_images() {
        let mut memory = vec![MemoryBlock::zeroed(); ClassifierPlan::new(&container)?.blocks() as usize];
        let mut classifier = Classifier::new(&container, machine, ActivationFormat::Int8, &mut memory)?;
        let measured = measure_images(&mut classifier, &images, |_| ())?;
        return Ok(Check::Images(ImageRecord {
            mean_kl: measured.mean_kl,
            same_top1: measured.same_top1,
            images: measured.images,
            logits_sha256: measured.logits_sha256,
        }));
    }
    if let Some(texts) = container.check_embeddings() {
        let plan = EncoderPlan::new(&container, texts.longest())?;
        let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
        let mut encoder =
            Encoder::new(&container, machine, plan.tokens(), ActivationFormat::Int8, &mut memory)?;
        let mut tokens = vec![0; plan.tokens()];
        let measured = measure_embeddings(&mut encoder, &texts, &mut tokens, |_| ())?;
        return Ok(Check::Embeddings(EmbeddingRecord {
            mean_distance: measured.mean_distance,
            largest_distance: measured.largest_distance,
            texts: measured.texts,
            embeddings_sha256: measured.embeddings_sha256,
        }));
    }
    let (manifest, section) = (container.manifest(), SectionKind::CheckWindows);
    let (Some(windows), Some(record)) = (container.check_windows(), manifest.windows_record()) else {
        return Err(PackFailure::Section(SectionName { kind: section, layer: None }));
    };
    let reference_nll = record.reference_nll;
    let limits = Limits { context: windows.sizes().positions, tile: 1 };
    let mut memory = vec![MemoryBlock::zeroed(); SessionPlan::new(&container, limits)?.blocks() as usize];
    let mut session = Session::new(&container, machine, limits, ActivationFormat::Int8, &mut memory)?;
    let measured = eval::measure(&mut session, &windows, |_| ())?;
    Ok(Check::Windows(CheckRecord {
        reference_nll,
        nll: measured.nll,
        mean_kl: measured.mean_kl,
        same_top1: measured.same_top1,
        positions: measured.positions,
        logits_sha256: measured.logits_sha256,
    }))
}
