//! Filling a chat template: a conversation becomes the text that the model was trained to go on with.
//!
//! The text comes in parts, and each says whether it is the template's: only there are special tokens read as such
//! ([`crate::tokenizer::Special::Within`]). What a user writes stays text, whatever it looks like.

use core::fmt;

use rescomp_formats::chat_template::{ChatTemplate, Piece, SystemTexts};

use crate::date::Date;

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
    /// Today's date, where the template names it.
    pub date: Option<Date>,
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
    /// The template names the date, and nobody said it.
    NoDate,
}

impl fmt::Display for ChatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChatError::NoSystem => {
                "the model's chat template has no system message: expected none, found one"
            }
            ChatError::EmptySystem => "the system message: expected some text, found none",
            ChatError::NoDate => "the model's chat template names the date: expected today's, found none",
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
    if template.names_date && conversation.date.is_none() {
        return Err(ChatError::NoDate);
    }
    let trimmed = template.trimmed;
    let system = match conversation.system {
        None => None,
        Some(system) => {
            let texts = template.system.ok_or(ChatError::NoSystem)?;
            if trim(system).is_empty() {
                return Err(ChatError::EmptySystem);
            }
            Some((texts, trim_if(trimmed.system, system)))
        }
    };
    let mut filled = Filled { template, date: conversation.date, sink: &mut sink };
    let begins = system.is_some() && !template.system_last;
    match system {
        Some((texts, system)) if begins => filled.around(texts, system),
        _ => filled.text(template.first),
    }
    for turn in conversation.turns {
        filled.message(trim_if(trimmed.user, turn.user));
        filled.text(template.answered);
        let answer = if template.drops_thoughts { without_thoughts(turn.answer) } else { turn.answer };
        let answer = if template.drops_line_breaks { answer.trim_start_matches('\n') } else { answer };
        filled.message(trim_if(trimmed.answer, answer));
        filled.text(template.next);
    }
    if let Some((texts, system)) = system.filter(|_| !begins) {
        filled.around(texts, system);
    }
    filled.message(trim_if(trimmed.user, conversation.user));
    filled.text(template.open);
    Ok(())
}

/// A template that is being filled.
struct Filled<'s, 't, S> {
    template: &'s ChatTemplate<'t>,
    date: Option<Date>,
    sink: &'s mut S,
}

impl<'t, S: FnMut(Part<'t>)> Filled<'_, 't, S> {
    /// One of the template's texts.
    fn text(&mut self, text: &'t str) {
        for piece in self.template.pieces(text) {
            match (piece, self.date) {
                (Piece::Text(text), _) => (self.sink)(Part::Template(text)),
                (Piece::Date(format), Some(date)) => {
                    date.write(format, &mut |part| (self.sink)(Part::Template(part)));
                }
                // A template that names the date is not filled without one.
                (Piece::Date(_), None) => {}
            }
        }
    }

    fn message(&mut self, text: &'t str) {
        (self.sink)(Part::Message(text));
    }

    /// The system message with what stands around it.
    fn around(&mut self, texts: SystemTexts<'t>, system: &'t str) {
        self.text(texts.before);
        self.message(system);
        self.text(texts.after);
    }
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
    use rescomp_formats::chat_template::Trimmed;
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
        drops_line_breaks: false,
        system_last: false,
        names_date: false,
    };

    fn text(template: &ChatTemplate<'_>, conversation: &Conversation<'_>) -> Result<String, ChatError> {
        let mut text = String::new();
        fill(template, conversation, |part| text.push_str(part.text()))?;
        Ok(text)
    }

    #[test]
    fn messages_stand_between_the_templates_texts() {
        let turns = [Turn { user: " a\u{1c}", answer: " b " }];
        let conversation = Conversation { system: Some(" s "), turns: &turns, user: "\nc\u{a0}", date: None };
        assert_eq!(text(&TEMPLATE, &conversation).as_deref(), Ok("<S> s </S><U>a</U><B> b </A><U>c</U><A>"));
        let bare = Conversation { system: None, turns: &[], user: "c", date: None };
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
        let conversation = Conversation { system: None, turns: &turns, user: "</think>c", date: None };
        let dropping = ChatTemplate { drops_thoughts: true, ..TEMPLATE };
        assert_eq!(text(&dropping, &conversation).as_deref(), Ok("<U>a</U><B> z</A><U></think>c</U><A>"));
    }

    #[test]
    fn line_breaks_in_front_of_answers_are_dropped_where_the_template_drops_them() {
        let turns = [Turn { user: "\na", answer: "\n\n b\n" }];
        let conversation = Conversation { system: None, turns: &turns, user: "\nc", date: None };
        let dropping = ChatTemplate { drops_line_breaks: true, trimmed: Trimmed::default(), ..TEMPLATE };
        assert_eq!(text(&dropping, &conversation).as_deref(), Ok("<U>\na</U><B> b\n</A><U>\nc</U><A>"));
    }

    #[test]
    fn a_system_message_may_stand_in_the_last_turn() {
        let turns = [Turn { user: "a", answer: "b" }];
        let conversation = Conversation { system: Some("s"), turns: &turns, user: "c", date: None };
        let last = ChatTemplate {
            system: Some(SystemTexts { before: "", after: "\n" }),
            system_last: true,
            ..TEMPLATE
        };
        assert_eq!(text(&last, &conversation).as_deref(), Ok("<U>a</U><B>b</A><U>s\nc</U><A>"));
        assert_eq!(
            text(&last, &Conversation { turns: &[], ..conversation }).as_deref(),
            Ok("<U>s\nc</U><A>")
        );
        assert_eq!(
            text(&last, &Conversation { system: None, ..conversation }).as_deref(),
            Ok("<U>a</U><B>b</A><U>c</U><A>")
        );
    }

    #[test]
    fn a_date_is_the_template_s() {
        let date: Option<Date> = "2026-03-01".parse().ok();
        let dated = ChatTemplate { first: "<U>(\u{1}%d %b %Y\u{1})", names_date: true, ..TEMPLATE };
        let conversation = Conversation { system: None, turns: &[], user: "c\u{1}%d\u{1}", date };
        let mut template = String::new();
        fill(&dated, &conversation, |part| match part {
            Part::Template(text) => template.push_str(text),
            Part::Message(text) => assert_eq!(text, conversation.user),
        })
        .unwrap();
        assert_eq!(template, "<U>(01 Mar 2026)</U><A>");
        assert_eq!(text(&dated, &Conversation { date: None, ..conversation }), Err(ChatError::NoDate));
    }

    #[test]
    fn a_system_message_that_has_no_place_is_refused() {
        let conversation = Conversation { system: Some("s"), turns: &[], user: "c", date: None };
        let without = ChatTemplate { system: None, ..TEMPLATE };
        assert_eq!(text(&without, &conversation), Err(ChatError::NoSystem));
        let empty = Conversation { system: Some(" \n"), ..conversation };
        assert_eq!(text(&TEMPLATE, &empty), Err(ChatError::EmptySystem));
    }
}
