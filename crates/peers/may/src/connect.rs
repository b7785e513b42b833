//! Opens a connection to PostgreSQL: address, authentication and prepared statements, all blocking, before serving.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use peer_common::{SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::link::Link;

/// A socket to PostgreSQL.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Names of the prepared statements.
pub const WORLD: &str = "w";
pub const FORTUNES: &str = "f";
pub const UPDATE: &str = "u";

const INT4_ARRAY: u32 = 1007;
const INT4: u32 = 23;

/// Connects and leaves the connection to a coroutine on worker thread `worker`.
pub fn open(url: &str, worker: usize) -> io::Result<Arc<Link>> {
    let config: Config = url.parse().map_err(io::Error::other)?;
    let mut stream = reach(&config)?;
    let mut out = BytesMut::new();
    let user = config.get_user().unwrap_or("postgres");
    let database = config.get_dbname().unwrap_or(user);
    frontend::startup_message(
        [("user", user), ("database", database), ("client_encoding", "UTF8")],
        &mut out,
    )?;
    let mut replies = Replies { stream: &mut stream, buffer: BytesMut::new() };
    replies.send(&mut out)?;
    authenticate(&config, user, &mut replies)?;
    frontend::parse(WORLD, SELECT_WORLD, [INT4], &mut out)?;
    frontend::parse(FORTUNES, SELECT_FORTUNES, [], &mut out)?;
    frontend::parse(UPDATE, UPDATE_WORLDS, [INT4_ARRAY, INT4_ARRAY], &mut out)?;
    frontend::sync(&mut out);
    replies.send(&mut out)?;
    replies.until_ready()?;
    Link::start(stream, worker)
}

fn reach(config: &Config) -> io::Result<Stream> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Unix(folder)) => {
            Ok(Stream::Unix(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}")))?))
        }
        Some(Host::Tcp(name)) => {
            let stream = TcpStream::connect((name.as_str(), port))?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        None => Err(io::Error::other("the URL names no host")),
    }
}

fn authenticate(config: &Config, user: &str, replies: &mut Replies<'_>) -> io::Result<()> {
    let password = config.get_password().unwrap_or_default();
    let mut out = BytesMut::new();
    let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
    loop {
        match replies.next()? {
            Message::AuthenticationOk => return replies.until_ready(),
            Message::AuthenticationCleartextPassword => {
                frontend::password_message(password, &mut out)?
            }
            Message::AuthenticationMd5Password(body) => {
                frontend::password_message(
                    md5_hash(user.as_bytes(), password, body.salt()).as_bytes(),
                    &mut out,
                )?;
            }
            Message::AuthenticationSasl(_) => {
                frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out)?;
            }
            Message::AuthenticationSaslContinue(body) => {
                scram.update(body.data())?;
                frontend::sasl_response(scram.message(), &mut out)?;
            }
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data())?,
            _ => return Err(io::Error::other("an authentication method that is not known")),
        }
        replies.send(&mut out)?;
    }
}

struct Replies<'a> {
    stream: &'a mut Stream,
    buffer: BytesMut,
}

impl Replies<'_> {
    fn send(&mut self, out: &mut BytesMut) -> io::Result<()> {
        self.stream.write_all(out)?;
        out.clear();
        Ok(())
    }

    fn next(&mut self) -> io::Result<Message> {
        loop {
            match Message::parse(&mut self.buffer)? {
                Some(Message::ErrorResponse(body)) => {
                    let text = body
                        .fields()
                        .map(|field| Ok(String::from_utf8_lossy(field.value_bytes()).into_owned()))
                        .collect::<Vec<_>>()?;
                    return Err(io::Error::other(text.join(" ")));
                }
                Some(message) => return Ok(message),
                None => {
                    let mut chunk = [0; 4096];
                    let read = self.stream.read(&mut chunk)?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.buffer.extend_from_slice(&chunk[..read]);
                }
            }
        }
    }

    fn until_ready(&mut self) -> io::Result<()> {
        while !matches!(self.next()?, Message::ReadyForQuery(_)) {}
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}
