//! Files against what transformers' image processors make of them (generate.py): bytes of PNG files are equal, those of JPEG files as far as
//! decoders agree. And files that give no pixels.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::path::{Path, PathBuf};

use rescomp_formats::image_input::{Filter, ImageInput, Resize};
use rescomp_pixels::{decode, read};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn input(width: u32, resize: Option<Resize>) -> ImageInput {
    ImageInput {
        height: 32,
        width,
        patch: 8,
        tokens_before: 1,
        head_tokens: 1,
        rescale: 1.0,
        mean: [0.0; 3],
        deviation: [1.0; 3],
        resize,
    }
}

/// The rules of generate.py.
fn rules() -> [(&'static str, ImageInput); 2] {
    let resize = |height, width, filter| Some(Resize { height, width, filter });
    [
        ("vit", input(24, resize(32, 24, Filter::Bilinear))),
        ("deit", input(32, resize(40, 41, Filter::Bicubic))),
    ]
}

/// The largest and the mean difference of two images.
fn apart(name: &str, rule: &str, input: &ImageInput) -> (u8, f64) {
    let found = read(&data(name), input).unwrap();
    let expected = std::fs::read(data(&format!("{name}.{rule}.rgb"))).unwrap();
    assert_eq!((found.len(), found.len()), (expected.len(), input.elems()), "{name} {rule}");
    let differences: Vec<u8> = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
    let sum: f64 = differences.iter().copied().map(f64::from).sum();
    (differences.iter().copied().max().unwrap(), sum / differences.len() as f64)
}

#[test]
fn png_files_give_the_processors_bytes() {
    for (rule, input) in rules() {
        for name in ["wide.png", "small.png", "gray.png", "alpha.png"] {
            assert_eq!(apart(name, rule, &input), (0, 0.0), "{name} {rule}");
        }
    }
}

#[test]
fn jpeg_files_do_as_far_as_decoders_agree_and_are_turned() {
    for (rule, input) in rules() {
        for name in ["turned.jpg", "gray.jpg"] {
            let (largest, mean) = apart(name, rule, &input);
            println!("{name} {rule}: {largest} at most, {mean:.4} on average");
            assert!(largest <= 2 && mean < 0.25, "{name} {rule}: {largest} {mean}");
        }
    }
}

#[test]
fn what_gives_no_pixels_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let [(_, vit), _] = rules();
    let refused = |name: &str, bytes: Option<&[u8]>, part: &str| {
        let path = folder.path().join(name);
        bytes.into_iter().for_each(|bytes| std::fs::write(&path, bytes).unwrap());
        let error = read(&path, &vit).unwrap_err();
        assert_eq!(error.is_unreadable(), bytes.is_none());
        let text = error.to_string();
        assert!(text.starts_with(path.to_str().unwrap()) && text.contains(part), "{text}");
    };
    refused("missing.png", None, "cannot read");
    refused("text.png", Some(b"no image at all"), "expected a PNG or JPEG image");
    refused("empty.jpg", Some(b""), "expected a PNG or JPEG image");
    for name in ["wide.png", "turned.jpg"] {
        let bytes = std::fs::read(data(name)).unwrap();
        for share in [3, 2] {
            refused("cut", Some(&bytes[..bytes.len() * share / (share + 1)]), "expected a");
        }
        if name.ends_with("jpg") {
            refused("cut", Some(&bytes[..bytes.len() - 2]), "without its end");
        }
        // A broken file is an error or an image, never a panic.
        for at in (0..bytes.len()).step_by(37) {
            let mut broken = bytes.clone();
            broken[at] ^= 0x55;
            let path = folder.path().join("broken");
            std::fs::write(&path, broken).unwrap();
            let _ = decode(&path);
        }
    }
    // A name says nothing.
    let path = folder.path().join("picture.png");
    std::fs::copy(data("turned.jpg"), &path).unwrap();
    assert_eq!(decode(&path).unwrap(), decode(&data("turned.jpg")).unwrap());
    let error = read(&data("wide.png"), &input(24, None)).unwrap_err().to_string();
    assert!(
        error.contains("expected 24 x 32 pixels, as the model does not resize images, found 70 x 45"),
        "{error}"
    );
}
