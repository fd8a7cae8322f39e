//! What the control plane may do: the least that works.

use std::{collections::BTreeSet, fs};

use leno_apis::kind::KINDS;
use leno_install::objects;
use serde_json::Value;

use crate::{files, root, values_of};

/// Every rule of every role, with the role's kind.
fn rules(objects: &[Value]) -> Vec<(String, Value)> {
    let roles = objects.iter().filter(|object| object["rules"].is_array());
    roles
        .flat_map(|role| {
            let kind = role["kind"].as_str().unwrap().to_owned();
            role["rules"].as_array().unwrap().iter().map(move |rule| (kind.clone(), rule.clone()))
        })
        .collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map(|items| items.iter().map(|item| item.as_str().unwrap()).collect())
        .unwrap_or_default()
}

fn writes(rule: &Value) -> bool {
    strings(&rule["verbs"]).iter().any(|verb| !["get", "list", "watch"].contains(verb))
}

#[test]
fn no_rule_has_a_wildcard_deletes_or_can_raise_itself() {
    for file in files() {
        for (_, rule) in rules(&objects(&values_of(file.as_ref(), &[]))) {
            let all = ["apiGroups", "resources", "verbs"].into_iter().flat_map(|field| strings(&rule[field]));
            for word in all {
                assert!(!word.contains('*'), "{rule}");
                assert!(
                    !["delete", "deletecollection", "escalate", "bind", "impersonate", "approve"]
                        .contains(&word),
                    "{rule}"
                );
            }
            assert!(!strings(&rule["apiGroups"]).contains(&"rbac.authorization.k8s.io"), "{rule}");
            let pods = strings(&rule["resources"]).iter().any(|resource| resource.starts_with("pods"));
            assert!(!(pods && writes(&rule)), "{rule}");
        }
    }
}

#[test]
fn without_gateways_nothing_but_the_root_and_statuses_is_written_outside_its_namespace() {
    let values = values_of(None, &["gateways.deploy=false"]);
    for (kind, rule) in rules(&objects(&values)) {
        if kind == "ClusterRole" && writes(&rule) {
            let resources = strings(&rule["resources"]);
            let harmless = ["configmaps", "tokenreviews", "events", "mutatingwebhookconfigurations"];
            assert!(
                resources.iter().all(|resource| resource.ends_with("/status") || harmless.contains(resource)),
                "{rule}"
            );
        }
    }
}

#[test]
fn secrets_of_other_namespaces_are_read_only_where_the_values_say() {
    let wide = |set: &[&str]| {
        let rules = rules(&objects(&values_of(None, set)));
        rules
            .iter()
            .any(|(kind, rule)| kind == "ClusterRole" && strings(&rule["resources"]).contains(&"secrets"))
    };
    assert!(wide(&[]));
    let listed = ["gateways.secretNamespaces=[edge, shop]"];
    assert!(!wide(&listed));
    let objects = objects(&values_of(None, &listed));
    let bound: BTreeSet<_> = objects
        .iter()
        .filter(|object| {
            object["kind"] == "RoleBinding" && object["roleRef"]["name"] == "leno-control-gateway-secrets"
        })
        .map(|binding| {
            assert_eq!(binding["subjects"][0]["namespace"], "leno-system");
            binding["metadata"]["namespace"].as_str().unwrap()
        })
        .collect();
    assert_eq!(bound, BTreeSet::from(["edge", "shop"]));
    assert!(!wide(&["gateways.secretNamespaces=[]"]));
}

#[test]
fn every_binding_is_to_a_role_of_the_installation_and_to_its_account() {
    for file in files() {
        let values = values_of(file.as_ref(), &[]);
        let objects = objects(&values);
        let account = crate::of_control(&values, &objects, "ServiceAccount")["metadata"].clone();
        for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
            let role = &binding["roleRef"];
            let role = objects.iter().find(|object| {
                object["kind"] == role["kind"]
                    && object["metadata"]["name"] == role["name"]
                    && object["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            assert!(role.is_some(), "{binding}");
            assert_eq!(binding["subjects"][0]["name"], account["name"]);
            assert_eq!(binding["subjects"][0]["namespace"], account["namespace"]);
        }
    }
}

/// A kind that cannot be listed would keep the control plane from ever knowing its world.
#[test]
fn every_kind_that_is_watched_may_be_listed_and_its_status_written() {
    // Read from manifests only; on a cluster the pods tell what they are templates of.
    let templates = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ServiceAccount"];
    let rules = rules(&objects(&values_of(None, &[])));
    let may = |group: &str, resource: &str, verb: &str| {
        rules.iter().any(|(kind, rule)| {
            kind == "ClusterRole"
                && rule.get("resourceNames").is_none()
                && strings(&rule["apiGroups"]).contains(&group)
                && strings(&rule["resources"]).contains(&resource)
                && strings(&rule["verbs"]).contains(&verb)
        })
    };
    for info in KINDS.iter().filter(|info| !templates.contains(&info.name)) {
        let plural = plural(info.name);
        for verb in ["get", "list", "watch"] {
            assert!(may(info.group, &plural, verb), "{verb} {plural}.{}", info.group);
        }
        // Of kinds that are refused as a whole the log and `/v1/diagnostics` speak.
        let has_status = info.group.contains('.')
            && !["discovery.k8s.io", "telemetry.istio.io", "extensions.istio.io"].contains(&info.group)
            && info.name != "ReferenceGrant";
        assert_eq!(may(info.group, &format!("{plural}/status"), "patch"), has_status, "{plural}/status");
    }
}

fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    match kind.strip_suffix('y') {
        Some(stem) if !kind.ends_with("way") => format!("{stem}ies"),
        _ if kind.ends_with('s') => format!("{kind}es"),
        _ => format!("{kind}s"),
    }
}

/// One right: kind of role, group, resource, verb, and the names that it is limited to.
type Right = (String, String, String, String, Vec<String>);

#[test]
fn the_reference_has_each_right_with_its_reason_and_no_other() {
    let text = fs::read_to_string(root().join("docs/reference/rbac.md")).unwrap();
    let (written, given) = (rights_of_the_reference(&text), rights_given());
    let missing: Vec<_> = given.difference(&written).collect();
    assert!(missing.is_empty(), "docs/reference/rbac.md does not say why: {missing:#?}");
    let invented: Vec<_> = written.difference(&given).collect();
    assert!(invented.is_empty(), "docs/reference/rbac.md has what nobody is given: {invented:#?}");
}

fn rights_given() -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for (role, rule) in rules(&objects(&values_of(None, &[]))) {
        let names: Vec<_> = strings(&rule["resourceNames"]).into_iter().map(str::to_owned).collect();
        for group in strings(&rule["apiGroups"]) {
            for resource in strings(&rule["resources"]) {
                for verb in strings(&rule["verbs"]) {
                    rights.insert((
                        role.clone(),
                        group.to_owned(),
                        resource.to_owned(),
                        verb.to_owned(),
                        names.clone(),
                    ));
                }
            }
        }
    }
    rights
}

/// Reads rows of `| group | resources | verbs | only | why |` below the headings that name a role.
fn rights_of_the_reference(text: &str) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let mut role = None;
    for line in text.lines() {
        if line.starts_with("## ") {
            role = ["(ClusterRole ", "(Role "].into_iter().find(|kind| line.contains(kind));
        }
        let Some(role) = role else { continue };
        let cells: Vec<&str> =
            line.trim_start_matches('|').trim_end_matches('|').split('|').map(str::trim).collect();
        let [group, resources, verbs, only, why] = cells[..] else { continue };
        if group == "group" || group == "---" {
            continue;
        }
        assert!(!why.is_empty(), "no reason: {line}");
        let listed = |cell: &str| -> Vec<String> {
            let items = cell.split(',').map(|item| item.trim().trim_matches('`').to_owned());
            items.filter(|item| !item.is_empty()).collect()
        };
        for resource in listed(resources) {
            for verb in listed(verbs) {
                rights.insert((
                    role.trim_matches(['(', ' ']).to_owned(),
                    if group == "core" { String::new() } else { group.to_owned() },
                    resource.clone(),
                    verb,
                    listed(only),
                ));
            }
        }
    }
    rights
}
