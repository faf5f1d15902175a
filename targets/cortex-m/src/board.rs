//! The program on the microcontroller.
#![allow(unsafe_code, reason = "the handler of faults")]

use core::arch::global_asm;
use core::hint::black_box;

use cortex_m as _;
use cortex_m_rt::entry;
use defmt_semihosting as _;
use heapless::String;
use rescomp_firmware::{Command, Failure, Generated, Report, Test, check, generate, open};
use rescomp_runtime::kernel_comparison::compare_products;
use rescomp_runtime::kernels;
use rescomp_runtime::memory::MemoryBlock;
use semihosting::process::ExitCode;

use crate::memory;

/// The container, aligned as one must be.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static CONTAINER: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/container.bin")));

#[entry]
fn main() -> ! {
    let Some(memory) = memory::take() else { exit(ExitCode::FAILURE) };
    memory::mark_stack();
    let result = run(memory);
    defmt::info!(
        "{=usize} of {=usize} bytes of stack used",
        memory::used_stack_bytes(),
        memory::stack_bytes()
    );
    match result {
        Ok(true) => exit(ExitCode::SUCCESS),
        Ok(false) => {
            defmt::error!("the logits are not the host's");
            exit(ExitCode::FAILURE)
        }
        Err(failure) => {
            defmt::error!("{}", failure);
            exit(ExitCode::FAILURE)
        }
    }
}

fn exit(code: ExitCode) -> ! {
    code.exit_process()
}

/// Runs the command. False where a check missed its bound.
fn run(memory: &mut [MemoryBlock]) -> Result<bool, Failure> {
    let command = Command::given()?;
    if cfg!(feature = "test-words") {
        match command.test {
            Some(Test::CompareKernels) => {
                let kernels = kernels::best();
                let equal = compare_products(kernels, memory)?;
                defmt::info!("{=usize} products of {=str} equal the portable ones", equal, kernels.name);
                return Ok(true);
            }
            Some(Test::OverflowStack) => {
                defmt::info!("{=usize} calls", overflow_stack(0));
                return Ok(false);
            }
            None => {}
        }
    }
    // An image without a container has the code of one with it, so that its size tells what room there is.
    let container = open(black_box(&CONTAINER.0))?;
    let kernels = kernels::best();
    defmt::info!(
        "{=str}: {=u8} bits, {=usize} bytes; {=usize} bytes of data memory; kernels {=str}",
        container.manifest().provenance.checkpoint.as_str(),
        container.manifest().provenance.bits,
        container.container().file_bytes(),
        size_of_val(memory),
        kernels.name
    );
    let mut passed = true;
    if command.check {
        let report = check(&container, kernels, memory, |done, of| {
            defmt::info!("checking: {=usize} of {=usize} windows", done, of);
        })?;
        show(&report);
        passed = report.passed();
    }
    if let Some(prompt) = &command.prompt {
        let mut text: String<64> = String::new();
        defmt::println!("story begins");
        defmt::println!("piece {=str}", prompt.as_str());
        let Generated { prompt_tokens, tokens, .. } =
            generate(&container, kernels, memory, prompt, command.max_tokens, |piece| {
                if text.push_str(piece).is_err() {
                    defmt::println!("piece {=str}", text.as_str());
                    text.clear();
                    if text.push_str(piece).is_err() {
                        defmt::println!("piece {=str}", piece);
                    }
                }
            })?;
        defmt::println!("piece {=str}", text.as_str());
        defmt::println!("story ends");
        defmt::info!("{=usize} tokens behind a prompt of {=usize}", tokens, prompt_tokens);
    }
    Ok(passed)
}

/// The line for programs, as [`Report`] writes it; numbers are formatted on the host.
fn show(report: &Report) {
    let device = &report.device;
    let [a, b, c, d, e, f, g, h] = words(&device.logits_sha256);
    let [i, j, k, l, m, n, o, p] = words(&report.prefill_logits_sha256);
    defmt::println!(
        "report kernels={=str} nll={=f64} kl={=f64} top1={=u32} positions={=u32} \
         digest={=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x} \
         prefill={=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x}{=u32:08x} passed={=bool}",
        report.kernels,
        device.nll,
        device.mean_kl,
        device.same_top1,
        device.positions,
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        j,
        k,
        l,
        m,
        n,
        o,
        p,
        report.passed()
    );
}

/// A digest as eight numbers, in the order of its digits.
fn words(digest: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(digest.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    words
}

// The stack pointer of a stack that overflowed is good for nothing, so the handler begins a new one: nobody returns to the old.
global_asm!(
    ".section .HardFault.rescomp,\"ax\",%progbits",
    ".global HardFault",
    ".type HardFault,%function",
    ".thumb_func",
    "HardFault:",
    "mrs r0, msp",
    "ldr r1, =_stack_start",
    "msr msp, r1",
    "b {fault}",
    ".ltorg",
    fault = sym fault,
);

/// A fault, such as an access beyond the memory: ends the program instead of standing still. `stack_pointer` is where the processor left the
/// registers, where there was room for them.
extern "C" fn fault(stack_pointer: usize) -> ! {
    if memory::is_overflow(stack_pointer) {
        defmt::error!("stack overflow: its {=usize} bytes are not enough", memory::stack_bytes());
    } else {
        // The return address and the address of the instruction lie behind five registers.
        let registers = stack_pointer as *const u32;
        // SAFETY: the processor wrote a frame of eight words there, within the stack.
        let (from, at) = unsafe { (registers.add(5).read(), registers.add(6).read()) };
        defmt::error!("hard fault at {=u32:#x}, called from {=u32:#x}", at, from);
    }
    exit(ExitCode::FAILURE)
}

/// Needs more stack than there is.
#[inline(never)]
fn overflow_stack(depth: usize) -> usize {
    let mut frame = black_box([depth; 64]);
    if black_box(depth) < usize::MAX {
        frame[0] = overflow_stack(depth + 1);
    }
    black_box(frame)[depth % 64]
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        defmt::error!("panic at {=str}:{=u32}", place.file(), place.line());
    }
    exit(ExitCode::FAILURE)
}
