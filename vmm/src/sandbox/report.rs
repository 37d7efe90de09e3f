//! Says which system call a filter stopped, instead of dying without a word.

use std::io;

use vmm_sys_util::signal::register_signal_handler;

use super::SandboxError;

/// Offset of `si_syscall` in `siginfo_t` on 64-bit Linux (`_sigsys` behind the three header
/// words and their padding: call address, then the number).
const SI_SYSCALL: usize = 24;
/// `SYS_SECCOMP`: the signal comes from a filter.
const FROM_SECCOMP: i32 = 1;
/// Exit status of [`EndReason::InternalError`](crate::control::EndReason).
const STATUS: i32 = 1;

/// Installs the handler of SIGSYS for the whole process.
pub(super) fn install() -> Result<(), SandboxError> {
    register_signal_handler(libc::SIGSYS, on_violation).map_err(|error| SandboxError::System {
        what: "handle SIGSYS",
        source: io::Error::from(error),
    })
}

/// Writes two lines to standard error, the second being the end reason for programs, and ends the
/// process. Uses only calls that every filter allows and that are safe in a signal handler.
extern "C" fn on_violation(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a whole, valid siginfo_t.
    let code = unsafe { (*info).si_code };
    let number = if code == FROM_SECCOMP {
        // SAFETY: for this code the kernel fills the 32-bit number at this offset.
        unsafe {
            info.cast::<u8>()
                .add(SI_SYSCALL)
                .cast::<i32>()
                .read_unaligned()
        }
    } else {
        -1
    };
    let mut digits = [0; 10];
    let number = decimal(number, &mut digits);
    write(b"cumulet-vmm: sandbox violation: system call ");
    write(number);
    write(b" is not allowed; please report this (--no-sandbox works around it)\n");
    write(b"{\"reason\":\"internal_error\",\"message\":\"sandbox violation: system call ");
    write(number);
    write(b"\"}\n");
    // SAFETY: ends the process at once, without handlers that could be interrupted by us.
    unsafe { libc::_exit(STATUS) };
}

fn write(text: &[u8]) {
    // SAFETY: the slice is valid for its length.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

fn decimal(number: i32, digits: &mut [u8; 10]) -> &[u8] {
    let Ok(mut rest) = u32::try_from(number) else {
        return b"?";
    };
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_decimal() {
        let text = |number| String::from_utf8(decimal(number, &mut [0; 10]).to_vec()).unwrap();
        assert_eq!(text(0), "0");
        assert_eq!(text(257), "257");
        assert_eq!(text(i32::MAX), "2147483647");
        assert_eq!(text(-1), "?");
    }
}
