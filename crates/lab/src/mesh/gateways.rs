//! The gateways that a control plane has compiled, and the one between networks.
//!
//! Must not know: proxies, addresses.

use std::{net::SocketAddr, time::Duration};

use leno_model::{SpiffeId, WorkloadId};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::api;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// The port of the gateway between networks.
pub(super) const EAST_WEST_PORT: u16 = 15443;

/// A gateway, as its control plane describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GatewaySeen {
    /// The workload that serves it.
    pub(super) id: WorkloadId,
    /// Its identity.
    pub(super) identity: SpiffeId,
    /// Whether a pod of the manifests serves it.
    pub(super) has_pod: bool,
    /// The object that asks for it.
    pub(super) object: String,
    /// What it listens for.
    pub(super) listeners: Vec<ListenerSeen>,
}

/// A listener of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerSeen {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) host: String,
}

#[derive(Deserialize)]
struct Answer {
    gateways: Vec<GatewayAnswer>,
}

#[derive(Deserialize)]
struct GatewayAnswer {
    namespace: String,
    name: String,
    identity: SpiffeId,
    has_pod: bool,
    origin: String,
    listeners: Vec<ListenerAnswer>,
}

#[derive(Deserialize)]
struct ListenerAnswer {
    name: String,
    port: u16,
    protocol: Value,
    host: String,
}

/// Tells of the gateways whenever they change, until `stop`. A control plane that is away changes nothing.
pub(super) async fn follow(api: SocketAddr, seen: mpsc::Sender<Vec<GatewaySeen>>, stop: CancellationToken) {
    let mut last = Vec::new();
    loop {
        if let Ok(answer) = api::get_json(api, "/v1/gateways").await
            && let Ok(answer) = serde_json::from_value::<Answer>(answer)
        {
            let now: Vec<_> = answer.gateways.into_iter().map(GatewayAnswer::seen).collect();
            if now != last && seen.send(now.clone()).await.is_err() {
                return;
            }
            last = now;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

impl GatewayAnswer {
    fn seen(self) -> GatewaySeen {
        let Self { namespace, name, identity, has_pod, origin, listeners } = self;
        // `Gateway default/web (web.yaml:3)`: the place is told elsewhere.
        let object = origin.split(" (").next().unwrap_or(&origin).to_owned();
        let listener = |listener: ListenerAnswer| ListenerSeen {
            name: listener.name,
            port: listener.port,
            protocol: protocol(&listener.protocol).to_owned(),
            host: listener.host,
        };
        GatewaySeen {
            id: WorkloadId::new(&namespace, &name),
            identity,
            has_pod,
            object,
            listeners: listeners.into_iter().map(listener).collect(),
        }
    }
}

/// A word for what a listener speaks; the model writes what has details as an object of one field.
fn protocol(protocol: &Value) -> &str {
    let word = protocol.as_str().or_else(|| protocol.as_object()?.keys().next().map(String::as_str));
    match word.unwrap_or("tcp") {
        "tls_passthrough" => "tls",
        "mesh_passthrough" => "mesh",
        word => word,
    }
}

/// The workload that serves the gateway between networks (the name is the compiler's, for its selector).
pub(super) fn east_west_id() -> WorkloadId {
    WorkloadId::new("istio-system", "eastwestgateway")
}

/// The manifest of the gateway between networks.
pub(super) fn east_west_manifest() -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: Gateway
metadata:
  name: leno-eastwest
  namespace: istio-system
spec:
  selector:
    istio: eastwestgateway
  servers:
  - port:
      number: {EAST_WEST_PORT}
      name: tls
      protocol: TLS
    tls:
      mode: AUTO_PASSTHROUGH
    hosts:
    - '*.local'
"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_control_planes_answer_is_understood() {
        let answer = json!({"generation": 1, "gateways": [{
            "namespace": "default", "name": "web", "identity": "spiffe://cluster.local/ns/default/sa/web", "ports": [80],
            "has_pod": false, "origin": "Gateway default/web (web.yaml:3)",
            "listeners": [
                {"name": "http", "port": 80, "protocol": "http", "host": "*", "hosts": []},
                {"name": "https", "port": 443, "protocol": {"https": {}}, "host": "a.example", "hosts": []},
            ],
        }]});
        let answer: Answer = serde_json::from_value(answer).unwrap();
        let seen = answer.gateways.into_iter().map(GatewayAnswer::seen).next().unwrap();
        assert_eq!(seen.object, "Gateway default/web");
        assert_eq!(seen.listeners[1].protocol, "https");
    }

    #[test]
    fn the_gateway_between_networks_is_a_manifest_that_parses() {
        let parsed = leno_apis::parse("eastwest.yaml", &east_west_manifest());
        assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    }
}
