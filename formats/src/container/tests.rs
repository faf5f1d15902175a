//! Round trips and refusals of whole containers.
#![cfg(feature = "write")]

use super::*;
use crate::cache_format::CacheFormat;
use crate::check_windows::{self, CheckSizes};
use crate::layouts::Layout;
use crate::manifest::{Check, CheckRecord, EmbeddingRecord, ImageRecord, Provenance, Text};
use crate::matrix::{self, CodebookMatrix, LowRankView, MOST_RANK, ShapeError};
use crate::spec::{Architecture, ModelSpec};
use half::f16;
use std::vec::Vec;
use write::{Contents, write};

/// A file at an address that is a multiple of 64.
#[derive(Clone)]
pub(super) struct Aligned {
    blocks: Vec<Block>,
    length: usize,
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl Aligned {
    pub(super) fn new(bytes: &[u8]) -> Aligned {
        let mut blocks = vec![Block([0; 64]); bytes.len().div_ceil(64)];
        bytemuck::cast_slice_mut::<Block, u8>(&mut blocks)[..bytes.len()].copy_from_slice(bytes);
        Aligned { blocks, length: bytes.len() }
    }
    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.length]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.length]
    }
}

fn manifest(spec: ModelSpec) -> Manifest {
    let text = |text: &str| Text::try_from(text).unwrap();
    Manifest {
        spec,
        provenance: Provenance {
            checkpoint: text("test"),
            checkpoint_sha256: [1; 32],
            method: text("rtn"),
            transform: text("none"),
            bits: 4,
            group_elems: 32,
            head_bits: 8,
            calibration_sha256: [2; 32],
            calibration_tokens: 3,
            target: text("aarch64"),
            tool_version: text("0"),
        },
        check: Check::Windows(CheckRecord {
            reference_nll: 1.0,
            nll: 1.5,
            mean_kl: 0.5,
            same_top1: 1,
            positions: 2,
            logits_sha256: [3; 32],
        }),
        cache: CacheFormat::Binary16,
    }
}

/// A tokenizer of the 256 bytes and one merge.
fn tokenizer_section() -> Vec<u8> {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    tokens.push(b"he".to_vec());
    crate::tokenizer::write_tokenizer(&crate::tokenizer::TokenizerParts {
        tokens,
        byte_tokens: core::array::from_fn(|byte| byte as u32),
        merges: vec![[104, 101, 256]],
        added_tokens: vec![],
        pre_tokenizer: crate::tokenizer::PreTokenizer::Gpt2,
        add_prefix_space: false,
        ignore_merges: false,
    })
    .unwrap()
}

/// A chat template.
fn chat_section() -> Vec<u8> {
    use crate::chat_template::{ChatTemplate, SystemTexts, Trimmed};
    ChatTemplate {
        system: Some(SystemTexts { before: "system: ", after: "\nuser: " }),
        first: "user: ",
        open: "\nanswer:",
        answered: "\nanswer:",
        next: "\nuser: ",
        trimmed: Trimmed::default(),
        drops_thoughts: false,
        drops_line_breaks: false,
        system_last: false,
        names_date: false,
    }
    .section()
    .unwrap()
}

/// Interleaved bands.
fn token_bands(spec: &ModelSpec) -> Vec<u8> {
    (0..spec.vocabulary).map(|token| (token * token % 7 % u32::from(spec.embedding_bands)) as u8).collect()
}

/// A small container; every number in it comes from a counter.
pub(super) fn container(spec: ModelSpec, layout: Layout) -> Vec<u8> {
    let mut counter = 0u32;
    let mut next = move || {
        counter = counter.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        counter >> 16
    };
    write::<ContainerError>(&manifest(spec.clone()), |name| {
        Ok(match name.kind {
            SectionKind::Tokenizer => Contents::Bytes(tokenizer_section()),
            SectionKind::RopeFrequencies => Contents::U64(vec![7; spec.head_dim as usize / 2]),
            SectionKind::CheckWindows => {
                let sizes = CheckSizes::new(1, 2, spec.vocabulary);
                let kept: Vec<(u32, f64)> = (0..2 * sizes.classes as u32).map(|id| (id % 40, -0.5)).collect();
                Contents::Bytes(check_windows::write(&sizes, &[1, 2, 3], &[0.25, 0.5], &kept).unwrap())
            }
            SectionKind::TokenBands => Contents::Bytes(token_bands(&spec)),
            SectionKind::ChatTemplate => Contents::Bytes(chat_section()),
            kind if kind.is_matrix() => {
                let (rows, cols) = kind.shape(&spec).unwrap_or_else(|| {
                    let of_band = |&&band: &&u8| Some(band.into()) == name.layer;
                    (token_bands(&spec).iter().filter(of_band).count() as u32, spec.hidden)
                });
                let bits = match (name.layer, kind) {
                    (Some(1), SectionKind::Embedding) => 2,
                    (None, _) => 8,
                    (_, SectionKind::Gate) => 5,
                    (_, SectionKind::Up) => 6,
                    _ => 4,
                };
                let width = CodeWidth::from_bits(bits).unwrap();
                let shape = MatrixShape::new(rows, cols, 32, width, layout).unwrap();
                let mut section = vec![0; shape.section_bytes()];
                let scale = |number: u32| f16::from_f32(number as f32 / 65536.0);
                if shape.has_codebook() {
                    let levels = 1 << bits;
                    let codes: Vec<u8> = (0..rows * cols).map(|_| (next() % levels) as u8).collect();
                    let groups = if shape.has_scale_codes() { shape.groups() } else { 0 };
                    let codebook = CodebookMatrix {
                        levels: &(0..levels as i8)
                            .map(|code| 2 * code + 1 - levels as i8)
                            .collect::<Vec<_>>(),
                        multipliers: core::array::from_fn(|index| u8::from(groups > 0) * (16 + index as u8)),
                        codes: &codes,
                        scale_codes: &(0..rows * groups as u32)
                            .map(|_| (next() % 16) as u8)
                            .collect::<Vec<u8>>(),
                        row_scales: &(0..rows).map(|_| scale(next())).collect::<Vec<f16>>(),
                    };
                    matrix::pack_codebook(&shape, &codebook, &mut section).unwrap();
                } else {
                    let codes: Vec<i8> = (0..rows * cols).map(|_| (next() % 15) as i8 - 7).collect();
                    let scales: Vec<f16> =
                        (0..shape.rows() * shape.groups()).map(|_| scale(next())).collect();
                    matrix::pack_scaled(&shape, &codes, &scales, &mut section).unwrap();
                }
                Contents::Matrix(shape, section)
            }
            _ => Contents::F32(vec![1.0; spec.hidden as usize]),
        })
    })
    .unwrap()
}

pub(super) fn check(file: &[u8]) -> Result<(), ContainerError> {
    let file = Aligned::new(file);
    Container::open(file.bytes())?.check(Integrity::Digest).map(|_| ())
}

#[test]
fn a_written_container_is_read_back() {
    for layout in if cfg!(miri) { &Layout::ALL[1..] } else { &Layout::ALL } {
        let layout = *layout;
        for (tied_head, embedding_bands) in
            [(false, 3), (true, 1), (false, 1), (true, 3)].into_iter().take(if cfg!(miri) { 1 } else { 4 })
        {
            let chat_template = tied_head;
            let spec = ModelSpec { tied_head, embedding_bands, chat_template, ..crate::spec::tests::spec() };
            let file = Aligned::new(&container(spec.clone(), layout));
            let checked = Container::open(file.bytes()).unwrap().check(Integrity::Digest).unwrap();
            assert_eq!(checked.manifest(), &manifest(spec.clone()));
            for (name, _) in checked.container().entries() {
                assert_eq!(checked.matrix(name).is_some(), name.kind.is_matrix(), "{name}");
            }
            let norm = SectionName { kind: SectionKind::MlpNorm, layer: Some(1) };
            assert_eq!(checked.floats(norm), Some(&[1.0f32; 32][..]));
            assert_eq!(checked.rope_frequencies(), &[7; 4]);
            assert_eq!(checked.check_windows().unwrap().token(0, 2), 3);
            assert_eq!(checked.check_windows().unwrap().kept(0, 1).next(), Some((24, -0.5)));
            let bands = (embedding_bands > 1).then(|| token_bands(&spec));
            assert_eq!(checked.token_bands(), bands.as_deref());
            assert_eq!(
                checked.chat_template().map(|template| template.first),
                chat_template.then_some("user: ")
            );
            let head = if tied_head { 0 } else { 260 * 32 };
            let layer = 32 * 32 * 2 + 16 * 32 * 2 + 3 * 48 * 32 + 64;
            assert_eq!(checked.container().parameters(), 260 * 32 + head + 32 + 2 * layer);
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_byte_is_refused() {
    let file = container(crate::spec::tests::spec(), Layout::Nr8k4);
    assert!(file.len() < 64 * 1024);
    for length in (0..file.len()).step_by(if cfg!(miri) { 1997 } else { 1 }) {
        assert!(check(&file[..length]).is_err(), "truncated to {length}");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(check(&longer).is_err(), "one byte more");
    let mut file = Aligned::new(&file);
    let refused = |file: &Aligned| {
        Container::open(file.bytes()).and_then(|container| container.check(Integrity::Crc)).is_err()
    };
    let (open_ends, flips) = (HEAD_BYTES + manifest_bytes(file.bytes()), if cfg!(miri) { 3 } else { 255 });
    // Every other value of each byte of the head and the manifest, one bit of each byte elsewhere.
    for at in (0..file.length).step_by(if cfg!(miri) { 1997 } else { 1 }) {
        let flips = if at < open_ends { 1..=flips } else { 1 << (at % 8)..=1 << (at % 8) };
        for flip in flips {
            file.bytes_mut()[at] ^= flip;
            assert!(refused(&file), "byte {at} with {flip:#x}");
            file.bytes_mut()[at] ^= flip;
        }
    }
    assert!(!refused(&file));
}

fn manifest_bytes(file: &[u8]) -> usize {
    Head::read(file).unwrap().manifest_bytes as usize
}

#[test]
fn checksums_are_not_the_only_defence() {
    // Rewrites a field of the table and repairs the checksums over it, as an attacker would.
    let spec = crate::spec::tests::spec();
    let file = container(spec, Layout::Nr8k4);
    let head = Head::read(&file).unwrap();
    let refuse = |index: usize, change: &dyn Fn(&mut SectionEntry)| {
        let mut hostile = file.clone();
        let start = head.table_offset as usize;
        let end = start + head.section_count as usize * SECTION_ENTRY_BYTES;
        let at = start + index * SECTION_ENTRY_BYTES;
        let mut entry: SectionEntry = bytemuck::pod_read_unaligned(&hostile[at..at + SECTION_ENTRY_BYTES]);
        change(&mut entry);
        hostile[at..at + SECTION_ENTRY_BYTES].copy_from_slice(bytemuck::bytes_of(&entry));
        let sealed = Head { table_crc32: crc32(&hostile[HEAD_BYTES..end]), ..head }.sealed();
        hostile[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&sealed));
        std::string::ToString::to_string(&check(&hostile).unwrap_err())
    };
    assert!(refuse(3, &|entry| entry.rows = u32::MAX).contains("rows: expected 260, found 4294967295"));
    assert!(refuse(3, &|entry| entry.offset_bytes = u64::MAX).contains("offset: expected"));
    assert!(refuse(0, &|entry| entry.length_bytes = u64::MAX - 63).contains("length: expected at most"));
    assert!(refuse(3, &|entry| entry.group_elems = 48).contains("groups of 48 columns"));
    assert!(refuse(3, &|entry| entry.encoding = 23).contains("encoding 23"));
    assert!(
        refuse(5, &|entry| entry.kind = 18).contains("expected layer 0 attention_norm, found kind 18 (key)")
    );
    assert!(refuse(5, &|entry| entry.layer = 1).contains("layer 1"));
    assert!(refuse(4, &|entry| entry.tier = 1).contains("tier: expected 0, found 1"));
    assert!(refuse(4, &|entry| entry.sha256[0] ^= 1).contains("expected SHA-256 "));
}

#[test]
fn versions_and_strangers_are_named() {
    let mut file = container(crate::spec::tests::spec(), Layout::Rows);
    let error = |file: &[u8]| std::string::ToString::to_string(&check(file).unwrap_err());
    assert!(error(b"GGUF").contains("head: expected 64 bytes, found 4"));
    assert!(error(&[b'G'; 100]).contains("not a rescomp container"));
    assert_eq!((file[8], file[10]), (8, 0));
    for (major, minor) in [(2, 1), (3, 0), (4, 2), (5, 0), (6, 0), (7, 2), (8, 1), (9, 0)] {
        (file[8], file[10]) = (major, minor);
        let expected = format!("container version {major}.{minor}; this reader knows 8.0");
        assert!(error(&file).contains(&expected));
    }
}

#[test]
fn a_file_at_an_odd_address_is_refused() {
    let mut bytes = vec![0];
    bytes.extend(container(crate::spec::tests::spec(), Layout::Rows));
    let file = Aligned::new(&bytes);
    assert_eq!(Container::open(&file.bytes()[1..]).unwrap_err(), ContainerError::Unaligned);
}

#[test]
fn records_that_cannot_have_been_measured_and_texts_that_steer_a_terminal_are_refused() {
    let refuse = |change: &dyn Fn(&mut Manifest)| {
        let mut changed = manifest(crate::spec::tests::spec());
        change(&mut changed);
        std::string::ToString::to_string(&changed.check_record().unwrap_err())
    };
    fn record(manifest: &mut Manifest) -> &mut CheckRecord {
        let Check::Windows(record) = &mut manifest.check else { panic!("a decoder") };
        record
    }
    let text = |text: &str| Text::try_from(text).unwrap();
    assert_eq!(
        refuse(&|manifest| manifest.provenance.checkpoint = text("a\u{1b}[2J")),
        "checkpoint: expected characters that can be printed, found 0x1b"
    );
    for character in ["\n", "\u{7f}", "\u{9b}", "\u{202e}", "\u{2066}", "\u{2028}", "\u{61c}"] {
        assert!(refuse(&|manifest| manifest.provenance.target = text(character)).starts_with("target: "));
    }
    assert!(refuse(&|manifest| record(manifest).nll = f64::NAN).starts_with("nll: expected a finite number"));
    assert!(refuse(&|manifest| record(manifest).mean_kl = f64::INFINITY).starts_with("mean_kl: "));
    assert_eq!(
        refuse(&|manifest| record(manifest).same_top1 = 3),
        "same_top1: expected no more than positions, found 0x3"
    );
    let distances = |mean_distance, largest_distance| {
        let embeddings_sha256 = [0; 32];
        Check::Embeddings(EmbeddingRecord { mean_distance, largest_distance, texts: 1, embeddings_sha256 })
    };
    assert!(
        refuse(&|manifest| manifest.check = distances(0.0, 0.0))
            .starts_with("check: expected 0 (of windows) of a decoder, 1 (of emb")
    );
    let of_encoder = |check| {
        let spec = ModelSpec { architecture: Architecture::Bert, ..crate::spec::tests::spec() };
        Manifest { check, ..manifest(spec) }.check_record()
    };
    assert_eq!(of_encoder(distances(0.25, 0.5)), Ok(()));
    let keeps = Manifest {
        check: distances(0.25, 0.5),
        cache: CacheFormat::Int8,
        ..manifest(ModelSpec { architecture: Architecture::Bert, ..crate::spec::tests::spec() })
    };
    assert_eq!(keeps.check_record().unwrap_err().field, "cache");
    assert_eq!(of_encoder(distances(f64::NAN, 0.5)).unwrap_err().field, "mean_distance");
    assert_eq!(of_encoder(distances(0.25, f64::INFINITY)).unwrap_err().field, "largest_distance");
    assert_eq!(of_encoder(manifest(crate::spec::tests::spec()).check).unwrap_err().field, "check");
    let of_classifier = |mean_kl, same_top1| {
        let check = Check::Images(ImageRecord { mean_kl, same_top1, images: 2, logits_sha256: [0; 32] });
        Manifest { check, ..manifest(crate::spec::tests::of(Architecture::Vit)) }.check_record()
    };
    assert_eq!(of_classifier(0.5, 2), Ok(()));
    assert_eq!(of_classifier(f64::NAN, 2).unwrap_err().field, "mean_kl");
    assert_eq!(of_classifier(0.5, 3).unwrap_err().field, "same_top1");
    let mut printable = manifest(crate::spec::tests::spec());
    printable.provenance.checkpoint = text("Modell \u{fc}\u{65e5}\u{1f600} \u{fffd}");
    assert_eq!(printable.check_record(), Ok(()));
}

/// A number of the head.
type HeadField = fn(&mut Head) -> &mut u32;

/// Every field of the head at the ends of its range, with the checksum repaired: refused by name, and no sum or product overflows.
#[test]
fn the_heads_arithmetic_holds_at_the_ends_of_every_field() {
    let file = container(crate::spec::tests::spec(), Layout::Nr8k4);
    let valid = Head::read(&file).unwrap();
    let ends = [0, 1, 2, 63, 64, 65, 127, 128, 0x7fff_ffff, 0x8000_0000, 0xffff_ff80, 0xffff_ffc0, u32::MAX];
    let near = |value: u32| [value.wrapping_sub(64), value.wrapping_sub(1), value + 1, value + 64];
    let mut tried = 0;
    let mut refused = |head: Head| {
        let mut hostile = file.clone();
        hostile[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&head.sealed()));
        let same = head == valid;
        assert_eq!(check(&hostile).is_ok(), same, "{head:?}");
        tried += usize::from(!same);
    };
    let fields: [(HeadField, u32); 4] = [
        (|head| &mut head.manifest_offset, valid.manifest_offset),
        (|head| &mut head.manifest_bytes, MAX_MANIFEST_BYTES),
        (|head| &mut head.table_offset, valid.table_offset),
        (|head| &mut head.section_count, MAX_SECTIONS),
    ];
    let step = if cfg!(miri) { 5 } else { 1 };
    for (first, bound) in fields {
        let values = ends.into_iter().chain(near(bound)).chain(near(*first(&mut valid.clone())));
        for value in values.chain([bound]).step_by(step) {
            let mut head = valid;
            *first(&mut head) = value;
            refused(head);
            // Two fields at once, and a table where the manifest says that it ends.
            for (second, _) in fields {
                for other in ends.into_iter().step_by(step) {
                    let mut head = head;
                    *second(&mut head) = other;
                    refused(head);
                }
            }
            let after = u64::from(head.manifest_bytes).saturating_add(HEAD_BYTES as u64).next_multiple_of(64);
            if let Ok(table_offset) = u32::try_from(after) {
                refused(Head { table_offset, ..head });
            }
        }
    }
    for file_bytes in [0, 63, 64, valid.file_bytes - 1, valid.file_bytes + 1, u64::MAX - 63, u64::MAX] {
        refused(Head { file_bytes, ..valid });
    }
    assert!(tried > 1000 / (step * step), "{tried}");
}

/// As the head's: every number of every entry of the table.
#[test]
fn the_tables_arithmetic_holds_at_the_ends_of_every_field() {
    let file = container(crate::spec::tests::spec(), Layout::Nr8k4);
    let head = Head::read(&file).unwrap();
    let (start, sections) = (head.table_offset as usize, head.section_count as usize);
    let end = start + sections * SECTION_ENTRY_BYTES;
    let ends = [
        0,
        1,
        31,
        32,
        63,
        64,
        0x8000_0000,
        0xffff_ffc0,
        u64::from(u32::MAX),
        1 << 63,
        u64::MAX - 63,
        u64::MAX,
    ];
    let changes: [fn(&mut SectionEntry, u64); 9] = [
        |entry, value| entry.kind = value as u16,
        |entry, value| entry.layer = value as u16,
        |entry, value| entry.encoding = value as u8,
        |entry, value| entry.layout = value as u8,
        |entry, value| entry.rows = value as u32,
        |entry, value| entry.cols = value as u32,
        |entry, value| entry.group_elems = value as u32,
        |entry, value| entry.offset_bytes = value,
        |entry, value| entry.length_bytes = value,
    ];
    let mut refused = 0;
    let sections = (0..sections).step_by(if cfg!(miri) { 7 } else { 1 });
    let tried = sections.len() * changes.len() * ends.len();
    for index in sections {
        let at = start + index * SECTION_ENTRY_BYTES;
        let valid: SectionEntry = bytemuck::pod_read_unaligned(&file[at..at + SECTION_ENTRY_BYTES]);
        for change in changes {
            for value in ends {
                let mut entry = valid;
                change(&mut entry, value);
                // A matrix of as many bytes in the other layout, or whose row is one group of either length, is a possible one.
                let possible = valid.group_elems > 0
                    && matches!(entry.layout, 1 | 2)
                    && [valid.group_elems, 32, 64].contains(&entry.group_elems)
                    && SectionEntry { layout: valid.layout, group_elems: valid.group_elems, ..entry }
                        == valid;
                let mut hostile = file.clone();
                hostile[at..at + SECTION_ENTRY_BYTES].copy_from_slice(bytemuck::bytes_of(&entry));
                let sealed = Head { table_crc32: crc32(&hostile[HEAD_BYTES..end]), ..head }.sealed();
                hostile[..HEAD_BYTES].copy_from_slice(bytemuck::bytes_of(&sealed));
                let checked = check(&hostile);
                assert!(checked.is_err() || entry == valid || possible, "{index}: {entry:?}");
                refused += usize::from(checked.is_err());
            }
        }
    }
    assert!(refused > tried * 9 / 10, "{refused} of {tried}");
}

/// The container of [`container`] whose gates have a correction of rank 32.
fn corrected(spec: &ModelSpec, layout: Layout) -> Vec<u8> {
    let plain = Aligned::new(&container(spec.clone(), layout));
    let plain = Container::open(plain.bytes()).unwrap().check(Integrity::Crc).unwrap();
    write::<ContainerError>(&manifest(spec.clone()), |name| {
        let (entry, bytes) = plain.container().section(name).unwrap();
        let words = bytes.as_chunks::<4>().0;
        Ok(match name.kind {
            kind if kind.is_matrix() => {
                let shape = *plain.matrix(name).unwrap().shape();
                if kind != SectionKind::Gate {
                    return Ok(Contents::Matrix(shape, bytes.to_vec()));
                }
                let low_rank = LowRankShape::new(shape, RANK_UNIT).unwrap();
                let factor = |shape: &MatrixShape| {
                    let codes: Vec<i8> =
                        (0..shape.rows() * shape.cols()).map(|at| (at % 9) as i8 - 4).collect();
                    let scales = vec![f16::from_f32(0.25); shape.rows() * shape.groups()];
                    let mut section = vec![0; shape.section_bytes()];
                    matrix::pack_scaled(shape, &codes, &scales, &mut section).unwrap();
                    section
                };
                let (right, left) = (factor(low_rank.right()), factor(low_rank.left()));
                Contents::corrected(low_rank, [bytes, &right, &left]).unwrap()
            }
            kind if kind.is_bytes() => Contents::Bytes(bytes.to_vec()),
            _ if entry.encoding == encoding::U64 => {
                Contents::U64(bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
            }
            _ => Contents::F32(words.iter().map(|word| f32::from_le_bytes(*word)).collect()),
        })
    })
    .unwrap()
}

#[test]
fn factors_of_a_correction_follow_their_matrix() {
    for layout in Layout::ALL {
        let spec = crate::spec::tests::spec();
        let (plain, file) = (container(spec.clone(), layout), corrected(&spec, layout));
        let (plain, file) = (Aligned::new(&plain), Aligned::new(&file));
        let of = |file| Container::open(file).unwrap().check(Integrity::Digest).unwrap();
        let (plain, checked) = (of(plain.bytes()), of(file.bytes()));
        let (mut products, mut more_bytes) = (0, 0);
        for (name, entry) in checked.container().entries() {
            let low_rank = checked.low_rank(name);
            assert_eq!(low_rank.is_some(), name.kind == SectionKind::Gate, "{name}");
            assert!(plain.low_rank(name).is_none());
            // The matrix is what it was.
            assert_eq!(
                checked.matrix(name).map(|view| view.codes()),
                plain.matrix(name).map(|view| view.codes())
            );
            let Some(LowRankView { right, left }) = low_rank else { continue };
            let (rows, cols) = (spec.intermediate as usize, spec.hidden as usize);
            assert_eq!((right.shape().rows(), right.shape().cols()), (32, cols));
            assert_eq!((left.shape().rows(), left.shape().cols()), (rows, 32));
            let mut row = [0.0; 32];
            left.decode_row(1, &mut row);
            assert_eq!(row, core::array::from_fn(|at| 0.25 * (((32 + at) % 9) as f32 - 4.0)));
            products += 2;
            more_bytes += entry.length_bytes - plain.container().section(name).unwrap().0.length_bytes;
        }
        assert_eq!(checked.products().count(), plain.products().count() + products);
        assert_eq!(checked.container().parameters(), plain.container().parameters());
        let bits =
            |of: &CheckedContainer<'_>| of.container().bits_per_weight() * of.container().parameters() as f64;
        assert!((bits(&checked) - bits(&plain) - 8.0 * more_bytes as f64).abs() < 1e-3);
    }
}

#[test]
fn ranks_are_multiples_of_a_unit_within_the_matrix() {
    let matrix = |rows, cols| MatrixShape::new(rows, cols, 32, CodeWidth::Int4, Layout::Nr8k4).unwrap();
    for (rows, cols, rank, most) in
        [(64, 96, 0, 64), (64, 96, 33, 64), (64, 96, 96, 64), (31, 400, 32, 0), (100, 70, 96, 64)]
    {
        let error = LowRankShape::new(matrix(rows, cols), rank).unwrap_err();
        assert_eq!(error, ShapeError::Rank { found: rank, most });
    }
    let shape = LowRankShape::new(matrix(100, 70), 64).unwrap();
    assert_eq!((shape.rank(), shape.right_range().start % 64, shape.left_range().start % 64), (64, 0, 0));
    assert_eq!(LowRankShape::most(&matrix(1 << 14, 1 << 14)), MOST_RANK);
}
