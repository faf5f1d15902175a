//! The text of an answer: tokens in, whole characters out, up to a stop string.

use rescomp_runtime::tokenizer::{Decoder, Tokenizer};

use crate::stop::StopFilter;

/// The text so far, but for what is held back.
pub(crate) struct AnswerText<'a> {
    tokenizer: Tokenizer<'a>,
    decoder: Decoder<'a>,
    stops: StopFilter,
}

impl<'a> AnswerText<'a> {
    /// A text that goes on behind another where `inside`: its first space is one.
    pub(crate) fn new(tokenizer: Tokenizer<'a>, stops: &[String], inside: bool) -> AnswerText<'a> {
        let decoder = if inside { Decoder::inside(tokenizer) } else { Decoder::new(tokenizer) };
        AnswerText { tokenizer, decoder, stops: StopFilter::new(stops) }
    }

    /// The text that a token completes, and the stop string that ends it.
    pub(crate) fn push(&mut self, token: u32) -> (String, Option<String>) {
        let mut complete = String::new();
        if !self.tokenizer.is_special(token) {
            self.decoder.push(token, |text| complete.push_str(text));
        }
        let (text, stop) = self.stops.push(&complete);
        (text, stop.map(str::to_owned))
    }

    /// What was held back, where no stop string has ended the text.
    pub(crate) fn finish(mut self) -> String {
        let mut rest = String::new();
        self.decoder.finish(|text| rest.push_str(text));
        let (mut text, stop) = self.stops.push(&rest);
        if stop.is_none() {
            text.push_str(&self.stops.finish());
        }
        text
    }
}
