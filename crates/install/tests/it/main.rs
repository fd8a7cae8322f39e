//! Installations as their users see them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod clusters;
mod helm;
mod images;
mod rights;
mod shape;
mod values;

use std::{fs, path::PathBuf};

use leno_apis::yaml;
use leno_install::{Overrides, Values, objects};
use serde_json::Value;

/// The repository's root.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn chart() -> PathBuf {
    root().join("deploy/helm/leno")
}

/// The values files of the tests, and none.
fn files() -> Vec<Option<PathBuf>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/values");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| Some(entry.unwrap().path())).collect();
    files.sort();
    assert_eq!(files.len(), 5);
    files.push(None);
    files
}

fn values_of(file: Option<&PathBuf>, set: &[&str]) -> Values {
    let files = file
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap()))
        .collect();
    let set = set.iter().map(|text| (*text).to_owned()).collect();
    leno_install::values(&Overrides { files, set }).unwrap()
}

fn default_objects() -> Vec<Value> {
    objects(&Values::default())
}

fn documents(text: &str) -> Vec<Value> {
    yaml::documents(text).into_iter().map(|document| document.unwrap().to_json()).collect()
}

fn named<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let found = objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn one<'o>(objects: &'o [Value], kind: &str) -> &'o Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "several of {kind}");
    object
}
