//! The injector: its configuration, its bundle, and whether a pod that is only tried gets a proxy.

use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Pod},
};
use kube::{Api, api::PostParams};
use leno_inject::{Decision, decide, is_injected};
use serde_json::json;
use x509_parser::pem::Pem;

use super::{Finding, Look};

/// Sooner than this the authority should have been renewed.
const SOON: i64 = 14 * 24 * 3600;

pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    let name = &look.names.webhook;
    let api: Api<MutatingWebhookConfiguration> = Api::all(look.client.clone());
    let found = match api.get_opt(name).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let text = format!("MutatingWebhookConfiguration {name} is not there: no pod gets a proxy");
            return vec![Finding::fail("webhook", text, "run `leno install` again")];
        }
        Err(error) => return vec![Finding::unseen("webhook", "the webhook", &error)],
    };
    let bundles = found.webhooks.iter().flatten().map(|hook| hook.client_config.ca_bundle.as_ref());
    let bundles: Vec<&[u8]> = bundles.map(|bundle| bundle.map_or(&[][..], |bytes| &bytes.0)).collect();
    let mut findings = vec![bundle(name, &bundles, look.now)];
    findings.push(tried(look).await);
    findings
}

/// The roots by which the API server verifies the webhook.
fn bundle(name: &str, bundles: &[&[u8]], now: i64) -> Finding {
    let wait = "wait a moment, then look at the log of the control plane's leader";
    if bundles.is_empty() || bundles.iter().any(|bundle| bundle.is_empty()) {
        return Finding::fail("webhook", format!("{name} has no caBundle: pods are refused"), wait);
    }
    let mut ends = i64::MAX;
    for pem in bundles.iter().flat_map(|bundle| Pem::iter_from_buffer(bundle)) {
        let Some(validity) = pem.ok().and_then(|pem| {
            let certificate = pem.parse_x509().ok()?;
            Some((
                certificate.validity().not_before.timestamp(),
                certificate.validity().not_after.timestamp(),
            ))
        }) else {
            return Finding::fail(
                "webhook",
                format!("{name}'s caBundle holds something that is no certificate"),
                wait,
            );
        };
        if validity.0 > now {
            let text = format!("{name}'s certificate is not valid for another {} s", validity.0 - now);
            return Finding::fail("webhook", text, "compare the clocks of this machine and of the cluster");
        }
        ends = ends.min(validity.1);
    }
    let days = (ends - now) / (24 * 3600);
    if ends == i64::MAX {
        Finding::fail("webhook", format!("{name}'s caBundle holds no certificate"), wait)
    } else if ends <= now {
        Finding::fail(
            "webhook",
            format!("{name}'s certificate has expired"),
            "renew the authority (Secret cacerts or leno-ca)",
        )
    } else if ends - now < SOON {
        Finding::warn(
            "webhook",
            format!("{name}'s certificate ends in {days} days"),
            "renew the authority (Secret cacerts or leno-ca)",
        )
    } else {
        Finding::ok("webhook", format!("{name} is there; its certificate is valid for {days} days"))
    }
}

/// Has a pod created that is not created: the API server asks the webhook as it does for every pod.
async fn tried(look: &Look<'_>) -> Finding {
    let mut labels = json!({"leno.dev/inject": "enabled"});
    if look.values.revision != "default" {
        labels = json!({"leno.dev/rev": look.values.revision});
    }
    let pod = json!({
        "metadata": {"name": "leno-check", "labels": labels},
        "spec": {"automountServiceAccountToken": false, "containers": [{
            "name": "nothing", "image": "leno-check",
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
        }]},
    });
    let namespaces: Api<Namespace> = Api::all(look.client.clone());
    let namespace = match namespaces.get("default").await {
        Ok(namespace) => leno_inject::Namespace::of(&json!(namespace)),
        Err(error) => return Finding::unseen("injection", "the namespace default", &error),
    };
    if let Decision::Leave(reason) = decide(&look.values.injection(), &namespace, &pod) {
        let text = format!("the webhook cannot be tried in the namespace default: {reason}");
        return Finding::warn(
            "injection",
            text,
            "create a pod in an enrolled namespace and see whether it has a proxy",
        );
    }
    let Ok(pod) = serde_json::from_value::<Pod>(pod) else {
        return Finding::warn("injection", "a pod cannot be tried", "report this");
    };
    let pods: Api<Pod> = Api::namespaced(look.client.clone(), "default");
    match pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await {
        Ok(made) if is_injected(&json!(made)) => {
            Finding::ok("injection", "the webhook answers: a pod that was tried has a proxy")
        }
        Ok(_) => Finding::fail(
            "injection",
            "a pod that asks for a proxy was tried in the namespace default and has none",
            "compare the webhook's selectors with `leno install --dry-run`, and the labels of the namespace",
        ),
        Err(kube::Error::Api(status)) if status.message.contains("failed calling webhook") => Finding::fail(
            "injection",
            format!("the API server cannot call the webhook: {}", status.message),
            "see that its pods are ready and that nodes may reach port 15017 of them (security groups, network policies)",
        ),
        Err(error) => {
            Finding::unseen("injection", "a pod that is only tried in the namespace default", &error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_bundle_that_is_missing_or_no_certificate_fails() {
        assert_eq!(bundle("w", &[], 0).level, Level::Fail);
        assert_eq!(bundle("w", &[b"", b""], 0).level, Level::Fail);
        assert_eq!(bundle("w", &[b"rubbish"], 0).level, Level::Fail);
    }

    #[test]
    fn a_bundle_is_judged_by_the_time_that_it_has_left() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let level = |now: i64| bundle("w", &[pem.as_bytes()], now).level;
        let (begin, end) = (1_767_225_600, 1_798_761_600);
        assert_eq!(level(begin - 1), Level::Fail);
        assert_eq!(level(begin + 1), Level::Ok);
        assert_eq!(level(end - 24 * 3600), Level::Warn);
        assert_eq!(level(end), Level::Fail);
    }
}
