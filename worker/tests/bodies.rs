//! Request bodies: in memory, in a file, piece by piece; limits of size and of time; trailers.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Worker, example, start, until};

const MIB: usize = 1 << 20;

fn post(client: &mut Client, path: &str, body: &[u8]) {
    client.send(&format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    client.stream.write_all(body).unwrap();
}

fn post_in_chunks(client: &mut Client, path: &str, body: &[u8], trailers: &str) {
    client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for piece in body.chunks(30_000) {
        client.send(&format!("{:x}\r\n", piece.len()));
        client.stream.write_all(piece).unwrap();
        client.send("\r\n");
    }
    client.send(&format!("0\r\n{trailers}\r\n"));
}

fn sum(body: &[u8]) -> u64 {
    body.iter().map(|&byte| u64::from(byte)).sum()
}

/// Files that the worker holds open in `folder`.
fn open_files(worker: &Worker, folder: &str) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", worker.pid())).unwrap();
    all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(folder))
        .count()
}

#[test]
fn long_bodies_wait_in_a_file_and_short_ones_in_memory() {
    let folder = std::env::temp_dir().join(format!("monoceros-bodies-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let worker = start(example("bodies"), |settings| {
        settings.limit_request_body = 4 << 20;
        settings.body_memory_max = 100_000;
        settings.tmp_upload_dir = Some(folder.clone());
    });
    let long: Vec<u8> = (0..3 * MIB).map(|n| (n % 251) as u8).collect();
    let mut client = worker.connect();
    for path in ["/where", "/upload"] {
        for (body, place) in
            [(&long[..100_000], "memory"), (&long[..100_001], "file"), (&long, "file")]
        {
            let want = format!("{place} {} {}\n", body.len(), sum(body));
            post(&mut client, path, body);
            assert_eq!(client.reply().expect(200).text(), want, "{path}");
            post_in_chunks(&mut client, path, body, "");
            assert_eq!(client.reply().expect(200).text(), want, "{path} in chunks");
        }
    }
    // What is gathered for a handler that wants a slice is read back whole.
    post(&mut client, "/echo", &long);
    assert!(client.reply().expect(200).body == long);
    // While it arrives it has no name; when it is done it is gone.
    client.send("POST /where HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    client.stream.write_all(&long[..150_000]).unwrap();
    let folder_text = folder.to_str().unwrap();
    until(|| open_files(&worker, folder_text) == 1, || "no file is open".to_owned());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    drop(client);
    until(|| open_files(&worker, folder_text) == 0, || "the file is still open".to_owned());
    std::fs::remove_dir(&folder).unwrap();
    worker.stop();
}

#[test]
fn a_disk_that_takes_nothing_is_507_and_a_line_in_the_log() {
    let worker = start(example("bodies"), |settings| {
        settings.body_memory_max = 1000;
        settings.tmp_upload_dir = Some("/nonexistent/folder".into());
    });
    for path in ["/where", "/upload"] {
        let mut client = worker.connect();
        post(&mut client, path, &[b'x'; 5000]);
        client.reply().expect(507);
        let mut other = worker.connect();
        post(&mut other, path, b"short");
        other.reply().expect(200);
    }
    worker.await_log("[ERROR] Cannot store a request body: No such file or directory");
    assert!(worker.is_running());
}

#[test]
fn a_file_that_may_not_grow_is_507_and_the_worker_goes_on() {
    let worker = start(example("bodies"), |settings| {
        settings.limit_request_body = 8 << 20;
        settings.body_memory_max = 1000;
    });
    let pid = worker.pid().to_string();
    let limited = Command::new("prlimit").args(["--fsize=1048576", "--pid", &pid]).status();
    if !limited.is_ok_and(|status| status.success()) {
        println!("skipped: prlimit is missing");
        return;
    }
    let mut client = worker.connect();
    post(&mut client, "/where", &vec![b'x'; 4 * MIB]);
    assert!(client.reply().expect(507).closes());
    worker.await_log("[ERROR] Cannot store a request body: File too large");
    worker.get("/json").expect(200);
    assert!(worker.is_running());
}

#[test]
fn bodies_over_the_limit_are_413_however_they_are_read() {
    let worker = start(example("bodies"), |settings| settings.limit_request_body = 100_000);
    let body = vec![b'x'; 100_001];
    for path in ["/where", "/upload", "/echo", "/trailers/later"] {
        // Said at once when the length is known: nothing of the body is awaited.
        let mut client = worker.connect();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n"));
        assert!(client.reply().expect(413).closes(), "{path}");
        let mut client = worker.connect();
        post_in_chunks(&mut client, path, &body, "");
        assert!(client.reply().expect(413).closes(), "{path} in chunks");
        let mut client = worker.connect();
        post_in_chunks(&mut client, path, &body[1..], "");
        client.reply().expect(200);
    }
    worker.stop();
}

#[test]
fn trailers_reach_handlers_and_stay_apart_from_the_header() {
    let worker = start(example("bodies"), |_| ());
    let mut client = worker.connect();
    for path in ["/trailers", "/trailers/later"] {
        post_in_chunks(&mut client, path, b"hello", "X-Sum: 5\r\nx-empty:\r\n");
        assert_eq!(client.reply().expect(200).text(), "X-Sum=5\nx-empty=\n", "{path}");
        post_in_chunks(&mut client, path, b"hello", "");
        assert_eq!(client.reply().expect(200).text(), "", "{path}");
    }
    drop(client);
    worker.stop();
}

#[test]
fn a_body_that_drips_below_the_rate_is_408_and_one_above_it_arrives() {
    let worker = start(example("bodies"), |settings| {
        settings.body_timeout = Duration::from_millis(400);
        settings.body_rate_min = 1000;
    });
    for path in ["/where", "/upload"] {
        let mut client = worker.connect();
        client.send(&format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"));
        let began = Instant::now();
        // About 200 bytes a second, never silent for as long as the timeout.
        while !client.has_news() {
            assert!(began.elapsed() < PATIENCE, "{path}: it may drip on for ever");
            std::thread::sleep(Duration::from_millis(20));
            if client.stream.write_all(b"four").is_err() {
                break;
            }
        }
        assert!(client.reply().expect(408).closes(), "{path}");
        assert!(Duration::from_millis(300) < began.elapsed(), "{path}: {:?}", began.elapsed());
    }
    // About 10,000 bytes a second, for longer than the timeout in all.
    let mut client = worker.connect();
    client.send("POST /where HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n");
    for _ in 0..30 {
        client.stream.write_all(&[b'x'; 200]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    client.reply().expect(200);
    drop(client);
    worker.stop();
}

#[test]
fn a_body_is_echoed_while_it_arrives() {
    let worker = start(example("bodies"), |settings| settings.limit_request_body = 0);
    let mut client = worker.connect();
    client.send("POST /echo/stream HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n");
    client.send("first ");
    let head = client.head_reply().expect(200);
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(client.take(11), b"6\r\nfirst \r\n", "before the rest was sent");
    client.send("second");
    assert_eq!(client.take(16), b"6\r\nsecond\r\n0\r\n\r\n");
    // Far more than fits anywhere, by a client that reads only when it has written all it can: nothing is lost, and
    // what the client does not take makes the server stop reading.
    let body = vec![b'e'; 8 * MIB];
    let mut writing = client.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        writing
            .write_all(
                format!(
                    "POST /echo/stream HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                )
                .as_bytes(),
            )
            .unwrap();
        writing.write_all(&body).unwrap();
        body.len()
    });
    std::thread::sleep(Duration::from_millis(100));
    let rss = worker.resident_kib();
    assert!(rss < 60_000, "{rss} KiB are resident");
    let reply = client.reply().expect(200);
    assert_eq!(reply.body.len(), writer.join().unwrap());
    drop(client);
    worker.stop();
}
