//! Where bytes go: a file, or a stream that must never make us wait.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, fchown};
use std::path::PathBuf;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::socket::{MsgFlags, send};

/// Most bytes written to a stream at once: what a pipe takes whole or not at all.
pub(crate) const PIPE_BUF: usize = 4096;

/// Where a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The standard error stream.
    Stderr,
    /// The standard output stream.
    Stdout,
    /// A file, made when missing; its directory must exist.
    File(PathBuf),
}

/// An open target. No write waits for a reader.
#[derive(Debug)]
pub(crate) enum Sink {
    /// A file on a disk: the kernel takes everything at once.
    File(File),
    /// A pipe or terminal, through a non-blocking description of our own.
    Stream(File),
    /// A socket, such as the journal's: asked not to wait with each message.
    Socket(OwnedFd),
    /// A stream of which we could get no description of our own: asked first whether there is room. With other writers
    /// on it that is a guess, but the flag that would make it safe would change their descriptor too.
    Shared(File),
}

impl Sink {
    pub(crate) fn open(target: &Target) -> io::Result<Sink> {
        match target {
            Target::Stderr => Sink::from_fd(io::stderr().as_fd().try_clone_to_owned()?),
            Target::Stdout => Sink::from_fd(io::stdout().as_fd().try_clone_to_owned()?),
            Target::File(path) => {
                // Non-blocking: opening a FIFO that nobody reads is an error and not a wait.
                let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
                let file = OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o644)
                    .custom_flags(flags)
                    .open(path)?;
                let is_file = file.metadata()?.file_type().is_file();
                Ok(if is_file { Sink::File(file) } else { Sink::Stream(file) })
            }
        }
    }

    /// Takes an open descriptor; never changes its flags, which others may share.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Sink> {
        let file = File::from(fd);
        let kind = file.metadata()?.file_type();
        if kind.is_file() {
            return Ok(Sink::File(file));
        }
        if kind.is_socket() {
            return Ok(Sink::Socket(file.into()));
        }
        let own = OpenOptions::new()
            .write(true)
            .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        Ok(own.map_or(Sink::Shared(file), Sink::Stream))
    }

    /// Tells whether a journal reads it: systemd says so for the streams that it opened, and copies are known by inode.
    pub(crate) fn is_journal(&self) -> bool {
        let Sink::Socket(socket) = self else { return false };
        let said = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        said.split_once(':')
            .and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)))
            .is_some_and(|said: (u64, u64)| {
                sys::fd::identity(socket).is_ok_and(|found| said == found)
            })
    }

    /// Puts a file in the place of this process's standard output and error.
    pub(crate) fn capture_streams(&self) -> io::Result<()> {
        if let Sink::File(file) = self {
            nix::unistd::dup2_stdout(file)?;
            nix::unistd::dup2_stderr(file)?;
        }
        Ok(())
    }

    /// Longest line, its end included, into which no other writer's can come; `None`: it may be any.
    pub(crate) fn line_bytes_max(&self) -> Option<usize> {
        self.is_stream().then_some(PIPE_BUF)
    }

    /// Tells whether lines must be written in pieces that fit a pipe.
    pub(crate) fn is_stream(&self) -> bool {
        !matches!(self, Sink::File(_))
    }

    /// Writes what fits now. `WouldBlock`: nothing does.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Sink::File(file) | Sink::Stream(file) => (&*file).write(bytes),
                Sink::Socket(socket) => {
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    send(socket.as_raw_fd(), bytes, flags).map_err(io::Error::from)
                }
                Sink::Shared(file) => {
                    if !sys::fd::wait_writable(file, Some(Duration::ZERO))? {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    (&*file).write(&bytes[..bytes.len().min(PIPE_BUF)])
                }
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => return result,
            }
        }
    }

    /// Waits until a write would not block; `false`: the time was over first.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let waited = match self {
            Sink::File(file) | Sink::Stream(file) | Sink::Shared(file) => {
                sys::fd::wait_writable(file, Some(timeout))
            }
            Sink::Socket(socket) => sys::fd::wait_writable(socket, Some(timeout)),
        };
        waited.unwrap_or(false)
    }

    /// Gives a log file to the user who will have to reopen it; streams stay as they are.
    pub(crate) fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        match self {
            Sink::File(file) => fchown(file, Some(uid), Some(gid)),
            _ => Ok(()),
        }
    }
}
