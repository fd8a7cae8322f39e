//! What a backend of a route means at this moment: endpoints in tiers, their security, their names in telemetry.
//!
//! Invariant: a view is made anew when the endpoints or the destination's policy change, and only then.

use std::{cell::RefCell, collections::HashMap, path::Path, rc::Rc, sync::Arc, time::Duration};

use leno_decide::{Limits, ReadyBackend, Tables, locality};
use leno_identity::{
    ExpectedPeers, PlainTrust, client_config, originate::SYSTEM_AUTHORITIES, plain_client_config,
};
use leno_model::{ClientTls, Destination, Endpoint, EndpointSet, Millis, Port, Protocol, ServiceId, Tunnel};
use leno_telemetry::{PeerMeta, ServiceMeta, record::outbound_cluster};
use rustls::ClientConfig;

use super::{
    connect::{ConnectError, Security, Within},
    pool::Version,
};
use crate::{balance::cluster::Cluster, core::Core, preface};

/// An idle connection to a peer is closed by the client after this long; its server waits longer (PAINS P2).
pub(crate) const IDLE: Millis = Millis(60_000);

/// So long an address may take to answer at all when there are others: a lost packet is sent again within it.
const REACH: Duration = Duration::from_millis(1_500);

type Key = (ServiceId, Port, Option<Arc<str>>);

/// Views of the destinations that this core calls.
#[derive(Default)]
pub(crate) struct Targets(RefCell<HashMap<Key, Rc<Target>>>);

/// A view of one destination.
pub(crate) struct Target {
    /// The service.
    pub(crate) service: ServiceId,
    /// Its port.
    pub(crate) port: Port,
    /// What is spoken there.
    pub(crate) protocol: Protocol,
    /// Its endpoints.
    pub(crate) cluster: Cluster,
    /// The limits in force.
    pub(crate) limits: Limits,
    /// Its name in telemetry.
    pub(crate) meta: Arc<ServiceMeta>,
    /// `outbound|PORT|SUBSET|HOST`.
    pub(crate) name: Arc<str>,
    expected: ExpectedPeers,
    sni: Arc<str>,
    /// What a server outside the mesh has to prove; empty for plaintext.
    outside: Arc<str>,
    configs: RefCell<HashMap<&'static [u8], Arc<ClientConfig>>>,
    peers: RefCell<HashMap<Arc<str>, Arc<PeerMeta>>>,
    destination: Arc<Destination>,
    set: Arc<EndpointSet>,
}

impl Targets {
    /// The view of a backend that resolves.
    pub(crate) fn get(&self, core: &Core, tables: &Tables, backend: &ReadyBackend<'_>) -> Rc<Target> {
        let subset = backend.subset.map(|subset| subset.name.clone());
        let key = (backend.destination.service.clone(), backend.port, subset);
        if let Some(target) = self.0.borrow().get(&key)
            && Arc::ptr_eq(&target.destination, backend.destination)
            && Arc::ptr_eq(&target.set, backend.endpoints)
        {
            return target.clone();
        }
        let target = Rc::new(Target::new(core, tables, backend));
        self.0.borrow_mut().insert(key, target.clone());
        target
    }

    /// Forgets views of services that are not loaded any more.
    pub(crate) fn sweep(&self, tables: &Tables) {
        self.0
            .borrow_mut()
            .retain(|(service, ..), _| tables.is_loaded(service) || tables.endpoints(service).is_some());
    }
}

impl Target {
    fn new(core: &Core, tables: &Tables, backend: &ReadyBackend<'_>) -> Self {
        let ReadyBackend { destination, port, subset, policy, endpoints: set } = *backend;
        let tiers = locality::tiers(set, &backend.candidates(), tables.me(), &policy.locality);
        let health = core.shared.health.service(&destination.service);
        health.retain(|uid| set.endpoints.iter().any(|endpoint| &*endpoint.uid == uid));
        let limits = Limits::of(&policy.limits);
        let cluster = Cluster::new(set, port, tiers, policy.clone(), health);
        let service = &destination.service;
        Self {
            service: service.clone(),
            port,
            protocol: destination
                .ports
                .iter()
                .find(|own| own.port == port)
                .map_or(Protocol::Detect, |own| own.protocol),
            cluster,
            limits,
            meta: Arc::new(ServiceMeta {
                host: service.host.shared(),
                name: service.short_name().into(),
                namespace: service.namespace.shared(),
            }),
            name: outbound_cluster(port, subset.map(|subset| &*subset.name), service.host.as_str()),
            expected: ExpectedPeers::new(destination.identities.iter().cloned()),
            sni: preface::sni(&service.host, port).into(),
            outside: match &policy.tls {
                ClientTls::Simple { .. } => format!("{:?} {}", policy.tls, service.host).into(),
                ClientTls::Auto | ClientTls::Mesh | ClientTls::Disable => "".into(),
            },
            configs: RefCell::default(),
            peers: RefCell::default(),
            destination: destination.clone(),
            set: set.clone(),
        }
    }

    /// Time to connect.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.limits.connect_timeout.duration()
    }

    /// Time to connect to an endpoint. When there are others, one that does not answer at all is given up soon: a pod that is
    /// gone answers nobody, and nobody may have said that it is gone.
    pub(crate) fn within(&self, position: usize) -> Within {
        let all = self.connect_timeout();
        let named = matches!(self.cluster.peer(position).endpoint().tunnel, Tunnel::Dns { .. });
        let reach = if named || self.cluster.is_alone() { all } else { all.min(REACH) };
        Within { reach, all }
    }

    /// How an endpoint is to be spoken to; `alpn` is what the mesh connection carries.
    pub(crate) fn security(
        &self,
        core: &Core,
        endpoint: &Endpoint,
        alpn: &'static [u8],
    ) -> Result<Security, ConnectError> {
        let peer = matches!(endpoint.tunnel, Tunnel::Mesh | Tunnel::Gateway { .. });
        match (&self.cluster.policy.tls, peer) {
            (ClientTls::Auto | ClientTls::Mesh, true) => Ok(Security::Mesh {
                config: self.mesh_config(core, alpn),
                sni: match &endpoint.tunnel {
                    Tunnel::Gateway { .. } => {
                        preface::sni_of_pod(&self.service.host, self.port, &endpoint.workload.name).into()
                    }
                    Tunnel::Mesh | Tunnel::Plain | Tunnel::Dns { .. } => self.sni.clone(),
                },
                preface: core.me().preface,
            }),
            (ClientTls::Mesh, false) => Err(ConnectError::NoPeer),
            (ClientTls::Auto, false) | (ClientTls::Disable, _) => Ok(Security::Plain),
            (ClientTls::Simple { sni, subject_alt_names, insecure }, _) => {
                let sni = if sni.is_empty() { self.service.host.shared() } else { sni.clone() };
                Ok(Security::Outside {
                    config: self.outside_config(&sni, subject_alt_names, *insecure, alpn)?,
                    sni,
                })
            }
        }
    }

    /// Whether an endpoint is spoken to without mTLS of the mesh.
    pub(crate) fn is_plain(&self, endpoint: &Endpoint) -> bool {
        let outside = matches!(endpoint.tunnel, Tunnel::Plain | Tunnel::Dns { .. });
        outside || !matches!(self.cluster.policy.tls, ClientTls::Auto | ClientTls::Mesh)
    }

    /// What tells this destination's connections from others' to the same address.
    pub(crate) fn pool_name(&self, plain: bool) -> Arc<str> {
        if plain { self.outside.clone() } else { self.sni.clone() }
    }

    fn mesh_config(&self, core: &Core, alpn: &'static [u8]) -> Arc<ClientConfig> {
        let mut configs = self.configs.borrow_mut();
        configs
            .entry(alpn)
            .or_insert_with(|| client_config(&core.shared.identity, &self.expected, &[alpn]))
            .clone()
    }

    fn outside_config(
        &self,
        sni: &Arc<str>,
        names: &[Arc<str>],
        insecure: bool,
        alpn: &'static [u8],
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        if let Some(config) = self.configs.borrow().get(alpn) {
            return Ok(config.clone());
        }
        let authorities;
        let trust = if insecure {
            PlainTrust::Unverified
        } else {
            authorities = system_authorities(Path::new(SYSTEM_AUTHORITIES))
                .map_err(|why| ConnectError::Unverifiable { host: sni.to_string(), why })?;
            PlainTrust::Authorities(&authorities)
        };
        let outside_alpn: &[&[u8]] = if alpn == preface::ALPN_H2 { &[b"h2"] } else { &[b"http/1.1"] };
        let config = plain_client_config(trust, names, None, outside_alpn)
            .map_err(|error| ConnectError::Unverifiable { host: sni.to_string(), why: error.to_string() })?;
        self.configs.borrow_mut().insert(alpn, config.clone());
        Ok(config)
    }

    /// Which version of HTTP an endpoint is spoken to in, when the client speaks `client`.
    ///
    /// Between two proxies the hop keeps the client's; to an application without proxy HTTP/2 is spoken only when it is
    /// declared or the client knew it (DESIGN: version of HTTP).
    pub(crate) fn version(&self, endpoint: &Endpoint, client: Version) -> Version {
        let plain = self.is_plain(endpoint);
        match (plain, self.protocol) {
            (false, _) | (true, Protocol::Detect | Protocol::Tcp | Protocol::Tls) => client,
            (true, Protocol::Http2 | Protocol::Grpc) => Version::H2,
            (true, Protocol::Http1) => Version::H1,
        }
    }

    /// An endpoint's names in telemetry.
    pub(crate) fn peer_meta(&self, endpoint: &Endpoint) -> Arc<PeerMeta> {
        let mut peers = self.peers.borrow_mut();
        if let Some(meta) = peers.get(&endpoint.uid) {
            return meta.clone();
        }
        let label = |name: &str| endpoint.labels.get(name).cloned();
        let first = |names: [&str; 3]| names.into_iter().find_map(label);
        let meta = Arc::new(PeerMeta {
            workload: endpoint.owner.clone(),
            namespace: endpoint.workload.namespace.shared(),
            canonical_service: first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"])
                .unwrap_or_else(|| endpoint.owner.clone()),
            canonical_revision: first([
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ])
            .unwrap_or_else(|| "latest".into()),
            app: label("app").unwrap_or_else(|| "".into()),
            version: label("version").unwrap_or_else(|| "".into()),
            cluster: endpoint.cluster.shared(),
            principal: endpoint.identity.clone(),
            region: endpoint.locality.region.clone(),
            zone: endpoint.locality.zone.clone(),
        });
        peers.insert(endpoint.uid.clone(), meta.clone());
        meta
    }
}

/// The authorities that the image, or the machine, brings for servers outside the mesh.
fn system_authorities(path: &Path) -> Result<Vec<u8>, String> {
    let why =
        |why: &dyn std::fmt::Display| format!("the authorities in {} cannot be used: {why}", path.display());
    match std::fs::read(path) {
        Ok(bytes) if bytes.windows(10).any(|window| window == b"-----BEGIN") => Ok(bytes),
        Ok(_) => Err(why(&"there is no certificate in it")),
        Err(error) => Err(why(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_authorities_are_an_error_that_names_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca-certificates.crt");
        let why = system_authorities(&path).unwrap_err();
        assert!(why.contains("ca-certificates.crt") && why.contains("No such file"), "{why}");
        std::fs::write(&path, "").unwrap();
        assert!(system_authorities(&path).unwrap_err().contains("no certificate"));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
        assert!(system_authorities(&path).is_ok());
    }
}
