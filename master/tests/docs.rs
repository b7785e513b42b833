//! The documents say what the program does.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Folder, Load, Server, get};

fn document(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

#[test]
fn the_settings_page_is_what_the_table_says() {
    let path = document("settings.md");
    let fresh = shared::settings::reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == fresh,
        "docs/settings.md is stale; refresh it with: UPDATE_DOCS=1 cargo test -p master --test docs"
    );
}

#[test]
fn the_signals_page_names_every_exit_code() {
    use shared::exit;
    let page = fs::read_to_string(document("signals.md")).unwrap();
    for code in [
        exit::OK,
        exit::RUNTIME,
        exit::USAGE,
        exit::WORKER_BOOT,
        exit::APP_LOAD,
        exit::CANNOT_BIND,
        exit::CONFIG,
    ] {
        assert!(page.contains(&format!("\n| {code} |")), "exit code {code} is missing");
    }
}

#[test]
fn the_contract_page_names_every_variable_and_order() {
    use shared::contract::{self, Order};
    let page = fs::read_to_string(document("worker-contract.md")).unwrap();
    for name in contract::RESERVED.iter().filter(|name| **name != contract::CMD_ARGS) {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing");
    }
    for order in [Order::ReArm, Order::SayClose, Order::Final] {
        assert!(
            page.contains(&format!("order `{}`", char::from(order.byte()))),
            "{order:?} is missing"
        );
    }
}

#[test]
fn the_contracts_example_is_a_worker() {
    let page = fs::read_to_string(document("worker-contract.md")).unwrap();
    let code = page.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = Folder::new();
    let program = folder.write_program("worker.py", code);
    let mut server = Server::start_in(folder, &["--workers", "2", "--", program.to_str().unwrap()]);
    let address = server.address();
    assert!(get(&address, "/").unwrap().contains("\r\n\r\nHello from slot "));
    let load = Load::start(&address, 3, Duration::from_millis(2));
    server.signal(Signal::SIGHUP);
    server.wait_for_line("Reloaded generation=1");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0), "{}", server.log());
    let (answered, failed) = load.finish();
    let lost: Vec<&String> =
        failed.iter().filter(|error| !error.contains("Connection refused")).collect();
    assert!(lost.is_empty() && 20 < answered, "{answered} answered, lost: {lost:?}");
    server.check_log();
}
