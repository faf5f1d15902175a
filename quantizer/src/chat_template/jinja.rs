//! Rendering a template as transformers does: its settings of Jinja, its functions, its names.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat;

use super::source::Source;

/// Steps of one rendering: far more than a long conversation takes, and an end to a template that has none.
const FUEL: u64 = 1_000_000;

/// A message as templates see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'t> {
    pub(super) role: &'static str,
    pub(super) content: &'t str,
}

/// A compiled template.
pub(super) struct Jinja<'s> {
    environment: Environment<'s>,
    special_tokens: BTreeMap<&'s str, &'s str>,
}

/// The name that errors give the template: the caller says which file it is.
const NAME: &str = "template";

impl<'s> Jinja<'s> {
    /// Compiles a template; an error says why it is none.
    pub(super) fn new(source: &'s Source) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| in_words(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("it refuses the conversation: {message}")))
        });
        environment.add_function("strftime_now", |_: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, "it names the date, which a device need not know"))
        });
        environment.add_template(NAME, &source.text).map_err(|error| in_words(&error))?;
        let special_tokens =
            source.special_tokens.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Ok(Self { environment, special_tokens })
    }

    /// The text of a conversation, with what opens the answer at its end.
    pub(super) fn render(&self, messages: &[Message<'_>]) -> Result<String, String> {
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, text)| (*name, Value::from(*text))).collect();
        let message =
            |message: &Message<'_>| Value::from_pairs([("role", message.role), ("content", message.content)]);
        context.insert("messages", messages.iter().map(message).collect());
        context.insert("add_generation_prompt", Value::from(true));
        // Named in every rendering, whether there are any or not.
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let template = self.environment.get_template(NAME).map_err(|error| in_words(&error))?;
        template.render(context).map_err(|error| in_words(&error))
    }
}

fn in_words(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}
