//! Online Boutique's manifests, unchanged.

use std::{collections::BTreeSet, fs, path::Path};

use leno_apis::AnyObject;
use serde_json::Value;

use crate::yard::{Yard, data, front_page};

/// What nobody is asked to call: the front page itself, and its service for the outside.
const NOT_CALLED: [&str; 2] = ["frontend", "frontend-external"];

#[tokio::test(flavor = "multi_thread")]
async fn the_shops_front_page_walks_all_its_services_over_grpc() {
    let Some(data) = data("online-boutique") else { return };
    let manifests = data.join("kubernetes-manifests.yaml");
    let yard = Yard::of(&[manifests.clone(), data.join("istio-manifests.yaml")]);
    let mesh = yard.start(&["local"]).await;
    let answer = front_page(&mesh, "local").await.expect("the front page answers");
    assert_eq!(answer["service"], "frontend", "{answer}");
    let mut walked = BTreeSet::new();
    walk(&answer, &mut walked);
    assert_eq!(walked, services(&manifests), "{answer}");

    let calls = answer["calls"].as_array().unwrap();
    let assistant = calls.iter().find(|call| call["target"] == "shoppingassistantservice:80").unwrap();
    let error = assistant["error"].as_str().unwrap_or_default();
    assert_eq!(error, "no such service: shoppingassistantservice", "a failed call, and no more");
    mesh.stop().await;
}

/// The names of all services that were called with success, by whomever; all but the store speak gRPC.
fn walk(answer: &Value, walked: &mut BTreeSet<String>) {
    for call in answer["calls"].as_array().into_iter().flatten() {
        let name = call["target"].as_str().unwrap().split(':').next().unwrap();
        let wanted = if name == "redis-cart" { ("tcp", "ok") } else { ("grpc", "grpc 0") };
        if (call["protocol"].as_str(), call["status"].as_str()) == (Some(wanted.0), Some(wanted.1)) {
            walked.insert(name.to_owned());
        }
        walk(call, walked);
    }
}

fn services(manifests: &Path) -> BTreeSet<String> {
    let parsed = leno_apis::parse("shop.yaml", &fs::read_to_string(manifests).unwrap());
    let names = parsed.objects.iter().filter_map(|object| match &**object {
        AnyObject::Service(service) => Some(service.name().to_owned()),
        _ => None,
    });
    names.filter(|name| !NOT_CALLED.contains(&&**name)).collect()
}
