//! What the chat template of the fixture makes of messages, by itself: the tokens that `chat` and `serve` must run.

use crate::fixture::{TEMPLATE, continuation};

/// The special tokens of the fixture.
const BEGIN: u32 = 257;
const END: u32 = 258;

/// The tokens of a text in which nothing is special.
pub(crate) fn plain(text: &str) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"he") {
            tokens.push(256);
            rest = after;
        } else {
            tokens.push(byte.into());
            rest = after;
        }
    }
    tokens
}

/// The tokens of one of the template's texts.
fn template(text: &str) -> Vec<u32> {
    let (special, rest) = match text.strip_prefix("<begin>") {
        Some(rest) => (BEGIN, rest),
        None => (END, text.strip_prefix("<end>").expect("it begins with a special token")),
    };
    [vec![special], plain(rest)].concat()
}

/// The tokens of a conversation up to its next answer.
pub(crate) fn conversation(system: Option<&str>, turns: &[(&str, &str)], user: &str) -> Vec<u32> {
    let mut tokens = match system {
        None => template(TEMPLATE.first),
        Some(system) => {
            let texts = TEMPLATE.system.expect("it has one");
            [template(texts.before), plain(system), template(texts.after)].concat()
        }
    };
    for (user, answer) in turns {
        tokens.extend(
            [plain(user), template(TEMPLATE.answered), plain(answer), template(TEMPLATE.next)].concat(),
        );
    }
    [tokens, plain(user), template(TEMPLATE.open)].concat()
}

/// The tokens of a first message where the template names this date in front of it.
pub(crate) fn dated(date: &str, user: &str) -> Vec<u32> {
    [template(&format!("<begin>{date} u:")), plain(user), template(TEMPLATE.open)].concat()
}

/// The text of the most likely answer: it ends at the token that the template puts behind answers.
pub(crate) fn answer(file: &[u8], tokens: &[u32], count: usize) -> String {
    let answer = continuation(file, tokens, count);
    let bytes: Vec<u8> = answer
        .iter()
        .take_while(|&&token| token != END)
        .flat_map(|&token| match token {
            0..256 => vec![token as u8],
            256 => b"he".to_vec(),
            _ => Vec::new(),
        })
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
