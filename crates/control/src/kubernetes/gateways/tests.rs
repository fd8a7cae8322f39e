//! Which Gateways are run, what is written for them, and what is left alone.

use serde_json::json;

use super::*;
use crate::kubernetes::fake::Fake;

#[test]
fn what_the_api_server_adds_is_no_difference_and_what_it_lacks_is() {
    let ours = json!({"kind": "Service", "metadata": {"name": "g"}, "spec": {"ports": [{"port": 80}], "type": "LoadBalancer"}});
    let mut found = json!({
        "metadata": {"name": "g", "uid": "u"}, "status": {},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30000}], "type": "LoadBalancer"},
    });
    assert!(contains(&found, &ours));
    found["spec"]["ports"] = json!([{"port": 80}, {"port": 81}]);
    assert!(!contains(&found, &ours), "a listener was removed");
    found["spec"]["ports"] = json!([{"port": 80}]);
    found["spec"]["type"] = json!("ClusterIP");
    assert!(!contains(&found, &ours));
}

#[test]
fn empty_fields_that_the_api_server_leaves_out_are_no_difference() {
    assert!(contains(&json!({}), &json!({"env": [], "limits": {}, "value": ""})));
    assert!(!contains(&json!({}), &json!({"value": "x"})));
}

#[test]
fn another_gateways_objects_are_not_ours() {
    let found = json!({"metadata": {"ownerReferences": [{"uid": "a"}]}});
    assert!(has_owner(&found, &json!("a")));
    assert!(!has_owner(&found, &json!("b")));
    assert!(!has_owner(&json!({"metadata": {}}), &json!("a")));
}

#[test]
fn addresses_are_those_of_the_load_balancer_or_of_the_service() {
    let balanced = json!({
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.18.1.100"}, {"hostname": "a.elb.amazonaws.com"}]}},
    });
    assert_eq!(
        addresses(&balanced),
        json!([{"type": "IPAddress", "value": "198.18.1.100"}, {"type": "Hostname", "value": "a.elb.amazonaws.com"}])
    );
    let waiting =
        json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1"}, "status": {"loadBalancer": {}}});
    assert_eq!(addresses(&waiting), json!([]), "nobody outside reaches the cluster's address");
    let internal = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1"}});
    assert_eq!(addresses(&internal), json!([{"type": "IPAddress", "value": "10.0.0.1"}]));
}

const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/edge/gateways/public";
const SERVICE: &str = "/api/v1/namespaces/edge/services/public-leno";

fn gateway() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "public", "namespace": "edge", "uid": "u-1"},
        "spec": {"gatewayClassName": "leno", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    })
}

fn key() -> ObjectKey {
    ObjectKey::new(Kind::Gateway, "edge", "public")
}

fn world(controller: &str) -> World {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "leno"}, "spec": {"controllerName": controller},
    });
    World::of([class, gateway()].iter().flat_map(|object| leno_apis::parse_json("", object).objects))
}

#[tokio::test]
async fn a_gateway_of_ours_is_run_once_and_has_its_address() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    let (mut gateways, world) = (Gateways::default(), world(CONTROLLER));
    gateways.run(&fake.cluster(), &world).await.unwrap();
    let written = [
        "/api/v1/namespaces/edge/serviceaccounts/public-leno",
        "/apis/apps/v1/namespaces/edge/deployments/public-leno",
        SERVICE,
        &format!("{GATEWAY}/status"),
    ];
    assert_eq!(fake.writes(), written);
    assert_eq!(
        fake.get(GATEWAY)["status"]["addresses"],
        json!([{"type": "IPAddress", "value": "198.18.1.100"}])
    );
    // A new leader finds everything in order.
    Gateways::default().run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(fake.writes().len(), written.len());
    // Somebody takes a port away.
    let mut service = fake.get(SERVICE);
    service["spec"]["ports"] = json!([]);
    fake.put(SERVICE, service);
    gateways.look_again();
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(fake.writes()[written.len()..], [SERVICE]);
}

#[tokio::test]
async fn an_object_of_somebody_elses_is_not_touched() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    fake.put(SERVICE, json!({"metadata": {"name": "public-leno"}, "spec": {"type": "ClusterIP"}}));
    let mut gateways = Gateways::default();
    gateways.run(&fake.cluster(), &world(CONTROLLER)).await.unwrap();
    assert!(!fake.writes().contains(&SERVICE.to_owned()));
    let why = "Service edge/public-leno is there already and is not this Gateway's";
    assert_eq!(gateways.programmed(&key()), Programmed::Is(Condition::no(NO_RESOURCES, why)));
    assert_eq!(fake.get(SERVICE)["spec"]["type"], "ClusterIP");
}

#[tokio::test]
async fn what_the_api_server_refuses_is_in_the_status_until_it_does_not() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    fake.forbid(SERVICE);
    let (mut gateways, world) = (Gateways::default(), world(CONTROLLER));
    gateways.run(&fake.cluster(), &world).await.unwrap();
    let why = "Service edge/public-leno of a Gateway cannot be applied: exceeded quota";
    assert_eq!(gateways.programmed(&key()), Programmed::Is(Condition::no(NO_RESOURCES, why)));
    fake.permit(SERVICE);
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(gateways.programmed(&key()), Programmed::Is(Condition::yes("Programmed")));
}

#[tokio::test]
async fn a_gateway_that_asks_for_what_cannot_be_is_not_programmed() {
    let fake = Fake::start().await;
    let mut gateway = gateway();
    gateway["metadata"]["annotations"] = json!({"networking.istio.io/service-type": "ExternalName"});
    let objects = world(CONTROLLER)
        .iter()
        .cloned()
        .chain(leno_apis::parse_json("", &gateway).objects)
        .collect::<Vec<_>>();
    let mut gateways = Gateways::default();
    gateways.run(&fake.cluster(), &World::of(objects)).await.unwrap();
    assert!(matches!(gateways.programmed(&key()), Programmed::Is(Condition { reason: INVALID, .. })));
}

#[tokio::test]
async fn a_gateway_that_was_made_anew_gets_its_address_anew() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    let mut gateways = Gateways::default();
    gateways.run(&fake.cluster(), &world(CONTROLLER)).await.unwrap();
    let mut again = gateway();
    again["metadata"]["uid"] = json!("u-2");
    fake.put(GATEWAY, again.clone());
    let objects = world(CONTROLLER)
        .iter()
        .cloned()
        .chain(leno_apis::parse_json("", &again).objects)
        .collect::<Vec<_>>();
    fake.remove("/api/v1/namespaces/edge/serviceaccounts/public-leno");
    fake.remove("/apis/apps/v1/namespaces/edge/deployments/public-leno");
    fake.remove(SERVICE);
    gateways.run(&fake.cluster(), &World::of(objects)).await.unwrap();
    assert_eq!(fake.get(GATEWAY)["status"]["addresses"][0]["value"], "198.18.1.100");
}

#[tokio::test]
async fn gateways_of_other_controllers_and_revisions_are_left_alone() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    Gateways::default().run(&fake.cluster(), &world("example.com/other")).await.unwrap();
    let mut cluster = fake.cluster();
    cluster.config.injection.revision = "canary".to_owned();
    Gateways::default().run(&cluster, &world(CONTROLLER)).await.unwrap();
    cluster = fake.cluster();
    cluster.config.gateways.deploy = false;
    Gateways::default().run(&cluster, &world(CONTROLLER)).await.unwrap();
    assert_eq!(fake.writes(), Vec::<String>::new());
}

const MAP: &str = "/api/v1/namespaces/edge/configmaps/public";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/edge/deployments/public-leno";

/// A world with a Gateway that refers to parameters.
fn with_parameters() -> World {
    let mut gateway = gateway();
    gateway["spec"]["infrastructure"] =
        json!({"parametersRef": {"group": "", "kind": "ConfigMap", "name": "public"}});
    let others = world(CONTROLLER);
    World::of(others.iter().cloned().chain(leno_apis::parse_json("", &gateway).objects))
}

fn map(deployment: &str) -> Value {
    json!({"metadata": {"name": "public"}, "data": {"deployment": deployment}})
}

#[tokio::test]
async fn parameters_change_what_is_applied_and_what_they_no_longer_say_is_applied_again() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    fake.put(MAP, map("spec: {replicas: 3}"));
    let (mut gateways, world) = (Gateways::default(), with_parameters());
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(fake.get(DEPLOYMENT)["spec"]["replicas"], 3);
    let writes = fake.writes().len();
    // Read again in the next full round; a field that was taken away makes a difference although nothing else does.
    fake.put(MAP, map(""));
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(fake.writes().len(), writes);
    gateways.look_again();
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(fake.writes()[writes..], [DEPLOYMENT]);
    assert!(fake.get(DEPLOYMENT)["spec"].get("replicas").is_none());
}

#[tokio::test]
async fn parameters_that_cannot_be_used_are_said_and_leave_what_runs_as_it_is() {
    let fake = Fake::start().await;
    fake.put(GATEWAY, gateway());
    let (mut gateways, world) = (Gateways::default(), with_parameters());
    gateways.run(&fake.cluster(), &world).await.unwrap();
    let why = "there is no ConfigMap public in the Gateway's namespace";
    assert_eq!(gateways.rejected(&key()), Some(Condition::no("InvalidParameters", why)));
    assert_eq!(fake.writes(), Vec::<String>::new());
    fake.put(MAP, map("spec: {replicas: 3}"));
    gateways.run(&fake.cluster(), &world).await.unwrap();
    assert_eq!(gateways.rejected(&key()), None);
    let running = fake.get(DEPLOYMENT);
    fake.put(MAP, map("spec: {selector: {}}"));
    gateways.look_again();
    gateways.run(&fake.cluster(), &world).await.unwrap();
    let why = "ConfigMap public, key deployment: spec.selector is not for parameters to change";
    assert_eq!(gateways.rejected(&key()), Some(Condition::no("InvalidParameters", why)));
    assert_eq!(fake.get(DEPLOYMENT), running);
}
