//! Rendering a template as transformers does: its settings of Jinja, its functions, its names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat;

use rescomp_formats::chat_template::{DATE_MARK, is_date_format};
use rescomp_runtime::date::Date;

use super::source::Source;

/// Steps of one rendering: far more than a long conversation takes, and an end to a template that has none.
const FUEL: u64 = 1_000_000;

/// A message as templates see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'t> {
    pub(super) role: &'static str,
    pub(super) content: &'t str,
}

/// What a rendering says where its template asks for the date.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    /// The day; without one, the format between two marks.
    date: Option<Date>,
    /// Somebody asked.
    asked: bool,
}

/// A compiled template.
pub(super) struct Jinja<'s> {
    environment: Environment<'s>,
    clock: Arc<Mutex<Clock>>,
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
        let clock = Arc::new(Mutex::new(Clock::default()));
        let asked = Arc::clone(&clock);
        environment.add_function("strftime_now", move |format: String| -> Result<Value, Error> {
            if !is_date_format(&format) {
                let why =
                    format!("it asks for {format:?} of the clock: a device knows the date in short formats");
                return Err(Error::new(ErrorKind::InvalidOperation, why));
            }
            let mut clock = asked.lock().unwrap_or_else(PoisonError::into_inner);
            clock.asked = true;
            let Some(date) = clock.date else { return Ok(format!("{DATE_MARK}{format}{DATE_MARK}").into()) };
            let mut text = String::new();
            date.write(&format, &mut |part| text.push_str(part));
            Ok(text.into())
        });
        let text = without_generation_marks(&source.text);
        environment.add_template_owned(NAME, text.into_owned()).map_err(|error| in_words(&error))?;
        let special_tokens =
            source.special_tokens.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Ok(Self { environment, clock, special_tokens })
    }

    /// Whether a rendering has asked for the date.
    pub(super) fn names_date(&self) -> bool {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).asked
    }

    /// The text of a conversation, with what opens the answer at its end. Without a date, its format stands between marks.
    pub(super) fn render(&self, messages: &[Message<'_>], date: Option<Date>) -> Result<String, String> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).date = date;
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

/// A template without the marks around what an assistant says: transformers has blocks of its own for them, which say nothing in a
/// rendering. They become conditions that hold, so that white space around them is as it was.
fn without_generation_marks(text: &str) -> Cow<'_, str> {
    let mut changed = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at + 2);
        changed.push_str(before);
        let Some(end) = block.find("%}") else {
            rest = block;
            break;
        };
        let signs = |character: char| character == '-' || character == '+' || character.is_whitespace();
        let inside = &block[..end];
        let replacement = match inside.trim_matches(signs) {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        };
        changed.push_str(&inside.replacen(inside.trim_matches(signs), replacement, 1));
        rest = &block[end..];
    }
    changed.push_str(rest);
    if changed == text { Cow::Borrowed(text) } else { Cow::Owned(changed) }
}

fn in_words(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}
