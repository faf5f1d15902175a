//! The six texts of a template, and the proof that they say what it says.

use rescomp_formats::chat_template::{ChatTemplate, DATE_MARK, SystemTexts, Trimmed};
use rescomp_runtime::chat::{Conversation, Turn, fill};
use rescomp_runtime::date::Date;

use super::jinja::{Jinja, Message};

/// Messages that no template has in it: what stands between them in a rendering is the template's.
const SYSTEM: &str = "Qj7vSystemK2x";
const USERS: [&str; 2] = ["Qj7vUserOneK2x", "Qj7vUserTwoK2x"];
const ANSWER: &str = "Qj7vAnswerK2x";

/// Messages of the proof: plain ones, white space where templates like to cut, marks of Jinja and of other templates, letters of
/// several bytes, thoughts, nothing.
const MESSAGES: [&str; 12] = [
    "Tell me a story.",
    "  Once upon a time\nthere was \n\n",
    "\t{{ messages }} {% endif %} {# no #} \"quoted\" 'twice' <b>&amp;</b> \\n",
    "na\u{ef}ve \u{65e5}\u{672c} \u{1f642}\u{a0}",
    "",
    "<think>\nWhat do they want?\n</think>\n\nA story!",
    "<think>\n\n</think> \n\n Yes. \n\n",
    "<think>one</think>two</think>\n\n three\n",
    "[INST] <<SYS>> x <</SYS>> [/INST] <|im_end|> </s> <end_of_turn> <|eot_id|>",
    "\n",
    "0",
    "/no_think Be brief. /think",
];
/// Dates of the proof: one and two digits, days and months of other names.
const DATES: [(u16, u8, u8); 3] = [(2024, 2, 9), (2026, 11, 30), (2031, 5, 1)];
/// Turns of a conversation of the proof before its last message, at most.
const MOST_TURNS: usize = 3;
/// Characters of a difference that an error repeats.
const SHOWN: usize = 40;

/// The texts of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Derived {
    system: Option<(String, String)>,
    first: String,
    open: String,
    answered: String,
    next: String,
    trimmed: Trimmed,
    pub(super) drops_thoughts: bool,
    pub(super) drops_line_breaks: bool,
    pub(super) system_last: bool,
    pub(super) names_date: bool,
    /// Why there is no system message, where there is none.
    pub(super) no_system: Option<String>,
}

impl Derived {
    /// The template that a container holds.
    pub(super) fn template(&self) -> ChatTemplate<'_> {
        ChatTemplate {
            system: self.system.as_ref().map(|(before, after)| SystemTexts { before, after }),
            first: &self.first,
            open: &self.open,
            answered: &self.answered,
            next: &self.next,
            trimmed: self.trimmed,
            drops_thoughts: self.drops_thoughts,
            drops_line_breaks: self.drops_line_breaks,
            system_last: self.system_last,
            names_date: self.names_date,
        }
    }
}

/// A conversation of the proof, with its messages in order.
struct Probe<'t> {
    system: Option<&'t str>,
    turns: Vec<Turn<'t>>,
    user: &'t str,
    date: Option<Date>,
}

impl<'t> Probe<'t> {
    fn conversation(&self) -> Conversation<'_> {
        Conversation { system: self.system, turns: &self.turns, user: self.user, date: self.date }
    }

    fn render(&self, jinja: &Jinja<'_>) -> Result<String, String> {
        let message = |role, content| Message { role, content };
        let mut messages: Vec<Message<'t>> =
            self.system.iter().map(|system| message("system", system)).collect();
        for turn in &self.turns {
            messages.extend([message("user", turn.user), message("assistant", turn.answer)]);
        }
        messages.push(message("user", self.user));
        jinja.render(&messages, self.date)
    }
}

/// Derives the texts of a template and proves them; an error says what they cannot say.
pub(super) fn derive(jinja: &Jinja<'_>) -> Result<Derived, String> {
    let [one, two] = USERS;
    let turn = Turn { user: one, answer: ANSWER };
    // Without a date: where the template names it, its format stands between marks.
    let marked = |system, turns, user| Probe { system, turns, user, date: None }.render(jinja);
    let [first, open] = between(&marked(None, Vec::new(), one)?, [one])?;
    let double = marked(None, vec![turn], two)?;
    let [_, answered, next, _] = between(&double, [one, ANSWER, two])?;
    let names_date = jinja.names_date();
    let bare = Derived { first, open, answered, next, names_date, ..Derived::default() };
    let plain = proven(jinja, &bare, &probes(false))?;
    let all = || -> Vec<Probe<'_>> { probes(false).into_iter().chain(probes(true)).collect() };

    let at_the_beginning = || {
        let [before, after, _] = between(&marked(Some(SYSTEM), Vec::new(), one)?, [SYSTEM, one])?;
        proven(jinja, &Derived { system: Some((before, after)), ..bare.clone() }, &all())
    };
    let in_the_last_turn = || {
        let text = marked(Some(SYSTEM), vec![turn], two)?;
        let [_, _, before, after, _] = between(&text, [one, ANSWER, SYSTEM, two])?;
        let before =
            before.strip_prefix(bare.next.as_str()).ok_or("the system message is in the last turn")?;
        let system = Some((before.to_owned(), after));
        proven(jinja, &Derived { system, system_last: true, ..bare.clone() }, &all())
    };
    // The reason is that of the usual place.
    Ok(at_the_beginning()
        .or_else(|why: String| in_the_last_turn().map_err(|_: String| why))
        .unwrap_or_else(|why| Derived { no_system: Some(why), ..plain }))
}

/// What stands before, between and behind markers, each of which is there once, in this order.
fn between<const MARKERS: usize, const TEXTS: usize>(
    text: &str,
    markers: [&str; MARKERS],
) -> Result<[String; TEXTS], String> {
    const { assert!(TEXTS == MARKERS + 1) };
    let mut texts = [const { String::new() }; TEXTS];
    let mut rest = text;
    for (marker, place) in markers.iter().zip(&mut texts) {
        let found = text.matches(marker).count();
        let cut = rest.split_once(marker).filter(|_| found == 1);
        let (before, after) = cut.ok_or_else(|| {
            format!(
                "it does not repeat each message once and in order: expected one {marker:?}, found {found}"
            )
        })?;
        *place = before.to_owned();
        rest = after;
    }
    texts[MARKERS] = rest.to_owned();
    Ok(texts)
}

/// Conversations of no to three turns, each with every message in every place.
fn probes(with_system: bool) -> Vec<Probe<'static>> {
    let mut probes = Vec::new();
    for (shift, turns) in
        (0..MESSAGES.len()).flat_map(|shift| (0..=MOST_TURNS).map(move |turns| (shift, turns)))
    {
        let message = |place: usize| MESSAGES[(shift + 2 * place) % MESSAGES.len()];
        let system = message(2 * MOST_TURNS + 1);
        if with_system && system.trim().is_empty() {
            // The device refuses it: templates do not agree what it means.
            continue;
        }
        probes.push(Probe {
            system: with_system.then_some(system),
            turns: (0..turns)
                .map(|turn| Turn { user: message(2 * turn), answer: message(2 * turn + 1) })
                .collect(),
            user: message(2 * turns),
            date: DATES.get(shift % DATES.len()).and_then(|&(year, month, day)| Date::new(year, month, day)),
        });
    }
    probes
}

/// The texts with the trimming under which every conversation is rendered as the template does.
fn proven(jinja: &Jinja<'_>, derived: &Derived, probes: &[Probe<'_>]) -> Result<Derived, String> {
    let names_date = jinja.names_date();
    let texts = [&derived.first, &derived.open, &derived.answered, &derived.next];
    let around = derived.system.iter().flat_map(|(before, after)| [before, after]);
    let marks = || texts.into_iter().chain(around.clone()).flat_map(|text| text.matches(DATE_MARK)).count();
    if names_date
        && (marks() == 0
            || derived.template().section().is_some_and(|section| ChatTemplate::parse(&section).is_err()))
    {
        return Err("it asks for the date, and says something else than the date".to_owned());
    }
    let rendered: Vec<String> = probes.iter().map(|probe| probe.render(jinja)).collect::<Result<_, _>>()?;
    // The trimming that goes furthest, and where it fails.
    let mut furthest = (0, String::new());
    for bits in 0_u8..32 {
        let is_set = |bit: u8| bits >> bit & 1 != 0;
        let trimmed = Trimmed { user: is_set(0), answer: is_set(1), system: is_set(2) };
        if trimmed.system && derived.system.is_none() {
            continue;
        }
        let tried =
            Derived { trimmed, drops_thoughts: is_set(3), drops_line_breaks: is_set(4), ..derived.clone() };
        let wrong = probes.iter().zip(&rendered).enumerate().find_map(|(index, (probe, expected))| {
            let mut filled = String::new();
            match fill(&tried.template(), &probe.conversation(), |part| filled.push_str(part.text())) {
                Err(error) => Some((index + 1, error.to_string())),
                Ok(()) if filled != *expected => Some((index + 1, difference(expected, &filled))),
                Ok(()) => None,
            }
        });
        match wrong {
            None => return Ok(tried),
            Some(wrong) if wrong.0 > furthest.0 => furthest = wrong,
            Some(_) => {}
        }
    }
    Err(furthest.1)
}

/// Where two texts part.
fn difference(expected: &str, found: &str) -> String {
    let same: usize = expected
        .chars()
        .zip(found.chars())
        .take_while(|(expected, found)| expected == found)
        .map(|(character, _)| character.len_utf8())
        .sum();
    let shown = |text: &str| text.chars().take(SHOWN).collect::<String>();
    format!(
        "texts around the messages do not say what it does: behind {:?}: expected {:?}, found {:?}",
        last(&expected[..same]),
        shown(&expected[same..]),
        shown(&found[same..])
    )
}

/// The end of a text.
fn last(text: &str) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(SHOWN)).collect()
}
