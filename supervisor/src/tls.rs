//! Certificate authorities that git, the forge and the model gateway trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

/// Locations of certificate authorities; by default those of the system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CertificatePaths {
    file: Option<PathBuf>,
    dir: Option<PathBuf>,
}

/// No certificate authority can be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read certificate authorities from {location}{details}")]
pub struct RootCertificatesError {
    location: String,
    details: String,
}

impl CertificatePaths {
    /// Reads `SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL does.
    pub fn from_env<'v>(variable: impl Fn(&str) -> Option<&'v str>) -> Self {
        let path = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { file: path("SSL_CERT_FILE"), dir: path("SSL_CERT_DIR") }
    }

    /// Returns the trusted certificate authorities.
    ///
    /// Entries that cannot be parsed are skipped: a bundle may hold other objects.
    ///
    /// # Errors
    /// Returns an error if no certificate can be read.
    pub fn root_certificates(&self) -> Result<Vec<CertificateDer<'static>>, RootCertificatesError> {
        let (file, dir) = (self.file.as_deref(), self.dir.as_deref());
        let loaded = if file.is_none() && dir.is_none() {
            rustls_native_certs::load_native_certs()
        } else {
            rustls_native_certs::load_certs_from_paths(file, dir)
        };
        let mut certificates = loaded.certs;
        certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
        if !certificates.is_empty() {
            return Ok(certificates);
        }
        let quoted = |path: &Path| format!("`{}`", path.display());
        let named: Vec<String> = [file, dir].into_iter().flatten().map(quoted).collect();
        let location =
            if named.is_empty() { "the system (ca-certificates)".to_owned() } else { named.join(" and ") };
        let details = loaded.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        Err(RootCertificatesError { location, details })
    }

    /// Returns a TLS client configuration that trusts [`Self::root_certificates`].
    ///
    /// # Errors
    /// Returns an error if no certificate can be read.
    pub fn client_config(&self) -> Result<ClientConfig, RootCertificatesError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(self.root_certificates()?);
        Ok(config_with(roots))
    }
}

/// Returns a TLS client configuration that trusts no server, for plain HTTP.
#[must_use]
pub fn config_without_roots() -> ClientConfig {
    config_with(RootCertStore::empty())
}

fn config_with(roots: RootCertStore) -> ClientConfig {
    let provider =
        CryptoProvider::get_default().map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone);
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_file_without_certificate_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, "no certificate\n").unwrap();
        let file = file.to_str().unwrap();
        let paths = CertificatePaths::from_env(|name| (name == "SSL_CERT_FILE").then_some(file));
        let error = paths.root_certificates().unwrap_err();
        assert!(error.to_string().contains("ca.pem`"), "{error}");
    }

    #[test]
    fn unparsable_certificate_in_ca_file_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let certificate =
            |base64: &str| format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
        let system = CertificatePaths::default().root_certificates().unwrap();
        let valid = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &system[0]);
        std::fs::write(&file, [certificate("AAAA"), certificate(&valid)].concat()).unwrap();
        let file = file.to_str().unwrap();
        let paths = CertificatePaths::from_env(|name| (name == "SSL_CERT_FILE").then_some(file));
        assert_eq!(paths.root_certificates().unwrap(), system[..1]);
    }

    #[test]
    fn missing_ca_directory_is_an_error() {
        let paths = CertificatePaths::from_env(|name| (name == "SSL_CERT_DIR").then_some("/does/not/exist"));
        let error = paths.root_certificates().unwrap_err();
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn empty_ca_variables_mean_the_system() {
        assert_eq!(CertificatePaths::from_env(|_| Some("")), CertificatePaths::default());
    }
}
