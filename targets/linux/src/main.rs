//! Runs a container on this machine: says what it is, proves that it computes what the host measured, generates text, talks,
//! makes vectors of texts, tells classes of images apart, serves, measures speed.
//!
//! This file dispatches; each command has its own. `trust` opens and checks the container, `machine` chooses kernels and
//! threads.

mod answer;
mod bandwidth;
mod bench;
mod bench_kernels;
mod chat;
mod check;
mod classifier;
mod classify;
mod conversation;
mod embed;
mod embedder;
mod error;
mod exit;
mod flags;
mod generate;
mod info;
mod interrupt;
mod machine;
mod mapped;
mod output;
mod pinning;
mod prompt;
mod serve;
mod stop;
mod table;
mod tensors;
mod text;
mod thread_choice;
mod trust;

use std::process::ExitCode;

use clap::Parser;

use error::Error;
use exit::Exit;
use flags::{Command, Flags};

fn main() -> ExitCode {
    let flags = Flags::parse();
    let exit = match interrupt::install().and_then(|()| dispatch(&flags.command)) {
        Ok(exit) => exit,
        Err(error) => {
            output::note(&format!("error: {error}"));
            error.exit()
        }
    };
    ExitCode::from(exit.code())
}

fn dispatch(command: &Command) -> Result<Exit, Error> {
    match command {
        Command::Info(flags) => info::run(flags),
        Command::Check(flags) => check::run(flags),
        Command::Generate(flags) => generate::run(flags),
        Command::Chat(flags) => chat::run(flags),
        Command::Embed(flags) => embed::run(flags),
        Command::Classify(flags) => classify::run(flags),
        Command::Serve(flags) => serve::run(flags),
        Command::Bench(flags) => bench::run(flags),
        Command::BenchKernels(flags) => bench_kernels::run(flags),
    }
}
