//! What `pack` and `eval` do otherwise with a classifier: it reads images, of which a folder has many.

use std::path::{Path, PathBuf};

use rescomp_formats::container::CheckedContainer;
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::spec::ModelSpec;
use rescomp_pixels::PixelsError;
use rescomp_quantizer::evaluate_images::{ImageEvaluation, evaluate_images, steps};
use rescomp_quantizer::pack::PackImages;
use rescomp_runtime::Machine;

use crate::error::{Error, Exit};
use crate::flags::{EvalFlags, Joiner, PackFlags};
use crate::{host, model, output};

/// One image of this many is held out for the check and the report.
const HELD_OUT_EVERY: usize = 4;
/// Images that are held out at most: running them is to take seconds.
const MOST_HELD_OUT: usize = 64;
/// Images that a folder must have: two to calibrate on, one of which choices are made on, and one held out.
const LEAST: usize = 4;
/// Ends of the names of files that are read.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Refuses what is said of texts.
///
/// # Errors
/// `Exit::Input` naming the flag.
pub(crate) fn expect_no_text_flags(flags: &PackFlags, spec: &ModelSpec) -> Result<(), Error> {
    let given = [
        ("--calibration", flags.calibration.is_some()),
        ("--context", flags.context.is_some()),
        ("--joiner", flags.joiner != Joiner::Auto),
        ("--target-bpw", flags.target_bpw.is_some()),
        ("--max-bytes", flags.max_bytes.is_some()),
    ];
    let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
    let architecture = spec.architecture.name();
    let why = match flag {
        "--target-bpw" | "--max-bytes" => {
            "bits are distributed by the divergence of next tokens, which it has none of"
        }
        _ => "it reads no texts",
    };
    Err(Error::input(format!("{flag}: {architecture} is a classifier of images: {why}"))
        .remedy("give --calibration-images DIR, a folder of PNG and JPEG files"))
}

/// The images of `pack`.
///
/// # Errors
/// `Exit::Disk` when a folder or a file cannot be read, `Exit::Input` for a file that is no image, and for too few of them.
pub(crate) fn pack_images(
    flags: &PackFlags,
    spec: &ModelSpec,
    input: &ImageInput,
) -> Result<PackImages, Error> {
    let Some(folder) = &flags.calibration_images else {
        let architecture = spec.architecture.name();
        return Err(Error::input(format!("{architecture} is a classifier of images: expected --calibration-images"))
            .remedy("give a folder of PNG and JPEG files like those that the model will see: --calibration-images DIR"));
    };
    let all = files(folder)?;
    let files = all.get(flags.calibration_offset..).unwrap_or_default();
    if files.len() < LEAST {
        return Err(Error::input(format!(
            "{}: expected at least {LEAST} PNG or JPEG files{}, found {}",
            folder.display(),
            if flags.calibration_offset > 0 { " behind --calibration-offset" } else { "" },
            files.len()
        ))
        .remedy("64 images or more are better: some calibrate, every fourth is held out"));
    }
    let (held_out, others): (Vec<_>, Vec<_>) =
        files.iter().enumerate().partition(|(index, _)| index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1);
    Ok(PackImages {
        calibration: read(&spaced(&others, flags.calibration_windows), input)?,
        held_out: read(&spaced(&held_out, MOST_HELD_OUT), input)?,
    })
}

/// At most `most` of some files, evenly spaced: those of one class often follow each other.
fn spaced<'f>(files: &[(usize, &'f PathBuf)], most: usize) -> Vec<&'f PathBuf> {
    let count = files.len().min(most);
    (0..count).map(|index| files[index * files.len() / count].1).collect()
}

/// The pixels of files.
fn read(files: &[&PathBuf], input: &ImageInput) -> Result<Vec<Vec<u8>>, Error> {
    let bar = host::progress("images", files.len());
    let pixels = |file: &&PathBuf| {
        bar.inc(1);
        rescomp_pixels::read(file, input).map_err(|error| pixels_error(&error))
    };
    let images = files.iter().map(pixels).collect();
    bar.finish_and_clear();
    images
}

fn pixels_error(error: &PixelsError) -> Error {
    let exit = if error.is_unreadable() { Exit::Disk } else { Exit::Input };
    Error::new(exit, error.to_string())
}

/// The PNG and JPEG files of a folder and the folders in it, sorted by their paths.
fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |path: &Path, error: &std::io::Error| Error::disk("read the folder", path, error);
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| failed(&folder, &error))? {
            let entry = entry.map_err(|error| failed(&folder, &error))?;
            let path = entry.path();
            // A link to a folder is not followed: it could lead in a circle.
            if entry.file_type().map_err(|error| failed(&path, &error))?.is_dir() {
                folders.push(path);
                continue;
            }
            let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
            if extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// `eval` of a classifier's container.
///
/// # Errors
/// `Exit::Input` or `Exit::Disk` for what cannot be read, `Exit::Failed` for what cannot be run.
pub(crate) fn eval(
    flags: &EvalFlags,
    container: &CheckedContainer<'_>,
    input: &ImageInput,
    machine: Machine<'_>,
) -> Result<(), Error> {
    let architecture = container.manifest().spec.architecture.name();
    let (Some(folder), Some(reference)) = (&flags.images, &flags.reference) else {
        return Err(Error::input(format!("{architecture} is a classifier of images: expected --images and --reference")).remedy(
            "give a folder of PNG and JPEG files, and the full-precision model to compare the probabilities of their classes with",
        ));
    };
    let reference = model::named_checkpoint(reference)?;
    let mut all = files(folder)?;
    all.truncate(flags.windows.unwrap_or(usize::MAX));
    if all.is_empty() {
        return Err(Error::input(format!("{}: expected PNG or JPEG files, found none", folder.display())));
    }
    let images = read(&all.iter().collect::<Vec<_>>(), input)?;
    let bar = host::progress("evaluating", steps(&reference, images.len()));
    let activations = flags.activations.into();
    let found = evaluate_images(machine, container, activations, &reference, &images, &|| bar.inc(1));
    bar.finish_and_clear();
    let found = found.map_err(|error| Error::failed(error.to_string()))?;
    match flags.json {
        true => output::line(&output::json(&found)?),
        false => lines(&found).iter().for_each(|line| output::line(line)),
    }
    Ok(())
}

/// The figures for people.
fn lines(found: &ImageEvaluation) -> Vec<String> {
    let row = |name: &str, value: String| format!("{name:<26}{value:>14}");
    vec![
        row("mean KL, nats an image", format!("{:.6}", found.mean_kl)),
        row("median KL", format!("{:.6}", found.median_kl)),
        row("largest KL", format!("{:.6}", found.largest_kl)),
        row("same most likely class", format!("{:.2} %", 100.0 * found.same_top1)),
        row("images", found.images.to_string()),
        row("bits a weight", format!("{:.3}", found.bits_per_weight)),
        row("file bytes", found.file_bytes.to_string()),
        row("activations", found.activations.to_owned()),
        row("kernels", found.kernels.to_owned()),
    ]
}

/// What `pack` says of the images that were held out.
pub(crate) fn summary(found: &ImageEvaluation) -> String {
    format!(
        "on {} held-out images: the same most likely class in {:.2} %, mean KL {:.6} nats an image (median {:.6}, largest {:.6})",
        found.images,
        100.0 * found.same_top1,
        found.mean_kl,
        found.median_kl,
        found.largest_kl
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sorted_and_found_in_folders() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("b")).expect("writable");
        for name in ["c.JPG", "b/z.png", "b/a.jpeg", "a.png", "notes.txt", "png"] {
            std::fs::write(folder.path().join(name), b"").expect("writable");
        }
        let found = files(folder.path()).expect("readable");
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(folder.path()).expect("inside")).collect();
        assert_eq!(names, ["a.png", "b/a.jpeg", "b/z.png", "c.JPG"].map(Path::new));
        assert!(files(&folder.path().join("none")).is_err());
    }

    #[test]
    fn images_are_evenly_spaced() {
        let paths: Vec<PathBuf> = (0..7).map(|index| PathBuf::from(index.to_string())).collect();
        let numbered: Vec<(usize, &PathBuf)> = paths.iter().enumerate().collect();
        let names =
            |most| spaced(&numbered, most).iter().map(|path| path.display().to_string()).collect::<String>();
        assert_eq!([names(3), names(7), names(100), names(1)], ["024", "0123456", "0123456", "0"]);
    }
}
