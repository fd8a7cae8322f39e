//! Values: defaults, files, `--set`, the schema.

use std::fs;

use leno_install::{Overrides, Values};
use serde_json::{Value, json};

use crate::{chart, documents, values_of};

fn refusal(file: &str, set: &[&str]) -> String {
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    let files = vec![("mine.yaml".to_owned(), file.to_owned())];
    leno_install::values(&Overrides { files, set }).unwrap_err().to_string()
}

#[test]
fn an_unknown_value_is_told_once() {
    let overrides = Overrides { files: Vec::new(), set: vec!["proxy.colour=red".to_owned()] };
    let error = leno_install::values(&overrides).unwrap_err();
    let mut told = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        told.push_str(&cause.to_string());
        source = cause.source();
    }
    assert_eq!(told.matches("unknown field `colour`").count(), 1, "{told}");
    assert!(told.contains("proxy.colour"), "{told}");
}

#[test]
fn the_charts_values_are_the_defaults() {
    let theirs = documents(&fs::read_to_string(chart().join("values.yaml")).unwrap()).remove(0);
    assert_eq!(theirs, serde_json::to_value(Values::default()).unwrap());
}

#[test]
fn every_value_is_in_the_schema_and_every_object_of_it_is_closed() {
    fn visit(schema: &Value, whole: &Value, value: &Value, path: &str) {
        let target = schema["$ref"].as_str().map(|target| whole.pointer(&target[1..]).unwrap());
        let schema = target.unwrap_or(schema);
        let Some(fields) = value.as_object() else { return };
        if schema["additionalProperties"].is_object() {
            return;
        }
        assert_eq!(schema["additionalProperties"], false, "{path} takes anything");
        for (key, value) in fields {
            let property = &schema["properties"][key];
            assert!(property.is_object(), "{path}.{key} is not in the schema");
            visit(property, whole, value, &format!("{path}.{key}"));
        }
    }
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    visit(&schema, &schema, &serde_json::to_value(Values::default()).unwrap(), "values");
}

#[test]
fn every_value_has_a_line_in_the_chart_and_comments_explain_the_sections() {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    assert!(text.lines().filter(|line| line.trim_start().starts_with('#')).count() > 25);
}

#[test]
fn set_wins_over_files_and_merges_into_maps() {
    let values = values_of(
        None,
        &["proxy.resources.limits.cpu=\"2\"", "nodeSelector.kubernetes\\.io/os=linux", "tags=[a, b]"],
    );
    assert_eq!(values.proxy.resources.limits["cpu"], "2");
    assert_eq!(values.proxy.resources.limits["memory"], "512Mi");
    assert_eq!(values.node_selector["kubernetes.io/os"], "linux");
    assert_eq!(values.tags, ["a", "b"]);
    let overrides = Overrides {
        files: vec![
            ("a".to_owned(), "replicas: 3\nregion: a".to_owned()),
            ("b".to_owned(), "replicas: 4".to_owned()),
        ],
        set: vec!["region=".to_owned()],
    };
    let values = leno_install::values(&overrides).unwrap();
    assert_eq!((values.replicas, values.region.as_str()), (4, ""));
}

#[test]
fn what_cannot_be_read_is_named() {
    assert!(refusal("a: b: c", &[]).starts_with("mine.yaml, line 1"), "{}", refusal("a: b: c", &[]));
    assert!(refusal("[1]", &[]).contains("mine.yaml must be one mapping"));
    assert!(refusal("", &["replicas"]).contains("needs the form"));
    assert!(refusal("", &["a..b=1"]).contains("a key is empty"));
    assert!(refusal("", &["replica=1"]).contains("unknown field `replica`"));
    let unfit = refusal("resources: {limits: {cpu: 1}}", &[]);
    assert!(unfit.starts_with("values: resources.limits.cpu: invalid type"), "{unfit}");
    let several = refusal("", &["replicas=0", "revision=A"]);
    assert!(several.contains("replicas: at least one") && several.contains("revision: `A`"), "{several}");
}

#[test]
fn injection_follows_the_values() {
    let values =
        values_of(None, &["image.registry=r.example/", "image.tag=t", "revision=canary", "compat=istio"]);
    let injection = values.injection();
    assert_eq!(injection.image.name, "r.example/leno/proxy:t");
    assert_eq!(injection.control, "leno-control-canary.leno-system.svc:15012");
    assert!(injection.istio_labels);
    assert_eq!(
        serde_json::to_value(Values::default().injection()).unwrap()["image"]["pullPolicy"],
        json!("IfNotPresent")
    );
}
