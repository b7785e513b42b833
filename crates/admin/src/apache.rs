//! `/status?auto`: the keys of Apache's `mod_status`, which many monitors read.

use std::fmt::Write;

use scoreboard::Counter;

use crate::observer::{Doing, View, Worker};

/// The letter of a worker on a scoreboard line.
pub fn letter(worker: &Worker) -> char {
    match worker.doing {
        Doing::Starting => 'S',
        Doing::Idle => '_',
        Doing::Busy => 'W',
        Doing::Draining => 'G',
    }
}

/// The whole page.
pub fn page(view: &View) -> String {
    let uptime = view.uptime().as_secs();
    let (requests, bytes) = (view.total(Counter::RequestsDone), view.total(Counter::BytesOut));
    let per = |sum: u64, count: u64| if count == 0 { 0.0 } else { sum as f64 / count as f64 };
    let cpu: f64 = view.slots.iter().map(|slot| slot.cpu.as_secs_f64()).sum();
    let mut page = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        page,
        "ServerVersion: monoceros/{}\nTotal Accesses: {requests}\nTotal kBytes: {}\nCPULoad: {:.6}\nUptime: {uptime}\n\
         ReqPerSec: {:.6}\nBytesPerSec: {:.6}\nBytesPerReq: {:.6}\nBusyWorkers: {}\nIdleWorkers: {}\nScoreboard: ",
        env!("CARGO_PKG_VERSION"),
        bytes / 1024,
        100.0 * cpu / uptime.max(1) as f64,
        per(requests, uptime),
        per(bytes, uptime),
        per(bytes, requests),
        view.doing(Doing::Busy) + view.doing(Doing::Draining),
        view.doing(Doing::Idle),
    );
    page.extend(view.workers.iter().map(letter));
    page.push('\n');
    page
}
