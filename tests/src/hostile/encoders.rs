//! Hostile encoders: texts and vectors of the check, and models that are neither encoder nor decoder, behind checksums that are right.

use super::containers::container;
use super::variants::small;
use super::{HostileFile, record_of_windows};
use crate::forge::{Parts, entry};
use rescomp_formats::manifest::{Check, Manifest};
use rescomp_formats::spec::{Architecture, Output, Pooling, TextEmbedding};

// Places in the table.
const CHECK_EMBEDDINGS: usize = 1;
const EMBEDDING_NORM: usize = 4;

pub(super) fn files() -> Vec<HostileFile> {
    let sound = small(Architecture::Bert);
    let section = |name, attack, at: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts.sections[CHECK_EMBEDDINGS]);
        let bytes = parts.assemble();
        HostileFile { name, attack, offset: Some(entry(&bytes, CHECK_EMBEDDINGS).offset_bytes + at), bytes }
    };
    let word = |name, attack, at: usize, value: u32| {
        section(name, attack, 4 * at as u64, &|bytes| {
            bytes[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes())
        })
    };
    let in_manifest = |name, attack, file: &[u8], change: &dyn Fn(&mut Manifest)| {
        HostileFile::with_manifest(name, attack, 64, file, change)
    };
    let length = crate::forge::section(&sound, CHECK_EMBEDDINGS).len() as u64;
    vec![
        word("container/texts-none.rescomp", "no text to check with", 0, 0),
        word("container/texts-many.rescomp", "more texts than memory has bytes", 0, u32::MAX),
        word("container/vectors-narrow.rescomp", "vectors that are narrower than the model's", 1, 4),
        word("container/text-empty.rescomp", "a text without tokens", 2, 0),
        word("container/text-long.rescomp", "a text that is longer than the context", 3, 9),
        word("container/text-token.rescomp", "a token that the vocabulary lacks", 4, 258),
        // Behind the lengths of two texts and eight tokens.
        word("container/vector-not-a-number.rescomp", "a vector of no direction", 12, f32::NAN.to_bits()),
        section(
            "container/texts-cut.rescomp",
            "a number of the last vector is missing",
            length - 4,
            &|bytes| bytes.truncate(bytes.len() - 4),
        ),
        section(
            "container/texts-without-sizes.rescomp",
            "a section that ends inside its sizes",
            0,
            &|bytes| bytes.truncate(7),
        ),
        {
            let mut parts = Parts::of(&sound);
            let change = |manifest: &mut Manifest| {
                if let Check::Embeddings(record) = &mut manifest.check {
                    record.texts = 3;
                }
            };
            parts.change_manifest(change).expect("a manifest");
            let bytes = parts.assemble();
            let offset = Some(entry(&bytes, CHECK_EMBEDDINGS).offset_bytes);
            let (name, attack) =
                ("container/record-of-other-texts.rescomp", "a record of more texts than there are");
            HostileFile { name, attack, offset, bytes }
        },
        in_manifest(
            "container/distance-not-a-number.rescomp",
            "a distance that is NaN, which no bound is missed by",
            &sound,
            &|manifest| {
                if let Check::Embeddings(record) = &mut manifest.check {
                    record.mean_distance = f64::NAN;
                }
            },
        ),
        in_manifest(
            "container/encoder-with-windows.rescomp",
            "an encoder with a decoder's record",
            &sound,
            &|manifest| {
                manifest.check = record_of_windows();
            },
        ),
        in_manifest(
            "container/encoder-without-vector.rescomp",
            "an encoder that makes nothing of a text",
            &sound,
            &|manifest| manifest.spec.output = Output::NextToken,
        ),
        in_manifest("container/encoder-with-head.rescomp", "an encoder with a head", &sound, &|manifest| {
            manifest.spec.tied_head = true
        }),
        in_manifest(
            "container/encoder-with-window.rescomp",
            "an encoder whose tokens see a part of the text",
            &sound,
            &|manifest| manifest.spec.variant.sliding_window = 3,
        ),
        in_manifest(
            "container/decoder-with-vector.rescomp",
            "a decoder that makes vectors of texts",
            &container(),
            &|manifest| {
                manifest.spec.output =
                    Output::Vector(TextEmbedding { pooling: Pooling::Cls, normalized: false })
            },
        ),
        {
            let mut parts = Parts::of(&sound);
            parts.sections[EMBEDDING_NORM][4..8].copy_from_slice(&f32::INFINITY.to_le_bytes());
            let bytes = parts.assemble();
            let offset = Some(entry(&bytes, EMBEDDING_NORM).offset_bytes + 4);
            let (name, attack) = ("container/embedding-norm-infinite.rescomp", "a gain that is infinite");
            HostileFile { name, attack, offset, bytes }
        },
    ]
}
