//! What one control plane tells another: the wire form of a cluster's exports.
//!
//! Invariant: what is read back is about the cluster that it comes from, or it is not read.

use std::net::IpAddr;

use leno_compile::ExportedService;
use leno_model::{ClusterName, Endpoint, IndexPort, NetworkName, Port, ServiceId, TrustDomain, Tunnel};
use leno_xds::{EncodedResource, ResourceKey};
use serde::{Deserialize, Serialize};

use crate::{config::ControlConfig, publish::Encoded};

/// The kind's number on the wire; those of the model are below it.
pub(crate) const KIND: u32 = 100;

/// The name under which a cluster speaks of itself; a service's name has a `/`.
const ABOUT: &str = "cluster";

/// One thing that a cluster tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Told {
    /// About itself.
    Cluster(About),
    /// A service of its.
    Service(Offer),
}

/// What a cluster says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) cluster: ClusterName,
    pub(crate) network: NetworkName,
    pub(crate) gateways: Vec<(IpAddr, Port)>,
}

/// A service that a cluster offers to the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    service: ServiceId,
    ports: Vec<IndexPort>,
    endpoints: Vec<Endpoint>,
}

/// Why something that was told is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Disbelief {
    /// It does not read.
    #[error("{name} does not read as an export")]
    Malformed {
        name: String,
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// It holds another thing than its name says.
    #[error("what is named {name} holds another thing")]
    Misnamed { name: String },
    /// It is about another cluster.
    #[error("{cluster} speaks about {about}, which is another cluster")]
    OtherCluster { cluster: ClusterName, about: ClusterName },
    /// It offers an endpoint that is not reached by mTLS with a known identity.
    #[error("{service} has an endpoint that is not reached by mTLS with an identity of its own")]
    Unproved { service: ServiceId },
    /// It names an identity that no workload of the mesh can have.
    #[error("{service} has an endpoint whose identity is not of the trust domain {domain}")]
    OtherTrustDomain { service: ServiceId, domain: TrustDomain },
}

impl From<Offer> for ExportedService {
    fn from(offer: Offer) -> Self {
        let Offer { service, ports, endpoints } = offer;
        Self { service, ports, endpoints }
    }
}

/// What this cluster tells, encoded. Equal content keeps its bytes and version, so nobody is told twice.
pub(crate) fn tell(
    config: &ControlConfig,
    gateways: &[(IpAddr, Port)],
    exports: &[ExportedService],
) -> Encoded {
    let about = About {
        cluster: config.cluster.clone(),
        network: config.network.clone(),
        gateways: gateways.to_vec(),
    };
    let mut told = vec![(ABOUT.to_owned(), Told::Cluster(about))];
    for export in exports.iter().filter(|export| is_exported(config, &export.service)) {
        let ExportedService { service, ports, endpoints } = export.clone();
        told.push((service.to_string(), Told::Service(Offer { service, ports, endpoints })));
    }
    let mut encoded = Encoded::new();
    for (name, told) in told {
        let key = ResourceKey::new(KIND, name);
        match rmp_serde::to_vec_named(&told) {
            Ok(payload) => {
                encoded.insert(key.clone(), EncodedResource::new(key, payload.into(), Vec::new()));
            }
            Err(error) => tracing::error!(%key, %error, "not told to other clusters"),
        }
    }
    encoded
}

fn is_exported(config: &ControlConfig, service: &ServiceId) -> bool {
    let Some(patterns) = &config.exported else { return true };
    patterns.iter().any(|pattern| match pattern.split_once('/') {
        Some((namespace, name)) => {
            namespace == service.namespace.as_str() && (name == "*" || name == service.short_name())
        }
        None => false,
    })
}

/// Reads what `cluster` told, and believes it only about itself.
pub(crate) fn believe(
    cluster: &ClusterName,
    domain: &TrustDomain,
    resource: &EncodedResource,
) -> Result<Told, Disbelief> {
    let name = || resource.key.name.to_string();
    let told: Told = rmp_serde::from_slice(&resource.payload)
        .map_err(|source| Disbelief::Malformed { name: name(), source })?;
    match &told {
        Told::Cluster(about) => {
            if *resource.key.name != *ABOUT {
                return Err(Disbelief::Misnamed { name: name() });
            }
            only(cluster, &about.cluster)?;
        }
        Told::Service(offer) => {
            if *resource.key.name != *offer.service.to_string() {
                return Err(Disbelief::Misnamed { name: name() });
            }
            for endpoint in &offer.endpoints {
                only(cluster, &endpoint.cluster)?;
                let service = offer.service.clone();
                // Only such are offered. Another one would take this cluster's requests in plaintext, or anywhere.
                let Some(identity) = endpoint.identity.as_ref().filter(|_| endpoint.tunnel == Tunnel::Mesh)
                else {
                    return Err(Disbelief::Unproved { service });
                };
                if identity.trust_domain() != domain.as_str() {
                    return Err(Disbelief::OtherTrustDomain { service, domain: domain.clone() });
                }
            }
        }
    }
    Ok(told)
}

fn only(cluster: &ClusterName, about: &ClusterName) -> Result<(), Disbelief> {
    if cluster == about {
        return Ok(());
    }
    Err(Disbelief::OtherCluster { cluster: cluster.clone(), about: about.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use leno_model::{EndpointState, Locality, SpiffeId, Weight, WorkloadId};

    use super::*;

    fn config(exported: Option<Vec<String>>) -> ControlConfig {
        let text = r#"{"cluster": "west", "listen": "127.0.0.1:0", "api": "127.0.0.1:0", "paths": [], "ca_dir": ""}"#;
        let mut config: ControlConfig = serde_json::from_str(text).unwrap();
        config.exported = exported;
        config
    }

    fn cart() -> ExportedService {
        ExportedService { service: ServiceId::kubernetes("shop", "cart"), ports: vec![], endpoints: vec![] }
    }

    #[test]
    fn a_cluster_is_believed_only_about_itself() {
        let told = tell(&config(None), &[], &[cart()]);
        let domain = TrustDomain::default();
        for resource in told.values() {
            believe(&"west".into(), &domain, resource).unwrap();
        }
        let about = &told[&ResourceKey::new(KIND, ABOUT)];
        assert!(matches!(believe(&"east".into(), &domain, about), Err(Disbelief::OtherCluster { .. })));
    }

    #[test]
    fn an_endpoint_that_would_be_called_without_mtls_is_not_believed() {
        let domain = TrustDomain::default();
        let endpoint = Endpoint {
            workload: WorkloadId::new("shop", "cart-0"),
            uid: "".into(),
            address: [127, 0, 0, 1].into(),
            ports: BTreeMap::new(),
            tunnel: Tunnel::Mesh,
            identity: Some(SpiffeId::workload(&domain, "shop", "cart").unwrap()),
            state: EndpointState::Ready,
            locality: Locality::default(),
            cluster: "west".into(),
            network: "".into(),
            labels: BTreeMap::new(),
            owner: "cart".into(),
            weight: Weight(1),
        };
        let believed = |endpoint: Endpoint| {
            let told = tell(&config(None), &[], &[ExportedService { endpoints: vec![endpoint], ..cart() }]);
            let name = cart().service.to_string();
            believe(&"west".into(), &domain, &told[&ResourceKey::new(KIND, name)])
        };
        assert!(believed(endpoint.clone()).is_ok());
        let elsewhere = Tunnel::Dns { host: "collector.example.com".into() };
        for tunnel in [Tunnel::Plain, elsewhere] {
            let plain = Endpoint { tunnel, ..endpoint.clone() };
            assert!(matches!(believed(plain), Err(Disbelief::Unproved { .. })));
        }
        let nobody = Endpoint { identity: None, ..endpoint };
        assert!(matches!(believed(nobody), Err(Disbelief::Unproved { .. })));
    }

    #[test]
    fn what_is_misnamed_is_not_believed() {
        let told = tell(&config(None), &[], &[cart()]);
        let about = &told[&ResourceKey::new(KIND, ABOUT)];
        let key = ResourceKey::new(KIND, "shop/cart");
        let renamed = EncodedResource::new(key, about.payload.clone(), Vec::new());
        let believed = believe(&"west".into(), &TrustDomain::default(), &renamed);
        assert!(matches!(believed, Err(Disbelief::Misnamed { .. })));
    }

    #[test]
    fn only_what_the_configuration_names_is_told() {
        let names = |exported: &[&str]| {
            let exported = exported.iter().map(|&pattern| pattern.to_owned()).collect();
            tell(&config(Some(exported)), &[], &[cart()]).len() - 1
        };
        assert_eq!(names(&["shop/cart"]), 1);
        assert_eq!(names(&["shop/*"]), 1);
        assert_eq!(names(&["shop/other", "other/*"]), 0);
    }
}
