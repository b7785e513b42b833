//! TLS on a socket that never waits: rustls without I/O of its own, between the socket and whoever reads and writes.
//!
//! Reading and writing are as on the socket: `WouldBlock` when it is empty or full. Both keep to one system call where
//! the socket alone would need one.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;
use rustls::{ClientConnection, ProtocolVersion};

/// What one system call may bring, in bytes.
const SEALED_BYTES: usize = 64 * 1024;

/// Bytes encrypted and not yet written: what one system call may take. More waits at the caller's, unencrypted.
const UNSENT_BYTES_MAX: usize = 256 * 1024;

pub(crate) struct Secure {
    pub stream: TcpStream,
    connection: ClientConnection,
    /// From the socket, not yet decrypted.
    sealed: Box<[u8]>,
    start: usize,
    end: usize,
    /// How many of the bytes to write next are encrypted already: they count as written when the socket has them.
    taken: usize,
}

impl Secure {
    pub fn new(stream: TcpStream, mut connection: ClientConnection) -> Secure {
        connection.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        let sealed = vec![0; SEALED_BYTES].into_boxed_slice();
        Secure { stream, connection, sealed, start: 0, end: 0, taken: 0 }
    }

    /// Goes on with the handshake as far as it can; `WouldBlock` if that is not to its end.
    pub fn shake(&mut self) -> io::Result<()> {
        loop {
            self.send()?;
            if !self.connection.is_handshaking() {
                return Ok(());
            }
            if self.start == self.end && self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Err(error) = self.open() {
                // So that the server can say why it was left; that it may not hear of it is of no consequence.
                let _ = self.send();
                return Err(error);
            }
        }
    }

    /// Whether something that was encrypted waits for the socket.
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// The server's own certificate.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(AsRef::as_ref)
    }

    /// What both agreed to speak inside, if the server knows that question.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// The version of TLS.
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "unknown",
        }
    }

    /// Writes what is encrypted.
    fn send(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.stream) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => (),
            }
        }
        Ok(())
    }

    /// Reads once from the socket, when everything from before is decrypted.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.stream.read(&mut self.sealed) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                read => {
                    (self.start, self.end) = (0, *read.as_ref().unwrap_or(&0));
                    return read;
                }
            }
        }
    }

    /// Decrypts some of what was read; 0: the server has closed its side.
    fn open(&mut self) -> io::Result<usize> {
        let count = self.connection.read_tls(&mut &self.sealed[self.start..self.end])?;
        self.start += count;
        let broken = |error| io::Error::new(ErrorKind::InvalidData, error);
        self.connection.process_new_packets().map_err(broken)?;
        Ok(count)
    }
}

impl Read for Secure {
    /// Fills the buffer as far as the socket has something; less than that means that it was empty a moment ago.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut is_empty = false;
        while filled < buffer.len() {
            match self.connection.reader().read(&mut buffer[filled..]) {
                // It said that it closes.
                Ok(0) => break,
                Ok(count) => {
                    filled += count;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
            }
            if self.start == self.end {
                if is_empty && filled > 0 {
                    break;
                }
                match self.fill() {
                    Ok(0) => break,
                    Ok(count) => is_empty = count < self.sealed.len(),
                    // The socket says it again.
                    Err(_) if filled > 0 => break,
                    Err(error) => return Err(error),
                }
            }
            if self.open()? == 0 {
                break;
            }
        }
        Ok(filled)
    }
}

impl Write for Secure {
    /// Writes some. After `WouldBlock` the next call must be with the same bytes, and may be with more behind them.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.send()?;
            if self.taken > 0 {
                return Ok(std::mem::take(&mut self.taken).min(bytes.len()));
            }
            self.taken = self.connection.writer().write(bytes)?;
            if self.taken == 0 {
                return Ok(0);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
