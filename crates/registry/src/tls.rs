//! TLS: a certificate and its key from files, read again when they change.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Is a certificate chain with its private key, as connections get it.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    state: RwLock<(Arc<ServerConfig>, [Option<SystemTime>; 2])>,
}

impl Tls {
    /// Reads both files, in PEM.
    ///
    /// # Errors
    /// Names the file that cannot be read, and why.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, String> {
        let times = [certificate, key].map(modified);
        Ok(Self {
            state: RwLock::new((load(certificate, key)?, times)),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Gives the configuration for a new connection.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Reads the files again if they changed; a broken pair is left as it was, and said so in the log.
    pub(crate) fn refresh(&self) {
        let times = [&self.certificate, &self.key].map(|path| modified(path));
        if times == self.state.read().unwrap_or_else(PoisonError::into_inner).1 {
            return;
        }
        let loaded = load(&self.certificate, &self.key);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.1 = times;
        match loaded {
            Ok(config) => {
                state.0 = config;
                tracing::info!(file = %self.certificate.display(), "read again");
            }
            Err(error) => tracing::error!(error, "the certificate of before holds"),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let failed = |path: &Path, why: &dyn std::fmt::Display| format!("`{}`: {why}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| failed(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| failed(certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
