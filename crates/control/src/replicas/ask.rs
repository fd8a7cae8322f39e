//! The asking side: what the leader does before it says that all proxies have something.
//!
//! Invariant: a replica that is ready and does not answer in time has acknowledged nothing.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use leno_apis::{AnyObject, Kind};
use leno_compile::World;
use leno_identity::{CONTROL_PLANE_DNS_NAME, ExpectedPeers, IdentityStore, client_config};
use leno_xds::{
    proto::replicas::{
        AcknowledgedRequest, AcknowledgedResponse, ObjectForm, replicas_client::ReplicasClient,
    },
    transport::channel,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use crate::input::describe;

/// For one replica, connecting included.
const PATIENCE: Duration = Duration::from_secs(1);
/// Replicas that are asked at a time.
const AT_A_TIME: usize = 8;

/// The label that names an EndpointSlice's Service.
const SERVICE: &str = "kubernetes.io/service-name";
/// The port's name, in the control plane's Service.
const PORT: &str = "grpc-xds";

/// Another replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// Its pod.
    pod: String,
    address: SocketAddr,
}

/// The ready replicas behind a Service, but for the one of the pod `own`.
pub(crate) fn others(world: &World, namespace: &str, service: &str, own: &str) -> Vec<Other> {
    let mut others = BTreeMap::new();
    for object in world.of_kind(Kind::EndpointSlice) {
        let AnyObject::EndpointSlice(slice) = &**object else { continue };
        let port = slice.spec.ports.iter().find(|port| port.name == PORT).and_then(|port| port.port);
        let (Some(port), true) = (port, slice.namespace() == namespace) else { continue };
        if slice.metadata.label(SERVICE) != Some(service) {
            continue;
        }
        for endpoint in slice.spec.endpoints.iter().filter(|endpoint| endpoint.ready) {
            let Some(ip) = endpoint.ips().next() else { continue };
            let pod = endpoint.pod.clone().unwrap_or_else(|| ip.to_string());
            if pod != own {
                // A pod of two address families is in two slices.
                others.entry(pod).or_insert_with(|| SocketAddr::new(ip, port));
            }
        }
    }
    others.into_iter().map(|(pod, address)| Other { pod, address }).collect()
}

/// What the others said, all together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Proxies that are connected to them.
    pub(crate) connected: usize,
    /// Of each object, whether all that answered have acknowledged it.
    pub(crate) acknowledged: Vec<bool>,
    /// The pods of those that did not answer, in order.
    pub(crate) silent: Vec<String>,
}

/// Asks the others about objects, as this control plane; they have the same identity.
pub(crate) async fn ask(others: Vec<Other>, store: &Arc<IdentityStore>, objects: Vec<ObjectForm>) -> Said {
    let expected = ExpectedPeers::new(store.certificate().map(|own| own.spiffe_id().clone()));
    let config = client_config(store, &expected, &[b"h2"]);
    let mut said = Said { connected: 0, acknowledged: vec![true; objects.len()], silent: Vec::new() };
    let answers = stream::iter(others).map(|Other { pod, address }| {
        let (config, objects) = (config.clone(), objects.clone());
        async move { (pod, timeout(PATIENCE, ask_one(address, config, objects)).await) }
    });
    let mut answers = answers.buffer_unordered(AT_A_TIME);
    while let Some((pod, answer)) = answers.next().await {
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match answer {
            Ok(AcknowledgedResponse { connected, acknowledged }) if acknowledged.len() == objects.len() => {
                said.connected += connected as usize;
                for (all, one) in said.acknowledged.iter_mut().zip(acknowledged) {
                    *all &= one;
                }
            }
            Ok(_) => said.silent.push(pod),
            Err(error) => {
                tracing::debug!(pod, error = describe(&error), "another replica does not answer");
                said.silent.push(pod);
            }
        }
    }
    said.silent.sort();
    said
}

async fn ask_one(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    objects: Vec<ObjectForm>,
) -> io::Result<AcknowledgedResponse> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(CONTROL_PLANE_DNS_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let mut client = ReplicasClient::new(channel(stream).await.map_err(io::Error::other)?);
    let answer = client.acknowledged(AcknowledgedRequest { objects }).await.map_err(io::Error::other)?;
    Ok(answer.into_inner())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, service: &str, endpoints: Value) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "leno-system", "labels": {SERVICE: service}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http-monitoring", "port": 15014}, {"name": PORT, "port": 15012}],
        })
    }

    fn endpoint(pod: &str, address: &str, ready: bool) -> Value {
        json!({
            "addresses": [address], "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "leno-system"},
        })
    }

    #[test]
    fn the_others_are_the_ready_endpoints_of_the_own_service() {
        let slices = [
            slice(
                "a",
                "leno-control",
                json!([
                    endpoint("leno-control-0", "10.0.0.1", true),
                    endpoint("leno-control-1", "10.0.0.2", true),
                    endpoint("leno-control-2", "10.0.0.3", false),
                ]),
            ),
            slice("b", "leno-control", json!([endpoint("leno-control-1", "10.0.0.9", true)])),
            slice("c", "leno-control-next", json!([endpoint("leno-control-next-0", "10.0.0.4", true)])),
        ];
        let world = World::of(slices.iter().flat_map(|slice| leno_apis::parse_json("", slice).objects));
        let found = others(&world, "leno-system", "leno-control", "leno-control-0");
        let other = |pod: &str, address: &str| Other { pod: pod.into(), address: address.parse().unwrap() };
        assert_eq!(found, [other("leno-control-1", "10.0.0.2:15012")]);
        assert_eq!(others(&world, "elsewhere", "leno-control", "leno-control-0"), []);
    }
}
