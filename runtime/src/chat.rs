//! Filling a chat template: a conversation becomes the text that the model was trained to go on with.
//!
//! The text comes in parts, and each says whether it is the template's: only there are special tokens read as such
//! ([`crate::tokenizer::Special::Within`]). What a user writes stays text, whatever it looks like.

use core::fmt;

use rescomp_formats::chat_template::ChatTemplate;

/// A message and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn<'t> {
    /// What the user wrote.
    pub user: &'t str,
    /// What the model answered.
    pub answer: &'t str,
}

/// A conversation up to a message that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversation<'t> {
    /// The system message; `None` leaves what the model's template says then.
    pub system: Option<&'t str>,
    /// What was said before.
    pub turns: &'t [Turn<'t>],
    /// The message to answer.
    pub user: &'t str,
}

/// A stretch of the filled template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Of the template: special tokens in it are meant.
    Template(&'t str),
    /// Of a message: text, and nothing else.
    Message(&'t str),
}

impl<'t> Part<'t> {
    /// The text.
    pub fn text(self) -> &'t str {
        match self {
            Part::Template(text) | Part::Message(text) => text,
        }
    }
}

/// Why a conversation does not fit the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ChatError {
    /// The model takes no system message.
    NoSystem,
    /// A system message of nothing but white space: templates do not agree what that means.
    EmptySystem,
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChatError::NoSystem => {
                "the model's chat template has no system message: expected none, found one"
            }
            ChatError::EmptySystem => "the system message: expected some text, found none",
        })
    }
}

impl core::error::Error for ChatError {}

/// Hands the text of a conversation to `sink`, part by part.
///
/// # Errors
/// [`ChatError`].
pub fn fill<'t>(
    template: &ChatTemplate<'t>,
    conversation: &Conversation<'t>,
    mut sink: impl FnMut(Part<'t>),
) -> Result<(), ChatError> {
    let trimmed = template.trimmed;
    match conversation.system {
        None => sink(Part::Template(template.first)),
        Some(system) => {
            let texts = template.system.ok_or(ChatError::NoSystem)?;
            if trim(system).is_empty() {
                return Err(ChatError::EmptySystem);
            }
            sink(Part::Template(texts.before));
            sink(Part::Message(trim_if(trimmed.system, system)));
            sink(Part::Template(texts.after));
        }
    }
    for turn in conversation.turns {
        sink(Part::Message(trim_if(trimmed.user, turn.user)));
        sink(Part::Template(template.answered));
        let answer = if template.drops_thoughts { without_thoughts(turn.answer) } else { turn.answer };
        sink(Part::Message(trim_if(trimmed.answer, answer)));
        sink(Part::Template(template.next));
    }
    sink(Part::Message(trim_if(trimmed.user, conversation.user)));
    sink(Part::Template(template.open));
    Ok(())
}

/// What follows the thoughts of an answer.
fn without_thoughts(answer: &str) -> &str {
    match answer.rsplit_once("</think>") {
        Some((_, answer)) => answer.trim_start_matches('\n'),
        None => answer,
    }
}

fn trim_if(trims: bool, text: &str) -> &str {
    if trims { trim(text) } else { text }
}

/// A text without white space at its ends, as templates understand it: what Unicode calls white space, and the four separators of
/// ASCII, which Python counts as such.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rescomp_formats::chat_template::{SystemTexts, Trimmed};
    use std::string::String;
    use std::vec::Vec;

    const TEMPLATE: ChatTemplate<'_> = ChatTemplate {
        system: Some(SystemTexts { before: "<S>", after: "</S><U>" }),
        first: "<U>",
        open: "</U><A>",
        answered: "</U><B>",
        next: "</A><U>",
        trimmed: Trimmed { system: false, user: true, answer: false },
        drops_thoughts: false,
    };

    fn text(template: &ChatTemplate<'_>, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        let mut text = String::new();
        fill(template, conversation, |part| text.push_str(part.text()))?;
        Ok(text)
    }

    #[test]
    fn messages_stand_between_the_templates_texts() {
        let turns = [Turn { user: " a\u{1c}", answer: " b " }];
        let conversation = Conversation { system: Some(" s "), turns: &turns, user: "\nc\u{a0}" };
        assert_eq!(text(&TEMPLATE, &conversation).as_deref(), Ok("<S> s </S><U>a</U><B> b </A><U>c</U><A>"));
        let bare = Conversation { system: None, turns: &[], user: "c" };
        assert_eq!(text(&TEMPLATE, &bare).as_deref(), Ok("<U>c</U><A>"));
        let mut messages = Vec::new();
        let all = fill(&TEMPLATE, &conversation, |part| {
            if let Part::Message(text) = part {
                messages.push(text);
            }
        });
        assert_eq!((all, messages), (Ok(()), std::vec![" s ", "a", " b ", "c"]));
    }

    #[test]
    fn thoughts_are_dropped_where_the_template_drops_them() {
        let turns = [Turn { user: "a", answer: "<think>x</think>y</think>\n\n z" }];
        let conversation = Conversation { system: None, turns: &turns, user: "</think>c" };
        let dropping = ChatTemplate { drops_thoughts: true, ..TEMPLATE };
        assert_eq!(text(&dropping, &conversation).as_deref(), Ok("<U>a</U><B> z</A><U></think>c</U><A>"));
    }

    #[test]
    fn a_system_message_that_has_no_place_is_refused() {
        let conversation = Conversation { system: Some("s"), turns: &[], user: "c" };
        let without = ChatTemplate { system: None, ..TEMPLATE };
        assert_eq!(text(&without, &conversation), Err(ChatError::NoSystem));
        let empty = Conversation { system: Some(" \n"), ..conversation };
        assert_eq!(text(&TEMPLATE, &empty), Err(ChatError::EmptySystem));
    }
}
