//! Logs on pipes that nobody reads, on full disks, on rotated files.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use logging::{Frame, LOG_QUEUE_BYTES_MAX, Level, LineBuffer, Log, Target, debug, error, info};

/// Longest time in which a thousand writes must return, whoever reads.
const BOUND: Duration = Duration::from_secs(5);

fn pipe() -> (File, OwnedFd) {
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    (File::from(read), write)
}

fn read_now(from: &mut File) -> String {
    let mut text = String::new();
    let mut buffer = [0; 65_536];
    while sys::fd::wait_readable(from, Some(Duration::ZERO)).expect("polled") {
        match from.read(&mut buffer).expect("readable") {
            0 => break,
            count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    text
}

fn file() -> PathBuf {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("logging-{}-{number}.log", std::process::id()))
}

#[test]
fn a_line_stands_in_gunicorns_frame() {
    let (mut read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    info!(log, "Booting worker with pid: {}", 4242);
    debug!(log, "not written");
    log.set_level(Level::Error);
    info!(log, "not written either");
    error!(log, "boom");
    let text = read_now(&mut read);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let (stamp, rest) = lines[0].split_at("[2026-01-31 12:00:00 +0000]".len());
    let pid = std::process::id();
    assert_eq!(rest, format!(" [{pid}] [INFO] Booting worker with pid: 4242"));
    let shape: String = stamp.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape.replace('-', "+"), "[9999+99+99 99:99:99 +9999]");
    assert!(lines[1].ends_with("[ERROR] boom"));
}

#[test]
fn a_text_cannot_forge_a_line() {
    let (mut read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    log.write_line(
        Level::Info,
        "path=/a\r\n[2026-01-01 00:00:00 +0000] [1] [ERROR] x\x1b[2J\u{85}é",
    );
    let text = read_now(&mut read);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r"/a\r\n[2026"), "{text}");
    assert!(!text.contains('\x1b') && text.ends_with("\\u{85}é\n"), "{text}");
    log.write_line(Level::Info, &"x".repeat(1 << 20));
    log.flush();
    // A pipe takes it at once: no other process's line comes into the middle of it.
    assert_eq!(read_now(&mut read).len(), 4096);
    log.set_frame(Frame::Json);
    for text in ["x".repeat(1 << 20), "\u{2028}\"".repeat(4000)] {
        log.write_line(Level::Info, &text);
        let line = read_now(&mut read);
        assert!((4086..=4096).contains(&line.len()) && line.ends_with("\"}\n"), "{line}");
    }
    let path = file();
    let log = Log::open(Target::File(path.clone())).expect("opened");
    log.write_line(Level::Info, &"x".repeat(1 << 20));
    let bytes = fs::read(&path).expect("written").len();
    assert!((16_000..20_000).contains(&bytes), "a line has a bound in a file too: {bytes}");
    fs::remove_file(&path).expect("removed");
}

#[test]
fn a_pipe_that_nobody_reads_blocks_nobody_and_the_loss_is_told() {
    let (mut read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    let start = Instant::now();
    let filler = "x".repeat(1_000);
    for number in 0..1_000 {
        info!(log, "number={number} {filler}");
    }
    assert!(start.elapsed() < BOUND);

    let mut text = String::new();
    for _ in 0..1_000 {
        let more = read_now(&mut read);
        text.push_str(&more);
        log.flush();
        if more.is_empty() {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    // In order from the first on, whole, and then the account of what is missing.
    let (last, kept) = lines.split_last().expect("lines");
    for (number, line) in kept.iter().enumerate() {
        assert!(line.contains(&format!("number={number} ")) && line.ends_with("xxx"), "{line}");
    }
    let lost = 1_000 - kept.len();
    assert!(lost > 0 && kept.len() * 1_000 >= LOG_QUEUE_BYTES_MAX / 2, "{lost} lost");
    assert!(last.ends_with(&format!("lines={lost}")), "{last}");
    info!(log, "back to normal");
    assert!(read_now(&mut read).ends_with("back to normal\n"));
}

#[test]
fn a_reader_that_went_away_harms_nobody() {
    let (read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    drop(read);
    for _ in 0..1_000 {
        info!(log, "into the void");
    }
    assert!(log.flush_within(Duration::from_millis(50)));
}

#[test]
fn the_end_waits_for_a_slow_reader_but_not_for_ever() {
    let (mut read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    for _ in 0..100 {
        info!(log, "{}", "x".repeat(1_000));
    }
    let start = Instant::now();
    assert!(!log.flush_within(Duration::from_millis(100)), "nobody reads");
    assert!(start.elapsed() < BOUND);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        read.read_to_string(&mut text).expect("text");
        text.lines().count()
    });
    assert!(log.flush_within(BOUND));
    drop(log);
    assert_eq!(reader.join().expect("no panic"), 100);
}

#[test]
fn sockets_such_as_the_journals_never_block_either() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let log = Log::to_fd(ours.into()).expect("opened");
    let start = Instant::now();
    for number in 0..2_000 {
        info!(log, "number={number} {}", "x".repeat(1_000));
    }
    assert!(start.elapsed() < BOUND);
    let mut theirs = File::from(OwnedFd::from(theirs));
    assert!(read_now(&mut theirs).contains("number=0 "));
    log.flush();
    assert!(!read_now(&mut theirs).is_empty());
}

#[test]
fn the_flags_of_a_shared_stream_are_left_alone() {
    let (_read, write) = pipe();
    let log = Log::to_fd(write.try_clone().expect("a copy")).expect("opened");
    info!(log, "hello");
    let flags = nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_GETFL).expect("readable");
    assert_eq!(flags & nix::fcntl::OFlag::O_NONBLOCK.bits(), 0, "others write here too");
}

#[test]
fn a_rotated_file_is_reopened_and_a_missing_directory_keeps_the_old_one() {
    let path = file();
    let rotated = path.with_extension("log.1");
    let log = Log::open(Target::File(path.clone())).expect("opened");
    info!(log, "one");
    fs::rename(&path, &rotated).expect("renamed");
    info!(log, "two");
    log.reopen().expect("reopened");
    info!(log, "three");
    assert_eq!(fs::read_to_string(&rotated).expect("rotated").lines().count(), 2);
    assert!(fs::read_to_string(&path).expect("new").ends_with("three\n"));
    fs::remove_file(&rotated).expect("removed");
    fs::remove_file(&path).expect("removed");

    let dir = path.with_extension("dir");
    fs::create_dir(&dir).expect("made");
    let log = Log::open(Target::File(dir.join("x.log"))).expect("opened");
    let moved = dir.with_extension("moved");
    fs::rename(&dir, &moved).expect("renamed");
    assert!(log.reopen().is_err());
    info!(log, "still here");
    assert!(fs::read_to_string(moved.join("x.log")).expect("old").ends_with("still here\n"));
    fs::remove_dir_all(&moved).expect("removed");
}

#[test]
fn a_full_disk_is_survived_and_told() {
    // Opens and takes nothing, like a disk without room.
    let Ok(log) = Log::open(Target::File(PathBuf::from("/dev/full"))) else { return };
    for _ in 0..10 {
        info!(log, "no room");
    }
    assert!(log.flush_within(Duration::from_millis(50)), "nothing is kept for ever");
    assert!(Log::open(Target::File(PathBuf::from("/no/such/directory/x.log"))).is_err());
}

#[test]
fn lines_of_many_writers_do_not_mix() {
    let (mut read, write) = pipe();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut lines = LineBuffer::to_fd(write.try_clone().expect("a copy")).expect("opened");
            std::thread::spawn(move || {
                for _ in 0..20 {
                    for _ in 0..40 {
                        lines.append(|bytes| bytes.resize(bytes.len() + 97, b'a' + writer));
                    }
                    lines.flush();
                    std::thread::yield_now();
                }
                // What still waits for the reader goes out before the writer ends.
                let deadline = Instant::now() + BOUND;
                while lines.pending_bytes() > 0 && Instant::now() < deadline {
                    lines.flush();
                    std::thread::yield_now();
                }
                lines.take_dropped()
            })
        })
        .collect();
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).expect("text");
    for writer in writers {
        assert_eq!(writer.join().expect("no panic"), 0);
    }
    assert_eq!(text.lines().count(), 4 * 20 * 40);
    for line in text.lines() {
        let first = line.as_bytes().first();
        assert!(line.len() == 97 && line.bytes().all(|byte| Some(&byte) == first), "{line}");
    }
}

#[test]
fn the_access_log_drops_and_counts_what_nobody_reads() {
    let (_read, write) = pipe();
    let mut lines = LineBuffer::to_fd(write).expect("opened");
    for _ in 0..3_000 {
        lines.append(|bytes| bytes.extend_from_slice(&[b'x'; 999]));
        lines.flush();
    }
    let dropped = lines.take_dropped();
    assert!((1_000..3_000).contains(&dropped), "{dropped}");
    assert_eq!(lines.take_dropped(), 0);
}

#[test]
fn a_line_can_be_an_object() {
    let (mut read, write) = pipe();
    let log = Log::to_fd(write).expect("opened");
    log.set_frame(Frame::Json);
    error!(log, "a \"quoted\"\nthing\u{1}");
    let text = read_now(&mut read);
    assert_eq!(text.lines().count(), 1, "{text}");
    let (time, rest) = text.split_at("{\"time\":\"2026-01-31T12:00:00+00:00\"".len());
    let pid = std::process::id();
    let want = format!(
        ",\"severity\":\"ERROR\",\"pid\":{pid},\"message\":\"a \\\"quoted\\\"\\u000athing\\u0001\"}}\n"
    );
    assert_eq!(rest, want);
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape.replace('-', "+"), "{\"time\":\"9999+99+99T99:99:99+99:99\"");
}

#[test]
fn a_log_goes_on_elsewhere_or_stays() {
    let (old, new) = (file(), file());
    let log = Log::open(Target::File(old.clone())).expect("opened");
    info!(log, "first");
    assert!(log.redirect(Target::File("/nowhere/at/all".into())).is_err());
    info!(log, "second");
    log.redirect(Target::File(new.clone())).expect("opened");
    info!(log, "third");
    let text = |path: &PathBuf| fs::read_to_string(path).expect("written");
    assert!(text(&old).contains("second") && !text(&old).contains("third"));
    assert!(text(&new).contains("third"));
    // It is the new one that is opened again.
    fs::remove_file(&new).expect("there");
    log.reopen().expect("opened");
    info!(log, "fourth");
    assert!(text(&new).contains("fourth"));
    fs::remove_file(old).expect("there");
    fs::remove_file(new).expect("there");
}
