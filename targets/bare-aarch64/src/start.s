// From the boot loader to `main`: one core, exception level 1, NEON on, memory translated and cached.
//
//   park every core but the first; go down from level 3 or 2 to 1
//   clear the variables; map memory and devices; turn translation and caches on
//   go on where the linker put the image; set the stack and the exception vectors; call main
//
// Until translation is on the image lies where the boot loader put it, so addresses are found from the program counter (ADR, ADRP).
// Arm Architecture Reference Manual DDI 0487: D8.3 (descriptors), D24.2 (registers).

.section .head, "ax"
.global _start
_start:
    b       1f                      // the header of an arm64 Linux image, which boot loaders know
    .word   0
    .quad   0x80000                 // load this far above the beginning of memory
    .quad   __loaded_end - _start
    .quad   0x2                     // little-endian, pages of 4 KiB, at the beginning of memory
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .word   0

1:  mrs     x0, mpidr_el1
    ubfx    x0, x0, #0, #24         // affinity: the first core has 0 on all levels
    cbz     x0, 2f
park:
    wfe
    b       park

2:  mrs     x0, CurrentEL
    lsr     x0, x0, #2
    cmp     x0, #3
    b.ne    3f
    mov     x0, #0x5b1              // not secure, HVC on, SMC off, 64 bits below
    msr     scr_el3, x0
    msr     cptr_el3, xzr           // NEON is not trapped
    mov     x0, #0x3c9              // level 2 with its own stack, interrupts masked
    msr     spsr_el3, x0
    adr     x0, el2
    msr     elr_el3, x0
    eret
3:  cmp     x0, #2
    b.ne    el1
el2:
    mov     x0, #1
    lsl     x0, x0, #31             // level 1 has 64 bits
    msr     hcr_el2, x0
    mov     x0, #0x33ff             // reserved bits; NEON is not trapped
    msr     cptr_el2, x0
    msr     vttbr_el2, xzr
    ldr     x0, =0x30d00800         // translation and caches off, reserved bits
    msr     sctlr_el1, x0
    mov     x0, #0x3c5              // level 1 with its own stack, interrupts masked
    msr     spsr_el2, x0
    adr     x0, el1
    msr     elr_el2, x0
    eret

el1:
    mov     x0, #(3 << 20)          // NEON is not trapped
    msr     cpacr_el1, x0
    isb

    adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
4:  cmp     x0, x1
    b.hs    5f
    stp     xzr, xzr, [x0], #16
    b       4b

    // First level, 1 GiB an entry: 0 and 3 devices where they are, 1 the table below. Second level, 2 MiB an entry: as much memory as
    // the image's, from the beginning of the memory that the boot loader chose.
5:  adr     x2, _start
    and     x2, x2, #0xffffffffc0000000
    adrp    x0, first_level
    add     x0, x0, :lo12:first_level
    adrp    x1, second_level
    add     x1, x1, :lo12:second_level
    ldr     x3, =0x705              // a block of normal memory: accessed, inner shareable, attributes 1
    orr     x4, x2, x3
    // Where this runs until translation is on and the program counter follows: the memory's own place, for now.
    lsr     x5, x2, #30
    str     x4, [x0, x5, lsl #3]
    orr     x5, x1, #3
    ldr     x6, =RAM_ORIGIN
    lsr     x6, x6, #30
    // On boards whose memory is where the image is linked both are one entry, and the table holds.
    str     x5, [x0, x6, lsl #3]
    ldr     x6, =0x60000000000401   // a block of a device: accessed, never executed, attributes 0
    mov     x7, #0xc0000000
    orr     x7, x7, x6
    str     x7, [x0, #24]
    ldr     x7, =RAM_BYTES
    lsr     x7, x7, #21
6:  str     x4, [x1], #8
    add     x4, x4, #0x200000
    subs    x7, x7, #1
    b.ne    6b

    ldr     x1, =0xff04             // attributes 1: normal, write-back; 0: device
    msr     mair_el1, x1
    ldr     x1, =0x200803519        // 39 bits of address, pages of 4 KiB, tables cached, 40 physical bits
    msr     tcr_el1, x1
    msr     ttbr0_el1, x0
    dsb     sy
    tlbi    vmalle1
    ic      iallu
    dsb     sy
    isb
    mrs     x1, sctlr_el1
    mov     x3, #0x1005             // translation, data cache, instruction cache
    orr     x1, x1, x3
    bic     x1, x1, #2              // memory is read at any address
    msr     sctlr_el1, x1
    isb
    ldr     x1, =translated
    br      x1

translated:
    // Devices in place of the memory's own place, where that was the first GiB.
    ldr     x0, =first_level
    str     xzr, [x0]
    dsb     sy
    tlbi    vmalle1
    dsb     sy
    ldr     x1, =0x60000000000401
    str     x1, [x0]
    dsb     sy
    isb
    ldr     x0, =__stack_top
    mov     sp, x0
    ldr     x0, =vectors
    msr     vbar_el1, x0
    isb
    mov     x0, x2                  // where the memory is
    mov     x29, xzr
    mov     x30, xzr
    bl      main
    b       park

// Sixteen kinds of exceptions, 128 bytes each: all go one way.
.balign 2048
vectors:
.rept 16
    b       exception
    .balign 128
.endr

// HLT #0xf000 asks a debugger for something. Without one it is undefined: it answers -1 and the program goes on.
exception:
    sub     sp, sp, #32
    stp     x1, x2, [sp]
    str     x3, [sp, #16]
    mrs     x1, esr_el1
    lsr     x2, x1, #26
    cbnz    x2, 7f
    mrs     x2, elr_el1
    ldr     w3, [x2]
    movz    w1, #0xd45e, lsl #16
    cmp     w3, w1
    b.ne    7f
    add     x2, x2, #4
    msr     elr_el1, x2
    ldp     x1, x2, [sp]
    ldr     x3, [sp, #16]
    add     sp, sp, #32
    mov     x0, #-1
    eret
7:  mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      fault
    b       park

.section .bss
.balign 4096
first_level:
    .skip   4096
second_level:
    .skip   4096
