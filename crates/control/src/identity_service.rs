//! How workloads get certificates: the first for a join token, the next for the certificate before.
//!
//! Invariant: the identity in a certificate is that of the token or of the verified peer; of the request only the public key
//! and the wished lifetime are looked at.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use leno_ca::{Authority, IssuedChain};
use leno_identity::{CsrDer, SpiffeId};
use leno_xds::{
    proto::identity::{
        IssueRequest, IssueResponse, TrustBundle, WatchTrustRequest, identity_server::Identity,
    },
    transport::Peer,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{clock::now, config::Lifetimes, input::describe, published::Newest, tokens::Tokens};

/// Larger requests are not for a workload's certificate.
const MAX_CSR_BYTES: usize = 16 << 10;

/// How often certificates were asked for and issued.
#[derive(Debug, Default)]
pub(crate) struct IssueCounts {
    pub(crate) asked: AtomicU64,
    pub(crate) issued: AtomicU64,
}

/// The service. Clones are the same.
#[derive(Clone)]
pub(crate) struct IdentityService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) newest: Newest,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) counts: Arc<IssueCounts>,
    pub(crate) stop: CancellationToken,
}

impl IdentityService {
    fn issue_to(&self, peer: &Peer, request: IssueRequest) -> Result<IssueResponse, Status> {
        let IssueRequest { csr_der, join_token, ttl_seconds } = request;
        if csr_der.is_empty() || csr_der.len() > MAX_CSR_BYTES {
            return Err(Status::invalid_argument("the certificate signing request is empty or too large"));
        }
        let identity = self.authenticated(peer, &join_token)?;
        let ttl = self.lifetimes.granted(ttl_seconds);
        let issued = self.authority.issue(&CsrDer::from_bytes(csr_der.to_vec()), &identity, ttl, now());
        let IssuedChain { chain, roots, not_after } = issued.map_err(|error| {
            tracing::warn!(%identity, error = &error as &dyn std::error::Error, "certificate not issued");
            Status::failed_precondition(describe(&error))
        })?;
        tracing::debug!(%identity, ttl = ttl.as_secs(), "certificate issued");
        Ok(IssueResponse {
            chain_der: chain.iter().map(|it| it.to_vec().into()).collect(),
            root_der: roots.iter().map(|it| it.to_vec().into()).collect(),
            not_after: i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX),
        })
    }

    /// Who asks, as proved.
    fn authenticated(&self, peer: &Peer, token: &[u8]) -> Result<SpiffeId, Status> {
        let verified = peer.identity.as_deref().and_then(|id| SpiffeId::parse(id).ok());
        if token.is_empty() {
            return verified.ok_or_else(|| {
                Status::unauthenticated("neither a join token nor a certificate that is still valid")
            });
        }
        let newest = self.newest.load();
        let known = |workload: &_| newest.as_ref()?.identity_of(workload).cloned();
        match (self.tokens.redeem(token, now(), known), verified) {
            (Ok(grant), _) => Ok(grant.identity),
            // Restarted with both its old token and its certificate: the certificate is proof enough.
            (Err(_), Some(identity)) => Ok(identity),
            (Err(error), None) => {
                tracing::warn!(address = ?peer.address, error = &error as &dyn std::error::Error, "join refused");
                Err(Status::permission_denied(error.to_string()))
            }
        }
    }
}

#[tonic::async_trait]
impl Identity for IdentityService {
    type WatchTrustStream = Pin<Box<dyn Stream<Item = Result<TrustBundle, Status>> + Send>>;

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        self.counts.asked.fetch_add(1, Relaxed);
        let service = self.clone();
        // Signing and the tokens' file are no work for the threads that serve streams.
        let issued = tokio::task::spawn_blocking(move || service.issue_to(&peer, request.into_inner())).await;
        let issued = issued.map_err(|_| Status::internal("issuing failed"))??;
        self.counts.issued.fetch_add(1, Relaxed);
        Ok(Response::new(issued))
    }

    async fn watch_trust(
        &self,
        _request: Request<WatchTrustRequest>,
    ) -> Result<Response<Self::WatchTrustStream>, Status> {
        let bundle = self.authority.bundle();
        let bundle = TrustBundle {
            trust_domain: bundle.domain().to_string(),
            root_der: bundle.roots().iter().map(|it| it.to_vec().into()).collect(),
        };
        // The authority is read at start: its roots stay as long as this process.
        let stop = self.stop.clone().cancelled_owned();
        let roots = stream::once(async move { Ok(bundle) }).chain(stream::pending()).take_until(stop);
        Ok(Response::new(Box::pin(roots)))
    }
}
