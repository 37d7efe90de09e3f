//! seccomp programs: a binary search over the system call's number.
//!
//! The kernel verifies and translates a program at every start, and runs it in an emulator once for
//! each system call there is, to know those that it always allows. So its length is start-up
//! time: a search over ranges of numbers takes half the instructions of a list of comparisons, and
//! a tenth of the steps.

use std::collections::BTreeMap;
use std::io;

/// `AUDIT_ARCH_X86_64` (linux/audit.h): the numbers mean something on this architecture only.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
/// `AUDIT_ARCH_AARCH64` (linux/audit.h).
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A jump further than BPF can.
    #[error("the filter's program is too long")]
    TooLong,
    /// The kernel.
    #[error("the kernel refused it")]
    Refused(#[from] io::Error),
}

/// An argument that allows its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    /// Which argument, from 0.
    pub(super) argument: u32,
    /// The bits looked at, of its lower half.
    pub(super) mask: u32,
    /// What they must be.
    pub(super) value: u32,
}

/// What happens at a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The kernel does it.
    Allow,
    /// SIGSYS: the process says which call it was, and ends.
    Trap,
    /// It fails with this error number.
    Fail(u16),
    /// It is done if one of the tests holds, else trapped.
    AllowIf(Vec<Test>),
}

/// A program for the kernel.
#[derive(Debug, Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Compiles a list of calls; all others are trapped. Of two verdicts for one call the later
    /// one counts.
    pub(super) fn new(
        rules: impl IntoIterator<Item = (libc::c_long, Verdict)>,
    ) -> Result<Self, FilterError> {
        let rules: BTreeMap<_, _> = rules
            .into_iter()
            .filter_map(|(call, verdict)| Some((u32::try_from(call).ok()?, verdict)))
            .collect();
        // Ranges of alike numbers, each from here to the next one's start.
        let mut ranges = vec![(0, Verdict::Trap)];
        for (call, verdict) in rules {
            match ranges.last() {
                // The range of trapped calls that begins here is empty.
                Some((start, Verdict::Trap)) if *start == call => {
                    ranges.pop();
                }
                _ => {}
            }
            if ranges.last().is_none_or(|(_, last)| *last != verdict) {
                ranges.push((call, verdict));
            }
            ranges.push((call + 1, Verdict::Trap));
        }
        let mut program = vec![
            load(ARCHITECTURE),
            jump(libc::BPF_JEQ, ARCH, 1, 0),
            leave(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ];
        search(&ranges, &mut program)?;
        Ok(Self(program))
    }

    /// Confines the calling thread, and the threads it makes, for ever.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn install(&self) -> Result<(), FilterError> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(|_| FilterError::TooLong)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: sets a flag of this thread, without which an ordinary user may not filter.
        let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the kernel copies the program, which lives until the call returns.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error().into());
        }
        Ok(())
    }
}

/// Emits the search among `ranges`, of which there is at least one.
fn search(
    ranges: &[(u32, Verdict)],
    program: &mut Vec<libc::sock_filter>,
) -> Result<(), FilterError> {
    if let [(_, verdict)] = ranges {
        leaf(verdict, program);
        return Ok(());
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let branch = program.len();
    program.push(leave(0));
    search(low, program)?;
    let skip = u8::try_from(program.len() - branch - 1).map_err(|_| FilterError::TooLong)?;
    program[branch] = jump(libc::BPF_JGE, high[0].0, skip, 0);
    search(high, program)
}

fn leaf(verdict: &Verdict, program: &mut Vec<libc::sock_filter>) {
    let tests = match verdict {
        Verdict::Allow => return program.push(leave(libc::SECCOMP_RET_ALLOW)),
        Verdict::Fail(error) => {
            return program.push(leave(libc::SECCOMP_RET_ERRNO | u32::from(*error)));
        }
        Verdict::Trap => &[][..],
        Verdict::AllowIf(tests) => tests,
    };
    let mut loaded = None;
    for test in tests {
        if loaded != Some((test.argument, test.mask)) {
            // Little-endian: the lower half comes first.
            program.push(load(ARGUMENTS + 8 * test.argument));
            program.push(operation(libc::BPF_ALU | libc::BPF_AND, test.mask));
            loaded = Some((test.argument, test.mask));
        }
        program.push(jump(libc::BPF_JEQ, test.value, 0, 1));
        program.push(leave(libc::SECCOMP_RET_ALLOW));
    }
    program.push(leave(libc::SECCOMP_RET_TRAP));
}

fn operation(code: u32, k: u32) -> libc::sock_filter {
    jump_with(code, k, 0, 0)
}

fn load(offset: u32) -> libc::sock_filter {
    operation(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn leave(value: u32) -> libc::sock_filter {
    operation(libc::BPF_RET | libc::BPF_K, value)
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    jump_with(libc::BPF_JMP | condition | libc::BPF_K, k, jt, jf)
}

fn jump_with(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        // The codes are sums of constants below 256.
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: u32 = libc::BPF_ABS;

    /// Runs a program as the kernel does; the number of steps and the result.
    fn run(filter: &Filter, arch: u32, number: u32, arguments: [u32; 6]) -> (usize, u32) {
        let (mut at, mut a) = (0, 0_u32);
        for step in 1.. {
            let i = &filter.0[at];
            at += 1;
            let code = u32::from(i.code);
            match code & 0x07 {
                libc::BPF_RET => return (step, i.k),
                libc::BPF_LD => {
                    assert_eq!(code & 0xe0, LOW);
                    a = match i.k {
                        NUMBER => number,
                        ARCHITECTURE => arch,
                        offset => arguments[usize::try_from((offset - ARGUMENTS) / 8).unwrap()],
                    };
                }
                libc::BPF_ALU => a &= i.k,
                _ => {
                    let holds = match code & 0xf0 {
                        libc::BPF_JGE => a >= i.k,
                        _ => a == i.k,
                    };
                    at += usize::from(if holds { i.jt } else { i.jf });
                }
            }
        }
        unreachable!("a program has no loops")
    }

    fn filter() -> Filter {
        let test = |mask, value| Test {
            argument: 1,
            mask,
            value,
        };
        let tests = vec![
            test(0xffff, 0xae01),
            test(0xffff, 0xae80),
            test(u32::MAX, 7),
        ];
        Filter::new([
            (0, Verdict::Allow),
            (1, Verdict::Allow),
            (2, Verdict::Fail(13)),
            (5, Verdict::Allow),
            (16, Verdict::AllowIf(tests)),
            (300, Verdict::Allow),
            (301, Verdict::Allow),
        ])
        .unwrap()
    }

    #[test]
    fn every_number_gets_its_verdict() {
        let filter = filter();
        for number in (0..500).chain([u32::MAX, 0x4000_0000, 0x4000_0001]) {
            let expected = match number {
                0 | 1 | 5 | 300 | 301 => libc::SECCOMP_RET_ALLOW,
                2 => libc::SECCOMP_RET_ERRNO | 13,
                _ => libc::SECCOMP_RET_TRAP,
            };
            assert_eq!(run(&filter, ARCH, number, [0; 6]).1, expected, "{number}");
        }
    }

    #[test]
    fn arguments_decide() {
        let filter = filter();
        let allowed = |value| run(&filter, ARCH, 16, [9, value, 9, 9, 9, 9]).1;
        for value in [0xae01, 0xae80, 0x4020_ae80, 7] {
            assert_eq!(allowed(value), libc::SECCOMP_RET_ALLOW, "{value:#x}");
        }
        for value in [0, 8, 0xae02, 0x1_0007] {
            assert_eq!(allowed(value), libc::SECCOMP_RET_TRAP, "{value:#x}");
        }
    }

    #[test]
    fn another_architecture_is_killed() {
        let result = run(&filter(), 0x4000_0003, 0, [0; 6]).1;
        assert_eq!(result, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn a_verdict_needs_few_steps() {
        let calls = (0..200).map(|call| (call * 2, Verdict::Allow));
        // 400 ranges: the program is short of BPF's furthest jump by a little.
        let short = Filter::new(calls.clone().take(100)).unwrap();
        assert!(run(&short, ARCH, 150, [0; 6]).0 <= 14);
        assert!(matches!(Filter::new(calls), Err(FilterError::TooLong)));
    }
}
