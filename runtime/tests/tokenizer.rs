//! The tokenizer against its obvious version, and with damaged sections.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use std::collections::HashMap;

use proptest::prelude::*;
use rescomp_formats::tokenizer::{
    AddedFlags, BertNormalizer, Decoding, Model, NO_TOKEN, Normalizer, PreTokenizer, SpacePrefix,
    TokenizerExtension, TokenizerParts, TokenizerView, byte_alphabet_position, write_extended_tokenizer,
    write_tokenizer,
};
use rescomp_runtime::tokenizer::{Special, Tokenizer, TokenizerError, Utf8Stream};

/// A vocabulary of the bytes from id `first` and of the results of `pairs` of its tokens; a pair is two numbers to be taken
/// modulo the number of tokens there are by then that consist of a, b and c.
fn parts(first: u32, pairs: &[(usize, usize)]) -> TokenizerParts {
    let mut tokens = vec![Vec::new(); first as usize + 256];
    let mut byte_tokens = [0; 256];
    for byte in 0..=255_u8 {
        let id = first + u32::from(byte_alphabet_position(byte));
        byte_tokens[usize::from(byte)] = id;
        tokens[id as usize] = vec![byte];
    }
    let mut usable: Vec<u32> = b"abc".iter().map(|&byte| byte_tokens[usize::from(byte)]).collect();
    let mut merges: Vec<[u32; 3]> = Vec::new();
    for &(left, right) in pairs {
        let (left, right) = (usable[left % usable.len()], usable[right % usable.len()]);
        let bytes = [tokens[left as usize].as_slice(), &tokens[right as usize]].concat();
        if bytes.len() > 20 || merges.iter().any(|ids| ids[..2] == [left, right]) {
            continue;
        }
        let result = tokens.iter().position(|token| *token == bytes).unwrap_or(tokens.len()) as u32;
        if result as usize == tokens.len() {
            tokens.push(bytes);
            usable.push(result);
        }
        merges.push([left, right, result]);
    }
    TokenizerParts {
        tokens,
        byte_tokens,
        merges,
        added_tokens: Vec::new(),
        pre_tokenizer: PreTokenizer::ByteLevel,
        add_prefix_space: false,
        ignore_merges: false,
    }
}

/// Byte-pair encoding as it is defined: one merge at a time, the pair of lowest rank, the leftmost of equals.
fn obvious(parts: &TokenizerParts, text: &str) -> Vec<u32> {
    let ranks: HashMap<[u32; 2], usize> =
        parts.merges.iter().enumerate().map(|(rank, ids)| ([ids[0], ids[1]], rank)).collect();
    let mut ids: Vec<u32> = text.bytes().map(|byte| parts.byte_tokens[usize::from(byte)]).collect();
    loop {
        let pairs = ids.windows(2).enumerate();
        let lowest = pairs.filter_map(|(place, pair)| Some((*ranks.get(&[pair[0], pair[1]])?, place))).min();
        let Some((rank, place)) = lowest else { return ids };
        ids.splice(place..place + 2, [parts.merges[rank][2]]);
    }
}

fn encode(section: &[u8], text: &str) -> Vec<u32> {
    let tokenizer = Tokenizer::new(TokenizerView::parse(section).unwrap());
    let mut out = vec![0; tokenizer.max_tokens(text.len())];
    let tokens = tokenizer.encode(text, true, &mut out).unwrap();
    out.truncate(tokens);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In any order of the merges: those that training can't make, too, where a token's parts may be merged after it.
    #[test]
    fn merges_as_defined(
        pairs in prop::collection::vec((0_usize..40, 0_usize..40), 0..40),
        order in any::<prop::sample::Index>(),
        trained in any::<bool>(),
        wide in prop::bool::weighted(0.1),
        text in "[abcd]{0,60}|(ab){0,9}a{0,30}(abc){0,9}|[abc]{40,900}|(ab){0,99}a{0,99}(abc){0,99}c{0,9}",
    ) {
        let mut parts = parts(if wide { 65_536 } else { 3 }, &pairs);
        if !trained && !parts.merges.is_empty() {
            let rotation = order.index(parts.merges.len());
            parts.merges.rotate_left(rotation);
            let half = parts.merges.len() / 2;
            parts.merges[half..].reverse();
        }
        let section = write_tokenizer(&parts).unwrap();
        prop_assert_eq!(encode(&section, &text), obvious(&parts, &text));
    }

    #[test]
    fn utf8_in_any_portions_is_as_the_standard_library_has_it(
        bytes in prop::collection::vec(prop_oneof![
            any::<u8>(),
            prop::sample::select(b"a\x80\xbf\xc2\xc3\xe0\xed\xa0\x9f\xf0\x90\xf4\x8f\xff".to_vec()),
        ], 0..40),
        cuts in prop::collection::vec(1_usize..5, 40),
    ) {
        let mut stream = Utf8Stream::new();
        let mut text = String::new();
        let mut rest = bytes.as_slice();
        for cut in cuts {
            let (portion, after) = rest.split_at(cut.min(rest.len()));
            stream.push(portion, |part| text.push_str(part));
            rest = after;
        }
        stream.push(rest, |part| text.push_str(part));
        stream.finish(|part| text.push_str(part));
        prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
    }
}

/// One pre-token of a million letters: quadratic time would be minutes.
#[test]
fn a_long_pre_token_takes_time_in_proportion() {
    let pairs: Vec<(usize, usize)> = (0..60).map(|pair| (pair * 7 % 11, pair * 5 % 13)).collect();
    let parts = parts(3, &pairs);
    let section = write_tokenizer(&parts).unwrap();
    let mut state = 1_u32;
    let text: String = (0..1 << 20)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b"abc"[(state >> 16) as usize % 3])
        })
        .collect();
    let start = std::time::Instant::now();
    let tokens = encode(&section, &text);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    let bytes: usize = tokens.iter().map(|&id| parts.tokens[id as usize].len()).sum();
    assert_eq!(bytes, text.len());
}

#[test]
fn a_character_is_handed_on_with_its_last_byte() {
    let mut stream = Utf8Stream::new();
    let mut parts: Vec<String> = Vec::new();
    for byte in "a\u{e9}\u{1f600}b".bytes() {
        let before = parts.len();
        stream.push(&[byte], |part| parts.push(part.to_string()));
        if parts.len() == before {
            parts.push(String::new());
        }
    }
    assert_eq!(parts, ["a", "", "\u{e9}", "", "", "", "\u{1f600}", "b"]);
}

#[test]
fn says_how_much_fitted_and_how_much_is_needed() {
    let mut small = parts(3, &[(0, 1)]);
    small.pre_tokenizer = PreTokenizer::Gpt2;
    let section = write_tokenizer(&small).unwrap();
    let tokenizer = Tokenizer::new(TokenizerView::parse(&section).unwrap());
    let text = "ab ab xyz";
    let mut out = [0; 9];
    let all = tokenizer.encode(text, true, &mut out).unwrap();
    assert_eq!(all, 1 + 2 + 4);
    let mut short = [0; 6];
    let too_small = TokenizerError::OutputTooSmall { tokens: 3, text_bytes: 5, needed: 7, available: 6 };
    assert_eq!(tokenizer.encode(text, true, &mut short), Err(too_small));
    assert_eq!(short[..3], out[..3]);
    assert_eq!(tokenizer.encode(text, true, &mut [0; 7]), Ok(7));
    let too_small = TokenizerError::OutputTooSmall { tokens: 0, text_bytes: 0, needed: 2, available: 1 };
    assert_eq!(tokenizer.encode(text, true, &mut [0; 1]), Err(too_small));
    assert_eq!(tokenizer.encode("", true, &mut []), Ok(0));
}

/// Small sections that between them have every array.
fn small_sections() -> Vec<Vec<u8>> {
    let mut implied = parts(1, &[(0, 1), (3, 2), (1, 2), (4, 4)]);
    implied.tokens[0] = b"<end>".to_vec();
    implied.added_tokens.push(AddedFlags::plain(0, true, false));
    implied.pre_tokenizer = PreTokenizer::Gpt2;
    let mut explicit = parts(1, &[(0, 1), (3, 2), (1, 2), (0, 5), (4, 4)]);
    explicit.tokens.push("\u{e9}b".into());
    let id = explicit.tokens.len() as u32 - 1;
    explicit.added_tokens.push(AddedFlags::plain(id, false, true));
    explicit.merges.reverse();
    let (left, right) = (explicit.byte_tokens[1], explicit.byte_tokens[2]);
    explicit.tokens.swap(left as usize, right as usize);
    explicit.byte_tokens.swap(1, 2);
    let mut spaces = implied.clone();
    spaces.add_prefix_space = true;
    let mut whole = explicit.clone();
    whole.ignore_merges = true;
    whole.pre_tokenizer = PreTokenizer::DigitsGpt2;
    [implied, explicit, spaces, whole].iter().map(|parts| write_tokenizer(parts).unwrap()).collect()
}

/// Uses everything a section has: nothing may panic or go on for ever, and every token written is in the vocabulary.
fn exercise(section: &[u8]) -> bool {
    let Ok(view) = TokenizerView::parse(section) else { return false };
    let tokenizer = Tokenizer::new(view);
    let text = "abcabc ab1 <end>\u{e9}bc'll\n";
    let mut out = [0; 80];
    for allow_special in [false, true] {
        let tokens = tokenizer.encode(text, allow_special, &mut out).unwrap();
        assert!(out[..tokens].iter().all(|&id| view.token_bytes(id).is_some()));
        let mut decoded = String::new();
        tokenizer.decode(&out[..tokens], false, |part| decoded.push_str(part));
        let strips = (0..view.added_tokens())
            .filter_map(|index| view.added_token(index))
            .any(|token| token.left_strip || token.right_strip);
        if view.add_prefix_space() || strips {
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(solid(&decoded), solid(text));
        } else {
            assert_eq!(decoded, text);
        }
    }
    for id in (0..view.vocabulary()).chain([u32::MAX]) {
        tokenizer.decode(&[id], tokenizer.is_special(id), |_| {});
    }
    for rank in [0, view.merges(), u32::MAX] {
        view.merge_result(rank);
    }
    true
}

#[test]
fn every_truncation_is_refused() {
    for section in small_sections() {
        assert!(exercise(&section));
        for length in 0..section.len() {
            assert!(!exercise(&section[..length]), "{length} bytes");
            let mut padded = section.clone();
            padded.resize(section.len() + 1 + length % 5, 0);
            assert!(!exercise(&padded));
            // With the length that the head announces put right.
            let mut cut = section[..length].to_vec();
            if length >= 8 {
                cut[4..8].copy_from_slice(&(length as u32).to_le_bytes());
                assert!(!exercise(&cut), "{length} bytes");
            }
        }
    }
}

#[test]
fn every_changed_byte_is_refused_or_harmless() {
    let (mut refused, mut harmless) = (0, 0);
    for section in small_sections() {
        let mut changed = section.clone();
        for place in 0..section.len() {
            for change in 1..=255 {
                changed[place] = section[place] ^ change;
                if exercise(&changed) { harmless += 1 } else { refused += 1 }
            }
            changed[place] = section[place];
        }
    }
    // Other merges or another content of an added token make another tokenizer, not a broken one.
    assert!(refused > 10 * harmless && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// One small section of each model and normalizer that byte-level BPE doesn't have.
fn extended_sections() -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let plain = TokenizerParts {
        tokens: texts(&["?", "a", "b", " ", "ab", " ab", "##b", "<end>", "##\u{e9}", "<0x41>"]),
        byte_tokens: [NO_TOKEN; 256],
        merges: Vec::new(),
        added_tokens: vec![AddedFlags::plain(7, true, false)],
        pre_tokenizer: PreTokenizer::Spaces,
        add_prefix_space: false,
        ignore_merges: false,
    };
    let all = BertNormalizer { clean_text: true, space_chinese: true, strip_accents: true, lowercase: true };
    let word_piece = TokenizerExtension {
        model: Model::WordPiece,
        normalizer: Normalizer::Bert(all),
        decoding: Decoding { clean_up: true, ..Decoding::default() },
        unknown: Some(0),
        ordered: vec![0, 1, 2, 4, 6, 8],
        max_word_characters: 5,
        tokens_before: vec![7],
        ..TokenizerExtension::default()
    };
    let unigram = TokenizerExtension {
        model: Model::Unigram,
        normalizer: Normalizer::Spaces(SpacePrefix::FirstUnlessThere),
        decoding: Decoding { strip_first_token: true, ..Decoding::default() },
        unknown: Some(0),
        ordered: vec![1, 2, 3, 4, 5, 0],
        scores: vec![0.0, -1.0, -2.0, -1.0, -2.5, -3.0],
        unknown_score: -13.0,
        ..TokenizerExtension::default()
    };
    let bert = TokenizerParts { pre_tokenizer: PreTokenizer::Bert, ..plain.clone() };
    let merges = TokenizerParts { merges: vec![[1, 2, 4], [3, 4, 5]], ..plain.clone() };
    let mut bytes = merges.clone();
    for byte in 0..=255_u8 {
        bytes.byte_tokens[usize::from(byte)] = bytes.tokens.len() as u32;
        bytes.tokens.push(vec![byte]);
    }
    let characters = TokenizerExtension {
        model: Model::CharacterBpe,
        normalizer: Normalizer::Spaces(SpacePrefix::Always),
        decoding: Decoding { strip_leading_space: true, ..Decoding::default() },
        unknown: Some(0),
        fuse_unknown: true,
        ordered: vec![1, 2, 3],
        ..TokenizerExtension::default()
    };
    let mut composed = parts(3, &[(0, 1)]);
    composed.pre_tokenizer = PreTokenizer::Qwen2;
    let nfc = TokenizerExtension { normalizer: Normalizer::Nfc, ..TokenizerExtension::default() };
    let mut scored = bytes.clone();
    scored.merges.clear();
    let mut with_bytes = unigram.clone();
    with_bytes.scores.resize(scored.tokens.len(), -0.5);
    [
        (&bert, &word_piece),
        (&plain, &unigram),
        (&scored, &with_bytes),
        (&merges, &characters),
        (&bytes, &characters),
        (&composed, &nfc),
    ]
    .map(|(parts, extension)| write_extended_tokenizer(parts, extension).unwrap())
    .to_vec()
}

/// As `exercise`, where decoding doesn't give the text back.
fn exercise_extended(section: &[u8]) -> bool {
    let Ok(view) = TokenizerView::parse(section) else { return false };
    let tokenizer = Tokenizer::new(view);
    let text = "ab aab\u{2581}b <end>\u{e9}e\u{301}\u{323} <0x41>\u{4e2d}AB\n";
    let mut out = vec![0; tokenizer.max_tokens(text.len())];
    let tokens = tokenizer.encode(text, true, &mut out).unwrap();
    assert!(out[..tokens].iter().all(|&id| view.token_bytes(id).is_some()));
    let mut encoder = tokenizer.encoder(text, true);
    let mut pieces = Vec::new();
    while encoder.room_needed() > 0 {
        let mut room = vec![0; encoder.room_needed()];
        let count = encoder.next_tokens(&mut room).unwrap();
        pieces.extend_from_slice(&room[..count]);
    }
    assert_eq!(pieces, out[..tokens]);
    tokenizer.decode(&out[..tokens], false, |_| {});
    for id in (0..view.vocabulary()).chain([u32::MAX]) {
        tokenizer.decode(&[id, id], tokenizer.is_special(id), |_| {});
    }
    true
}

#[test]
fn damaged_sections_of_every_model_are_refused_or_harmless() {
    let (mut refused, mut harmless) = (0, 0);
    for section in extended_sections() {
        assert!(exercise_extended(&section));
        for length in 0..section.len() {
            let mut cut = section[..length].to_vec();
            if length >= 8 {
                cut[4..8].copy_from_slice(&(length as u32).to_le_bytes());
            }
            assert!(!exercise_extended(&cut), "{length} bytes");
        }
        let mut changed = section.clone();
        for place in 0..section.len() {
            for bit in 0..8 {
                changed[place] = section[place] ^ 1 << bit;
                if exercise_extended(&changed) { harmless += 1 } else { refused += 1 }
            }
            changed[place] = section[place];
        }
    }
    // Other scores, merges and contents make other tokenizers, not broken ones.
    assert!(refused > harmless && harmless > 0, "{refused} refused, {harmless} harmless");
}

/// What looks like a special token is one where that is allowed, and text elsewhere, however it is cut.
#[test]
fn special_tokens_are_read_within_stretches_alone() {
    let section = &small_sections()[0];
    let tokenizer = Tokenizer::new(TokenizerView::parse(section).unwrap());
    let encode = |text: &str, special: Special<'_>| {
        let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
        let count = tokenizer.encode_where(text, special, &mut tokens).unwrap();
        tokens.truncate(count);
        tokens
    };
    let text = "<end>a<end>b<end>";
    let every = encode(text, Special::Everywhere);
    let nowhere = encode(text, Special::Nowhere);
    let special = |tokens: &[u32]| tokens.iter().filter(|&&token| tokenizer.is_special(token)).count();
    assert_eq!((special(&every), special(&nowhere)), (3, 0));
    assert_eq!(encode(text, Special::Within(&[0..10, 0..17])), every);
    assert_eq!(encode(text, Special::Within(&[])), nowhere);
    let outer = encode(text, Special::Within(&[0..5, 12..17]));
    assert_eq!(special(&outer), 2);
    assert!(tokenizer.is_special(outer[0]) && outer.last().is_some_and(|&last| tokenizer.is_special(last)));
    // One that a stretch holds in part is none.
    assert_eq!(special(&encode(text, Special::Within(&[0..4, 7..17]))), 1);
}
