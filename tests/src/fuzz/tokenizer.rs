//! Tokenizer sections, with a text to encode and decode.

use super::Outcome;
use rescomp_formats::tokenizer::{Model, Normalizer, TokenizerView};
use rescomp_runtime::tokenizer::Tokenizer;

/// The text of the seeds.
#[cfg(feature = "host")]
pub(super) const TEXT: &[u8] = "the <|end|> he'll 12  \u{e4}\u{1f600}\n3.".as_bytes();

/// The input: four bytes of length, the section, the text.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerInput<'a> {
    /// The section.
    pub section: &'a [u8],
    /// The text; what is not UTF-8 of it is replaced.
    pub text: &'a [u8],
}

impl<'a> TokenizerInput<'a> {
    /// Cuts an input.
    pub fn of(input: &'a [u8]) -> TokenizerInput<'a> {
        let (length, rest) = input
            .split_first_chunk()
            .map_or((0, input), |(length, rest)| (u32::from_le_bytes(*length) as usize, rest));
        let (section, text) = rest.split_at(length.min(rest.len()));
        TokenizerInput { section, text }
    }

    /// The input of these parts.
    pub fn bytes(&self) -> Vec<u8> {
        [&(self.section.len() as u32).to_le_bytes()[..], self.section, self.text].concat()
    }
}

/// Encodes the text whole and in pieces, and decodes it; decodes ids that are the text's bytes.
///
/// # Panics
/// Where decoding does not give the text back (with byte-level BPE), or pieces give other tokens than the whole.
pub fn tokenizer(input: &[u8]) -> Outcome {
    let TokenizerInput { section, text: bytes } = TokenizerInput::of(input);
    let Ok(view) = TokenizerView::parse(section) else { return Outcome::Refused };
    let tokenizer = Tokenizer::new(view);
    let text = String::from_utf8_lossy(bytes);
    let decoded = |tokens: &[u32]| {
        let mut text = String::new();
        tokenizer.decode(tokens, false, |part| text.push_str(part));
        text
    };
    for allow_special in [false, true] {
        let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
        let count = tokenizer.encode(&text, allow_special, &mut tokens).expect("room for every text");
        let tokens = &tokens[..count];
        assert!(tokens.iter().all(|&token| token < view.vocabulary()));
        let exact = view.model() == Model::ByteLevelBpe
            && view.normalizer() == Normalizer::None
            && (0..=u8::MAX).all(|byte| view.byte_token(byte).is_some());
        if !exact {
            // What is unknown, or normalized, doesn't come back.
            decoded(tokens);
        } else if view.add_prefix_space() {
            // Each stretch between added tokens may have got a space.
            let without_spaces = |text: &str| text.replace(' ', "");
            assert_eq!(without_spaces(&decoded(tokens)), without_spaces(&text));
        } else {
            assert_eq!(decoded(tokens), text);
        }
        let mut encoder = tokenizer.encoder(&text, allow_special);
        let (mut pieces, mut room) = (Vec::new(), vec![0; 1]);
        loop {
            room.resize(encoder.room_needed().max(1), 0);
            let before = encoder.text_bytes();
            match encoder.next_tokens(&mut room) {
                Ok(0) => break,
                Ok(count) => pieces.extend_from_slice(&room[..count]),
                // Behind text that has no tokens, the next pre-token needs more.
                Err(error) => assert!(encoder.text_bytes() > before, "{error}: as much room as is needed"),
            }
        }
        assert_eq!(pieces, tokens);
    }
    let ids: Vec<u32> =
        bytes.chunks(2).map(|pair| pair.iter().fold(0, |id, &byte| id << 8 | u32::from(byte))).collect();
    tokenizer.decode(&ids, true, |_| ());
    for id in ids {
        let _ = (view.is_special(id), view.merge(id, id / 2), view.token_bytes(id));
    }
    Outcome::Accepted
}
