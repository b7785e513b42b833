//! The companion by itself: `embedded-postgres STATE_DIR [PROGRAM]`, until TERM.
//!
//! With `LIFELINE` set it stops at the end of its standard input, too. `master --database embedded` runs the same code.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;

use embedded::Options;

fn main() {
    let mut args = std::env::args_os().skip(1);
    let Some(state_dir) = args.next().map(PathBuf::from).filter(|path| path.is_absolute()) else {
        say("usage: embedded-postgres STATE_DIR [PROGRAM], with an absolute path");
        std::process::exit(2);
    };
    let lifeline = std::env::var_os("LIFELINE").is_some();
    let code = embedded::run(Options {
        state_dir,
        create_tables: args.next().map(PathBuf::from),
        socket_group: None,
        lifeline: lifeline.then(|| std::io::stdin().as_fd().try_clone_to_owned().ok()).flatten(),
        notify_socket: std::env::var_os("NOTIFY_SOCKET"),
        log: Box::new(|level, text| say(&format!("[{level:?}] {text}"))),
    });
    std::process::exit(code);
}

fn say(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
