//! Where callers of other networks come in: the addresses of this cluster's east-west gateways.
//!
//! They are found by Istio's convention, at Services with the label `topology.istio.io/network`, on port 15443 unless the label
//! `networking.istio.io/gatewayPort` names another. A cloud may give a load balancer a name (AWS does): other clusters are told its
//! addresses, which are asked for again and again.
//!
//! Invariants: nothing is told before it has been looked at; a Service outside the control plane's own namespace leads nobody
//! anywhere (anybody may make one, and an Istio beside us has one whose proxies cannot speak with ours); a name that does not
//! resolve at the moment keeps the addresses that it had.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use leno_apis::AnyObject;
use leno_compile::{EAST_WEST_PORT, MeshSettings, NETWORK_LABEL};
use leno_model::Port;
use leno_sources::Reading;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{input::Said, peering::dial::resolve, store::Gateways};

/// The port, where it is another.
const PORT_LABEL: &str = "networking.istio.io/gatewayPort";
/// Names are asked for again after this.
const AGAIN: Duration = Duration::from_secs(30);
/// At least so long between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// So often names that do not resolve are asked for before anything is told at all.
const FIRST_LOOKS: u32 = 6;
/// More addresses are not told.
const MOST: usize = 32;

/// Tells of the gateways' addresses whenever they change, until `stop`.
pub(crate) async fn follow(
    mesh: MeshSettings,
    mut said: watch::Receiver<Said>,
    tell: watch::Sender<Option<Gateways>>,
    stop: CancellationToken,
) {
    let mut known = Known::default();
    let mut first_looks = FIRST_LOOKS;
    loop {
        let reading = said.borrow_and_update().reading.clone();
        if let Some(reading) = reading {
            let hosts = hosts(&mesh, &reading);
            let now = known.addresses(&hosts).await;
            if tell.borrow().is_none() && !known.knows(&hosts) && first_looks > 0 {
                first_looks -= 1;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            tell.send_if_modified(|told| {
                let news = told.as_ref() != Some(&now);
                if news {
                    tracing::info!(gateways = ?now, "where callers of other networks come in");
                    *told = Some(now);
                }
                news
            });
        }
        let changed = async {
            let changed = said.changed().await;
            tokio::time::sleep(PAUSE).await;
            changed
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Where the load balancers of the gateways' Services answer: addresses and names.
fn hosts(mesh: &MeshSettings, reading: &Reading) -> BTreeSet<(String, Port)> {
    let mut hosts = BTreeSet::new();
    for object in reading.objects.values() {
        let AnyObject::Service(service) = &**object else { continue };
        let metadata = &service.metadata;
        let of_network =
            metadata.label(NETWORK_LABEL).is_some_and(|network| network == mesh.network.as_str());
        if mesh.network.as_str().is_empty()
            || !of_network
            || *mesh.root_namespace.as_str() != *service.namespace()
        {
            continue;
        }
        let port = match metadata.label(PORT_LABEL) {
            Some(text) => text.parse().ok(),
            None => Some(EAST_WEST_PORT),
        };
        let Some(port) = port.filter(|port| service.spec.ports.iter().any(|it| *it.port == *port)) else {
            tracing::warn!(
                namespace = service.namespace(),
                service = service.name(),
                "a Service of a network without the port of its gateway leads nobody here"
            );
            continue;
        };
        hosts.extend(service.spec.ingress.iter().map(|host| (host.clone(), port)));
    }
    hosts
}

/// What names have resolved to.
#[derive(Default)]
struct Known(BTreeMap<(String, Port), Vec<IpAddr>>);

impl Known {
    /// Whether each of them has an address.
    fn knows(&self, hosts: &BTreeSet<(String, Port)>) -> bool {
        hosts.iter().all(|host| self.0.contains_key(host))
    }

    async fn addresses(&mut self, hosts: &BTreeSet<(String, Port)>) -> Gateways {
        self.0.retain(|host, _| hosts.contains(host));
        for host in hosts {
            match resolve(&host.0, host.1).await {
                Ok(found) => {
                    self.0.insert(host.clone(), found.iter().map(|it| it.ip().to_canonical()).collect());
                }
                Err(error) => tracing::warn!(%error, "an east-west gateway keeps the addresses that it had"),
            }
        }
        let all = self.0.iter().flat_map(|((_, port), found)| found.iter().map(|ip| (*ip, *port)));
        all.collect::<BTreeSet<_>>().into_iter().take(MOST).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "{apiVersion: v1, kind: Service, metadata: {name: eastwest, namespace: leno-system, labels: {topology.istio.io/network: one}}, \
        spec: {type: LoadBalancer, ports: [{name: tls, port: 15443}]}, status: {loadBalancer: {ingress: [{ip: 198.18.1.100}, {hostname: localhost}]}}}";

    fn reading(service: &str) -> Reading {
        let parsed = leno_apis::parse("service.yaml", service);
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
        let object = parsed.objects.into_iter().next().unwrap();
        Reading { objects: [(object.reference(), object)].into(), ..Reading::default() }
    }

    fn found(service: &str, network: &str) -> Vec<(String, Port)> {
        let mesh = MeshSettings { network: network.into(), ..MeshSettings::default() };
        hosts(&mesh, &reading(service)).into_iter().collect()
    }

    #[test]
    fn a_gateways_service_is_known_by_the_label_of_its_network() {
        let both = [("198.18.1.100".to_owned(), 15443), ("localhost".to_owned(), 15443)];
        assert_eq!(found(GATEWAY, "one"), both);
        assert_eq!(found(GATEWAY, "two"), [], "the network is another");
        assert_eq!(
            found(&GATEWAY.replace("network: one", "network: ''"), ""),
            [],
            "there is only one network"
        );
        for elsewhere in ["shop", "istio-system"] {
            assert_eq!(found(&GATEWAY.replace("leno-system", elsewhere), "one"), [], "{elsewhere}");
        }
    }

    #[test]
    fn its_port_is_15443_or_the_one_that_its_label_names() {
        let labelled =
            GATEWAY.replace("network: one", "network: one, networking.istio.io/gatewayPort: '443'");
        assert_eq!(found(&labelled, "one"), [], "it has no such port");
        assert_eq!(found(&labelled.replace("port: 15443", "port: 443"), "one")[0].1, 443);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_told_before_the_first_reading_and_names_are_waited_for_a_while() {
        let (said_in, said) = watch::channel(Said::default());
        let (tell, mut told) = watch::channel(None);
        let stop = CancellationToken::new();
        let mesh = MeshSettings { network: "one".into(), ..MeshSettings::default() };
        let following = tokio::spawn(follow(mesh, said, tell, stop.clone()));
        tokio::time::sleep(AGAIN).await;
        assert!(told.borrow_and_update().is_none());
        let reading = reading(&GATEWAY.replace("localhost", "gone.invalid"));
        said_in.send_modify(|said| said.reading = Some(reading.into()));
        told.changed().await.unwrap();
        assert_eq!(
            *told.borrow(),
            Some(vec![([198, 18, 1, 100].into(), 15443)]),
            "what is known is told then"
        );
        stop.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn names_are_told_as_addresses_and_keep_them_while_they_do_not_resolve() {
        let mut known = Known::default();
        let of = |hosts: &[&str]| hosts.iter().map(|&host| (host.to_owned(), 15443)).collect();
        let found = known.addresses(&of(&["localhost", "198.18.1.100"])).await;
        assert!(found.contains(&([127, 0, 0, 1].into(), 15443)), "{found:?}");
        assert!(found.contains(&([198, 18, 1, 100].into(), 15443)), "{found:?}");
        known.0.insert(("gone.invalid".to_owned(), 15443), vec![[198, 18, 1, 101].into()]);
        let kept = known.addresses(&of(&["gone.invalid"])).await;
        assert_eq!(kept, [([198, 18, 1, 101].into(), 15443)]);
        assert_eq!(known.addresses(&BTreeSet::new()).await, []);
    }
}
