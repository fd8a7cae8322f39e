//! The demo, small: what it counts, and that it says so when a claim does not hold.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{path::Path, sync::Arc, time::Duration};

use leno_lab::demo::{Broken, DemoOptions, DemoReport, LEAST_TIME, Phase, run};

fn options(folder: &Path, only: &[Phase]) -> DemoOptions {
    DemoOptions {
        for_: Duration::from_secs(20),
        services: 6,
        clusters: 2,
        rate: 100.0,
        only: only.to_vec(),
        record: Some(folder.join("mesh/mesh.json")),
        ..DemoOptions::default()
    }
}

fn demo(change: impl FnOnce(&mut DemoOptions), only: &[Phase]) -> DemoReport {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path(), only);
    change(&mut options);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(options, Arc::new(|_| {}))).unwrap()
}

#[test]
fn its_counts_are_those_of_the_load_and_of_the_applications() {
    let report = demo(|_| {}, &[Phase::Steady]);
    let [steady] = report.phases.as_slice() else { panic!("{report:?}") };
    assert!(steady.holds, "{steady:?}");
    let figure = |name: &str| steady.figures[name].as_u64().unwrap();
    // `sent` has the load that goes past the mesh, too.
    assert!(report.requests > 0 && figure("sent") > report.requests, "{report:?}");
    assert_eq!(figure("answered_by_applications"), figure("sent") + figure("called_by_applications"));
    assert_eq!((report.requests, report.failed), (steady.requests, 0));
    assert_eq!(figure("plaintext_tried") as usize + 1, report.proxies, "every workload, but not the gateway");
    assert_eq!(report.plaintext_accepted, 0);
    let overhead = report.overhead_ms.unwrap();
    assert!(overhead.p50 > 0.0 && overhead.p50 <= overhead.p99);
    let json = serde_json::to_value(&report).unwrap();
    for name in ["up_seconds", "services", "clusters", "proxies", "requests", "failed", "plaintext_accepted"]
    {
        assert!(json[name].is_number(), "{name}");
    }
}

#[test]
fn every_claim_about_changes_and_failures_holds() {
    let only = [Phase::Canary, Phase::Policy, Phase::Region, Phase::ControlPlane];
    let report = demo(|_| {}, &only);
    assert!(report.holds, "{:#?}", report.phases);
    assert_eq!(report.phases.len(), only.len());
    assert_eq!(report.requests, report.phases.iter().map(|phase| phase.requests).sum::<u64>());
    assert!(report.overhead_ms.is_none(), "nothing measured it");
}

#[test]
fn certificates_are_renewed_within_the_time_of_a_short_demo() {
    let report = demo(|options| options.for_ = LEAST_TIME, &[Phase::Certificates]);
    let [certificates] = report.phases.as_slice() else { panic!("{report:?}") };
    assert!(certificates.holds, "{certificates:?}");
    assert!(certificates.figures["renewed"].as_u64().unwrap() > 0, "{certificates:?}");
    assert!(certificates.figures["lifetime_seconds"].as_u64().unwrap() < 100, "{certificates:?}");
}

#[test]
fn a_split_that_is_not_as_claimed_does_not_hold() {
    let report = demo(|options| options.broken = Some(Broken::Canary), &[Phase::Canary]);
    assert!(!report.holds);
    let objections = &report.phases[0].objections;
    assert!(
        objections.iter().any(|it| it.starts_with("v2 had") && it.contains("not 50 %")),
        "{objections:?}"
    );
}

#[test]
fn a_policy_that_denies_the_wrong_caller_does_not_hold() {
    let report = demo(|options| options.broken = Some(Broken::Policy), &[Phase::Policy]);
    assert!(!report.holds && report.failed > 0);
    let objections = &report.phases[0].objections;
    assert!(objections.iter().any(|it| it.contains("failed") && it.contains("403")), "{objections:?}");
}
