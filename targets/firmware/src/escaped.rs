//! Text in one line.

use core::fmt::{self, Write};

/// A text whose line breaks are written `\n` and `\r`, and whose backslashes are doubled, so that it stays on one line of a log.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\\' => f.write_str("\\\\"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_one_line() {
        assert_eq!(std::format!("{}", Escaped("a\nb\\n\r")), "a\\nb\\\\n\\r");
    }
}
