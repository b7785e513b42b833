//! Request bodies that are gathered: in memory up to a limit, then in a file without a name.
//!
//! - The file has no name from the start where the file system can do that, and at once elsewhere: nothing is left behind.
//! - Whatever the disk says, the worker goes on: the request is refused with 507 and a line in the log.
//! - Writing goes to the page cache; a disk that is slow to take even that holds the loop up, so the folder belongs on
//!   a local one.

use std::cell::{Cell, OnceCell};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use shared::settings::Settings;

use crate::buffer::Buffer;
use crate::trailers::Trailers;

/// Names that are tried where nameless files are not to be had.
const NAMES_MAX: usize = 8;

/// When a body goes to a file, and where that is.
#[derive(Clone, Debug)]
pub(crate) struct SpoolRules {
    memory_max: u64,
    directory: PathBuf,
}

impl SpoolRules {
    pub(crate) fn of(settings: &Settings) -> SpoolRules {
        SpoolRules {
            memory_max: settings.body_memory_max,
            directory: settings.tmp_upload_dir.clone().unwrap_or_else(std::env::temp_dir),
        }
    }
}

/// A gathered body.
///
/// Reading it reads from its beginning on; it may wait for the disk.
#[derive(Debug)]
pub struct Spooled {
    store: Store,
    trailers: Trailers,
    /// How far [`Read`] has come in memory.
    at: usize,
    /// A body in a file, read back for whoever asks for a slice.
    whole: OnceCell<Vec<u8>>,
    /// That was tried, and failed.
    has_failed: Cell<bool>,
}

#[derive(Debug)]
enum Store {
    Memory(Buffer),
    File { file: File, len: u64 },
}

impl Spooled {
    pub(crate) fn new() -> Spooled {
        Spooled {
            store: Store::Memory(Buffer::none()),
            trailers: Trailers::NONE,
            at: 0,
            whole: OnceCell::new(),
            has_failed: Cell::new(false),
        }
    }

    /// Appends `bytes`, moving to a file when there are too many for memory.
    pub(crate) fn put(&mut self, bytes: &[u8], rules: &SpoolRules) -> io::Result<()> {
        match &mut self.store {
            Store::Memory(buffer) if (buffer.len() + bytes.len()) as u64 <= rules.memory_max => {
                buffer.obtain().extend_from_slice(bytes);
            }
            Store::Memory(buffer) => {
                let mut file = nameless(&rules.directory)?;
                file.write_all(buffer)?;
                file.write_all(bytes)?;
                let len = (buffer.len() + bytes.len()) as u64;
                self.store = Store::File { file, len };
            }
            Store::File { file, len } => {
                file.write_all(bytes)?;
                *len += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// The body is complete.
    pub(crate) fn end(&mut self, trailers: Trailers) -> io::Result<()> {
        self.trailers = trailers;
        if let Store::File { file, .. } = &mut self.store {
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(())
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.store {
            Store::Memory(buffer) => buffer.len() as u64,
            Store::File { len, .. } => *len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The body, if it is in memory.
    #[must_use]
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.store {
            Store::Memory(buffer) => Some(buffer),
            Store::File { .. } => None,
        }
    }

    /// The body's file, if it is in one: opened for reading and writing, without a name.
    #[must_use]
    pub fn file(&self) -> Option<&File> {
        match &self.store {
            Store::Memory(_) => None,
            Store::File { file, .. } => Some(file),
        }
    }

    /// The fields after the body.
    #[must_use]
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// The whole body as a slice; read back from the file if it is there. On failure it is empty, and [`Spooled::has_failed`].
    pub(crate) fn slice(&self) -> &[u8] {
        match &self.store {
            Store::Memory(buffer) => buffer,
            Store::File { file, len } => self.whole.get_or_init(|| {
                read_back(file, *len).unwrap_or_else(|_| {
                    self.has_failed.set(true);
                    Vec::new()
                })
            }),
        }
    }

    /// The body was asked for, and its file cannot be read.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }
}

impl Read for Spooled {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.store {
            Store::Memory(buffer) => {
                let rest = buffer.get(self.at..).unwrap_or_default();
                let count = rest.len().min(into.len());
                into[..count].copy_from_slice(&rest[..count]);
                self.at += count;
                Ok(count)
            }
            Store::File { file, .. } => file.read(into),
        }
    }
}

fn read_back(file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Makes a file that has no name in `directory`.
fn nameless(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed =
        options.clone().custom_flags((OFlag::O_TMPFILE | OFlag::O_EXCL).bits()).open(directory);
    match unnamed {
        // The file system (or the kernel) has no nameless files.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc_code)
                if libc_code == nix::Error::EOPNOTSUPP as i32
                    || libc_code == nix::Error::EISDIR as i32) => {}
        other => return other,
    }
    for _ in 0..NAMES_MAX {
        let path = directory.join(format!(".monoceros-body-{:016x}", fastrand::u64(..)));
        match options.clone().create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(memory_max: u64, directory: &str) -> SpoolRules {
        SpoolRules { memory_max, directory: directory.into() }
    }

    #[test]
    fn a_body_moves_to_a_file_and_reads_the_same() {
        let directory = std::env::temp_dir();
        let rules = rules(10, directory.to_str().unwrap());
        let mut body = Spooled::new();
        body.put(b"0123456789", &rules).unwrap();
        assert_eq!(body.in_memory(), Some(&b"0123456789"[..]));
        body.put(b"abc", &rules).unwrap();
        body.put(b"def", &rules).unwrap();
        body.end(Trailers::NONE).unwrap();
        assert!(body.in_memory().is_none() && body.file().is_some());
        assert_eq!((body.len(), body.slice()), (16, &b"0123456789abcdef"[..]));
        let mut read = String::new();
        body.read_to_string(&mut read).unwrap();
        assert_eq!(read, "0123456789abcdef");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_and_no_more() {
        let mut body = Spooled::new();
        body.put(b"x", &rules(1, "/nonexistent")).unwrap();
        assert!(body.put(b"y", &rules(1, "/nonexistent")).is_err());
        assert!(body.put(b"y", &rules(1, "/proc")).is_err());
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_more() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut body = Spooled { store: Store::File { file, len: 0 }, ..Spooled::new() };
        let full = body.put(b"x", &rules(1, "/tmp")).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }
}
