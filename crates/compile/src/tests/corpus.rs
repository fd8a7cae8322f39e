//! Manifests of real projects compile without an error. They are not part of the repository: without them the tests say so.

use std::path::{Path, PathBuf};

use super::*;

const DATA: &str = "/work/shared/data";

/// The text of files; `None`, loudly, where the data is absent.
fn read(files: &[&str]) -> Option<Vec<(String, String)>> {
    let root = PathBuf::from(std::env::var("LENO_DATA").unwrap_or_else(|_| DATA.to_owned()));
    if !root.is_dir() {
        println!("SKIPPED: {} is absent, real manifests were not compiled", root.display());
        return None;
    }
    Some(files.iter().map(|file| ((*file).to_owned(), text(&root.join(file)))).collect())
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(folder: &str) -> Vec<String> {
    let root = PathBuf::from(std::env::var("LENO_DATA").unwrap_or_else(|_| DATA.to_owned()));
    let Ok(found) = std::fs::read_dir(root.join(folder)) else { return Vec::new() };
    let mut names: Vec<String> =
        found.map(|entry| format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy())).collect();
    names.sort();
    names
}

/// Compiles files and returns what is wrong with them.
fn compile_files(files: &[&str]) -> Option<(Compiled, Vec<String>)> {
    let mut objects = Vec::new();
    let mut wrong = Vec::new();
    for (file, text) in read(files)? {
        let parsed = leno_apis::parse(&file, &text);
        wrong.extend(errors(&parsed.diagnostics));
        objects.extend(parsed.objects);
    }
    let compiled = compile(&World::of(with_pods(objects)), &MeshSettings::default(), &[]);
    wrong.extend(errors(&compiled.diagnostics));
    Some((compiled, wrong))
}

const BOOKINFO: [&str; 2] = ["bookinfo/kube/bookinfo.yaml", "bookinfo/kube/bookinfo-versions.yaml"];

#[test]
fn every_rule_of_bookinfo_compiles_without_an_error() {
    let mut wrong = Vec::new();
    for rule in names("bookinfo/istio").iter().chain(&names("bookinfo/gateway-api")) {
        let mut files = BOOKINFO.to_vec();
        files.extend([
            "bookinfo/kube/bookinfo-details-v2.yaml",
            "bookinfo/kube/bookinfo-ratings-v2.yaml",
            "bookinfo/istio/destination-rule-all.yaml",
            rule,
        ]);
        if let Some((_, found)) = compile_files(&files) {
            wrong.extend(found);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn reviews_is_split_eighty_to_twenty() {
    let files =
        ["bookinfo/istio/destination-rule-all.yaml", "bookinfo/istio/virtual-service-reviews-80-20.yaml"];
    let Some((compiled, _)) = compile_files(&[BOOKINFO.as_slice(), &files].concat()) else { return };
    let table = http(&compiled, &service("default", "reviews"), None, 9080);
    assert_eq!(table.entries.len(), 1);
    assert_eq!(forwards(&table.rules[0]), ["reviews:9080/v1 80", "reviews:9080/v2 20"]);
    let closure = compiled.closure(&"default".into(), &service("default", "reviews")).unwrap();
    assert_eq!(closure.len(), 3, "{closure:?}");
}

#[test]
fn bookinfo_is_reachable_through_its_gateway() {
    let files = ["bookinfo/istio/bookinfo-gateway.yaml"];
    let Some((compiled, _)) = compile_files(&[BOOKINFO.as_slice(), &files].concat()) else { return };
    let [gateway] = compiled.gateways() else { panic!("{:?}", compiled.gateways()) };
    assert_eq!(gateway.id.to_string(), "istio-system/ingressgateway");
    let own = compiled.own(&gateway.id).unwrap();
    assert!(own.contains(&ResourceKey::endpoints(&service("default", "productpage"))), "{own:?}");
}

#[test]
fn online_boutique_compiles_without_an_error() {
    let files = ["online-boutique/kubernetes-manifests.yaml", "online-boutique/istio-manifests.yaml"];
    let Some((compiled, wrong)) = compile_files(&files) else { return };
    assert!(wrong.is_empty(), "{wrong:#?}");
    let cart = endpoints(&compiled, &service("default", "cartservice"));
    assert_eq!(cart.endpoints.len(), 1);
    assert_eq!(cart.endpoints[0].ports[&7070], 7070);
}

#[test]
fn the_mesh_tests_of_the_gateway_api_compile_without_an_error() {
    let mut wrong = Vec::new();
    for rule in names("gateway-api/mesh") {
        if let Some((_, found)) = compile_files(&["gateway-api/mesh/manifests.yaml", &rule]) {
            wrong.extend(found);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
