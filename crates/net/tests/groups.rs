//! TCP groups: spreading, joining, refusing to join, adopting.

#![allow(clippy::expect_used)] // In helpers too: a test may panic.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use net::{BindAddr, BindOptions, Kind, ListenerGroup, LocalAddr, Peer};

fn bind(text: &str, shards: usize) -> Result<ListenerGroup, net::BindError> {
    let addr: BindAddr = text.parse().expect("an address");
    ListenerGroup::bind(&addr, shards, &BindOptions::default())
}

fn ip(group: &ListenerGroup) -> SocketAddr {
    group.addr().ip().expect("a TCP group")
}

/// Accepts what is queued on each shard and counts it.
fn accepted(group: &ListenerGroup) -> Vec<usize> {
    let count =
        |shard: &net::Listener| std::iter::from_fn(|| shard.accept().expect("no error")).count();
    group.shards().iter().map(count).collect()
}

#[test]
fn port_0_gives_one_port_to_all_shards_and_every_shard_gets_connections() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let group = bind(address, 4).expect("bound");
        assert_eq!(group.shards().len(), 4);
        assert!(group.shards().iter().all(|shard| shard.local_addr() == group.addr()));
        let clients: Vec<_> =
            (0..400).map(|_| TcpStream::connect(ip(&group)).expect("connected")).collect();
        assert_eq!(group.queue_length(), Some(400));
        let counts = accepted(&group);
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        // 100 each by hash; fewer than 50 would mean that a shard is not in the group.
        assert!(counts.iter().all(|&count| count >= 50), "{address}: {counts:?}");
    }
}

#[test]
fn a_group_is_never_joined_by_a_second_server() {
    for (first, second) in [(3, 3), (1, 3), (3, 1), (1, 1)] {
        let group = bind("127.0.0.1:0", first).expect("bound");
        let error = bind(&ip(&group).to_string(), second).expect_err("would share the port");
        assert!(error.is_in_use(), "{first} then {second}: {error:?}");
        assert_eq!(error.to_string(), format!("cannot bind {}", ip(&group)));
    }
}

#[test]
fn a_stray_holder_of_the_port_is_an_error_and_not_a_partner() {
    // What a leftover worker of a dead server looks like: a member of a SO_REUSEPORT group, accepting nothing.
    let stray = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let stray = stray.expect("a socket");
    stray.set_reuse_port(true).expect("set");
    stray.set_reuse_address(true).expect("set");
    stray.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    stray.listen(16).expect("listening");
    let stray = TcpListener::from(stray);
    let address = stray.local_addr().expect("bound").to_string();
    let error = bind(&address, 3).expect_err("taken");
    assert!(error.is_in_use());
    let holders = error.holders();
    let us = std::process::id();
    assert!(holders.iter().any(|(pid, _)| pid.as_raw() as u32 == us), "{holders:?}");
    drop(stray);
    bind(&address, 3).expect("free again");
}

#[test]
fn two_servers_that_start_together_never_share_a_port() {
    for _ in 0..50 {
        let free = bind("127.0.0.1:0", 1).expect("bound");
        let address = ip(&free).to_string();
        drop(free);
        let start = std::sync::Barrier::new(2);
        let both: Vec<_> = std::thread::scope(|scope| {
            let server = || {
                start.wait();
                bind(&address, 3)
            };
            let servers = [scope.spawn(server), scope.spawn(server)];
            servers.map(|server| server.join().expect("no panic")).into_iter().collect()
        });
        assert!(both.iter().filter(|result| result.is_ok()).count() <= 1, "both got {address}");
    }
}

#[test]
fn a_restart_binds_beside_connections_in_time_wait() {
    let group = bind("127.0.0.1:0", 2).expect("bound");
    let address = ip(&group);
    let client = TcpStream::connect(address).expect("connected");
    let connection = loop {
        let mut all = group.shards().iter();
        if let Some(one) = all.find_map(|shard| shard.accept().expect("no error")) {
            break one;
        }
    };
    // The server closes first, so TIME_WAIT is on its side.
    drop(connection);
    drop(client);
    drop(group);
    bind(&address.to_string(), 2).expect("the port can be used again at once");
}

#[test]
fn accepted_connections_have_no_delay_and_know_their_peer() {
    let group = bind("127.0.0.1:0", 1).expect("bound");
    let client = TcpStream::connect(ip(&group)).expect("connected");
    let (accepted, peer) = group.shards()[0].accept().expect("no error").expect("one waits");
    assert_eq!(accepted.kind, Kind::Tcp);
    assert_eq!(peer, Peer::Ip(client.local_addr().expect("connected")));
    assert!(TcpStream::from(accepted.fd).nodelay().expect("a TCP socket"));
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_keeps_its_address() {
    let group = bind("[::]:0", 1).expect("bound");
    let port = ip(&group).port();
    // Where the machine makes IPv6 sockets IPv6 only there is nothing to see.
    let Ok(client) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let (_, peer) = group.shards()[0].accept().expect("no error").expect("one waits");
    assert_eq!(peer, Peer::Ip(client.local_addr().expect("connected")));
}

#[test]
fn inherited_sockets_form_groups_by_address() {
    let (a, b) = (bind("127.0.0.1:0", 3).expect("bound"), bind("127.0.0.1:0", 2).expect("bound"));
    let copies = a.shards().iter().chain(b.shards());
    let mut fds: Vec<OwnedFd> =
        copies.map(|shard| shard.try_clone().expect("a copy").into()).collect();
    fds.swap(1, 4);
    let groups = ListenerGroup::adopt(fds).expect("all listen");
    assert_eq!(groups.len(), 2);
    assert_eq!((groups[0].addr(), groups[0].shards().len()), (a.addr(), 3));
    assert_eq!((groups[1].addr(), groups[1].shards().len()), (b.addr(), 2));

    let null = std::fs::File::open("/dev/null").expect("null");
    let error = ListenerGroup::adopt(vec![null.into()]).expect_err("not a socket");
    assert!(error.to_string().contains("descriptor 3"), "{error}");
}

#[test]
fn the_backlog_in_force_is_told() {
    let addr: BindAddr = "127.0.0.1:0".parse().expect("an address");
    let options = BindOptions { backlog: 7, ..BindOptions::default() };
    let group = ListenerGroup::bind(&addr, 2, &options).expect("bound");
    assert_eq!(group.backlog_granted(), Some(7));
    let options = BindOptions { backlog: 1 << 30, ..BindOptions::default() };
    let group = ListenerGroup::bind(&addr, 1, &options).expect("bound");
    assert!(group.backlog_granted().expect("known") < 1 << 30, "the kernel has a cap");
}

#[test]
fn what_cannot_be_bound_says_why() {
    let error = bind("192.0.2.1:0", 1).expect_err("an address for documentation");
    assert!(error.is_invalid(), "{error:?}");
    let error = bind("no-such-host.invalid:80", 1).expect_err("a name that never exists");
    assert!(error.is_invalid(), "{error:?}");
    assert_eq!(error.to_string(), "cannot find the host of no-such-host.invalid:80");
    assert!(bind("fd://987654", 1).is_err());
}

#[test]
fn after_the_last_stop_the_queue_is_still_served_and_new_clients_are_not() {
    let group = bind("127.0.0.1:0", 2).expect("bound");
    let _clients: Vec<_> =
        (0..20).map(|_| TcpStream::connect(ip(&group)).expect("connected")).collect();
    group.refuse_new().expect("filters attached");
    let limit = std::time::Duration::from_millis(200);
    assert!(TcpStream::connect_timeout(&ip(&group), limit).is_err());
    assert_eq!(accepted(&group).iter().sum::<usize>(), 20);
}

#[test]
fn a_refusal_can_be_taken_back() {
    let group = bind("127.0.0.1:0", 2).expect("bound");
    group.refuse_new().expect("filters attached");
    group.accept_new().expect("filters detached");
    let clients: Vec<_> =
        (0..20).map(|_| TcpStream::connect(ip(&group)).expect("connected")).collect();
    assert_eq!(accepted(&group).iter().sum::<usize>(), clients.len());
    assert!(group.accept_new().is_err(), "nothing is refused");
}

#[test]
fn wildcards_are_reached_over_loopback() {
    let local = LocalAddr::Tcp("0.0.0.0:80".parse().expect("an address"));
    assert_eq!(local.reachable().to_string(), "http://127.0.0.1:80");
}
