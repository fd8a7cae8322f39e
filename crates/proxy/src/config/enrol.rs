//! The workload's certificate: the first one for a join token, the next ones for the one before.
//!
//! Invariant: a new key for each certificate; the old one stays in use until the new one is complete, so a renewal that
//! fails loses nothing while the old one is valid.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use leno_identity::{IdentityStore, KeyPair, Trust, TrustBundle, UnixTime, WorkloadCertificate, csr_for};
use leno_model::{Millis, TrustDomain};
use leno_xds::proto::identity::{IssueRequest, identity_client::IdentityClient};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::{control_link::ControlLink, persist::StateDir};

const ISSUE_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Why there is no certificate yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// The control plane cannot be reached.
    #[error("the control plane cannot be reached")]
    Link(#[source] std::io::Error),
    /// The connection failed after it was made.
    #[error("the connection to the control plane failed")]
    Transport(#[source] tonic::transport::Error),
    /// It said no.
    #[error("the control plane does not issue a certificate: {}", .0.message())]
    Refused(#[source] Box<tonic::Status>),
    /// What it issued is not usable.
    #[error("the certificate that was issued is not usable: {0}")]
    Unusable(String),
    /// It took too long.
    #[error("the control plane did not answer in {ISSUE_TIMEOUT:?}")]
    Timeout,
}

/// Keeps the certificate in `store` fresh.
pub(crate) struct Enrolment {
    /// Where to ask.
    pub(crate) link: Arc<ControlLink>,
    /// What is kept fresh.
    pub(crate) store: Arc<IdentityStore>,
    /// The mesh's trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// Lifetime to ask for.
    pub(crate) ttl: Millis,
    /// Proves who this is the first time.
    pub(crate) join_token: Option<String>,
    /// Where the certificate is kept across restarts.
    pub(crate) state: Option<Arc<StateDir>>,
}

impl Enrolment {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        let mut due = self.due();
        loop {
            let wait = Duration::from_secs(due.as_secs().saturating_sub(now().as_secs()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            match tokio::time::timeout(ISSUE_TIMEOUT, self.issue()).await.unwrap_or(Err(EnrolError::Timeout))
            {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    due = self.due();
                    self.join_token = None;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "no new certificate");
                    let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(jittered) => {}
                    }
                }
            }
        }
    }

    /// When a certificate is needed: at once without one, else when about half is over of what it has left at present. Its
    /// beginning says nothing: authorities date it back for clocks that are late.
    fn due(&self) -> UnixTime {
        match self.store.certificate() {
            None => now(),
            Some(certificate) => certificate.renew_at(now(), rand::rng().random()),
        }
    }

    async fn issue(&self) -> Result<(), EnrolError> {
        let unusable = |error: &dyn std::fmt::Display| EnrolError::Unusable(error.to_string());
        let key = KeyPair::generate().map_err(|error| unusable(&error))?;
        let csr = csr_for(&key).map_err(|error| unusable(&error))?;
        let connection = self.link.dial().await.map_err(EnrolError::Link)?;
        let channel = leno_xds::transport::channel(connection).await.map_err(EnrolError::Transport)?;
        let request = IssueRequest {
            csr_der: csr.into_bytes().into(),
            join_token: self.join_token.clone().unwrap_or_default().into(),
            ttl_seconds: self.ttl.0.div_ceil(1000),
        };
        let issued = IdentityClient::new(channel).issue(request).await;
        let issued = issued.map_err(|status| EnrolError::Refused(Box::new(status)))?.into_inner();
        let certificate = WorkloadCertificate::from_der(issued.chain_der.into_iter().map(Vec::from), key)
            .map_err(|error| unusable(&error))?;
        let bundle =
            TrustBundle::from_der(self.trust_domain.clone(), issued.root_der.into_iter().map(Vec::from))
                .map_err(|error| unusable(&error))?;
        if let Some(state) = &self.state {
            state.save_certificate(&certificate, &bundle);
        }
        self.store.set_trust(Trust::new([bundle]));
        tracing::debug!(identity = %certificate.spiffe_id(), "certificate in use");
        self.store.set_certificate(certificate);
        Ok(())
    }
}

/// The wall clock, as certificates see it.
pub(crate) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
