//! Documents to objects; every field of every schema, one by one.

use super::*;
use crate::diagnostic::Severity;

fn codes_of(parsed: &Parsed) -> Vec<&'static str> {
    parsed.diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn lists_expand_also_when_their_items_do_not_repeat_the_kind() {
    let parsed = parse(
        "l.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---\napiVersion: v1\nkind: NamespaceList\nitems:\n- {metadata: {name: c}}\n",
    );
    let names: Vec<_> = parsed.objects.iter().map(|object| object.reference().to_string()).collect();
    assert_eq!(names, ["Namespace a", "Namespace c"]);
    assert_eq!(parsed.unused_kinds.get("ConfigMap"), Some(&1));
    assert_eq!(parsed.diagnostics, []);
}

#[test]
fn a_broken_document_is_reported_and_the_others_are_read() {
    let parsed = parse(
        "b.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: [\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n---\njust: text\n",
    );
    assert_eq!(parsed.objects.len(), 2);
    assert_eq!(codes_of(&parsed), [codes::SYNTAX, codes::NOT_AN_OBJECT]);
    assert_eq!(parsed.diagnostics[1].at.line, 11);
}

#[test]
fn kinds_we_do_not_act_on_are_present_as_refused() {
    let parsed = parse(
        "e.yaml",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f, namespace: n}\nspec: {}\n",
    );
    assert_eq!(parsed.objects[0].kind(), Kind::EnvoyFilter);
    assert!(matches!(parsed.objects[0].as_ref(), AnyObject::Refused(_)));
    assert_eq!(codes_of(&parsed), [codes::UNSUPPORTED_KIND]);
}

#[test]
fn a_misspelt_kind_or_group_is_an_error_and_not_unused() {
    for (api_version, kind, place, meant) in [
        ("security.istio.io/v1", "AuthorisationPolicy", "m.yaml:2:7", "did you mean `AuthorizationPolicy`?"),
        ("securty.istio.io/v1", "AuthorizationPolicy", "m.yaml:1:13", "did you mean `security.istio.io`?"),
        ("gateway.networking.k8s.io/v1", "HttpRoute", "m.yaml:2:7", "did you mean `HTTPRoute`?"),
        ("apps/v1", "Deploymnet", "m.yaml:2:7", "did you mean `Deployment`?"),
        ("v1", "service", "m.yaml:2:7", "did you mean `Service`?"),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n");
        let parsed = parse("m.yaml", &text);
        assert_eq!(codes_of(&parsed), [codes::MISSPELT_KIND], "{kind}");
        let said = &parsed.diagnostics[0];
        assert_eq!((said.at.to_string().as_str(), said.expected.as_deref()), (place, Some(meant)), "{kind}");
        assert!(said.object.is_none(), "it may be any object of the text: {said}");
        assert!(parsed.unused_kinds.is_empty(), "{kind}");
    }
    for (api_version, kind) in [
        ("policy.linkerd.io/v1alpha1", "AuthorizationPolicy"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("gateway.networking.x-k8s.io/v1alpha1", "XListenerSet"),
        ("networking.internal.knative.dev/v1alpha1", "Gateway"),
        ("v1", "ConfigMap"),
        ("v1", "PodTemplate"),
        ("v1", "Endpoints"),
        ("apps/v1", "ControllerRevision"),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let parsed = parse("m.yaml", &text);
        assert_eq!((codes_of(&parsed).len(), parsed.unused_kinds.len()), (0, 1), "{kind} is another's");
    }
}

#[test]
fn a_misspelt_field_of_metadata_names_no_object() {
    let text =
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespce: shop}\n";
    let parsed = parse("m.yaml", text);
    assert!(parsed.objects.is_empty(), "which object it is, is not known");
    let said: Vec<_> = parsed.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "m.yaml:3:21: error[LN0102]: metadata.namespce: unknown field; the PeerAuthentication is not read; did you mean `namespace`?"
        ]
    );
    assert!(parsed.diagnostics[0].object.is_none());
}

#[test]
fn an_unknown_version_is_refused() {
    let parsed = parse("s.yaml", "apiVersion: v2\nkind: Service\nmetadata: {name: s}\nspec: {}\n");
    assert_eq!(codes_of(&parsed), [codes::UNKNOWN_VERSION]);
    assert!(matches!(parsed.objects[0].as_ref(), AnyObject::Refused(_)));
}

#[test]
fn objects_of_an_api_server_have_no_lines() {
    let json = serde_json::json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "s", "namespace": "n", "managedFields": [], "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"ports": [{"port": 99999}], "type": "ClusterIP", "ipFamilies": ["IPv4"]},
    });
    let parsed = parse_json("cluster east", &json);
    assert_eq!(
        parsed.diagnostics[0].to_string(),
        "cluster east: error[LN0105]: Service n/s: spec.ports[0].port: 99999 is not between 1 and 65535"
    );
}

#[test]
fn an_object_without_a_name_is_reported() {
    let parsed = parse("n.yaml", "apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {}\n");
    assert_eq!(codes_of(&parsed), [codes::MISSING_FIELD]);
    assert!(parsed.objects.is_empty());
}

#[test]
fn labels_that_are_numbers_ask_for_quotes() {
    let parsed =
        parse("n.yaml", "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: {version: 1.10}\n");
    assert_eq!(
        parsed.diagnostics[0].to_string(),
        "n.yaml:5:21: error[LN0101]: Namespace a: metadata.labels[\"version\"]: expected a string, found the number 1.1; put it in quotes"
    );
    assert!(matches!(parsed.objects[0].as_ref(), AnyObject::Refused(object) if object.name() == "a"));
}

/// Builds an object in which only this field is set, to a value of its type.
fn object_with(group: &str, kind: &str, field: &crate::schema::FieldPath) -> serde_json::Value {
    use serde_json::json;
    let mut value = match field.kind {
        "string" | "int-or-string" => json!(field.values.first().copied().unwrap_or("1")),
        "integer" | "number" => json!(1),
        "boolean" => json!(true),
        "array" => json!([]),
        _ => json!({}),
    };
    for step in field.path.split('.').rev() {
        let name = step.trim_end_matches("[]").trim_end_matches("{}");
        let mut wrappers = &step[name.len()..];
        while !wrappers.is_empty() {
            value = if wrappers.ends_with("[]") { json!([value]) } else { json!({"1": value}) };
            wrappers = &wrappers[..wrappers.len() - 2];
        }
        value = json!({ name: value });
    }
    let version = Kind::find(group, kind).unwrap().versions[0];
    value["apiVersion"] = json!(format!("{group}/{version}"));
    value["kind"] = json!(kind);
    value["metadata"] = json!({"name": "n"});
    value
}

#[test]
fn no_field_of_any_schema_is_unknown_to_us_or_makes_us_panic() {
    let mut count = 0;
    for (group, kind) in crate::schema::kinds() {
        for field in crate::schema::fields(group, kind) {
            count += 1;
            let parsed = parse_json("schema", &object_with(group, kind, field));
            assert_eq!(parsed.objects.len(), 1, "{kind} {}", field.path);
            for diagnostic in &parsed.diagnostics {
                assert_ne!(diagnostic.code, codes::UNKNOWN_FIELD, "{kind} {}: {diagnostic}", field.path);
            }
        }
    }
    assert!(count > 1590, "{count}");
}

#[test]
fn what_a_parse_withholds_it_also_reports() {
    for (group, kind) in crate::schema::kinds() {
        for field in crate::schema::fields(group, kind) {
            let parsed = parse_json("schema", &object_with(group, kind, field));
            if let AnyObject::Refused(object) = parsed.objects[0].as_ref() {
                assert!(parsed.diagnostics.contains(&object.spec.because), "{kind} {}", field.path);
                assert_eq!(object.spec.because.severity, Severity::Error);
            }
        }
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_objects_never_panic(spec in "[a-zA-Z:\\[\\]{}0-9, \n\"-]{0,120}") {
        for kind in ["networking.istio.io/v1\nkind: VirtualService", "v1\nkind: Pod", "v1\nkind: Secret"] {
            let _ = parse("f.yaml", &format!("apiVersion: {kind}\nmetadata: {{name: a}}\nspec: {spec}"));
        }
    }
}
