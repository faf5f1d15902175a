//! A Rust source file split into its code and its comments, so that a rule about code is not tripped by a comment or a
//! string, nor one about comments by code.

/// A source file; line `i` of `code` and of `comments` is line `i` of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// The code with comments and the contents of literals replaced by spaces.
    pub(crate) code: Vec<String>,
    /// The comments, everything else replaced by spaces.
    pub(crate) comments: Vec<String>,
}

/// What the next character belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// Nested so deep.
    BlockComment(usize),
    /// A string that ends at a quote outside an escape.
    Text,
    /// A raw string that ends at a quote and so many hashes.
    RawText(usize),
}

impl Source {
    /// Splits `text`. Total: text that is not Rust is split somehow, and never panics.
    pub(crate) fn new(text: &str) -> Source {
        let characters: Vec<char> = text.chars().collect();
        let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
        let (mut code, mut comments) = (String::new(), String::new());
        let mut state = State::Code;
        let mut index = 0;
        while index < characters.len() {
            // How many characters belong together, and whether they are code or comment; literals are neither.
            let (length, is_code, is_comment, next) = match state {
                State::Code if at(index) == '/' && at(index + 1) == '/' => {
                    (2, false, true, State::LineComment)
                }
                State::Code if at(index) == '/' && at(index + 1) == '*' => {
                    (2, false, true, State::BlockComment(1))
                }
                State::Code if at(index) == '"' => (1, true, false, State::Text),
                State::Code => match raw_string(&characters, index) {
                    Some((length, hashes)) => (length, true, false, State::RawText(hashes)),
                    None => (character_literal(&characters, index).unwrap_or(1), true, false, State::Code),
                },
                State::LineComment if at(index) == '\n' => (1, false, true, State::Code),
                State::LineComment => (1, false, true, State::LineComment),
                State::BlockComment(depth) if at(index) == '/' && at(index + 1) == '*' => {
                    (2, false, true, State::BlockComment(depth + 1))
                }
                State::BlockComment(depth) if at(index) == '*' && at(index + 1) == '/' => {
                    let next = if depth == 1 { State::Code } else { State::BlockComment(depth - 1) };
                    (2, false, true, next)
                }
                State::BlockComment(depth) => (1, false, true, State::BlockComment(depth)),
                State::Text if at(index) == '\\' => (2, false, false, State::Text),
                State::Text if at(index) == '"' => (1, true, false, State::Code),
                State::Text => (1, false, false, State::Text),
                State::RawText(hashes)
                    if at(index) == '"' && (1..=hashes).all(|offset| at(index + offset) == '#') =>
                {
                    (1 + hashes, true, false, State::Code)
                }
                State::RawText(hashes) => (1, false, false, State::RawText(hashes)),
            };
            // A character literal is code whose inside is blanked.
            let is_literal = state == State::Code && next == State::Code && length > 1;
            for &character in &characters[index..(index + length).min(characters.len())] {
                let keep = |wanted: bool| if wanted || character == '\n' { character } else { ' ' };
                code.push(keep(is_code && !is_literal));
                comments.push(keep(is_comment));
            }
            index += length;
            state = next;
        }
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Source { code: lines(&code), comments: lines(&comments) }
    }
}

/// Length of `r"`, `r#"`, `br"`, ... at `index`, and its number of hashes.
fn raw_string(characters: &[char], index: usize) -> Option<(usize, usize)> {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    let before = if index == 0 { '\0' } else { at(index - 1) };
    if before.is_alphanumeric() || before == '_' {
        return None;
    }
    let start = index + usize::from(matches!(at(index), 'b' | 'c'));
    if at(start) != 'r' {
        return None;
    }
    let hashes = (start + 1..).take_while(|&place| at(place) == '#').count();
    (at(start + 1 + hashes) == '"').then_some((start + 2 + hashes - index, hashes))
}

/// Length of the character literal at `index`; a lifetime is none.
fn character_literal(characters: &[char], index: usize) -> Option<usize> {
    let at = |index: usize| characters.get(index).copied().unwrap_or('\0');
    if at(index) != '\'' {
        return None;
    }
    if at(index + 1) == '\\' {
        let end = (index + 3..index + 14).find(|&place| at(place) == '\'')?;
        return Some(end + 1 - index);
    }
    (at(index + 2) == '\'' && at(index + 1) != '\'').then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new(text).code.join("\n").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn comments(text: &str) -> String {
        Source::new(text).comments.join("\n").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "let a = \"x // y \\\" z\"; // remark\n/* one /* two */ three */ let b = 1;";
        assert_eq!(code(text), "let a = \" \"; let b = 1;");
        assert_eq!(comments(text), "// remark /* one /* two */ three */");
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(code("f(r#\"a \" b // c\"#, br\"x\", hr); // d"), "f(r#\" \"#, br\" \", hr);");
        assert_eq!(code("bar\"x\""), "bar\" \"");
    }

    #[test]
    fn lifetimes_are_no_literals_and_quotes_in_literals_no_strings() {
        assert_eq!(
            code("fn f<'a>(x: &'a str) { '\"'; '\\''; '\\u{1f}'; }"),
            "fn f<'a>(x: &'a str) { ; ; ; }"
        );
        assert_eq!(code("'a: loop { break 'a; } // \"x"), "'a: loop { break 'a; }");
    }

    #[test]
    fn lines_stay_where_they_are_and_anything_is_split() {
        let source = Source::new("a\n/* b\nc */ d\n\"e\nf\" g\n");
        assert_eq!(source.code.len(), 5);
        assert!(source.code[2].contains('d') && source.code[4].contains('g'));
        for text in ["\"", "'", "/*", "r#\"", "\\", "'\\", "é'é'\"é"] {
            let _ = Source::new(text);
        }
    }
}
