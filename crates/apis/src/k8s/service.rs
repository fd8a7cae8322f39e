//! Service.

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, boolean, choice, integer, name, port, spanned, text};
use crate::diagnostic::Spanned;
use crate::yaml::Value;

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// How it is exposed.
    pub type_: ServiceType,
    /// `spec.clusterIPs`, or `spec.clusterIP`; without `None`.
    pub cluster_ips: Vec<String>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Labels of its pods; empty when its endpoints are managed by hand.
    pub selector: BTreeMap<String, String>,
    /// Name that an `ExternalName` service stands for.
    pub external_name: Option<String>,
    /// Whether endpoints that are not ready are listed too.
    pub publish_not_ready_addresses: bool,
    /// `internalTrafficPolicy: Local`.
    pub internal_traffic_local: bool,
    /// `trafficDistribution`, such as `PreferClose`.
    pub traffic_distribution: Option<Spanned<String>>,
    /// `sessionAffinity: ClientIP`.
    pub client_ip_affinity: bool,
    /// Where its load balancer answers: addresses and names, from `status.loadBalancer.ingress`.
    pub ingress: Vec<String>,
}

/// How a service is exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the API")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    /// Name; empty when the only port has none.
    pub name: String,
    /// Port of the service, and where it was written.
    pub port: Spanned<u16>,
    /// Port of the pods; absent means the same number.
    pub target_port: Option<TargetPort>,
    /// Transport.
    pub protocol: Protocol,
    /// Application protocol, such as `http`, `grpc`, `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// Port of the pods behind a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container port.
    Name(String),
}

const TYPES: &[(&str, ServiceType)] = &[
    ("ClusterIP", ServiceType::ClusterIp),
    ("NodePort", ServiceType::NodePort),
    ("LoadBalancer", ServiceType::LoadBalancer),
    ("ExternalName", ServiceType::ExternalName),
];
pub(super) const PROTOCOLS: &[(&str, Protocol)] =
    &[("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];

pub(crate) fn service(o: &mut Fields<'_>) -> Option<Service> {
    let ingress = o.or("status", Vec::new(), ingress)?;
    o.req("spec", |value| {
        value.object_partly(|o| {
            let cluster_ip = o.opt("clusterIP", text);
            let mut cluster_ips = o.list("clusterIPs", text);
            if cluster_ips.is_empty() {
                cluster_ips.extend(cluster_ip);
            }
            let headless = cluster_ips.iter().any(|ip| ip == "None");
            cluster_ips.retain(|ip| ip != "None" && !ip.is_empty());
            let ports = o.list("ports", service_port);
            let selector = o.map("selector", text);
            Some(Service {
                type_: o.or("type", ServiceType::ClusterIp, choice(TYPES))?,
                cluster_ips,
                headless,
                ports,
                selector,
                external_name: o.opt("externalName", name),
                publish_not_ready_addresses: o.or("publishNotReadyAddresses", false, boolean)?,
                internal_traffic_local: o.or(
                    "internalTrafficPolicy",
                    false,
                    choice(&[("Cluster", false), ("Local", true)]),
                )?,
                traffic_distribution: o.opt("trafficDistribution", spanned(text)),
                client_ip_affinity: o.or(
                    "sessionAffinity",
                    false,
                    choice(&[("None", false), ("ClientIP", true)]),
                )?,
                ingress,
            })
        })
    })
}

fn ingress(value: Cursor<'_>) -> Option<Vec<String>> {
    let entry = |value: Cursor<'_>| {
        value.object_partly(|o| {
            let address = o.opt("ip", text);
            Some(address.or(o.opt("hostname", text)))
        })
    };
    let entries = value.object_partly(|o| {
        let entries = |value: Cursor<'_>| value.object_partly(|o| Some(o.list("ingress", entry)));
        o.or("loadBalancer", Vec::new(), entries)
    })?;
    Some(entries.into_iter().flatten().collect())
}

fn service_port(value: Cursor<'_>) -> Option<ServicePort> {
    value.object_partly(|o| {
        Some(ServicePort {
            name: o.or("name", String::new(), text)?,
            port: o.req("port", spanned(port))?,
            target_port: o.opt("targetPort", target_port),
            protocol: o.or("protocol", Protocol::Tcp, choice(PROTOCOLS))?,
            app_protocol: o.opt("appProtocol", text),
        })
    })
}

/// A number or a name. Zero, which templates write for "not set", is refused.
pub(super) fn target_port(value: Cursor<'_>) -> Option<TargetPort> {
    match &value.node().value {
        Value::Int(_) => integer(1, 65535)(value).map(TargetPort::Number),
        Value::Text(text) => Some(match text.parse::<u16>() {
            Ok(number) if number > 0 => TargetPort::Number(number),
            _ => TargetPort::Name(text.clone()),
        }),
        _ => {
            value.wrong_type("a port number or name");
            None
        }
    }
}
