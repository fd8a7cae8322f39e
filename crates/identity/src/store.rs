//! What a process is and whom it trusts at this moment.
//!
//! Invariant: one writer stores, every handshake loads; a renewed certificate or a changed trust is in force for the next handshake
//! of configurations that exist already. Open connections keep what they negotiated.

use std::{fmt, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{certificate::WorkloadCertificate, trust::Trust};

/// The current certificate and trust. Share it in an `Arc`.
#[derive(Default)]
pub struct IdentityStore {
    certificate: ArcSwapOption<WorkloadCertificate>,
    trust: ArcSwap<Trust>,
}

impl IdentityStore {
    /// Without a certificate yet: as a client it connects without one, as a server it refuses handshakes.
    pub fn new(trust: Trust) -> Arc<Self> {
        Arc::new(Self { certificate: ArcSwapOption::empty(), trust: ArcSwap::from_pointee(trust) })
    }

    /// With a certificate.
    pub fn with_certificate(trust: Trust, certificate: WorkloadCertificate) -> Arc<Self> {
        let store = Self::new(trust);
        store.set_certificate(certificate);
        store
    }

    /// From the next handshake on, be this.
    pub fn set_certificate(&self, certificate: WorkloadCertificate) {
        self.certificate.store(Some(Arc::new(certificate)));
    }

    /// From the next handshake on, trust these.
    pub fn set_trust(&self, trust: Trust) {
        self.trust.store(Arc::new(trust));
    }

    /// The current certificate, if there is one.
    pub fn certificate(&self) -> Option<Arc<WorkloadCertificate>> {
        self.certificate.load_full()
    }

    /// The current trust.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    fn certified(&self, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certificate = self.certificate.load();
        let certified = certificate.as_ref()?.certified();
        certified.key.choose_scheme(schemes)?;
        Some(Arc::clone(certified))
    }
}

impl fmt::Debug for IdentityStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityStore").field("certificate", &self.certificate()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for IdentityStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified(hello.signature_schemes())
    }
}

impl ResolvesClientCert for IdentityStore {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified(schemes)
    }

    fn has_certs(&self) -> bool {
        self.certificate.load().is_some()
    }
}
