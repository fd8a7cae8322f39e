//! What is written, and how often.

use std::{collections::BTreeSet, sync::Arc};

use leno_apis::ObjectRef;
use leno_compile::{MeshSettings, World};
use leno_identity::UnixTime;
use leno_sources::Reading;
use serde_json::Value;

use super::*;
use crate::kubernetes::{fake::Fake, status::CONTROLLER};

/// A route with a field that no route has, unless `good`.
fn route(good: bool) -> Value {
    let mut route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "split", "namespace": "shop", "uid": "u-1", "generation": 1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
            "rules": [{"backendRefs": [{"name": "cart", "port": 80}]}]},
    });
    if !good {
        route["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!("much");
    }
    route
}

fn published(objects: &[Value], kept: &[ObjectRef]) -> Published {
    let cart = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop", "uid": "u-0"},
        "spec": {"clusterIP": "240.240.0.1", "ports": [{"name": "http", "port": 80}]},
    });
    let mut reading = Reading::default();
    for object in objects.iter().chain([&cart]) {
        let parsed = leno_apis::parse_json("", object);
        reading.diagnostics.extend(parsed.diagnostics);
        for object in parsed.objects {
            reading.objects.insert(object.reference(), object);
        }
    }
    reading.kept = kept.iter().cloned().collect::<BTreeSet<_>>();
    let world = World::of(reading.objects.values().cloned());
    let compiled = leno_compile::compile(&world, &MeshSettings::default(), &[]);
    let since = UnixTime::since_unix_epoch(Duration::ZERO);
    Published { generation: 1, world, compiled, reading: Arc::new(reading), since }
}

/// Rounds of a leader.
struct Rounds<'f> {
    fake: &'f Fake,
    events: Events,
    gateways: Gateways,
    now: Instant,
}

impl<'f> Rounds<'f> {
    fn of(fake: &'f Fake) -> Self {
        Self { fake, events: Events::default(), gateways: Gateways::default(), now: Instant::now() }
    }

    /// A round, some time after the last one.
    async fn after(&mut self, pause: Duration, published: &Published) -> Result<(), KubernetesError> {
        self.now += pause;
        self.events.write(&self.fake.cluster(), published, &self.gateways, self.now).await
    }

    /// Until a problem that has just come is told.
    async fn told(&mut self, published: &Published) {
        self.after(Duration::ZERO, published).await.unwrap();
        self.after(PATIENCE, published).await.unwrap();
    }
}

/// The one Event that was written.
fn event(fake: &Fake) -> Value {
    let paths: BTreeSet<String> = fake.writes().into_iter().collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    fake.get(paths.first().unwrap())
}

#[tokio::test]
async fn a_refused_object_has_one_event_that_is_counted_up_while_it_lasts() {
    let fake = Fake::start().await;
    let (mut rounds, broken) = (Rounds::of(&fake), published(&[route(false)], &[]));
    rounds.after(Duration::ZERO, &broken).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new(), "it may be mended at once");
    for _ in 0..20 {
        rounds.after(PATIENCE, &broken).await.unwrap();
    }
    let first = event(&fake);
    assert_eq!(fake.writes().len(), 1);
    assert!(fake.writes()[0].starts_with("/apis/events.k8s.io/v1/namespaces/shop/events/split."));
    assert_eq!(
        first["regarding"],
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "namespace": "shop", "name": "split", "uid": "u-1",
        })
    );
    assert_eq!((&first["type"], &first["reason"]), (&json!("Warning"), &json!("Refused")));
    assert_eq!(first["reportingController"], "leno.dev/control");
    let note = first["note"].as_str().unwrap();
    assert!(note.contains("spec.rules[0].backendRefs[0].weight"), "{note}");

    rounds.after(AGAIN, &broken).await.unwrap();
    assert_eq!(event(&fake)["series"]["count"], 2);
    rounds.after(AGAIN, &broken).await.unwrap();
    let last = event(&fake);
    assert_eq!(last["series"]["count"], 3);
    assert_eq!(last["eventTime"], first["eventTime"]);
    assert_eq!(fake.writes().len(), 3);

    rounds.after(AGAIN, &published(&[route(true)], &[])).await.unwrap();
    assert_eq!(fake.writes().len(), 3, "what is mended is not told");
}

#[tokio::test]
async fn what_mends_itself_is_not_told_however_often() {
    let fake = Fake::start().await;
    let (mut rounds, broken, good) =
        (Rounds::of(&fake), published(&[route(false)], &[]), published(&[route(true)], &[]));
    for _ in 0..5 {
        rounds.after(PATIENCE, &broken).await.unwrap();
        rounds.after(PATIENCE, &good).await.unwrap();
    }
    assert_eq!(fake.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_new_leader_finds_what_the_one_before_has_told() {
    let fake = Fake::start().await;
    let broken = published(&[route(false)], &[]);
    Rounds::of(&fake).told(&broken).await;
    let first = event(&fake);
    let mut second = Rounds::of(&fake);
    second.told(&broken).await;
    assert_eq!(event(&fake), first);
    second.after(AGAIN, &broken).await.unwrap();
    assert_eq!(event(&fake)["series"]["count"], 2);
}

#[tokio::test]
async fn an_event_that_has_expired_is_written_anew() {
    let fake = Fake::start().await;
    let (mut rounds, broken) = (Rounds::of(&fake), published(&[route(false)], &[]));
    rounds.told(&broken).await;
    fake.remove(&fake.writes()[0]);
    rounds.after(AGAIN, &broken).await.unwrap();
    assert_eq!(event(&fake)["reason"], "Refused");
}

#[tokio::test]
async fn another_problem_of_the_same_object_waits_for_a_minute() {
    let fake = Fake::start().await;
    let mut other = route(false);
    other["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!("more");
    let (mut rounds, other) = (Rounds::of(&fake), published(&[other], &[]));
    rounds.told(&published(&[route(false)], &[])).await;
    rounds.told(&other).await;
    assert_eq!(fake.writes().len(), 1);
    rounds.after(PAUSE, &other).await.unwrap();
    let names: BTreeSet<String> = fake.writes().into_iter().collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[tokio::test]
async fn an_object_that_is_kept_says_what_is_wrong_with_its_present_text() {
    let fake = Fake::start().await;
    let name = leno_apis::parse_json("", &route(true)).objects[0].reference();
    let mut kept = published(&[route(true)], std::slice::from_ref(&name));
    let reading = Arc::make_mut(&mut kept.reading);
    reading.diagnostics.extend(leno_apis::parse_json("", &route(false)).diagnostics);
    Rounds::of(&fake).told(&kept).await;
    let event = event(&fake);
    assert_eq!(event["reason"], "LastGoodFormKept");
    assert!(event["note"].as_str().unwrap().starts_with("its last good form stays in force: spec.rules"));
}

#[tokio::test]
async fn a_gateway_that_is_not_run_says_why() {
    let fake = Fake::start().await;
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "leno", "uid": "u-2"}, "spec": {"controllerName": CONTROLLER},
    });
    let gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "edge", "uid": "u-3", "generation": 1},
        "spec": {"gatewayClassName": "leno", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    });
    let published = published(&[class, gateway], &[]);
    fake.forbid("/apis/apps/v1/namespaces/edge/deployments/public-leno");
    let mut rounds = Rounds::of(&fake);
    rounds.gateways.run(&fake.cluster(), &published.world).await.unwrap();
    let before = fake.writes().len();
    rounds.told(&published).await;
    let path = fake.writes()[before].clone();
    let event = fake.get(&path);
    assert!(path.starts_with("/apis/events.k8s.io/v1/namespaces/edge/events/public."), "{path}");
    assert_eq!((&event["reason"], &event["action"]), (&json!("NotRun"), &json!("Run")));
    assert!(event["note"].as_str().unwrap().contains("exceeded quota"), "{event}");
    rounds.gateways = Gateways::default();
    rounds.after(AGAIN, &published).await.unwrap();
    assert_eq!(fake.writes().len(), before + 1, "normal silence");
}

#[tokio::test]
async fn a_round_writes_no_more_than_its_share_and_the_next_one_goes_on() {
    let fake = Fake::start().await;
    let routes: Vec<Value> = (0..A_ROUND + 5)
        .map(|number| {
            let mut route = route(false);
            route["metadata"]["name"] = json!(format!("split-{number}"));
            route
        })
        .collect();
    let (mut rounds, broken) = (Rounds::of(&fake), published(&routes, &[]));
    rounds.told(&broken).await;
    assert_eq!(fake.writes().len(), A_ROUND);
    rounds.after(Duration::from_secs(1), &broken).await.unwrap();
    assert_eq!(fake.writes().len(), A_ROUND + 5);
}

#[tokio::test]
async fn what_the_api_server_refuses_is_not_tried_again_at_once() {
    let fake = Fake::start().await;
    let broken = published(&[route(false)], &[]);
    fake.forbid("/apis/events.k8s.io/v1/namespaces/shop/events");
    let mut rounds = Rounds::of(&fake);
    rounds.told(&broken).await;
    fake.permit("/apis/events.k8s.io/v1/namespaces/shop/events");
    rounds.after(PAUSE, &broken).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new());
    rounds.after(AGAIN, &broken).await.unwrap();
    assert_eq!(event(&fake)["reason"], "Refused");
}
