//! Hostile classifiers: images and probabilities of the check, names of classes, and sizes that no image has, behind checksums that are right.

use super::containers::container;
use super::variants::small_classifier;
use super::{HostileFile, record_of_windows};
use crate::forge::{Parts, entry};
use rescomp_formats::image_input::ImageInput;
use rescomp_formats::manifest::{Check, Manifest};
use rescomp_formats::spec::Output;

// Places in the table.
const LABELS: usize = 0;
const CHECK_IMAGES: usize = 1;
const HEAD_BIAS: usize = 5;

pub(super) fn files() -> Vec<HostileFile> {
    let sound = small_classifier();
    let section = |name, attack, place: usize, at: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts.sections[place]);
        let bytes = parts.assemble();
        HostileFile { name, attack, offset: Some(entry(&bytes, place).offset_bytes + at), bytes }
    };
    let word = |name, attack, at: usize, value: u32| {
        section(name, attack, CHECK_IMAGES, 4 * at as u64, &|bytes| {
            bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes())
        })
    };
    let in_manifest = |name, attack, file: &[u8], change: &dyn Fn(&mut Manifest)| {
        HostileFile::with_manifest(name, attack, 64, file, change)
    };
    let in_image = |name, attack, change: &dyn Fn(&mut ImageInput)| {
        in_manifest(name, attack, &sound, &|manifest| {
            if let Output::Classes(image) = &mut manifest.spec.output {
                change(image);
            }
        })
    };
    let length = crate::forge::section(&sound, CHECK_IMAGES).len() as u64;
    let labels = crate::forge::section(&sound, LABELS).len() as u64;
    vec![
        word("container/images-none.rescomp", "no image to check with", 0, 0),
        word("container/images-many.rescomp", "more images than memory has bytes", 0, u32::MAX),
        word("container/pixels-repeated-never.rescomp", "pixels that stand for none", 1, 0),
        word("container/pixels-do-not-tile.rescomp", "pixels that do not tile the image", 1, 3),
        word("container/image-not-a-probability.rescomp", "a probability above one", 2, 2.0_f32.to_bits()),
        section(
            "container/image-class.rescomp",
            "a class that the model lacks",
            CHECK_IMAGES,
            // Behind two rests and ten log-probabilities.
            8 + 8 + 20,
            &|bytes| bytes[36..38].copy_from_slice(&5_u16.to_le_bytes()),
        ),
        section(
            "container/images-cut.rescomp",
            "the last pixel of the last image is missing",
            CHECK_IMAGES,
            length - 3,
            &|bytes| bytes.truncate(bytes.len() - 3),
        ),
        section(
            "container/images-without-sizes.rescomp",
            "a section that ends inside its sizes",
            CHECK_IMAGES,
            0,
            &|bytes| bytes.truncate(7),
        ),
        section("container/labels-few.rescomp", "fewer names than classes", LABELS, labels - 8, &|bytes| {
            bytes.truncate(bytes.len() - 8)
        }),
        section("container/label-steers.rescomp", "a name that clears the terminal", LABELS, 2, &|bytes| {
            bytes[2] = 0x1b
        }),
        section("container/label-not-text.rescomp", "a name that is no UTF-8", LABELS, 0, &|bytes| {
            bytes[0] = 0xff
        }),
        section(
            "container/labels-unended.rescomp",
            "a last name that does not end",
            LABELS,
            labels + 1,
            &|bytes| bytes.push(b'x'),
        ),
        section("container/head-bias-infinite.rescomp", "a bias that is infinite", HEAD_BIAS, 4, &|bytes| {
            bytes[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes())
        }),
        {
            let mut parts = Parts::of(&sound);
            let change = |manifest: &mut Manifest| {
                if let Check::Images(record) = &mut manifest.check {
                    record.images = 3;
                }
            };
            parts.change_manifest(change).expect("a manifest");
            let bytes = parts.assemble();
            let offset = Some(entry(&bytes, CHECK_IMAGES).offset_bytes);
            let (name, attack) =
                ("container/record-of-other-images.rescomp", "a record of more images than there are");
            HostileFile { name, attack, offset, bytes }
        },
        in_manifest(
            "container/images-kl-not-a-number.rescomp",
            "a divergence that is NaN, which no bound is missed by",
            &sound,
            &|manifest| {
                if let Check::Images(record) = &mut manifest.check {
                    record.mean_kl = f64::NAN;
                }
            },
        ),
        in_manifest(
            "container/classifier-with-windows.rescomp",
            "a classifier with a decoder's record",
            &sound,
            &|manifest| {
                manifest.check = record_of_windows();
            },
        ),
        in_manifest(
            "container/classifier-without-image.rescomp",
            "a classifier that reads nothing",
            &sound,
            &|manifest| manifest.spec.output = Output::NextToken,
        ),
        in_manifest(
            "container/decoder-with-image.rescomp",
            "a decoder that reads images",
            &container(),
            &|manifest| manifest.spec.output = Output::Classes(crate::tiny::image_input()),
        ),
        in_manifest(
            "container/classifier-with-other-tokens.rescomp",
            "more positions than an image has tokens",
            &sound,
            &|manifest| manifest.spec.context = 7,
        ),
        in_manifest(
            "container/classifier-with-begin-token.rescomp",
            "a classifier with a token that begins a text",
            &sound,
            &|manifest| manifest.spec.begin_token = Some(0),
        ),
        in_image("container/patch-none.rescomp", "patches of no pixels", &|image| image.patch = 0),
        in_image("container/patch-does-not-tile.rescomp", "patches that do not tile the image", &|image| {
            image.patch = 3
        }),
        in_image("container/image-huge.rescomp", "an image that no memory holds", &|image| {
            (image.height, image.width) = (u32::MAX, u32::MAX)
        }),
        in_image(
            "container/head-of-other-tokens.rescomp",
            "a head of tokens that an image lacks",
            &|image| image.head_tokens = 3,
        ),
        in_image("container/deviation-zero.rescomp", "pixels that are divided by nothing", &|image| {
            image.deviation[1] = 0.0
        }),
        in_image("container/mean-not-a-number.rescomp", "pixels less NaN", &|image| image.mean[2] = f32::NAN),
    ]
}
