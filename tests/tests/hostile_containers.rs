//! Containers made to deceive: fields and sections are changed and every checksum over them is repaired, so that the checks of
//! structure and contents are reached. Each kind of error occurs, and says where; nothing panics; what is accepted runs.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use conformance::forge::{entry, entry_at, head, put_entry, put_head, repair, repair_front};
use conformance::tiny::{self, Widths};
use proptest::prelude::*;
use rescomp_formats::container::{Container, HEAD_BYTES, Head, Integrity, TrustedKey};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::error::ContainerError;
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::Manifest;
use rescomp_formats::matrix::MatrixShape;
use rescomp_formats::section::SectionEntry;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::AlignedBytes;
use rescomp_runtime::tokenizer::Tokenizer;
use std::sync::LazyLock;

// Places in the table of a container with an untied head.
const TOKENIZER: usize = 0;
const ROPE: usize = 1;
const CHECK_WINDOWS: usize = 2;
const EMBEDDING: usize = 3;
const FINAL_NORM: usize = 5;
const QUERY_0: usize = 7;
const KEY_0: usize = 8;

static VALID: LazyLock<Vec<u8>> =
    LazyLock::new(|| tiny::container(&tiny::odd_spec(), Widths::Mixed, Layout::Nr8k4).to_vec());

// Places in the table of a container whose embedding has bands.
const TOKEN_BANDS: usize = 3;
const BAND_0: usize = 4;
const BAND_2: usize = 6;

static VALID_BANDS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let spec = ModelSpec { embedding_bands: 3, tied_head: true, ..tiny::odd_spec() };
    tiny::container(&spec, Widths::Mixed, Layout::Nr8k4).to_vec()
});

fn refusal(file: &[u8]) -> ContainerError {
    let file = AlignedBytes::new(file);
    match Container::open(&file).and_then(|container| container.check(Integrity::Digest).map(|_| ())) {
        Err(error) => error,
        Ok(()) => panic!("accepted"),
    }
}

/// Changes the valid container, expects it to be refused, and that the message has all of `parts`.
#[track_caller]
fn refuse(change: impl FnOnce(&mut Vec<u8>), parts: &[&str]) -> ContainerError {
    refuse_of(&VALID, change, parts)
}

/// [`refuse`] of another container.
#[track_caller]
fn refuse_of(valid: &[u8], change: impl FnOnce(&mut Vec<u8>), parts: &[&str]) -> ContainerError {
    let mut file = valid.to_vec();
    change(&mut file);
    let error = refusal(&file);
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "expected `{part}` in: {message}");
    }
    error
}

/// Changes a section's bytes and repairs the checksums.
fn in_section(index: usize, change: impl FnOnce(&mut [u8])) -> impl FnOnce(&mut Vec<u8>) {
    move |file| {
        let entry = entry(file, index);
        change(&mut file[entry.offset_bytes as usize..][..entry.length_bytes as usize]);
        repair(file);
    }
}

/// Changes an entry and repairs the checksums of table and head.
fn in_entry(index: usize, change: impl FnOnce(&mut SectionEntry)) -> impl FnOnce(&mut Vec<u8>) {
    move |file| {
        let mut entry = entry(file, index);
        change(&mut entry);
        put_entry(file, index, &entry);
        repair_front(file);
    }
}

/// Changes the head and repairs its checksum.
fn in_head(change: impl FnOnce(&mut Head)) -> impl FnOnce(&mut Vec<u8>) {
    move |file| {
        let mut head = head(file);
        change(&mut head);
        put_head(file, head);
    }
}

/// Puts another manifest of the same length there.
fn in_spec(change: impl FnOnce(&mut ModelSpec)) -> impl FnOnce(&mut Vec<u8>) {
    move |file| {
        let bytes = HEAD_BYTES..HEAD_BYTES + head(file).manifest_bytes as usize;
        let mut manifest: Manifest = postcard::from_bytes(&file[bytes.clone()]).unwrap();
        change(&mut manifest.spec);
        let message = postcard::to_allocvec(&manifest).unwrap();
        assert_eq!(message.len(), bytes.len(), "the change must keep the length");
        file[bytes].copy_from_slice(&message);
        repair_front(file);
    }
}

/// Where the section of an entry begins, as errors print it.
fn byte(index: usize, plus: u64) -> String {
    format!("byte {}", entry(&VALID, index).offset_bytes + plus)
}

#[test]
fn the_container_that_the_others_are_made_of_is_accepted() {
    for valid in [&*VALID, &*VALID_BANDS] {
        let file = AlignedBytes::new(valid);
        Container::open(&file).unwrap().check(Integrity::Digest).unwrap();
        // Repairing a sound container changes nothing.
        let mut repaired = valid.clone();
        repair(&mut repaired);
        assert!(repaired == *valid);
    }
}

#[test]
fn each_kind_of_error_occurs_and_says_where() {
    use ContainerError as E;
    let at = |index| entry_at(&VALID, index);
    let first_end = entry(&VALID, TOKENIZER);
    let first_end = first_end.offset_bytes + first_end.length_bytes;
    assert!(!first_end.is_multiple_of(64), "there is padding after the first section");

    let mut errors = vec![
        refuse(|file| file.truncate(60), &["head: expected 64 bytes, found 60"]),
        refuse(|file| file.push(0), &["file: expected ", " bytes, found "]),
        refuse(|file| file[..4].copy_from_slice(b"GGUF"), &["not a rescomp container", "byte 0"]),
        refuse(in_head(|head| head.minor = 9), &["byte 8", "version 8.9", "knows 8.0"]),
        refuse(in_head(|head| head.endianness = 1), &["byte 12: endianness mark"]),
        refuse(
            in_head(|head| head.signature_bytes = 64),
            &["byte 44: bytes of the signature: expected 128, found 64"],
        ),
        refuse(
            in_head(|head| head.release = 5),
            &["byte 48: release of an unsigned file: expected 0, found 5"],
        ),
        refuse(in_head(|head| head.reserved = 5), &["byte 56: reserved: expected 0, found 5"]),
        refuse(
            in_head(|head| head.section_count = 17_000),
            &["byte 28: number of sections: expected at most"],
        ),
        refuse(|file| file[61] ^= 1, &["head at byte 0: expected CRC-32"]),
        refuse(|file| file[70] ^= 1, &["manifest and section table at byte 64: expected CRC-32"]),
        refuse(
            |file| {
                let at = entry(file, QUERY_0).offset_bytes as usize;
                file[at] ^= 1;
            },
            &["layer 0 query at ", &byte(QUERY_0, 0), "expected CRC-32"],
        ),
        refuse(
            in_entry(QUERY_0, |entry| entry.sha256[5] ^= 1),
            &["layer 0 query at ", &byte(QUERY_0, 0), "SHA-256"],
        ),
        refuse(|file| file[first_end as usize] = 3, &[&format!("byte {first_end}: padding"), "found 3"]),
        refuse(
            |file| {
                // No such architecture.
                file[HEAD_BYTES] = 77;
                repair_front(file);
            },
            &["manifest: byte 64"],
        ),
        refuse(
            in_spec(|spec| spec.head_dim = 7),
            &["manifest at byte 64: model head_dim", "even", "found 7"],
        ),
        refuse(
            |file| {
                let mut parts = conformance::forge::Parts::of(file);
                parts.change_manifest(|manifest| conformance::record_mut(manifest).nll = f64::NAN).unwrap();
                *file = parts.assemble();
            },
            &["manifest at byte 64: nll: expected a finite number"],
        ),
        refuse(in_spec(|spec| spec.kv_heads = 3), &["kv_heads", "divisor of heads", "found 3"]),
        refuse(
            in_entry(QUERY_0, |entry| entry.layer = 1),
            &["section 7: byte ", "expected layer 0 query", "found kind 17 (query), layer 1"],
        ),
        refuse(in_entry(QUERY_0, |entry| entry.kind = 99), &["section 7", "kind 99 (unknown)"]),
        refuse(in_entry(QUERY_0, |entry| entry.layout = 9), &["layer 0 query", "layout 9"]),
        refuse(in_entry(FINAL_NORM, |entry| entry.encoding = 1), &["final_norm", "found encoding 1"]),
        refuse(in_entry(QUERY_0, |entry| entry.group_elems = 33), &["layer 0 query", "groups of 33 columns"]),
        refuse(
            in_entry(QUERY_0, |entry| entry.rows = 25),
            &[&format!("byte {}: rows: expected 24, found 25", at(QUERY_0) + 8)],
        ),
        refuse(
            in_entry(QUERY_0, |entry| entry.offset_bytes += 64),
            &[&format!("byte {}: offset", at(QUERY_0) + 24)],
        ),
        refuse(
            in_entry(QUERY_0, |entry| entry.length_bytes = u64::MAX),
            &[&format!("byte {}: length", at(QUERY_0) + 32)],
        ),
        refuse(
            in_entry(TOKENIZER, |entry| entry.length_bytes = u64::MAX - 1000),
            &[&format!("byte {}: length: expected at most", at(TOKENIZER) + 32)],
        ),
        refuse(
            in_section(FINAL_NORM, |bytes| bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes())),
            &["final_norm", &byte(FINAL_NORM, 8), "finite", "0x7fc00000"],
        ),
        refuse(
            in_section(TOKENIZER, |bytes| bytes[0] = 9),
            &["tokenizer: ", &byte(TOKENIZER, 0), "unknown version"],
        ),
        refuse(
            in_section(CHECK_WINDOWS, |bytes| bytes[16..20].copy_from_slice(&263_u32.to_le_bytes())),
            &["check_windows", &byte(CHECK_WINDOWS, 16), "a token of the vocabulary, found 263"],
        ),
        refuse(
            in_section(CHECK_WINDOWS, |bytes| bytes[4..8].fill(0xff)),
            &["check_windows", "as many bytes as the sizes say"],
        ),
    ];
    errors.extend(matrix_errors());
    errors.extend(band_errors());
    // An odd address.
    let mut shifted = vec![0];
    shifted.extend_from_slice(&VALID);
    let shifted = AlignedBytes::new(&shifted);
    errors.push(Container::open(&shifted[1..]).unwrap_err());
    assert!(errors.last().is_some_and(|error| error.to_string().contains("multiple of 64 bytes")));

    // A key that did not sign it: that of RFC 8032, section 7.1, test 1.
    let key: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a, 0x0e,
        0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
    ];
    errors.push(Container::open_trusted(&VALID, &TrustedKey::new(&key).unwrap(), 0).unwrap_err());
    assert!(errors.last().is_some_and(|error| error.to_string() == "expected a signature, found none"));

    // A kind that is added needs a line here, then a case above.
    let kind = |error: &E| match error {
        E::Length { .. } => 0,
        E::Unaligned => 1,
        E::Magic { .. } => 2,
        E::Version { .. } => 3,
        E::Field { .. } => 4,
        E::Limit { .. } => 5,
        E::Checksum { .. } => 6,
        E::Digest { .. } => 7,
        E::Padding { .. } => 8,
        E::Manifest { .. } => 9,
        E::Spec(_) => 10,
        E::Order { .. } => 11,
        E::Encoding { .. } => 12,
        E::Shape { .. } => 13,
        E::Matrix { .. } => 14,
        E::NotFinite { .. } => 15,
        E::Tokenizer { .. } => 16,
        E::Structure { .. } => 17,
        E::BandRows { .. } => 18,
        E::Record { .. } => 19,
        E::Signature(_) => 20,
        E::NotBuilt { part } => panic!("tests are built with every part, and not with {part}"),
    };
    let mut kinds: Vec<usize> = errors.iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..21).collect::<Vec<_>>());
}

/// A change to a file.
type Change = Box<dyn FnOnce(&mut Vec<u8>)>;

/// What only an embedding in bands can have wrong.
fn band_errors() -> Vec<ContainerError> {
    let bands = tiny::token_bands(&ModelSpec { embedding_bands: 3, ..tiny::odd_spec() });
    let tokens = |band| bands.iter().filter(|&&of| of == band).count();
    let [first, last] = [0, 2].map(|band| bands.iter().position(|&of| of == band).unwrap());
    let begin = entry(&VALID_BANDS, TOKEN_BANDS).offset_bytes as usize;
    let rows = |index| entry_at(&VALID_BANDS, index) + 8;
    let others =
        |band: u8| format!("rows: expected {}, one a token, found {}", tokens(band) + 1, tokens(band));
    let refuse = |change: Change, parts: &[&str]| refuse_of(&VALID_BANDS, change, parts);
    vec![
        refuse(
            Box::new(in_section(TOKEN_BANDS, |bytes| bytes[200] = 3)),
            &[
                &format!("token_bands: byte {}: expected a band below", begin + 200),
                "embedding_bands, found 3",
            ],
        ),
        refuse(
            Box::new(in_section(TOKEN_BANDS, |bytes| bytes[262] = 0xff)),
            &[&format!("token_bands: byte {}: ", begin + 262), "found 255"],
        ),
        // A token of one band says that it is in another: the first band in the file that has it wrong is named.
        refuse(
            Box::new(in_section(TOKEN_BANDS, move |bytes| bytes[last] = 0)),
            &[&format!("embedding band 0: byte {}: {}", rows(BAND_0), others(0))],
        ),
        refuse(
            Box::new(in_section(TOKEN_BANDS, move |bytes| (bytes[first], bytes[last]) = (1, 0))),
            &["embedding band 1: byte "],
        ),
        // A band without tokens, and one without rows.
        refuse(
            Box::new(in_section(TOKEN_BANDS, |bytes| bytes.fill(0))),
            &["embedding band 0: byte ", "rows: expected 263, one a token"],
        ),
        refuse(
            Box::new(in_entry(BAND_2, |entry| entry.rows = 0)),
            &["embedding band 2: byte ", ": 0 rows; expected 1 to"],
        ),
        refuse(Box::new(in_entry(BAND_2, |entry| entry.rows = u32::MAX)), &["embedding band 2: "]),
        refuse(
            Box::new(in_entry(BAND_2, |entry| entry.cols = 47)),
            &[&format!("byte {}: columns: expected 48, found 47", rows(BAND_2) + 4)],
        ),
        refuse(
            Box::new(in_entry(TOKEN_BANDS, |entry| entry.length_bytes = 262)),
            &[&format!("byte {}: length: expected 263, found 262", rows(TOKEN_BANDS) + 24)],
        ),
        refuse(
            Box::new(in_entry(TOKEN_BANDS, |entry| entry.encoding = 2)),
            &["token_bands: byte ", "encoding 2"],
        ),
        refuse(
            Box::new(in_entry(BAND_0, |entry| entry.layer = 1)),
            &["expected embedding band 0, found kind 4 (embedding), layer 1"],
        ),
        refuse(
            Box::new(in_entry(TOKEN_BANDS, |entry| entry.kind = 4)),
            &["expected token_bands, found kind 4 (embedding)"],
        ),
        // The sections of three bands, called those of another number.
        refuse(
            Box::new(in_spec(|spec| spec.embedding_bands = 2)),
            &["number of sections: expected 25, found 26"],
        ),
        refuse(
            Box::new(in_spec(|spec| spec.embedding_bands = 4)),
            &["number of sections: expected 27, found 26"],
        ),
        refuse(
            Box::new(in_spec(|spec| (spec.embedding_bands, spec.tied_head) = (2, false))),
            &["expected head, found kind 4 (embedding)"],
        ),
        refuse(
            Box::new(in_spec(|spec| spec.online.head_input = true)),
            &["number of sections: expected 27, found 26"],
        ),
        refuse(
            Box::new(in_spec(|spec| (spec.online.head_input, spec.tied_head) = (true, false))),
            &["manifest at byte 64: model online head_input: expected 0 where", "found 1"],
        ),
        refuse(
            Box::new(in_spec(|spec| (spec.online.down, spec.intermediate) = (true, 86))),
            &[
                "manifest at byte 64: model online down: expected a width that has a Hadamard transform, found 86",
            ],
        ),
        refuse(
            Box::new(in_spec(|spec| spec.embedding_bands = 1)),
            &["number of sections: expected 23, found 26"],
        ),
        refuse(
            Box::new(in_spec(|spec| spec.embedding_bands = 0)),
            &["manifest at byte 64: model embedding_bands: expected 1 to 8, found 0"],
        ),
        refuse(
            Box::new(in_spec(|spec| spec.embedding_bands = 9)),
            &["manifest at byte 64: model embedding_bands: expected 1 to 8, found 9"],
        ),
    ]
}

/// Which token is in which band is free where the counts agree: such a container is another model, and runs.
#[test]
fn bands_with_the_right_counts_are_accepted_in_any_order() {
    let mut file = VALID_BANDS.clone();
    in_section(TOKEN_BANDS, <[u8]>::reverse)(&mut file);
    run(&file).expect("opens").expect("runs");
}

/// What only a matrix's own check can find.
fn matrix_errors() -> Vec<ContainerError> {
    let file = AlignedBytes::new(&VALID);
    let container = Container::open(&file).unwrap().check(Integrity::Crc).unwrap();
    let shapes: Vec<Option<MatrixShape>> = container
        .container()
        .entries()
        .map(|(name, _)| container.matrix(name).map(|matrix| *matrix.shape()))
        .collect();
    let shape = |index: usize| shapes[index].unwrap();
    let bits = |index: usize| shape(index).width().bits();
    assert_eq!((bits(EMBEDDING), bits(QUERY_0), bits(KEY_0)), (2, 8, 3), "each form of matrix is needed");
    assert!(!shape(EMBEDDING).has_scale_codes() && shape(KEY_0).has_scale_codes());
    let row_scale = |index: usize, row: usize| shape(index).scales_offset_bytes() + 2 * row;
    let group_scale = shape(QUERY_0).scales_offset_bytes() + 2 * shape(QUERY_0).scale_index(5, 0);
    let padded_code = 4 * shape(QUERY_0).word_index(0, 1, 7);
    let scale_codes = shape(KEY_0).scale_codes_offset_bytes();
    let padding = |at: usize| format!("padding at byte {at} of the section");
    vec![
        refuse(
            in_section(EMBEDDING, |bytes| bytes[row_scale(EMBEDDING, 5)..][..2].copy_from_slice(&[0, 0x7c])),
            &[
                "embedding: byte ",
                &byte(EMBEDDING, row_scale(EMBEDDING, 5) as u64),
                "scale of row 5: ",
                "inf",
            ],
        ),
        refuse(
            in_section(EMBEDDING, |bytes| bytes[row_scale(EMBEDDING, 5)..][..2].copy_from_slice(&[0, 0x80])),
            &["embedding: byte ", "scale of row 5: ", "0x8000"],
        ),
        // 263 rows are stored as 264.
        refuse(
            in_section(EMBEDDING, |bytes| bytes[row_scale(EMBEDDING, 263)] = 1),
            &["embedding: byte ", &padding(row_scale(EMBEDDING, 263))],
        ),
        refuse(
            in_section(EMBEDDING, |bytes| bytes[0] = -32i8 as u8),
            &["embedding: byte ", "level 0: expected -31 to 28, rising strictly, found -32"],
        ),
        refuse(in_section(EMBEDDING, |bytes| bytes[4] = 1), &["embedding: byte ", &padding(4)]),
        // One group a row: no multipliers.
        refuse(
            in_section(EMBEDDING, |bytes| bytes[16] = 1),
            &["embedding: byte ", "multiplier 0: expected 0, found 1"],
        ),
        refuse(
            in_section(KEY_0, |bytes| bytes[2] = bytes[1]),
            &["layer 0 key: byte ", &byte(KEY_0, 2), "level 2: expected ", "rising strictly"],
        ),
        refuse(
            in_section(KEY_0, |bytes| bytes[16] = 0),
            &["layer 0 key: byte ", "multiplier 0: expected 1 to 240", "found 0"],
        ),
        refuse(
            in_section(KEY_0, |bytes| bytes.swap(17, 18)),
            &["layer 0 key: byte ", "multiplier 2: expected ", "rising strictly"],
        ),
        refuse(in_section(KEY_0, |bytes| bytes[63] = 1), &["layer 0 key: byte ", &padding(63)]),
        // 12 rows are stored as 16.
        refuse(
            in_section(KEY_0, |bytes| bytes[scale_codes + 12] = 0x10),
            &["layer 0 key: byte ", &padding(scale_codes + 12)],
        ),
        refuse(
            in_section(QUERY_0, |bytes| bytes[group_scale..][..2].copy_from_slice(&[1, 0x7e])),
            &["layer 0 query: byte ", "scale of row 5, group 0: ", "NaN"],
        ),
        refuse(
            in_section(QUERY_0, |bytes| bytes[0] = 0x80),
            &["layer 0 query: byte ", &byte(QUERY_0, 0), "code of row 0, column 0", "-128"],
        ),
        // 48 columns are stored as 64.
        refuse(
            in_section(QUERY_0, |bytes| bytes[padded_code] = 1),
            &["layer 0 query: byte ", "padding at byte"],
        ),
    ]
}

/// Kernels add the parts of levels that they know; a table that says otherwise must not pass.
#[test]
fn a_stacked_width_with_levels_of_its_own_is_refused() {
    for (width, first) in [(CodeWidth::Int5, -30), (CodeWidth::Int6, -60)] {
        let mut file = tiny::container(&tiny::odd_spec(), Widths::All(width), Layout::Nr8k4).to_vec();
        in_section(KEY_0, |bytes| bytes[0] = -28i8 as u8)(&mut file);
        let message = refusal(&file).to_string();
        let expected = format!("level 0: expected {first}, found -28");
        assert!(message.contains("layer 0 key: byte ") && message.contains(&expected), "{message}");
    }
}

/// Every code, scale, gain and frequency of these containers is allowed, so they open; overflow is an error of the run.
#[test]
fn extreme_weights_that_are_allowed_end_in_an_error_and_not_in_a_panic() {
    let most = half::f16::MAX.to_le_bytes();
    let mut file = VALID.clone();
    for index in 0..head(&VALID).section_count as usize {
        let entry = entry(&file, index);
        let bytes = &mut file[entry.offset_bytes as usize..][..entry.length_bytes as usize];
        if entry.encoding == 2 {
            bytes.chunks_exact_mut(4).for_each(|gain| gain.copy_from_slice(&f32::MAX.to_le_bytes()));
        } else if entry.group_elems > 0 {
            let width = CodeWidth::from_bits(entry.encoding - 16).unwrap();
            let shape =
                MatrixShape::new(entry.rows, entry.cols, entry.group_elems, width, Layout::Nr8k4).unwrap();
            for row in 0..shape.rows() {
                for group in 0..shape.groups() {
                    let index = if shape.has_codebook() { row } else { shape.scale_index(row, group) };
                    let at = shape.scales_offset_bytes() + 2 * index;
                    bytes[at..at + 2].copy_from_slice(&most);
                }
            }
        }
    }
    in_section(ROPE, |bytes| bytes.fill(0xff))(&mut file);
    let error = run(&file).expect("opens").expect_err("overflows");
    assert!(matches!(error, RuntimeError::NotFinite { layer: Some(0), .. }), "{error}");
    assert!(error.to_string().contains("layer 0, input of "), "{error}");
}

/// Opens, checks, encodes and decodes text, and decodes four tokens with both kinds of activations. `None` where the file is refused.
fn run(file: &[u8]) -> Option<Result<(), RuntimeError>> {
    let file = AlignedBytes::new(file);
    let container = Container::open(&file).ok()?.check(Integrity::Digest).ok()?;
    let windows = container.check_windows().unwrap();
    let _ = windows.kept(0, windows.sizes().positions - 1).map(|(_, p)| p).sum::<f64>();
    let view = container.tokenizer().unwrap();
    let tokenizer = Tokenizer::new(view);
    let text = "hehe the end, \u{e4}\u{1f600} 12";
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let _ = tokenizer.encode(text, true, &mut tokens);
    for token in 0..container.manifest().spec.vocabulary {
        let _ = view.token_bytes(token);
    }
    Some([ActivationFormat::Int8, ActivationFormat::F32].into_iter().try_for_each(|activations| {
        // A changed manifest may have a shorter context.
        let context = container.manifest().spec.context.min(4) as usize;
        let mut memory = conformance::memory(&container, context, 2);
        let machine = conformance::serial_machine();
        let mut session = conformance::session(&container, machine, context, 2, activations, &mut memory);
        session.run(&[0, 1])?;
        session.run(&[2])?;
        session.run(&[3]).map(|_| ())
    }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes changed inside sections: everything before the contents still agrees.
    #[test]
    fn changed_sections_never_panic(
        bands in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let mut file = if bands { VALID_BANDS.clone() } else { VALID.clone() };
        let sections = head(&file).section_count as usize;
        for (section, place, value) in changes {
            let entry = entry(&file, section.index(sections));
            let bytes = &mut file[entry.offset_bytes as usize..][..entry.length_bytes as usize];
            bytes[place.index(bytes.len())] = value;
        }
        repair(&mut file);
        let _ = run(&file);
    }

    /// The small sections with a structure of their own, where one byte counts for much.
    #[test]
    fn changed_tokenizers_and_check_windows_never_panic(
        section in prop::sample::select(vec![TOKENIZER, CHECK_WINDOWS]),
        place in 0_usize..64,
        value in any::<u8>(),
    ) {
        let mut file = VALID.clone();
        in_section(section, |bytes| bytes[place] = value)(&mut file);
        let _ = run(&file);
    }

    /// Tokens that change places between bands.
    #[test]
    fn changed_bands_never_panic(
        swaps in prop::collection::vec((0_usize..263, 0_usize..263), 0..40),
        change in prop::option::of((0_usize..263, 0_u8..4)),
    ) {
        let mut file = VALID_BANDS.clone();
        in_section(TOKEN_BANDS, |bytes| {
            swaps.iter().for_each(|&(left, right)| bytes.swap(left, right));
            if let Some((place, band)) = change {
                bytes[place] = band;
            }
        })(&mut file);
        let ran = run(&file);
        prop_assert!(change.is_some() || matches!(ran, Some(Ok(()))));
    }

    /// Bytes changed in the manifest and the table.
    #[test]
    fn changed_manifests_and_tables_never_panic(
        bands in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut file = if bands { VALID_BANDS.clone() } else { VALID.clone() };
        let end = entry_at(&file, head(&file).section_count as usize);
        for (place, value) in changes {
            file[HEAD_BYTES + place.index(end - HEAD_BYTES)] = value;
        }
        repair_front(&mut file);
        let _ = run(&file);
    }

    /// Bytes changed in the head.
    #[test]
    fn changed_heads_never_panic(place in 8_usize..60, value in any::<u8>()) {
        let mut file = VALID.clone();
        file[place] = value;
        let changed = head(&file);
        put_head(&mut file, changed);
        let _ = run(&file);
    }
}
