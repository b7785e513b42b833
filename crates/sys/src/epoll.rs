//! Registrations that mio does not offer: one wake-up per connection among all workers that share a listener.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Registers `fd` level-triggered for reading, so that one of all the waiters on it is woken per event.
///
/// The kernel wakes waiters in the order of their registration, and of those only such as are inside `epoll_wait`.
/// A registration cannot be modified, only deleted and added again; adding one that is ready reports it at once.
/// `epoll` must be the set that is waited on (mio's `Poll`, say): in a nested set exclusiveness is lost.
///
/// # Errors
///
/// `EEXIST`: already registered. `EINVAL`: `fd` is itself an epoll set.
pub fn add_exclusive(epoll: &impl AsRawFd, fd: &impl AsFd, token: u64) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32;
    control(epoll, libc::EPOLL_CTL_ADD, fd, libc::epoll_event { events, u64: token })
}

/// Takes `fd` out of the set.
///
/// # Errors
///
/// `ENOENT`: it was not in the set.
pub fn delete(epoll: &impl AsRawFd, fd: &impl AsFd) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, fd, libc::epoll_event { events: 0, u64: 0 })
}

fn control(
    epoll: &impl AsRawFd,
    operation: libc::c_int,
    fd: &impl AsFd,
    mut event: libc::epoll_event,
) -> io::Result<()> {
    let fd = fd.as_fd();
    // SAFETY: the kernel copies `event` before it returns and touches no other memory; a number that is no epoll set,
    // which `AsRawFd` cannot exclude (mio's set has nothing else), is answered with an error.
    crate::check(unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), operation, fd.as_raw_fd(), &raw mut event)
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn one_connection_wakes_one_of_four_waiters() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let (woken, wakes) = mpsc::channel();
        std::thread::scope(|scope| {
            for waiter in 0..4_u64 {
                let (woken, listener) = (woken.clone(), &listener);
                scope.spawn(move || {
                    let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set");
                    add_exclusive(&set.0, listener, waiter).expect("added");
                    woken.send(None).expect("test is listening");
                    let mut events = [EpollEvent::empty()];
                    let count = set.wait(&mut events, EpollTimeout::from(600_u16)).expect("a wait");
                    if count == 1 {
                        assert_eq!(events[0].data(), waiter);
                        woken.send(Some(waiter)).expect("test is listening");
                    }
                });
            }
            for _ in 0..4 {
                let registered = wakes.recv_timeout(Duration::from_secs(10)).expect("registered");
                assert_eq!(registered, None);
            }
            // All four have registered; give the last of them the moment between its message and its wait.
            std::thread::sleep(Duration::from_millis(100));
            let client = TcpStream::connect(address).expect("connected");
            drop(woken);
            assert_eq!(wakes.iter().count(), 1, "an exclusive waiter must be woken alone");
            drop(client);
        });
    }

    #[test]
    fn deleting_twice_says_so() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("an epoll set");
        add_exclusive(&set.0, &listener, 7).expect("added");
        delete(&set.0, &listener).expect("deleted");
        let again = delete(&set.0, &listener).expect_err("not in the set");
        assert_eq!(again.raw_os_error(), Some(libc::ENOENT));
    }
}
