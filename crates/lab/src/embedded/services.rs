//! Services with the addresses that a cluster would give them, and the names they are found by.

use std::net::IpAddr;

use leno_apis::{Object, k8s};

use super::{Addresses, PlannedPort};

/// A service, as cluster DNS and callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedService {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster IPs; empty for headless and external ones.
    pub addresses: Vec<IpAddr>,
    /// Whether the address is ours, not the manifest's.
    pub allotted: bool,
    /// Whether its name stands for its pods.
    pub headless: bool,
    /// The labels of its pods.
    pub selector: Vec<(String, String)>,
    /// Its TCP ports.
    pub ports: Vec<PlannedPort>,
}

impl PlannedService {
    /// The service of a manifest.
    pub(super) fn of(service: &Object<k8s::Service>, addresses: &mut Addresses) -> Self {
        let spec = &service.spec;
        let mut own: Vec<IpAddr> = spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let allotted = own.is_empty() && !spec.headless && spec.external_name.is_none();
        if allotted {
            own.push(addresses.service(service.namespace(), service.name()));
        }
        let tcp = spec.ports.iter().filter(|port| port.protocol == k8s::Protocol::Tcp);
        Self {
            namespace: service.namespace().to_owned(),
            name: service.name().to_owned(),
            addresses: own,
            allotted,
            headless: spec.headless,
            selector: spec.selector.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            ports: tcp
                .map(|port| PlannedPort {
                    port: port.port.value,
                    name: port.name.clone(),
                    app_protocol: port.app_protocol.clone(),
                })
                .collect(),
        }
    }

    /// Whether pods of `namespace` with these labels are behind it.
    pub fn selects<'a>(&self, namespace: &str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.namespace == namespace
            && !self.selector.is_empty()
            && self.selector.iter().all(|(key, value)| label(key) == Some(value))
    }
}

/// The service that a pod of `namespace` means by `host`.
pub fn find_service<'a>(
    services: &'a [PlannedService],
    host: &str,
    namespace: &str,
) -> Option<&'a PlannedService> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let host = host.strip_suffix(".cluster.local").unwrap_or(&host);
    let host = host.strip_suffix(".svc").unwrap_or(host);
    let (name, namespace) = host.split_once('.').unwrap_or((host, namespace));
    services.iter().find(|service| service.name == name && service.namespace == namespace)
}
