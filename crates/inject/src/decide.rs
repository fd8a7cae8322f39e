//! Whether a pod gets a proxy, and why.
//!
//! The order: what can never be (host network, system namespaces, pods that have a proxy), the namespace, the pod's labels, its
//! annotations, the selectors of the configuration, the policy. Leno's labels of a namespace hide Istio's. Within one kind of
//! place, "no" wins over "yes".
//!
//! Invariant: says `Inject` only for pods that a webhook of [`crate::webhook`] selects, so that the answer offline and the
//! answer of the cluster are the same.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    InjectionConfig, Namespace, Policy,
    contract::{INJECT, PROXY_CONTAINER, REVISION, STATUS_ANNOTATION, SYSTEM_NAMESPACES},
    json,
};

const ISTIO_POD: &str = "sidecar.istio.io/inject";
const ISTIO_NAMESPACE: &str = "istio-injection";
const ISTIO_REVISION: &str = "istio.io/rev";

/// Whether a pod gets a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It gets one.
    Inject(Reason),
    /// It stays as it is.
    Leave(Reason),
}

impl Decision {
    /// Why.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        let (Self::Inject(reason) | Self::Leave(reason)) = self;
        reason
    }
}

/// Why a pod gets a proxy, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is in the node's network namespace.
    HostNetwork,
    /// It mirrors a static pod, which the API server cannot change.
    MirrorPod,
    /// It does not run on Linux.
    NotLinux,
    /// Its namespace is a system namespace.
    SystemNamespace(String),
    /// It has Leno's proxy.
    HasProxy,
    /// It has the proxy of another mesh.
    HasOtherProxy,
    /// A label of the namespace says no.
    NamespaceSaysNo(&'static str),
    /// A label of the namespace has a value that means nothing.
    NamespaceUnclear(&'static str, String),
    /// The namespace or the pod is of another revision.
    OtherRevision(String),
    /// A label or annotation of the pod says no.
    PodSaysNo(&'static str),
    /// `neverInject` selects it.
    NeverSelected,
    /// Under `policy: disabled` it neither asks for a proxy nor is selected.
    PolicyDisabled,
    /// Neither the namespace nor a label of the pod enrols it.
    NotEnrolled,
    /// Only an annotation asks for a proxy, and annotations select no webhook.
    AnnotationCannotEnrol,
    /// A label or annotation of the pod asks for it.
    PodSaysYes(&'static str),
    /// `alwaysInject` selects it.
    AlwaysSelected,
    /// The namespace is enrolled by this label.
    NamespaceEnrolled(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostNetwork => f.write_str("it uses the node's network (hostNetwork)"),
            Self::MirrorPod => f.write_str("it is the mirror of a static pod"),
            Self::NotLinux => f.write_str("it does not run on Linux"),
            Self::SystemNamespace(name) => write!(f, "{name} is a system namespace"),
            Self::HasProxy => f.write_str("it has its proxy"),
            Self::HasOtherProxy => f.write_str("it has the proxy of another mesh"),
            Self::NamespaceSaysNo(label) => write!(f, "the namespace's label {label} says no"),
            Self::NamespaceUnclear(label, value) => {
                write!(
                    f,
                    "`{value}` of the namespace's label {label} means nothing; `enabled` or `disabled` do"
                )
            }
            Self::OtherRevision(revision) => write!(f, "it is for revision {revision}"),
            Self::PodSaysNo(key) => write!(f, "the pod's {key} says no"),
            Self::NeverSelected => f.write_str("neverInject selects it"),
            Self::PolicyDisabled => f.write_str("the policy is `disabled` and it does not ask for a proxy"),
            Self::NotEnrolled => f.write_str("neither its namespace nor a label of its own enrols it"),
            Self::AnnotationCannotEnrol => f.write_str(
                "its namespace is not enrolled, and only an annotation asks for a proxy; make it a label",
            ),
            Self::PodSaysYes(key) => write!(f, "the pod's {key} asks for it"),
            Self::AlwaysSelected => f.write_str("alwaysInject selects it"),
            Self::NamespaceEnrolled(label) => write!(f, "the namespace's label {label} enrols it"),
        }
    }
}

/// What a namespace's labels say.
enum Enrolment {
    Yes(&'static str),
    No(Reason),
    Silent,
}

/// Decides whether a pod (or a pod template) gets a proxy.
#[must_use]
pub fn decide(config: &InjectionConfig, namespace: &Namespace, pod: &Value) -> Decision {
    if let Some(reason) = impossible(config, namespace, pod) {
        return Decision::Leave(reason);
    }
    let labels = json::strings(&pod["metadata"]["labels"]);
    let annotations = json::strings(&pod["metadata"]["annotations"]);
    let by_label = wish(&labels);
    if let Some((key, false)) = by_label {
        return Decision::Leave(Reason::PodSaysNo(key));
    }
    let by_annotation = wish(&annotations);
    let enrolled = match namespace_says(config, &namespace.labels) {
        Enrolment::No(reason) => return Decision::Leave(reason),
        Enrolment::Yes(label) => Reason::NamespaceEnrolled(label),
        Enrolment::Silent => match pod_enrols(config, &labels) {
            Ok(key) => return Decision::Inject(Reason::PodSaysYes(key)),
            Err(Reason::NotEnrolled) if matches!(by_annotation, Some((_, true))) => {
                return Decision::Leave(Reason::AnnotationCannotEnrol);
            }
            Err(reason) => return Decision::Leave(reason),
        },
    };
    match by_label.or(by_annotation) {
        Some((key, true)) => Decision::Inject(Reason::PodSaysYes(key)),
        Some((key, false)) => Decision::Leave(Reason::PodSaysNo(key)),
        None => by_policy(config, &labels, enrolled),
    }
}

/// Whether a namespace's labels enrol its pods with this control plane.
#[must_use]
pub fn enrols(config: &InjectionConfig, namespace: &Namespace) -> bool {
    matches!(namespace_says(config, &namespace.labels), Enrolment::Yes(_))
}

/// Whether a pod has a proxy of any mesh.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(STATUS_ANNOTATION).is_some()
        && ["initContainers", "containers"]
            .iter()
            .flat_map(|list| json::items(&pod["spec"][*list]))
            .any(|container| container["name"] == PROXY_CONTAINER)
}

fn impossible(config: &InjectionConfig, namespace: &Namespace, pod: &Value) -> Option<Reason> {
    let spec = &pod["spec"];
    let annotations = &pod["metadata"]["annotations"];
    if spec["hostNetwork"] == true {
        return Some(Reason::HostNetwork);
    }
    if annotations.get("kubernetes.io/config.mirror").is_some() {
        return Some(Reason::MirrorPod);
    }
    if spec["os"]["name"] == "windows" || spec["nodeSelector"]["kubernetes.io/os"] == "windows" {
        return Some(Reason::NotLinux);
    }
    if namespace.name == config.system_namespace || SYSTEM_NAMESPACES.contains(&namespace.name.as_str()) {
        return Some(Reason::SystemNamespace(namespace.name.clone()));
    }
    if is_injected(pod) {
        let ours = annotations.get(REVISION).is_some();
        return Some(if ours { Reason::HasProxy } else { Reason::HasOtherProxy });
    }
    None
}

fn namespace_says(config: &InjectionConfig, labels: &BTreeMap<String, String>) -> Enrolment {
    let enrolment = family_says(config, labels, INJECT, REVISION);
    if matches!(enrolment, Enrolment::Silent) && config.istio_labels {
        return family_says(config, labels, ISTIO_NAMESPACE, ISTIO_REVISION);
    }
    enrolment
}

/// One mesh's pair of labels; the switch wins over the revision.
fn family_says(
    config: &InjectionConfig,
    labels: &BTreeMap<String, String>,
    switch: &'static str,
    revision: &'static str,
) -> Enrolment {
    // Istio knows `enabled` and `disabled` only, of namespaces.
    let says =
        |value: &str, word: &str, also: fn(&str) -> bool| value == word || switch == INJECT && also(value);
    match (labels.get(switch).map(String::as_str), labels.get(revision)) {
        (Some(value), _) if says(value, "enabled", yes) && config.is_default() => Enrolment::Yes(switch),
        (Some(value), _) if says(value, "enabled", yes) => {
            Enrolment::No(Reason::OtherRevision("default".to_owned()))
        }
        (Some(value), _) if says(value, "disabled", no) => Enrolment::No(Reason::NamespaceSaysNo(switch)),
        (Some(other), _) => Enrolment::No(Reason::NamespaceUnclear(switch, other.to_owned())),
        (None, Some(asked)) if config.serves(asked) => Enrolment::Yes(revision),
        (None, Some(asked)) => Enrolment::No(Reason::OtherRevision(asked.clone())),
        (None, None) => Enrolment::Silent,
    }
}

/// Whether a pod's labels enrol it in a namespace that says nothing.
fn pod_enrols(config: &InjectionConfig, labels: &BTreeMap<String, String>) -> Result<&'static str, Reason> {
    let families = [(INJECT, REVISION, true), (ISTIO_POD, ISTIO_REVISION, config.istio_labels)];
    for (switch, revision, _) in families.into_iter().filter(|(_, _, honoured)| *honoured) {
        match labels.get(revision) {
            Some(asked) if config.serves(asked) => return Ok(revision),
            Some(asked) => return Err(Reason::OtherRevision(asked.clone())),
            None if labels.get(switch).is_none_or(|value| !yes(value)) => {}
            None if config.is_default() => return Ok(switch),
            None => return Err(Reason::OtherRevision("default".to_owned())),
        }
    }
    Err(Reason::NotEnrolled)
}

fn by_policy(config: &InjectionConfig, labels: &BTreeMap<String, String>, enrolled: Reason) -> Decision {
    if config.never_inject.iter().any(|selector| selector.selects(labels)) {
        return Decision::Leave(Reason::NeverSelected);
    }
    if config.always_inject.iter().any(|selector| selector.selects(labels)) {
        return Decision::Inject(Reason::AlwaysSelected);
    }
    match config.policy {
        Policy::Enabled => Decision::Inject(enrolled),
        Policy::Disabled => Decision::Leave(Reason::PolicyDisabled),
    }
}

/// What a pod's labels, or its annotations, ask for. Any other value asks for nothing.
fn wish(values: &BTreeMap<String, String>) -> Option<(&'static str, bool)> {
    let said = |key: &'static str| values.get(key).map(|value| (key, value.as_str()));
    let both = || [said(INJECT), said(ISTIO_POD)].into_iter().flatten();
    let no = both().find(|(_, value)| no(value)).map(|(key, _)| (key, false));
    no.or_else(|| both().find(|(_, value)| yes(value)).map(|(key, _)| (key, true)))
}

/// Keys of a pod's labels or annotations whose value asks for nothing, with it.
pub(crate) fn unclear(values: &BTreeMap<String, String>) -> Vec<String> {
    let unclear = |key: &&str| values.get(*key).is_some_and(|value| !yes(value) && !no(value));
    let keys = [INJECT, ISTIO_POD].into_iter().filter(unclear);
    keys.map(|key| format!("`{}` of {key} means nothing; `true` or `false` do", values[key])).collect()
}

fn yes(value: &str) -> bool {
    matches!(value, "true" | "enabled")
}

fn no(value: &str) -> bool {
    matches!(value, "false" | "disabled")
}
