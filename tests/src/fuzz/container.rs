//! Containers: checked, then run.

use super::Outcome;
use bytemuck::Zeroable;
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_formats::spec::ModelKind;
use rescomp_runtime::Machine;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::encoder::{Encoder, EncoderPlan};
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels::{self, Kernels};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::models::vit::Pixels;
use rescomp_runtime::session::{Limits, SessionPlan};

/// Tokens that are run.
const TOKENS: usize = 4;
/// More memory than this is not tried: what a session needs is the caller's to decide.
const MEMORY_LIMIT_BYTES: u64 = 64 << 20;

/// Opens and checks a container, and asks everything of what is accepted.
///
/// # Panics
/// Where an accepted container breaks a promise.
pub fn check(bytes: &[u8]) -> Outcome {
    let file = AlignedBytes::new(bytes);
    // The weaker check accepts no less.
    let with_digests = checked(&file, Integrity::Digest);
    let with_crc = checked(&file, Integrity::Crc);
    let Some(container) = with_digests else { return Outcome::Refused };
    assert!(with_crc.is_some(), "accepted with digests, refused without");
    let spec = &container.manifest().spec;
    let kind = spec.architecture.kind();
    assert_eq!(container.check_windows().is_some(), kind == ModelKind::Decoder);
    assert_eq!(container.check_embeddings().is_some(), kind == ModelKind::Encoder);
    let classifies = kind == ModelKind::Classifier;
    assert_eq!((container.check_images().is_some(), container.labels().is_some()), (classifies, classifies));
    assert_eq!(container.tokenizer().is_some(), !classifies);
    if let (Some(images), Some(labels)) = (container.check_images(), container.labels()) {
        let repeat = images.repeat();
        let elems = spec.image().expect("a classifier").elems() / (repeat * repeat);
        for image in 0..images.images() {
            assert_eq!(images.pixels(image).len(), elems);
            assert!((0.0..=1.0).contains(&images.classes().rest(image)));
            let kept = images.classes().kept(image);
            assert!({ kept }.all(|(id, nats)| id < spec.vocabulary && nats <= 0.0));
        }
        for class in [0, spec.vocabulary - 1, u32::MAX] {
            assert!(!labels.get(class).contains('\n'));
        }
    }
    if let Some(windows) = container.check_windows() {
        let sizes = windows.sizes();
        for window in 0..sizes.windows {
            assert!((0..=sizes.positions).all(|index| windows.token(window, index) < spec.vocabulary));
            for position in 0..sizes.positions {
                assert!((0.0..=1.0).contains(&windows.rest(window, position)));
                assert!(windows.kept(window, position).all(|(id, nats)| id < spec.vocabulary && nats <= 0.0));
            }
        }
    }
    if let Some(texts) = container.check_embeddings() {
        for text in 0..texts.texts() {
            let length = texts.tokens(text).len();
            assert!((1..=texts.longest()).contains(&length) && length <= spec.context as usize);
            assert!(texts.tokens(text).all(|token| token < spec.vocabulary));
            assert_eq!(texts.vector(text).len(), spec.hidden as usize);
            assert!(texts.vector(text).all(f32::is_finite));
        }
    }
    let pairs = spec.variant.rotary_dim as usize / 2;
    assert_eq!(container.rope_frequencies().len(), pairs);
    let local_pairs = if spec.architecture.has_local_frequencies() { pairs } else { 0 };
    assert_eq!(container.local_rope_frequencies().len(), local_pairs);
    assert_eq!(container.token_bands().is_some(), spec.embedding_bands > 1);
    assert_eq!(container.chat_template().is_some(), spec.chat_template);
    for (name, _) in container.container().entries() {
        let Some(matrix) = container.matrix(name) else {
            assert!(!name.kind.is_matrix(), "{name} is not found");
            let floats = container.floats(name);
            assert_eq!(floats.is_some(), name.kind.is_floats(), "{name}");
            assert!(floats.unwrap_or(&[]).iter().all(|value| value.is_finite()), "{name}");
            continue;
        };
        let mut values = vec![f32::NAN; matrix.shape().cols()];
        for row in 0..matrix.shape().rows() {
            matrix.decode_row(row, &mut values);
            assert!(values.iter().all(|value| value.is_finite()), "{name}, row {row}");
        }
    }
    Outcome::Accepted
}

/// [`check`], then four tokens of prefill and decode, or of a text: with the scalar kernels and the best ones, whose bits must be the same.
///
/// # Panics
/// Where kernels disagree, or a token runs into anything but an error.
pub fn decode(bytes: &[u8]) -> Outcome {
    let file = AlignedBytes::new(bytes);
    let Some(container) = checked(&file, Integrity::Crc) else { return Outcome::Refused };
    let context = (container.manifest().spec.context as usize).min(TOKENS);
    let limits = Limits { context, tile: 2 };
    let kind = container.manifest().spec.architecture.kind();
    let bytes = match kind {
        ModelKind::Encoder => {
            EncoderPlan::new(&container, context).expect("within the model's context").bytes()
        }
        ModelKind::Decoder => {
            SessionPlan::new(&container, limits).expect("limits within the model's").bytes()
        }
        ModelKind::Classifier => ClassifierPlan::new(&container).expect("a classifier").bytes(),
    };
    if bytes > MEMORY_LIMIT_BYTES {
        return Outcome::Refused;
    }
    let scalar = kernels::by_name("scalar").expect("always there");
    for activations in [ActivationFormat::Int8, ActivationFormat::F32] {
        let run = match kind {
            ModelKind::Encoder => embed,
            ModelKind::Decoder => run,
            ModelKind::Classifier => classify,
        };
        let expected = run(&container, scalar, context, activations);
        assert_eq!(run(&container, kernels::best(), context, activations), expected, "{activations:?}");
    }
    Outcome::Accepted
}

/// Four tokens of the vocabulary, its first and last among them.
fn tokens(container: &CheckedContainer<'_>) -> [u32; 4] {
    let last = container.manifest().spec.vocabulary - 1;
    [0, last, last / 2, 1.min(last)]
}

fn checked(file: &[u8], integrity: Integrity) -> Option<CheckedContainer<'_>> {
    Container::open(file).ok()?.check(integrity).ok()
}

/// The bits of the vectors of one token, and of four or as many as the context has; or the error.
fn embed(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    context: usize,
    activations: ActivationFormat,
) -> Result<Vec<u32>, RuntimeError> {
    let machine = Machine { kernels, executor: &Serial };
    let plan = EncoderPlan::new(container, context).expect("within the model's context");
    let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
    let mut encoder =
        Encoder::new(container, machine, context, activations, &mut memory).expect("the planned memory");
    let tokens = tokens(container);
    let mut bits = Vec::new();
    for tokens in [&tokens[..1], &tokens[..context]] {
        bits.extend(encoder.embed(tokens)?.iter().map(|number| number.to_bits()));
    }
    Ok(bits)
}

/// The bits of the logits of the container's first image and of a black one, or the error.
fn classify(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    _context: usize,
    activations: ActivationFormat,
) -> Result<Vec<u32>, RuntimeError> {
    let machine = Machine { kernels, executor: &Serial };
    let plan = ClassifierPlan::new(container).expect("a classifier");
    let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
    let mut classifier =
        Classifier::new(container, machine, activations, &mut memory).expect("the planned memory");
    let images = container.check_images().expect("a classifier's");
    let black = vec![0; container.manifest().spec.image().expect("a classifier").elems()];
    let stored = Pixels::Bytes { rgb: images.pixels(0), repeat: images.repeat() };
    let mut bits = Vec::new();
    for pixels in [stored, Pixels::Bytes { rgb: &black, repeat: 1 }] {
        bits.extend(classifier.classify(pixels)?.iter().map(|logit| logit.to_bits()));
    }
    Ok(bits)
}

/// The bits of all logits, or the error.
fn run(
    container: &CheckedContainer<'_>,
    kernels: &'static Kernels,
    context: usize,
    activations: ActivationFormat,
) -> Result<Vec<u32>, RuntimeError> {
    let machine = Machine { kernels, executor: &Serial };
    let mut memory = crate::memory(container, context, 2);
    let mut session = crate::session(container, machine, context, 2, activations, &mut memory);
    let tokens = tokens(container);
    let mut bits = Vec::new();
    // Two tokens at once, then one by one.
    let (first, rest) = tokens[..context].split_at(context.min(2));
    for tokens in std::iter::once(first).chain(rest.chunks(1)) {
        session.run_each(tokens, |_, logits| bits.extend(logits.iter().map(|logit| logit.to_bits())))?;
    }
    Ok(bits)
}
