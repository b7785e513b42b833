//! The environ of a request: PEP 3333's and gunicorn's keys.
//!
//! - What is the same for every request lies ready in a dictionary that is copied.
//! - Names of header fields are turned into keys once each, and found again by their bytes as they were sent.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::SocketAddr;

use net::Peer;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use worker::http1::Head;

use crate::errors::ErrorStream;
use crate::ffi::latin1;

/// Names of header fields that are remembered.
const NAMES_MAX: usize = 512;
/// Longest name that is remembered, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Clients whose addresses are remembered as strings.
const PEERS: usize = 256;

/// A cheap hash for short names; an attacker who makes names collide wins nothing, for they are few.
#[derive(Default)]
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut hash = self.0 ^ 0xcbf2_9ce4_8422_2325;
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.0 = hash;
    }
}

struct Name {
    key: Py<PyString>,
    /// Names with one key share it.
    number: u32,
}

struct KnownPeer {
    address: SocketAddr,
    host: Py<PyString>,
    port: Py<PyString>,
}

/// What an environ is made of.
pub struct Asked<'a> {
    pub head: &'a Head<'a>,
    pub peer: &'a Peer,
    pub is_https: bool,
    /// Our side of the connection; `None` for a unix socket. Asked for only where it is not known anyway.
    pub local_address: &'a dyn Fn() -> Option<SocketAddr>,
}

/// Makes environs.
pub struct Environs {
    constants: Py<PyDict>,
    names: HashMap<Box<[u8]>, Name, BuildHasherDefault<Fnv>>,
    numbers: HashMap<Vec<u8>, u32>,
    peers: Vec<Option<KnownPeer>>,
    script_name: Vec<u8>,
}

impl Environs {
    /// `constants` are in every environ.
    pub fn new(py: Python<'_>, constants: &Bound<'_, PyDict>) -> PyResult<Environs> {
        let script_name = std::env::var("SCRIPT_NAME").unwrap_or_default().into_bytes();
        constants.set_item("SCRIPT_NAME", latin1(py, &script_name)?)?;
        Ok(Environs {
            constants: constants.clone().unbind(),
            names: HashMap::default(),
            numbers: HashMap::new(),
            peers: (0..PEERS).map(|_| None).collect(),
            script_name,
        })
    }

    /// Makes the same again, for another thread, with a `wsgi.errors` of its own: lines of two threads must not mix.
    pub fn twin(&self, py: Python<'_>, errors: Py<ErrorStream>) -> PyResult<Environs> {
        let constants = self.constants.bind(py).copy()?;
        constants.set_item("wsgi.errors", errors)?;
        Environs::new(py, &constants)
    }

    /// The environ of a request, all but `wsgi.input`.
    pub fn make<'py>(
        &mut self,
        py: Python<'py>,
        asked: &Asked<'_>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let head = asked.head;
        let environ = self.constants.bind(py).copy()?;
        environ.set_item(intern!(py, "REQUEST_METHOD"), method(py, head))?;
        environ.set_item(
            intern!(py, "SERVER_PROTOCOL"),
            match head.version() {
                worker::http1::Version::Http10 => intern!(py, "HTTP/1.0"),
                worker::http1::Version::Http11 => intern!(py, "HTTP/1.1"),
            },
        )?;
        let query = head.query().unwrap_or_default();
        environ.set_item(intern!(py, "QUERY_STRING"), latin1(py, query)?)?;
        environ.set_item(intern!(py, "RAW_URI"), latin1(py, head.target())?)?;
        self.set_path(py, &environ, head)?;
        self.set_fields(py, &environ, head)?;
        self.set_peer(py, &environ, asked.peer)?;
        if asked.is_https {
            environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
        }
        set_server(py, &environ, asked)?;
        Ok(environ)
    }

    fn set_path(
        &self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &Head<'_>,
    ) -> PyResult<()> {
        let mut path = head.path();
        // Only a trusted proxy's name with an underscore comes this far.
        let named = head.field("SCRIPT_NAME");
        let script_name = named.unwrap_or(&self.script_name);
        if !script_name.is_empty() {
            path = path.strip_prefix(script_name).ok_or_else(|| {
                PyValueError::new_err("the path of the request does not begin with SCRIPT_NAME")
            })?;
        }
        if let Some(named) = named {
            environ.set_item(intern!(py, "SCRIPT_NAME"), latin1(py, named)?)?;
        }
        let key = intern!(py, "PATH_INFO");
        if path.contains(&b'%') {
            environ.set_item(key, latin1(py, &unquoted(path))?)
        } else {
            environ.set_item(key, latin1(py, path)?)
        }
    }

    fn set_fields(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        head: &Head<'_>,
    ) -> PyResult<()> {
        let mut seen = 0_u128;
        for field in head.fields().iter() {
            if field.name.eq_ignore_ascii_case(b"SCRIPT_NAME") {
                continue;
            }
            let value = latin1(py, field.value)?;
            let (key, number) = self.key(py, field.name)?;
            let bit = 1_u128.checked_shl(number).unwrap_or(0);
            if seen & bit == 0 && bit != 0 {
                seen |= bit;
                environ.set_item(key, value)?;
            } else if let Some(before) = environ.get_item(&key)? {
                let before = before.extract::<String>()?;
                let comma = if field.name.eq_ignore_ascii_case(b"cookie") { "; " } else { "," };
                environ.set_item(key, format!("{before}{comma}{}", value.to_str()?))?;
            } else {
                environ.set_item(key, value)?;
            }
        }
        Ok(())
    }

    /// The key for a field's name, and its number.
    fn key<'py>(&mut self, py: Python<'py>, name: &[u8]) -> PyResult<(Bound<'py, PyString>, u32)> {
        if let Some(known) = self.names.get(name) {
            return Ok((known.key.bind(py).clone(), known.number));
        }
        let mut key = Vec::with_capacity(5 + name.len());
        if !name.eq_ignore_ascii_case(b"content-type")
            && !name.eq_ignore_ascii_case(b"content-length")
        {
            key.extend_from_slice(b"HTTP_");
        }
        key.extend(name.iter().map(|&byte| match byte {
            b'-' => b'_',
            other => other.to_ascii_uppercase(),
        }));
        let text = String::from_utf8_lossy(&key);
        if NAME_BYTES_MAX < name.len() || NAMES_MAX <= self.names.len() {
            // A number beyond all bits: whether it is there already is looked up.
            return Ok((PyString::new(py, &text), u32::MAX));
        }
        let next = self.numbers.len() as u32;
        let string = PyString::intern(py, &text);
        let number = *self.numbers.entry(key).or_insert(next);
        self.names.insert(name.into(), Name { key: string.clone().unbind(), number });
        Ok((string, number))
    }

    fn set_peer(
        &mut self,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
        peer: &Peer,
    ) -> PyResult<()> {
        let Peer::Ip(address) = peer else {
            return environ.set_item(intern!(py, "REMOTE_ADDR"), intern!(py, ""));
        };
        let place = &mut self.peers[usize::from(address.port()) % PEERS];
        let known = match place {
            Some(known) if known.address == *address => known,
            _ => place.insert(KnownPeer {
                address: *address,
                host: PyString::new(py, &address.ip().to_string()).unbind(),
                port: PyString::new(py, &address.port().to_string()).unbind(),
            }),
        };
        environ.set_item(intern!(py, "REMOTE_ADDR"), &known.host)?;
        environ.set_item(intern!(py, "REMOTE_PORT"), &known.port)
    }
}

/// SERVER_NAME and SERVER_PORT, unless the constants have them.
fn set_server(py: Python<'_>, environ: &Bound<'_, PyDict>, asked: &Asked<'_>) -> PyResult<()> {
    let key = intern!(py, "SERVER_NAME");
    if environ.contains(key)? {
        return Ok(());
    }
    let (name, port) = match (asked.local_address)() {
        Some(address) => (address.ip().to_string(), address.port().to_string()),
        // A unix socket has neither: what the client asked for, as gunicorn does it.
        None => {
            let host = String::from_utf8_lossy(asked.head.host().unwrap_or_default()).into_owned();
            match host.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name.to_owned(), port.to_owned()),
                _ if host.is_empty() => ("localhost".to_owned(), String::new()),
                _ => (host, "80".to_owned()),
            }
        }
    };
    environ.set_item(key, name)?;
    environ.set_item(intern!(py, "SERVER_PORT"), port)
}

fn method<'py>(py: Python<'py>, head: &Head<'_>) -> Bound<'py, PyString> {
    match head.method() {
        worker::Method::Get => intern!(py, "GET").clone(),
        worker::Method::Post => intern!(py, "POST").clone(),
        worker::Method::Head => intern!(py, "HEAD").clone(),
        other => PyString::new(py, other.as_str()),
    }
}

/// Percent-decoded; what is no escape stays.
fn unquoted(path: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        match (path[at], digit(path.get(at + 1)), digit(path.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}
