//! Bookinfo's manifests, unchanged: splits, routes by user, faults, timeouts, measured over requests.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use leno_lab::mesh::Mesh;
use serde_json::Value;
use tokio::{net::TcpStream, time::Instant};

use crate::yard::{Yard, data, edge, eventually, get_on};

const JASON: &str = "host: ratings\r\nend-user: jason\r\n";
const ANYBODY: &str = "host: ratings\r\n";
/// Requests that a split is measured with, and how many of them go on at once.
const SAMPLE: usize = 400;
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn splits_and_routes_by_user_are_as_virtual_services_say() {
    let Some(data) = data("bookinfo") else { return };
    let yard = Yard::of(&of_istio(&data, "virtual-service-reviews-80-20.yaml"));
    let mesh = yard.start(&["local"]).await;
    measured_split(&mesh, &[("v1", 80), ("v2", 20)]).await;

    replace(
        &yard,
        &data,
        "istio",
        &["virtual-service-reviews-80-20.yaml"],
        "virtual-service-reviews-50-v3.yaml",
    );
    in_force(&mesh, ANYBODY, &["v1", "v3"]).await;
    measured_split(&mesh, &[("v1", 50), ("v3", 50)]).await;

    replace(
        &yard,
        &data,
        "istio",
        &["virtual-service-reviews-50-v3.yaml"],
        "virtual-service-reviews-test-v2.yaml",
    );
    in_force(&mesh, JASON, &["v2"]).await;
    assert_eq!(versions(&mesh, JASON, 40).await, [("v2".to_owned(), 40)].into());
    assert_eq!(versions(&mesh, ANYBODY, 40).await, [("v1".to_owned(), 40)].into());
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_for_one_user_runs_into_the_applications_own_timeouts_and_an_abort_into_his_stars() {
    let Some(data) = data("bookinfo") else { return };
    let yard = Yard::of(&of_istio(&data, "virtual-service-reviews-test-v2.yaml"));
    yard.add(&data.join("istio/virtual-service-ratings-test-delay.yaml"));
    let mesh = yard.start(&["local"]).await;
    let as_reviews = mesh.dialer("local", "default/reviews-v2").unwrap();
    for (user, at_least) in [(JASON, 7), (ANYBODY, 0)] {
        let asked = (0..AT_ONCE).map(async |_| {
            let mut stream = as_reviews.dial("ratings", 9080).await.unwrap();
            let started = Instant::now();
            assert_eq!(get_on(&mut stream, "/ratings/0", user).await.unwrap().0, 200);
            started.elapsed()
        });
        let took = futures_util::future::join_all(asked).await;
        let (least, most) = (Duration::from_secs(at_least), Duration::from_secs(at_least + 7));
        assert!(took.iter().all(|took| (least..most).contains(took)), "{user:?} waited {took:?}");
    }

    // The page waits 3 s for reviews, twice; reviews v2 would wait 10 s for ratings.
    let page = get(&mesh, JASON).await;
    let reviews = call(&page, "reviews:9080").unwrap();
    assert_eq!((&reviews["tries"], &reviews["status"]), (&2.into(), &"".into()), "{page}");
    assert!((6000.0..13_000.0).contains(&reviews["ms"].as_f64().unwrap()), "{page}");
    assert_eq!(call(&get(&mesh, ANYBODY).await, "reviews:9080").unwrap()["status"], "200");

    // v3 waits 2.5 s only: the page has its reviews, without stars.
    replace(
        &yard,
        &data,
        "istio",
        &["virtual-service-reviews-test-v2.yaml"],
        "virtual-service-reviews-v3.yaml",
    );
    in_force(&mesh, ANYBODY, &["v3"]).await;
    let page = get(&mesh, JASON).await;
    let reviews = call(&page, "reviews:9080").unwrap();
    let ratings = call(reviews, "ratings:9080").unwrap();
    assert_eq!((&reviews["status"], &ratings["status"]), (&"200".into(), &"".into()), "{page}");
    assert_eq!(ratings["error"], "no answer within 2.5s", "{page}");
    assert_eq!(ratings_status(&get(&mesh, ANYBODY).await), "200");

    replace(
        &yard,
        &data,
        "istio",
        &["virtual-service-ratings-test-delay.yaml"],
        "virtual-service-ratings-test-abort.yaml",
    );
    eventually("the abort is in force", async || ratings_status(&get(&mesh, JASON).await) == "500").await;
    for _ in 0..20 {
        assert_eq!(ratings_status(&get(&mesh, JASON).await), "500");
        assert_eq!(ratings_status(&get(&mesh, ANYBODY).await), "200");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_apis_routes_behave_as_their_files_say() {
    let Some(data) = data("bookinfo") else { return };
    let kube = ["bookinfo.yaml", "bookinfo-versions.yaml"].map(|name| data.join("kube").join(name));
    let routes =
        ["bookinfo-gateway.yaml", "route-all-v1.yaml"].map(|name| data.join("gateway-api").join(name));
    let yard = Yard::of(&[kube, routes].concat());
    let mesh = yard.start(&["local"]).await;
    assert_eq!(versions(&mesh, ANYBODY, 40).await, [("v1".to_owned(), 40)].into());
    let page = get(&mesh, ANYBODY).await;
    assert_eq!(call(&page, "details:9080").unwrap()["version"], "v1", "{page}");
    assert_eq!(status(&mesh, "/nothing").await, 404, "the gateway's route names its paths");

    let mut before = "route-all-v1.yaml";
    let splits: [(&str, &[(&str, usize)]); 4] = [
        ("route-reviews-90-10.yaml", &[("v1", 90), ("v2", 10)]),
        ("route-reviews-50-v3.yaml", &[("v1", 50), ("v3", 50)]),
        ("route-reviews-v3.yaml", &[("v3", 100)]),
        ("route-reviews-v1.yaml", &[("v1", 100)]),
    ];
    for (file, split) in splits {
        replace(&yard, &data, "gateway-api", &[before], file);
        let wanted: Vec<&str> = split.iter().map(|(version, _)| *version).collect();
        in_force(&mesh, ANYBODY, &wanted).await;
        measured_split(&mesh, split).await;
        before = file;
    }
    mesh.stop().await;
}

fn of_istio(data: &Path, more: &str) -> Vec<PathBuf> {
    let istio = data.join("istio");
    let names = ["bookinfo-gateway.yaml", "destination-rule-all.yaml", more];
    [data.join("kube/bookinfo.yaml")].into_iter().chain(names.map(|name| istio.join(name))).collect()
}

fn replace(yard: &Yard, data: &Path, folder: &str, old: &[&str], new: &str) {
    yard.add(&data.join(folder).join(new));
    old.iter().for_each(|name| yard.remove(name));
}

/// Waits until all these versions answer, and no other.
async fn in_force(mesh: &Mesh, user: &str, wanted: &[&str]) {
    eventually(&format!("{wanted:?} answer"), async || {
        let seen = versions(mesh, user, 40).await;
        seen.keys().map(String::as_str).eq(wanted.iter().copied())
    })
    .await;
}

/// Each version has its percentage of the sample, give or take four standard deviations.
async fn measured_split(mesh: &Mesh, wanted: &[(&str, usize)]) {
    let seen = versions(mesh, ANYBODY, SAMPLE).await;
    assert_eq!(seen.len(), wanted.len(), "{seen:?}");
    for (version, percent) in wanted {
        let share = *percent as f64 / 100.0;
        let (mean, deviation) = (SAMPLE as f64 * share, (SAMPLE as f64 * share * (1.0 - share)).sqrt());
        let count = seen.get(*version).copied().unwrap_or(0) as f64;
        assert!((count - mean).abs() <= 4.0 * deviation, "{percent} % should have {version}: {seen:?}");
    }
}

/// Which versions of reviews answered so many pages.
async fn versions(mesh: &Mesh, user: &str, pages: usize) -> BTreeMap<String, usize> {
    let edge = edge(mesh);
    let lanes = (0..AT_ONCE).map(async |_| {
        let mut stream = TcpStream::connect(edge).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..pages / AT_ONCE {
            let (status, page) = get_on(&mut stream, "/productpage", user).await.unwrap();
            let reviews = call(&page, "reviews:9080").unwrap_or_else(|| panic!("{status}: {page}"));
            assert_eq!(reviews["status"], "200", "{page}");
            seen.push(reviews["version"].as_str().unwrap().to_owned());
        }
        seen
    });
    let mut counts = BTreeMap::new();
    for version in futures_util::future::join_all(lanes).await.into_iter().flatten() {
        *counts.entry(version).or_default() += 1;
    }
    counts
}

async fn get(mesh: &Mesh, user: &str) -> Value {
    let mut stream = TcpStream::connect(edge(mesh)).await.unwrap();
    get_on(&mut stream, "/productpage", user).await.unwrap().1
}

async fn status(mesh: &Mesh, path: &str) -> u16 {
    let mut stream = TcpStream::connect(edge(mesh)).await.unwrap();
    get_on(&mut stream, path, ANYBODY).await.unwrap().0
}

fn ratings_status(page: &Value) -> String {
    let ratings = call(page, "reviews:9080").and_then(|reviews| call(reviews, "ratings:9080"));
    ratings.and_then(|ratings| ratings["status"].as_str()).unwrap_or_default().to_owned()
}

fn call<'a>(answer: &'a Value, target: &str) -> Option<&'a Value> {
    answer["calls"].as_array()?.iter().find(|call| call["target"] == target)
}
