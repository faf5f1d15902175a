//! Conversations: messages to the tokens that the model was trained to go on with.

use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rescomp_formats::chat_template::{ChatTemplate, Piece};
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::chat::{Conversation, Part, Turn, fill};
use rescomp_runtime::date::Date;
use rescomp_runtime::tokenizer::{Special, Tokenizer};

use crate::error::Error;

/// Why a container has no conversations.
pub(crate) const NO_TEMPLATE: &str =
    "the container has no chat template: expected a model that was packed with one";

/// A message and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedTurn {
    pub(crate) user: String,
    pub(crate) answer: String,
}

/// A model's chat template with its tokenizer.
pub(crate) struct ChatModel<'a> {
    template: ChatTemplate<'a>,
    tokenizer: Tokenizer<'a>,
    end_tokens: Vec<u32>,
    stops: Vec<String>,
    /// The date that the template may name; the clock's where there is none.
    date: Option<Date>,
}

impl<'a> ChatModel<'a> {
    /// Of a container that has a template, for one conversation: its date stays what it is now.
    ///
    /// # Errors
    /// `Exit::Input` where it has none.
    pub(crate) fn new(
        path: &Path,
        container: &CheckedContainer<'a>,
        date: Option<Date>,
    ) -> Result<ChatModel<'a>, Error> {
        let date = date.unwrap_or_else(today);
        ChatModel::of(container, Some(date)).ok_or_else(|| Error::input(path, NO_TEMPLATE))
    }

    /// Of a container; `None` where it has no template.
    pub(crate) fn of(container: &CheckedContainer<'a>, date: Option<Date>) -> Option<ChatModel<'a>> {
        let template = container.chat_template()?;
        let tokenizer = Tokenizer::new(container.tokenizer()?);
        let mut end_tokens = container.manifest().spec.end_tokens.to_vec();
        let mut stops = Vec::new();
        // What the template puts behind an answer is what the model was trained to write there: a token, or a text.
        match first_special(&tokenizer, template.next) {
            Some(token) if !end_tokens.contains(&token) => end_tokens.push(token),
            Some(_) => {}
            // Up to a date, which is another one tomorrow.
            None => {
                let text = template.pieces(template.next).next();
                let text = text.map(|piece| if let Piece::Text(text) = piece { text.trim_end() } else { "" });
                stops.extend(text.filter(|text| !text.is_empty()).map(str::to_owned));
            }
        }
        Some(ChatModel { template, tokenizer, end_tokens, stops, date })
    }

    /// Tokens that end an answer.
    pub(crate) fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Texts that end an answer.
    pub(crate) fn stops(&self) -> &[String] {
        &self.stops
    }

    /// The tokens of a conversation, up to where the answer to `user` begins.
    ///
    /// The text is encoded whole, as the reference does; but only where it is the template's are special tokens read as such, so that no message
    /// can end itself and speak for somebody else.
    ///
    /// # Errors
    /// Says in words what does not go.
    pub(crate) fn tokens(
        &self,
        system: Option<&str>,
        turns: &[OwnedTurn],
        user: &str,
    ) -> Result<Vec<u32>, String> {
        let turns: Vec<Turn<'_>> =
            turns.iter().map(|turn| Turn { user: &turn.user, answer: &turn.answer }).collect();
        let date = Some(self.date.unwrap_or_else(today));
        let conversation = Conversation { system, turns: &turns, user, date };
        let (mut text, mut template): (String, Vec<Range<usize>>) = (String::new(), Vec::new());
        fill(&self.template, &conversation, |part| {
            let start = text.len();
            text.push_str(part.text());
            if let Part::Template(_) = part {
                match template.last_mut() {
                    // The template's texts around a date are one.
                    Some(last) if last.end == start => last.end = text.len(),
                    _ => template.push(start..text.len()),
                }
            }
        })
        .map_err(|error| error.to_string())?;
        let tokens = encode(&self.tokenizer, &text, Special::Within(&template))?;
        if tokens.is_empty() {
            return Err("expected a message, found nothing".to_owned());
        }
        Ok(tokens)
    }
}

/// The clock's date, in UTC; a clock that is before 1970 says its first day.
fn today() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::of_unix_seconds(since.as_secs())
}

/// All tokens of a text.
///
/// # Errors
/// Says in words why there are none.
pub(crate) fn encode(
    tokenizer: &Tokenizer<'_>,
    text: &str,
    special: Special<'_>,
) -> Result<Vec<u32>, String> {
    let mut tokens = vec![0; tokenizer.max_tokens(text.len())];
    let count = tokenizer.encode_where(text, special, &mut tokens).map_err(|error| error.to_string())?;
    tokens.truncate(count);
    Ok(tokens)
}

/// The special token with which a text begins, but for white space.
fn first_special(tokenizer: &Tokenizer<'_>, text: &str) -> Option<u32> {
    let tokens = encode(tokenizer, text, Special::Everywhere).ok()?;
    let blank = |token: &u32| {
        let bytes = tokenizer.token_bytes(*token).unwrap_or_default();
        !tokenizer.is_special(*token) && bytes.iter().all(u8::is_ascii_whitespace)
    };
    tokens.into_iter().find(|token| !blank(token)).filter(|&token| tokenizer.is_special(token))
}
