//! Panics of handlers: caught, and described in one line of the log.
//!
//! The library's hook keeps quiet about a panic that is caught here, and remembers where it happened; all others go
//! to the hook that was there before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A panic that was caught: its message and its place.
#[derive(Debug)]
pub(crate) struct Caught(String);

impl Caught {
    /// What is said in the log.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

/// Runs `act`; a panic in it becomes an error.
///
/// What `act` has changed by then stays changed: callers drop what could be half done.
pub(crate) fn catch<T>(act: impl FnOnce() -> T) -> Result<T, Caught> {
    IS_CATCHING.set(true);
    let result = catch_unwind(AssertUnwindSafe(act));
    IS_CATCHING.set(false);
    result.map_err(|panic| describe(&*panic))
}

fn describe(panic: &(dyn Any + Send)) -> Caught {
    let message = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        _ => "no message",
    };
    let place = PLACE.take().unwrap_or_else(|| "unknown place".to_owned());
    Caught(format!("panic at {place}: {message}"))
}

/// Installs the hook, once in a process.
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IS_CATCHING.get() {
                PLACE.set(info.location().map(ToString::to_string));
            } else {
                before(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caught_panic_says_what_and_where() {
        install_hook();
        let caught = catch(|| assert!(std::hint::black_box(false), "{} apples", 3));
        let caught = caught.expect_err("it panicked");
        assert!(caught.text().contains("panics.rs:"), "{}", caught.text());
        assert!(caught.text().ends_with(": 3 apples"), "{}", caught.text());
        assert!(matches!(catch(|| 7), Ok(7)));
    }
}
