//! tokio-postgres on a [`Wire`], polled by hand: it logs in, looks types up, and runs transactions.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Connection, NoTls, SimpleQueryMessage};

use crate::error::{Error, Kind};
use crate::wire::{Flag, Wire};

/// A session that is logged in.
pub(crate) struct Driver {
    pub client: Rc<Client>,
    connection: Pin<Box<Connection<Wire, NoTlsStream>>>,
    pub wire: Wire,
    flag: Arc<Flag>,
    waker: Waker,
    /// What the server calls itself.
    pub version: Box<str>,
}

/// What [`Driver::log_in`] is on its way to.
pub(crate) type LoggingIn = Pin<Box<dyn Future<Output = Result<Driver, Error>>>>;

impl Driver {
    /// Logs in over `wire`, and sees whether it is the kind of server that is wanted.
    pub fn log_in(config: Rc<tokio_postgres::Config>, wire: Wire) -> LoggingIn {
        Box::pin(async move {
            let refused = |error| Error::from_driver("cannot log in", error);
            let (client, connection) =
                config.connect_raw(wire.clone(), NoTls).await.map_err(refused)?;
            let version = connection.parameter("server_version").unwrap_or("unknown").into();
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&flag));
            let mut driver = Driver {
                client: Rc::new(client),
                connection: Box::pin(connection),
                wire,
                flag,
                waker,
                version,
            };
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
        let mut cancel = std::pin::pin!(token.cancel_query_raw(wire.clone(), NoTls));
        // One poll is enough: nothing makes the wire wait.
        let _ = cancel.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        wire.0.borrow().outbound.to_vec()
    }
}
