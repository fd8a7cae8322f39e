//! Which statuses are due, and what is in them.

mod replicas;

use std::{sync::Arc, time::Duration};

use leno_apis::Kind;
use leno_compile::{MeshSettings, World};
use leno_identity::UnixTime;
use leno_xds::transport::Sessions;

use super::*;
use crate::kubernetes::fake::Fake;

fn published(uid: &str) -> Published {
    let objects = [
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "leno", "uid": "u-0"}, "spec": {"controllerName": CONTROLLER},
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "public", "namespace": "edge", "uid": uid, "generation": 1},
            "spec": {"gatewayClassName": "leno", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }),
    ];
    let world = World::of(objects.iter().flat_map(|object| leno_apis::parse_json("", object).objects));
    let compiled = leno_compile::compile(&world, &MeshSettings::default(), &[]);
    Published {
        generation: 1,
        world,
        compiled,
        reading: Arc::default(),
        since: UnixTime::since_unix_epoch(Duration::ZERO),
    }
}

/// The one Gateway's status, if it is due.
fn due(statuses: &Statuses, published: &Published, gateways: &Gateways) -> Option<Due> {
    let here = Attendance::default().look(&Sessions::default(), published);
    statuses.due(published, gateways, here).into_iter().find(|due| due.key.kind == Kind::Gateway)
}

#[test]
fn an_object_that_was_made_anew_under_its_old_name_gets_its_status() {
    let (mut statuses, gateways) = (Statuses::default(), Gateways::default());
    let first = due(&statuses, &published("u-1"), &gateways).unwrap();
    statuses.written.insert(first.key, first.written);
    assert!(due(&statuses, &published("u-1"), &gateways).is_none());
    assert!(due(&statuses, &published("u-2"), &gateways).is_some());
}

#[test]
fn why_not_all_have_it_is_not_written_each_second_and_that_all_have_it_is_written_at_once() {
    let (mut statuses, gateways, published) = (Statuses::default(), Gateways::default(), published("u-1"));
    let mut first = due(&statuses, &published, &gateways).unwrap();
    first.written.acknowledged = Acknowledged::Pending;
    let written = first.written.when;
    statuses.written.insert(first.key, first.written);
    let is_news = |acknowledged, seconds| {
        let mut due = due(&statuses, &published, &gateways).unwrap();
        due.written.acknowledged = acknowledged;
        due.written.when = written + Duration::from_secs(seconds);
        due.is_news()
    };
    let silent = || Acknowledged::Silent("leno-control-1".to_owned());
    assert!(!is_news(silent(), 1) && is_news(silent(), 10));
    assert!(!is_news(Acknowledged::Pending, 10), "it is there");
    assert!(is_news(Acknowledged::All(1), 1));
}

#[tokio::test]
async fn a_gateway_that_is_run_is_programmed_when_it_has_an_address() {
    let fake = Fake::start().await;
    fake.put(
        "/apis/gateway.networking.k8s.io/v1/namespaces/edge/gateways/public",
        json!({"metadata": {"name": "public"}}),
    );
    let (statuses, mut gateways, published) = (Statuses::default(), Gateways::default(), published("u-1"));
    let programmed = |gateways: &Gateways| {
        let due = due(&statuses, &published, gateways)?;
        due.written.status.conditions.get(PROGRAMMED).map(|condition| condition.reason)
    };
    assert_eq!(programmed(&gateways), Some("Programmed"), "somebody else runs it");
    fake.balance(false);
    gateways.run(&fake.cluster(), &published.world).await.unwrap();
    assert_eq!(programmed(&gateways), Some("AddressNotAssigned"));
    gateways.look_again();
    assert_eq!(programmed(&gateways), None, "nothing is said before its Service has been looked at");
    fake.balance(true);
    gateways.run(&fake.cluster(), &published.world).await.unwrap();
    assert_eq!(programmed(&gateways), Some("Programmed"));
}
