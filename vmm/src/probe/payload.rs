//! The test guest: long mode from the first instruction, one `out` after each thing that worked.

use std::fmt;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kvm_bindings::{kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use serde::Serialize;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::Unfit;

/// What the guest does, in this order. Its number is what it writes to [`PORT`] when done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Stage {
    /// Executing 64-bit code with paging on.
    LongMode = 1,
    /// `lock cmpxchg16b`, used by the kernel's allocator (SLUB) from its first allocation.
    Cmpxchg16b = 2,
    /// `xsetbv`, `xsave`, `xrstor`: FPU state, used at every context switch.
    Xrstor = 3,
    /// `int3` through the IDT and back: the kernel patches its own code under it.
    Int3 = 4,
    /// A page fault taken, the page mapped by the handler, the access repeated.
    PageFault = 5,
}

const STAGES: [Stage; 5] = [
    Stage::LongMode,
    Stage::Cmpxchg16b,
    Stage::Xrstor,
    Stage::Int3,
    Stage::PageFault,
];

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LongMode => "64-bit mode",
            Self::Cmpxchg16b => "cmpxchg16b",
            Self::Xrstor => "xsave/xrstor",
            Self::Int3 => "int3",
            Self::PageFault => "a page fault",
        })
    }
}

/// Debug port of the test guest.
const PORT: u16 = 0xf4;
/// Guest memory map (bytes): page tables, GDT, IDT, code, data and stack in the first 64 KiB;
/// the rest of the first 2 MiB page is mapped 1:1, the second one is left for the page fault.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const GDT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const CODE: u64 = 0x6000;
const DATA: u64 = 0x8000;
const STACK_TOP: u64 = 0x1_0000;
const MEMORY: usize = 4 << 20;
/// How long the guest may take; it needs microseconds, the rest is for loaded hosts.
const LIMIT: Duration = Duration::from_secs(20);

// rsi = DATA (64-byte aligned), rsp = stack. Handlers sit at the labels the IDT is built from.
std::arch::global_asm!(
    ".pushsection .rodata",
    ".balign 16",
    "cumulet_probe_start:",
    "  mov al, 1",
    "  out 0xf4, al",
    // cmpxchg16b: memory is zero, rdx:rax zero -> rcx:rbx stored.
    "  xor eax, eax",
    "  xor edx, edx",
    "  mov ebx, 0x1234",
    "  xor ecx, ecx",
    "  lock cmpxchg16b [rsi]",
    "  jnz 9f",
    "  cmp qword ptr [rsi], 0x1234",
    "  jne 9f",
    "  mov al, 2",
    "  out 0xf4, al",
    // XCR0 = x87 + SSE; save, load back.
    "  xor ecx, ecx",
    "  xor edx, edx",
    "  mov eax, 3",
    "  xsetbv",
    "  mov eax, 3",
    "  xor edx, edx",
    "  xsave [rsi + 0x400]",
    "  mov eax, 3",
    "  xor edx, edx",
    "  xrstor [rsi + 0x400]",
    "  mov al, 3",
    "  out 0xf4, al",
    // int3: the handler counts in r8.
    "  xor r8d, r8d",
    "  int3",
    "  cmp r8d, 1",
    "  jne 9f",
    "  mov al, 4",
    "  out 0xf4, al",
    // A read of the second 2 MiB page: not present until the handler maps it.
    "  mov rdi, 0x200000",
    "  mov rax, [rdi]",
    "  mov al, 5",
    "  out 0xf4, al",
    "9:",
    "  mov al, 0xff",
    "  out 0xf4, al",
    "  jmp 9b",
    "cumulet_probe_int3:",
    "  inc r8d",
    "  iretq",
    "cumulet_probe_fault:",
    "  mov rax, 0x200083",
    "  mov [0x3008], rax",
    "  add rsp, 8",
    "  iretq",
    "cumulet_probe_end:",
    ".popsection",
);

unsafe extern "C" {
    static cumulet_probe_start: u8;
    static cumulet_probe_int3: u8;
    static cumulet_probe_fault: u8;
    static cumulet_probe_end: u8;
}

/// The machine code, and the offsets of its two handlers.
fn code() -> (&'static [u8], u64, u64) {
    let start = &raw const cumulet_probe_start;
    let distance = |label: *const u8| label.addr() - start.addr();
    let len = distance(&raw const cumulet_probe_end);
    // SAFETY: both labels are in the one read-only block assembled above, `end` behind `start`.
    let code = unsafe { std::slice::from_raw_parts(start, len) };
    let int3 = distance(&raw const cumulet_probe_int3);
    let fault = distance(&raw const cumulet_probe_fault);
    (code, int3 as u64, fault as u64)
}

/// Builds the guest, runs it, and says what it passed.
pub(super) fn run(kvm: &Kvm) -> Result<Vec<Stage>, Unfit> {
    let vm = kvm.create_vm().map_err(|e| match e.errno() {
        libc::EBUSY => Unfit::Busy,
        _ => Unfit::Setup {
            action: "make a virtual machine",
            source: e.into(),
        },
    })?;
    let memory = load().map_err(|source| Unfit::Setup {
        action: "fill memory",
        source,
    })?;
    map(&vm, &memory)?;
    let vcpu = start(kvm, &vm)?;
    let outcome = watch(vcpu)?;
    drop(memory);
    outcome
}

fn setup(action: &'static str) -> impl Fn(kvm_ioctls::Error) -> Unfit {
    move |e| Unfit::Setup {
        action,
        source: e.into(),
    }
}

fn load() -> io::Result<GuestMemoryMmap> {
    let memory: GuestMemoryMmap =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(io::Error::other)?;
    let put = |at: u64, value: u64| {
        memory
            .write_obj(value, GuestAddress(at))
            .map_err(io::Error::other)
    };
    // Present + writable; the PD's first entry is a 2 MiB page.
    put(PML4, PDPT | 3)?;
    put(PDPT, PD | 3)?;
    put(PD, 0x83)?;
    put(GDT + 8, 0x00af_9b00_0000_ffff)?;
    put(GDT + 16, 0x00cf_9300_0000_ffff)?;
    let (bytes, int3, fault) = code();
    memory
        .write_slice(bytes, GuestAddress(CODE))
        .map_err(io::Error::other)?;
    for (vector, offset) in [(3, int3), (14, fault)] {
        // A present 64-bit interrupt gate (Intel SDM vol 3 §6.14.1); handlers are below 64 KiB.
        put(
            IDT + vector * 16,
            (CODE + offset) | (8 << 16) | (0x8e00 << 32),
        )?;
    }
    Ok(memory)
}

fn map(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Unfit> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr().addr() as u64,
        };
        // SAFETY: the mapping is owned by `memory`, which outlives the machine's only vCPU thread.
        unsafe { vm.set_user_memory_region(region) }.map_err(setup("take guest memory"))?;
    }
    Ok(())
}

fn start(kvm: &Kvm, vm: &VmFd) -> Result<VcpuFd, Unfit> {
    vm.set_tss_address(0xfffb_d000)
        .map_err(setup("place its TSS"))?;
    vm.create_irq_chip()
        .map_err(setup("make an interrupt controller"))?;
    let vcpu = vm.create_vcpu(0).map_err(setup("make a vCPU"))?;
    let cpuid = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(setup("list CPUID leaves"))?;
    vcpu.set_cpuid2(&cpuid)
        .map_err(setup("take CPUID leaves"))?;

    let mut sregs = vcpu.get_sregs().map_err(setup("give special registers"))?;
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 8,
        type_: 0xb,
        present: 1,
        dpl: 0,
        db: 0,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        selector: 16,
        type_: 3,
        db: 1,
        l: 0,
        ..code
    };
    sregs.cs = code;
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    (sregs.gdt.base, sregs.gdt.limit) = (GDT, 23);
    (sregs.idt.base, sregs.idt.limit) = (IDT, 15 * 16 - 1);
    sregs.cr3 = PML4;
    // PE, MP, ET, NE, WP, PG; PAE, OSFXSR, OSXSAVE; LME, LMA (Intel SDM vol 3 §2.5, §2.2.1).
    sregs.cr0 = 0x8001_0033;
    sregs.cr4 = 0x4_0220;
    sregs.efer = 0x500;
    vcpu.set_sregs(&sregs).map_err(setup("enter long mode"))?;
    vcpu.set_regs(&kvm_regs {
        rip: CODE,
        rsp: STACK_TOP,
        rsi: DATA,
        rflags: 2,
        ..Default::default()
    })
    .map_err(setup("set registers"))?;
    Ok(vcpu)
}

extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Runs the vCPU on its own thread so that a guest which never ends can be stopped.
fn watch(vcpu: VcpuFd) -> Result<Result<Vec<Stage>, Unfit>, Unfit> {
    let fault = |source: io::Error| Unfit::Setup {
        action: "start a vCPU thread",
        source,
    };
    let signal = SIGRTMIN();
    register_signal_handler(signal, kicked).map_err(|e| fault(e.into()))?;
    let (done, wait) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("kvm-probe".into())
        .spawn(move || done.send(execute(vcpu)).is_ok())
        .map_err(fault)?;
    let mut limit = LIMIT;
    loop {
        match wait.recv_timeout(limit) {
            Ok(outcome) => {
                // The thread has nothing left to do; joining keeps guest memory safe to unmap.
                let _ = thread.join();
                return Ok(outcome);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(fault(io::Error::other("it panicked")));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // SAFETY: the thread has not been joined, so its id is valid.
                unsafe { libc::pthread_kill(thread.as_pthread_t(), signal) };
                limit = Duration::from_millis(50);
            }
        }
    }
}

fn execute(mut vcpu: VcpuFd) -> Result<Vec<Stage>, Unfit> {
    let mut passed = Vec::new();
    loop {
        let stuck = |detail: String| {
            let stage = STAGES
                .get(passed.len())
                .copied()
                .unwrap_or(Stage::PageFault);
            Err(Unfit::Instruction { stage, detail })
        };
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT, &[number])) => {
                match STAGES.iter().find(|stage| **stage as u8 == number) {
                    Some(stage) if passed.len() + 1 == usize::from(number) => passed.push(*stage),
                    _ => return stuck("it computed a wrong result".into()),
                }
                if passed.len() == STAGES.len() {
                    return Ok(passed);
                }
            }
            Ok(VcpuExit::InternalError) => return stuck("KVM internal error".into()),
            Ok(VcpuExit::Shutdown) => return stuck("triple fault".into()),
            Ok(exit) => return stuck(format!("unexpected exit {exit:?}")),
            Err(e) if e.errno() == libc::EINTR => {
                return stuck(format!("no progress within {} s", LIMIT.as_secs()));
            }
            Err(e) => return stuck(format!("KVM_RUN: {e}")),
        }
    }
}
