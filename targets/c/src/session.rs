//! A session in the caller's memory.

use core::ffi::c_void;
use core::{slice, str};

use rescomp_firmware::{TILE, check, generate};
use rescomp_formats::container::{CheckedContainer, Container, Integrity};
use rescomp_runtime::Machine;
use rescomp_runtime::executor::Serial;
use rescomp_runtime::kernels::{self, Kernels};
use rescomp_runtime::linear::ActivationFormat;
use rescomp_runtime::memory::{BLOCK_BYTES, MemoryBlock};
use rescomp_runtime::session::{self, Limits, SessionPlan};
use rescomp_runtime::tokenizer::Tokenizer;

use crate::status::Status;

/// The longest prompt, in bytes.
pub const RESCOMP_MAX_PROMPT_BYTES: usize = 512;
const _: () = assert!(RESCOMP_MAX_PROMPT_BYTES == rescomp_firmware::MAX_PROMPT_BYTES);

/// An open container and its sequence; it lives at the beginning of the caller's memory.
#[derive(Debug)]
pub struct Session {
    container: CheckedContainer<'static>,
    kernels: &'static Kernels,
    /// Behind this struct.
    memory: *mut MemoryBlock,
    blocks: usize,
    limits: Limits,
    /// None until tokens run.
    running: Option<session::Session<'static>>,
}

/// Blocks of a [`Session`].
const OWN_BLOCKS: usize = size_of::<Session>().div_ceil(BLOCK_BYTES as usize);
const _: () = assert!(align_of::<Session>() <= align_of::<MemoryBlock>());

/// What a session needs and has.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Plan {
    /// Bytes of memory, exactly: a multiple of 64.
    pub memory_bytes: usize,
    /// Positions of the sequence.
    pub context: usize,
    /// The model's.
    pub largest_context: usize,
    /// What `rescomp_check` needs of them.
    pub check_context: usize,
    /// Tokens.
    pub vocabulary: usize,
}

/// What a check found.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Check {
    /// Mean negative log-likelihood of the full-precision model, nats a token.
    pub reference_nll: f64,
    /// What the host recorded.
    pub host_nll: f64,
    /// What this device measured.
    pub device_nll: f64,
    /// Mean KL divergence from the full-precision model on the host, nats a token.
    pub host_kl: f64,
    /// Likewise on this device.
    pub device_kl: f64,
    /// Positions whose most likely token is the full-precision model's, on this device.
    pub same_top1: u32,
    /// Positions.
    pub positions: u32,
    /// SHA-256 of this device's logits.
    pub logits_sha256: [u8; 32],
}

/// Takes a piece of text, which isn't ended by a zero; `user` is what the caller gave with it.
pub type Sink = Option<unsafe extern "C" fn(user: *mut c_void, text: *const u8, bytes: usize)>;

/// The bytes at a pointer.
///
/// # Safety
/// They are there for as long as `'a`.
unsafe fn bytes<'a>(start: *const u8, count: usize) -> Result<&'a [u8], Status> {
    match (start.is_null(), count) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Status::Pointer),
        // SAFETY: the caller's promise.
        (false, _) => Ok(unsafe { slice::from_raw_parts(start, count) }),
    }
}

/// Opens the container at a pointer.
///
/// # Safety
/// As [`bytes`].
unsafe fn container<'a>(start: *const u8, count: usize) -> Result<CheckedContainer<'a>, Status> {
    if !start.cast::<MemoryBlock>().is_aligned() {
        return Err(Status::Pointer);
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(start, count) }?;
    let open = || Container::open(bytes)?.check(Integrity::Crc);
    open().map_err(|_| Status::Container)
}

/// The session's limits for a context, or for all of the model's where it is 0.
fn limits(container: &CheckedContainer<'_>, context: usize) -> Limits {
    let most = container.manifest().spec.context as usize;
    Limits { context: if context == 0 { most } else { context }, tile: TILE }
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::Ok)
}

/// Says how much memory a session of `context` positions needs; 0 for all of the model's.
///
/// # Safety
/// `container_bytes` bytes are at `container_start`, which begins at a multiple of 64; `plan` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_plan_session(
    container_start: *const u8,
    container_bytes: usize,
    context: usize,
    plan: *mut Plan,
) -> Status {
    status((|| {
        if plan.is_null() {
            return Err(Status::Pointer);
        }
        // SAFETY: the caller's promise.
        let container = unsafe { container(container_start, container_bytes) }?;
        let windows = container.check_windows().ok_or(Status::Container)?;
        let limits = limits(&container, context);
        let session = SessionPlan::new(&container, limits)?;
        let spec = &container.manifest().spec;
        let found = Plan {
            memory_bytes: OWN_BLOCKS * BLOCK_BYTES as usize + session.bytes() as usize,
            context: limits.context,
            largest_context: spec.context as usize,
            check_context: windows.sizes().positions,
            vocabulary: spec.vocabulary as usize,
        };
        // SAFETY: not null, and the caller's promise.
        unsafe { plan.write(found) };
        Ok(())
    })())
}

/// Opens a container in memory of the caller's and writes the session to `session`. Container and memory must stay where they are, and
/// nobody else may write them, for as long as the session is used. There is nothing to close.
///
/// # Safety
/// As for [`rescomp_plan_session`]; `memory_bytes` bytes can be written at `memory`, which begins at a multiple of 64; `session` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_open(
    container_start: *const u8,
    container_bytes: usize,
    context: usize,
    memory: *mut c_void,
    memory_bytes: usize,
    session: *mut *mut Session,
) -> Status {
    status((|| {
        let memory = memory.cast::<MemoryBlock>();
        if memory.is_null() || !memory.is_aligned() || session.is_null() {
            return Err(Status::Pointer);
        }
        // SAFETY: the caller's promise: it outlives the session.
        let container: CheckedContainer<'static> = unsafe { container(container_start, container_bytes) }?;
        if container.check_windows().is_none() {
            return Err(Status::Container);
        }
        let limits = limits(&container, context);
        let plan = SessionPlan::new(&container, limits)?;
        let blocks = memory_bytes / BLOCK_BYTES as usize;
        let Some(rest) = blocks.checked_sub(OWN_BLOCKS).filter(|&rest| rest as u64 >= plan.blocks()) else {
            return Err(Status::Memory);
        };
        let own = memory.cast::<Session>();
        // SAFETY: inside the memory, since more than OWN_BLOCKS are there.
        let memory = unsafe { memory.add(OWN_BLOCKS) };
        let opened =
            Session { container, kernels: kernels::best(), memory, blocks: rest, limits, running: None };
        // SAFETY: aligned and large enough, as the assertions above say.
        unsafe { own.write(opened) };
        // SAFETY: not null, and the caller's promise.
        unsafe { session.write(own) };
        Ok(())
    })())
}

/// A session, by its fields: what runs borrows the container beside it, so no reference may cover both.
#[derive(Clone, Copy)]
struct Handle(*mut Session);

/// The session at a pointer.
///
/// # Safety
/// It is one that [`rescomp_open`] made and nobody else uses now.
unsafe fn open_session(session: *mut Session) -> Result<Handle, Status> {
    if session.is_null() { Err(Status::Pointer) } else { Ok(Handle(session)) }
}

impl Handle {
    fn container(self) -> &'static CheckedContainer<'static> {
        // SAFETY: `open_session`'s promise; the container never changes, and stays where it is.
        unsafe { &(*self.0).container }
    }

    fn kernels(self) -> &'static Kernels {
        // SAFETY: `open_session`'s promise.
        unsafe { (*self.0).kernels }
    }

    /// The running sequence, where there is one. One at a time is asked for.
    fn running(self) -> &'static mut Option<session::Session<'static>> {
        // SAFETY: `open_session`'s promise; nothing else refers to this field.
        unsafe { &mut (*self.0).running }
    }

    /// The memory behind the session, from which the sequence is gone.
    fn memory(self) -> &'static mut [MemoryBlock] {
        *self.running() = None;
        // SAFETY: `open_session`'s promise.
        let start = unsafe { (*self.0).memory };
        // SAFETY: likewise.
        let blocks = unsafe { (*self.0).blocks };
        // SAFETY: the caller's memory, which outlives the session; what was carved from it is gone, and what is returned here is not kept
        // beside a running sequence.
        unsafe { slice::from_raw_parts_mut(start, blocks) }
    }

    /// The running sequence; a new one where there is none.
    fn sequence(self) -> Result<&'static mut session::Session<'static>, Status> {
        if self.running().is_none() {
            let memory = self.memory();
            // SAFETY: `open_session`'s promise.
            let limits = unsafe { (*self.0).limits };
            let machine = Machine { kernels: self.kernels(), executor: &Serial };
            let made =
                session::Session::new(self.container(), machine, limits, ActivationFormat::Int8, memory)?;
            *self.running() = Some(made);
        }
        self.running().as_mut().ok_or(Status::Memory)
    }
}

/// Compares this device with what the host recorded: every kernel, then the container's windows, a token at a time and several at a time.
/// `RESCOMP_STATUS_OK` where every logit has the host's bits, `RESCOMP_STATUS_DIFFERS` where one hasn't. The sequence is forgotten.
///
/// # Safety
/// `session` is one that [`rescomp_open`] made; `result` can be written or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_check(session: *mut Session, result: *mut Check) -> Status {
    status((|| {
        // SAFETY: the caller's promise.
        let session = unsafe { open_session(session) }?;
        let report = check(session.container(), session.kernels(), session.memory(), |_, _| ())?;
        if !result.is_null() {
            let found = Check {
                reference_nll: report.host.reference_nll,
                host_nll: report.host.nll,
                device_nll: report.device.nll,
                host_kl: report.host.mean_kl,
                device_kl: report.device.mean_kl,
                same_top1: report.device.same_top1,
                positions: report.device.positions,
                logits_sha256: report.device.logits_sha256,
            };
            // SAFETY: not null, and the caller's promise.
            unsafe { result.write(found) };
        }
        if report.passed() { Ok(()) } else { Err(Status::Differs) }
    })())
}

/// Continues a prompt with the most likely tokens, at most `max_tokens`, and hands their text to `sink` as soon as it is whole. The
/// sequence before is forgotten. The answer also ends where the model ends it, and where the context is full.
///
/// # Safety
/// `session` is one that [`rescomp_open`] made; `prompt_bytes` bytes are at `prompt`; `sink` may be called with `user`, and doesn't use the
/// session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_generate(
    session: *mut Session,
    prompt: *const u8,
    prompt_bytes: usize,
    max_tokens: usize,
    sink: Sink,
    user: *mut c_void,
) -> Status {
    status((|| {
        // SAFETY: the caller's promise.
        let session = unsafe { open_session(session) }?;
        // SAFETY: likewise.
        let prompt = unsafe { bytes(prompt, prompt_bytes) }?;
        let prompt = str::from_utf8(prompt).map_err(|_| Status::Text)?;
        let sink = sink.ok_or(Status::Pointer)?;
        generate(session.container(), session.kernels(), session.memory(), prompt, max_tokens, |text| {
            // SAFETY: the caller's promise.
            unsafe { sink(user, text.as_ptr(), text.len()) };
        })?;
        Ok(())
    })())
}

/// The tokens of a text, without a begin token. `tokens` needs four numbers a byte to be worked in; `count` is how many there are.
///
/// # Safety
/// `session` is one that [`rescomp_open`] made; `text_bytes` bytes are at `text`; `capacity` numbers can be written at `tokens`, and `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_encode(
    session: *mut Session,
    text: *const u8,
    text_bytes: usize,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
) -> Status {
    status((|| {
        // SAFETY: the caller's promise.
        let session = unsafe { open_session(session) }?;
        // SAFETY: likewise.
        let text = str::from_utf8(unsafe { bytes(text, text_bytes) }?).map_err(|_| Status::Text)?;
        if tokens.is_null() || count.is_null() {
            return Err(Status::Pointer);
        }
        // SAFETY: not null, and the caller's promise.
        let tokens = unsafe { slice::from_raw_parts_mut(tokens, capacity) };
        let tokenizer = Tokenizer::new(session.container().tokenizer().ok_or(Status::Container)?);
        let found = tokenizer.encode(text, false, tokens).map_err(|_| Status::Text)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { count.write(found) };
        Ok(())
    })())
}

/// Runs tokens behind the sequence so far and writes where the logits of what follows the last one are: `vocabulary` numbers, until the
/// session is used again.
///
/// # Safety
/// `session` is one that [`rescomp_open`] made; `count` numbers are at `tokens`; `logits` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_run(
    session: *mut Session,
    tokens: *const u32,
    count: usize,
    logits: *mut *const f32,
) -> Status {
    status((|| {
        // SAFETY: the caller's promise.
        let session = unsafe { open_session(session) }?;
        if tokens.is_null() || logits.is_null() {
            return Err(Status::Pointer);
        }
        // SAFETY: not null, and the caller's promise.
        let tokens = unsafe { slice::from_raw_parts(tokens, count) };
        let found = session.sequence()?.run(tokens)?.as_ptr();
        // SAFETY: not null, and the caller's promise.
        unsafe { logits.write(found) };
        Ok(())
    })())
}

/// Forgets the sequence.
///
/// # Safety
/// `session` is one that [`rescomp_open`] made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rescomp_reset(session: *mut Session) -> Status {
    status((|| {
        // SAFETY: the caller's promise.
        *unsafe { open_session(session) }?.running() = None;
        Ok(())
    })())
}
