//! Resource limits (getrlimit(2)).

use abi::{Errno, Result, general};

/// No limit.
pub const UNLIMITED: u64 = !0;
/// The most descriptors a process may ask for: /proc/sys/fs/nr_open.
pub const NR_OPEN: u64 = 1 << 20;

/// A limit: what is in force, and how far an unprivileged process may raise it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// The ceiling.
    pub hard: u64,
}

/// The limits of a process, by `RLIMIT_*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits([Limit; Limits::COUNT]);

impl Limits {
    /// How many there are.
    pub const COUNT: usize = general::RLIM_NLIMITS as usize;

    /// What init starts with: Linux's defaults, with so many threads allowed.
    pub fn initial(threads: u64) -> Limits {
        let mut limits = [Limit { soft: UNLIMITED, hard: UNLIMITED }; Limits::COUNT];
        let mut set = |resource: u32, soft, hard| limits[resource as usize] = Limit { soft, hard };
        set(general::RLIMIT_STACK, 8 << 20, UNLIMITED);
        set(general::RLIMIT_CORE, 0, UNLIMITED);
        set(general::RLIMIT_NOFILE, 1024, 4096 * 256);
        set(general::RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
        set(general::RLIMIT_NPROC, threads, threads);
        set(general::RLIMIT_SIGPENDING, threads, threads);
        set(general::RLIMIT_MSGQUEUE, 819_200, 819_200);
        set(general::RLIMIT_NICE, 0, 0);
        set(general::RLIMIT_RTPRIO, 0, 0);
        Limits(limits)
    }

    /// One limit.
    ///
    /// # Errors
    ///
    /// `EINVAL`: there is no such resource.
    pub fn get(&self, resource: usize) -> Result<Limit> {
        self.0.get(resource).copied().ok_or(Errno::EINVAL)
    }

    /// Changes one limit.
    ///
    /// # Errors
    ///
    /// `EINVAL`: no such resource, or the soft limit above the hard one. `EPERM`: the hard limit raised without privilege, or more
    /// descriptors than the system gives.
    pub fn set(&mut self, resource: usize, new: Limit, is_privileged: bool) -> Result<()> {
        let old = self.get(resource)?;
        if new.soft > new.hard {
            return Err(Errno::EINVAL);
        }
        let too_many = resource == general::RLIMIT_NOFILE as usize && new.hard > NR_OPEN;
        if too_many || new.hard > old.hard && !is_privileged {
            return Err(Errno::EPERM);
        }
        self.0[resource] = new;
        Ok(())
    }

    /// What is in force, for a resource that is known to exist.
    pub fn soft(&self, resource: u32) -> u64 {
        self.0.get(resource as usize).map_or(UNLIMITED, |limit| limit.soft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unprivileged_process_lowers_its_ceiling_but_never_raises_it() {
        let mut limits = Limits::initial(100);
        let stack = general::RLIMIT_STACK as usize;
        assert_eq!(limits.set(stack, Limit { soft: 1, hard: 2 }, false), Ok(()));
        assert_eq!(limits.set(stack, Limit { soft: 1, hard: 3 }, false), Err(Errno::EPERM));
        assert_eq!(limits.set(stack, Limit { soft: 1, hard: 3 }, true), Ok(()));
        assert_eq!(limits.set(stack, Limit { soft: 4, hard: 3 }, true), Err(Errno::EINVAL));
        assert_eq!(limits.set(99, Limit { soft: 4, hard: 5 }, true), Err(Errno::EINVAL));
    }
}
