//! `rescomp embed`: vectors of texts, and how similar they are.

use std::fmt::Write;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::Instant;

use rescomp_formats::container::Integrity;
use rescomp_runtime::eval_embeddings::cosine;
use serde::Serialize;

use crate::embedder::{self, Sequence};
use crate::error::Error;
use crate::exit::Exit;
use crate::flags::EmbedFlags;
use crate::interrupt;
use crate::machine::{self, Engine};
use crate::mapped;
use crate::output;
use crate::prompt::utf8;
use crate::trust::Trust;

/// A line of JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    index: usize,
    text: &'a str,
    tokens: usize,
    embedding: &'a [f32],
}

/// Runs the command.
///
/// # Errors
/// Where the container, a text or the command line is wrong.
pub(crate) fn run(flags: &EmbedFlags) -> Result<Exit, Error> {
    let path = &flags.machine.container;
    let file = mapped::open(path, flags.machine.load)?;
    let trust = Trust::new(&flags.machine.trust)?;
    let container = trust.open(path, &file, Integrity::Crc)?;
    embedder::expect_encoder(path, &container)?;
    let texts = texts(flags)?;
    let most = embedder::most_tokens(&container);
    let mut sequences = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let mut sequence = Sequence::new(&container, text)
            .map_err(|error| Error::usage(format!("text {}: {error}", index + 1)))?;
        if flags.truncate {
            sequence.truncate(most);
        }
        let found = sequence.tokens.len();
        if found > most {
            return Err(Error::usage(format!(
                "text {}: expected at most {most} tokens, the model's context, found {found}; --truncate leaves out the last ones",
                index + 1
            )));
        }
        sequences.push(sequence);
    }
    let longest = sequences.iter().map(|sequence| sequence.tokens.len()).max().unwrap_or(1);
    let engine = Engine::new(&flags.machine, &container)?;
    let mut memory = embedder::memory(path, &container, longest)?;
    let mut encoder = embedder::encoder(path, &container, &engine, longest, &mut memory)?;
    trust.remember(&container)?;
    interrupt::end_by_itself();
    let start = Instant::now();
    let (mut vectors, mut tokens) = (Vec::new(), 0);
    for (index, (text, sequence)) in texts.iter().zip(&sequences).enumerate() {
        if interrupt::requested() {
            return Ok(Exit::Interrupted);
        }
        let vector = encoder.embed(&sequence.tokens).map_err(|error| Error::input(path, error))?;
        let vector = if flags.normalize { normalized(vector) } else { vector.to_vec() };
        tokens += sequence.tokens.len();
        match flags.similarity {
            true => vectors.push(vector),
            false => print(flags.json, index, text, sequence.tokens.len(), &vector)?,
        }
    }
    if flags.similarity {
        print_similarities(flags.json, &vectors)?;
    }
    let seconds = machine::seconds(start.elapsed());
    output::note(&format!(
        "{} texts, {tokens} tokens in {seconds:.3} s, {:.1} tokens a second",
        texts.len(),
        tokens as f64 / seconds
    ));
    output::note(&format!("kernels: {}, threads: {}", engine.kernels().name, engine.threads()));
    Ok(Exit::Success)
}

/// The texts that the command line asks for: its own, or the lines of a file or of standard input.
fn texts(flags: &EmbedFlags) -> Result<Vec<String>, Error> {
    if !flags.texts.is_empty() {
        return Ok(flags.texts.clone());
    }
    let (path, bytes) = match &flags.file {
        Some(path) => (path.as_path(), std::fs::read(path)),
        None if io::stdin().is_terminal() => {
            return Err(Error::usage("expected texts on the command line, in --file or on standard input"));
        }
        None => {
            let mut bytes = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut bytes);
            (Path::new("standard input"), read.map(|_| bytes))
        }
    };
    let bytes = bytes.map_err(|error| Error::disk(path, format_args!("cannot read: {error}")))?;
    let texts: Vec<String> = utf8(path, bytes)?.lines().map(str::to_owned).collect();
    match texts.is_empty() {
        true => Err(Error::input(path, "expected a text a line, found nothing")),
        false => Ok(texts),
    }
}

/// A vector divided by its length; one of zeros stays what it is.
fn normalized(vector: &[f32]) -> Vec<f32> {
    let squares: f64 = vector.iter().map(|&number| f64::from(number) * f64::from(number)).sum();
    let length = squares.sqrt().max(f64::MIN_POSITIVE);
    vector.iter().map(|&number| (f64::from(number) / length) as f32).collect()
}

fn print(as_json: bool, index: usize, text: &str, tokens: usize, embedding: &[f32]) -> Result<(), Error> {
    let line = match as_json {
        true => json_line(&Line { index, text, tokens, embedding })?,
        false => numbers(embedding.iter()),
    };
    output::text(&(line + "\n"));
    Ok(())
}

/// The cosines of all pairs.
fn print_similarities(as_json: bool, vectors: &[Vec<f32>]) -> Result<(), Error> {
    let row = |a: &Vec<f32>| -> Vec<f64> {
        vectors.iter().map(|b| cosine(a.iter().copied(), b.iter().copied())).collect()
    };
    for vector in vectors {
        let row = row(vector);
        let line = match as_json {
            true => json_line(&row)?,
            false => row.iter().map(|cosine| format!("{cosine:>8.4}")).collect::<Vec<_>>().join(" "),
        };
        output::text(&(line + "\n"));
    }
    Ok(())
}

fn json_line(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::system("print a vector", &error))
}

/// Numbers with as few digits as tell them from others, a space between.
fn numbers<'n>(numbers: impl Iterator<Item = &'n f32>) -> String {
    let mut line = String::new();
    for number in numbers {
        let space = if line.is_empty() { "" } else { " " };
        // A string takes all that is written to it.
        let _ = write!(line, "{space}{number}");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_as_they_were() {
        let all = [0.1_f32, -1e-30, f32::MAX, 0.0];
        let line = numbers(all.iter());
        let back: Vec<f32> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        assert_eq!(back, all);
        assert_eq!(normalized(&[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalized(&[0.0, 0.0]), [0.0, 0.0]);
    }
}
