//! The checker itself: it must catch a field that is parsed and dropped.

use std::sync::Arc;

use leno_apis::{AnyObject, Kind};
use leno_compile::Compiler;
use serde_json::Value;

use super::judge::{Compile, Outcome, compile_parsed, compiler};
use super::*;

fn verdict(compile: Compile, group: &str, kind: &str, path: &str) -> Verdict {
    let fixtures = Fixtures::read().unwrap();
    let fixture = fixtures.kind(group, kind).unwrap();
    let judge = Judge::new(&fixtures.world, compile).unwrap().with_world(&fixture.world).unwrap();
    let field = schema::fields(group, kind).iter().find(|field| field.path == path).unwrap();
    judge.field(&fixtures.settings(fixture, field).unwrap())
}

const NETWORKING: &str = "networking.istio.io";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// Understands `timeout` of a VirtualService and forgets it before it compiles.
fn forgets_timeouts(world: &Compiler, subject: &Value) -> Outcome {
    let mut parsed = leno_apis::parse_json("fixture", subject);
    for object in &mut parsed.objects {
        if let AnyObject::VirtualService(rule) = Arc::make_mut(object) {
            for route in &mut rule.spec.http {
                if let leno_apis::Rule::Ok(action) = &mut route.action {
                    action.timeout = None;
                }
            }
        }
    }
    compile_parsed(world, parsed)
}

/// Forgets every field of that name.
fn forgets_weights(world: &Compiler, subject: &Value) -> Outcome {
    fn forget(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("weight");
                fields.values_mut().for_each(forget);
            }
            Value::Array(items) => items.iter_mut().for_each(forget),
            _ => {}
        }
    }
    let mut subject = subject.clone();
    forget(&mut subject);
    compiler(world, &subject)
}

#[test]
fn a_field_that_is_parsed_and_dropped_is_silent() {
    let path = "spec.http[].timeout";
    assert_eq!(verdict(compiler, NETWORKING, "VirtualService", path), Verdict::Works);
    assert_eq!(verdict(forgets_timeouts, NETWORKING, "VirtualService", path), Verdict::Silent);
    let path = "spec.rules[].backendRefs[].weight";
    assert_eq!(verdict(compiler, GATEWAY, "HTTPRoute", path), Verdict::Works);
    assert_eq!(verdict(forgets_weights, GATEWAY, "HTTPRoute", path), Verdict::Silent);
}

#[test]
fn a_field_that_works_and_is_in_no_case_is_found() {
    let row = |path: &str, verdict, case: Option<&str>| Row {
        path: path.to_owned(),
        verdict,
        case: case.map(|case| Shows::Yes(case.to_owned())),
        experimental: false,
    };
    let refused = Verdict::Refused { code: "LN0103".to_owned(), effect: "field" };
    let rows = vec![
        row("spec.shown", Verdict::Works, Some("a.yaml: it works")),
        row("spec.claimed", Verdict::Works, None),
        row("spec.refused", refused, None),
    ];
    let section = Section { title: "K.g".to_owned(), rows };
    let found: Vec<_> = without_case_of(std::iter::once(&section)).collect();
    assert_eq!(found, ["K.g spec.claimed"]);
    assert_eq!(Counts::of(std::slice::from_ref(&section)).without_case, 1);
}

#[test]
fn a_refusal_is_known_by_its_code_and_effect_also_from_an_ancestor() {
    let refused = |code: &str, effect| Verdict::Refused { code: code.to_owned(), effect };
    let of = |path| verdict(compiler, NETWORKING, "VirtualService", path);
    assert_eq!(of("spec.http[].corsPolicy.maxAge"), refused("LN0103", "field"));
    assert_eq!(of("spec.http[].delegate.name"), refused("LN0103", "rule"));
    let of_kind = verdict(compiler, NETWORKING, "Sidecar", "spec.egress[].bind");
    assert_eq!(of_kind, refused("LN0106", "object"));
}

#[test]
fn a_fixture_at_fault_is_not_taken_for_a_field_that_works() {
    let fixtures = Fixtures::read().unwrap();
    let fixture = fixtures.kind(NETWORKING, "VirtualService").unwrap();
    let judge = Judge::new(&fixtures.world, compiler).unwrap();
    let without = fixture.object().unwrap();
    let mut with = without.clone();
    with["spec"]["http"][0]["route"][0]["destination"]["host"] = serde_json::json!("nobody");
    let path = "spec.http[].route[].destination.host".to_owned();
    let settings = fixture::Settings {
        path,
        without,
        with: vec![with],
        bare: None,
        chosen_by: None,
        refused_by: Vec::new(),
    };
    assert!(matches!(judge.field(&settings), Verdict::Unjudged(_)));
}

#[test]
fn the_objects_of_the_fixtures_are_valid() {
    let fixtures = Fixtures::read().unwrap();
    for (group, kind) in schema::kinds().filter(|(group, _)| GROUPS.contains(group)) {
        let fixture = fixtures.kind(group, kind).unwrap();
        let parsed = leno_apis::parse_json("fixture", &fixture.object().unwrap());
        let is_used = Kind::find(group, kind).unwrap().support == leno_apis::kind::Support::Used;
        assert_eq!(parsed.diagnostics.is_empty(), is_used, "{kind}: {:?}", parsed.diagnostics);
    }
}

/// The names in `.label("...")` and `.annotation("...")` of our sources.
#[test]
fn every_annotation_and_label_that_we_read_is_in_the_table() {
    let fixtures = Fixtures::read().unwrap();
    let known: Vec<&str> = fixtures.metadata.iter().map(|entry| entry.name()).collect();
    let crates = ["compile", "analyze", "control"];
    let mut pending: Vec<_> =
        crates.iter().map(|name| std::path::PathBuf::from(format!("../crates/{name}/src"))).collect();
    let mut read = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() && !entry.ends_with("tests") {
                pending.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs")
                && !entry.ends_with("tests.rs")
            {
                let text = std::fs::read_to_string(&entry).unwrap();
                for call in ["label(\"", "annotation(\""] {
                    for (at, _) in text.match_indices(call) {
                        let name = text[at + call.len()..].split('"').next().unwrap();
                        read += 1;
                        assert!(known.contains(&name), "{name}, read by {}", entry.display());
                    }
                }
            }
        }
    }
    assert!(read >= 8, "{read}");
}
