//! `master ctl`: asks a running master over its control socket, and prints the answer.
//!
//! The exit status is the outcome: 0 done, 1 refused or failed, 2 not understood, 69 nobody answers.

mod find;
mod text;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use shared::exit;

use crate::control::frame::{self, REPLY_BYTES_MAX, Reply, Request};

/// The first argument that makes this program the tool.
pub const CTL_COMMAND: &str = "ctl";

/// Longest wait for an answer that waits for nothing itself.
const ANSWER_MAX: Duration = Duration::from_secs(20);

const HELP: &str = "\
Usage: master ctl [OPTIONS] COMMAND

Asks a running master, and prints its answer. `master ctl help` lists the commands that it knows.

  status, ready, workers [N|+N|-N], worker kill SLOT [--now], listeners, config, reload [--wait], upgrade [--wait],
  reopen, stop [graceful|quick], show all|status|stats|workers|listeners|config, help

Options:
  -s, --socket PATH      the control socket; otherwise the one of the settings (control_socket),
                         $RUNTIME_DIRECTORY/control.sock, or /run/monoceros/control.sock
  -c, --config FILE      the settings file of the master that is meant
      --pidfile FILE     the master that is meant, by its pidfile
      --wait             with reload and upgrade: waits, and the exit status is the outcome
  -j, --json             prints the answer as JSON
  -h, --help             prints this

Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 69 no master answers.
";

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    socket: Option<PathBuf>,
    config: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    json: bool,
    help: bool,
    words: Vec<String>,
}

/// Runs the tool; returns the exit code.
#[must_use]
pub fn run(args: impl Iterator<Item = OsString>) -> i32 {
    let asked = match parse(args) {
        Ok(asked) if asked.help => {
            print(HELP);
            return exit::OK;
        }
        Ok(asked) => asked,
        Err(why) => {
            complain(&format!("{why}\n\n{}", HELP.lines().next().unwrap_or_default()));
            return exit::USAGE;
        }
    };
    let stream = match find::connect(&asked) {
        Ok(stream) => stream,
        Err(why) => {
            complain(&why);
            return exit::CANNOT_BIND;
        }
    };
    match ask(stream, &asked.words) {
        Ok(reply) => report(&asked, &reply),
        Err(error) => {
            complain(&format!("the master ended the conversation: {error}"));
            exit::RUNTIME
        }
    }
}

fn report(asked: &Asked, reply: &Reply) -> i32 {
    if asked.json {
        let json = serde_json::to_string(reply).unwrap_or_default();
        print(&format!("{json}\n"));
    } else if reply.error.is_none() {
        print(&text::of(&reply.data));
    }
    match &reply.error {
        Some(why) => {
            if !asked.json {
                complain(why);
            }
            exit::RUNTIME
        }
        None if reply.data.get("ready") == Some(&Value::Bool(false)) => exit::RUNTIME,
        None => exit::OK,
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut args = args.map(|arg| arg.into_string().map_err(|arg| format!("{arg:?} is no text")));
    while let Some(arg) = args.next().transpose()? {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (arg.as_str(), None),
        };
        let slot = match name {
            "-s" | "--socket" => &mut asked.socket,
            "-c" | "--config" => &mut asked.config,
            "--pidfile" | "--pid" => &mut asked.pidfile,
            "-j" | "--json" => {
                asked.json = true;
                continue;
            }
            "-h" | "--help" => {
                asked.help = true;
                continue;
            }
            "--wait" | "--now" => {
                asked.words.push(arg);
                continue;
            }
            // `workers -1` means one fewer.
            _ if arg.starts_with('-') && arg.parse::<i64>().is_err() => {
                return Err(format!("no such option: {arg}"));
            }
            _ => {
                asked.words.push(arg);
                continue;
            }
        };
        let value = match value {
            Some(value) => value,
            None => args.next().transpose()?.ok_or_else(|| format!("{name} needs a value"))?,
        };
        *slot = Some(value.into());
    }
    if asked.words.is_empty() && !asked.help {
        return Err("a command is missing".to_owned());
    }
    Ok(asked)
}

/// Sends the words and waits for the answer; for as long as it takes if they say so.
fn ask(mut stream: UnixStream, words: &[String]) -> io::Result<Reply> {
    let waits = words.iter().any(|word| word == "--wait");
    stream.set_read_timeout((!waits).then_some(ANSWER_MAX))?;
    let mut words = words.iter().cloned();
    let command = words.next().unwrap_or_default();
    let args = words.map(Value::String).collect();
    stream.write_all(&frame::write(&Request { id: 1.into(), command: quoted(&command), args }))?;
    let mut unread = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let taken = frame::take(&mut unread, REPLY_BYTES_MAX);
        let taken = taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(json) = taken {
            return Ok(serde_json::from_slice(&json)?);
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => unread.extend_from_slice(&buffer[..length]),
        }
    }
}

/// The command is split as a shell would; ours is split already.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn print(text: &str) {
    // A reader that went away has read enough.
    let _ = io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    // Nobody to hear it: the exit code says it too.
    let _ = writeln!(io::stderr(), "master ctl: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Asked, String> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn options_may_stand_anywhere() {
        let asked = words("reload --wait -j --socket=/s").unwrap();
        assert_eq!(asked.words, ["reload", "--wait"]);
        assert!(asked.json && asked.socket == Some("/s".into()));
        assert_eq!(words("-c f workers -1").unwrap().words, ["workers", "-1"]);
        assert_eq!(words("-j"), Err("a command is missing".to_owned()));
        assert_eq!(words("reload --now-then"), Err("no such option: --now-then".to_owned()));
        assert_eq!(words("status -s"), Err("-s needs a value".to_owned()));
    }
}
