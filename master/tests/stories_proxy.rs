//! Through a real Nginx that keeps connections to us: reloads never show as a 502.
//!
//! Nginx does not send a POST again, so a server that closes a kept connection under one makes it fail.

use std::path::Path;
use std::time::Duration;

use testkit::{Endpoint, Load, Mode, Nginx, Server, Signal, TempDir};

/// Longest wait for one reload or one batch of answers: a loaded machine is slow.
const BOUND: Duration = Duration::from_secs(60);

/// An Nginx in front of `upstream`, without any retries of its own: every fault of ours must show.
fn nginx(upstream: &Endpoint) -> Nginx {
    Nginx::start(&format!(
        "upstream app {{ server {upstream} max_fails=0; keepalive 32; keepalive_timeout 30s; }}
         server {{
             listen 127.0.0.1:{{port}};
             keepalive_requests 1000000;
             location / {{
                 proxy_pass http://app;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_next_upstream off;
             }}
         }}"
    ))
}

/// An application that takes POST.
fn application() -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_master"));
    let program = programs.with_file_name("examples").join("bodies");
    assert!(program.exists(), "{} is missing: cargo build -p worker --examples", program.display());
    program.display().to_string()
}

fn reloads_behind(server: &Server, count: usize) {
    let nginx = nginx(server.endpoint());
    let kept = Mode::KeepAlive { pause: Duration::from_millis(10) };
    let body = [b'x'; 2_000];
    let loads = [
        // Its body is read, and comes back.
        Load::post(&nginx.endpoint(), "/echo", &body, kept).clients(16),
        Load::get(&nginx.endpoint(), "/json", kept).clients(8),
        Load::get(&nginx.endpoint(), "/json", Mode::CloseEach).clients(2),
    ];
    let running = loads.map(|load| load.duration(10 * BOUND).start());
    for _ in 0..count {
        let mark = server.log_mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_since(mark, "Reloaded generation=", 1, BOUND);
        running[0].wait_for(50, BOUND);
    }
    for running in running {
        let report = running.stop();
        assert_eq!(report.statuses.get(&502), None, "{report}\n{}", nginx.error_log());
        report.assert_nothing_lost(200);
    }
    server.assert_log_clean(&[]);
}

#[test]
fn twenty_reloads_behind_nginx_over_tcp_give_no_502() {
    if !Nginx::is_available() {
        return;
    }
    let args = ["--workers", "3", "--keep-alive", "75", &application()];
    let mut server = Server::start(env!("CARGO_BIN_EXE_master"), &args);
    server.wait_for_log("Ready workers=", BOUND);
    reloads_behind(&server, 20);
    server.stop();
}

#[test]
fn reloads_behind_nginx_over_a_unix_socket_give_no_502() {
    if !Nginx::is_available() {
        return;
    }
    let dir = TempDir::new();
    let bind = format!("unix:{}", dir.join("app.sock").display());
    let builder = Server::builder(env!("CARGO_BIN_EXE_master")).without_bind();
    let args = ["--bind", &bind, "--workers", "3", "--keep-alive", "75", &application()];
    let mut server = builder.args(args).start();
    server.wait_for_log("Ready workers=", BOUND);
    reloads_behind(&server, 10);
    server.stop();
}
