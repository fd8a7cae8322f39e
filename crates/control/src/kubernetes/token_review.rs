//! Who a pod is: its service account token, reviewed by the API server.
//!
//! Invariant: only a token for our audience that is bound to a pod proves an identity, and it is that of its service account.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use leno_identity::{SpiffeId, TrustDomain};
use tokio::time::timeout;

/// How long a review may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The audience that proxies' tokens are for.
pub(crate) const AUDIENCE: &str = "leno-ca";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Asks the API server about tokens.
#[derive(Clone)]
pub(crate) struct TokenReviews {
    pub(crate) client: Client,
    pub(crate) audience: String,
    pub(crate) domain: TrustDomain,
}

/// Why a token proves nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReviewProblem {
    #[error("the token is no text")]
    NoText,
    #[error("the API server did not review the token within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the API server cannot review the token")]
    Unavailable(#[source] Box<kube::Error>),
    #[error("the token is not valid for the audience {audience}: {why}")]
    Invalid { audience: String, why: String },
    #[error("{user} is no service account with a pod: only tokens that are bound to a pod are taken")]
    NotAPod { user: String },
}

impl ReviewProblem {
    /// Whether the fault is not the token's, so that asking again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Late | Self::Unavailable(_))
    }
}

impl TokenReviews {
    /// The identity that a token proves.
    pub(crate) async fn identity(&self, token: &[u8]) -> Result<SpiffeId, ReviewProblem> {
        let token = std::str::from_utf8(token).map_err(|_| ReviewProblem::NoText)?.trim().to_owned();
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token) },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = timeout(PATIENCE, reviews.create(&PostParams::default(), &review)).await;
        let answer = answer
            .map_err(|_| ReviewProblem::Late)?
            .map_err(|error| ReviewProblem::Unavailable(Box::new(error)))?;
        self.judge(answer.status.unwrap_or_default())
    }

    fn judge(&self, status: TokenReviewStatus) -> Result<SpiffeId, ReviewProblem> {
        let TokenReviewStatus { audiences, authenticated, error, user } = status;
        let ours = audiences.is_some_and(|audiences| audiences.contains(&self.audience));
        if authenticated != Some(true) || !ours {
            let why = error.unwrap_or_else(|| "not authenticated".to_owned());
            return Err(ReviewProblem::Invalid { audience: self.audience.clone(), why });
        }
        let user = user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        let of_a_pod =
            user.extra.is_some_and(|extra| extra.get(POD_NAME).is_some_and(|pods| pods.len() == 1));
        let account = name.strip_prefix(SERVICE_ACCOUNT).and_then(|account| account.split_once(':'));
        let identity = account
            .filter(|_| of_a_pod)
            .and_then(|(namespace, account)| SpiffeId::workload(&self.domain, namespace, account).ok());
        identity.ok_or(ReviewProblem::NotAPod { user: name })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value) -> Result<SpiffeId, ReviewProblem> {
        // Judging asks nobody.
        struct Judge(TrustDomain);
        let Judge(domain) = Judge(TrustDomain::default());
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = Client::try_from(config).unwrap();
        let reviews = TokenReviews { client, audience: "leno-ca".to_owned(), domain };
        reviews.judge(serde_json::from_value(status).unwrap())
    }

    fn good() -> Value {
        json!({
            "authenticated": true, "audiences": ["leno-ca"],
            "user": {"username": "system:serviceaccount:shop:cart", "extra": {POD_NAME: ["cart-0"]}},
        })
    }

    #[tokio::test]
    async fn a_pods_token_proves_its_service_account() {
        assert_eq!(judged(good()).unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    }

    #[tokio::test]
    async fn other_audiences_users_and_tokens_without_a_pod_prove_nothing() {
        let changed = |pointer: &str, value: Value| {
            let mut status = good();
            *status.pointer_mut(pointer).unwrap() = value;
            judged(status)
        };
        assert!(matches!(changed("/audiences", json!(["api"])), Err(ReviewProblem::Invalid { .. })));
        assert!(matches!(changed("/authenticated", json!(false)), Err(ReviewProblem::Invalid { .. })));
        assert!(matches!(changed("/user/username", json!("admin")), Err(ReviewProblem::NotAPod { .. })));
        assert!(matches!(changed("/user/extra", json!({})), Err(ReviewProblem::NotAPod { .. })));
        let slashes = changed("/user/username", json!("system:serviceaccount:shop:a/ns/b"));
        assert!(matches!(slashes, Err(ReviewProblem::NotAPod { .. })));
    }
}
