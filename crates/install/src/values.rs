//! What a user chooses about an installation.
//!
//! Invariant: the defaults here and in `deploy/helm/leno/values.yaml` are the same, and so are the names.

use std::collections::BTreeMap;

use leno_inject::{
    AccessLog, Capture, Image, InjectionConfig, LabelSelector, Policy, ProxyDefaults, Resources,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Names;

/// What a user chooses about an installation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Values {
    /// The control plane's namespace.
    pub namespace: String,
    /// Whether the namespace is one of the objects.
    pub create_namespace: bool,
    /// Name of this control plane among several; `default` serves namespaces that name none.
    pub revision: String,
    /// More names by which namespaces may ask for this control plane.
    pub tags: Vec<String>,
    /// The cluster's name, unique in the mesh.
    pub cluster: String,
    /// The network that its pods are in; empty where all pods of the mesh reach each other.
    pub network: String,
    /// Where workloads run whose node does not say.
    pub region: String,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// Whose labels enrol besides Leno's own.
    pub compat: Compat,
    /// Images.
    pub image: Images,
    /// Replicas of the control plane.
    pub replicas: u32,
    /// Requests and limits of each.
    pub resources: Resources,
    /// `priorityClassName` of the control plane.
    pub priority_class_name: String,
    /// Nodes that it may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Value>,
    /// What it logs.
    pub log_level: String,
    /// Who gets a proxy, and how.
    pub injection: Injection,
    /// What proxies get unless a pod says otherwise.
    pub proxy: Proxy,
    /// The nodes' agent; only with `injection.capture: cni`.
    pub cni: Cni,
    /// Gateways of the Gateway API.
    pub gateways: Gateways,
    /// The other clusters of the mesh.
    pub peers: Vec<Peer>,
    /// How the others reach this cluster's control plane.
    pub discovery: Discovery,
    /// The gateway through which mTLS of other networks comes.
    pub east_west: EastWest,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            namespace: "leno-system".to_owned(),
            create_namespace: true,
            revision: "default".to_owned(),
            tags: Vec::new(),
            cluster: "kubernetes".to_owned(),
            network: String::new(),
            region: String::new(),
            trust_domain: "cluster.local".to_owned(),
            compat: Compat::None,
            image: Images::default(),
            replicas: 2,
            resources: Resources::of(&[("cpu", "100m"), ("memory", "128Mi")], &[("memory", "1Gi")]),
            priority_class_name: String::new(),
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            log_level: "info".to_owned(),
            injection: Injection::default(),
            proxy: Proxy::default(),
            cni: Cni::default(),
            gateways: Gateways::default(),
            peers: Vec::new(),
            discovery: Discovery::default(),
            east_west: EastWest::default(),
        }
    }
}

/// Whose labels enrol besides Leno's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compat {
    /// Nobody's: safe beside a live Istio.
    #[default]
    None,
    /// Istio's: `istio-injection`, `istio.io/rev`, and `sidecar.istio.io/inject` of pods.
    Istio,
}

/// Images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Images {
    /// Prefix of both, such as `123456789012.dkr.ecr.eu-west-1.amazonaws.com`; none when empty.
    pub registry: String,
    /// Tag of both; the release's version when empty.
    pub tag: String,
    /// The proxy's.
    pub proxy: String,
    /// The control plane's.
    pub control: String,
    /// `imagePullPolicy` of both.
    pub pull_policy: String,
    /// Secrets to pull with; in injected pods' namespaces they must exist too.
    pub pull_secrets: Vec<String>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            registry: String::new(),
            tag: String::new(),
            proxy: "leno/proxy".to_owned(),
            control: "leno/control".to_owned(),
            pull_policy: "IfNotPresent".to_owned(),
            pull_secrets: Vec::new(),
        }
    }
}

impl Images {
    /// Full name of one of them.
    pub(crate) fn full(&self, image: &str) -> String {
        let tag = if self.tag.is_empty() { env!("CARGO_PKG_VERSION") } else { &self.tag };
        let registry = self.registry.trim_end_matches('/');
        if registry.is_empty() { format!("{image}:{tag}") } else { format!("{registry}/{image}:{tag}") }
    }
}

/// Who gets a proxy, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Injection {
    /// Whether an enrolled namespace's pods are injected unless they refuse.
    pub policy: Policy,
    /// Pods that are not injected unless they ask for it.
    pub never_inject: Vec<LabelSelector>,
    /// Pods that are injected under `policy: disabled`.
    pub always_inject: Vec<LabelSelector>,
    /// How traffic gets to the proxy.
    pub capture: Capture,
    /// Resources of the capture init container.
    pub init_resources: Resources,
}

impl Default for Injection {
    fn default() -> Self {
        let InjectionConfig { policy, never_inject, always_inject, capture, init_resources, .. } =
            InjectionConfig::default();
        Self { policy, never_inject, always_inject, capture, init_resources }
    }
}

/// The nodes' agent, which captures with `injection.capture: cni`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cni {
    /// Its namespace, which must allow what it needs: it is no pod of the level `baseline` or `restricted`.
    pub namespace: String,
    /// The nodes' folder of CNI plugins.
    pub bin_dir: String,
    /// The nodes' folder of CNI configurations.
    pub conf_dir: String,
    /// Requests and limits of each agent.
    pub resources: Resources,
    /// `priorityClassName`: pods of the mesh cannot start on a node without it.
    pub priority_class_name: String,
    /// Nodes that it runs on: all that pods of the mesh may run on.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it tolerates.
    pub tolerations: Vec<Value>,
}

impl Default for Cni {
    fn default() -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            bin_dir: "/opt/cni/bin".to_owned(),
            conf_dir: "/etc/cni/net.d".to_owned(),
            resources: Resources::of(&[("cpu", "10m"), ("memory", "32Mi")], &[("memory", "128Mi")]),
            priority_class_name: "system-node-critical".to_owned(),
            node_selector: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]),
            tolerations: vec![serde_json::json!({"operator": "Exists"})],
        }
    }
}

/// What proxies get unless a pod says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// Requests and limits.
    pub resources: Resources,
    /// Threads for traffic; 0 for as many as the container may use.
    pub concurrency: u16,
    /// How long requests may go on once the proxy is told to stop.
    pub drain_duration: String,
    /// `trace`, `debug`, `info`, `warn`, `error` or `off`.
    pub log_level: String,
    /// The access log.
    pub access_log: AccessLog,
    /// Where spans go.
    pub tracing: Tracing,
    /// Seconds that a proxy may take to become ready before it is restarted.
    pub startup_seconds: u32,
}

impl Default for Proxy {
    fn default() -> Self {
        let ProxyDefaults {
            resources,
            concurrency,
            drain_duration,
            log_level,
            access_log,
            tracing: _,
            startup_seconds,
        } = ProxyDefaults::default();
        Self {
            resources,
            concurrency,
            drain_duration,
            log_level,
            access_log,
            tracing: Tracing::default(),
            startup_seconds,
        }
    }
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tracing {
    /// `http://HOST:PORT` of an OTLP/gRPC collector; nowhere when empty.
    pub endpoint: String,
    /// Share of traces that a proxy starts, in 0..=1.
    pub sampling: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { endpoint: String::new(), sampling: 0.01 }
    }
}

/// Gateways of the Gateway API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateways {
    /// Whether GatewayClass `leno` is one of the objects; only of the revision `default`.
    pub class: bool,
    /// Whether a Gateway makes a Deployment and a Service.
    pub deploy: bool,
    /// Namespaces whose Secrets may be read for the certificates of Gateways; `*` for all.
    pub secret_namespaces: Vec<String>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self { class: true, deploy: true, secret_namespaces: vec!["*".to_owned()] }
    }
}

/// Another cluster of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    /// Its name, as its own installation has it.
    pub cluster: String,
    /// Where its control planes are reached: `HOST` or `HOST:PORT`, without a port 15012.
    pub addresses: Vec<String>,
}

/// How other clusters reach this one's control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discovery {
    /// Whether there is a Service of type LoadBalancer for them.
    pub expose: bool,
    /// What it is like.
    pub service: LoadBalancer,
}

/// The gateway through which mTLS of other networks comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EastWest {
    /// Whether there is one.
    pub enabled: bool,
    /// How many pods.
    pub replicas: u32,
    /// Requests and limits of each.
    pub resources: Resources,
    /// What its Service is like.
    pub service: LoadBalancer,
}

impl Default for EastWest {
    fn default() -> Self {
        Self {
            enabled: false,
            replicas: 2,
            resources: Resources::of(&[("cpu", "100m"), ("memory", "128Mi")], &[("memory", "1Gi")]),
            service: LoadBalancer::default(),
        }
    }
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadBalancer {
    /// Annotations of the Service, for the cloud.
    pub annotations: BTreeMap<String, String>,
    /// Who may connect (`loadBalancerSourceRanges`); everybody when empty.
    pub source_ranges: Vec<String>,
}

impl Values {
    /// How this installation's control plane injects.
    #[must_use]
    pub fn injection(&self) -> InjectionConfig {
        let Injection { policy, never_inject, always_inject, capture, init_resources } = &self.injection;
        InjectionConfig {
            image: Image {
                name: self.image.full(&self.image.proxy),
                pull_policy: self.image.pull_policy.clone(),
                pull_secrets: self.image.pull_secrets.clone(),
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: self.revision.clone(),
            tags: self.tags.clone(),
            system_namespace: self.namespace.clone(),
            cluster: self.cluster.clone(),
            network: self.network.clone(),
            trust_domain: self.trust_domain.clone(),
            control: format!("{}.{}.svc:15012", Names::of(self).control, self.namespace),
            istio_labels: self.compat == Compat::Istio,
            policy: *policy,
            never_inject: never_inject.clone(),
            always_inject: always_inject.clone(),
            capture: *capture,
            proxy: self.proxy.defaults(),
            init_resources: init_resources.clone(),
        }
    }
}

impl Proxy {
    fn defaults(&self) -> ProxyDefaults {
        let Self { resources, concurrency, drain_duration, log_level, access_log, tracing, startup_seconds } =
            self;
        let Tracing { endpoint, sampling } = tracing;
        let tracing = leno_inject::Tracing { endpoint: endpoint.clone(), sampling: *sampling };
        ProxyDefaults {
            resources: resources.clone(),
            concurrency: *concurrency,
            drain_duration: drain_duration.clone(),
            log_level: log_level.clone(),
            access_log: *access_log,
            tracing: (!endpoint.is_empty()).then_some(tracing),
            startup_seconds: *startup_seconds,
        }
    }
}
