//! What a server's certificate must be, and what a login is bound to by it.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// What webpki calls a server's certificate that may sign others.
pub(crate) const SIGNS_OTHERS: &str = "CaUsedAsEndEntity";

/// What webpki calls any version of X.509 but 3.
pub(crate) const OLD_VERSION: &str = "UnsupportedCertVersion";

/// Judges the server's certificate as `sslmode` and `sslrootcert` say.
#[derive(Debug)]
pub(crate) struct Verifier {
    /// Who may have signed it; `None`: anybody.
    pub trusted: Option<Trusted>,
    /// Whether it must be for the name of the host that was asked for.
    pub named: bool,
    pub algorithms: WebPkiSupportedAlgorithms,
}

/// Certificates that may have signed the server's.
#[derive(Debug)]
pub(crate) struct Trusted {
    pub roots: RootCertStore,
    /// Those that may be the server's own: what a file holds that was made for this server.
    pub listed: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn check(
        &self,
        parsed: &ParsedCertificate<'_>,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let (roots, all) = (&self.roots, algorithms.all);
        match verify_server_cert_signed_by_trust_anchor(parsed, roots, intermediates, now, all) {
            // A certificate that signed itself, as PostgreSQL's manual shows first: it may sign others too, which
            // browsers do not want of a server's. Said only after its dates were found right.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.0.to_string() == SIGNS_OTHERS
                    && self.listed.iter().any(|listed| listed == certificate) =>
            {
                Ok(())
            }
            checked => checked,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            let parsed = ParsedCertificate::try_from(certificate)?;
            trusted.check(&parsed, certificate, intermediates, now, &self.algorithms)?;
            if self.named {
                verify_server_name(&parsed, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // Also where anybody may have signed the certificate: a login that is bound to it is worth something only if the
    // server has its key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match parts(certificate) {
            // Nothing but its key matters, so an old version of X.509 does not either.
            Some(Parts { key, .. }) if self.trusted.is_none() => {
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a login with SCRAM is bound to, so that nobody in between can pass it on: the certificate's digest, with the
/// algorithm of its signature (RFC 5929, `tls-server-end-point`). `None`: there is no rule for this one.
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    /// `1.2.840.113549.1.1` and `1.2.840.10045.4`, as DER writes them.
    const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01";
    const ECDSA: &[u8] = b"\x2a\x86\x48\xce\x3d\x04";
    let algorithm = parts(certificate)?.signature_algorithm;
    let (rsa, ecdsa) = (algorithm.strip_prefix(RSA), algorithm.strip_prefix(ECDSA));
    match (rsa, ecdsa) {
        // MD5 and SHA-1 count as SHA-256.
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => {
            Some(Sha256::digest(certificate).to_vec())
        }
        (Some([12]), _) | (_, Some([3, 3])) => Some(Sha384::digest(certificate).to_vec()),
        (Some([13]), _) | (_, Some([3, 4])) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// Parts of a certificate, as DER.
struct Parts<'c> {
    /// SubjectPublicKeyInfo.
    key: &'c [u8],
    /// The object identifier of the algorithm that it is signed with.
    signature_algorithm: &'c [u8],
}

fn parts(certificate: &[u8]) -> Option<Parts<'_>> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let whole = element(certificate).filter(|whole| whole.tag == SEQUENCE)?;
    let signed = element(whole.content)?;
    let algorithm = element(signed.rest)?;
    let mut next = element(signed.content)?;
    if next.tag == VERSION {
        next = element(next.rest)?;
    }
    // From the serial number on: signature, issuer, validity, subject, key.
    for _ in 0..5 {
        next = element(next.rest)?;
    }
    Some(Parts {
        key: (next.tag == SEQUENCE).then_some(next.whole)?,
        signature_algorithm: element(algorithm.content)?.content,
    })
}

/// A DER element, and what is behind it.
struct Element<'d> {
    tag: u8,
    whole: &'d [u8],
    content: &'d [u8],
    rest: &'d [u8],
}

fn element(der: &[u8]) -> Option<Element<'_>> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // At most three bytes of length: sixteen megabytes.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    let whole = &der[..der.len() - rest.len()];
    Some(Element { tag, whole, content, rest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_is_bound_to_follows_from_how_the_certificate_is_signed() {
        for (algorithm, bytes) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let params = rcgen::CertificateParams::new(vec!["db.example".into()]).unwrap();
            let made = params.self_signed(&key).unwrap();
            assert_eq!(end_point(made.der()).map(|bound| bound.len()), bytes);
            let whole = made.der().to_vec();
            for cut in 0..whole.len() {
                assert_eq!(end_point(&whole[..cut]), None, "cut at {cut}");
            }
        }
    }
}
