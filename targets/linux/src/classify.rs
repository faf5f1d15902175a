//! `rescomp classify`: the classes of images.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rescomp_formats::container::{CheckedContainer, Integrity};
use rescomp_formats::image_input::ImageInput;
use rescomp_pixels::PixelsError;
use rescomp_runtime::eval::log_sum_exp;
use rescomp_runtime::models::vit::Pixels;
use serde::Serialize;

use crate::classifier;
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::ClassifyFlags;
use crate::interrupt;
use crate::machine::{self, Engine};
use crate::mapped;
use crate::output;
use crate::trust::Trust;

/// A line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: String,
    classes: Vec<Class<'a>>,
}

/// A class of an image.
#[derive(Debug, PartialEq, Serialize)]
struct Class<'a> {
    index: usize,
    label: &'a str,
    probability: f64,
}

/// Runs the command.
///
/// # Errors
/// Where the container, an image or the command line is wrong. Every image is read before the first is run.
pub(crate) fn run(flags: &ClassifyFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    let input = classifier::expect_classifier(path, &container)?;
    let images: Vec<(&PathBuf, Vec<u8>)> = flags
        .images
        .iter()
        .map(|image| pixels(image, input).map(|pixels| (image, pixels)))
        .collect::<Result<_, _>>()?;
    let engine = Engine::new(&flags.machine, &container)?;
    let mut memory = classifier::memory(path, &container)?;
    let mut classifier = classifier::classifier(path, &container, &engine, &mut memory)?;
    trust.remember(&container)?;
    interrupt::end_by_itself();
    let start = Instant::now();
    for (image, rgb) in &images {
        if interrupt::requested() {
            return Ok(Exit::Interrupted);
        }
        let pixels = Pixels::Bytes { rgb, repeat: 1 };
        let logits = classifier.classify(pixels).map_err(|error| Error::input(path, error))?;
        let classes = most_likely(&container, logits, flags.top);
        print(flags.json, image, classes)?;
    }
    let seconds = machine::seconds(start.elapsed());
    let count = images.len();
    output::note(&format!(
        "{count} images in {seconds:.3} s, {:.1} ms an image",
        1e3 * seconds / count as f64
    ));
    output::note(&format!("kernels: {}, threads: {}", engine.kernels().name, engine.threads()));
    Ok(Exit::Success)
}

/// What the model reads of a file.
fn pixels(image: &Path, input: &ImageInput) -> Result<Vec<u8>, Error> {
    rescomp_pixels::read(image, input).map_err(|error: PixelsError| match error.is_unreadable() {
        // The message begins with the file's name.
        true => Error::disk_message(error),
        false => Error::usage(error.to_string()),
    })
}

/// The most likely classes, at most `top`, of equal ones the first first.
fn most_likely<'c>(container: &CheckedContainer<'c>, logits: &[f32], top: usize) -> Vec<Class<'c>> {
    let normalizer = log_sum_exp(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(top);
    let labels = container.labels();
    let class = |index: usize| Class {
        index,
        label: labels.map_or("", |labels| labels.get(index as u32)),
        probability: (f64::from(logits[index]) - normalizer).exp(),
    };
    order.into_iter().map(class).collect()
}

fn print(as_json: bool, image: &Path, classes: Vec<Class<'_>>) -> Result<(), Error> {
    if as_json {
        let line = Line { image: image.display().to_string(), classes };
        let line =
            serde_json::to_string(&line).map_err(|error| Error::system("print the classes", &error))?;
        output::text(&(line + "\n"));
        return Ok(());
    }
    let mut text = format!("{}\n", image.display());
    for Class { index, label, probability } in classes {
        text.push_str(&format!("{probability:>10.4}  {index:>5}  {label}\n"));
    }
    output::text(&text);
    Ok(())
}
