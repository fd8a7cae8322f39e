//! EndpointSlice.

use std::net::IpAddr;

use super::service::{PROTOCOLS, Protocol};
use crate::decode::{Cursor, Fields, boolean, choice, port, text};

/// Some of the endpoints of a service, which its label `kubernetes.io/service-name` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Ports of all of them.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses as written; of a pod, one.
    pub addresses: Vec<String>,
    /// Whether it takes traffic; absent means it does.
    pub ready: bool,
    /// Whether it answers, also while it ends.
    pub serving: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Pod behind it.
    pub pod: Option<String>,
    /// Namespace of the pod, when written.
    pub pod_namespace: Option<String>,
    /// Machine it runs on.
    pub node_name: Option<String>,
    /// Zone it runs in.
    pub zone: Option<String>,
}

impl Endpoint {
    /// The addresses that are IP addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|address| address.parse().ok())
    }
}

/// A port of the endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the service's port; empty when it has none.
    pub name: String,
    /// Number; absent means all ports.
    pub port: Option<u16>,
    /// Transport.
    pub protocol: Protocol,
    /// Application protocol.
    pub app_protocol: Option<String>,
}

pub(crate) fn endpoint_slice(o: &mut Fields<'_>) -> Option<EndpointSlice> {
    Some(EndpointSlice {
        address_type: o.req("addressType", text)?,
        endpoints: o.list("endpoints", endpoint),
        ports: o.list("ports", endpoint_port),
    })
}

fn endpoint(value: Cursor<'_>) -> Option<Endpoint> {
    value.object_partly(|o| {
        let (ready, serving, terminating) = o.or("conditions", (true, true, false), |value| {
            value.object_partly(|o| {
                let ready = o.or("ready", true, boolean)?;
                Some((ready, o.or("serving", ready, boolean)?, o.or("terminating", false, boolean)?))
            })
        })?;
        let (pod, pod_namespace) = o.or("targetRef", (None, None), |value| {
            value.object_partly(|o| {
                let is_pod = o.opt("kind", text).is_some_and(|kind| kind == "Pod");
                let (name, namespace) = (o.opt("name", text), o.opt("namespace", text));
                Some(if is_pod { (name, namespace) } else { (None, None) })
            })
        })?;
        Some(Endpoint {
            addresses: o.list("addresses", text),
            ready,
            serving,
            terminating,
            pod,
            pod_namespace,
            node_name: o.opt("nodeName", text),
            zone: o.opt("zone", text),
        })
    })
}

fn endpoint_port(value: Cursor<'_>) -> Option<EndpointPort> {
    value.object_partly(|o| {
        Some(EndpointPort {
            name: o.or("name", String::new(), text)?,
            port: o.opt("port", port),
            protocol: o.or("protocol", Protocol::Tcp, choice(PROTOCOLS))?,
            app_protocol: o.opt("appProtocol", text),
        })
    })
}
