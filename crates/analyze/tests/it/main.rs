//! Every file in `cases/` holds against `compile` and `decide`.

use std::path::{Path, PathBuf};

use leno_analyze::cases::{self, Summary};
use leno_compile::{MeshSettings, World, compile};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cases")
}

fn summary_of(path: &Path) -> Summary {
    let text = std::fs::read_to_string(path).expect("case files are readable");
    let load = |name: &str| std::fs::read_to_string(folder().join(name)).map_err(|error| error.to_string());
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = cases::read(&name, &text, &load).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|e| e.to_string()).collect::<Vec<_>>().join("\n"))
    });
    cases::run_file(&file, &MeshSettings::default())
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder of cases is there");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("its entries are readable").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

#[test]
fn all_behaviour_cases_hold() {
    let (mut passed, mut failures) = (0, Vec::new());
    for path in files() {
        let summary = summary_of(&path);
        passed += summary.passed;
        failures.extend(summary.cases.iter().filter(|case| !case.passed).map(ToString::to_string));
    }
    assert!(failures.is_empty(), "{}\n\n{passed} cases hold, {} do not", failures.join("\n"), failures.len());
    assert!(passed >= 150, "only {passed} cases were found");
}

#[test]
fn every_case_cites_the_specification() {
    for path in files() {
        for case in summary_of(&path).cases {
            assert!(case.spec.is_some() && case.source.is_some(), "{}: {}", case.place, case.name);
        }
    }
}

/// The manifests of real projects beside the repository; not there on every machine.
fn real_manifests(paths: &[&str]) -> Option<Vec<std::sync::Arc<leno_apis::AnyObject>>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let mut objects = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(data.join(path)).ok()?;
        objects.extend(leno_apis::parse(path, &text).objects);
    }
    Some(objects)
}

fn findings(paths: &[&str]) -> Vec<String> {
    let Some(objects) = real_manifests(paths) else {
        eprintln!("{paths:?} are not on this machine: nothing is checked");
        return Vec::new();
    };
    let world = World::of(leno_analyze::embedded::materialise(&objects));
    let compiled = compile(&world, &MeshSettings::default(), &[]);
    leno_analyze::analyze(&world, &compiled).iter().map(ToString::to_string).collect()
}

#[test]
fn manifests_that_work_raise_no_alarm() {
    assert_eq!(findings(BOUTIQUE), Vec::<String>::new());
    assert_eq!(findings(BOOKINFO), Vec::<String>::new());
}

const BOUTIQUE: &[&str] =
    &["online-boutique/kubernetes-manifests.yaml", "online-boutique/istio-manifests.yaml"];

const BOOKINFO: &[&str] = &[
    "bookinfo/kube/bookinfo.yaml",
    "bookinfo/kube/bookinfo-versions.yaml",
    "bookinfo/istio/bookinfo-gateway.yaml",
    "bookinfo/istio/destination-rule-reviews.yaml",
    "bookinfo/istio/virtual-service-reviews-test-v2.yaml",
    "bookinfo/istio/virtual-service-ratings-test-delay.yaml",
];
