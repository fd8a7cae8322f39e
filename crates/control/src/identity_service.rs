//! How workloads get certificates: the first for a join token or a pod's token, the next for the certificate before.
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

use bytes::Bytes;
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

use crate::{
    clock::now,
    config::Lifetimes,
    input::describe,
    kubernetes::token_review::{ReviewProblem, TokenReviews},
    published::Newest,
    tokens::Tokens,
};

/// Larger requests are not for a workload's certificate.
const MAX_CSR_BYTES: usize = 16 << 10;
/// Longer tokens are none of a service account's.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// How often certificates were asked for and issued.
#[derive(Debug, Default)]
pub(crate) struct IssueCounts {
    pub(crate) asked: AtomicU64,
    pub(crate) issued: AtomicU64,
}

/// What proves an identity to who has no certificate yet.
#[derive(Clone)]
pub(crate) enum Proofs {
    /// One-use join tokens, from a supervisor.
    Tokens(Arc<Tokens>),
    /// Service account tokens of pods.
    Reviews(TokenReviews),
}

/// The service. Clones are the same.
#[derive(Clone)]
pub(crate) struct IdentityService {
    pub(crate) authority: Arc<Authority>,
    pub(crate) proofs: Proofs,
    pub(crate) newest: Newest,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) counts: Arc<IssueCounts>,
    pub(crate) stop: CancellationToken,
}

impl IdentityService {
    async fn issue_to(&self, peer: Peer, request: IssueRequest) -> Result<IssueResponse, Status> {
        let IssueRequest { csr_der, join_token, ttl_seconds } = request;
        if csr_der.is_empty() || csr_der.len() > MAX_CSR_BYTES || join_token.len() > MAX_TOKEN_BYTES {
            return Err(Status::invalid_argument("the signing request or its token is empty or too large"));
        }
        let reviewed = match &self.proofs {
            Proofs::Reviews(reviews) if !join_token.is_empty() => Some(reviews.identity(&join_token).await),
            Proofs::Reviews(_) | Proofs::Tokens(_) => None,
        };
        let service = self.clone();
        // Signing and the tokens' file are no work for the threads that serve streams.
        let issued = tokio::task::spawn_blocking(move || {
            let identity = service.authenticated(&peer, &join_token, reviewed)?;
            service.sign(&identity, csr_der, ttl_seconds)
        });
        issued.await.map_err(|_| Status::internal("issuing failed"))?
    }

    fn sign(&self, identity: &SpiffeId, csr_der: Bytes, ttl_seconds: u64) -> Result<IssueResponse, Status> {
        let ttl = self.lifetimes.granted(ttl_seconds);
        let issued = self.authority.issue(&CsrDer::from_bytes(csr_der.to_vec()), identity, ttl, now());
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
    fn authenticated(
        &self,
        peer: &Peer,
        token: &[u8],
        reviewed: Option<Result<SpiffeId, ReviewProblem>>,
    ) -> Result<SpiffeId, Status> {
        let verified = peer.identity.as_deref().and_then(|id| SpiffeId::parse(id).ok());
        if token.is_empty() {
            return verified.ok_or_else(|| {
                Status::unauthenticated("neither a join token nor a certificate that is still valid")
            });
        }
        let proved = match (&self.proofs, reviewed) {
            (_, Some(reviewed)) => reviewed.map_err(|error| (describe(&error), error.is_passing())),
            (Proofs::Tokens(tokens), None) => {
                let newest = self.newest.load();
                let known = |workload: &_| newest.as_ref()?.identity_of(workload).cloned();
                let redeemed = tokens.redeem(token, now(), known);
                redeemed.map(|grant| grant.identity).map_err(|error| (describe(&error), false))
            }
            (Proofs::Reviews(_), None) => Err(("the token was not reviewed".to_owned(), true)),
        };
        match (proved, verified) {
            (Ok(identity), _) => Ok(identity),
            // Restarted with both its old token and its certificate: the certificate is proof enough.
            (Err(_), Some(identity)) => Ok(identity),
            (Err((error, passing)), None) => {
                tracing::warn!(address = ?peer.address, error, "join refused");
                Err(if passing { Status::unavailable(error) } else { Status::permission_denied(error) })
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
        let issued = self.issue_to(peer, request.into_inner()).await?;
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
