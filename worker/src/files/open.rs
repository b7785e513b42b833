//! From the path of a request to an open file beneath a folder, and nowhere else.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

/// Times that a path is resolved again because something was renamed meanwhile.
const TRIES_MAX: usize = 8;

/// Decodes the end of a request's path to a relative one, and says whether it names a folder (it ends with `/`).
///
/// `None` for what no file is to be looked for: dot segments, hidden names, empty segments, an encoded `/` or NUL, a `%` that
/// encodes nothing.
pub(crate) fn clean(raw: &[u8]) -> Option<(PathBuf, bool)> {
    let mut path = PathBuf::new();
    let mut segments = raw.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_none() {
            return Some((path, true));
        }
        let name = decode(segment)?;
        let is_hidden = name.first() == Some(&b'.') && name != b".well-known";
        if name.is_empty() || is_hidden || name.iter().any(|&byte| matches!(byte, b'/' | 0)) {
            return None;
        }
        path.push(OsStr::from_bytes(&name));
    }
    Some((path, false))
}

/// Decodes `%XX`, once and strictly.
fn decode(segment: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push((high << 4 | low) as u8);
    }
    Some(decoded)
}

/// Opens `path`, which is relative and clean, beneath `folder`. What waits when opened (a FIFO) does not here.
pub(super) fn beneath(folder: &Path, path: &Path) -> io::Result<File> {
    let folder = open(folder, FOLDER, Mode::empty())?;
    let how = OpenHow::new()
        .flags(READ)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    for _ in 0..TRIES_MAX {
        match openat2(&folder, path, how) {
            Ok(file) => return Ok(file.into()),
            // Something on the way was renamed: the kernel cannot be sure.
            Err(nix::Error::EAGAIN) => (),
            // An old kernel, or a sandbox that does not know the call.
            Err(nix::Error::ENOSYS | nix::Error::EPERM) => return step_by_step(folder, path),
            Err(error) => return Err(error.into()),
        }
    }
    Err(nix::Error::EAGAIN.into())
}

const READ: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);
const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// The same without `openat2`: no symbolic link is followed.
fn step_by_step(mut folder: OwnedFd, path: &Path) -> io::Result<File> {
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            return Ok(openat(&folder, name, READ | OFlag::O_NOFOLLOW, Mode::empty())?.into());
        }
        folder = openat(&folder, name, FOLDER | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clean_paths_are_looked_for() {
        let clean = |raw: &str| {
            clean(raw.as_bytes())
                .map(|(path, is_folder)| (path.into_os_string().into_string().unwrap(), is_folder))
        };
        let found = |path: &str, is_folder| Some((path.to_owned(), is_folder));
        assert_eq!(clean("a/b.css"), found("a/b.css", false));
        assert_eq!(clean("a%20b/"), found("a b", true));
        assert_eq!(clean(""), found("", true));
        assert_eq!(clean(".well-known/x"), found(".well-known/x", false));
        assert_eq!(clean("%252e%252e/x"), found("%2e%2e/x", false));
        for raw in [
            "..",
            "../x",
            "a/../../x",
            "a/..",
            ".",
            "a/./b",
            "%2e%2e/x",
            "%2E./x",
            "..%2fx",
            "a%2fb",
            "a%2Fb",
            "a%00",
            "//etc/passwd",
            "a//b",
            ".git/config",
            ".env",
            "%zz",
            "%2",
            "%",
        ] {
            assert_eq!(clean(raw), None, "{raw}");
        }
    }

    #[test]
    fn links_are_followed_inside_and_not_out_of_the_folder() {
        let root = std::env::temp_dir().join(format!("monoceros-files-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("in/deep")).unwrap();
        std::fs::write(root.join("secret"), "secret").unwrap();
        std::fs::write(root.join("in/deep/page"), "page").unwrap();
        let link =
            |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join("in").join(name));
        link("deep/page", "inside").unwrap();
        link("../secret", "outside").unwrap();
        link("/etc/passwd", "absolute").unwrap();
        link("..", "parent").unwrap();
        let folder = root.join("in");
        let opens = |path: &str| beneath(&folder, Path::new(path)).is_ok();
        assert!(opens("deep/page") && opens("inside"));
        for path in ["outside", "absolute", "parent/secret", "missing", "deep/page/x"] {
            assert!(!opens(path), "{path}");
        }
        let walked = |path: &str| {
            let folder = open(&folder, FOLDER, Mode::empty()).unwrap();
            step_by_step(folder, Path::new(path)).is_ok()
        };
        assert!(walked("deep/page"));
        for path in ["inside", "outside", "absolute", "parent/secret", ""] {
            assert!(!walked(path), "{path}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
