//! A classifier of images in its memory, and which models are none.

use std::path::Path;

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::image_input::ImageInput;
use rescomp_runtime::classifier::{Classifier, ClassifierPlan};
use rescomp_runtime::linear::ActivationFormat;

use crate::error::Error;
use crate::machine::{Engine, SessionMemory};

/// What a classifier reads; refuses every other model.
///
/// # Errors
/// `Exit::Input` naming the architecture and what to use.
pub(crate) fn expect_classifier<'c>(
    path: &Path,
    container: &'c CheckedContainer<'_>,
) -> Result<&'c ImageInput, Error> {
    let spec = &container.manifest().spec;
    spec.image().ok_or_else(|| {
        let what = if spec.architecture.is_encoder() { "an encoder" } else { "a decoder" };
        Error::input(
            path,
            format_args!(
                "{} is {what} and reads texts: expected a classifier of images, as vit",
                spec.architecture.name()
            ),
        )
    })
}

/// The memory of a classifier.
///
/// # Errors
/// `Exit::Input` where the model is none, or the memory isn't there.
pub(crate) fn memory(path: &Path, container: &CheckedContainer<'_>) -> Result<SessionMemory, Error> {
    let bytes = ClassifierPlan::new(container).map_err(|error| Error::input(path, error))?.bytes();
    SessionMemory::new(bytes)
        .ok_or_else(|| Error::input(path, format_args!("no memory for an image: {bytes} bytes")))
}

/// A classifier with int8 activations, as on every device.
///
/// # Errors
/// `Exit::Input`.
pub(crate) fn classifier<'a>(
    path: &Path,
    container: &'a CheckedContainer<'a>,
    engine: &'a Engine,
    memory: &'a mut SessionMemory,
) -> Result<Classifier<'a>, Error> {
    Classifier::new(container, engine.machine(), ActivationFormat::Int8, memory.blocks())
        .map_err(|error| Error::input(path, error))
}
