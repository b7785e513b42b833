//! Socket calls and options that the standard library lacks.

mod diag;

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{getsockopt, sockopt};

use crate::Pid;

/// Connections that a client gave up before we took them, skipped in one [`accept`] before it says "none".
const ABORTED_MAX: usize = 64;

/// Takes one connection: non-blocking, close-on-exec. `Ok(None)`: none is waiting.
///
/// The address is `None` for unix sockets, whose clients have no name.
///
/// # Errors
///
/// `EMFILE`, `ENFILE`, `ENOMEM`: no room; the connection waits in the queue. `EINVAL`: not listening.
pub fn accept(listener: &impl AsFd) -> io::Result<Option<(OwnedFd, Option<SocketAddr>)>> {
    let fd = listener.as_fd().as_raw_fd();
    for _ in 0..ABORTED_MAX {
        let mut address = MaybeUninit::<libc::sockaddr_storage>::zeroed();
        let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: `address` has room for `length` bytes; both outlive the call.
        let accepted = crate::retry(|| unsafe {
            libc::accept4(fd, address.as_mut_ptr().cast(), &raw mut length, flags)
        });
        match accepted {
            Ok(number) => {
                // SAFETY: the kernel has just made this descriptor and nobody else knows its number.
                let connection = unsafe { OwnedFd::from_raw_fd(number) };
                // SAFETY: zeroed before the call: any bytes are a valid `sockaddr_storage`.
                let address = unsafe { address.assume_init() };
                return Ok(Some((connection, to_socket_address(&address))));
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(None),
                // The client is gone, or its network broke: Linux hands such errors to accept. Take the next one.
                Some(
                    libc::ECONNABORTED
                    | libc::EPROTO
                    | libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH
                    | libc::ENONET
                    | libc::ENOPROTOOPT
                    | libc::ETIMEDOUT
                    | libc::EPERM,
                ) => (),
                _ => return Err(error),
            },
        }
    }
    Ok(None)
}

fn to_socket_address(address: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let start: *const libc::sockaddr_storage = address;
    match libc::c_int::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: storage is large enough and aligned for every address, and its family says which one it is.
            let v4 = unsafe { &*start.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*start.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// Makes a listening TCP socket refuse new handshakes silently while those in flight complete.
///
/// For the last stop only, when nobody else holds the socket: the filter belongs to the socket, not to the descriptor.
/// A client whose SYN is dropped tries again after a second, and then meets the next server or a clear refusal.
/// No privilege is needed. The filter sees packets from the TCP header on, in IPv4 and IPv6 alike.
///
/// # Errors
///
/// `ENOMEM`, or a container that forbids socket filters.
pub fn drop_syns(listener: &impl AsFd) -> io::Result<()> {
    let code = |code: u32, jump_true, jump_false, k| libc::sock_filter {
        code: code as u16,
        jt: jump_true,
        jf: jump_false,
        k,
    };
    // Byte 13 holds the flags; SYN is 0x02, ACK 0x10: a SYN alone opens a connection.
    let mut program = [
        code(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, 13),
        code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, 0x12),
        code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0x02),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which outlives the call, and checks it before it is ever run.
    crate::check(unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Takes back [`drop_syns`]: new handshakes are answered again.
///
/// # Errors
///
/// `ENOENT`: nothing is filtered.
pub fn answer_syns(listener: &impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the kernel reads one `int`, which outlives the call.
    crate::check(unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            (&raw const unused).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Has a TCP socket count as readable only once so many bytes are there, or its peer has closed (`SO_RCVLOWAT`).
///
/// A read that does not block still gives whatever there is. If as much is there already, the readiness is reported
/// anew. Unix sockets take the option and disregard it.
///
/// # Errors
///
/// Not a socket.
pub fn set_receive_low_water(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one `int`, which outlives the call.
    crate::check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Has a TCP socket take no more once so many bytes wait in it unsent (`TCP_NOTSENT_LOWAT`), whatever its buffer would hold.
///
/// # Errors
///
/// Not a TCP socket.
pub fn set_unsent_max(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one `int`, which outlives the call.
    crate::check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Reads how much the kernel still holds of what was written (`SIOCOUTQ`): what the peer's kernel, or on a unix socket the
/// peer itself, has not taken.
///
/// TCP counts bytes. Unix sockets count memory, which comes free in pieces of up to some 40 KB.
///
/// # Errors
///
/// Not a socket, or a listening one.
pub fn unsent(socket: &impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one `int`, which outlives the call.
    crate::check(unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes)
    })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Who is at the other end of a connected unix socket, as it was when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id; 0 outside our namespace.
    pub pid: Pid,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// Reads who connected this unix socket (`SO_PEERCRED`).
///
/// # Errors
///
/// Not a connected unix socket.
pub fn peer_credentials(socket: &impl AsFd) -> io::Result<PeerCredentials> {
    let who = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(PeerCredentials { pid: Pid::from_raw(who.pid()), uid: who.uid(), gid: who.gid() })
}

/// How many connections wait to be accepted, and how many may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Complete connections waiting.
    pub length: u32,
    /// The backlog in force, after the kernel's cap (`net.core.somaxconn`).
    pub limit: u32,
}

/// Reads the accept queue of a listening socket; `None` where the kernel does not tell, and for connections.
///
/// # Errors
///
/// Not a socket.
pub fn queue(listener: &impl AsFd) -> io::Result<Option<Queue>> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` has room for `length` bytes; both outlive the call.
    let result = crate::check(unsafe {
        libc::getsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    });
    match result {
        Ok(_) => (),
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) =>
        {
            if !crate::fd::is_listening_socket(listener) {
                return Ok(None);
            }
            return diag::unix_queue(listener);
        }
        Err(error) => return Err(error),
    }
    // SAFETY: zeroed before the call: any bytes are a valid `tcp_info`.
    let info = unsafe { info.assume_init() };
    // TCP_LISTEN: for a listener the kernel puts its queue into fields that mean something else on connections.
    Ok((info.tcpi_state == 10)
        .then_some(Queue { length: info.tcpi_unacked, limit: info.tcpi_sacked }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("non-blocking");
        listener
    }

    #[test]
    fn accept_names_the_peer_and_never_blocks() {
        let listener = listener();
        assert!(accept(&listener).expect("no error").is_none());
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (connection, peer) = accept(&listener).expect("no error").expect("one waits");
        assert_eq!(peer, Some(client.local_addr().expect("bound")));
        let stream = TcpStream::from(connection);
        let error = std::io::Read::read(&mut &stream, &mut [0]).expect_err("nothing was sent");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn few_bytes_do_not_wake_behind_a_low_water_mark() {
        let listener = listener();
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (connection, _) = accept(&listener).expect("no error").expect("one waits");
        let readable = |limit: u8| {
            let fd = nix::poll::PollFd::new(connection.as_fd(), nix::poll::PollFlags::POLLIN);
            nix::poll::poll(&mut [fd], limit).expect("polled") == 1
        };
        set_receive_low_water(&connection, 10).expect("a socket");
        std::io::Write::write_all(&mut &client, b"12345").expect("written");
        assert!(!readable(50));
        std::io::Write::write_all(&mut &client, b"67890").expect("written");
        assert!(readable(250));
        set_receive_low_water(&connection, 11).expect("a socket");
        assert!(!readable(0));
        drop(client);
        assert!(readable(250), "the peer has closed");
    }

    #[test]
    fn what_a_peer_has_not_taken_is_known() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_eq!(unsent(&ours).expect("a socket"), 0);
        std::io::Write::write_all(&mut &ours, &[0; 1000]).expect("written");
        assert!(1000 <= unsent(&ours).expect("a socket"));
        std::io::Read::read_exact(&mut &theirs, &mut [0; 1000]).expect("read");
        assert_eq!(unsent(&ours).expect("a socket"), 0);
        assert!(unsent(&std::fs::File::open("/").expect("a folder")).is_err());
    }

    #[test]
    fn the_queue_is_seen_from_outside() {
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let _clients: Vec<_> =
            (0..3).map(|_| TcpStream::connect(address).expect("connected")).collect();
        let queue = queue(&listener).expect("a socket").expect("a listener");
        assert_eq!(queue.length, 3);
        assert!(queue.limit >= 3);
    }

    #[test]
    fn the_queue_of_a_unix_socket_is_seen_too() {
        let path = std::env::temp_dir().join(format!("sys-queue-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let connect = || std::os::unix::net::UnixStream::connect(&path).expect("connected");
        let _clients = [connect(), connect()];
        std::fs::remove_file(&path).expect("removed");
        let Some(queue) = queue(&listener).expect("a socket") else {
            return; // A kernel without this kind of sock_diag.
        };
        assert_eq!(queue.length, 2);
        assert!(queue.limit >= 2);
    }

    #[test]
    fn dropped_syns_leave_what_is_queued_alone() {
        let listener = listener();
        let address = listener.local_addr().expect("bound");
        let _before = TcpStream::connect(address).expect("connected");
        drop_syns(&listener).expect("attached");
        let start = Instant::now();
        let after = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(after.expect_err("dropped").kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(300));
        assert!(accept(&listener).expect("no error").is_some(), "the queued one is still there");
    }

    #[test]
    fn unix_peers_are_known() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let who = peer_credentials(&ours).expect("a unix socket");
        assert_eq!(who.pid.as_raw() as u32, std::process::id());
        assert_eq!(who.uid, nix::unistd::geteuid().as_raw());
        let unix_queue = queue(&ours).expect("a socket");
        assert_eq!(unix_queue, None);
    }
}
