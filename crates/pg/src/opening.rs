//! A socket on its way: connected, and encrypted where that is wanted, before PostgreSQL's first message.

use std::rc::Rc;

use mio::{Registry, Token};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::config::Config;
use crate::error::{Error, Kind};
use crate::socket::{Address, Socket};
use crate::tls::{self, Way};

/// Asks for TLS: a length, and the number of that request.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where to, and how.
#[derive(Clone)]
pub(crate) struct Route {
    pub address: Address,
    /// The host as it was written: whom the server's certificate must be for.
    pub name: Rc<str>,
    pub way: Way,
}

pub(crate) struct Opening {
    config: Rc<Config>,
    route: Route,
    step: Step,
    /// Whether the handshake began.
    pub has_begun_tls: bool,
}

enum Step {
    Connecting(Socket),
    /// It was asked for TLS, in that many words.
    Asked(Socket),
    Shaking(Socket),
    Over,
}

impl Opening {
    pub fn begin(
        config: &Rc<Config>,
        route: Route,
        token: Token,
        registry: &Rc<Registry>,
    ) -> Result<Opening, Error> {
        let socket = Socket::connect(&route.address, token, registry).map_err(unreachable)?;
        let config = Rc::clone(config);
        Ok(Opening { config, route, step: Step::Connecting(socket), has_begun_tls: false })
    }

    /// Goes as far as it can without waiting; the socket once it is ready.
    pub fn go_on(&mut self) -> Result<Option<Socket>, Error> {
        loop {
            match std::mem::replace(&mut self.step, Step::Over) {
                Step::Connecting(mut socket) => {
                    if !socket.is_connected().map_err(unreachable)? {
                        self.step = Step::Connecting(socket);
                        return Ok(None);
                    }
                    if self.route.way == Way::Plain {
                        return Ok(Some(socket));
                    }
                    if self.config.tls.direct {
                        self.step = self.encrypt(socket)?;
                        continue;
                    }
                    if socket.write(&SSL_REQUEST).map_err(lost)? < SSL_REQUEST.len() {
                        return Err(Error::new(Kind::Unavailable, "the server does not read"));
                    }
                    self.step = Step::Asked(socket);
                }
                Step::Asked(mut socket) => {
                    // One byte and no more: whatever follows must be TLS.
                    let mut answer = [0];
                    match socket.read(&mut answer).map_err(lost)? {
                        None => {
                            self.step = Step::Asked(socket);
                            return Ok(None);
                        }
                        Some(0) => {
                            let what = "the server closed the connection when asked for TLS";
                            return Err(Error::new(Kind::Unavailable, what));
                        }
                        Some(_) => (),
                    }
                    match answer {
                        [b'S'] => self.step = self.encrypt(socket)?,
                        [b'N'] if self.route.way == Way::TlsIfOffered => return Ok(Some(socket)),
                        [b'N'] => {
                            let what = "the server does not offer TLS";
                            return Err(Error::new(Kind::Unavailable, what));
                        }
                        // What it says in an error before TLS, anybody may have said.
                        [b'E'] => {
                            let what = "the server answered with an error when asked for TLS";
                            return Err(Error::new(Kind::Unavailable, what));
                        }
                        _ => {
                            let what = "not PostgreSQL: no answer to the request for TLS";
                            return Err(Error::new(Kind::Unavailable, what));
                        }
                    }
                }
                Step::Shaking(mut socket) => match socket.shake() {
                    Ok(true)
                        if self.config.tls.direct
                            && socket.secure().is_some_and(|secure| secure.alpn().is_none()) =>
                    {
                        let what = "the server does not know sslnegotiation=direct";
                        return Err(Error::new(Kind::Unavailable, what));
                    }
                    Ok(true) => return Ok(Some(socket)),
                    Ok(false) => {
                        self.step = Step::Shaking(socket);
                        return Ok(None);
                    }
                    Err(error) => {
                        self.config.tls.failed();
                        return Err(tls::failure(error, &self.route.name));
                    }
                },
                Step::Over => {
                    return Err(Error::new(Kind::Unavailable, "the connection was given up"));
                }
            }
        }
    }

    fn encrypt(&mut self, socket: Socket) -> Result<Step, Error> {
        self.has_begun_tls = true;
        let client = self.config.tls.client()?;
        let name = match (ServerName::try_from(&*self.route.name), &self.route.address) {
            (Ok(name), _) => name.to_owned(),
            // No name that a certificate could have; it is not looked at either.
            (Err(_), Address::Tcp(address)) if !self.config.tls.is_named() => address.ip().into(),
            (Err(error), _) => {
                let what = format!("{} is no name that a certificate can have", self.route.name);
                return Err(Error::with_source(Kind::Unavailable, what, error));
            }
        };
        let connection = ClientConnection::new(client, name).map_err(|error| {
            Error::with_source(Kind::Unavailable, "cannot begin the TLS handshake", error)
        })?;
        Ok(Step::Shaking(socket.encrypt(connection)))
    }
}

pub(crate) fn unreachable(error: std::io::Error) -> Error {
    Error::with_source(Kind::Unavailable, "cannot open the connection", error)
}

fn lost(error: std::io::Error) -> Error {
    Error::with_source(Kind::Unavailable, "the connection was lost when asking for TLS", error)
}
