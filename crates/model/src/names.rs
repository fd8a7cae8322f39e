//! Names of things. Cheap to clone, ordered, compared by content.
//!
//! Invariant: a [`ServiceId`]'s host is a lower-case fully qualified name (`reviews.default.svc.cluster.local`).

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name that the caller has already validated.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text, for interning without a copy.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A Kubernetes namespace.
    Namespace
}
name! {
    /// A DNS name, lower case, without a trailing dot; may start with `*.` where a wildcard is allowed.
    Host
}
name! {
    /// A cluster of the mesh, as `leno up --cluster NAME=PATH` or the control plane's configuration names it.
    ClusterName
}
name! {
    /// A network: addresses are reachable directly only within one. Empty where there is only one.
    NetworkName
}

/// A service: the namespace that owns it and its fully qualified host. One name and namespace is one service in all clusters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ServiceId {
    /// The namespace of the Service or ServiceEntry.
    pub namespace: Namespace,
    /// Its fully qualified name.
    pub host: Host,
}

impl ServiceId {
    /// The id of the Kubernetes Service `namespace/name`.
    pub fn kubernetes(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), host: Host::new(format!("{name}.{namespace}.svc.cluster.local")) }
    }

    /// The first label of the host: a Kubernetes Service's own name.
    pub fn short_name(&self) -> &str {
        match self.host.as_str().strip_suffix(".svc.cluster.local") {
            Some(prefix) => prefix.split('.').next().unwrap_or(prefix),
            None => self.host.as_str(),
        }
    }
}

impl fmt::Display for ServiceId {
    /// `namespace/host`, which is also its resource name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.host)
    }
}

impl FromStr for ServiceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, host) = split(text)?;
        Ok(Self { namespace: namespace.into(), host: host.into() })
    }
}

/// One replica: a pod, or a virtual machine's workload entry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WorkloadId {
    /// Its namespace.
    pub namespace: Namespace,
    /// The pod's name.
    pub name: Arc<str>,
}

impl WorkloadId {
    /// The id of the pod `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for WorkloadId {
    /// `namespace/name`, which is also its resource name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (namespace, name) = split(text)?;
        Ok(Self::new(namespace, name))
    }
}

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form NAMESPACE/NAME")]
pub struct NameError {
    text: String,
}

fn split(text: &str) -> Result<(&str, &str), NameError> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace, name))
        }
        _ => Err(NameError { text: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_id_survives_its_text_form() {
        let id = ServiceId::kubernetes("default", "reviews");
        assert_eq!(id.to_string(), "default/reviews.default.svc.cluster.local");
        assert_eq!(id.to_string().parse::<ServiceId>().unwrap(), id);
        assert_eq!(id.short_name(), "reviews");
    }

    #[test]
    fn a_name_without_a_namespace_is_refused() {
        assert!("reviews".parse::<WorkloadId>().is_err());
        assert!("/reviews".parse::<WorkloadId>().is_err());
        assert!("a/b/c".parse::<WorkloadId>().is_err());
    }
}
