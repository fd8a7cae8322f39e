//! The control plane's own certificate: issued by its own authority at start, renewed at half of its life.
//!
//! Invariant: a renewal that fails leaves the old certificate in use and is tried again.

use std::{sync::Arc, time::Duration};

use leno_ca::{Authority, IssueError};
use leno_identity::{
    CertificateProblem, IdentityStore, KeyPair, KeyProblem, SpiffeId, Trust, WorkloadCertificate, csr_for,
};
use tokio_util::sync::CancellationToken;

use crate::clock::now;

/// How soon a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// An authority that ends so soon is warned of, each time the own certificate is renewed: twice a day.
const ENDS_SOON: Duration = Duration::from_secs(30 * 24 * 3600);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OwnCertificateError {
    /// No key.
    #[error("the control plane's key cannot be made")]
    Key(#[from] KeyProblem),
    /// Not issued.
    #[error("the control plane's certificate cannot be issued")]
    Issue(#[from] IssueError),
    /// Issued and not usable.
    #[error("the control plane's certificate cannot be used")]
    Unusable(#[from] CertificateProblem),
}

/// Who a control plane is.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) identity: SpiffeId,
    /// Names by which ordinary clients call it.
    pub(crate) names: Vec<String>,
}

/// The store with a first certificate in it.
pub(crate) fn first(
    authority: &Authority,
    own: &Own,
    ttl: Duration,
) -> Result<Arc<IdentityStore>, OwnCertificateError> {
    warn_of_its_end(authority);
    let trust = Trust::new([authority.bundle().clone()]);
    Ok(IdentityStore::with_certificate(trust, issue(authority, own, ttl)?))
}

/// Keeps the certificate fresh until `stop`.
pub(crate) async fn renew(
    authority: Arc<Authority>,
    store: Arc<IdentityStore>,
    own: Own,
    ttl: Duration,
    stop: CancellationToken,
) {
    loop {
        let due =
            store.certificate().map_or_else(now, |certificate| certificate.renew_at(now(), rand::random()));
        let mut wait = Duration::from_secs(due.as_secs().saturating_sub(now().as_secs()));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match issue(&authority, &own, ttl) {
                Ok(certificate) => {
                    store.set_certificate(certificate);
                    warn_of_its_end(&authority);
                    break;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "own certificate not renewed");
                    wait = RETRY;
                }
            }
        }
    }
}

/// No certificate outlives the authority, and a new one has to be made by whoever has the root's key.
fn warn_of_its_end(authority: &Authority) {
    let left = authority.not_after().as_secs().saturating_sub(now().as_secs());
    if left < ENDS_SOON.as_secs() {
        let days = left / (24 * 3600);
        tracing::warn!(days, "the issuing authority ends soon, and every certificate with it: replace it");
    }
}

fn issue(
    authority: &Authority,
    Own { identity, names }: &Own,
    ttl: Duration,
) -> Result<WorkloadCertificate, OwnCertificateError> {
    let key = KeyPair::generate()?;
    let issued = authority.issue_control_plane(&csr_for(&key)?, identity, names, ttl, now())?;
    Ok(WorkloadCertificate::new(issued.chain, key)?)
}
