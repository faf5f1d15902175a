//! Reads defmt's frames on standard input and prints each as a line, with the formats in the image's ELF file:
//!
//! ```text
//! rescomp-defmt-log IMAGE.elf < FRAMES
//! ```
//! A line break inside a message is written `\n`, a backslash twice. Levels but `info` stand in front.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use defmt_decoder::{DecodeError, Table};

fn main() -> ExitCode {
    match std::env::args().nth(1).ok_or_else(|| "expected an ELF file".to_owned()).and_then(|elf| run(&elf)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(elf: &str) -> Result<(), String> {
    let bytes = std::fs::read(elf).map_err(|error| format!("{elf}: {error}"))?;
    let table = Table::parse(&bytes).map_err(|error| format!("{elf}: {error}"))?;
    let table = table.ok_or_else(|| format!("{elf}: it has no table of defmt's formats"))?;
    let mut decoder = table.new_stream_decoder();
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut part = [0; 4096];
    loop {
        let count = input.read(&mut part).map_err(|error| format!("standard input: {error}"))?;
        if count == 0 {
            return Ok(());
        }
        decoder.received(&part[..count]);
        loop {
            let line = match decoder.decode() {
                Ok(frame) => {
                    let level = frame.level().map(|level| level.as_str()).filter(|level| *level != "info");
                    let level = level.map(|level| format!("{level}: ")).unwrap_or_default();
                    format!("{level}{}", frame.display_message())
                }
                Err(DecodeError::UnexpectedEof) => break,
                Err(DecodeError::Malformed) => "(a damaged defmt frame)".to_owned(),
            };
            let line = line.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
            let written = writeln!(output, "{line}").and_then(|()| output.flush());
            written.map_err(|error| format!("standard output: {error}"))?;
        }
    }
}
