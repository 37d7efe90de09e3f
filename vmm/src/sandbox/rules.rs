//! The system calls each kind of thread may make.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Memory, locks, time, ending: what the language's run-time needs on every thread.
const EVERYWHERE: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_io_uring_enter,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Refused with EACCES by the other filter; not a reason to end the process.
    libc::SYS_openat,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_timerfd_settime,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Disks, network, control connections.
const MAIN: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_geteuid,
    libc::SYS_getsockopt,
    libc::SYS_io_uring_register,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_statx,
    libc::SYS_timerfd_create,
];

/// A device may finish its requests on the vCPU thread that resets it.
const VCPU: &[c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_readv,
];

/// `KVMIO`, the type byte of KVM's ioctls.
const KVM: u64 = 0xae << 8;
/// The ioctls' numbers that a running machine uses: interrupt line, routing, irqfd, ioeventfd.
const KVM_MACHINE: &[u64] = &[0x61, 0x6a, 0x76, 0x79];
/// At a reset: state of the interrupt controllers and the timer.
const KVM_RESET: &[u64] = &[0x63, 0xa0];
/// On a vCPU: run; get and set registers, special registers; set MSRs, FPU, local APIC, state,
/// events, debug registers, XCRs; get events; tell the guest of a pause.
const KVM_VCPU: &[u64] = &[
    0x80, 0x81, 0x82, 0x83, 0x84, 0x89, 0x8d, 0x8f, 0x99, 0x9f, 0xa0, 0xa2, 0xa7, 0xad,
];
/// Type and number of an ioctl, without direction and size.
const IOCTL_NAME: u64 = 0xffff;

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// What the main thread may do.
pub(super) fn main_thread() -> Result<BpfProgram, BackendError> {
    let mut rules = allow(&[EVERYWHERE, MAIN])?;
    let mut ioctls = kvm_ioctls(&[KVM_MACHINE, KVM_RESET])?;
    // Non-blocking connections; the terminal's settings back at the end.
    for request in [libc::FIONBIO, libc::TCGETS, libc::TCSETS] {
        ioctls.push(argument(1, SeccompCmpOp::Eq, request)?);
    }
    ioctls.push(offload_ioctl()?);
    rules.insert(libc::SYS_ioctl, ioctls);
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

/// What a vCPU thread may do.
pub(super) fn vcpu_thread() -> Result<BpfProgram, BackendError> {
    let mut rules = allow(&[EVERYWHERE, VCPU])?;
    let mut ioctls = kvm_ioctls(&[KVM_VCPU, KVM_MACHINE])?;
    ioctls.push(offload_ioctl()?);
    rules.insert(libc::SYS_ioctl, ioctls);
    compile(rules, SeccompAction::Trap, SeccompAction::Allow)
}

/// Calls that fail with EACCES instead of ending the process: libraries try them and can do
/// without.
pub(super) fn refused() -> Result<BpfProgram, BackendError> {
    let rules = Rules::from([(libc::SYS_openat, Vec::new())]);
    let error = u32::try_from(libc::EACCES).unwrap_or(1);
    compile(rules, SeccompAction::Allow, SeccompAction::Errno(error))
}

fn allow(lists: &[&[c_long]]) -> Result<Rules, BackendError> {
    let mut rules: Rules = lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|call| (*call, Vec::new()))
        .collect();
    // Memory never becomes executable.
    let executable = u64::try_from(libc::PROT_EXEC).unwrap_or(u64::MAX);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let not_executable = argument(2, SeccompCmpOp::MaskedEq(executable), 0)?;
        rules.insert(call, vec![not_executable]);
    }
    Ok(rules)
}

fn kvm_ioctls(lists: &[&[u64]]) -> Result<Vec<SeccompRule>, BackendError> {
    lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|number| argument(1, SeccompCmpOp::MaskedEq(IOCTL_NAME), KVM | number))
        .collect()
}

fn offload_ioctl() -> Result<SeccompRule, BackendError> {
    let name = libc::TUNSETOFFLOAD & IOCTL_NAME;
    argument(1, SeccompCmpOp::MaskedEq(IOCTL_NAME), name)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?])
}

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile() {
        for filter in [main_thread(), vcpu_thread(), refused()] {
            assert!(!filter.unwrap().is_empty());
        }
    }

    #[test]
    fn files_can_be_used_but_not_opened() {
        std::thread::spawn(|| {
            seccompiler::apply_filter(&refused().unwrap()).unwrap();
            let error = std::fs::File::open("/dev/null").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
            assert!(std::time::SystemTime::now().elapsed().is_ok());
        })
        .join()
        .unwrap();
    }
}
