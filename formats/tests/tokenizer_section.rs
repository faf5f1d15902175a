//! What the tokenizer section keeps, and what its reader refuses.
#![cfg(feature = "write")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in tests, and these are their helpers")]

use rescomp_formats::tokenizer::{
    AddedFlags, AddedToken, BertNormalizer, Decoding, Model, NO_TOKEN, Normalizer, PreTokenizer, SpacePrefix,
    TokenizerExtension, TokenizerParts, TokenizerProblem, TokenizerView, TokenizerWriteError,
    byte_alphabet_position, write_extended_tokenizer, write_tokenizer,
};

/// The bytes in the order of the byte alphabet from id 1, then `merged`; token 0 is added and special.
fn parts(merged: &[(&str, &str)]) -> TokenizerParts {
    let mut tokens = vec![Vec::new(); 257];
    tokens[0] = b"<end>".to_vec();
    let mut byte_tokens = [0; 256];
    for byte in 0..=255_u8 {
        let id = 1 + u32::from(byte_alphabet_position(byte));
        byte_tokens[usize::from(byte)] = id;
        tokens[id as usize] = vec![byte];
    }
    let mut merges = Vec::new();
    for (left, right) in merged {
        let id = |text: &str| tokens.iter().position(|token| token == text.as_bytes()).unwrap() as u32;
        let (left_id, right_id) = (id(left), id(right));
        let result = format!("{left}{right}").into_bytes();
        let result_id = tokens.iter().position(|token| *token == result).unwrap_or(tokens.len());
        if result_id == tokens.len() {
            tokens.push(result);
        }
        merges.push([left_id, right_id, result_id as u32]);
    }
    TokenizerParts {
        tokens,
        byte_tokens,
        merges,
        added_tokens: vec![AddedFlags::plain(0, true, false)],
        pre_tokenizer: PreTokenizer::Gpt2,
        add_prefix_space: false,
        ignore_merges: false,
    }
}

fn check_round_trip(parts: &TokenizerParts) -> usize {
    let section = write_tokenizer(parts).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!(view.vocabulary() as usize, parts.tokens.len());
    for (id, bytes) in (0..).zip(&parts.tokens) {
        assert_eq!(view.token_bytes(id), (!bytes.is_empty()).then_some(bytes.as_slice()), "token {id}");
    }
    assert_eq!(view.token_bytes(view.vocabulary()), None);
    assert_eq!(view.token_bytes(u32::MAX), None);
    for byte in 0..=255_u8 {
        assert_eq!(view.byte_token(byte), Some(parts.byte_tokens[usize::from(byte)]));
    }
    let multi = (0..view.vocabulary()).filter(|&id| parts.tokens[id as usize].len() > 1).collect::<Vec<_>>();
    let some = (60..70).chain(multi);
    for left in some.clone() {
        for right in some.clone().chain([u32::MAX]) {
            let rank = parts.merges.iter().position(|ids| ids[..2] == [left, right]);
            assert_eq!(view.merge(left, right), rank.map(|rank| rank as u32), "{left} {right}");
        }
    }
    for (rank, ids) in parts.merges.iter().enumerate() {
        assert_eq!(view.merge(ids[0], ids[1]), Some(rank as u32));
        assert_eq!(view.merge_result(rank as u32), Some(ids[2]));
        assert_eq!(view.token_of_bytes(&parts.tokens[ids[2] as usize]), Some(ids[2]));
    }
    assert_eq!(view.merge_result(view.merges()), None);
    for absent in [&b"zz"[..], b"", b"<end>", b"\xff\xff", b"\0\0"] {
        assert_eq!(view.token_of_bytes(absent), None);
    }
    let added: Vec<_> = (0..view.added_tokens()).map(|index| view.added_token(index).unwrap()).collect();
    let flags = |t: &AddedToken<'_>| AddedFlags {
        id: t.id,
        special: t.special,
        normalized: t.normalized,
        left_strip: t.left_strip,
        right_strip: t.right_strip,
    };
    assert_eq!(added.iter().map(flags).collect::<Vec<_>>(), parts.added_tokens);
    for id in 0..view.vocabulary() {
        let special = parts.added_tokens.iter().any(|token| token.id == id && token.special);
        assert_eq!(view.is_special(id), special);
    }
    section.len()
}

#[test]
fn keeps_everything() {
    let merges = [("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc"), ("abc", "abc"), ("a", "a")];
    // `abc` is made twice: the results are explicit.
    let bytes = check_round_trip(&parts(&merges));
    // head, block starts, lengths, bytes, results, splits, order, added
    assert_eq!(bytes, 32 + 4 * 9 + 262 + (5 + 256 + 2 + 3 + 2 + 6 + 2) + 6 * 2 + 6 + 6 * 2 + 3);
    // Without it they are implied.
    assert_eq!(check_round_trip(&parts(&merges[..3])), 32 + 4 * 9 + 260 + (5 + 256 + 7) + 3 + 3 * 2 + 3);

    // Byte tokens in another order, a hole, more added tokens.
    let mut other = parts(&merges);
    let (a, b) = (other.byte_tokens[b'!' as usize] as usize, other.byte_tokens[b'"' as usize] as usize);
    other.tokens.swap(a, b);
    other.byte_tokens.swap(usize::from(b'!'), usize::from(b'"'));
    other.tokens.push(Vec::new());
    other.tokens.push("<user>\u{e9}".into());
    let id = other.tokens.len() as u32 - 1;
    other.added_tokens.push(AddedFlags { left_strip: true, ..AddedFlags::plain(id, false, true) });
    other.added_tokens[0].right_strip = true;
    check_round_trip(&other);
}

#[test]
fn refuses_by_name() {
    let section = write_tokenizer(&parts(&[("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")])).unwrap();
    let refusal = |offset: usize, bytes: &[u8]| {
        let mut section = section.clone();
        section[offset..offset + bytes.len()].copy_from_slice(bytes);
        let error = TokenizerView::parse(&section).unwrap_err();
        (error.problem, error.offset_bytes, error.expected, error.found)
    };
    let lengths = 32 + 4 * 9;
    let bytes = lengths + 260;
    let results = bytes + 5 + 256 + 2 + 3 + 2;
    let splits = results + 4 * 2;
    let order = splits + 4;
    let added = order + 4 * 2;
    assert_eq!(section.len(), added + 3);
    let length = section.len() as u64;

    assert_eq!(refusal(0, &[3]), (TokenizerProblem::Version, 0, 2, 3));
    assert_eq!(refusal(1, &[0x81]), (TokenizerProblem::Reserved, 1, 0, 0x80));
    assert_eq!(refusal(3, &[9]), (TokenizerProblem::Reserved, 3, 0, 9));
    assert_eq!(refusal(2, &[5]), (TokenizerProblem::UnsupportedPreTokenizer, 2, 0, 5));
    assert_eq!(refusal(2, &[7]), (TokenizerProblem::UnknownPreTokenizer, 2, 6, 7));
    assert_eq!(refusal(1, &[1 | 4, 3]), (TokenizerProblem::UnsupportedPrefixSpace, 1, 0, 4));
    assert_eq!(refusal(1, &[1 | 4, 2]), (TokenizerProblem::UnsupportedPrefixSpace, 1, 0, 4));
    assert_eq!(refusal(1, &[1 | 4 | 8]), (TokenizerProblem::UnsupportedPrefixSpace, 1, 0, 4));
    assert_eq!(refusal(4, &[0, 0]), (TokenizerProblem::Length, 4, length, 0));
    assert_eq!(refusal(8, &[0; 4]), (TokenizerProblem::NoTokens, 8, 1, 0));
    assert_eq!(refusal(20, &[1]), (TokenizerProblem::Reserved, 20, 0, 1));
    assert_eq!(refusal(8, &[255; 4]).0, TokenizerProblem::Arrays);
    assert_eq!(refusal(16, &[255; 4]).0, TokenizerProblem::Arrays);
    assert_eq!(refusal(28, &[0; 4]), (TokenizerProblem::Arrays, added, 0, 3));
    assert_eq!(refusal(36, &[7]), (TokenizerProblem::BlockStart, 36, 36, 7));
    assert_eq!(refusal(lengths + 259, &[4]), (TokenizerProblem::TokenLengths, lengths, 268, 270));
    assert_eq!(refusal(24, &[2]), (TokenizerProblem::ByteToken, 24, 0, 1));
    assert_eq!(refusal(bytes + 5, b"x"), (TokenizerProblem::ByteToken, 24, 33, u64::from(b'x')));
    assert_eq!(refusal(results, &[4, 1]), (TokenizerProblem::MergeResult, results, 259, 260));
    assert_eq!(refusal(splits, &[2]), (TokenizerProblem::MergeSplit, splits, 1, 2));
    assert_eq!(refusal(splits, &[0]), (TokenizerProblem::MergeSplit, splits, 1, 0));
    assert_eq!(refusal(order, &[4]), (TokenizerProblem::MergeRank, order, 3, 4));
    assert_eq!(refusal(order, &[3]).0, TokenizerProblem::MergeOrder);
    assert_eq!(refusal(added, &[4, 1]), (TokenizerProblem::AddedId, added, 0, 260));
    assert_eq!(refusal(added, &[255]), (TokenizerProblem::AddedContent, added, 1, 0));
    assert_eq!(refusal(added + 2, &[5]), (TokenizerProblem::UnsupportedSingleWord, added + 2, 0, 4));
    assert_eq!(refusal(added + 2, &[13]), (TokenizerProblem::UnsupportedSingleWord, added + 2, 0, 4));
    assert_eq!(refusal(added + 2, &[32]), (TokenizerProblem::AddedFlags, added + 2, 0, 32));
    let error = TokenizerView::parse(&section[..7]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokenizer section, byte 0: the head is cut short (bytes): expected 32, found 7"
    );
}

#[test]
fn refuses_to_write_what_contradicts_itself() {
    let good = parts(&[("a", "b"), ("ab", "c")]);
    let refusal = |edit: &dyn Fn(&mut TokenizerParts)| {
        let mut parts = good.clone();
        edit(&mut parts);
        write_tokenizer(&parts).unwrap_err()
    };
    let first = good.merges[0];
    assert_eq!(
        refusal(&|parts| parts.merges.push(first)),
        TokenizerWriteError::RepeatedMerge { rank: 2, earlier: 0 }
    );
    let wrong = [first[1], first[0], first[2]];
    assert_eq!(refusal(&|parts| parts.merges[0] = wrong), TokenizerWriteError::Merge { rank: 0, ids: wrong });
    assert_eq!(
        refusal(&|parts| parts.tokens.push(vec![b'x'; 256])),
        TokenizerWriteError::TokenLength { id: 259, length_bytes: 256 }
    );
    let format = |error| match error {
        TokenizerWriteError::Format(error) => error.problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(format(refusal(&|parts| parts.byte_tokens[7] = 300)), TokenizerProblem::ByteToken);
    assert_eq!(
        format(refusal(&|parts| parts.added_tokens.push(AddedFlags::plain(0, true, true)))),
        TokenizerProblem::AddedId
    );
    let bert = refusal(&|parts| parts.pre_tokenizer = PreTokenizer::Bert);
    assert_eq!(format(bert), TokenizerProblem::UnsupportedPreTokenizer);
}

/// A Unigram tokenizer of five tokens and no bytes'.
fn unigram() -> (TokenizerParts, TokenizerExtension) {
    let parts = TokenizerParts {
        tokens: ["<unk>", " ", "ab", "b", "a"].map(|token| token.as_bytes().to_vec()).to_vec(),
        byte_tokens: [NO_TOKEN; 256],
        merges: Vec::new(),
        added_tokens: vec![AddedFlags::plain(0, true, false)],
        pre_tokenizer: PreTokenizer::Spaces,
        add_prefix_space: false,
        ignore_merges: false,
    };
    let extension = TokenizerExtension {
        model: Model::Unigram,
        normalizer: Normalizer::Spaces(SpacePrefix::UnlessThere),
        decoding: Decoding { strip_first_token: true, ..Decoding::default() },
        unknown: Some(0),
        ordered: vec![0, 1, 2, 3, 4],
        scores: vec![0.0, -1.5, -2.25, -3.0, -4.0],
        unknown_score: -14.0,
        tokens_before: vec![3],
        tokens_after: vec![4, 0],
        ..TokenizerExtension::default()
    };
    (parts, extension)
}

#[test]
fn keeps_what_the_larger_head_adds() {
    let (parts, extension) = unigram();
    let section = write_extended_tokenizer(&parts, &extension).unwrap();
    // head, a block start, lengths, bytes, added, order, scores of 4 bytes, templates
    assert_eq!(section.len(), 64 + 4 + 5 + 10 + 3 + 5 * 2 + 5 * 4 + 3 * 2);
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!((view.model(), view.pre_tokenizer()), (Model::Unigram, PreTokenizer::Spaces));
    assert_eq!((view.normalizer(), view.decoding()), (extension.normalizer, extension.decoding));
    assert_eq!((view.unknown_token(), view.unknown_score()), (Some(0), -14.0));
    assert!(!view.has_byte_tokens() && view.byte_token(b'a').is_none() && view.words_are_separate());
    let ordered: Vec<_> =
        (0..5).map(|place| (view.ordered_token(place), view.ordered_score(place))).collect();
    let expected = [(1, -1.5), (0, 0.0), (4, -4.0), (2, -2.25), (3, -3.0)];
    assert_eq!(ordered, expected.map(|(id, score)| (Some(id), Some(score))));
    assert_eq!(view.ordered_token_of(*b"ab"), Some((2, 3)));
    assert_eq!(view.ordered_token_of(*b"abb"), None);
    assert_eq!(view.ordered_token_of(*b"<un"), None);
    assert_eq!(view.ordered_token_of([]), None);
    assert_eq!(view.tokens_before().collect::<Vec<_>>(), [3]);
    assert_eq!(view.tokens_after().collect::<Vec<_>>(), [4, 0]);
    // A score that binary32 does not hold makes all of them wide.
    let mut wide = extension.clone();
    wide.scores[4] = -0.1;
    let longer = write_extended_tokenizer(&parts, &wide).unwrap();
    assert_eq!(longer.len(), section.len() + 5 * 4);
    assert_eq!(TokenizerView::parse(&longer).unwrap().ordered_score(2), Some(-0.1));
    let all = BertNormalizer { clean_text: true, space_chinese: true, strip_accents: true, lowercase: true };
    assert_eq!(Normalizer::Bert(all).code(), [2, 15]);
}

#[test]
fn refuses_by_name_behind_the_larger_head() {
    let (parts, extension) = unigram();
    let section = write_extended_tokenizer(&parts, &extension).unwrap();
    let refusal = |offset: usize, bytes: &[u8]| {
        let mut section = section.clone();
        section[offset..offset + bytes.len()].copy_from_slice(bytes);
        let error = TokenizerView::parse(&section).unwrap_err();
        (error.problem, error.offset_bytes, error.found)
    };
    let order = 64 + 4 + 5 + 10 + 3;
    let (scores, templates) = (order + 10, order + 10 + 20);
    assert_eq!(refusal(3, &[4]), (TokenizerProblem::UnknownModel, 3, 4));
    assert_eq!(refusal(3, &[2]), (TokenizerProblem::UnsupportedPreTokenizer, 2, 5));
    assert_eq!(refusal(2, &[6, 2]), (TokenizerProblem::UnsupportedNormalizer, 32, 3));
    assert_eq!(refusal(32, &[9]), (TokenizerProblem::UnknownNormalizer, 32, 0x209));
    assert_eq!(refusal(33, &[4]), (TokenizerProblem::UnknownNormalizer, 32, 0x403));
    assert_eq!(refusal(34, &[8]), (TokenizerProblem::Reserved, 34, 8));
    assert_eq!(refusal(35, &[4]), (TokenizerProblem::Reserved, 35, 4));
    assert_eq!(refusal(35, &[1]), (TokenizerProblem::ModelFields, 35, 1));
    assert_eq!(refusal(1, &[4]), (TokenizerProblem::UnsupportedPrefixSpace, 1, 4));
    assert_eq!(refusal(1, &[8]), (TokenizerProblem::ModelFields, 1, 8));
    assert_eq!(refusal(24, &[8]), (TokenizerProblem::Reserved, 24, 8));
    assert_eq!(refusal(36, &[5]), (TokenizerProblem::UnknownToken, 36, 5));
    assert_eq!(refusal(36, &[255; 4]), (TokenizerProblem::UnknownToken, 36, 0xffff_ffff));
    assert_eq!(refusal(40, &[255; 4]).0, TokenizerProblem::Arrays);
    assert_eq!(refusal(44, &[7]), (TokenizerProblem::ModelFields, 44, 7));
    let infinite = f64::INFINITY.to_le_bytes();
    assert_eq!(refusal(48, &infinite), (TokenizerProblem::Score, 48, f64::INFINITY.to_bits()));
    assert_eq!(refusal(56, &[2]).0, TokenizerProblem::Arrays);
    assert_eq!(refusal(60, &[1]), (TokenizerProblem::Reserved, 60, 1));
    assert_eq!(refusal(order, &[5]), (TokenizerProblem::OrderedId, order, 5));
    assert_eq!(refusal(order + 2, &[1]), (TokenizerProblem::TokenOrder, order + 2, 1));
    assert_eq!(refusal(order - 4, &[0xff]).0, TokenizerProblem::OrderedContent);
    let nan = f32::NAN.to_le_bytes();
    assert_eq!(refusal(scores + 4, &nan).1, scores + 4);
    assert_eq!(refusal(templates, &[9]), (TokenizerProblem::TemplateToken, templates, 9));
    for length in 0..section.len() {
        let mut cut = section[..length].to_vec();
        if length >= 8 {
            cut[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        }
        assert!(TokenizerView::parse(&cut).is_err(), "{length} bytes");
    }
}

#[test]
fn bytes_may_be_without_a_token() {
    let mut parts = parts(&[("a", "b")]);
    parts.byte_tokens[7] = NO_TOKEN;
    let section = write_tokenizer(&parts).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!((view.byte_token(7), view.token_of_bytes(&[7])), (None, None));
    assert_eq!(view.byte_token(8), Some(parts.byte_tokens[8]));

    // With 65,536 tokens, ids are narrow and the last of them is the number that says "none".
    let last = usize::from(u16::MAX);
    parts.tokens.resize(last, Vec::new());
    parts.tokens.push(vec![9]);
    parts.byte_tokens[9] = u32::from(u16::MAX);
    let section = write_tokenizer(&parts).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!((view.byte_token(9), view.byte_token(7)), (Some(u32::from(u16::MAX)), None));

    // One more, and they are wide.
    parts.tokens.push(b"more".to_vec());
    let section = write_tokenizer(&parts).unwrap();
    let view = TokenizerView::parse(&section).unwrap();
    assert_eq!((view.byte_token(9), view.byte_token(7)), (Some(u32::from(u16::MAX)), None));
}
