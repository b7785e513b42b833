//! The process title: what `ps` shows.

use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

/// The memory in which the kernel looks for our command line.
static AREA: OnceLock<Option<&'static [AtomicU8]>> = OnceLock::new();

/// Shows `title` in place of the command line; `false`: this system does not let us.
///
/// Call it from the main thread before others exist, and after the arguments were read: the words of the command line
/// are overwritten, and the environment is moved first to make room. A title that is too long is cut.
pub fn set(title: &str) -> bool {
    let Some(area) = *AREA.get_or_init(find_area) else { return false };
    let Some((last, places)) = area.split_last() else { return false };
    let title = title.bytes().filter(|byte| *byte != 0).chain(std::iter::repeat(0));
    for (place, byte) in places.iter().zip(title) {
        place.store(byte, Ordering::Relaxed);
    }
    last.store(0, Ordering::Relaxed);
    true
}

/// Finds the arguments and the environment behind them, and moves the environment out of the way.
fn find_area() -> Option<&'static [AtomicU8]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (arguments, environment) = areas(&stat)?;
    let end = if environment.0 == arguments.1 && move_environment().is_some() {
        environment.1
    } else {
        arguments.1
    };
    let start = std::ptr::with_exposed_provenance::<AtomicU8>(arguments.0);
    // SAFETY: the kernel put these writable bytes on our initial stack, where they stay for the life of the process;
    // they are reached as atomics here, and `environ` no longer points to them.
    Some(unsafe { std::slice::from_raw_parts(start, end.checked_sub(arguments.0)?) })
}

/// Reads `arg_start`, `arg_end`, `env_start` and `env_end` (fields 48 to 51) from the text of `/proc/self/stat`.
fn areas(stat: &str) -> Option<((usize, usize), (usize, usize))> {
    // The name in field 2 may hold spaces and parentheses; nothing behind its last one does.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(45).map(str::parse::<usize>);
    let mut next = || fields.next()?.ok();
    let (arguments, environment) = ((next()?, next()?), (next()?, next()?));
    (arguments.0 != 0 && arguments.0 < arguments.1 && environment.0 <= environment.1)
        .then_some((arguments, environment))
}

/// Copies every variable to memory of its own, for ever. `None`: there is no environment to move.
fn move_environment() -> Option<()> {
    // SAFETY: reads one pointer; no other thread exists that could change it (see `set`).
    let mut entry = unsafe { environ };
    if entry.is_null() {
        return None;
    }
    let mut copies = Vec::new();
    loop {
        // SAFETY: the list ends with a null pointer, at which this loop stops.
        let text = unsafe { *entry };
        if text.is_null() {
            break;
        }
        // SAFETY: every entry of the list is a terminated string.
        let copy: CString = unsafe { CStr::from_ptr(text) }.to_owned();
        copies.push(copy.into_raw());
        // SAFETY: still within the list: the entry just read was not the last.
        entry = unsafe { entry.add(1) };
    }
    copies.push(std::ptr::null_mut());
    let copies = copies.leak();
    // SAFETY: the list and its strings live for ever and end with a null pointer.
    unsafe { environ = copies.as_mut_ptr() };
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let tail: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("42 (a) b (c)) {}", tail.join(" ").replacen('3', "S", 1));
        assert_eq!(areas(&stat), Some(((48, 49), (50, 51))));
        assert_eq!(areas("42 (short) S 1 2"), None);
        assert_eq!(areas(""), None);
    }
}
