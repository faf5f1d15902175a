//! SentencePiece's BPE (`tokenizer.ggml.model` "llama"): tokens with scores, and no merges.
//!
//! Of all neighbours whose texts together are a token, those are merged first whose token has the highest score, the leftmost of several. So every
//! way to cut a token into two tokens is a merge, in the order of the scores. That is how transformers makes a `tokenizer.json` of such a
//! model; one is made here, in memory, and read as all others are, so that ids equal those of the folder that the file was converted from.
//!
//! It is the same only where scores decide: two tokens of one score, or a token with a character that is no token, are refused.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::super::CheckpointError;
use super::metadata::Fields;
use super::tokenizer::{ADD_SPACE, TOKENS, TYPES, element};
use crate::tokenizer_json::tokenizer_section_of;

const SCORES: &str = "tokenizer.ggml.scores";
const SPACE_SIGN: char = '\u{2581}';

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The tokens of the file.
struct Pieces<'a> {
    tokens: Vec<&'a str>,
    types: Vec<i32>,
    scores: Vec<f32>,
}

/// Makes the tokenizer section of a container.
///
/// # Errors
/// Tokens, types and scores contradict each other, do not decide what is merged, or make a tokenizer that is not supported.
pub(super) fn section(fields: &Fields<'_>, vocabulary: u32) -> Result<Vec<u8>, CheckpointError> {
    for key in ["tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.remove_extra_whitespaces"] {
        let is_false = || fields.flag(key).is_ok_and(|flag| flag == Some(false));
        if fields.keys().any(|known| known == key) && !is_false() {
            return Err(fields.unsupported(key, "no such key: it changes the text"));
        }
    }
    let pieces = Pieces::read(fields, vocabulary)?;
    let json = json(fields, &pieces)?;
    tokenizer_section_of(&json, fields.path, Some(vocabulary))
        .map_err(|cause| CheckpointError::TokenizerJson(Box::new(cause)))
}

impl<'a> Pieces<'a> {
    fn read(fields: &Fields<'a>, vocabulary: u32) -> Result<Self, CheckpointError> {
        let tokens = fields.texts(TOKENS)?.ok_or_else(|| fields.wrong(TOKENS, "an array of texts"))?;
        if tokens.is_empty() || tokens.len() > vocabulary as usize {
            return Err(fields.wrong(TOKENS, format!("1 to {vocabulary} tokens, the model's")));
        }
        let count = tokens.len();
        let types = fields.integers(TYPES)?.filter(|types| types.len() == count);
        let types = types.ok_or_else(|| fields.wrong(TYPES, format!("{count} types, one for each token")))?;
        let scores = fields.floats(SCORES)?.filter(|scores| scores.len() == count);
        let scores =
            scores.ok_or_else(|| fields.wrong(SCORES, format!("{count} scores, one for each token")))?;
        let mut seen = HashMap::with_capacity(count);
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = seen.insert(*token, id) {
                let found = format!("{token:?}, as token {first} is");
                return Err(element(fields, TOKENS, id, "a token once", found));
            }
            if !(NORMAL..=BYTE).contains(&types[id]) {
                return Err(element(fields, TYPES, id, "1 to 6", types[id]));
            }
            if !scores[id].is_finite() {
                return Err(element(fields, SCORES, id, "a finite number", scores[id]));
            }
        }
        if !types.contains(&BYTE) {
            return Err(fields.wrong(TYPES, "tokens of type 6, one for each byte"));
        }
        Ok(Self { tokens, types, scores })
    }

    fn of_type(&self, kinds: &'static [i32]) -> impl Iterator<Item = (usize, &'a str)> {
        let types = &self.types;
        self.tokens.iter().copied().enumerate().filter(move |(id, _)| kinds.contains(&types[*id]))
    }

    /// Every way to cut a token into two, the token with the highest score first; of one token's the way with the longest left part first, as
    /// transformers orders them.
    fn merges(&self, fields: &Fields<'_>) -> Result<Vec<[&'a str; 2]>, CheckpointError> {
        let normal: HashSet<&str> = self.of_type(&[NORMAL]).map(|(_, token)| token).collect();
        let mut by_score: Vec<(usize, &str)> =
            self.of_type(&[NORMAL]).filter(|(_, token)| token.chars().nth(1).is_some()).collect();
        by_score.sort_by(|(a, _), (b, _)| self.scores[*b].total_cmp(&self.scores[*a]));
        if let Some(pair) = by_score.windows(2).find(|pair| self.scores[pair[0].0] == self.scores[pair[1].0])
        {
            let ((first, _), (second, token)) = (pair[0], pair[1]);
            let found = format!("{} for {token:?}, as for token {first}", self.scores[second]);
            return Err(element(fields, SCORES, second, "a score of its own", found));
        }
        let mut merges = Vec::new();
        for (id, token) in by_score {
            if let Some(alone) =
                token.chars().find(|one| !normal.contains(one.encode_utf8(&mut [0; 4]) as &str))
            {
                let found = format!("{token:?}, of which {alone:?} is none");
                return Err(element(
                    fields,
                    TOKENS,
                    id,
                    "characters that are normal tokens themselves",
                    found,
                ));
            }
            let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let both = cuts.filter(|(left, right)| normal.contains(left) && normal.contains(right));
            let mut both: Vec<[&str; 2]> = both.map(|(left, right)| [left, right]).collect();
            both.sort_by_key(|[left, right]| {
                std::cmp::Reverse((left.chars().count(), right.chars().count()))
            });
            merges.extend(both);
        }
        Ok(merges)
    }
}

/// Phi-3's control tokens and its `</s>` take the white space behind them, which files do not say; but for these.
const PHI3_PLAIN: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

/// The `tokenizer.json` that says the same.
fn json(fields: &Fields<'_>, pieces: &Pieces<'_>) -> Result<Value, CheckpointError> {
    let vocab: Map<String, Value> = pieces
        .of_type(&[NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE])
        .map(|(id, token)| (token.to_owned(), json!(id)))
        .collect();
    let takes_space = fields.text("general.architecture")? == Some("phi3");
    let added: Vec<Value> = pieces
        .of_type(&[UNKNOWN, CONTROL, USER_DEFINED])
        .map(|(id, content)| {
            let special = pieces.types[id] != USER_DEFINED;
            let marks = pieces.types[id] == CONTROL && !PHI3_PLAIN.contains(&content) || content == "</s>";
            let strips = takes_space && marks;
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": strips,
                "normalized": false, "special": special })
        })
        .collect();
    let replace =
        |from: String, to: String| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let (space, sign) = (" ".to_owned(), SPACE_SIGN.to_string());
    let to_sign = replace(space.clone(), sign.clone());
    let mut decoders =
        vec![replace(sign.clone(), space), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    // Absent, there is one.
    let normalizer = if fields.flag(ADD_SPACE)?.unwrap_or(true) {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": sign }, to_sign] })
    } else {
        to_sign
    };
    let unknown = pieces.of_type(&[UNKNOWN]).next().map(|(_, token)| token);
    Ok(json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE",
            "unk_token": unknown,
            "fuse_unk": true,
            "byte_fallback": true,
            "vocab": vocab,
            "merges": pieces.merges(fields)?,
        },
    }))
}
