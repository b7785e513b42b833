//! Addresses: as they are written in settings, and as the kernel has them.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::socket::{SockaddrStorage, getsockname};

/// Port of an address that names none.
pub const DEFAULT_PORT: u16 = 8000;

/// Longest unix socket path or abstract name, in bytes: what fits into the kernel's address.
pub const UNIX_NAME_BYTES_MAX: usize = 107;

/// An address to listen on, in gunicorn's forms. Displays as it may be written.
///
/// `HOST:PORT`, `[V6]:PORT`, `:PORT`, `HOST`, each with or without `tcp://`; `unix:PATH`, `unix://PATH`;
/// `unix:@NAME` (abstract); `fd://N` (an inherited listening socket).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindAddr {
    /// A host name or IP address (without brackets) and a port; port 0 lets the kernel choose.
    Tcp {
        /// Name or address; never empty.
        host: String,
        /// Port.
        port: u16,
    },
    /// A path in the file system.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace, without the `@`.
    Abstract(Vec<u8>),
    /// A descriptor that this program was started with.
    Fd(RawFd),
}

/// An address that cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddrError {
    /// The part behind the last colon is no number from 0 to 65535.
    Port(String),
    /// `fd://` is not followed by a number above 2.
    Fd(String),
    /// `unix:` is followed by nothing, or by a path that is too long or has a zero byte.
    Unix(String),
    /// Brackets, colons or spaces where none can be.
    Host(String),
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddrError::Port(text) => write!(f, "{text:?} is not a port number (0 to 65535)"),
            AddrError::Fd(text) => write!(f, "{text:?} is not a file descriptor (3 or higher)"),
            AddrError::Unix(text) => write!(
                f,
                "{text:?} is not a socket path (1 to {UNIX_NAME_BYTES_MAX} bytes, none of them zero)"
            ),
            AddrError::Host(text) => {
                write!(f, "{text:?} is not a host (write HOST:PORT, [IPV6]:PORT or unix:PATH)")
            }
        }
    }
}

impl std::error::Error for AddrError {}

impl FromStr for BindAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<BindAddr, AddrError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(rest.strip_prefix("//").unwrap_or(rest));
        }
        if let Some(number) = text.strip_prefix("fd://") {
            return match number.parse() {
                Ok(number) if number > 2 => Ok(BindAddr::Fd(number)),
                _ => Err(AddrError::Fd(number.to_owned())),
            };
        }
        tcp(text.strip_prefix("tcp://").unwrap_or(text))
    }
}

fn unix(path: &str) -> Result<BindAddr, AddrError> {
    let name = path.strip_prefix('@');
    let length = name.unwrap_or(path).len();
    if length == 0 || length > UNIX_NAME_BYTES_MAX || path.contains('\0') {
        return Err(AddrError::Unix(path.to_owned()));
    }
    Ok(match name {
        Some(name) => BindAddr::Abstract(name.as_bytes().to_vec()),
        None => BindAddr::Unix(PathBuf::from(path)),
    })
}

fn tcp(text: &str) -> Result<BindAddr, AddrError> {
    let wrong = || AddrError::Host(text.to_owned());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
        // A zone (`fe80::1%eth0`) is left to the resolver.
        if !matches!(host.split('%').next().map(str::parse), Some(Ok(IpAddr::V6(_)))) {
            return Err(wrong());
        }
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or_else(wrong)?),
        };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(wrong()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/[]@".contains(c)) {
        return Err(wrong());
    }
    let port = match port {
        None => DEFAULT_PORT,
        // `parse` would take a plus sign.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            port.parse().map_err(|_| AddrError::Port(port.to_owned()))?
        }
        Some(port) => return Err(AddrError::Port(port.to_owned())),
    };
    // gunicorn: no host means every IPv4 address.
    let host = if host.is_empty() { "0.0.0.0".to_owned() } else { host.to_ascii_lowercase() };
    Ok(BindAddr::Tcp { host, port })
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindAddr::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            BindAddr::Tcp { host, port } => write!(f, "{host}:{port}"),
            BindAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            BindAddr::Abstract(name) => write!(f, "unix:@{}", String::from_utf8_lossy(name)),
            BindAddr::Fd(number) => write!(f, "fd://{number}"),
        }
    }
}

/// The address of a socket as the kernel has it. Displays as gunicorn logs it: `http://127.0.0.1:8000`, `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LocalAddr {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path in the file system.
    Unix(PathBuf),
    /// A name in Linux's abstract namespace.
    Abstract(Vec<u8>),
    /// A unix socket without a name.
    Unnamed,
}

impl LocalAddr {
    /// Asks the kernel for the address of a socket.
    ///
    /// # Errors
    ///
    /// Not a socket, or one of a family other than IPv4, IPv6 and unix.
    pub fn of(socket: &impl AsFd) -> io::Result<LocalAddr> {
        let address: SockaddrStorage = getsockname(socket.as_fd().as_raw_fd())?;
        if let Some(v4) = address.as_sockaddr_in() {
            return Ok(LocalAddr::Tcp(SocketAddr::V4((*v4).into())));
        }
        if let Some(v6) = address.as_sockaddr_in6() {
            return Ok(LocalAddr::Tcp(SocketAddr::V6((*v6).into())));
        }
        if let Some(unix) = address.as_unix_addr() {
            if let Some(path) = unix.path() {
                return Ok(LocalAddr::Unix(crate::unix::visible_path(path)));
            }
            return Ok(unix
                .as_abstract()
                .map_or(LocalAddr::Unnamed, |name| LocalAddr::Abstract(name.to_vec())));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "socket of an unknown address family"))
    }

    /// The IP address and port, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            LocalAddr::Tcp(address) => Some(*address),
            _ => None,
        }
    }

    /// The address by which a client on this machine reaches it: a wildcard becomes loopback.
    #[must_use]
    pub fn reachable(&self) -> LocalAddr {
        match *self {
            LocalAddr::Tcp(address) if address.ip().is_unspecified() => {
                // A dual-stack wildcard answers on IPv4's loopback too, but one that is IPv6 only does not.
                let ip = match address.ip() {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                    IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
                };
                LocalAddr::Tcp(SocketAddr::new(ip, address.port()))
            }
            ref other => other.clone(),
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddr::Tcp(address) => write!(f, "http://{address}"),
            LocalAddr::Unix(path) => write!(f, "unix:{}", path.display()),
            LocalAddr::Abstract(name) => {
                write!(f, "unix:@{}", OsStr::from_bytes(name).to_string_lossy())
            }
            LocalAddr::Unnamed => f.write_str("unix:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        for (text, want) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("tcp://127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:80", "[::1]:80"),
            ("tcp://[::]", "[::]:8000"),
            ("[fe80::1%lo]:80", "[fe80::1%lo]:80"),
            (":8000", "0.0.0.0:8000"),
            ("", "0.0.0.0:8000"),
            ("LocalHost", "localhost:8000"),
            ("localhost:0", "localhost:0"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
            ("unix://relative.sock", "unix:relative.sock"),
            ("unix:@name", "unix:@name"),
            ("fd://3", "fd://3"),
        ] {
            let address: BindAddr = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(address.to_string(), want, "{text:?}");
            assert_eq!(want.parse(), Ok(address), "{text:?} does not survive being written");
        }
    }

    #[test]
    fn impossible_addresses_say_why() {
        let long = format!("unix:/{}", "x".repeat(UNIX_NAME_BYTES_MAX));
        for (text, part) in [
            ("127.0.0.1:http", "port"),
            ("127.0.0.1:+80", "port"),
            ("127.0.0.1:65536", "port"),
            ("127.0.0.1:", "port"),
            ("::1:80", "[IPV6]:PORT"),
            ("[::1", "host"),
            ("[::1]80", "host"),
            ("[example]:80", "host"),
            ("http://x", "port"),
            ("a b:80", "host"),
            ("fd://", "descriptor"),
            ("fd://2", "descriptor"),
            ("fd://x", "descriptor"),
            ("unix:", "path"),
            ("unix:@", "path"),
            ("unix:a\0b", "path"),
            (&long, "path"),
        ] {
            let error = text.parse::<BindAddr>().expect_err(text);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
        }
    }
}
