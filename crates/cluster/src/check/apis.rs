//! CRDs of the Gateway API and of Istio: there, absent, or too old.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use super::{Finding, Look};

const BUNDLE: &str = "gateway.networking.k8s.io/bundle-version";
const CHANNEL: &str = "gateway.networking.k8s.io/channel";
/// The first with GRPCRoute `v1`.
const OLDEST: (u32, u32) = (1, 1);
/// The release that the support table is of.
const RELEASE: &str =
    "https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.6.3/standard-install.yaml";

pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    let crds: Api<CustomResourceDefinition> = Api::all(look.client.clone());
    let gateway_api = match crds.get_opt("gateways.gateway.networking.k8s.io").await {
        Ok(found) => gateway_api(found.as_ref()),
        Err(error) => Finding::unseen("gateway-api", "the CRDs of the Gateway API", &error),
    };
    let mut missing = Vec::new();
    for name in ISTIO {
        match crds.get_opt(name).await {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(name),
            Err(error) => return vec![gateway_api, Finding::unseen("istio-crds", "Istio's CRDs", &error)],
        }
    }
    vec![gateway_api, istio(&missing)]
}

fn gateway_api(crd: Option<&CustomResourceDefinition>) -> Finding {
    let advice = format!("kubectl apply --server-side -f {RELEASE}");
    let Some(crd) = crd else {
        return Finding::warn(
            "gateway-api",
            "the Gateway API is not installed: no Gateways and routes",
            advice,
        );
    };
    let annotations = crd.metadata.annotations.clone().unwrap_or_default();
    let bundle = annotations.get(BUNDLE).map_or("unknown", String::as_str);
    let channel = annotations.get(CHANNEL).map_or("unknown", String::as_str);
    let serves_v1 = crd.spec.versions.iter().any(|version| version.served && version.name == "v1");
    let text = format!("the Gateway API is of release {bundle} ({channel} channel)");
    match release(bundle) {
        _ if !serves_v1 => {
            Finding::fail("gateway-api", format!("{text}, too old: its Gateway has no version v1"), advice)
        }
        Some(release) if release < OLDEST => {
            let needed = format!("{}.{}", OLDEST.0, OLDEST.1);
            Finding::warn(
                "gateway-api",
                format!("{text}, older than {needed}: GRPCRoutes are not read"),
                advice,
            )
        }
        _ => Finding::ok("gateway-api", text),
    }
}

/// `v1.6.3` as (1, 6).
fn release(bundle: &str) -> Option<(u32, u32)> {
    let mut numbers = bundle.trim_start_matches('v').split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Those without which something that people expect is missing.
const ISTIO: [&str; 4] = [
    "virtualservices.networking.istio.io",
    "destinationrules.networking.istio.io",
    "authorizationpolicies.security.istio.io",
    "peerauthentications.security.istio.io",
];

fn istio(missing: &[&str]) -> Finding {
    if missing.is_empty() {
        return Finding::ok("istio-crds", "Istio's CRDs are installed");
    }
    Finding::warn(
        "istio-crds",
        format!("CRDs of Istio are not installed: {}", missing.join(", ")),
        "install them (Istio's chart `base` has them) for policies such as STRICT, or do without",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::Level;

    fn crd(bundle: &str, version: &str) -> CustomResourceDefinition {
        serde_json::from_value(json!({
            "metadata": {"annotations": {BUNDLE: bundle, CHANNEL: "standard"}},
            "spec": {
                "group": "", "names": {"kind": "Gateway", "plural": "gateways"}, "scope": "Namespaced",
                "versions": [{"name": version, "served": true, "storage": true}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_gateway_api_is_there_too_old_or_absent() {
        assert_eq!(gateway_api(Some(&crd("v1.6.3", "v1"))).level, Level::Ok);
        assert_eq!(gateway_api(Some(&crd("v1.0.0", "v1"))).level, Level::Warn);
        assert_eq!(gateway_api(Some(&crd("v0.8.0", "v1beta1"))).level, Level::Fail);
        let absent = gateway_api(None);
        assert!(absent.level == Level::Warn && absent.to_string().contains("kubectl apply"), "{absent}");
    }

    #[test]
    fn crds_of_istio_that_are_missing_are_named() {
        assert_eq!(istio(&[]).level, Level::Ok);
        assert!(istio(&ISTIO[3..]).text.contains("peerauthentications"));
    }
}
