//! Control planes that tell each other what they have.

use leno_control::config::PeerConfig;
use leno_model::{EndpointSet, Resource};

use crate::rig::{Cluster, Mesh, pod};

const CART: &str = "scope/shop/shop/cart.shop.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn exports_arrive_stay_as_stale_when_their_cluster_is_gone_and_return() {
    let mesh = Mesh::new();
    let mut west = mesh.cluster("west", 61);
    let mut east = mesh.cluster("east", 62);
    introduce(&mut west, &mut east);
    west.start().await;
    east.start().await;
    let mut cart = west.cart(&mesh).await;
    cart.subscribe(CART).await;
    let both = cart.until(|has| set(has).is_some_and(|set| clusters(set) == ["east", "west"])).await;
    assert!(set(&both).unwrap().stale.is_empty());

    east.stop().await;
    let gone = cart.until(|has| set(has).is_some_and(|set| !set.stale.is_empty())).await;
    assert_eq!(clusters(set(&gone).unwrap()), ["east", "west"], "the last known endpoints stay");
    let status = west.api("/v1/status").await;
    assert_eq!(status["peers"][0]["stale"], true);
    assert_eq!(status["peers"][0]["connected"], false);

    // The survivor's own restart does not forget them either.
    west.stop().await;
    west.start().await;
    let services = west.api("/v1/services").await;
    let all = services["services"].as_array().unwrap();
    let found = all.iter().find(|it| it["name"] == "cart").unwrap();
    assert_eq!(found["endpoints"]["clusters"]["east"], 1);
    assert_eq!(found["endpoints"]["stale"][0], "east");

    std::fs::write(east.manifest("more.yaml"), pod("shop", "cart", "cart-1", 63)).unwrap();
    east.start().await;
    let back =
        cart.until(|has| set(has).is_some_and(|set| set.stale.is_empty() && set.endpoints.len() == 3)).await;
    assert_eq!(clusters(set(&back).unwrap()), ["east", "east", "west"]);
    west.stop().await;
    east.stop().await;
}

fn introduce(a: &mut Cluster, b: &mut Cluster) {
    let peer = |of: &Cluster| PeerConfig {
        cluster: of.config.cluster.clone(),
        addresses: vec![of.config.listen.into()],
    };
    (a.config.peers, b.config.peers) = (vec![peer(b)], vec![peer(a)]);
}

fn set(has: &[Resource]) -> Option<&EndpointSet> {
    has.iter().find_map(|it| match it {
        Resource::Endpoints(set) => Some(&**set),
        _ => None,
    })
}

fn clusters(set: &EndpointSet) -> Vec<&str> {
    let mut clusters: Vec<&str> = set.endpoints.iter().map(|it| it.cluster.as_str()).collect();
    clusters.sort_unstable();
    clusters
}
