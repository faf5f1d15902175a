//! The serial line: a PL011 (Arm DDI 0183, chapter 3) that the boot loader, or QEMU, has set up.
#![allow(unsafe_code, reason = "registers of a device")]

use core::fmt;

/// Data register.
const DATA: usize = 0x00;
/// Flag register, and its bit that says that no more can be taken.
const FLAGS: usize = 0x18;
const FULL: u32 = 1 << 5;

/// A PL011.
#[derive(Clone, Copy)]
pub(crate) struct Serial {
    base: usize,
}

impl Serial {
    /// The one at this address.
    ///
    /// # Safety
    /// A PL011 is there, mapped as a device.
    pub(crate) const unsafe fn new(base: usize) -> Serial {
        Serial { base }
    }

    fn put(self, byte: u8) {
        // SAFETY: a register of the device that `new` was promised.
        while unsafe { ((self.base + FLAGS) as *const u32).read_volatile() } & FULL != 0 {}
        // SAFETY: likewise.
        unsafe { ((self.base + DATA) as *mut u32).write_volatile(byte.into()) };
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.put(byte));
        Ok(())
    }
}
