//! What TLS connections trust and show: the system's roots, a registry's own authorities, client certificates.

use crate::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::path::Path;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// What differs between registries. Connections are shared by those with equal settings.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsSettings {
    /// Certificates that are trusted beside the system's.
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) identities: Vec<ClientIdentity>,
    /// Certificates are not checked at all.
    pub(crate) unverified: bool,
}

/// A client certificate with what leads to its issuer, and its key; all in DER.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct ClientIdentity {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl TlsSettings {
    /// Gives the settings for another host that the registry sends us to: its authorities are trusted there too, and no
    /// certificate is shown.
    pub(crate) fn for_stranger(&self, unverified: bool) -> Self {
        Self {
            roots: self.roots.clone(),
            identities: Vec::new(),
            unverified,
        }
    }

    /// Makes the library's configuration.
    pub(crate) fn client_config(&self) -> Result<ClientConfig> {
        let provider = Arc::new(provider::default_provider());
        let verifier = Arc::new(Verifier::new(self, &provider)?);
        let keys = self
            .identities
            .iter()
            .map(|identity| identity.certified(&provider).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Invalid(format!("set up TLS: {error}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(if keys.is_empty() {
            builder.with_no_client_auth()
        } else {
            builder.with_client_cert_resolver(Arc::new(Identities(keys)))
        })
    }
}

/// Reads all certificates of a PEM file.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    let bytes = read(path)?;
    CertificateDer::pem_slice_iter(&bytes)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| {
            Error::Invalid(format!(
                "read certificates of `{}`: {error}",
                path.display()
            ))
        })
}

/// Reads a client certificate and its key; both may be in one file.
pub(crate) fn read_identity(certificate: &Path, key: &Path) -> Result<ClientIdentity> {
    let chain = read_certificates(certificate)?;
    let lacking =
        |what: &str| Error::Invalid(format!("tls: failed to find any PEM data in {what} input"));
    if chain.is_empty() {
        return Err(lacking("certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| lacking("key"))?;
    Ok(ClientIdentity {
        chain,
        key: tagged(&key),
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let text = gantry_api::error::errno_text(&error);
        Error::Invalid(format!("open {}: {text}", path.display()))
    })
}

/// Puts the key's form before its bytes, as the forms cannot be told apart for sure.
fn tagged(key: &PrivateKeyDer<'_>) -> Vec<u8> {
    let form = match key {
        PrivateKeyDer::Pkcs1(_) => 1,
        PrivateKeyDer::Sec1(_) => 2,
        _ => 8,
    };
    let mut bytes = vec![form];
    bytes.extend(key.secret_der());
    bytes
}

impl ClientIdentity {
    fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey> {
        let chain = self.chain.iter().cloned().map(CertificateDer::from);
        let key = self.key[1..].to_vec();
        let key = match self.key[0] {
            1 => PrivateKeyDer::Pkcs1(key.into()),
            2 => PrivateKeyDer::Sec1(key.into()),
            _ => PrivateKeyDer::Pkcs8(key.into()),
        };
        CertifiedKey::from_der(chain.collect(), key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                Error::Invalid("tls: private key does not match public key".to_owned())
            }
            other => Error::Invalid(format!("use a client certificate: {other}")),
        })
    }
}

/// Chooses the client certificate that the server asks for by its authorities; the first where it names none.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identities {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = || {
            self.0
                .iter()
                .filter(|identity| identity.key.choose_scheme(schemes).is_some())
        };
        usable()
            .find(|identity| issuers.is_empty() || is_issued_by(&identity.cert, issuers))
            .cloned()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn is_issued_by(chain: &[CertificateDer<'_>], issuers: &[&[u8]]) -> bool {
    chain.iter().any(|certificate| {
        let issuer = Certificate::from_der(certificate)
            .and_then(|certificate| certificate.tbs_certificate().issuer().to_der());
        issuer.is_ok_and(|issuer| issuers.contains(&issuer.as_slice()))
    })
}

/// Checks as the library does, and accepts besides what Go accepts: a server's certificate that is itself among the
/// trusted ones, which is how most private registries are set up.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

#[derive(Debug)]
enum Trust {
    /// Whoever answers: the user called the registry insecure.
    Everyone,
    Known {
        /// None where nobody is trusted, not even by the system.
        library: Option<Arc<WebPkiServerVerifier>>,
        own: Vec<Vec<u8>>,
    },
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let trust = if settings.unverified {
            Trust::Everyone
        } else {
            let own = settings.roots.clone();
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots.add_parsable_certificates(own.iter().cloned().map(CertificateDer::from));
            Trust::Known {
                library: webpki(roots, provider)?,
                own,
            }
        };
        Ok(Self {
            provider: Arc::clone(provider),
            trust,
        })
    }
}

fn webpki(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>> {
    if roots.is_empty() {
        return Ok(None);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map(Some)
        .map_err(|error| Error::Invalid(format!("set up TLS: {error}")))
}

/// Tells whether a server's certificate is one of `own`, for this name and at this time.
fn is_trusted_itself(
    own: &[Vec<u8>],
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> bool {
    let in_time = || {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate().validity();
        let now = std::time::Duration::from_secs(now.as_secs());
        Some(
            validity.not_before.to_unix_duration() <= now
                && now <= validity.not_after.to_unix_duration(),
        )
    };
    own.iter().any(|own| own == certificate.as_ref())
        && ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
        && in_time() == Some(true)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Trust::Known { library, own } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let Some(library) = library else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let verified = library.verify_server_cert(certificate, intermediates, name, ocsp, now);
        verified.or_else(|error| match error {
            _ if is_trusted_itself(own, certificate, name, now) => {
                Ok(ServerCertVerified::assertion())
            }
            // An authority's certificate used by a server, and not a trusted one: for Go an unknown authority.
            rustls::Error::InvalidCertificate(CertificateError::Other(_)) => {
                Err(CertificateError::UnknownIssuer.into())
            }
            other => Err(other),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_authority_nobody_is_trusted() {
        let provider = Arc::new(provider::default_provider());
        let library = webpki(RootCertStore::empty(), &provider).expect("a verifier");
        let trust = Trust::Known {
            library,
            own: Vec::new(),
        };
        let error = Verifier { provider, trust }
            .verify_server_cert(
                &CertificateDer::from(vec![0]),
                &[],
                &ServerName::try_from("a.example").expect("a name"),
                &[],
                UnixTime::since_unix_epoch(std::time::Duration::ZERO),
            )
            .expect_err("nobody");
        assert_eq!(error, CertificateError::UnknownIssuer.into());
    }
}
