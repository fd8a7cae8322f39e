//! Pods, and the kinds that make pods from a template: Deployment, StatefulSet, DaemonSet, ReplicaSet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::service::{PROTOCOLS, Protocol, TargetPort, target_port};
use crate::decode::{Cursor, Fields, boolean, choice, name, port, spanned, text, unsigned};
use crate::diagnostic::Spanned;
use crate::metadata::{Metadata, template_metadata};

/// A kind that makes pods from a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// How many pods; 1 when the text does not say, and for DaemonSets.
    pub replicas: u32,
    /// Labels its pods are found by.
    pub selector: BTreeMap<String, String>,
    /// Labels and annotations of its pods.
    pub template: Metadata,
    /// Its pods.
    pub pod: PodSpec,
    /// Service that names the pods of a StatefulSet.
    pub service_name: Option<String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// What it runs.
    pub spec: PodSpec,
    /// How it is.
    pub status: PodStatus,
}

/// What a pod runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodSpec {
    /// Its identity; `default` when the text does not say.
    pub service_account: String,
    /// Machine it runs on.
    pub node_name: Option<String>,
    /// Whether it shares the machine's network.
    pub host_network: bool,
    /// Containers.
    pub containers: Vec<Container>,
    /// Containers that run before, or beside when `restartPolicy: Always`.
    pub init_containers: Vec<Container>,
    /// Time it may take to end, in seconds.
    pub termination_grace_period_seconds: Option<u32>,
    /// Conditions that others set and that it needs to be ready.
    pub readiness_gates: Vec<String>,
}

/// How a pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodStatus {
    /// Address.
    pub pod_ip: Option<IpAddr>,
    /// All addresses.
    pub pod_ips: Vec<IpAddr>,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// Whether its condition `Ready` is true.
    pub ready: bool,
    /// Whether its condition `ContainersReady` is true: what its machine said last.
    pub containers_ready: bool,
}

/// A container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: Option<String>,
    /// Command, in place of the image's.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Declared ports.
    pub ports: Vec<ContainerPort>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Whether it takes traffic.
    pub readiness: Option<Probe>,
    /// Whether it must be restarted.
    pub liveness: Option<Probe>,
    /// Whether it has started.
    pub startup: Option<Probe>,
}

/// A declared port of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerPort {
    /// Name; empty when it has none.
    pub name: String,
    /// Number.
    pub port: Spanned<u16>,
    /// Transport.
    pub protocol: Protocol,
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvVar {
    /// Name.
    pub name: String,
    /// Value.
    pub value: EnvValue,
}

/// The value of an environment variable.
#[derive(Clone, Debug, PartialEq)]
pub enum EnvValue {
    /// Written out.
    Literal(Spanned<String>),
    /// A field of the pod, such as `status.podIP`.
    FieldRef(String),
    /// From elsewhere (ConfigMap, Secret, resources), which is not read.
    Elsewhere,
}

/// A health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is checked.
    pub action: ProbeAction,
    /// Seconds between checks.
    pub period_seconds: Option<u32>,
    /// Seconds before the first.
    pub initial_delay_seconds: Option<u32>,
    /// Seconds a check may take.
    pub timeout_seconds: Option<u32>,
}

/// What a health check does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// An HTTP request.
    HttpGet {
        /// Path.
        path: String,
        /// Port.
        port: TargetPort,
        /// Whether over TLS.
        https: bool,
    },
    /// A TCP connection.
    TcpSocket {
        /// Port.
        port: TargetPort,
    },
    /// A gRPC health check.
    Grpc {
        /// Port.
        port: u16,
        /// Service asked about.
        service: Option<String>,
    },
    /// A command in the container, which a mesh does not see.
    Exec,
}

pub(crate) fn workload(o: &mut Fields<'_>) -> Option<Workload> {
    o.req("spec", |value| {
        value.object_partly(|o| {
            let replicas = o.or("replicas", 1, unsigned);
            let selector =
                o.opt("selector", |value| value.object_partly(|o| Some(o.map("matchLabels", text))));
            let service_name = o.opt("serviceName", text);
            let template = o.req("template", |value| {
                value.object_partly(|o| {
                    let metadata = o.or("metadata", Metadata::default(), template_metadata);
                    Some((metadata?, o.req("spec", pod_spec)?))
                })
            });
            let (template, pod) = template?;
            Some(Workload {
                replicas: replicas?,
                selector: selector.unwrap_or_default(),
                template,
                pod,
                service_name,
            })
        })
    })
}

pub(crate) fn pod(o: &mut Fields<'_>) -> Option<Pod> {
    let spec = o.req("spec", pod_spec);
    let status = o.or("status", PodStatus::default(), pod_status);
    Some(Pod { spec: spec?, status: status? })
}

fn pod_spec(value: Cursor<'_>) -> Option<PodSpec> {
    value.object_partly(|o| {
        let old_name = o.opt("serviceAccount", text);
        let service_account = o.opt("serviceAccountName", text).or(old_name).filter(|name| !name.is_empty());
        Some(PodSpec {
            service_account: service_account.unwrap_or_else(|| "default".to_owned()),
            node_name: o.opt("nodeName", text),
            host_network: o.or("hostNetwork", false, boolean)?,
            containers: o.list("containers", container),
            init_containers: o.list("initContainers", container),
            termination_grace_period_seconds: o.opt("terminationGracePeriodSeconds", unsigned),
            readiness_gates: o
                .list("readinessGates", |value| value.object_partly(|o| o.req("conditionType", text))),
        })
    })
}

fn pod_status(value: Cursor<'_>) -> Option<PodStatus> {
    value.object_partly(|o| {
        let conditions = o.list("conditions", |value| {
            value.object_partly(|o| Some((o.req("type", text)?, o.req("status", text)?)))
        });
        let is_true = |wanted| conditions.iter().any(|(kind, status)| kind == wanted && status == "True");
        Some(PodStatus {
            pod_ip: o.opt("podIP", ip),
            pod_ips: o.list("podIPs", |value| value.object_partly(|o| o.req("ip", ip))),
            phase: o.opt("phase", text),
            ready: is_true("Ready"),
            containers_ready: is_true("ContainersReady"),
        })
    })
}

fn ip(value: Cursor<'_>) -> Option<IpAddr> {
    let found = text(value.clone())?;
    let ip = found.parse().ok();
    if ip.is_none() {
        value.invalid(format!("{found:?} is not an IP address"));
    }
    ip
}

fn container(value: Cursor<'_>) -> Option<Container> {
    value.object_partly(|o| {
        Some(Container {
            name: o.req("name", name)?,
            image: o.opt("image", text),
            command: o.list("command", text),
            args: o.list("args", text),
            ports: o.list("ports", container_port),
            env: o.list("env", env_var),
            readiness: o.opt("readinessProbe", probe),
            liveness: o.opt("livenessProbe", probe),
            startup: o.opt("startupProbe", probe),
        })
    })
}

fn container_port(value: Cursor<'_>) -> Option<ContainerPort> {
    value.object_partly(|o| {
        Some(ContainerPort {
            name: o.or("name", String::new(), text)?,
            port: o.req("containerPort", spanned(port))?,
            protocol: o.or("protocol", Protocol::Tcp, choice(PROTOCOLS))?,
        })
    })
}

fn env_var(value: Cursor<'_>) -> Option<EnvVar> {
    let nothing = Spanned { value: String::new(), at: value.source() };
    value.object_partly(|o| {
        let name = o.req("name", name)?;
        let value = match o.take("valueFrom") {
            Some(from) => from.object_partly(|o| {
                let field = o.opt("fieldRef", |value| value.object_partly(|o| o.req("fieldPath", text)));
                Some(field.map_or(EnvValue::Elsewhere, EnvValue::FieldRef))
            })?,
            None => EnvValue::Literal(o.or("value", nothing, spanned(text))?),
        };
        Some(EnvVar { name, value })
    })
}

fn probe(value: Cursor<'_>) -> Option<Probe> {
    value.object_partly(|o| {
        let action = if let Some(get) = o.take("httpGet") {
            get.object_partly(|o| {
                Some(ProbeAction::HttpGet {
                    path: o.or("path", "/".to_owned(), text)?,
                    port: o.req("port", target_port)?,
                    https: o.or("scheme", false, choice(&[("HTTP", false), ("HTTPS", true)]))?,
                })
            })?
        } else if let Some(socket) = o.take("tcpSocket") {
            ProbeAction::TcpSocket { port: socket.object_partly(|o| o.req("port", target_port))? }
        } else if let Some(grpc) = o.take("grpc") {
            grpc.object_partly(|o| {
                Some(ProbeAction::Grpc { port: o.req("port", port)?, service: o.opt("service", text) })
            })?
        } else {
            ProbeAction::Exec
        };
        Some(Probe {
            action,
            period_seconds: o.opt("periodSeconds", unsigned),
            initial_delay_seconds: o.opt("initialDelaySeconds", unsigned),
            timeout_seconds: o.opt("timeoutSeconds", unsigned),
        })
    })
}
