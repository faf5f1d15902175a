//! Images for devices without an operating system: built with the container in them, run on emulated boards, their words read.
//!
//! ```text
//! build(container) -> Image     cargo build, the container's path in RESCOMP_CONTAINER, the memory in RESCOMP_MEMORY
//! run(board, words) -> Said     qemu-system-ARCH -M BOARD -kernel IMAGE, the words by semihosting
//! ```

pub(crate) mod description;
mod flat;
mod log;
pub(crate) mod plan;
mod sizes;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use rescomp_firmware::{Command as Firmware, Failure, TILE, generate};
use rescomp_runtime::kernels;
use rescomp_runtime::memory::{AlignedBytes, MemoryBlock};
use rescomp_runtime::parts::Parts;
use rescomp_runtime::session::{Limits, SessionPlan};

use crate::check::CONTAINER_FILE;
use crate::command;
use crate::error::Error;
use crate::interrupt::write_whole;
use crate::runner::DeviceReport;
use crate::system::{Install, Packages, Privilege, System};
use crate::target::{Runner, Target};
use crate::toolchain;
use crate::{model, output, root};
use description::{Board, ImageDescription};
use log::{Log, Said};
pub(crate) use sizes::Sizes;

/// Time limit of a run: emulation is some fifty times slower than a host.
const RUN_LIMIT: Duration = Duration::from_secs(1200);

/// Name of the ELF file in an output folder.
pub(crate) const ELF_FILE: &str = "rescomp.elf";
/// Name of a flat image in an output folder: what a Raspberry Pi's boot loader looks for.
pub(crate) const KERNEL_FILE: &str = "kernel8.img";

/// A built image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Its ELF file, with symbols and defmt's table.
    pub(crate) elf: PathBuf,
    /// What a boot loader, or QEMU, loads: the flat image where the board wants one, else the ELF file.
    pub(crate) kernel: PathBuf,
    runner: Runner,
}

impl Image {
    /// The files to deploy, with their names.
    pub(crate) fn files(&self) -> Vec<(&'static str, &Path)> {
        let mut files = vec![(ELF_FILE, self.elf.as_path())];
        if self.kernel != self.elf {
            files.push((KERNEL_FILE, self.kernel.as_path()));
        }
        files
    }
}

/// What an image is made of, besides the program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Contents<'a> {
    /// This container, and the parts of the runtime that it needs.
    Container(&'a [u8]),
    /// These parts, and no container: tells whether it builds and how large it is by itself.
    Parts(Parts),
    /// All parts, words that test, and no container.
    Tests,
}

impl Contents<'_> {
    /// The features of the program's package.
    fn features(self) -> Result<Vec<String>, Error> {
        let parts = match self {
            Contents::Container(file) => {
                let bytes = AlignedBytes::new(file);
                let container = model::container(Path::new(CONTAINER_FILE), &bytes)?;
                Parts::needed(&container).union(Parts::faster(&container.manifest().spec))
            }
            Contents::Parts(parts) => parts,
            Contents::Tests => Parts::BUILT,
        };
        let mut features: Vec<String> =
            parts.iter().map(|part| format!("rescomp-runtime/{}", part.feature())).collect();
        if let Contents::Tests = self {
            features.push("test-words".to_owned());
        }
        Ok(features)
    }
}

/// The profile that images of a runner are built with.
pub(crate) fn profile(runner: Runner) -> &'static str {
    match runner {
        Runner::CortexM => "image-small",
        Runner::BareAarch64 | Runner::Linux => "image",
    }
}

/// Builds the image of a target.
///
/// # Errors
/// `Exit::Missing` without a toolchain, `Exit::Failed` when it does not build or fit.
pub(crate) fn build(
    root: &Path,
    target: &Target,
    description: &ImageDescription,
    install: Install,
    contents: Contents<'_>,
) -> Result<Image, Error> {
    let toolchain = toolchain::find_image(target, install)?;
    let package = target.runner.package();
    let profile = profile(target.runner);
    let mut build = toolchain.build_image(root, package, profile, &contents.features()?);
    build.env("RESCOMP_MEMORY", memory_variable(description));
    build.env("RESCOMP_STACK", description.stack_bytes.to_string());
    // defmt leaves out what is below this level when it compiles; without it, everything but errors.
    build.env("DEFMT_LOG", "info");
    if let Contents::Container(container) = contents {
        let path = toolchain.target_directory.join("image-container.rescomp");
        write_whole(&path, container)?;
        build.env("RESCOMP_CONTAINER", path);
    }
    let status = command::run(&mut build, None)?;
    if !status.success() {
        let error = Error::failed(format!("{package} does not build for {} ({status})", toolchain.triple));
        return Err(match contents {
            Contents::Container(container) => error.because(format!(
                "the container has {} bytes, the memory of code and container {}",
                container.len(),
                description.code.bytes
            )),
            Contents::Parts(_) | Contents::Tests => error,
        });
    }
    let elf = toolchain.program_of(profile, package);
    if toolchain.aborts_at_panics() {
        sizes::check_no_panics(&elf)?;
    }
    let mut kernel = elf.clone();
    if target.runner == Runner::BareAarch64 {
        kernel = elf.with_file_name(KERNEL_FILE);
        let bytes = std::fs::read(&elf).map_err(|error| Error::disk("read", &elf, &error))?;
        let image = flat::flat(&bytes)
            .map_err(|why| Error::failed(format!("{}: no flat image: {why}", elf.display())))?;
        write_whole(&kernel, &image)?;
    }
    Ok(Image { elf, kernel, runner: target.runner })
}

/// Origin and bytes of code memory, and of data memory where there is one of its own.
fn memory_variable(description: &ImageDescription) -> String {
    let memories = [Some(description.code), description.data];
    let numbers = memories.into_iter().flatten().flat_map(|memory| [memory.origin, memory.bytes]);
    numbers.map(|number| format!("{number:#x}")).collect::<Vec<_>>().join(",")
}

/// QEMU for whole boards.
#[derive(Clone, Debug)]
pub(crate) struct Boards {
    program: PathBuf,
}

impl Boards {
    /// Finds the emulator of a target's boards on the search path, or installs it.
    ///
    /// # Errors
    /// `Exit::Missing` naming the command that helps.
    pub(crate) fn find(target: &Target, install: Install) -> Result<Boards, Error> {
        let name = match target.runner {
            Runner::BareAarch64 => "qemu-system-aarch64",
            _ => "qemu-system-arm",
        };
        if let Some(program) = command::in_path(name) {
            return Ok(Boards { program });
        }
        let (system, privilege) = (System::probe(), Privilege::probe());
        let packages = Packages::own(&["qemu-system-arm"]);
        let missing = Error::missing(format!("no {name} is on the search path: emulated boards need it"));
        if !system.has_apt() {
            return Err(missing.remedy(format!("{}: install the package with {name}", system.name())));
        }
        if install == Install::No || privilege == Privilege::None {
            return Err(missing.remedy(packages.shown(privilege)));
        }
        packages.install(privilege)?;
        let program = command::in_path(name);
        program.map(|program| Boards { program }).ok_or(missing.because("its package was installed"))
    }

    /// Runs the image on a board with these words, `check` or `generate ..`; lines for people go to standard error as they come.
    ///
    /// # Errors
    /// `Exit::Failed` when it does not start, takes too long, or says what can't be.
    pub(crate) fn run(&self, image: &Image, board: &Board, words: &[&str]) -> Result<(Said, bool), Error> {
        let decoder = match image.runner {
            Runner::CortexM => Some(build_decoder()?),
            _ => None,
        };
        let mut command = self.command(image, board, words);
        let shown = command::show(&command);
        output::note(&format!("$ {shown}"));
        let failed = |why: &str| Error::failed(format!("{}: {why}", board.name())).because(shown.clone());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed("the emulator does not start").caused_by(&error))?;
        let mut said = Said::default();
        let mut wrong = None;
        // What is heard: the emulator, or what decodes its frames.
        let mut stdout: Option<Box<dyn Read + Send>> = None;
        let mut decoding = None;
        match (child.stdout.take(), decoder) {
            (Some(frames), Some(decoder)) => {
                let mut command = Command::new(decoder);
                command.arg(&image.elf).stdin(frames).stdout(Stdio::piped());
                let mut process = command
                    .spawn()
                    .map_err(|error| failed("the decoder does not start").caused_by(&error))?;
                stdout = process.stdout.take().map(|stdout| Box::new(stdout) as _);
                decoding = Some(process);
            }
            (Some(text), None) => stdout = Some(Box::new(text)),
            (None, _) => {}
        }
        let heard = hear(&mut child, stdout, |line| {
            if let Err(why) = said.hear(line) {
                wrong.get_or_insert(why);
            }
        });
        if let Some(mut process) = decoding {
            let status =
                process.wait().map_err(|error| failed("the decoder was not heard").caused_by(&error))?;
            if !status.success() {
                return Err(failed(&format!("the decoder of its log ended with {status}")));
            }
        }
        let status =
            heard.map_err(|error| failed("the emulator was not heard to its end").caused_by(&error))?;
        let Some(success) = status else {
            return Err(failed(&format!("no end after {} s", RUN_LIMIT.as_secs())));
        };
        match wrong {
            Some(why) => Err(failed(&why)),
            None => Ok((said, success)),
        }
    }

    fn command(&self, image: &Image, board: &Board, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-M", &board.machine]);
        if let Some(cpu) = &board.cpu {
            command.args(["-cpu", cpu]);
        }
        let mut semihosting = "enable=on,target=native,arg=rescomp".to_owned();
        for word in words {
            // A comma ends a value, two are one.
            semihosting.push_str(&format!(",arg={}", word.replace(',', ",,")));
        }
        let quiet = match image.runner {
            // The serial line is what is heard.
            Runner::BareAarch64 => &["-serial", "stdio", "-nic", "none"][..],
            _ => &["-serial", "null"][..],
        };
        if let Some(megabytes) = board.memory_megabytes {
            command.args(["-m", &megabytes.to_string()]);
        }
        command.args(["-display", "none", "-monitor", "none"]).args(quiet);
        command.args(["-semihosting-config", &semihosting, "-kernel"]).arg(&image.kernel);
        command
    }

    /// What the image does without words on a board: the check, and a story.
    ///
    /// # Errors
    /// As [`Boards::run`], and where an image ends without one of them.
    pub(crate) fn check(&self, image: &Image, board: &Board) -> Result<(DeviceReport, String), Error> {
        let start = Instant::now();
        let (said, success) = self.run(image, board, &[])?;
        let place = format!("QEMU {}", board.name());
        for line in &said.lines {
            output::note(&format!("{}: {line}", board.name()));
        }
        match (said.report, said.story) {
            (Some(report), Some(story)) => Ok((report.report(place, start.elapsed().as_secs_f64()), story)),
            (report, _) => {
                let missing = if report.is_some() { "story" } else { "report" };
                let mut error = Error::failed(format!("{place}: the image gave no {missing}"));
                error = error.because(if success { "it ended well" } else { "it ended with an error" });
                Err(said
                    .lines
                    .iter()
                    .rev()
                    .take(3)
                    .rev()
                    .fold(error, |error, line| error.because(line.as_str())))
            }
        }
    }
}

impl Boards {
    /// What an image of [`Contents::Tests`] tests on a board: its kernels are the portable ones' equals, and a stack overflow is told as one.
    ///
    /// # Errors
    /// As [`Boards::run`], and where one differs.
    pub(crate) fn test(&self, image: &Image, board: &Board) -> Result<(), Error> {
        for (word, succeeds, expected) in [
            ("compare-kernels", true, "equal the portable ones"),
            ("overflow-stack", false, "stack overflow"),
        ] {
            let (said, success) = self.run(image, board, &[word])?;
            for line in &said.lines {
                output::line(&format!("{}: {word}: {line}", board.name()));
            }
            if success != succeeds || !said.lines.iter().any(|line| line.contains(expected)) {
                let error = Error::failed(format!("QEMU {}: {word}: expected `{expected}`", board.name()));
                return Err(said.lines.iter().fold(error, |error, line| error.because(line.as_str())));
            }
        }
        Ok(())
    }
}

/// How the files of an output folder are used, for the README there.
pub(crate) fn readme(target: &Target) -> String {
    let run = match target.runner {
        Runner::BareAarch64 => format!(
            "`{KERNEL_FILE}` is the whole system: on a Raspberry Pi 3 it replaces the file of that name on the first partition, other boot\n\
             loaders take it as an arm64 Linux image. It writes to the serial line (PL011).\n"
        ),
        _ => format!(
            "Write `{ELF_FILE}` to the microcontroller's flash and start it below a debugger that answers semihosting; it logs with defmt:\n\n\
             \x20   probe-rs run {ELF_FILE}\n\
             \x20   defmt-print -e {ELF_FILE} < LOG     # where the bytes of the log were kept\n"
        ),
    };
    format!(
        "{run}\nWithout words on the semihosting command line it runs the text windows inside the container, which must give the very logits that\n\
         the host recorded (`expected.json`: `passed=true` in the line `report`), and tells a short story. `check` and\n\
         `generate [--max-tokens N] PROMPT` are the words there are. The container is in the image; `model.rescomp` is a copy.\n"
    )
}

/// The story that an image tells without words, told by this machine with its fastest kernels.
///
/// # Errors
/// `Exit::Input` for a container that cannot be, `Exit::Failed` for one that does not run.
pub(crate) fn story_here(path: &Path) -> Result<String, Error> {
    let bytes = model::container_bytes(path)?;
    let container = model::container(path, &bytes)?;
    let failed = |error: Failure| Error::failed(format!("{}: {error}", path.display()));
    let command = Firmware::parse([]).map_err(|error| failed(error.into()))?;
    let prompt = command.prompt.unwrap_or_default();
    let limits = Limits { context: container.manifest().spec.context as usize, tile: TILE };
    let plan = SessionPlan::new(&container, limits).map_err(|error| failed(error.into()))?;
    let mut memory = vec![MemoryBlock::zeroed(); plan.blocks() as usize];
    let mut story = prompt.to_string();
    generate(&container, kernels::best(), &mut memory, &prompt, command.max_tokens, |piece| {
        story.push_str(piece)
    })
    .map_err(failed)?;
    Ok(story)
}

/// Builds what decodes defmt's frames, a package of a workspace of its own, and returns its path.
fn build_decoder() -> Result<PathBuf, Error> {
    let root = root::root()?;
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let folder = root::target_directory(&root).join("defmt-log");
    let mut build = Command::new(cargo);
    build.current_dir(root.join("targets/defmt-log")).args(["build", "--quiet", "--locked", "--target-dir"]);
    let status = command::run(build.arg(&folder), None)?;
    match status.success() {
        true => Ok(folder.join("debug/rescomp-defmt-log")),
        false => Err(Error::failed(format!("targets/defmt-log does not build ({status})"))),
    }
}

/// Reads what the child says to its end; whether it ended well, or nothing where it had to be ended.
fn hear(
    child: &mut Child,
    stdout: Option<Box<dyn Read + Send>>,
    mut line: impl FnMut(&str),
) -> std::io::Result<Option<bool>> {
    let mut log = Log::default();
    let Some(mut stdout) = stdout else {
        return child.wait().map(|status| Some(status.success()));
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count) = stdout.read(&mut bytes) {
            if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let in_time = loop {
        match receiver.recv_timeout(RUN_LIMIT.saturating_sub(start.elapsed())) {
            Ok(bytes) => log.receive(&bytes, &mut line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        child.kill()?;
    }
    let status = child.wait()?;
    // It ends with the pipe. What it could panic at is in this file.
    let _ = reader.join();
    Ok(in_time.then_some(status.success()))
}
