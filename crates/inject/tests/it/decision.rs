//! Who gets a proxy, and why.

use leno_inject::{
    Decision, InjectionConfig, LabelSelector, Namespace, Policy, Reason, decide, inject, webhook::webhooks,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{enrolled, injected, namespace, pairs, pod};

fn of_istio() -> InjectionConfig {
    InjectionConfig { istio_labels: true, ..InjectionConfig::default() }
}

fn canary() -> InjectionConfig {
    InjectionConfig { revision: "canary".to_owned(), tags: vec!["prod".to_owned()], ..of_istio() }
}

#[track_caller]
fn left(config: &InjectionConfig, namespace: &Namespace, pod: &Value, reason: &Reason) {
    assert_eq!(decide(config, namespace, pod), Decision::Leave(reason.clone()));
}

#[track_caller]
fn taken(config: &InjectionConfig, namespace: &Namespace, pod: &Value, reason: &Reason) {
    assert_eq!(decide(config, namespace, pod), Decision::Inject(reason.clone()));
}

#[test]
fn a_namespace_enrols_by_either_of_lenos_labels() {
    let config = InjectionConfig::default();
    taken(&config, &enrolled(), &pod("", &[]), &Reason::NamespaceEnrolled("leno.dev/inject"));
    let rev = namespace("leno.dev/rev=default");
    taken(&config, &rev, &pod("", &[]), &Reason::NamespaceEnrolled("leno.dev/rev"));
    let yes = namespace("leno.dev/inject=true");
    taken(&config, &yes, &pod("", &[]), &Reason::NamespaceEnrolled("leno.dev/inject"));
    let no = namespace("leno.dev/inject=false");
    left(&config, &no, &pod("", &[]), &Reason::NamespaceSaysNo("leno.dev/inject"));
    left(&config, &namespace(""), &pod("", &[]), &Reason::NotEnrolled);
    left(
        &config,
        &namespace("leno.dev/inject=disabled leno.dev/rev=default"),
        &pod("", &[]),
        &Reason::NamespaceSaysNo("leno.dev/inject"),
    );
    left(
        &config,
        &namespace("leno.dev/inject=yes"),
        &pod("", &[]),
        &Reason::NamespaceUnclear("leno.dev/inject", "yes".to_owned()),
    );
}

#[test]
fn istios_labels_enrol_only_where_the_installation_says_so_and_istio_injection_wins() {
    for labels in ["istio-injection=enabled", "istio.io/rev=default"] {
        left(&InjectionConfig::default(), &namespace(labels), &pod("", &[]), &Reason::NotEnrolled);
    }
    let both = namespace("istio-injection=enabled istio.io/rev=other");
    taken(&of_istio(), &both, &pod("", &[]), &Reason::NamespaceEnrolled("istio-injection"));
    let unclear = Reason::NamespaceUnclear("istio-injection", "true".to_owned());
    left(&of_istio(), &namespace("istio-injection=true"), &pod("", &[]), &unclear);
    let rev = namespace("istio.io/rev=default");
    taken(&of_istio(), &rev, &pod("", &[]), &Reason::NamespaceEnrolled("istio.io/rev"));
    let hidden = namespace("istio-injection=enabled leno.dev/inject=disabled");
    left(&of_istio(), &hidden, &pod("", &[]), &Reason::NamespaceSaysNo("leno.dev/inject"));
}

#[test]
fn each_revision_serves_its_own_namespaces_and_tags() {
    let other = |revision: &str| Reason::OtherRevision(revision.to_owned());
    left(&canary(), &enrolled(), &pod("", &[]), &other("default"));
    left(&InjectionConfig::default(), &namespace("leno.dev/rev=canary"), &pod("", &[]), &other("canary"));
    for rev in ["canary", "prod"] {
        let namespace = namespace(&format!("leno.dev/rev={rev}"));
        taken(&canary(), &namespace, &pod("", &[]), &Reason::NamespaceEnrolled("leno.dev/rev"));
    }
    taken(&canary(), &namespace(""), &pod("leno.dev/rev=prod", &[]), &Reason::PodSaysYes("leno.dev/rev"));
    left(&canary(), &namespace(""), &pod("leno.dev/inject=enabled", &[]), &other("default"));
}

#[test]
fn what_can_never_be_injected_is_left_whatever_it_asks_for() {
    let config = InjectionConfig::default();
    let asking = || pod("leno.dev/inject=enabled", &[]);
    let mut host = asking();
    host["spec"]["hostNetwork"] = json!(true);
    left(&config, &enrolled(), &host, &Reason::HostNetwork);
    let mut windows = asking();
    windows["spec"]["os"] = json!({"name": "windows"});
    left(&config, &enrolled(), &windows, &Reason::NotLinux);
    let mirror = pod("", &[("kubernetes.io/config.mirror", "x")]);
    left(&config, &enrolled(), &mirror, &Reason::MirrorPod);
    for name in ["kube-system", "kube-public", "kube-node-lease", "local-path-storage", "leno-system"] {
        let system = Namespace { name: name.to_owned(), ..enrolled() };
        left(&config, &system, &asking(), &Reason::SystemNamespace(name.to_owned()));
    }
}

#[test]
fn a_pods_label_beats_its_annotation_and_no_beats_yes() {
    let config = InjectionConfig::default();
    let (ours, istios) = ("leno.dev/inject", "sidecar.istio.io/inject");
    let said_no = |pod: Value, key: &'static str| left(&config, &enrolled(), &pod, &Reason::PodSaysNo(key));
    said_no(pod("sidecar.istio.io/inject=false", &[(istios, "true")]), istios);
    said_no(pod("", &[(istios, "false")]), istios);
    said_no(pod("", &[(ours, "disabled"), (istios, "true")]), ours);
    said_no(pod("leno.dev/inject=enabled sidecar.istio.io/inject=false", &[]), istios);
    let pod = pod("sidecar.istio.io/inject=true", &[(istios, "false")]);
    taken(&config, &enrolled(), &pod, &Reason::PodSaysYes(istios));
}

#[test]
fn a_value_that_means_nothing_changes_nothing_and_is_reported() {
    let injected = injected(&pod("sidecar.istio.io/inject=maybe", &[]));
    assert_eq!(injected.reason, Reason::NamespaceEnrolled("leno.dev/inject"));
    assert_eq!(
        injected.warnings,
        ["label: `maybe` of sidecar.istio.io/inject means nothing; `true` or `false` do"]
    );
}

#[test]
fn a_pod_enrols_itself_by_a_label_and_cannot_by_an_annotation() {
    let config = InjectionConfig::default();
    let silent = namespace("");
    taken(&config, &silent, &pod("leno.dev/inject=enabled", &[]), &Reason::PodSaysYes("leno.dev/inject"));
    left(&config, &silent, &pod("", &[("leno.dev/inject", "enabled")]), &Reason::AnnotationCannotEnrol);
    left(&config, &silent, &pod("sidecar.istio.io/inject=true", &[]), &Reason::NotEnrolled);
    let pod = pod("sidecar.istio.io/inject=true", &[]);
    taken(&of_istio(), &silent, &pod, &Reason::PodSaysYes("sidecar.istio.io/inject"));
}

#[test]
fn selectors_decide_for_pods_that_do_not_then_the_policy() {
    let batch = LabelSelector { match_labels: pairs("tier=batch").collect(), ..LabelSelector::default() };
    let web = LabelSelector { match_labels: pairs("tier=web").collect(), ..LabelSelector::default() };
    let config = InjectionConfig {
        policy: Policy::Disabled,
        never_inject: vec![batch],
        always_inject: vec![web],
        ..InjectionConfig::default()
    };
    left(&config, &enrolled(), &pod("tier=batch", &[]), &Reason::NeverSelected);
    let asking = pod("tier=batch", &[("leno.dev/inject", "enabled")]);
    taken(&config, &enrolled(), &asking, &Reason::PodSaysYes("leno.dev/inject"));
    taken(&config, &enrolled(), &pod("tier=web", &[]), &Reason::AlwaysSelected);
    left(&config, &enrolled(), &pod("tier=other", &[]), &Reason::PolicyDisabled);
}

#[test]
fn an_injected_pod_is_not_injected_again_by_us_or_beside_another_mesh() {
    let config = InjectionConfig::default();
    let once = injected(&pod("", &[])).pod;
    left(&config, &enrolled(), &once, &Reason::HasProxy);
    assert!(leno_inject::is_injected(&once));
    let mut istios = pod("", &[("sidecar.istio.io/status", "{}")]);
    istios["spec"]["initContainers"] = json!([{"name": "istio-proxy", "image": "istio/proxyv2:1.30.0"}]);
    left(&config, &enrolled(), &istios, &Reason::HasOtherProxy);
    let copied = pod("", &[("sidecar.istio.io/status", "{}")]);
    taken(&config, &enrolled(), &copied, &Reason::NamespaceEnrolled("leno.dev/inject"));
}

fn labels(of: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = String> {
    let choices: Vec<_> = of
        .iter()
        .map(|(key, values)| {
            let values: Vec<_> =
                values.iter().map(|value| format!("{key}={value}")).chain([String::new()]).collect();
            prop::sample::select(values)
        })
        .collect();
    choices.prop_map(|pairs| pairs.join(" "))
}

proptest! {
    /// What is never asked about cannot be injected, so `leno inject` and `leno check` must not say that it would be.
    #[test]
    fn what_would_be_injected_is_selected_by_a_webhook(
        in_namespace in labels(&[
            ("leno.dev/inject", &["enabled", "true", "disabled", "false", "odd"]), ("leno.dev/rev", &["default", "canary", "prod", "old"]),
            ("istio-injection", &["enabled", "true", "disabled", "odd"]), ("istio.io/rev", &["default", "canary", "prod", "old"]),
        ]),
        on_pod in labels(&[
            ("leno.dev/inject", &["enabled", "true", "disabled", "odd"]), ("leno.dev/rev", &["default", "canary", "old"]),
            ("sidecar.istio.io/inject", &["true", "false", "odd"]), ("istio.io/rev", &["default", "prod", "old"]),
        ]),
        name in prop::sample::select(vec!["shop", "kube-system", "leno-system"]),
        is_canary: bool, istio_labels: bool, annotated: bool,
    ) {
        let config = if is_canary { canary() } else { of_istio() };
        let config = InjectionConfig { istio_labels, ..config };
        let mut namespace = Namespace { name: name.to_owned(), ..namespace(&in_namespace) };
        let annotations: &[_] = if annotated { &[("leno.dev/inject", "enabled")] } else { &[] };
        let pod = pod(&on_pod, annotations);
        let decision = decide(&config, &namespace, &pod);
        namespace.labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        let labels = pairs(&on_pod).collect();
        let selected = webhooks(&config).iter().any(|webhook| {
            webhook.namespace_selector.selects(&namespace.labels) && webhook.object_selector.selects(&labels)
        });
        if matches!(decision, Decision::Inject(_)) {
            prop_assert!(selected, "{decision:?} but no webhook is called");
        }
        if name != "shop" {
            prop_assert!(!selected, "system namespaces must not depend on the webhook");
        }
        prop_assert!(inject(&config, &namespace, &pod, "web").is_ok());
    }
}
