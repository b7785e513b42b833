//! Certificates made for one test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// Signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM format.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// A new one that calls itself `name`.
    #[must_use]
    pub fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Its own certificate, in PEM format: what clients trust.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a user or server of this name, and the host names and addresses that it is for.
    #[must_use]
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Identity {
        self.sign(&named(name, hosts))
    }

    /// The same, but it has expired long ago.
    #[must_use]
    pub fn issue_expired(&self, name: &str, hosts: &[&str]) -> Identity {
        let mut params = named(name, hosts);
        params.not_after = date_time_ymd(2001, 2, 3);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    /// One that nobody else signed, and that may sign others, as the first command in PostgreSQL's manual makes it.
    #[must_use]
    pub fn self_signed(name: &str, hosts: &[&str]) -> Identity {
        let mut params = named(name, hosts);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Writes both to files of a user, who alone may read the key.
    pub fn install(&self, certificate: &Path, key: &Path, user: Option<(u32, u32)>) {
        for (path, text) in [(certificate, &self.certificate), (key, &self.key)] {
            fs::write(path, text).expect("file written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions set");
            if let Some((uid, gid)) = user {
                chown(path, Some(uid), Some(gid)).expect("file handed over");
            }
        }
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
