//! The running process: its clock, what it lets out of its memory, and names that are drawn at random.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use calotype_core::id::random_hex;
use calotype_core::ports::Clock;
use calotype_core::time::Timestamp;
use calotype_keys::SystemEntropy;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock port's own implementation"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// Keeps the memory of a process that holds keys from being dumped, and from being read by other processes of its user.
pub(crate) fn keep_memory_private() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = undumpable.and(setrlimit(Resource::Core, none)) {
        tracing::warn!(error = %error, "a crash may write keys into a core dump");
    }
}

/// What this process is called among all on one catalog: where it runs, and what no other has, for hosts in containers have
/// one name and one process id.
pub(crate) fn process_name() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    format!("{host}-{}-{}", std::process::id(), fresh_name())
}

/// Lets the process have so many descriptors where the system allows it; how many it may have comes back.
pub(crate) fn want_descriptors(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (had, most) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    let next = wanted.min(most);
    if had >= next {
        return had;
    }
    let raised = Rlimit {
        current: Some(next),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => next,
        Err(error) => {
            tracing::warn!(error = %error, "the limit of descriptors can't be raised");
            had
        }
    }
}

/// A fresh 128-bit name in hexadecimal: for an `Idempotency-Key` or a generated password.
pub(crate) fn fresh_name() -> String {
    random_hex(&SystemEntropy::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::dumpable_behavior;

    #[test]
    fn a_process_that_holds_keys_leaves_no_core_behind() {
        keep_memory_private();
        let dumpable = dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    }
}
