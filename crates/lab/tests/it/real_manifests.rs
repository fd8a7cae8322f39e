//! Manifests of others, unchanged: Online Boutique and Bookinfo, where the folder with them is there (as in CI).
//!
//! `LENO_SHARED` names the folder (default: `shared` beside the repository); without it the tests say so and pass.

#![expect(clippy::print_stdout, reason = "a test without its data says so")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use leno_lab::mesh::{ClusterPlan, Mesh, MeshPlan};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_shops_front_page_walks_its_services_over_grpc() {
    let Some(data) = data("online-boutique") else { return };
    let yard = Yard::of(&[data.join("kubernetes-manifests.yaml"), data.join("istio-manifests.yaml")]);
    let mesh = yard.start().await;
    let answer = get(&mesh, "/", "").await;
    assert_eq!(answer["service"], "frontend", "{answer}");
    let cart = call(&answer, "cartservice:7070").expect("the front page calls the cart");
    assert_eq!((&cart["protocol"], &cart["status"]), (&"grpc".into(), &"grpc 0".into()), "{answer}");
    let redis = call(cart, "redis-cart:6379").expect("the cart calls its store");
    assert_eq!(redis["status"], "ok", "{answer}");
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bookinfos_splits_and_routes_by_user_behave_as_their_files_say() {
    let Some(data) = data("bookinfo") else { return };
    let istio = data.join("istio");
    let yard = Yard::of(&[
        data.join("kube/bookinfo.yaml"),
        istio.join("bookinfo-gateway.yaml"),
        istio.join("destination-rule-all.yaml"),
        istio.join("virtual-service-reviews-80-20.yaml"),
    ]);
    let mesh = yard.start().await;
    let mut second = 0;
    for _ in 0..200 {
        second += usize::from(reviews_version(&get(&mesh, "/productpage", "").await) == "v2");
    }
    // 20 % of 200, and three standard deviations.
    assert!((23..=57).contains(&second), "{second} of 200 went to v2, where the file says 20 %");

    fs::remove_file(yard.manifests().join("virtual-service-reviews-80-20.yaml")).unwrap();
    yard.add(&istio.join("virtual-service-reviews-test-v2.yaml"));
    let jason = "end-user: jason\r\n";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut versions = Vec::new();
        for user in [jason, jason, jason, jason, "", "", "", ""] {
            versions.push(reviews_version(&get(&mesh, "/productpage", user).await));
        }
        if versions == ["v2", "v2", "v2", "v2", "v1", "v1", "v1", "v1"] {
            break;
        }
        assert!(Instant::now() < deadline, "the route by user is not in force: {versions:?}");
    }
    yard.add(&istio.join("virtual-service-ratings-test-abort.yaml"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = get(&mesh, "/productpage", jason).await;
        let ratings = call(&answer, "reviews:9080").and_then(|reviews| call(reviews, "ratings:9080"));
        if ratings.is_some_and(|ratings| ratings["status"] == "500") {
            break;
        }
        assert!(Instant::now() < deadline, "the fault is not in force: {answer}");
    }
    mesh.stop().await;
}

fn data(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("LENO_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("data").join(name);
    if !folder.is_dir() {
        println!("SKIPPED: {} does not exist (set LENO_SHARED)", folder.display());
        return None;
    }
    Some(folder)
}

fn reviews_version(answer: &Value) -> String {
    let reviews = call(answer, "reviews:9080").unwrap_or_else(|| panic!("no call of reviews: {answer}"));
    assert_eq!(reviews["status"], "200", "{answer}");
    reviews["version"].as_str().unwrap_or_default().to_owned()
}

fn call<'a>(answer: &'a Value, target: &str) -> Option<&'a Value> {
    answer["calls"].as_array()?.iter().find(|call| call["target"] == target)
}

/// A GET by way of the only gateway.
async fn get(mesh: &Mesh, path: &str, headers: &str) -> Value {
    let mut stream = TcpStream::connect(edge(mesh).expect("a gateway")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}\n{body}"))
}

fn edge(mesh: &Mesh) -> Option<SocketAddr> {
    let record = mesh.record();
    let gateway = record.clusters[0].gateways.iter().find(|gateway| gateway.ready)?;
    gateway.listeners.first().map(|listener| listener.address)
}

struct Yard(tempfile::TempDir);

impl Yard {
    fn of(files: &[PathBuf]) -> Self {
        let yard = Self(tempfile::tempdir().unwrap());
        fs::create_dir(yard.manifests()).unwrap();
        files.iter().for_each(|file| yard.add(file));
        yard
    }

    fn manifests(&self) -> PathBuf {
        self.0.path().join("manifests")
    }

    fn add(&self, file: &Path) {
        fs::write(self.manifests().join(file.file_name().unwrap()), fs::read(file).unwrap()).unwrap();
    }

    async fn start(&self) -> Mesh {
        let cluster = ClusterPlan::new("local", vec![self.manifests()]);
        let record = Some(self.0.path().join("runtime/mesh.json"));
        let plan = MeshPlan { record, drain: Duration::from_secs(2), ..MeshPlan::new(vec![cluster]) };
        let mesh = Mesh::start(plan).await.unwrap();
        mesh.ready(PATIENCE).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while edge(&mesh).is_none() {
            assert!(Instant::now() < deadline, "no gateway serves");
            sleep(Duration::from_millis(50)).await;
        }
        mesh
    }
}
