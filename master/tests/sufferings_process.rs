//! What gunicorn's users suffer from around the process, shown to be gone. The numbers are those of docs/gunicorn.md.

#![allow(clippy::unwrap_used)] // In helpers of tests.

mod support;

use support::{Folder, Server};

#[test]
fn s22_a_stale_pidfile_with_a_reused_pid_blocks_nobody() {
    // The test's own number lives and belongs to somebody else, as in a container that starts again.
    for pid in [std::process::id(), 1] {
        let folder = Folder::new();
        folder.write("m.pid", &format!("{pid}\n"));
        let server = Server::start_in(folder, &["--pid", "m.pid"]);
        let path = server.folder.path("m.pid");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", server.pid()));
        server.stop();
        assert!(!path.exists());
    }
}
