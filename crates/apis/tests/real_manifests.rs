//! Real manifests of other projects parse without a single error.
//!
//! They are not part of this repository: `LENO_SHARED` names the folder (default: `shared` beside the repository). Where it
//! is absent the tests say so and pass.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use leno_apis::{AnyObject, Parsed, Severity, parse};

fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LENO_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join("data").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("SKIPPED: {} does not exist (set LENO_SHARED)", path.display());
    None
}

fn yaml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder was found") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            yaml_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
}

fn parse_folder(folder: &Path) -> Vec<Parsed> {
    let mut files = Vec::new();
    yaml_files(folder, &mut files);
    files.sort();
    assert!(!files.is_empty());
    files
        .iter()
        .map(|path| {
            parse(&path.display().to_string(), &std::fs::read_to_string(path).expect("the file is readable"))
        })
        .collect()
}

fn assert_no_errors(folder: &str) -> Vec<Parsed> {
    let Some(path) = shared(folder) else { return Vec::new() };
    let parsed = parse_folder(&path);
    let errors: Vec<_> = parsed
        .iter()
        .flat_map(|parsed| &parsed.diagnostics)
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    parsed
}

fn count(parsed: &[Parsed], wanted: impl Fn(&AnyObject) -> bool) -> usize {
    parsed.iter().flat_map(|parsed| &parsed.objects).filter(|object| wanted(object)).count()
}

#[test]
fn bookinfo_parses_without_errors() {
    let parsed = assert_no_errors("bookinfo");
    if !parsed.is_empty() {
        assert!(count(&parsed, |object| matches!(object, AnyObject::VirtualService(_))) > 10);
        assert!(count(&parsed, |object| matches!(object, AnyObject::Deployment(_))) > 5);
        assert_eq!(count(&parsed, |object| matches!(object, AnyObject::Refused(_))), 0);
    }
}

#[test]
fn online_boutique_parses_without_errors() {
    let parsed = assert_no_errors("online-boutique");
    if !parsed.is_empty() {
        assert!(count(&parsed, |object| matches!(object, AnyObject::Service(_))) > 10);
    }
}

#[test]
fn the_mesh_conformance_manifests_of_the_gateway_api_parse_without_errors() {
    let parsed = assert_no_errors("gateway-api/mesh");
    if !parsed.is_empty() {
        assert!(count(&parsed, |object| matches!(object, AnyObject::HttpRoute(_))) > 10);
        assert!(count(&parsed, |object| matches!(object, AnyObject::GrpcRoute(_))) >= 2);
    }
}
