//! The chat template: the texts that stand before, between and behind the messages of a conversation (docs/container.md).
//!
//! A conversation is a system message, where there is one, then a user's message and an answer in turn, and a user's message last:
//!
//! ```text
//! system SYSTEM after_system USER answered ANSWER next USER answered ANSWER next USER open
//! first                      USER answered ANSWER next USER open
//! first                      USER answered ANSWER next system SYSTEM after_system USER open       (system_last)
//! ```
//! A text may name the date: how it is written stands between two characters U+0001, as `strftime` spells it.
//! Everything that a model's template says of such conversations fits these six texts, or the host refuses to make them.

/// Most bytes of the section.
pub const MAX_CHAT_TEMPLATE_BYTES: usize = 65_536;
/// Version of the layout.
const VERSION: u8 = 1;
/// The number of texts.
const TEXTS: usize = 6;
/// Bytes before the texts: version, flags, more flags, a zero byte, the texts' lengths.
#[cfg(any(test, feature = "write"))]
const PREFIX_BYTES: usize = 4 + 4 * TEXTS;

/// The flags, by their bits.
mod flag {
    pub(super) const SYSTEM: u8 = 1;
    pub(super) const TRIM_SYSTEM: u8 = 2;
    pub(super) const TRIM_USER: u8 = 4;
    pub(super) const TRIM_ANSWER: u8 = 8;
    pub(super) const DROP_THOUGHTS: u8 = 16;
    pub(super) const SYSTEM_LAST: u8 = 32;
    pub(super) const DATE: u8 = 64;
    pub(super) const ALL: u8 = 127;
    /// Of the second byte.
    pub(super) const DROP_LINE_BREAKS: u8 = 1;
}

/// What stands before and behind the format of a date.
pub const DATE_MARK: char = '\u{1}';
/// Most bytes of the format of a date.
pub const MAX_DATE_FORMAT_BYTES: usize = 64;

/// A stretch of a template's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Itself.
    Text(&'a str),
    /// The date in this format.
    Date(&'a str),
}

/// Whether a text is the format of a date: what `strftime` calls `%d`, `%-d`, `%e`, `%m`, `%-m`, `%Y`, `%y`, `%b`, `%B`, `%a`, `%A`, `%j`, `%F`
/// and `%%`, and printable characters of ASCII. Times of the day are not among them.
pub fn is_date_format(format: &str) -> bool {
    let mut rest = format.bytes();
    while let Some(byte) = rest.next() {
        let known = match byte {
            b'%' => match rest.next() {
                Some(b'-') => matches!(rest.next(), Some(b'd' | b'm')),
                directive => {
                    let known = b"demYybBaAjF%";
                    directive.is_some_and(|directive| known.contains(&directive))
                }
            },
            other => matches!(other, b' '..=b'~'),
        };
        if !known {
            return false;
        }
    }
    (1..=MAX_DATE_FORMAT_BYTES).contains(&format.len())
}

/// Whose messages lose the white space at their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Trimmed {
    /// The system message.
    pub system: bool,
    /// The user's messages.
    pub user: bool,
    /// The answers.
    pub answer: bool,
}

/// What stands around a system message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SystemTexts<'a> {
    /// From the beginning to the system message.
    pub before: &'a str,
    /// From it to the first message of the user.
    pub after: &'a str,
}

/// A template, as it lies in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChatTemplate<'a> {
    /// Around a system message; `None` where the model takes none.
    pub system: Option<SystemTexts<'a>>,
    /// From the beginning to the user's first message, where there is no system message: the default one, if any, is part of it.
    pub first: &'a str,
    /// From the last message of the user to the answer that the model is to give.
    pub open: &'a str,
    /// From a message of the user to the answer that it got.
    pub answered: &'a str,
    /// From an answer to the next message of the user.
    pub next: &'a str,
    /// Whose messages are trimmed.
    pub trimmed: Trimmed,
    /// Of an answer that was given, only what follows the last `</think>` is repeated, without the line breaks in front of it.
    pub drops_thoughts: bool,
    /// Of an answer that was given, the line breaks in front are left out.
    pub drops_line_breaks: bool,
    /// The system message stands in front of the last message of the user, behind what stands there without one; not at the beginning.
    pub system_last: bool,
    /// Texts name the date.
    pub names_date: bool,
}

/// Why the section is refused. The offset counts from the start of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ChatTemplateError {
    /// Byte in the section.
    pub offset_bytes: usize,
    /// What was expected.
    pub expected: &'static str,
    /// What was found.
    pub found: u64,
}

impl core::fmt::Display for ChatTemplateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "byte {}: expected {}, found {}", self.offset_bytes, self.expected, self.found)
    }
}

impl core::error::Error for ChatTemplateError {}

impl<'a> ChatTemplate<'a> {
    /// Views and checks a section.
    ///
    /// # Errors
    /// [`ChatTemplateError`] with the byte that can't be.
    pub fn parse(section: &'a [u8]) -> Result<Self, ChatTemplateError> {
        let error = |offset_bytes, expected, found| ChatTemplateError { offset_bytes, expected, found };
        if section.len() > MAX_CHAT_TEMPLATE_BYTES {
            return Err(error(0, "at most 65,536 bytes", section.len() as u64));
        }
        let Some((&[version, flags, more, zero], rest)) = section.split_first_chunk() else {
            return Err(error(0, "28 bytes of flags and lengths", section.len() as u64));
        };
        if version != VERSION {
            return Err(error(0, "version 1 of the chat template", version.into()));
        }
        if flags & !flag::ALL != 0 {
            return Err(error(1, "no flags but those of bits 0 to 6", flags.into()));
        }
        if more & !flag::DROP_LINE_BREAKS != 0 {
            return Err(error(2, "no flags but that of bit 0", more.into()));
        }
        if zero != 0 {
            return Err(error(3, "0", zero.into()));
        }
        let Some((lengths, mut rest)) = rest.split_first_chunk::<{ 4 * TEXTS }>() else {
            return Err(error(0, "28 bytes of flags and lengths", section.len() as u64));
        };
        let (mut texts, mut dates) = ([""; TEXTS], 0);
        for (index, (length, place)) in lengths.as_chunks::<4>().0.iter().zip(&mut texts).enumerate() {
            let length = u32::from_le_bytes(*length);
            let Some((text, after)) = rest.split_at_checked(length as usize) else {
                return Err(error(4 + 4 * index, "a length within the section", length.into()));
            };
            let begin = section.len() - rest.len();
            *place = core::str::from_utf8(text).map_err(|wrong| {
                let at = wrong.valid_up_to();
                error(begin + at, "UTF-8", text.get(at).copied().unwrap_or_default().into())
            })?;
            if flags & flag::DATE != 0 {
                dates += check_dates(place).map_err(|at| {
                    let found = text.get(at).copied().unwrap_or_default();
                    error(begin + at, "the format of a date, and U+0001 before and behind it", found.into())
                })?;
            }
            rest = after;
        }
        if flags & flag::DATE != 0 && dates == 0 {
            return Err(error(1, "a date in some text, as bit 6 says", flags.into()));
        }
        if !rest.is_empty() {
            let end = section.len() - rest.len();
            return Err(error(end, "the end of the section", rest.len() as u64));
        }
        let [before, after, first, open, answered, next] = texts;
        let is_set = |bit| flags & bit != 0;
        let system = is_set(flag::SYSTEM).then_some(SystemTexts { before, after });
        if system.is_none() {
            for (offset, text) in [(4, before), (8, after)] {
                if !text.is_empty() {
                    return Err(error(
                        offset,
                        "no texts around a system message that there is not",
                        text.len() as u64,
                    ));
                }
            }
            if is_set(flag::TRIM_SYSTEM) {
                return Err(error(1, "no trimming of a system message that there is not", flags.into()));
            }
            if is_set(flag::SYSTEM_LAST) {
                return Err(error(1, "no place of a system message that there is not", flags.into()));
            }
        }
        let trimmed = Trimmed {
            system: is_set(flag::TRIM_SYSTEM),
            user: is_set(flag::TRIM_USER),
            answer: is_set(flag::TRIM_ANSWER),
        };
        Ok(ChatTemplate {
            system,
            first,
            open,
            answered,
            next,
            trimmed,
            drops_thoughts: is_set(flag::DROP_THOUGHTS),
            drops_line_breaks: more & flag::DROP_LINE_BREAKS != 0,
            system_last: is_set(flag::SYSTEM_LAST),
            names_date: is_set(flag::DATE),
        })
    }

    /// The pieces of one of the template's texts.
    pub fn pieces(&self, text: &'a str) -> impl Iterator<Item = Piece<'a>> + use<'a> {
        // Without dates, the mark is a character as any other.
        let (plain, dated) = if self.names_date { ("", text) } else { (text, "") };
        let pieces = dated.split(DATE_MARK).enumerate().map(|(index, piece)| match index % 2 {
            0 => Piece::Text(piece),
            _ => Piece::Date(piece),
        });
        let whole = core::iter::once(Piece::Text(plain)).chain(pieces);
        whole.filter(|piece| *piece != Piece::Text(""))
    }

    /// The section, unless it would have more than [`MAX_CHAT_TEMPLATE_BYTES`].
    #[cfg(any(test, feature = "write"))]
    pub fn section(&self) -> Option<alloc::vec::Vec<u8>> {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = bit(self.system.is_some(), flag::SYSTEM)
            | bit(self.trimmed.system && self.system.is_some(), flag::TRIM_SYSTEM)
            | bit(self.trimmed.user, flag::TRIM_USER)
            | bit(self.trimmed.answer, flag::TRIM_ANSWER)
            | bit(self.drops_thoughts, flag::DROP_THOUGHTS)
            | bit(self.system_last && self.system.is_some(), flag::SYSTEM_LAST)
            | bit(self.names_date, flag::DATE);
        let SystemTexts { before, after } = self.system.unwrap_or(SystemTexts { before: "", after: "" });
        let texts = [before, after, self.first, self.open, self.answered, self.next];
        let bytes = texts.iter().fold(PREFIX_BYTES, |bytes, text| bytes.saturating_add(text.len()));
        if bytes > MAX_CHAT_TEMPLATE_BYTES {
            return None;
        }
        let mut section = alloc::vec![VERSION, flags, bit(self.drops_line_breaks, flag::DROP_LINE_BREAKS), 0];
        texts.iter().for_each(|text| section.extend((text.len() as u32).to_le_bytes()));
        texts.iter().for_each(|text| section.extend(text.as_bytes()));
        Some(section)
    }
}

/// The number of dates in a text, or the byte where there is none that should be one.
fn check_dates(text: &str) -> Result<usize, usize> {
    let (mut dates, mut at) = (0, 0);
    for (index, piece) in text.split(DATE_MARK).enumerate() {
        let is_date = index % 2 == 1;
        // The last piece is behind a mark that closes a date, or there is none.
        let closed = at + piece.len() < text.len();
        if is_date && !(closed && is_date_format(piece)) {
            return Err(at.min(text.len().saturating_sub(1)));
        }
        dates += usize::from(is_date);
        at += piece.len() + DATE_MARK.len_utf8();
    }
    Ok(dates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: ChatTemplate<'_> = ChatTemplate {
        system: Some(SystemTexts { before: "<s>S:", after: "\nU:" }),
        first: "<s>U:",
        open: "\nA:",
        answered: "\nA: ",
        next: "é</s>U:",
        trimmed: Trimmed { system: false, user: true, answer: true },
        drops_thoughts: true,
        drops_line_breaks: true,
        system_last: true,
        names_date: false,
    };
    const DATED: ChatTemplate<'_> = ChatTemplate {
        first: "\u{1}%d %b\u{1}",
        open: "a\u{1}%Y\u{1}\u{1}%%\u{1}b",
        names_date: true,
        ..TEMPLATE
    };

    #[test]
    fn what_was_written_is_read_back() {
        let bare = ChatTemplate { system: None, system_last: false, ..TEMPLATE };
        for template in [TEMPLATE, bare, DATED] {
            let section = template.section().unwrap();
            assert_eq!(ChatTemplate::parse(&section), Ok(template));
            // Cut anywhere, it is refused.
            assert!((0..section.len()).all(|end| ChatTemplate::parse(&section[..end]).is_err()));
        }
        let long = "x".repeat(MAX_CHAT_TEMPLATE_BYTES);
        assert_eq!(ChatTemplate { first: &long, ..TEMPLATE }.section(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_byte() {
        let section = TEMPLATE.section().unwrap();
        let refused = |change: &dyn Fn(&mut alloc::vec::Vec<u8>)| {
            let mut changed = section.clone();
            change(&mut changed);
            let error = ChatTemplate::parse(&changed).unwrap_err();
            (error.offset_bytes, error.found)
        };
        assert_eq!(refused(&|bytes| bytes[0] = 2), (0, 2));
        assert_eq!(refused(&|bytes| bytes[1] |= 128), (1, 0xbd));
        assert_eq!(refused(&|bytes| bytes[2] = 2), (2, 2));
        assert_eq!(refused(&|bytes| bytes[3] = 7), (3, 7));
        assert_eq!(refused(&|bytes| bytes[7] = 1), (4, 5 | 1 << 24));
        assert_eq!(refused(&|bytes| bytes.push(0)), (section.len(), 1));
        assert_eq!(refused(&|bytes| bytes.resize(MAX_CHAT_TEMPLATE_BYTES + 1, 0)), (0, 65_537));
        assert_eq!(refused(&|bytes| bytes[1] = 0), (4, 5));
        assert_eq!(refused(&|bytes| bytes[PREFIX_BYTES + 2] = 0xff), (PREFIX_BYTES + 2, 0xff));
        for bit in [flag::TRIM_SYSTEM, flag::SYSTEM_LAST, flag::DATE] {
            let mut bare = ChatTemplate { system: None, ..TEMPLATE }.section().unwrap();
            bare[1] |= bit;
            assert_eq!(ChatTemplate::parse(&bare).unwrap_err().offset_bytes, 1);
        }
    }

    #[test]
    fn dates_stand_between_marks() {
        let pieces =
            |template: &ChatTemplate<'static>, text| template.pieces(text).collect::<alloc::vec::Vec<_>>();
        let expected = [Piece::Text("a"), Piece::Date("%Y"), Piece::Date("%%"), Piece::Text("b")];
        assert_eq!(pieces(&DATED, DATED.open), expected);
        assert_eq!(pieces(&TEMPLATE, DATED.open), [Piece::Text(DATED.open)]);
        for format in ["%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%F", "%-d/%-m/%y", "%A %e (%j) 100%%"] {
            assert!(is_date_format(format), "{format}");
        }
        let long = "x".repeat(MAX_DATE_FORMAT_BYTES + 1);
        for format in ["", "%H:%M", "%", "%d%", "%-", "%-Y", "%Q", "\n%d", "\u{e9}", &long] {
            assert!(!is_date_format(format), "{format}");
        }
        let start = PREFIX_BYTES + TEMPLATE.system.map_or(0, |texts| texts.before.len() + texts.after.len());
        for (first, at) in
            [("ab\u{1}%d", 3), ("\u{1}\u{1}", 1), ("\u{1}%H\u{1}", 1), ("\u{1}%d\u{1}\u{1}", 4)]
        {
            let section = ChatTemplate { first, ..DATED }.section().unwrap();
            assert_eq!(ChatTemplate::parse(&section).unwrap_err().offset_bytes, start + at, "{first:?}");
        }
    }
}
