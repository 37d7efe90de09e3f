//! The system calls each kind of thread may make.

use libc::c_long;

use super::filter::{Filter, FilterError, Test, Verdict};

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
const KVM: u32 = 0xae << 8;
/// The ioctls' numbers that a running machine uses: interrupt line, routing, irqfd, ioeventfd.
const KVM_MACHINE: &[u32] = &[0x61, 0x6a, 0x76, 0x79];
/// At a reset: state of the interrupt controllers and the timer.
const KVM_RESET: &[u32] = &[0x63, 0xa0];
/// On a vCPU: run; get and set registers, special registers; set MSRs, FPU, local APIC, state,
/// events, debug registers, XCRs; get events; tell the guest of a pause.
const KVM_VCPU: &[u32] = &[
    0x80, 0x81, 0x82, 0x83, 0x84, 0x89, 0x8d, 0x8f, 0x99, 0x9f, 0xa0, 0xa2, 0xa7, 0xad,
];
/// `VHOST_VIRTIO`, the type byte of vhost's ioctls.
const VHOST: u32 = 0xaf << 8;
/// What starts and ends an interface's queues: set features; a queue's size, addresses and base; its
/// kick, call and error events; its tap. The instance and its memory are set up before the filters.
const VHOST_QUEUES: &[u32] = &[0x00, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30];
/// Type and number of an ioctl, without direction and size.
const IOCTL_NAME: u32 = 0xffff;

/// What the main thread may do.
pub(super) fn main_thread() -> Result<Filter, FilterError> {
    let mut ioctls = named(KVM, &[KVM_MACHINE, KVM_RESET]);
    ioctls.extend(named(VHOST, &[VHOST_QUEUES]));
    ioctls.push(offload_ioctl());
    // Non-blocking connections; the terminal's settings back at the end.
    let exact = [libc::FIONBIO, libc::TCGETS, libc::TCSETS];
    ioctls.extend(exact.map(|request| ioctl(u32::MAX, request)));
    compile(&[EVERYWHERE, MAIN], ioctls)
}

/// What a vCPU thread may do.
pub(super) fn vcpu_thread() -> Result<Filter, FilterError> {
    let mut ioctls = named(KVM, &[KVM_VCPU, KVM_MACHINE]);
    ioctls.extend(named(VHOST, &[VHOST_QUEUES]));
    ioctls.push(offload_ioctl());
    compile(&[EVERYWHERE, VCPU], ioctls)
}

/// Tests for ioctls of one type by their numbers.
fn named(kind: u32, lists: &[&[u32]]) -> Vec<Test> {
    lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|number| ioctl(IOCTL_NAME, u64::from(kind | number)))
        .collect()
}

fn offload_ioctl() -> Test {
    ioctl(IOCTL_NAME, libc::TUNSETOFFLOAD & u64::from(IOCTL_NAME))
}

fn ioctl(mask: u32, request: u64) -> Test {
    Test {
        argument: 1,
        mask,
        // Requests are numbers of 32 bits.
        value: u32::try_from(request).unwrap_or(u32::MAX),
    }
}

fn compile(lists: &[&[c_long]], ioctls: Vec<Test>) -> Result<Filter, FilterError> {
    let allowed = lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|call| (*call, Verdict::Allow));
    // Memory never becomes executable.
    let not_executable = Verdict::AllowIf(vec![Test {
        argument: 2,
        mask: libc::PROT_EXEC.unsigned_abs(),
        value: 0,
    }]);
    // Libraries try to open files and can do without.
    let refused = Verdict::Fail(u16::try_from(libc::EACCES).unwrap_or(1));
    Filter::new(allowed.chain([
        (libc::SYS_mmap, not_executable.clone()),
        (libc::SYS_mprotect, not_executable),
        (libc::SYS_ioctl, Verdict::AllowIf(ioctls)),
        (libc::SYS_openat, refused),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_can_be_used_but_not_opened() {
        for filter in [main_thread().unwrap(), vcpu_thread().unwrap()] {
            std::thread::spawn(move || {
                filter.install().unwrap();
                let error = std::fs::File::open("/dev/null").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EACCES));
                assert!(std::time::SystemTime::now().elapsed().is_ok());
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn interfaces_can_be_given_to_vhost() {
        use std::os::fd::AsRawFd as _;
        use vhost::vhost_kern::vhost_binding as vhost;

        for filter in [main_thread().unwrap(), vcpu_thread().unwrap()] {
            std::thread::spawn(move || {
                let file = tempfile::tempfile().unwrap();
                filter.install().unwrap();
                for request in [
                    vhost::VHOST_SET_FEATURES(),
                    vhost::VHOST_SET_VRING_NUM(),
                    vhost::VHOST_SET_VRING_ADDR(),
                    vhost::VHOST_SET_VRING_BASE(),
                    vhost::VHOST_GET_VRING_BASE(),
                    vhost::VHOST_SET_VRING_KICK(),
                    vhost::VHOST_SET_VRING_CALL(),
                    vhost::VHOST_SET_VRING_ERR(),
                    vhost::VHOST_NET_SET_BACKEND(),
                ] {
                    // SAFETY: a regular file knows none of these requests and takes no argument.
                    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, 0) };
                    let error = std::io::Error::last_os_error().raw_os_error();
                    assert_eq!((done, error), (-1, Some(libc::ENOTTY)), "{request:#x}");
                }
            })
            .join()
            .unwrap();
        }
    }
}
