//! Addresses, listener groups, inherited listeners, trusted peers, the PROXY protocol, and systemd's notify protocol.
//!
//! - A TCP address is served by a *group* of sockets ("shards") among which the kernel spreads connections.
//! - A group is bound once and never joined silently: another holder of the port is an error.
//! - A unix socket path is never taken from a live server, and only unlinked while it is ours.
//! - Knows nothing of HTTP.
//!
//! ```
//! use net::{BindAddr, BindOptions, ListenerGroup};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let addr: BindAddr = "127.0.0.1:0".parse()?;
//! let group = ListenerGroup::bind(&addr, 3, &BindOptions::default())?;
//! assert_eq!(group.shards().len(), 3);
//! assert!(group.addr().to_string().starts_with("http://127.0.0.1:"));
//! assert!(group.shards()[0].accept()?.is_none());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod addr;
mod allow;
mod bind;
mod group;
mod holder;
pub mod inherit;
mod listener;
pub mod notify;
mod proxy;
mod unix;

pub use addr::{AddrError, BindAddr, DEFAULT_PORT, LocalAddr};
pub use allow::{AllowError, AllowList};
pub use bind::{BindError, BindOptions, BindStep};
pub use group::{ListenerGroup, SHARDS_MAX};
pub use listener::{Accepted, Kind, Listener, Peer};
pub use proxy::{ProxyError, ProxyHeader, ProxyVersion, V1_BYTES_MAX, V2_BYTES_MAX, parse_proxy};
