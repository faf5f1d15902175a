//! What a command starts from: the checked container, the kernels and threads that run it, and a session's memory.

use std::path::Path;
use std::time::{Duration, Instant};

use memmap2::MmapMut;
use rescomp_formats::container::CheckedContainer;
use rescomp_runtime::Machine;
use rescomp_runtime::kernels::{self, Kernels};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::MemoryBlock;
use rescomp_runtime::self_check;
use rescomp_runtime::session::{Limits, Session, SessionPlan};
use rescomp_runtime::threads::ThreadPool;
use serde::Serialize;

use crate::error::Error;
use crate::flags::MachineFlags;
use crate::mapped;
use crate::pinning;
use crate::table::Table;
use crate::thread_choice;

/// Tokens that prefill runs at once: two of the widest kernels' tiles; more gains little and takes memory.
pub(crate) const TILE: usize = 16;

/// Kernels and threads.
#[derive(Debug)]
pub(crate) struct Engine {
    kernels: &'static Kernels,
    pool: ThreadPool,
}

impl Engine {
    /// The kernels and threads that the command line asks for, or those that run the container fastest.
    ///
    /// # Errors
    /// `Exit::Input` naming the kernels available or what is wrong with the container, or `Exit::Failed` where the system refuses
    /// a thread.
    pub(crate) fn new(flags: &MachineFlags, container: &CheckedContainer<'_>) -> Result<Engine, Error> {
        let kernels = chosen_kernels(flags)?;
        let pool = match flags.threads {
            Some(threads) => thread_pool(threads, flags.pin)?,
            None => thread_choice::choose(&flags.container, container, kernels, flags.pin)?,
        };
        Ok(Engine { kernels, pool })
    }

    /// What the runtime computes with.
    pub(crate) fn machine(&self) -> Machine<'_> {
        Machine { kernels: self.kernels, executor: &self.pool }
    }

    /// The kernels.
    pub(crate) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// The number of threads.
    pub(crate) fn threads(&self) -> usize {
        rescomp_runtime::executor::Executor::threads(&self.pool)
    }
}

/// Compares every kernel that the command line asks for with its known answer; returns how long that took.
///
/// # Errors
/// `Exit::Failed` naming the kernel that does not compute what it should.
pub(crate) fn self_check(flags: &MachineFlags) -> Result<Duration, Error> {
    let kernels = chosen_kernels(flags)?;
    let start = Instant::now();
    self_check::self_check(kernels).map_err(Error::wrong_machine)?;
    Ok(start.elapsed())
}

fn chosen_kernels(flags: &MachineFlags) -> Result<&'static Kernels, Error> {
    flags.kernels.as_deref().map_or_else(|| Ok(kernels::best()), kernels_called)
}

/// The kernel table of this name.
///
/// # Errors
/// `Exit::Input` naming those available.
pub(crate) fn kernels_called(name: &str) -> Result<&'static Kernels, Error> {
    kernels::by_name(name).ok_or_else(|| {
        let available = available_kernels().join(", ");
        Error::usage(format!("--kernels {name}: not available on this processor; available: {available}"))
    })
}

/// A pool of `threads`, where they are to be pinned each on a processor of its own.
///
/// # Errors
/// `Exit::Failed` where the system refuses a thread, `Exit::Input` where there are fewer processors than threads to be pinned.
pub(crate) fn thread_pool(threads: usize, pin: bool) -> Result<ThreadPool, Error> {
    match pin {
        true => pinning::pinned_pool(threads),
        false => ThreadPool::new(threads).map_err(|error| Error::system("start a thread", &error)),
    }
}

/// Names of the kernel tables that this processor runs, slowest first.
pub(crate) fn available_kernels() -> Vec<&'static str> {
    kernels::available().map(|kernels| kernels.name).collect()
}

/// A session's limits: `context` positions, and tiles that are no longer.
pub(crate) fn limits(context: usize) -> Limits {
    Limits { context, tile: TILE.min(context.max(1)) }
}

/// Positions of a conversation's session where nobody says.
const CONVERSATION_CONTEXT: usize = 4096;

/// The limits of a session that keeps a conversation: as many positions as were asked for, or as many as the model has, within reason.
pub(crate) fn conversation_limits(container: &CheckedContainer<'_>, asked: Option<usize>) -> Limits {
    let most = container.manifest().spec.context as usize;
    limits(asked.unwrap_or_else(|| most.min(CONVERSATION_CONTEXT)))
}

/// The memory of a session, allocated once and exactly: keys and values are read as weights are.
#[derive(Debug)]
pub(crate) struct SessionMemory(MmapMut);

impl SessionMemory {
    /// So many bytes; `None` where they are not to be had.
    pub(crate) fn new(bytes: u64) -> Option<SessionMemory> {
        mapped::large_pages(usize::try_from(bytes).ok()?).map(SessionMemory).ok()
    }

    /// All of it.
    pub(crate) fn blocks(&mut self) -> &mut [MemoryBlock] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// The memory of a session with these limits.
///
/// # Errors
/// `Exit::Input` where the limits aren't the model's or the memory isn't there.
pub(crate) fn session_memory(
    path: &Path,
    container: &CheckedContainer<'_>,
    limits: Limits,
) -> Result<SessionMemory, Error> {
    let plan = SessionPlan::new(container, limits).map_err(|error| Error::input(path, error))?;
    let too_much = || {
        let (bytes, context) = (plan.bytes(), limits.context);
        Error::input(path, format_args!("no memory for a session of {context} positions: {bytes} bytes"))
    };
    SessionMemory::new(plan.bytes()).ok_or_else(too_much)
}

/// A session with int8 activations, as on every device.
///
/// # Errors
/// `Exit::Input`.
pub(crate) fn session<'a>(
    path: &Path,
    container: &'a CheckedContainer<'a>,
    engine: &'a Engine,
    limits: Limits,
    memory: &'a mut [MemoryBlock],
) -> Result<Session<'a>, Error> {
    Session::new(container, engine.machine(), limits, ActivationFormat::Int8, memory)
        .map_err(|error| Error::input(path, error))
}

/// What a report was measured with.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    container: String,
    cpu: String,
    kernels: &'static str,
    threads: usize,
}

impl Place {
    /// This container, here.
    pub(crate) fn new(container: &Path, engine: &Engine) -> Place {
        Place {
            container: container.display().to_string(),
            cpu: cpu(),
            kernels: engine.kernels().name,
            threads: engine.threads(),
        }
    }

    /// Adds rows for people; they know the container.
    pub(crate) fn show(&self, table: &mut Table) {
        table.pair("processor", &self.cpu);
        table.pair("kernels", self.kernels);
        table.pair("threads", self.threads);
    }
}

/// Seconds to divide by: a clock too coarse for what it timed gives no infinity.
pub(crate) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().max(1e-9)
}

/// The processor as the system calls it, with its architecture: boards name themselves, PCs their processor.
pub(crate) fn cpu() -> String {
    let architecture = std::env::consts::ARCH;
    let board = std::fs::read_to_string("/proc/device-tree/model").ok();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = ["model name", "Model", "Hardware"].iter().find_map(|key| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == *key).then(|| value.trim().to_owned())
        })
    });
    match board.map(|board| board.trim_matches(['\0', ' ', '\n']).to_owned()).or(processor) {
        Some(name) if !name.is_empty() => format!("{name} ({architecture})"),
        _ => architecture.to_owned(),
    }
}
