//! What the objects look like.

use leno_install::objects;
use serde_json::{Value, json};

use crate::{default_objects, files, one, values_of};

fn index(objects: &[Value], kind: &str) -> usize {
    objects.iter().position(|object| object["kind"] == kind).unwrap()
}

#[test]
fn what_is_needed_comes_first_and_the_webhook_last() {
    let objects = default_objects();
    let order =
        ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "Deployment"];
    assert!(order.is_sorted_by_key(|kind| index(&objects, kind)));
    assert_eq!(index(&objects, "MutatingWebhookConfiguration"), objects.len() - 1);
}

#[test]
fn the_webhook_can_never_stop_what_the_control_plane_needs() {
    for file in files() {
        let values = values_of(file.as_ref(), &[]);
        let objects = objects(&values);
        let webhooks = one(&objects, "MutatingWebhookConfiguration")["webhooks"].as_array().unwrap().clone();
        assert!(webhooks.len() >= 2);
        for webhook in webhooks {
            let excluded = &webhook["namespaceSelector"]["matchExpressions"][0];
            assert_eq!(
                (&excluded["key"], &excluded["operator"]),
                (&json!("kubernetes.io/metadata.name"), &json!("NotIn"))
            );
            for namespace in ["kube-system", "kube-public", "kube-node-lease", &values.namespace] {
                assert!(excluded["values"].as_array().unwrap().contains(&json!(namespace)), "{webhook}");
            }
            assert_eq!(webhook["failurePolicy"], "Fail");
            assert_eq!(webhook["sideEffects"], "None");
            assert!(webhook["clientConfig"].get("caBundle").is_none());
            assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
        }
    }
}

#[test]
fn the_control_plane_meets_the_restricted_level_and_is_never_injected() {
    let objects = default_objects();
    let template = &one(&objects, "Deployment")["spec"]["template"];
    let pod = &template["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert!(container[probe].is_object(), "{probe}");
        }
        assert!(container["resources"]["requests"]["cpu"].is_string());
    }
    assert_eq!(template["metadata"]["labels"]["leno.dev/inject"], "disabled");
    assert_eq!(one(&objects, "Namespace")["metadata"]["labels"]["leno.dev/inject"], "disabled");
}

#[test]
fn two_replicas_stay_apart_and_one_of_them_stays() {
    let objects = default_objects();
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert!(deployment["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"].is_object());
    assert_eq!(one(&objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
}

#[test]
fn selectors_select_the_pods() {
    for file in files() {
        let objects = objects(&values_of(file.as_ref(), &[]));
        let pods: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "Deployment")
            .map(|deployment| &deployment["spec"]["template"]["metadata"]["labels"])
            .collect();
        let selectors = objects.iter().filter_map(|object| match object["kind"].as_str().unwrap() {
            "Service" => Some(&object["spec"]["selector"]),
            "Deployment" | "PodDisruptionBudget" => Some(&object["spec"]["selector"]["matchLabels"]),
            _ => None,
        });
        for selector in selectors {
            let selected = pods.iter().filter(|labels| {
                selector.as_object().unwrap().iter().all(|(key, value)| labels[key] == *value)
            });
            assert_eq!(selected.count(), 1, "{selector}");
        }
    }
}

#[test]
fn two_revisions_share_no_object_but_the_namespace() {
    let names = |set: &[&str]| {
        let objects = objects(&values_of(None, set));
        objects
            .iter()
            .map(|object| (object["kind"].to_string(), object["metadata"]["name"].to_string()))
            .collect::<Vec<_>>()
    };
    let (first, second) = (names(&[]), names(&["revision=canary"]));
    let shared: Vec<_> = first.iter().filter(|name| second.contains(name)).collect();
    assert_eq!(shared.len(), 1, "{shared:?}");
    assert_eq!(shared[0].0, "\"Namespace\"");
    let bare = names(&["revision=canary", "createNamespace=false"]);
    assert!(!first.iter().any(|name| bare.contains(name)));
}

#[test]
fn the_configuration_is_what_the_injector_reads() {
    for file in files() {
        let values = values_of(file.as_ref(), &[]);
        let objects = objects(&values);
        let text = one(&objects, "ConfigMap")["data"]["config.json"].as_str().unwrap();
        let config: Value = serde_json::from_str(text).unwrap();
        let injection: leno_inject::InjectionConfig =
            serde_json::from_value(config["injection"].clone()).unwrap();
        assert_eq!(injection, values.injection());
    }
}

/// The containers, volumes and namespaces of the agent, with these values on top.
fn agent(set: &[&str]) -> Value {
    let objects = objects(&values_of(None, &[&["injection.capture=cni"], set].concat()));
    one(&objects, "DaemonSet").clone()
}

#[test]
fn the_nodes_agent_is_there_only_where_it_captures_and_comes_before_the_webhook() {
    assert!(default_objects().iter().all(|object| object["kind"] != "DaemonSet"));
    let objects = objects(&values_of(None, &["injection.capture=cni"]));
    assert!(index(&objects, "DaemonSet") < index(&objects, "MutatingWebhookConfiguration"));
}

#[test]
fn the_nodes_agent_has_two_capabilities_and_three_folders_and_starts_without_what_it_keeps_in_place() {
    let agent = agent(&[]);
    assert_eq!(agent["metadata"]["namespace"], "kube-system", "the control plane's is restricted");
    let pod = &agent["spec"]["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    assert!(pod.get("hostPID").is_none());
    let paths: Vec<_> = pod["volumes"].as_array().unwrap().iter().map(|it| &it["hostPath"]["path"]).collect();
    assert_eq!(paths, ["/opt/cni/bin", "/etc/cni/net.d", "/run/leno-cni"]);
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["NET_ADMIN", "SYS_ADMIN"]}));
    assert_eq!((&context["privileged"], &context["readOnlyRootFilesystem"]), (&json!(false), &json!(true)));
}

/// The agent being away, or broken, must not keep a cluster from starting.
#[test]
fn what_the_webhook_never_stops_the_plugin_never_stops_either() {
    for (set, more) in
        [(&["replicas=2"][..], "leno-system"), (&["namespace=mesh", "cni.namespace=agents"], "agents")]
    {
        let mut set = set.to_vec();
        set.push("injection.capture=cni");
        let objects = objects(&values_of(None, &set));
        let container = &one(&objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
        let mut arguments = container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap());
        let excluded = arguments.find_map(|it| it.strip_prefix("--exclude-namespaces=")).unwrap();
        let excluded: Vec<_> = excluded.split(',').collect();
        let webhook = &one(&objects, "MutatingWebhookConfiguration")["webhooks"][0]["namespaceSelector"];
        for namespace in webhook["matchExpressions"][0]["values"].as_array().unwrap() {
            assert!(excluded.contains(&namespace.as_str().unwrap()), "{namespace}");
        }
        assert!(excluded.contains(&more));
    }
}

#[test]
fn the_agent_is_not_put_where_the_restricted_level_would_refuse_it() {
    let refused = |set: &[&str]| {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        leno_install::values(&leno_install::Overrides { set, ..Default::default() }).is_err()
    };
    let there = ["injection.capture=cni", "cni.namespace=leno-system"];
    assert!(refused(&there));
    assert!(!refused(&[&there[..], &["createNamespace=false"]].concat()), "the namespace is somebody else's");
}
