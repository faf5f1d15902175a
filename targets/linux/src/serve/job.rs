//! What the server's thread asks of the main thread, and what that answers.

use rescomp_runtime::sample::SampleOptions;
use tokio::sync::mpsc::UnboundedSender;

use crate::conversation::OwnedTurn;

/// A text or its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Text(String),
    Tokens(Vec<u32>),
}

/// A conversation that ends with a message to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) system: Option<String>,
    pub(super) turns: Vec<OwnedTurn>,
    pub(super) user: String,
}

/// How to go on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sampling {
    pub(super) options: SampleOptions,
    /// Most tokens; `None` for as many as the context has room for.
    pub(super) max_tokens: Option<usize>,
    pub(super) stops: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Task {
    /// Continue each of these.
    Complete { prompts: Vec<Input>, sampling: Sampling },
    /// Answer.
    Chat { messages: Messages, sampling: Sampling },
    /// Make a vector of each of these.
    Embed { inputs: Vec<Input> },
}

/// A task, and where its events go: as many as its tokens at most, so that nobody has to wait for a slow reader.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) events: UnboundedSender<Event>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The model, or a stop text, ended it.
    Stop,
    /// There was no more room.
    Length,
}

impl Finish {
    pub(super) fn name(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

/// What went on. The first event says whether the task was possible at all.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// It was; there will be so many texts.
    Begins(usize),
    /// Some text of the answer of this number.
    Piece(usize, String),
    /// The end of that answer.
    Ends(usize, Finish),
    /// A vector of each input.
    Vectors(Vec<Vec<f32>>),
    /// The end of all.
    Done(Usage),
    /// It was not, or it stopped.
    Failed(Failure),
}

/// Why there is no answer, as OpenAI's server says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    /// The parameter that is wrong.
    pub(super) parameter: Option<String>,
    pub(super) code: Option<&'static str>,
    pub(super) message: String,
}

impl Failure {
    /// The request is wrong.
    pub(super) fn request(message: impl Into<String>) -> Failure {
        Failure { status: 400, parameter: None, code: None, message: message.into() }
    }

    /// A parameter is wrong.
    pub(super) fn parameter(parameter: &str, message: impl std::fmt::Display) -> Failure {
        Failure {
            status: 400,
            parameter: Some(parameter.to_owned()),
            code: None,
            message: format!("{parameter}: {message}"),
        }
    }

    /// Another kind of failure.
    pub(super) fn other(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Failure {
        Failure { status, parameter: None, code, message: message.into() }
    }

    /// The server ends.
    pub(super) fn ending() -> Failure {
        Failure::other(503, Some("server_ends"), "the server was stopped")
    }
}
