//! Resource limits.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open descriptors to the hard one and returns it.
///
/// The soft limit of 1,024 protects programs that call `select`; none of ours does.
///
/// # Errors
///
/// `EPERM` only where a security module forbids the change; the old limit then stands.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Reads the soft limit of open descriptors.
///
/// # Errors
///
/// None that is known.
pub fn open_files() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files().expect("raising to the hard limit needs no privilege");
        assert_eq!(open_files().expect("readable"), raised);
    }
}
