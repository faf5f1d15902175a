//! `cargo xtask bench decode`: tokens a second of a container on this machine, by number of threads, beside the speed of its memory.
//!
//! The runner measures (`rescomp bench`), built as devices get it; on a device, run that command itself.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::check::{CONTAINER_FILE, dist};
use crate::error::Error;
use crate::flags::DecodeFlags;
use crate::system::Install;
use crate::target::{self, Target};
use crate::{command, output, root, runner};

/// What `rescomp bench --json` prints: the part that is shown here.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Run {
    cpu: String,
    kernels: String,
    threads: usize,
    repeats: usize,
    prefill: Speed,
    decode: Speed,
    weight_bytes_per_token: u64,
    decode_gigabytes_per_second: f64,
    read_gigabytes_per_second: f64,
    transforms: Option<Transforms>,
}

/// Hadamard transforms, of a model that was rotated for them.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Transforms {
    count: usize,
    seconds_per_token: f64,
    share_of_decode: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Speed {
    tokens: usize,
    tokens_per_second: f64,
    slowest: f64,
    fastest: f64,
    weights_by_kernel: serde_json::Value,
}

/// The report of the command.
#[derive(Debug, Serialize)]
struct Report {
    container: String,
    file_bytes: u64,
    runs: Vec<Run>,
}

/// Runs the command.
///
/// # Errors
/// `Exit::Missing` where the runner can't be built, `Exit::Input` for a container that is not there, `Exit::Failed` where the runner
/// fails.
pub(crate) fn run(flags: &DecodeFlags) -> Result<(), Error> {
    let root = root::root()?;
    let target = Target::load(target::of_host()?)?;
    let container = flags.container.clone().unwrap_or_else(|| dist(&root, &target).join(CONTAINER_FILE));
    let file_bytes = std::fs::metadata(&container)
        .map_err(|error| {
            Error::disk("read", &container, &error)
                .remedy(format!("cargo xtask pack --target {}, or give --container FILE", target.name))
        })?
        .len();
    let program = runner::build_program(&root, &target, Install::unless(flags.no_install), None)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if flags.threads.is_empty() { (1..=processors).collect() } else { flags.threads.clone() };
    let kernels: Vec<Option<&str>> = match flags.kernels.is_empty() {
        true => vec![None],
        false => flags.kernels.iter().map(|name| Some(name.as_str())).collect(),
    };
    let mut runs = Vec::new();
    for kernels in kernels {
        for &threads in &threads {
            runs.push(measured(&program, &container, threads, kernels, flags)?);
        }
    }
    let report = Report { container: container.display().to_string(), file_bytes, runs };
    match flags.json {
        true => output::line(&output::json(&report)?),
        false => output::line(&text_of(&report)),
    }
    Ok(())
}

fn measured(
    program: &Path,
    container: &Path,
    threads: usize,
    kernels: Option<&str>,
    flags: &DecodeFlags,
) -> Result<Run, Error> {
    let mut bench = std::process::Command::new(program);
    bench.arg("bench").arg(container).arg("--json").args(["--threads", &threads.to_string()]);
    bench.args(["--prompt-tokens", &flags.prompt_tokens.to_string()]);
    bench.args(["--tokens", &flags.tokens.to_string(), "--repeats", &flags.repeats.to_string()]);
    if let Some(kernels) = kernels {
        bench.args(["--kernels", kernels]);
    }
    output::note(&format!("$ {}", command::show(&bench)));
    let failed = || Error::failed("`rescomp bench` printed no report");
    let result = bench.output().map_err(|error| failed().caused_by(&error))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        return Err(
            Error::failed(format!("`rescomp bench` ended with {}", result.status)).because(said.trim())
        );
    }
    serde_json::from_slice(&result.stdout).map_err(|error| failed().caused_by(&error))
}

fn text_of(report: &Report) -> String {
    let mut lines = Vec::new();
    if let Some(Run { cpu, prefill, decode, repeats, weight_bytes_per_token, .. }) = report.runs.first() {
        lines.push(format!(
            "{}, {} bytes, {weight_bytes_per_token} of them weights that each token reads; {cpu}",
            report.container, report.file_bytes
        ));
        lines.push(format!(
            "tokens a second: the median of {repeats}; prefill of {} tokens, then {} decoded\n",
            prefill.tokens, decode.tokens
        ));
    }
    lines.push(
        "| kernels | threads | prefill | decode | decode, GB/s | reading alone, GB/s | share |".to_owned(),
    );
    lines.push("|---|---:|---:|---:|---:|---:|---:|".to_owned());
    for run in &report.runs {
        let share = 100.0 * run.decode_gigabytes_per_second / run.read_gigabytes_per_second;
        lines.push(format!(
            "| {} | {} | {:.1} | {:.1} | {:.2} | {:.2} | {share:.0} % |",
            run.kernels,
            run.threads,
            run.prefill.tokens_per_second,
            run.decode.tokens_per_second,
            run.decode_gigabytes_per_second,
            run.read_gigabytes_per_second
        ));
    }
    let transforms = report.runs.iter().filter_map(|run| run.transforms.as_ref().map(|found| (run, found)));
    lines.extend(transforms.map(|(run, found)| {
        format!(
            "\n{}, {} threads: {} Hadamard transforms take {:.1} us of a decoded token, {:.1} %",
            run.kernels,
            run.threads,
            found.count,
            1e6 * found.seconds_per_token,
            100.0 * found.share_of_decode
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_a_run() {
        let speed = Speed {
            tokens: 64,
            tokens_per_second: 200.0,
            slowest: 190.0,
            fastest: 210.0,
            weights_by_kernel: serde_json::Value::Null,
        };
        let run = |threads| Run {
            cpu: "cpu".to_owned(),
            kernels: "avx2".to_owned(),
            threads,
            repeats: 5,
            prefill: Speed { tokens: 128, ..speed.clone() },
            decode: speed.clone(),
            weight_bytes_per_token: 80_000_000,
            decode_gigabytes_per_second: 16.0,
            read_gigabytes_per_second: 20.0,
            transforms: (threads == 2).then_some(Transforms {
                count: 12,
                seconds_per_token: 1e-4,
                share_of_decode: 0.02,
            }),
        };
        let report = Report { container: "c".to_owned(), file_bytes: 81_000_000, runs: vec![run(1), run(2)] };
        let text = text_of(&report);
        assert!(text.contains("prefill of 128 tokens, then 64 decoded"), "{text}");
        assert!(text.contains("| avx2 | 2 | 200.0 | 200.0 | 16.00 | 20.00 | 80 % |\n"), "{text}");
        let transforms = "avx2, 2 threads: 12 Hadamard transforms take 100.0 us of a decoded token, 2.0 %";
        assert!(text.ends_with(transforms), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("| avx2")).count(), 2);
    }
}
