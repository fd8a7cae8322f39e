//! Kubernetes' own kinds, of which we read the few fields that a mesh has business with.
//!
//! Invariant: fields we read are decoded strictly; the others (volumes, resources, security contexts) are ignored by design.

mod endpoint_slice;
mod namespace;
mod secret;
mod service;
mod workload;

pub use endpoint_slice::{Endpoint, EndpointPort, EndpointSlice};
pub use namespace::{Namespace, Node, ServiceAccount};
pub use secret::Secret;
pub use service::{Protocol, Service, ServicePort, ServiceType, TargetPort};
pub use workload::{
    Container, ContainerPort, EnvValue, EnvVar, Pod, PodSpec, PodStatus, Probe, ProbeAction, Workload,
};

pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use namespace::{namespace, node, service_account};
pub(crate) use secret::secret;
pub(crate) use service::service;
pub(crate) use workload::{pod, workload};
