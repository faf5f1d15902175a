//! Why a command ended early.

use core::fmt;

use rescomp_formats::error::ContainerError;
use rescomp_runtime::error::RuntimeError;
use rescomp_runtime::kernel_comparison::ComparisonError;
use rescomp_runtime::self_check::SelfCheckError;
use rescomp_runtime::tokenizer::TokenizerError;

use crate::command::CommandError;

/// Why a command ended early.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Failure {
    /// The words given to the image are no command.
    Command(CommandError),
    /// The image was built without a container.
    NoContainer,
    /// The image's container can't be.
    Container(ContainerError),
    /// The image's container is an encoder's or a classifier's, and images run what continues texts.
    NoDecoder,
    /// A kernel doesn't give its known answer.
    SelfCheck(SelfCheckError),
    /// A kernel isn't the portable one's equal.
    Comparison(ComparisonError),
    /// The model doesn't run in this memory, or at all.
    Runtime(RuntimeError),
    /// The prompt has no tokens, or too many.
    Prompt(TokenizerError),
    /// The prompt is empty, and the model has no begin token.
    EmptyPrompt,
    /// The prompt fills the context that the memory has room for.
    LongPrompt {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions.
        context: usize,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Command(error) => error.fmt(f),
            Failure::NoContainer => {
                f.write_str("this image was built without a container: `cargo xtask pack` builds one with it")
            }
            Failure::Container(error) => write!(f, "the image's container: {error}"),
            Failure::NoDecoder => {
                f.write_str("the image's container is no decoder's, and images run decoders")
            }
            Failure::SelfCheck(error) => error.fmt(f),
            Failure::Comparison(error) => error.fmt(f),
            Failure::Runtime(error) => error.fmt(f),
            Failure::Prompt(error) => write!(f, "prompt: {error}"),
            Failure::EmptyPrompt => f.write_str("the prompt is empty, and the model has no begin token"),
            Failure::LongPrompt { tokens, context } => {
                write!(f, "the prompt has {tokens} tokens; the memory has room for a context of {context}")
            }
        }
    }
}

impl core::error::Error for Failure {}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Failure {
        Failure::Command(error)
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Failure {
        Failure::Container(error)
    }
}

impl From<SelfCheckError> for Failure {
    fn from(error: SelfCheckError) -> Failure {
        Failure::SelfCheck(error)
    }
}

impl From<ComparisonError> for Failure {
    fn from(error: ComparisonError) -> Failure {
        Failure::Comparison(error)
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        Failure::Runtime(error)
    }
}

impl From<TokenizerError> for Failure {
    fn from(error: TokenizerError) -> Failure {
        Failure::Prompt(error)
    }
}
