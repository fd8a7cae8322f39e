//! The issuing authority in a Secret: the user's `cacerts`, else one that the first control plane makes.
//!
//! Invariants: a Secret that is there and cannot be used is an error and never replaced; of two replicas that make one at the
//! same time, one wins and the other uses what it made.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams, core::ObjectMeta};
use leno_ca::{AuthorityPem, Intermediate, Root, RootProblem, root::ROOT_LIFETIME};
use leno_identity::{TrustDomain, UnixTime};
use zeroize::Zeroizing;

use super::{Cluster, KubernetesError, failed, is_status};
use crate::clock::now;

/// What a user plugs in, in Istio's layout.
const PLUGGED_IN: &str = "cacerts";
/// What is made where nothing is plugged in.
const OWN: &str = "leno-ca";

/// Reads the authority, or makes it.
pub(crate) async fn authority(
    cluster: &Cluster,
    domain: &TrustDomain,
    name: &str,
) -> Result<AuthorityPem, KubernetesError> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &cluster.config.namespace);
    for secret in [PLUGGED_IN, OWN] {
        let found =
            secrets.get_opt(secret).await.map_err(failed(format!("Secret {secret} cannot be read")))?;
        if let Some(found) = found {
            return pem(&found);
        }
    }
    let made = make(domain, name, now())?;
    match secrets.create(&PostParams::default(), &secret(made.pem())).await {
        Ok(_) => {
            tracing::info!(
                secret = OWN,
                "a new authority was made; plug in `cacerts` to share a root with other clusters"
            );
            Ok(made.pem().clone())
        }
        Err(error) if is_status(&error, 409) => {
            let theirs = secrets.get(OWN).await.map_err(failed(format!("Secret {OWN} cannot be read")))?;
            pem(&theirs)
        }
        Err(error) => Err(failed(format!("Secret {OWN} cannot be created"))(error)),
    }
}

/// A root whose key nobody keeps, and an intermediate that lives as long: nothing could renew it (ADR 0016).
fn make(domain: &TrustDomain, name: &str, now: UnixTime) -> Result<Intermediate, RootProblem> {
    Intermediate::issue_for(&Root::generate(domain, now)?, name, ROOT_LIFETIME, now)
}

fn pem(secret: &Secret) -> Result<AuthorityPem, KubernetesError> {
    let name = secret.metadata.name.clone().unwrap_or_default();
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    let needed = |key: &str| {
        text(key).ok_or_else(|| KubernetesError::Secret {
            name: name.clone(),
            problem: format!(
                "the key {key} is missing or no text; ca-cert.pem, ca-key.pem and root-cert.pem are needed"
            ),
        })
    };
    let ca_cert = needed("ca-cert.pem")?;
    Ok(AuthorityPem {
        cert_chain: text("cert-chain.pem").unwrap_or_else(|| ca_cert.clone()),
        ca_cert,
        ca_key: Zeroizing::new(needed("ca-key.pem")?),
        root_cert: needed("root-cert.pem")?,
    })
}

fn secret(pem: &AuthorityPem) -> Secret {
    let AuthorityPem { ca_cert, ca_key, cert_chain, root_cert } = pem;
    let data = [
        ("ca-cert.pem", ca_cert.as_str()),
        ("ca-key.pem", ca_key.as_str()),
        ("cert-chain.pem", cert_chain),
        ("root-cert.pem", root_cert),
    ];
    let bytes = |(key, text): (&str, &str)| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    Secret {
        metadata: ObjectMeta { name: Some(OWN.to_owned()), ..ObjectMeta::default() },
        type_: Some("leno.dev/authority".to_owned()),
        data: Some(data.into_iter().map(bytes).collect::<BTreeMap<_, _>>()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_survives_its_secret_and_half_a_secret_is_refused() {
        let domain = TrustDomain::default();
        let made = make(&domain, "west", now()).unwrap();
        let mut kept = secret(made.pem());
        assert_eq!(pem(&kept).unwrap().ca_cert, made.pem().ca_cert);
        kept.data.as_mut().unwrap().remove("ca-key.pem");
        let refused = pem(&kept).unwrap_err().to_string();
        assert!(refused.contains("ca-key.pem"), "{refused}");
    }

    /// Its root's key is gone, so it can never be renewed: it must not end one day under a mesh that works.
    #[test]
    fn the_authority_that_nobody_can_renew_lives_as_long_as_its_root() {
        let made = make(&TrustDomain::default(), "west", now()).unwrap().into_authority(now()).unwrap();
        let left = made.not_after().as_secs() - now().as_secs();
        assert!(left > 3649 * 24 * 3600, "{} days", left / (24 * 3600));
    }
}
