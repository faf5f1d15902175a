//! Tells the linker where the microcontroller's memory is, and the compiler where the image's container is (targets/firmware/embedded.rs).

#[path = "../firmware/embedded.rs"]
mod embedded;

/// Origin and bytes of code memory, then of data memory: 4 MiB each (Arm, "Application Note AN500", table 3-1; QEMU maps no more of its SSRAM).
const MEMORY: &str = "0,4194304,0x20000000,4194304";
const STACK_BYTES: &str = "98304";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(out) = embedded::container()? else { return Ok(()) };
    let memory = embedded::variable("RESCOMP_MEMORY", MEMORY);
    let numbers: Vec<&str> = memory.split(',').collect();
    let [code, code_bytes, data, data_bytes] = numbers[..] else {
        return Err(format!("RESCOMP_MEMORY: expected four numbers, found `{memory}`").into());
    };
    let stack = embedded::variable("RESCOMP_STACK", STACK_BYTES);
    // cortex-m-rt's link.x includes it. The stack lies at the beginning of data memory and grows out of it where it overflows, which faults; above
    // variables and session memory it would grow into them.
    let regions = format!(
        "MEMORY\n{{\n  FLASH : ORIGIN = {code}, LENGTH = {code_bytes}\n  \
         RAM : ORIGIN = {data} + {stack}, LENGTH = {data_bytes} - {stack}\n}}\n\
         _stack_start = ORIGIN(RAM);\n_stack_end = {data};\n__data_end = ORIGIN(RAM) + LENGTH(RAM);\n"
    );
    std::fs::write(out.join("memory.x"), regions)?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["-Tlink.x", "-Tdefmt.x", "--nmagic"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=--defsym=__stack_bytes={stack}");
    Ok(())
}
