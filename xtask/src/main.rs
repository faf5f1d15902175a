//! The project's commands: `cargo xtask COMMAND`. This file dispatches; each command has its own.

mod allocation;
mod bench_calibration;
mod bench_decode;
mod bench_kernels;
mod bench_methods;
mod bench_quality;
mod board;
mod build_no_std;
mod c_library;
mod check;
mod classifier;
mod command;
mod compare;
mod deploy;
mod encoder;
mod error;
mod estimate;
mod eval;
mod export;
mod figures;
mod flags;
mod fuzz;
mod host;
mod hub;
mod image;
mod instructions;
mod interrupt;
mod model;
mod output;
mod pack;
mod progress;
mod qemu;
mod report;
mod root;
mod runner;
mod sanitize;
mod signing;
mod system;
mod target;
mod targets;
mod test;
mod tidy;
mod toolchain;
mod transform;

use std::process::ExitCode;

use clap::Parser;

use error::{Error, Exit};
use flags::{BenchCommand, Command, Flags};

fn main() -> ExitCode {
    let flags = Flags::parse();
    match interrupt::install().and_then(|()| dispatch(&flags.command)) {
        Ok(()) => ExitCode::from(Exit::Success.code()),
        Err(error) => {
            output::note(&format!("error: {error}"));
            ExitCode::from(error.exit().code())
        }
    }
}

fn dispatch(command: &Command) -> Result<(), Error> {
    match command {
        Command::Pack(flags) => pack::run(flags),
        Command::Check(flags) => check::run(flags),
        Command::Eval(flags) => eval::run(flags),
        Command::Export(flags) => export::run(flags),
        Command::Estimate(flags) => estimate::run(flags),
        Command::Bench(BenchCommand::Quality(flags)) => bench_quality::run(flags),
        Command::Bench(BenchCommand::Methods(flags)) => bench_methods::run(flags),
        Command::Bench(BenchCommand::Calibration(flags)) => bench_calibration::run(flags),
        Command::Bench(BenchCommand::Decode(flags)) => bench_decode::run(flags),
        Command::Bench(BenchCommand::Kernels(flags)) => bench_kernels::run(flags),
        Command::Report(flags) => report::run(flags),
        Command::Test(flags) => test::run(flags),
        Command::Deploy(flags) => deploy::run(flags),
        Command::Keygen(flags) => signing::keygen(flags),
        Command::Sign(flags) => signing::sign(flags),
        Command::BuildNoStd(flags) => build_no_std::run(flags),
        Command::Compare(flags) => compare::run(flags),
        Command::CLibrary(flags) => c_library::run(flags),
        Command::Fuzz(flags) => fuzz::run(flags),
        Command::Sanitize(flags) => sanitize::run(flags),
        Command::Tidy => tidy::run(),
        Command::Targets(flags) => targets::run(flags),
    }
}
