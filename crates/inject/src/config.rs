//! How a control plane injects: the part of its configuration that decides what pods look like.
//!
//! Invariant: a pod depends on nothing but this, its namespace's labels and itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{LabelSelector, duration, quantity};

/// How a control plane injects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectionConfig {
    /// The proxy's image.
    pub image: Image,
    /// Leno's version, written to pods.
    pub version: String,
    /// This control plane's revision; `default` serves namespaces that name none.
    pub revision: String,
    /// More names that this control plane serves as revisions.
    pub tags: Vec<String>,
    /// The control plane's own namespace, which is never injected.
    pub system_namespace: String,
    /// The cluster.
    pub cluster: String,
    /// The cluster's network; empty where there is only one.
    pub network: String,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// `HOST:PORT` that proxies dial.
    pub control: String,
    /// Whether Istio's labels (`istio-injection`, `istio.io/rev`, and the pod label `sidecar.istio.io/inject: "true"`) enrol.
    pub istio_labels: bool,
    /// Whether an enrolled namespace's pods are injected unless they refuse.
    pub policy: Policy,
    /// Pods that are not injected unless they ask for it.
    pub never_inject: Vec<LabelSelector>,
    /// Pods that are injected under `policy: disabled`.
    pub always_inject: Vec<LabelSelector>,
    /// How traffic gets to the proxy.
    pub capture: Capture,
    /// What proxies get unless a pod says otherwise.
    pub proxy: ProxyDefaults,
    /// Resources of the capture init container.
    pub init_resources: Resources,
}

impl Default for InjectionConfig {
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            image: Image { name: format!("leno/proxy:{version}"), ..Image::default() },
            version: version.to_owned(),
            revision: "default".to_owned(),
            tags: Vec::new(),
            system_namespace: "leno-system".to_owned(),
            cluster: "kubernetes".to_owned(),
            network: String::new(),
            trust_domain: "cluster.local".to_owned(),
            control: "leno-control.leno-system.svc:15012".to_owned(),
            istio_labels: false,
            policy: Policy::Enabled,
            never_inject: Vec::new(),
            always_inject: Vec::new(),
            capture: Capture::Init,
            proxy: ProxyDefaults::default(),
            init_resources: Resources::of(&[("cpu", "10m"), ("memory", "16Mi")], &[("memory", "64Mi")]),
        }
    }
}

impl InjectionConfig {
    /// Whether this control plane serves namespaces that name no revision.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.serves("default")
    }

    /// Whether `revision` is this control plane's.
    #[must_use]
    pub fn serves(&self, revision: &str) -> bool {
        self.revision == revision || self.tags.iter().any(|tag| tag == revision)
    }

    /// What in it no pod could be injected with.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let containers =
            [("proxy.resources", &self.proxy.resources), ("initResources", &self.init_resources)];
        for (what, Resources { requests, limits }) in containers {
            for (resource, text) in requests.iter().chain(limits) {
                faults.extend(quantity::parse(text).err().map(|why| format!("{what}, {resource}: {why}")));
            }
        }
        faults.extend(
            duration::parse(&self.proxy.drain_duration)
                .err()
                .map(|why| format!("proxy.drainDuration: {why}")),
        );
        let levels = ["trace", "debug", "info", "warn", "error", "off"];
        if !levels.contains(&self.proxy.log_level.as_str()) {
            faults.push(format!(
                "proxy.logLevel: `{}` is none of {}",
                self.proxy.log_level,
                levels.join(", ")
            ));
        }
        faults
    }

    /// The revisions that this control plane serves, its own first.
    pub fn revisions(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.revision.as_str()).chain(self.tags.iter().map(String::as_str))
    }
}

/// An image and how it is pulled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Image {
    /// Full name with tag or digest.
    pub name: String,
    /// `imagePullPolicy`; empty leaves it to Kubernetes.
    pub pull_policy: String,
    /// Names of Secrets that injected pods get as `imagePullSecrets`.
    pub pull_secrets: Vec<String>,
}

/// Whether an enrolled namespace's pods are injected unless they refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// They are.
    #[default]
    Enabled,
    /// Only those that ask for it, or that `alwaysInject` selects.
    Disabled,
}

/// How traffic gets to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capture {
    /// An init container of the pod with `NET_ADMIN`.
    #[default]
    Init,
    /// A CNI plugin of the node; nothing in the pod has a privilege.
    Cni,
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Requests by resource.
    pub requests: BTreeMap<String, String>,
    /// Limits by resource.
    pub limits: BTreeMap<String, String>,
}

impl Resources {
    /// From pairs.
    #[must_use]
    pub fn of(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Self {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, quantity)| ((*name).to_owned(), (*quantity).to_owned())).collect()
        };
        Self { requests: map(requests), limits: map(limits) }
    }
}

/// What proxies get unless a pod says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxyDefaults {
    /// Requests and limits.
    pub resources: Resources,
    /// Threads for traffic; 0 for as many as the container may use.
    pub concurrency: u16,
    /// How long requests may go on once the proxy is told to stop, as `10s`.
    pub drain_duration: String,
    /// `trace`, `debug`, `info`, `warn`, `error` or `off`.
    pub log_level: String,
    /// The access log.
    pub access_log: AccessLog,
    /// Where spans go; nowhere when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Seconds that a proxy may take to become ready before its pod is restarted.
    pub startup_seconds: u32,
}

impl Default for ProxyDefaults {
    fn default() -> Self {
        Self {
            resources: Resources::of(&[("cpu", "50m"), ("memory", "64Mi")], &[("memory", "512Mi")]),
            concurrency: 1,
            drain_duration: "10s".to_owned(),
            log_level: "info".to_owned(),
            access_log: AccessLog::Off,
            tracing: None,
            startup_seconds: 600,
        }
    }
}

/// The access log on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Istio's text format.
    Text,
    /// JSON.
    Json,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// `http://HOST:PORT` of an OTLP/gRPC collector.
    pub endpoint: String,
    /// Share of traces that a proxy starts, in 0..=1.
    pub sampling: f64,
}
