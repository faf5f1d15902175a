//! Hostile tokenizer sections.

use super::HostileFile;
use rescomp_formats::tokenizer::{AddedFlags, PreTokenizer, TokenizerParts, write_tokenizer};

/// The 256 bytes by their numbers, merges, and empty ids up to so many.
pub(super) fn of_tokens(tokens: usize) -> Vec<u8> {
    let mut parts = parts();
    parts.added_tokens.clear();
    parts.merges.truncate(2);
    parts.tokens.resize(tokens, Vec::new());
    write_tokenizer(&parts).expect("parts that agree")
}

/// Explicit ids, three merges, two added tokens: every array is there.
fn parts() -> TokenizerParts {
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    for text in ["<|end|>", "the", "he", "er", "\u{e4}"] {
        tokens.push(text.as_bytes().to_vec());
    }
    let byte = u32::from;
    TokenizerParts {
        tokens,
        byte_tokens: std::array::from_fn(|byte| byte as u32),
        merges: vec![[byte(b'h'), byte(b'e'), 258], [byte(b't'), 258, 257], [byte(b'e'), byte(b'r'), 259]],
        added_tokens: vec![AddedFlags::plain(256, true, false), AddedFlags::plain(260, false, true)],
        pre_tokenizer: PreTokenizer::Gpt2,
        add_prefix_space: false,
        ignore_merges: false,
    }
}

pub(super) fn sound() -> Vec<(&'static str, Vec<u8>)> {
    let write = |parts: TokenizerParts| write_tokenizer(&parts).expect("parts that agree");
    let merges = vec![[u32::from(b'h'), u32::from(b'e'), 258]];
    vec![
        ("tokenizer-section/sound.tokenizer", write(parts())),
        (
            "tokenizer-section/sound-ignores-merges.tokenizer",
            write(TokenizerParts { ignore_merges: true, ..parts() }),
        ),
        (
            "tokenizer-section/sound-prefix-space.tokenizer",
            write(TokenizerParts {
                add_prefix_space: true,
                merges,
                pre_tokenizer: PreTokenizer::ByteLevel,
                ..parts()
            }),
        ),
        (
            "tokenizer-section/sound-digits.tokenizer",
            write(TokenizerParts { pre_tokenizer: PreTokenizer::DigitsGpt2, ..parts() }),
        ),
    ]
}

pub(super) fn files() -> Vec<HostileFile> {
    let sound = write_tokenizer(&parts()).expect("parts that agree");
    // Arrays of 261 tokens in 9 blocks.
    let block_starts = 32;
    let lengths = block_starts + 4 * 9;
    let bytes = lengths + 261;
    let byte_tokens = bytes + 256 + 7 + 2 + 3 + 2 + 2;
    let results = byte_tokens + 2 * 256;
    let splits = results + 2 * 3;
    let order = splits + 3;
    let added = order + 2 * 3;
    assert_eq!(sound.len(), added + 2 * 3, "the arrays are where they are thought to be");
    let make = |name, attack, at: usize, bytes: &[u8], offset: usize| {
        let mut section = sound.clone();
        section[at..][..bytes.len()].copy_from_slice(bytes);
        HostileFile { name, attack, offset: Some(offset as u64), bytes: section }
    };
    let file = |name, attack, at, bytes: &[u8]| make(name, attack, at, bytes, at);
    let cut = |name, attack, length, offset: usize| HostileFile {
        name,
        attack,
        offset: Some(offset as u64),
        bytes: sound[..length].to_vec(),
    };
    let endless = u32::MAX.to_le_bytes();
    vec![
        cut("tokenizer-section/empty.tokenizer", "nothing", 0, 0),
        cut("tokenizer-section/head-cut.tokenizer", "31 bytes", 31, 0),
        cut("tokenizer-section/cut.tokenizer", "the last byte is missing", sound.len() - 1, 4),
        file("tokenizer-section/version.tokenizer", "a layout of the future", 0, &[3]),
        file("tokenizer-section/flag-unknown.tokenizer", "a flag that would be passed over", 1, &[0x13]),
        file(
            "tokenizer-section/pre-tokenizer-unknown.tokenizer",
            "a way of cutting that does not exist",
            2,
            &[7],
        ),
        file(
            "tokenizer-section/pre-tokenizer-of-another-model.tokenizer",
            "a way of cutting that leaves text out",
            2,
            &[6],
        ),
        file("tokenizer-section/reserved.tokenizer", "a reserved byte is set", 3, &[1]),
        file("tokenizer-section/tokens-none.tokenizer", "an empty vocabulary", 8, &[0; 4]),
        make("tokenizer-section/tokens-endless.tokenizer", "2^32 - 1 tokens", 8, &endless, block_starts),
        make("tokenizer-section/bytes-endless.tokenizer", "token bytes of 4 GiB", 12, &endless, bytes),
        make("tokenizer-section/merges-endless.tokenizer", "2^32 - 1 merges", 16, &endless, results),
        make("tokenizer-section/added-endless.tokenizer", "2^32 - 1 added tokens", 28, &endless, added),
        make(
            "tokenizer-section/added-fewer.tokenizer",
            "bytes after the last array",
            28,
            &[1, 0, 0, 0],
            added + 3,
        ),
        file("tokenizer-section/first-result-unused.tokenizer", "a field that has no meaning here", 20, &[1]),
        file(
            "tokenizer-section/block-start-beyond.tokenizer",
            "tokens that begin beyond the end",
            block_starts + 4,
            &endless,
        ),
        make(
            "tokenizer-section/lengths-of-more.tokenizer",
            "lengths that add up to more than there is",
            lengths + 260,
            &[255],
            lengths,
        ),
        make(
            "tokenizer-section/byte-token-of-another.tokenizer",
            "a byte that becomes another",
            byte_tokens + 2 * 65,
            &[66, 0],
            byte_tokens + 2 * 65,
        ),
        make(
            "tokenizer-section/byte-token-beyond.tokenizer",
            "a byte's token outside the vocabulary",
            byte_tokens,
            &[0xff, 0xfe],
            byte_tokens,
        ),
        file(
            "tokenizer-section/merge-result-beyond.tokenizer",
            "a merge into a token outside the vocabulary",
            results,
            &[0x05, 0x01],
        ),
        file("tokenizer-section/split-zero.tokenizer", "a merge of nothing and something", splits, &[0]),
        file("tokenizer-section/split-beyond.tokenizer", "a merge cut behind its end", splits + 1, &[3]),
        file("tokenizer-section/rank-beyond.tokenizer", "a rank that no merge has", order + 2, &[3, 0]),
        make(
            "tokenizer-section/order-wrong.tokenizer",
            "merges that a search would not find",
            order,
            &[1, 0, 0, 0],
            order + 2,
        ),
        make(
            "tokenizer-section/rank-twice.tokenizer",
            "a merge that is in the order twice",
            order,
            &[0, 0, 0, 0],
            order + 2,
        ),
        file(
            "tokenizer-section/added-beyond.tokenizer",
            "an added token outside the vocabulary",
            added + 3,
            &[0x05, 0x01],
        ),
        file(
            "tokenizer-section/added-unordered.tokenizer",
            "added tokens out of order",
            added + 3,
            &[0x00, 0x01],
        ),
        file(
            "tokenizer-section/added-flag.tokenizer",
            "a flag of an added token that would be passed over",
            added + 2,
            &[0x21],
        ),
        file(
            "tokenizer-section/added-words.tokenizer",
            "an added token that is found in whole words only",
            added + 2,
            &[0x1d],
        ),
        make(
            "tokenizer-section/added-not-utf8.tokenizer",
            "an added token that no text contains",
            bytes + 256,
            &[0xff],
            added,
        ),
    ]
}
