//! The system calls that a converter has. Every other one answers that there is none such, which programs that can do without
//! it take in their stride.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Those that are permitted whatever their arguments: they read, write, wait and compute, on what is open and on the process's
/// own memory and threads. Opening is Landlock's matter.
const PLAIN: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_copy_file_range,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_gettimeofday,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The launcher becomes the program by it; what the program could become by it is as locked in.
    libc::SYS_execve,
];

/// The older names that this architecture has for some of them.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_dup2,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_epoll_wait,
    libc::SYS_time,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// What may be asked of an open file's descriptor: nothing that has it signal a process.
const FCNTL: &[libc::c_int] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_GETLK,
    libc::F_SETLK,
    libc::F_SETLKW,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
    libc::F_OFD_SETLKW,
];

/// What a process may say of itself.
const PRCTL: &[libc::c_int] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    libc::PR_SET_TIMERSLACK,
];

/// Leaves this thread, and the program that it becomes, these system calls alone.
pub(super) fn restrict() -> io::Result<()> {
    let program = program().map_err(|error| io::Error::other(format!("seccomp: {error}")))?;
    apply_filter(&program).map_err(|error| io::Error::other(format!("seccomp: {error}")))
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in PLAIN.iter().chain(OLDER) {
        rules.insert(*call, Vec::new());
    }
    // A file is never cut as it is opened: Landlock permits that, before Linux 6.2, of every file that may be read.
    rules.insert(libc::SYS_openat, vec![does_not_cut(2)?]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![does_not_cut(1)?]);
    rules.insert(libc::SYS_fcntl, any_of(FCNTL, 1)?);
    rules.insert(libc::SYS_prctl, any_of(PRCTL, 0)?);
    // A thread, and nothing that is less of one: no process, no name space.
    let flags = u64::from(u32::try_from(NEW).unwrap_or(u32::MAX));
    let thread = u64::from(u32::try_from(libc::CLONE_THREAD).unwrap_or(u32::MAX));
    let is_thread = condition(0, SeccompCmpOp::MaskedEq(flags | thread), thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    // A limit can be read of the process itself. None can be set.
    let itself = condition(0, SeccompCmpOp::Eq, 0)?;
    let reads = condition(2, SeccompCmpOp::Eq, 0)?;
    let read_own = SeccompRule::new(vec![itself, reads])?;
    rules.insert(libc::SYS_prlimit64, vec![read_own]);
    let otherwise = SeccompAction::Errno(libc::ENOSYS as u32);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

/// The flags of `clone` that make a name space.
const NEW: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// That the flags for opening, which are this argument, do not have the file cut.
fn does_not_cut(flags: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    let cut = u64::from(u32::try_from(libc::O_TRUNC).unwrap_or(u32::MAX));
    let is_not_set = SeccompCondition::new(
        flags,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(cut),
        0,
    )?;
    SeccompRule::new(vec![is_not_set])
}

fn any_of(
    values: &[libc::c_int],
    argument: u8,
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let rules = values.iter().map(|value| {
        let value = u64::from(u32::try_from(*value).unwrap_or(u32::MAX));
        let is = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![is])
    });
    rules.collect()
}

fn condition(
    argument: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operation, value)
}
