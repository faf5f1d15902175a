//! Hostile containers: the front by hand, sections behind repaired checksums.

use super::{HostileFile, small_model};
use crate::forge::{Parts, entry, entry_at, head, put_entry, put_head, repair, repair_front};
use crate::tiny::{self, Widths};
use half::f16;
use rescomp_formats::cache_format::CacheFormat;
use rescomp_formats::container::write::signed;
use rescomp_formats::container::{Head, SIGNATURE_BYTES, SignatureBlock, crc32};
use rescomp_formats::encodings::CodeWidth;
use rescomp_formats::layouts::Layout;
use rescomp_formats::manifest::Manifest;
use rescomp_formats::matrix::MatrixShape;
use rescomp_formats::section::SectionEntry;
use rescomp_formats::spec::ModelSpec;
use rescomp_runtime::memory::AlignedBytes;

// Places in the table.
const TOKENIZER: usize = 0;
const ROPE: usize = 1;
const CHECK_WINDOWS: usize = 2;
const EMBEDDING: usize = 3;
const FINAL_NORM: usize = 4;
const QUERY: usize = 6;
const KEY: usize = 7;
const DOWN: usize = 13;
// Places in the table of the container in bands.
const TOKEN_BANDS: usize = 3;
const BAND_0: usize = 4;
const BAND_2: usize = 6;

/// Rows of two groups, so that there are scale codes: 2 bits in the embedding, 8 in query, 3 in key.
pub(super) fn spec() -> ModelSpec {
    ModelSpec { hidden: 40, ..small_model() }
}

fn banded_spec() -> ModelSpec {
    ModelSpec { embedding_bands: 3, ..spec() }
}

pub(super) fn container() -> Vec<u8> {
    tiny::container(&spec(), Widths::Mixed, Layout::Nr8k4).to_vec()
}

fn banded() -> Vec<u8> {
    tiny::container(&banded_spec(), Widths::Mixed, Layout::Nr8k4).to_vec()
}

fn all_of(width: CodeWidth) -> Vec<u8> {
    tiny::container(&spec(), Widths::All(width), Layout::Nr8k4).to_vec()
}

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    let untied = ModelSpec { tied_head: false, layers: 2, ..spec() };
    vec![
        ("container/sound.rescomp", container()),
        ("container/sound-banded.rescomp", banded()),
        ("container/sound-corrected.rescomp", super::corrections::container()),
        ("container/sound-int4.rescomp", all_of(CodeWidth::Int4)),
        ("container/sound-int8-cache.rescomp", {
            let mut parts = Parts::of(&container());
            parts.change_manifest(|manifest| manifest.cache = CacheFormat::Int8).expect("a manifest");
            parts.assemble()
        }),
        ("container/sound-int5.rescomp", all_of(CodeWidth::Int5)),
        ("container/sound-int6.rescomp", all_of(CodeWidth::Int6)),
        (
            "container/sound-untied-rows.rescomp",
            tiny::container(&untied, Widths::Mixed, Layout::Rows).to_vec(),
        ),
    ]
}

fn shape(file: &[u8], index: usize) -> MatrixShape {
    let entry = entry(file, index);
    let width = CodeWidth::from_bits(entry.encoding - 16).expect("a matrix");
    MatrixShape::new(entry.rows, entry.cols, entry.group_elems, width, Layout::Nr8k4).expect("a shape")
}

pub(super) fn files() -> Vec<HostileFile> {
    [front(), manifests(), tables(), contents(), bands()].concat()
}

/// What is wrong with the head, and with the file as a whole.
fn front() -> Vec<HostileFile> {
    let sound = container();
    let make = |name, attack, offset, bytes| HostileFile { name, attack, offset, bytes };
    let in_head = |name, attack, offset, change: &dyn Fn(&mut Head)| {
        let mut file = sound.clone();
        let mut changed = head(&file);
        change(&mut changed);
        put_head(&mut file, changed);
        make(name, attack, Some(offset), file)
    };
    let flipped = |name, attack, flip: usize, offset| {
        let mut file = sound.clone();
        file[flip] ^= 1;
        make(name, attack, Some(offset), file)
    };
    let signature_at = head(&sound).front_bytes().next_multiple_of(64) as u64;
    // Whose signature it is doesn't matter to a reader that trusts no key.
    let signed = signed(&AlignedBytes::new(&sound), [7; 32], 1, |_| [9; 64]).expect("a sound container");
    let in_signature = |name, attack, offset, change: &dyn Fn(&mut SignatureBlock)| {
        let mut file = signed.clone();
        let bytes = &mut file[signature_at as usize..][..SIGNATURE_BYTES];
        let mut block: SignatureBlock = bytemuck::pod_read_unaligned(bytes);
        change(&mut block);
        bytes.copy_from_slice(bytemuck::bytes_of(&block));
        make(name, attack, Some(signature_at + offset), file)
    };
    let first = entry(&sound, TOKENIZER);
    let after_first = first.offset_bytes + first.length_bytes;
    let table = u64::from(head(&sound).table_offset);
    assert!(
        !after_first.is_multiple_of(64) && sound[after_first as usize] == 0,
        "there is padding to change"
    );
    vec![
        make("container/empty.rescomp", "nothing", None, Vec::new()),
        make("container/head-cut.rescomp", "63 bytes", None, sound[..63].to_vec()),
        make("container/table-cut.rescomp", "the file ends inside the table, and says so", None, {
            let mut file = sound[..table as usize + 100].to_vec();
            let changed = Head { file_bytes: file.len() as u64, ..head(&file) };
            put_head(&mut file, changed);
            file
        }),
        make("container/cut.rescomp", "the last byte is missing", None, sound[..sound.len() - 1].to_vec()),
        make(
            "container/longer.rescomp",
            "a byte follows the last section",
            None,
            [&sound[..], &[0]].concat(),
        ),
        make(
            "container/longer-and-said.rescomp",
            "a byte follows the last section, and the head says so",
            Some(32),
            {
                let mut file = [&sound[..], &[0]].concat();
                let changed = Head { file_bytes: file.len() as u64, ..head(&file) };
                put_head(&mut file, changed);
                file
            },
        ),
        make(
            "container/another-format.rescomp",
            "another format's magic",
            Some(0),
            [b"GGUF\x03\0\0\0", &sound[8..]].concat(),
        ),
        in_head("container/version-newer.rescomp", "a major version of the future", 8, &|head| {
            head.major += 1
        }),
        in_head("container/version-older.rescomp", "a major version of the past", 8, &|head| head.major -= 1),
        in_head("container/version-minor.rescomp", "a minor version of the future", 8, &|head| {
            head.minor += 1
        }),
        in_head("container/endianness.rescomp", "numbers the other way round", 12, &|head| {
            head.endianness = head.endianness.swap_bytes()
        }),
        in_head("container/manifest-elsewhere.rescomp", "a manifest inside the head", 16, &|head| {
            head.manifest_offset = 0
        }),
        in_head("container/manifest-endless.rescomp", "a manifest of 4 GiB", 20, &|head| {
            head.manifest_bytes = u32::MAX
        }),
        in_head(
            "container/manifest-beyond-its-cap.rescomp",
            "a manifest one byte above its cap",
            20,
            &|head| head.manifest_bytes = 65_537,
        ),
        in_head(
            "container/table-inside-the-manifest.rescomp",
            "a table that overlaps the manifest",
            24,
            &|head| head.table_offset -= 64,
        ),
        in_head("container/table-endless.rescomp", "2^32 - 1 sections", 28, &|head| {
            head.section_count = u32::MAX
        }),
        in_head("container/reserved.rescomp", "a reserved field is set", 56, &|head| head.reserved = 1),
        in_head("container/release-unsigned.rescomp", "a release without a signature", 48, &|head| {
            head.release = 1
        }),
        in_head("container/signature-size.rescomp", "a signature of another size", 44, &|head| {
            head.signature_bytes = 64
        }),
        in_head(
            "container/signature-announced.rescomp",
            "a signature that is not there",
            signature_at,
            &|head| head.signature_bytes = 128,
        ),
        in_signature(
            "container/signature-flipped.rescomp",
            "a bit of the signing key flipped",
            0,
            &|block| block.public_key[0] ^= 1,
        ),
        in_signature(
            "container/signature-reserved.rescomp",
            "a reserved byte of the signature set",
            96,
            &|block| {
                block.reserved[0] = 1;
                block.crc32 = crc32(&bytemuck::bytes_of(block)[..SIGNATURE_BYTES - 4]);
            },
        ),
        flipped("container/head-flipped.rescomp", "a bit of the head flipped", 44, 0),
        flipped("container/manifest-flipped.rescomp", "a bit of the manifest flipped", 100, 64),
        flipped("container/table-flipped.rescomp", "a bit of the table flipped", table as usize + 100, 64),
        flipped(
            "container/padding-flipped.rescomp",
            "a bit between sections flipped",
            after_first as usize,
            after_first,
        ),
        flipped(
            "container/weight-flipped.rescomp",
            "a bit of a weight flipped",
            entry(&sound, QUERY).offset_bytes as usize + 9,
            entry(&sound, QUERY).offset_bytes,
        ),
        {
            let mut file = sound.clone();
            let mut changed = entry(&file, QUERY);
            changed.sha256[31] ^= 1;
            put_entry(&mut file, QUERY, &changed);
            repair_front(&mut file);
            make("container/digest.rescomp", "a digest of other weights", Some(changed.offset_bytes), file)
        },
    ]
}

/// What is wrong with the manifest.
fn manifests() -> Vec<HostileFile> {
    let sound = container();
    let file = |name, attack, offset, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts);
        HostileFile { name, attack, offset: Some(offset), bytes: parts.assemble() }
    };
    let after_message = 64 + Parts::of(&sound).manifest.len() as u64;
    let in_manifest = |name, attack, change: &dyn Fn(&mut Manifest)| {
        file(name, attack, 64, &|parts| parts.change_manifest(change).expect("a manifest"))
    };
    vec![
        file("container/manifest-empty.rescomp", "no manifest", 64, &|parts| parts.manifest.clear()),
        file("container/manifest-cut.rescomp", "a manifest that ends early", 64, &|parts| {
            parts.manifest.pop();
        }),
        file("container/manifest-longer.rescomp", "a byte after the manifest", after_message, &|parts| {
            parts.manifest.push(0)
        }),
        file("container/architecture-unknown.rescomp", "an architecture that does not exist", 64, &|parts| {
            parts.manifest[0] = 77
        }),
        file("container/number-overlong.rescomp", "a number of more bits than its type has", 64, &|parts| {
            parts.manifest.splice(1..3, [0xff; 6]);
        }),
        file("container/cache-unknown.rescomp", "keys and values kept as nobody knows what", 64, &|parts| {
            if let Some(cache) = parts.manifest.last_mut() {
                *cache = 2;
            }
        }),
        in_manifest("container/vocabulary-zero.rescomp", "no tokens", &|manifest| {
            manifest.spec.vocabulary = 0
        }),
        in_manifest("container/hidden-huge.rescomp", "a width whose products overflow", &|manifest| {
            manifest.spec.hidden = u32::MAX
        }),
        in_manifest("container/layers-huge.rescomp", "more layers than the cap", &|manifest| {
            manifest.spec.layers = u32::MAX
        }),
        in_manifest(
            "container/heads-overflow.rescomp",
            "heads whose product with their width wraps",
            &|manifest| (manifest.spec.heads, manifest.spec.head_dim) = (1 << 16, 1 << 16),
        ),
        in_manifest("container/context-huge.rescomp", "a context that no memory holds", &|manifest| {
            manifest.spec.context = u32::MAX
        }),
        in_manifest("container/head-odd.rescomp", "a head that has no pairs", &|manifest| {
            manifest.spec.head_dim = 5
        }),
        in_manifest(
            "container/key-heads-no-divisor.rescomp",
            "key heads that do not divide the heads",
            &|manifest| manifest.spec.kv_heads = 3,
        ),
        in_manifest("container/key-heads-zero.rescomp", "a division by zero", &|manifest| {
            manifest.spec.kv_heads = 0
        }),
        in_manifest("container/epsilon-not-a-number.rescomp", "an epsilon that is NaN", &|manifest| {
            manifest.spec.norm_epsilon = f32::NAN
        }),
        in_manifest(
            "container/begin-token-beyond.rescomp",
            "a first token outside the vocabulary",
            &|manifest| manifest.spec.begin_token = Some(258),
        ),
        in_manifest(
            "container/end-token-beyond.rescomp",
            "an end token outside the vocabulary",
            &|manifest| {
                let _ = manifest.spec.end_tokens.push(u32::MAX);
            },
        ),
        in_manifest(
            "container/name-steers-the-terminal.rescomp",
            "a name that clears the screen of who looks at it",
            &|manifest| {
                manifest.provenance.checkpoint = "\u{1b}[2J".try_into().expect("short");
            },
        ),
        in_manifest("container/name-turns-around.rescomp", "a name that is shown backwards", &|manifest| {
            manifest.provenance.target = "\u{202e}46hcraa".try_into().expect("short");
        }),
        in_manifest(
            "container/record-not-a-number.rescomp",
            "a measurement that is NaN, which no bound is missed by",
            &|manifest| crate::record_mut(manifest).mean_kl = f64::NAN,
        ),
        in_manifest("container/record-of-more.rescomp", "more agreements than positions", &|manifest| {
            crate::record_mut(manifest).same_top1 = 7
        }),
    ]
}

/// What is wrong with the table.
fn tables() -> Vec<HostileFile> {
    let sound = container();
    let at = |index| entry_at(&sound, index) as u64;
    let in_entry = |name, attack, index, offset: u64, change: &dyn Fn(&mut SectionEntry)| {
        let mut file = sound.clone();
        let mut changed = entry(&file, index);
        change(&mut changed);
        put_entry(&mut file, index, &changed);
        repair_front(&mut file);
        HostileFile { name, attack, offset: Some(at(index) + offset), bytes: file }
    };
    let parts = |name, attack, offset, change: &dyn Fn(&mut Parts)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts);
        HostileFile { name, attack, offset: Some(offset), bytes: parts.assemble() }
    };
    vec![
        in_entry("container/kind-unknown.rescomp", "a kind that does not exist", QUERY, 0, &|entry| {
            entry.kind = 99
        }),
        in_entry(
            "container/kind-of-another.rescomp",
            "a section called another's name",
            QUERY,
            0,
            &|entry| entry.kind = 18,
        ),
        in_entry(
            "container/layer-of-another.rescomp",
            "a section of a layer that is not there",
            QUERY,
            0,
            &|entry| entry.layer = 1,
        ),
        in_entry("container/tier.rescomp", "a tier", QUERY, 6, &|entry| entry.tier = 1),
        in_entry("container/entry-reserved.rescomp", "a reserved field is set", QUERY, 56, &|entry| {
            entry.reserved_tail[2] = 1 << 63
        }),
        in_entry("container/rows-of-more.rescomp", "more rows than the model has", QUERY, 8, &|entry| {
            entry.rows += 8
        }),
        in_entry(
            "container/columns-of-more.rescomp",
            "more columns than the model has",
            DOWN,
            12,
            &|entry| entry.cols = u32::MAX,
        ),
        in_entry("container/encoding-unknown.rescomp", "codes of 7 bits", QUERY, 4, &|entry| {
            entry.encoding = 23
        }),
        in_entry("container/encoding-of-floats.rescomp", "weights said to be floats", QUERY, 4, &|entry| {
            entry.encoding = 2
        }),
        in_entry("container/norm-of-codes.rescomp", "a norm said to be codes", FINAL_NORM, 4, &|entry| {
            entry.encoding = 20
        }),
        in_entry(
            "container/layout-unknown.rescomp",
            "an order of words that does not exist",
            QUERY,
            4,
            &|entry| entry.layout = 3,
        ),
        in_entry(
            "container/group-zero.rescomp",
            "groups of nothing, a division by zero",
            QUERY,
            8,
            &|entry| entry.group_elems = 0,
        ),
        in_entry(
            "container/group-odd.rescomp",
            "groups of a size that no kernel knows",
            QUERY,
            8,
            &|entry| entry.group_elems = 33,
        ),
        in_entry(
            "container/offset-shifted.rescomp",
            "a section that begins 64 bytes late, beside a hole",
            KEY,
            24,
            &|entry| entry.offset_bytes += 64,
        ),
        in_entry("container/offset-overlaps.rescomp", "a section over the one before", KEY, 24, &|entry| {
            entry.offset_bytes -= 64
        }),
        in_entry("container/offset-of-the-head.rescomp", "a section over the head", KEY, 24, &|entry| {
            entry.offset_bytes = 0
        }),
        in_entry("container/offset-unaligned.rescomp", "a section at an odd address", KEY, 24, &|entry| {
            entry.offset_bytes += 1
        }),
        in_entry(
            "container/offset-huge.rescomp",
            "a section at the end of the address space",
            KEY,
            24,
            &|entry| entry.offset_bytes = u64::MAX - 63,
        ),
        in_entry(
            "container/length-of-more.rescomp",
            "a section of one byte more than its shape",
            KEY,
            32,
            &|entry| entry.length_bytes += 1,
        ),
        in_entry(
            "container/length-wraps.rescomp",
            "a length that wraps around with its offset",
            TOKENIZER,
            32,
            &|entry| entry.length_bytes = u64::MAX - entry.offset_bytes + 1,
        ),
        in_entry(
            "container/length-beyond.rescomp",
            "a section beyond the end of the file",
            TOKENIZER,
            32,
            &|entry| entry.length_bytes = 1 << 40,
        ),
        parts(
            "container/sections-swapped.rescomp",
            "two sections in each other's place",
            at(KEY),
            &|parts| {
                parts.entries.swap(KEY, KEY + 1);
                parts.sections.swap(KEY, KEY + 1);
            },
        ),
        parts("container/section-missing.rescomp", "a section is missing", 28, &|parts| {
            parts.entries.remove(DOWN);
            parts.sections.remove(DOWN);
        }),
        parts("container/section-twice.rescomp", "a section is there twice", 28, &|parts| {
            parts.entries.push(parts.entries[DOWN]);
            parts.sections.push(parts.sections[DOWN].clone());
        }),
        parts("container/no-sections.rescomp", "no sections", 28, &|parts| {
            parts.entries.clear();
            parts.sections.clear();
        }),
    ]
}

/// What is wrong inside sections.
fn contents() -> Vec<HostileFile> {
    let sound = container();
    let make = |file: &[u8], name, attack, index, at: usize, bytes: &[u8]| {
        let mut file = file.to_vec();
        let begin = entry(&file, index).offset_bytes;
        file[begin as usize + at..][..bytes.len()].copy_from_slice(bytes);
        repair(&mut file);
        HostileFile { name, attack, offset: Some(begin + at as u64), bytes: file }
    };
    let file = |name, attack, index, at, bytes: &[u8]| make(&sound, name, attack, index, at, bytes);
    // A section of another length, wrong at a byte of it.
    let section = |name, attack, index: usize, at: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = Parts::of(&sound);
        change(&mut parts.sections[index]);
        let bytes = parts.assemble();
        HostileFile { name, attack, offset: Some(entry(&bytes, index).offset_bytes + at), bytes }
    };
    let [embedding, query, key] = [EMBEDDING, QUERY, KEY].map(|index| shape(&sound, index));
    assert!(embedding.has_codebook() && !embedding.has_scale_codes(), "one group a row");
    assert!(!query.has_codebook() && key.has_scale_codes(), "each form of matrix");
    assert!(query.cols() % 32 != 0 && key.padded_rows() > key.rows(), "padding in columns and rows");
    let scale = |shape: &MatrixShape, index: usize| shape.scales_offset_bytes() + 2 * index;
    let number = |value: f16| value.to_le_bytes();
    let windows = &crate::forge::section(&sound, CHECK_WINDOWS).to_vec();
    let word = |index: usize| {
        u32::from_le_bytes([
            windows[4 * index],
            windows[4 * index + 1],
            windows[4 * index + 2],
            windows[4 * index + 3],
        ])
    };
    let tokens = 4 * (word(0) * (word(1) + 1)) as usize;
    let positions = (word(0) * word(1)) as usize;
    let ids = 16 + tokens + 4 * positions + 2 * positions * word(2) as usize;
    vec![
        file(
            "container/norm-not-a-number.rescomp",
            "a gain that is NaN",
            FINAL_NORM,
            8,
            &f32::NAN.to_le_bytes(),
        ),
        file(
            "container/norm-infinite.rescomp",
            "a gain that is infinite",
            FINAL_NORM,
            12,
            &f32::NEG_INFINITY.to_le_bytes(),
        ),
        file(
            "container/row-scale-infinite.rescomp",
            "a row's scale that is infinite",
            EMBEDDING,
            scale(&embedding, 5),
            &number(f16::INFINITY),
        ),
        file(
            "container/row-scale-negative.rescomp",
            "a row's scale that is minus zero",
            EMBEDDING,
            scale(&embedding, 0),
            &number(f16::NEG_ZERO),
        ),
        file(
            "container/group-scale-not-a-number.rescomp",
            "a group's scale that is NaN",
            QUERY,
            scale(&query, query.scale_index(5, 0)),
            &number(f16::NAN),
        ),
        file(
            "container/scale-of-padding.rescomp",
            "a scale of a row that is padding",
            EMBEDDING,
            scale(&embedding, 258),
            &number(f16::ONE),
        ),
        file(
            "container/level-beyond.rescomp",
            "a level whose products overflow an accumulator",
            EMBEDDING,
            0,
            &[-32_i8 as u8],
        ),
        file(
            "container/levels-unordered.rescomp",
            "levels that do not rise",
            KEY,
            4,
            &[crate::forge::section(&sound, KEY)[3]],
        ),
        file("container/level-of-no-code.rescomp", "a level that no code has", EMBEDDING, 4, &[1]),
        file("container/multiplier-zero.rescomp", "a multiplier that is zero", KEY, 16, &[0]),
        file(
            "container/multiplier-unused.rescomp",
            "a multiplier where there are no scale codes",
            EMBEDDING,
            16,
            &[1],
        ),
        file("container/tables-padding.rescomp", "a byte between tables and codes", KEY, 63, &[1]),
        file(
            "container/scale-code-of-padding.rescomp",
            "a scale code of a row that is padding",
            KEY,
            key.scale_codes_offset_bytes() + key.scale_code_index(key.rows(), 0),
            &[1],
        ),
        file(
            "container/code-out-of-range.rescomp",
            "-128, two products of which overflow an int16",
            QUERY,
            4 * query.word_index(0, 0, 0),
            &[0x80],
        ),
        file(
            "container/code-of-padding.rescomp",
            "a code of a column that is padding",
            QUERY,
            4 * query.word_index(0, 1, 2),
            &[1],
        ),
        make(
            &all_of(CodeWidth::Int5),
            "container/stacked-level.rescomp",
            "levels of 5 bits that kernels do not have",
            KEY,
            3,
            &[-20_i8 as u8],
        ),
        file("container/tokenizer-version.rescomp", "a tokenizer of another version", TOKENIZER, 0, &[3]),
        section(
            "container/tokenizer-beyond-the-model.rescomp",
            "a tokenizer of more tokens than the embedding has",
            TOKENIZER,
            8,
            &|bytes| {
                *bytes = super::tokenizer_sections::of_tokens(259);
            },
        ),
        file(
            "container/window-token-beyond.rescomp",
            "a token that the embedding does not have",
            CHECK_WINDOWS,
            16,
            &258_u32.to_le_bytes(),
        ),
        file(
            "container/window-probability.rescomp",
            "a probability that is NaN",
            CHECK_WINDOWS,
            16 + tokens,
            &f32::NAN.to_le_bytes(),
        ),
        file(
            "container/window-probability-above-one.rescomp",
            "a probability of two",
            CHECK_WINDOWS,
            16 + tokens + 4,
            &2.0_f32.to_le_bytes(),
        ),
        file(
            "container/window-id-beyond.rescomp",
            "a kept token that the vocabulary does not have",
            CHECK_WINDOWS,
            ids + 2,
            &[0xff, 0xff],
        ),
        file(
            "container/windows-none.rescomp",
            "no windows, a division by zero",
            CHECK_WINDOWS,
            0,
            &0_u32.to_le_bytes(),
        ),
        file(
            "container/windows-without-positions.rescomp",
            "windows of no positions",
            CHECK_WINDOWS,
            4,
            &0_u32.to_le_bytes(),
        ),
        file(
            "container/windows-classes.rescomp",
            "another number of kept tokens",
            CHECK_WINDOWS,
            8,
            &65_u32.to_le_bytes(),
        ),
        file("container/windows-id-bytes.rescomp", "ids of 3 bytes", CHECK_WINDOWS, 12, &3_u32.to_le_bytes()),
        section(
            "container/windows-cut.rescomp",
            "windows that end early",
            CHECK_WINDOWS,
            windows.len() as u64 - 1,
            &|bytes| {
                bytes.pop();
            },
        ),
        section(
            "container/windows-overflow.rescomp",
            "sizes of windows whose product wraps",
            CHECK_WINDOWS,
            16,
            &|bytes| {
                bytes.truncate(16);
                bytes[..8].fill(0xff);
            },
        ),
        section("container/windows-empty.rescomp", "no section of windows", CHECK_WINDOWS, 0, &Vec::clear),
        // Two windows of three positions become one of six: as many bytes but for a token.
        section(
            "container/windows-unlike-the-record.rescomp",
            "windows that the record is not of",
            CHECK_WINDOWS,
            0,
            &|bytes| {
                let one = rescomp_formats::check_windows::CheckSizes::new(1, 3, 258);
                bytes.truncate(one.section_bytes().expect("small"));
                bytes[..4].copy_from_slice(&1_u32.to_le_bytes());
                bytes[16..].fill(0);
            },
        ),
        section(
            "container/windows-longer-than-the-context.rescomp",
            "windows of more positions than a session can hold",
            CHECK_WINDOWS,
            4,
            &|bytes| {
                let long = rescomp_formats::check_windows::CheckSizes::new(1, 9, 258);
                bytes[..4].copy_from_slice(&1_u32.to_le_bytes());
                bytes[4..8].copy_from_slice(&9_u32.to_le_bytes());
                bytes.resize(long.section_bytes().expect("small"), 0);
                bytes[16..].fill(0);
            },
        ),
    ]
    .into_iter()
    .chain([rope_cut()])
    .collect()
}

/// A frequency short.
fn rope_cut() -> HostileFile {
    let mut parts = Parts::of(&container());
    parts.sections[ROPE].truncate(8);
    parts.entries[ROPE].cols = 1;
    let bytes = parts.assemble();
    let offset = Some(entry_at(&bytes, ROPE) as u64 + 12);
    HostileFile {
        name: "container/frequency-missing.rescomp",
        attack: "a frequency is missing",
        offset,
        bytes,
    }
}

/// What only an embedding in bands can have wrong.
fn bands() -> Vec<HostileFile> {
    let sound = banded();
    let begin = entry(&sound, TOKEN_BANDS).offset_bytes;
    let of = tiny::token_bands(&banded_spec());
    let last = of.iter().position(|&band| band == 2).expect("three bands");
    let token = |name, attack, offset, at: usize, band| {
        let mut file = sound.clone();
        file[begin as usize + at] = band;
        repair(&mut file);
        HostileFile { name, attack, offset: Some(offset), bytes: file }
    };
    let rows = |index| entry_at(&sound, index) as u64 + 8;
    let in_manifest = |name, attack, offset, change: &dyn Fn(&mut Manifest)| {
        HostileFile::with_manifest(name, attack, offset, &sound, change)
    };
    let in_entry = |name, attack, offset, index, change: &dyn Fn(&mut SectionEntry)| {
        let mut file = sound.clone();
        let mut changed = entry(&file, index);
        change(&mut changed);
        put_entry(&mut file, index, &changed);
        repair_front(&mut file);
        HostileFile { name, attack, offset: Some(offset), bytes: file }
    };
    vec![
        token("container/band-unknown.rescomp", "a token of a band that is not there", begin + 200, 200, 3),
        token(
            "container/band-of-one-more.rescomp",
            "a token that a band has no row for",
            rows(BAND_0),
            last,
            0,
        ),
        in_entry(
            "container/band-without-rows.rescomp",
            "a band of nothing",
            rows(BAND_2),
            BAND_2,
            &|entry| entry.rows = 0,
        ),
        in_entry(
            "container/band-cut.rescomp",
            "a band of fewer columns",
            rows(BAND_2) + 4,
            BAND_2,
            &|entry| entry.cols -= 1,
        ),
        in_manifest("container/bands-fewer.rescomp", "fewer bands than sections", 28, &|manifest| {
            manifest.spec.embedding_bands = 2
        }),
        in_manifest("container/bands-none.rescomp", "no bands", 64, &|manifest| {
            manifest.spec.embedding_bands = 0
        }),
        in_manifest(
            "container/bands-too-many.rescomp",
            "more bands than a reader has room for",
            64,
            &|manifest| manifest.spec.embedding_bands = 9,
        ),
    ]
}
