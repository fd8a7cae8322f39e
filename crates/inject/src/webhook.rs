//! Which pods the webhooks must be called for, so that [`crate::decide`] is asked about each that may be injected.
//!
//! Invariants: system namespaces and the control plane's own are never selected, whatever their labels, so that nothing the
//! control plane needs can depend on it; a pod that no webhook selects is one that `decide` leaves alone. The Helm chart says
//! the same in its own words, and a test compares them.

use serde::Serialize;

use crate::{
    Expression, InjectionConfig, LabelSelector, Operator,
    contract::{INJECT, REVISION, SYSTEM_NAMESPACES},
};

/// One webhook of the configuration: a name and whom it selects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// The namespaces.
    pub namespace_selector: LabelSelector,
    /// The pods.
    pub object_selector: LabelSelector,
}

/// The two labels by which a mesh's namespaces and pods are enrolled.
struct Family {
    prefix: &'static str,
    namespace: &'static str,
    /// Values of a namespace's label that enrol it.
    enabled: &'static [&'static str],
    pod: &'static str,
    revision: &'static str,
}

const LENO: Family =
    Family { prefix: "", namespace: INJECT, enabled: &["enabled", "true"], pod: INJECT, revision: REVISION };
const ISTIO: Family = Family {
    prefix: "istio.",
    namespace: "istio-injection",
    enabled: &["enabled"],
    pod: "sidecar.istio.io/inject",
    revision: "istio.io/rev",
};

/// The webhooks of a control plane.
#[must_use]
pub fn webhooks(config: &InjectionConfig) -> Vec<Webhook> {
    let mut webhooks = of_family(config, &LENO, &[]);
    if config.istio_labels {
        let hidden = [absent(INJECT), absent(REVISION)];
        webhooks.extend(of_family(config, &ISTIO, &hidden));
    }
    webhooks
}

fn of_family(config: &InjectionConfig, family: &Family, hidden: &[Expression]) -> Vec<Webhook> {
    let revisions: Vec<&str> = config.revisions().collect();
    let Family { prefix, namespace, enabled, pod, revision } = *family;
    let webhook = |kind: &str, namespaces: Vec<Expression>, pods: Vec<Expression>| Webhook {
        name: format!("{prefix}{kind}.sidecar-injector.leno.dev"),
        namespace_selector: selector([allowed(config)].into_iter().chain(hidden.to_vec()).chain(namespaces)),
        object_selector: selector(willing().into_iter().chain(pods)),
    };
    let silent = || {
        let mut silent = vec![absent(namespace), absent(revision)];
        if config.istio_labels && hidden.is_empty() {
            silent.extend([absent(ISTIO.namespace), absent(ISTIO.revision)]);
        }
        silent
    };
    let named = || Expression::new(revision, Operator::In, &revisions);
    let mut webhooks = vec![
        webhook("rev.namespace", vec![absent(namespace), named()], vec![]),
        webhook("rev.object", silent(), vec![named()]),
    ];
    if config.is_default() {
        let enabled = Expression::new(namespace, Operator::In, enabled);
        webhooks.push(webhook("namespace", vec![enabled], vec![]));
        let asking = Expression::new(pod, Operator::In, &["enabled", "true"]);
        webhooks.push(webhook("object", silent(), vec![absent(revision), asking]));
    }
    webhooks
}

/// Every namespace but those that must not depend on the control plane.
fn allowed(config: &InjectionConfig) -> Expression {
    let mut names = SYSTEM_NAMESPACES.to_vec();
    names.push(&config.system_namespace);
    Expression::new("kubernetes.io/metadata.name", Operator::NotIn, &names)
}

/// Pods that do not refuse by a label.
fn willing() -> [Expression; 2] {
    [INJECT, ISTIO.pod].map(|key| Expression::new(key, Operator::NotIn, &["disabled", "false"]))
}

fn absent(key: &str) -> Expression {
    Expression::new(key, Operator::DoesNotExist, &[])
}

fn selector(expressions: impl IntoIterator<Item = Expression>) -> LabelSelector {
    LabelSelector { match_expressions: expressions.into_iter().collect(), ..LabelSelector::default() }
}
