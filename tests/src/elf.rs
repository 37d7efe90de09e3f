//! Kernels of a few bytes: ELF files with a PVH entry (Xen: docs/misc/pvh.pandoc), for what no
//! real kernel does. The entry is 32-bit protected mode, flat, without paging.

/// Where the code is loaded and entered.
pub const ENTRY: u32 = 0x10_0000;

/// Writes `text` to the serial port and then powers off by ACPI (S5, sleep type 0 to 7 tried in
/// turn would be guessing: the code ends in an endless `hlt` instead).
#[must_use]
pub fn say_and_halt(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code.extend(HALT);
    kernel(&code)
}

/// A triple fault: an interrupt table of no entries, then an interrupt.
#[must_use]
pub fn triple_fault() -> Vec<u8> {
    // The six zero bytes that `lidt` reads follow the code: lidt (7) + int3 (1).
    let table = ENTRY + 8;
    let mut code = vec![0x0f, 0x01, 0x1d]; // lidt [table]
    code.extend(table.to_le_bytes());
    code.push(0xcc); // int3
    code.extend([0; 6]);
    kernel(&code)
}

/// Jumps to an address where no memory is: KVM cannot emulate code without bytes.
#[must_use]
pub fn run_from(address: u32) -> Vec<u8> {
    let mut code = vec![0xb8]; // mov eax, address
    code.extend(address.to_le_bytes());
    code.extend([0xff, 0xe0]); // jmp eax
    kernel(&code)
}

/// Nothing, with interrupts off, for ever.
#[must_use]
pub fn halt() -> Vec<u8> {
    kernel(&HALT)
}

/// cli; hlt; jmp to the hlt
const HALT: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// An ELF file for x86_64 that holds this code.
#[must_use]
pub fn kernel(code: &[u8]) -> Vec<u8> {
    elf(code, 62)
}

/// An ELF file for the machine of this number (62 x86_64, 183 aarch64).
#[must_use]
pub fn elf(code: &[u8], machine: u16) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    // A note: sizes of name and description, type 18 (XEN_ELFNOTE_PHYS32_ENTRY), both padded to 4.
    let mut note = Vec::new();
    for word in [4_u32, 4, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(ENTRY.to_le_bytes());
    let code_at = HEADERS + note.len() as u64;

    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2_u16.to_le_bytes()); // ET_EXEC
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for word in [u64::from(ENTRY), 64, 0] {
        file.extend(word.to_le_bytes()); // entry, program headers, section headers
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let entry = u64::from(ENTRY);
    program_header(&mut file, (1, 7), [code_at, entry, code.len() as u64]);
    program_header(&mut file, (4, 4), [HEADERS, 0, note.len() as u64]);
    file.extend(note);
    file.extend(code);
    file
}

/// Type and flags; offset in the file, address, size.
fn program_header(file: &mut Vec<u8>, kind: (u32, u32), place: [u64; 3]) {
    let [offset, address, size] = place;
    file.extend(kind.0.to_le_bytes());
    file.extend(kind.1.to_le_bytes());
    for word in [offset, address, address, size, size, 4] {
        file.extend(word.to_le_bytes());
    }
}
