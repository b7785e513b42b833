//! Whether the log files could be opened, without making them: for `--check-config`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::{AccessFlags, faccessat};

use crate::config::Loaded;

/// Looks at the log files that the settings name, as a start would open them.
///
/// # Errors
///
/// The first one that a start could not open, and why.
pub fn run(loaded: &Loaded) -> Result<(), String> {
    let settings = loaded.settings();
    for (name, value) in [("errorlog", &settings.errorlog), ("accesslog", &settings.accesslog)] {
        let Some(value) = value.as_deref().filter(|value| !["", "-"].contains(value)) else {
            continue;
        };
        could_append(&loaded.directory.join(value))
            .map_err(|error| format!("cannot open {name} {value}: {error}"))?;
    }
    Ok(())
}

/// Opens the file if it is there; if it is not, looks whether it could be made.
fn could_append(path: &Path) -> io::Result<()> {
    // Nobody may read a FIFO yet: that is found at once, as at a start.
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    match OpenOptions::new().append(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let access = AccessFlags::W_OK | AccessFlags::X_OK;
            Ok(faccessat(AT_FDCWD, folder, access, AtFlags::AT_EACCESS)?)
        }
        other => other.map(drop),
    }
}
