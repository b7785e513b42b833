//! What a connection string says about TLS, with libpq's words, and what rustls is told because of it.
//!
//! - Files are read when TLS is first wanted, and anew while handshakes fail: a certificate that was renewed is found
//!   without a reload. Reading them is no part of any query.
//! - Other than libpq: without `sslmode` there is no TLS, nothing is looked for in the user's home, and a file that is
//!   named must be there.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use crate::certificate::{self, Trusted, Verifier};
use crate::error::{Error, Kind};
use crate::socket::Address;

/// The parameters that are read here.
pub(crate) const PARAMETERS: &[&str] =
    &["sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey"];

/// Largest file of certificates, or of a key, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Failed handshakes after the first for each time that the files are read anew: that takes some milliseconds of the
/// loop's time, and handshakes are tried more than once a second.
const FAILURES_PER_READING: u32 = 8;

/// Names of a certificate that an error repeats, and their letters.
const NAMES_MAX: usize = 8;
const NAMES_LETTERS_MAX: usize = 512;

/// What the protocol inside is called in the handshake; PostgreSQL 17 knows it and demands it of those who do not
/// ask for TLS first.
const ALPN: &[u8] = b"postgresql";

/// How much of it, as libpq understands `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Who is trusted to sign the server's certificate.
#[derive(Clone, Debug)]
enum Roots {
    /// Anybody.
    Anybody,
    /// Whom the system trusts.
    System,
    File(PathBuf),
}

/// One way to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    /// With TLS if the server offers it.
    TlsIfOffered,
    Tls,
}

/// What is wanted. Clones share what was read from files.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    mode: Mode,
    roots: Roots,
    /// The files of our own certificate and its key.
    identity: Option<(PathBuf, PathBuf)>,
    /// TLS from the first byte on, without asking for it (`sslnegotiation=direct`).
    pub direct: bool,
    ready: Arc<Mutex<Option<Arc<ClientConfig>>>>,
    failures: Arc<AtomicU32>,
}

impl Tls {
    /// From the values of [`PARAMETERS`]; an empty one is none, the last one counts.
    pub fn new(parameters: &[(&'static str, String)]) -> Result<Tls, String> {
        let value = |name: &str| {
            let mut values = parameters.iter().rev().filter(|(known, _)| *known == name);
            values.next().map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let mode = match value("sslmode") {
            None => None,
            Some("disable") => Some(Mode::Disable),
            Some("allow") => Some(Mode::Allow),
            Some("prefer") => Some(Mode::Prefer),
            Some("require") => Some(Mode::Require),
            Some("verify-ca") => Some(Mode::VerifyCa),
            Some("verify-full") => Some(Mode::VerifyFull),
            Some(_) => {
                let known = "disable, allow, prefer, require, verify-ca, verify-full";
                return Err(format!("sslmode is none of {known}"));
            }
        };
        let direct = match value("sslnegotiation") {
            None | Some("postgres") => false,
            Some("direct") => true,
            Some(_) => return Err("sslnegotiation is neither postgres nor direct".into()),
        };
        let roots = match value("sslrootcert") {
            None if mode == Some(Mode::VerifyFull) => Roots::System,
            None => Roots::Anybody,
            Some("system") => Roots::System,
            Some(file) => Roots::File(file.into()),
        };
        let mode = match (mode, &roots) {
            (Some(mode), Roots::System) if mode < Mode::VerifyFull => {
                // Anybody can have a certificate from one whom the system trusts.
                return Err("sslrootcert=system is of use only with sslmode=verify-full".into());
            }
            (Some(Mode::VerifyCa), Roots::Anybody) => {
                let why = "sslmode=verify-ca needs sslrootcert=FILE, the certificates that may have signed the server's";
                return Err(why.into());
            }
            (Some(mode), _) => mode,
            (None, Roots::System) => Mode::VerifyFull,
            (None, _) => {
                for name in &PARAMETERS[1..] {
                    if value(name).is_some_and(|value| value != "postgres") {
                        return Err(format!(
                            "{name} without sslmode, which is no TLS here: say sslmode=verify-full or another"
                        ));
                    }
                }
                Mode::Disable
            }
        };
        if direct && mode < Mode::Require {
            return Err(
                "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full".into()
            );
        }
        let identity = match (value("sslcert"), value("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => return Err("sslcert needs sslkey".into()),
            (None, Some(_)) => return Err("sslkey needs sslcert".into()),
        };
        Ok(Tls { mode, roots, identity, direct, ready: Arc::default(), failures: Arc::default() })
    }

    /// The ways to try at an address, in order. A unix socket needs no TLS, whatever the mode.
    pub fn ways(&self, address: &Address) -> &'static [Way] {
        match (address, self.mode) {
            (Address::Unix(_), _) | (_, Mode::Disable) => &[Way::Plain],
            (_, Mode::Allow) => &[Way::Plain, Way::Tls],
            (_, Mode::Prefer) => &[Way::TlsIfOffered, Way::Plain],
            (_, Mode::Require | Mode::VerifyCa | Mode::VerifyFull) => &[Way::Tls],
        }
    }

    /// Whether the certificate must be for the host's name.
    pub fn is_named(&self) -> bool {
        self.mode == Mode::VerifyFull
    }

    /// What rustls is to do, from the files as they were when that was first asked.
    pub fn client(&self) -> Result<Arc<ClientConfig>, Error> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*ready {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.read()?);
        *ready = Some(Arc::clone(&client));
        Ok(client)
    }

    /// A handshake failed, perhaps because what was read is out of date.
    pub fn failed(&self) {
        if self.failures.fetch_add(1, Ordering::Relaxed).is_multiple_of(FAILURES_PER_READING) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    fn read(&self) -> Result<ClientConfig, Error> {
        let trusted = match &self.roots {
            Roots::Anybody => None,
            Roots::System => Some(system()?),
            Roots::File(file) => Some(listed(file)?),
        };
        let provider = ring::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Verifier { trusted, named: self.is_named(), algorithms };
        let unusable = |error| Error::with_source(Kind::Unavailable, "cannot set up TLS", error);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let (chain, secret) = (certificates("sslcert", certificate)?, private_key(key)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| {
                    let (certificate, key) = (certificate.display(), key.display());
                    let what = format!("cannot use sslcert {certificate} with sslkey {key}");
                    Error::with_source(Kind::Unavailable, what, error)
                })?
            }
        };
        client.alpn_protocols = vec![ALPN.into()];
        // PostgreSQL resumes none.
        client.resumption = Resumption::disabled();
        Ok(client)
    }
}

fn system() -> Result<Trusted, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable > 0 {
        return Ok(Trusted { roots, listed: Vec::new() });
    }
    let what = "this system has no certificates to trust (package ca-certificates)";
    Err(match found.errors.into_iter().next() {
        Some(error) => Error::with_source(Kind::Unavailable, what, error),
        None => Error::new(Kind::Unavailable, what),
    })
}

fn listed(file: &Path) -> Result<Trusted, Error> {
    let listed = certificates("sslrootcert", file)?;
    let mut roots = RootCertStore::empty();
    for certificate in &listed {
        roots.add(certificate.clone()).map_err(|error| unreadable("sslrootcert", file, error))?;
    }
    Ok(Trusted { roots, listed })
}

fn certificates(parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = contents(file).map_err(|error| unreadable(parameter, file, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| unreadable(parameter, file, error))?;
    if found.is_empty() {
        return Err(unreadable(parameter, file, "it holds no certificate in PEM format"));
    }
    Ok(found)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = contents(file).map_err(|error| unreadable("sslkey", file, error))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        unreadable("sslkey", file, "it holds no key in PEM format, or one with a password")
    })
}

fn contents(file: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn unreadable(
    parameter: &str,
    file: &Path,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::with_source(Kind::Unavailable, format!("cannot use {parameter} {}", file.display()), why)
}

/// What the server said against the client, if that is how the connection ended.
pub(crate) fn alert(error: &io::Error) -> Option<Error> {
    match reason(error)? {
        rustls::Error::AlertReceived(alert) => Some(refused(*alert)),
        _ => None,
    }
}

fn reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why a handshake failed, in an operator's words; `name` is the host's.
pub(crate) fn failure(error: io::Error, name: &str) -> Error {
    let Some(why) = reason(&error) else {
        let what = "the connection was lost in the TLS handshake";
        return Error::with_source(Kind::Unavailable, what, error);
    };
    let what: String = match why {
        rustls::Error::InvalidCertificate(why) => return untrusted(why, name),
        rustls::Error::AlertReceived(alert) => return refused(*alert),
        rustls::Error::PeerIncompatible(_) => {
            "the server knows no version or cipher of TLS that is safe to use".into()
        }
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
            "the server does not speak TLS".into()
        }
        _ => "the TLS handshake failed".into(),
    };
    Error::with_source(Kind::Unavailable, what, why.clone())
}

/// What is wrong with the server's certificate. The time of day is left out: each reason is told once.
fn untrusted(why: &CertificateError, name: &str) -> Error {
    use CertificateError as E;
    let what = match why {
        E::Expired | E::ExpiredContext { .. } => "the server's certificate has expired".into(),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet".into()
        }
        E::UnknownIssuer => {
            "the server's certificate is signed by nobody who is trusted (unknown issuer)".into()
        }
        E::NotValidForName => format!("the server's certificate is not for {name}"),
        E::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("the server's certificate is not for {name}: it has no subjectAltName")
        }
        E::NotValidForNameContext { presented, .. } => {
            let names = presented[..presented.len().min(NAMES_MAX)].join(", ");
            let names: String = names.chars().take(NAMES_LETTERS_MAX).collect();
            format!("the server's certificate is not for {name} but for {names}")
        }
        E::Other(why) => match why.0.to_string() {
            why if why == certificate::SIGNS_OTHERS => {
                "the server's certificate may sign others, so it is trusted only if sslrootcert itself holds it"
                    .into()
            }
            why if why == certificate::OLD_VERSION => {
                "the server's certificate is of an old version of X.509, not 3".into()
            }
            why => format!("the server's certificate cannot be used: {why}"),
        },
        why => format!("the server's certificate cannot be used: {why}"),
    };
    Error::new(Kind::Unavailable, what)
}

/// The server ended it.
fn refused(alert: AlertDescription) -> Error {
    use AlertDescription as A;
    let what = match alert {
        A::CertificateRequired | A::NoCertificate => {
            "the server demands a certificate: set sslcert and sslkey".into()
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied => {
            format!("the server does not accept the certificate of sslcert ({alert:?})")
        }
        alert => format!("the server ended the TLS handshake ({alert:?})"),
    };
    Error::new(Kind::Unavailable, what)
}
