//! Memory shared between processes by descriptor.
//!
//! - Sealed against shrinking before anyone sees it: no holder can make another one fault.
//! - Words are atomics: any process may write at any moment, and readers trust nothing but numbers.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Largest content of a sealed descriptor that [`read_sealed`] accepts, in bytes.
pub const SEALED_BYTES_MAX: usize = 1 << 20;

/// A mapping of 64-bit words shared by every process that has its descriptor.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<AtomicU64>,
    words: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through atomics only.
unsafe impl Send for SharedMemory {}
// SAFETY: as above: a shared reference gives access to atomics only.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes zeroed memory of `bytes`, rounded up to whole pages; its size is fixed for ever.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn create(name: &CStr, bytes: usize) -> io::Result<SharedMemory> {
        let page = 4096;
        let bytes = bytes.max(1).div_ceil(page) * page;
        let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let file = File::from(fd);
        file.set_len(bytes as u64)?;
        seal(&file, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL)?;
        SharedMemory::map(file.into())
    }

    /// Maps memory that another process made with [`SharedMemory::create`].
    ///
    /// # Errors
    ///
    /// `InvalidData`: not such memory (it could be shrunk under us).
    pub fn map(fd: OwnedFd) -> io::Result<SharedMemory> {
        if !seals(&fd)?.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(invalid("shared memory is not sealed against shrinking"));
        }
        let bytes = nix::sys::stat::fstat(&fd)?.st_size as usize;
        if bytes < size_of::<AtomicU64>() {
            return Err(invalid("shared memory is empty"));
        }
        // SAFETY: a fresh mapping at an address the kernel chooses; nothing of ours is replaced.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| invalid("mapped at address 0"))?;
        Ok(SharedMemory { start, words: bytes / size_of::<AtomicU64>(), fd })
    }

    /// Keeps the mapping until the process ends, for signal handlers and other eternal readers.
    #[must_use]
    pub fn leak(self) -> &'static [AtomicU64] {
        Box::leak(Box::new(self))
    }
}

impl Deref for SharedMemory {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, sealed against shrinking, and lives as long as `self`;
        // any bytes are valid atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let bytes = self.words * size_of::<AtomicU64>();
        // SAFETY: exactly the mapping made in `map`; no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

/// Puts `bytes` into a descriptor that nobody can change any more.
///
/// # Errors
///
/// `InvalidInput`: more than [`SEALED_BYTES_MAX`]. Otherwise `EMFILE`, `ENFILE`, `ENOMEM`.
pub fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    if bytes.len() > SEALED_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too large to be sealed"));
    }
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    seal(
        &file,
        SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL,
    )?;
    Ok(file.into())
}

/// Reads what [`sealed`] stored; the descriptor's position does not matter and is not changed.
///
/// # Errors
///
/// `InvalidData`: not sealed, or larger than [`SEALED_BYTES_MAX`].
pub fn read_sealed(fd: &impl AsFd) -> io::Result<Vec<u8>> {
    if !seals(fd)?.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK) {
        return Err(invalid("descriptor is not sealed"));
    }
    let length = nix::sys::stat::fstat(fd.as_fd())?.st_size as usize;
    if length > SEALED_BYTES_MAX {
        return Err(invalid("sealed content is too large"));
    }
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn seal(file: &File, flags: SealFlag) -> io::Result<()> {
    fcntl(file, FcntlArg::F_ADD_SEALS(flags))?;
    Ok(())
}

fn seals(fd: &impl AsFd) -> io::Result<SealFlag> {
    // EINVAL: a file that cannot have seals, so it has none.
    match fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS) {
        Ok(bits) => Ok(SealFlag::from_bits_truncate(bits)),
        Err(nix::errno::Errno::EINVAL) => Ok(SealFlag::empty()),
        Err(errno) => Err(errno.into()),
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_see_one_memory_that_cannot_shrink() {
        let ours = SharedMemory::create(c"test", 100).expect("created");
        let theirs = SharedMemory::map(ours.as_fd().try_clone_to_owned().expect("a copy"))
            .expect("mapped again");
        assert_eq!((ours.len(), theirs.len()), (512, 512));
        ours[511].store(42, Ordering::Relaxed);
        assert_eq!(theirs[511].load(Ordering::Relaxed), 42);
        let file = File::from(ours.as_fd().try_clone_to_owned().expect("a copy"));
        assert!(file.set_len(0).is_err(), "a worker must not be able to make the master fault");
    }

    #[test]
    fn sealed_bytes_round_trip_and_cannot_be_written() {
        let fd = sealed(c"settings", b"{\"workers\":3}").expect("sealed");
        let mut file = File::from(fd.try_clone().expect("a copy"));
        assert!(file.write_all(b"x").is_err());
        assert_eq!(read_sealed(&fd).expect("read"), b"{\"workers\":3}");
        // A second reader of the same open file starts at the beginning too.
        assert_eq!(read_sealed(&fd).expect("read"), b"{\"workers\":3}");
    }

    #[test]
    fn foreign_files_are_refused() {
        let null = File::open("/dev/null").expect("null");
        assert!(read_sealed(&null).is_err());
        assert!(SharedMemory::map(null.into()).is_err());
        let unsealed = memfd_create(c"open", MFdFlags::MFD_CLOEXEC).expect("memfd");
        assert!(SharedMemory::map(unsealed).is_err());
        assert!(sealed(c"big", &vec![0; SEALED_BYTES_MAX + 1]).is_err());
    }
}
