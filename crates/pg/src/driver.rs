//! tokio-postgres on a [`Wire`], polled by hand: it logs in, looks types up, and runs transactions.
//!
//! Where there is TLS, it ends before the wire: tokio-postgres is told so, and to what certificate a login is bound.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{SslMode, SslNegotiation, TargetSessionAttrs};
use tokio_postgres::tls::{ChannelBinding, NoTlsStream, TlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, SimpleQueryMessage};

use crate::error::{Error, Kind};
use crate::wire::{Flag, Wire};

/// A session that is logged in.
pub(crate) struct Driver {
    pub client: Rc<Client>,
    connection: Carried,
    pub wire: Wire,
    flag: Arc<Flag>,
    waker: Waker,
    /// What the server calls itself.
    pub version: Box<str>,
}

/// What [`Driver::log_in`] is on its way to.
pub(crate) type LoggingIn = Pin<Box<dyn Future<Output = Result<Driver, Error>>>>;

/// What is between the wire and the server.
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    Plain,
    /// `end_point`: what a login may be bound to.
    Tls {
        end_point: Option<Vec<u8>>,
    },
}

enum Carried {
    Plain(Box<Connection<Wire, NoTlsStream>>),
    Tls(Box<Connection<Wire, Bound>>),
}

impl Carried {
    fn parameter(&self, name: &str) -> Option<&str> {
        match self {
            Carried::Plain(connection) => connection.parameter(name),
            Carried::Tls(connection) => connection.parameter(name),
        }
    }

    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AsyncMessage, tokio_postgres::Error>>> {
        match self {
            Carried::Plain(connection) => connection.poll_message(context),
            Carried::Tls(connection) => connection.poll_message(context),
        }
    }
}

/// What tokio-postgres takes for its TLS: the wire as it is.
struct Bound {
    wire: Wire,
    end_point: Option<Vec<u8>>,
}

/// Makes a [`Bound`] without any handshake: that was before.
struct Binder(Option<Vec<u8>>);

impl TlsConnect<Wire> for Binder {
    type Stream = Bound;
    type Error = Infallible;
    type Future = Ready<Result<Bound, Infallible>>;

    fn connect(self, wire: Wire) -> Self::Future {
        ready(Ok(Bound { wire, end_point: self.0 }))
    }
}

impl TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point
            .clone()
            .map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Bound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_read(context, buf)
    }
}

impl AsyncWrite for Bound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}

impl Driver {
    /// Logs in over `wire`, and sees whether it is the kind of server that is wanted.
    pub fn log_in(mut config: tokio_postgres::Config, wire: Wire, carrier: Carrier) -> LoggingIn {
        Box::pin(async move {
            let refused = |error| Error::from_driver("cannot log in", error);
            let (client, connection) = match carrier {
                Carrier::Plain => {
                    config.ssl_mode(SslMode::Disable);
                    let made = config.connect_raw(wire.clone(), NoTls).await;
                    made.map(|(client, made)| (client, Carried::Plain(Box::new(made))))
                }
                Carrier::Tls { end_point } => {
                    // Direct: it asks for nothing.
                    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
                    let made = config.connect_raw(wire.clone(), Binder(end_point)).await;
                    made.map(|(client, made)| (client, Carried::Tls(Box::new(made))))
                }
            }
            .map_err(refused)?;
            let version = connection.parameter("server_version").unwrap_or("unknown").into();
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&flag));
            let mut driver =
                Driver { client: Rc::new(client), connection, wire, flag, waker, version };
            let wanted = match config.get_target_session_attrs() {
                TargetSessionAttrs::ReadWrite => Some("off"),
                TargetSessionAttrs::ReadOnly => Some("on"),
                _ => None,
            };
            if let Some(wanted) = wanted
                && driver.read_only().await?.as_deref() != Some(wanted)
            {
                let what = if wanted == "off" {
                    "the server is read-only"
                } else {
                    "the server is not read-only"
                };
                return Err(Error::new(Kind::Unavailable, what));
            }
            Ok(driver)
        })
    }

    /// What the server says to `SHOW transaction_read_only`.
    async fn read_only(&mut self) -> Result<Option<String>, Error> {
        let client = Rc::clone(&self.client);
        let mut asked = std::pin::pin!(client.simple_query("SHOW transaction_read_only"));
        let answer = std::future::poll_fn(|_| {
            loop {
                if let Some(error) = self.poll() {
                    return Poll::Ready(Err(error));
                }
                if let Poll::Ready(answer) = asked.as_mut().poll(&mut self.context()) {
                    return Poll::Ready(
                        answer.map_err(|error| Error::from_driver("cannot log in", error)),
                    );
                }
                if !self.wants_poll() {
                    return Poll::Pending;
                }
            }
        });
        let answer = answer.await?;
        Ok(answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        }))
    }

    /// Lets it take what is inbound and put what it asks outbound; the reason if that was its end.
    pub fn poll(&mut self) -> Option<Error> {
        self.flag.take();
        let mut context = Context::from_waker(&self.waker);
        loop {
            match self.connection.poll_message(&mut context) {
                // A notice or a notification: nobody listens here.
                Poll::Ready(Some(Ok(_))) => (),
                Poll::Ready(Some(Err(error))) => {
                    return Some(Error::from_driver("the connection is lost", error));
                }
                Poll::Ready(None) => {
                    return Some(Error::new(Kind::Unavailable, "the connection is closed"));
                }
                Poll::Pending => return None,
            }
        }
    }

    /// For polling what its client was asked, so that progress there shows in [`Driver::wants_poll`].
    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Whether somebody asked it for something since the last [`Driver::poll`].
    pub fn wants_poll(&self) -> bool {
        self.flag.take()
    }

    /// Makes [`Driver::wants_poll`] true.
    pub fn raise(&self) {
        self.flag.raise();
    }

    /// The bytes of a request to cancel what this session is doing, to be sent over another connection.
    pub fn cancel_request(&self) -> Vec<u8> {
        let wire = Wire::default();
        let token = self.client.cancel_token();
        let mut context = Context::from_waker(Waker::noop());
        // One poll is enough: nothing makes the wire wait.
        let _ = match self.connection {
            Carried::Plain(_) => {
                std::pin::pin!(token.cancel_query_raw(wire.clone(), NoTls)).poll(&mut context)
            }
            Carried::Tls(_) => {
                let binder = Binder(None);
                std::pin::pin!(token.cancel_query_raw(wire.clone(), binder)).poll(&mut context)
            }
        };
        wire.0.borrow().outbound.to_vec()
    }
}
