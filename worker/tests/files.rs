//! Files over the wire: whole, in parts, conditionally; and what is never served.

#![allow(clippy::unwrap_used)] // A helper that cannot go on fails its test.

mod common;

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use common::{Client, Worker, begin_with, example};
use shared::settings::Settings;

/// A folder with files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let root =
            std::env::temp_dir().join(format!("monoceros-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(root.join("site/docs")).unwrap();
        let folder = Folder(root);
        folder.write("site/style.css", b"body { color: red }\n");
        folder.write("site/docs/index.html", b"<h1>Docs</h1>\n");
        folder.write("site/empty", b"");
        folder.write("site/.env", b"SECRET=1\n");
        folder.write("secret", b"secret\n");
        std::os::unix::fs::symlink("../secret", folder.0.join("site/leak")).unwrap();
        std::os::unix::fs::symlink("style.css", folder.0.join("site/alias.css")).unwrap();
        folder
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.join(name), content).unwrap();
    }

    fn serve(&self, change: impl FnOnce(&mut Settings)) -> Worker {
        let variable = format!("BODIES_FILES={}/site", self.0.display());
        let (worker, message) = begin_with(example("bodies"), change, &[&variable]);
        assert!(message.contains("READY=1"), "{message}");
        worker
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn get(client: &mut Client, path: &str, fields: &str) -> common::Reply {
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.reply()
}

#[test]
fn a_file_comes_with_all_that_caches_need_and_conditions_are_heeded() {
    let folder = Folder::new("conditions");
    let worker = folder.serve(|_| ());
    let mut client = worker.connect();
    let reply = client.get("/static/style.css").expect(200);
    assert_eq!(reply.body, b"body { color: red }\n");
    assert_eq!(reply.header("content-type"), Some("text/css; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("max-age=60"));
    assert_eq!(reply.header("accept-ranges"), Some("bytes"));
    let etag = reply.header("etag").unwrap().to_owned();
    let modified = reply.header("last-modified").unwrap().to_owned();
    client.send("HEAD /static/style.css HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head_reply().expect(200).header("content-length"), Some("20"));

    client.send(&format!(
        "GET /static/style.css HTTP/1.1\r\nHost: a\r\nIf-None-Match: {etag}\r\n\r\n"
    ));
    let unchanged = client.head_reply().expect(304);
    assert_eq!(unchanged.header("etag"), Some(&*etag));
    assert_eq!(unchanged.header("cache-control"), Some("max-age=60"));
    assert_eq!(
        (unchanged.header("content-length"), unchanged.header("content-type")),
        (None, None)
    );
    client.send(&format!(
        "GET /static/style.css HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: {modified}\r\n\r\n"
    ));
    client.head_reply().expect(304);
    get(&mut client, "/static/style.css", "If-None-Match: \"other\"\r\n").expect(200);
    get(&mut client, "/static/style.css", "If-Match: \"other\"\r\n").expect(412);
    // Where there is no file there is nothing to compare with.
    get(&mut client, "/static/nothing", "If-Match: \"other\"\r\n").expect(404);

    let part = get(&mut client, "/static/style.css", "Range: bytes=5-5\r\n").expect(206);
    assert_eq!(part.header("content-range"), Some("bytes 5-5/20"));
    assert_eq!(part.body, b"{");
    let part = get(&mut client, "/static/style.css", "Range: bytes=-2\r\n").expect(206);
    assert_eq!(part.body, b"}\n");
    let beyond = get(&mut client, "/static/style.css", "Range: bytes=20-\r\n").expect(416);
    assert_eq!(beyond.header("content-range"), Some("bytes */20"));
    get(&mut client, "/static/style.css", "Range: bytes=0-1,3-4\r\n").expect(200);
    let stale = "Range: bytes=0-1\r\nIf-Range: \"old\"\r\n";
    get(&mut client, "/static/style.css", stale).expect(200);

    folder.write("site/style.css", b"body { color: blue }\n");
    let changed =
        get(&mut client, "/static/style.css", &format!("If-None-Match: {etag}\r\n")).expect(200);
    assert_eq!(changed.body, b"body { color: blue }\n");
    assert_eq!(client.get("/static/empty").expect(200).body, b"");
    drop(client);
    worker.stop();
}

#[test]
fn dates_are_written_in_the_one_format_that_may_be() {
    let folder = Folder::new("dates");
    let worker = folder.serve(|_| ());
    let reply = worker.get("/static/style.css").expect(200);
    for name in ["date", "last-modified"] {
        let text = reply.header(name).unwrap();
        assert_eq!(text.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{name}: {text}");
        assert_eq!(httpdate::fmt_http_date(httpdate::parse_http_date(text).unwrap()), text);
    }
}

#[test]
fn preconditions_mean_nothing_where_no_file_is_chosen() {
    let folder = Folder::new("options");
    let worker = folder.serve(|_| ());
    for (method, status) in [("OPTIONS", 204), ("TRACE", 405)] {
        let mut client = worker.connect();
        client.send(&format!(
            "{method} /static/style.css HTTP/1.1\r\nHost: a\r\nIf-Match: \"other\"\r\nIf-None-Match: *\r\n\r\n"
        ));
        client.reply().expect(status);
    }
}

#[test]
fn a_file_from_the_future_is_not_said_to_be_newer_than_its_response() {
    let folder = Folder::new("future");
    let file = std::fs::File::create(folder.0.join("site/future.txt")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(24 * 3600)).unwrap();
    let worker = folder.serve(|_| ());
    let mut client = worker.connect();
    let reply = get(&mut client, "/static/future.txt", "").expect(200);
    let date = |name| httpdate::parse_http_date(reply.header(name).unwrap()).unwrap();
    assert!(date("last-modified") <= date("date"), "{}", reply.head);
    // Such a date tells no content from another.
    let since =
        format!("If-Range: {}\r\nRange: bytes=0-0\r\n", reply.header("last-modified").unwrap());
    get(&mut client, "/static/future.txt", &since).expect(200);
}

#[test]
fn nothing_outside_the_folder_and_nothing_hidden_is_served() {
    let folder = Folder::new("outside");
    let fifo = std::process::Command::new("mkfifo").arg(folder.0.join("site/fifo")).status();
    assert!(fifo.unwrap().success());
    let worker = folder.serve(|_| ());
    let mut client = worker.connect();
    for path in [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "docs/../../secret",
        "docs/%2e%2e/%2e%2e/secret",
        "leak",
        ".env",
        "%2eenv",
        "docs%2findex.html",
        "/etc/passwd",
        "%2fetc/passwd",
        "style.css%00",
        "style.css/",
        "fifo",
        "missing",
        "docs/missing",
        "%",
        "%zz",
    ] {
        let reply = client.get(&format!("/static/{path}")).expect(404);
        assert!(!reply.text().contains("secret"), "{path}");
    }
    assert_eq!(client.get("/static/alias.css").expect(200).body, b"body { color: red }\n");
    // A folder is its index, by its own name only.
    assert_eq!(client.get("/static/docs/").expect(200).body, b"<h1>Docs</h1>\n");
    let moved = client.get("/static/docs?q=1").expect(301);
    assert_eq!(moved.header("location"), Some("/static/docs/?q=1"));
    client.get("/bare/docs/").expect(404);
    client.get("/bare/docs").expect(404);
    client.get("/bare/style.css").expect(200);
    client.send("POST /static/style.css HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    client.reply().expect(405);
    drop(client);
    worker.stop();
}

#[test]
fn large_files_arrive_whole_with_sendfile_and_without() {
    let folder = Folder::new("large");
    let content: Vec<u8> = (0..5_000_001).map(|n| (n * 31 % 251) as u8).collect();
    folder.write("site/large.bin", &content);
    for sendfile in [true, false] {
        let worker = folder.serve(|settings| {
            settings.sendfile = sendfile;
            settings.write_timeout = Duration::from_millis(1500);
        });
        let mut client = worker.connect();
        // Two in a row, and something behind them.
        client.send(&"GET /static/large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2));
        client.send("GET /json HTTP/1.1\r\nHost: a\r\n\r\n");
        for _ in 0..2 {
            // Never silent for as long as the write timeout.
            std::thread::sleep(Duration::from_millis(300));
            let reply = client.reply().expect(200);
            assert!(reply.body == content, "sendfile {sendfile}: the content differs");
        }
        client.reply().expect(200);
        let part = get(&mut client, "/static/large.bin", "Range: bytes=1000000-3999999\r\n");
        assert!(part.expect(206).body == content[1_000_000..4_000_000]);
        // A client that takes nothing is cut.
        let mut stuck = worker.connect();
        stuck.send(&"GET /static/large.bin HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4));
        std::thread::sleep(Duration::from_millis(3000));
        let (mut bytes, mut buffer) = (0_usize, vec![0; 1 << 16]);
        while let Ok(count @ 1..) = stuck.stream.read(&mut buffer) {
            bytes += count;
        }
        assert!(bytes < 4 * content.len(), "{bytes}");
        drop(client);
        worker.stop();
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection() {
    let folder = Folder::new("shrinks");
    let size = 64 << 20;
    let file = std::fs::File::create(folder.0.join("site/shrinks")).unwrap();
    file.set_len(size).unwrap();
    let worker = folder.serve(|_| ());
    let mut client = worker.connect();
    client.stream.write_all(b"GET /static/shrinks HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.head_reply().expect(200);
    file.set_len(1000).unwrap();
    let rest = client.rest();
    assert!((rest.len() as u64) < size, "{} bytes came", rest.len());
    worker.await_log("[ERROR] Error handling request GET /static/shrinks: the body comes from a file that shrank");
    worker.get("/json").expect(200);
}

#[test]
fn a_folder_that_is_not_there_fails_the_start() {
    let (mut worker, message) =
        begin_with(example("bodies"), |_| (), &["BODIES_FILES=/nonexistent/folder"]);
    assert!(message.contains("cannot serve the files of /nonexistent/folder"), "{message}");
    assert_eq!(worker.wait(), sys::pidfd::Exit::Code(4));
}

#[test]
fn a_fifo_is_no_file_and_is_not_waited_for() {
    let folder = Folder::new("fifo");
    let fifo = folder.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || said.send(worker::Response::file(fifo).is_err()));
    assert_eq!(heard.recv_timeout(common::PATIENCE), Ok(true));
}
