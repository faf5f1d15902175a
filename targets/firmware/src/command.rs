//! What an image is to do, in words: those of a semihosting command line, behind the program's name.
//!
//! ```text
//! check                                     run the embedded windows and compare
//! generate [--max-tokens N] PROMPT          continue a prompt
//! compare-kernels, overflow-stack           in images that test: every product against the portable one; a fault
//!                                           without words: check and generate, with a prompt of its own
//! ```

use core::fmt;

/// The longest prompt.
pub const MAX_PROMPT_BYTES: usize = 512;
/// The prompt where none is given.
pub const DEFAULT_PROMPT: &str = "Once upon a time";
/// Tokens that are generated where nobody says how many.
const DEFAULT_MAX_TOKENS: usize = 48;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Do this, and nothing else.
    pub test: Option<Test>,
    /// Run the check.
    pub check: bool,
    /// Continue a prompt.
    pub prompt: Option<heapless::String<MAX_PROMPT_BYTES>>,
    /// The most tokens to continue it with.
    pub max_tokens: usize,
}

/// What images with the feature `test-words` do besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// Compare every product with the portable one.
    CompareKernels,
    /// Use more stack than there is, on a microcontroller.
    OverflowStack,
}

impl Test {
    /// The one of this word, in images that have such words.
    fn of(word: &str) -> Option<Test> {
        match word {
            "compare-kernels" if cfg!(feature = "test-words") => Some(Test::CompareKernels),
            "overflow-stack" if cfg!(feature = "test-words") => Some(Test::OverflowStack),
            _ => None,
        }
    }
}

/// Why words are no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CommandError {
    /// The first word isn't one of the commands.
    Unknown,
    /// `--max-tokens` without a number behind it.
    MaxTokens,
    /// `generate` without a prompt, or with two, or `check` with anything.
    Words,
    /// The prompt has more bytes than there is room for.
    LongPrompt {
        /// Its bytes.
        bytes: usize,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Unknown => f.write_str("expected `check` or `generate`"),
            CommandError::MaxTokens => f.write_str("--max-tokens: expected a number"),
            CommandError::Words => f.write_str("expected `check`, or `generate [--max-tokens N] PROMPT`"),
            CommandError::LongPrompt { bytes } => {
                write!(f, "the prompt has {bytes} bytes; at most {MAX_PROMPT_BYTES} are read")
            }
        }
    }
}

impl core::error::Error for CommandError {}

/// Words of a command line, in all.
#[cfg(target_os = "none")]
const COMMAND_LINE_BYTES: usize = 1024;

impl Command {
    /// What the words of the semihosting command line ask for; nothing where nobody answers semihosting.
    ///
    /// # Errors
    /// [`CommandError`].
    #[cfg(target_os = "none")]
    pub fn given() -> Result<Command, CommandError> {
        let words = semihosting::experimental::env::args::<COMMAND_LINE_BYTES>();
        // The first is the program's name.
        Command::parse(words.iter().flatten().skip(1).filter_map(Result::ok))
    }

    /// What `words` ask for.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Command, CommandError> {
        let mut words = words.into_iter();
        let mut command = Command { test: None, check: true, prompt: None, max_tokens: DEFAULT_MAX_TOKENS };
        match words.next() {
            None => command.prompt = Some(prompt(DEFAULT_PROMPT)?),
            Some(word) if let Some(test) = Test::of(word) => {
                (command.test, command.check) = (Some(test), false);
                if words.next().is_some() {
                    return Err(CommandError::Words);
                }
            }
            Some("check") => {
                if words.next().is_some() {
                    return Err(CommandError::Words);
                }
            }
            Some("generate") => {
                command.check = false;
                while let Some(word) = words.next() {
                    if word == "--max-tokens" {
                        let number = words.next().and_then(|number| number.parse().ok());
                        command.max_tokens = number.ok_or(CommandError::MaxTokens)?;
                    } else if command.prompt.is_none() {
                        command.prompt = Some(prompt(word)?);
                    } else {
                        return Err(CommandError::Words);
                    }
                }
                if command.prompt.is_none() {
                    return Err(CommandError::Words);
                }
            }
            Some(_) => return Err(CommandError::Unknown),
        }
        Ok(command)
    }
}

fn prompt(text: &str) -> Result<heapless::String<MAX_PROMPT_BYTES>, CommandError> {
    heapless::String::try_from(text).map_err(|_| CommandError::LongPrompt { bytes: text.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Command, CommandError> {
        Command::parse(words.iter().copied())
    }

    #[test]
    fn words_become_commands() {
        let both = parse(&[]).expect("no words");
        assert!(both.check);
        assert_eq!(both.prompt.as_deref(), Some(DEFAULT_PROMPT));
        assert_eq!(
            parse(&["check"]),
            Ok(Command { test: None, check: true, prompt: None, max_tokens: DEFAULT_MAX_TOKENS })
        );
        let command = parse(&["generate", "--max-tokens", "7", "A prompt"]).expect("valid");
        assert_eq!(
            (command.check, command.prompt.as_deref(), command.max_tokens),
            (false, Some("A prompt"), 7)
        );
        assert_eq!(parse(&["generate", ""]).expect("empty").prompt.as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(parse(&["run"]), Err(CommandError::Unknown));
        assert_eq!(parse(&[""]), Err(CommandError::Unknown));
        assert_eq!(parse(&["check", "it"]), Err(CommandError::Words));
        assert_eq!(parse(&["generate"]), Err(CommandError::Words));
        assert_eq!(parse(&["generate", "a", "b"]), Err(CommandError::Words));
        assert_eq!(parse(&["generate", "a", "--max-tokens"]), Err(CommandError::MaxTokens));
        assert_eq!(parse(&["generate", "--max-tokens", "-1", "a"]), Err(CommandError::MaxTokens));
        let long = "x".repeat(MAX_PROMPT_BYTES + 1);
        assert_eq!(
            parse(&["generate", &long]),
            Err(CommandError::LongPrompt { bytes: MAX_PROMPT_BYTES + 1 })
        );
    }
}
