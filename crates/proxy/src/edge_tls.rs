//! TLS configurations of a gateway's listeners, made when their certificates change.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use leno_decide::Tables;
use leno_identity::{MinimumVersion, ServerCertificate, TlsConfigError, gateway_server_config};
use leno_model::{GatewayTls, HostPattern, Listener, TlsSecret};
use rustls::ServerConfig;

/// Why a listener's handshakes are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EdgeTlsError {
    /// No certificate resolves.
    #[error("none of its certificates resolves")]
    NoCertificate,
    /// A certificate cannot be used.
    #[error("secret {id}: {source}")]
    Unusable {
        /// The secret.
        id: Arc<str>,
        /// Why.
        source: TlsConfigError,
    },
    /// The authority for client certificates has not arrived or has no certificate.
    #[error("the authority for client certificates ({0}) does not resolve")]
    NoClientCa(Arc<str>),
}

/// Configurations by listener.
#[derive(Default)]
pub(crate) struct EdgeTls(RefCell<HashMap<Arc<str>, Cached>>);

struct Cached {
    settings: GatewayTls,
    secrets: Vec<Arc<TlsSecret>>,
    config: Arc<ServerConfig>,
}

impl EdgeTls {
    /// The configuration of a listener.
    pub(crate) fn config(
        &self,
        tables: &Tables,
        listener: &Listener,
        settings: &GatewayTls,
        http: bool,
    ) -> Result<Arc<ServerConfig>, EdgeTlsError> {
        let ids = settings.certificates.iter().chain(&settings.client_ca);
        let secrets: Vec<Arc<TlsSecret>> = ids.filter_map(|id| tables.secret(id).cloned()).collect();
        if let Some(cached) = self.0.borrow().get(&listener.name)
            && cached.settings == *settings
            && cached.secrets.len() == secrets.len()
            && cached.secrets.iter().zip(&secrets).all(|(one, other)| Arc::ptr_eq(one, other))
        {
            return Ok(cached.config.clone());
        }
        let config = build(tables, settings, http)?;
        let cached = Cached { settings: settings.clone(), secrets, config: config.clone() };
        self.0.borrow_mut().insert(listener.name.clone(), cached);
        Ok(config)
    }
}

fn build(tables: &Tables, settings: &GatewayTls, http: bool) -> Result<Arc<ServerConfig>, EdgeTlsError> {
    let mut certificates = Vec::new();
    for id in &settings.certificates {
        let Some(secret) = tables.secret(id) else { continue };
        // The listener was chosen by its host; each of its certificates is for any name on it, the first by default.
        let certificate = ServerCertificate::from_pem(HostPattern::Any, &secret.certificate, &secret.key);
        certificates.push(certificate.map_err(|source| EdgeTlsError::Unusable { id: id.clone(), source })?);
    }
    if certificates.is_empty() {
        return Err(EdgeTlsError::NoCertificate);
    }
    let client_ca = match &settings.client_ca {
        None => None,
        Some(id) => match tables.secret(id).filter(|secret| !secret.ca.is_empty()) {
            Some(secret) => Some(secret.ca.clone()),
            None => return Err(EdgeTlsError::NoClientCa(id.clone())),
        },
    };
    let minimum = if settings.allow_tls12 { MinimumVersion::Tls12 } else { MinimumVersion::Tls13 };
    let alpn: &[&[u8]] = if http { &[b"h2", b"http/1.1"] } else { &[] };
    gateway_server_config(certificates, minimum, client_ca.as_deref(), alpn)
        .map_err(|source| EdgeTlsError::Unusable { id: "client authority".into(), source })
}
