//! Names, versions and encoded bytes of resources, and who a client says it is.
//!
//! Invariant: equal versions under one name mean equal content; version 0 is never a resource's.
//! Must not know: what a kind's number means or what is in the payload.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh64::Xxh64;

use crate::proto::discovery as pb;

/// Names a resource: the kind's number belongs to the publisher, the name is unique within the kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// What the payload is.
    pub kind: u32,
    /// Unique within the kind, never empty.
    pub name: Arc<str>,
}

impl ResourceKey {
    /// The name `name` of kind `kind`.
    pub fn new(kind: u32, name: impl Into<Arc<str>>) -> Self {
        Self { kind, name: name.into() }
    }

    pub(crate) fn to_proto(&self) -> pb::Key {
        pb::Key { kind: self.kind, name: self.name.to_string() }
    }

    /// The key in a message, unless it is missing, empty or too long.
    pub(crate) fn from_proto(key: Option<pb::Key>, longest: usize) -> Option<Self> {
        let pb::Key { kind, name } = key?;
        (!name.is_empty() && name.len() <= longest).then(|| Self::new(kind, name))
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

/// Hash of a resource's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// "May be held, in a version that cannot be told": differs from every resource's version.
    pub const UNKNOWN: Self = Self(0);

    /// The version of this content.
    pub fn of(payload: &[u8], features_needed: &[Arc<str>]) -> Self {
        let mut hash = Xxh64::new(0);
        for feature in features_needed {
            hash.update(&(feature.len() as u64).to_le_bytes());
            hash.update(feature.as_bytes());
        }
        hash.update(payload);
        Self(hash.digest().max(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A resource as it travels. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedResource {
    /// Its name.
    pub key: ResourceKey,
    /// Hash of the content.
    pub version: Version,
    /// The encoded content.
    pub payload: Bytes,
    /// What a reader must know to honour it.
    pub features_needed: Arc<[Arc<str>]>,
}

impl EncodedResource {
    /// A resource with these bytes; its version is computed here, so encode once and clone.
    pub fn new(key: ResourceKey, payload: Bytes, features_needed: impl Into<Arc<[Arc<str>]>>) -> Self {
        let features_needed = features_needed.into();
        Self { key, version: Version::of(&payload, &features_needed), payload, features_needed }
    }
}

/// Who a client says it is. A server believes it only after its authorizer has compared it with the verified peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Unique among running clients.
    pub id: Arc<str>,
    /// "namespace/name" of the workload it serves.
    pub workload: Arc<str>,
    /// The cluster it runs in.
    pub cluster: Arc<str>,
    /// The version of the program.
    pub version: Arc<str>,
    /// Features it knows.
    pub features: Vec<Arc<str>>,
}

impl NodeInfo {
    /// Those of `needed` that this client does not know.
    pub fn missing(&self, needed: &[Arc<str>]) -> Vec<Arc<str>> {
        needed.iter().filter(|feature| !self.features.contains(feature)).cloned().collect()
    }

    pub(crate) fn to_proto(&self) -> pb::Node {
        let Self { id, workload, cluster, version, features } = self;
        pb::Node {
            id: id.to_string(),
            workload: workload.to_string(),
            cluster: cluster.to_string(),
            version: version.to_string(),
            features: features.iter().map(ToString::to_string).collect(),
        }
    }

    pub(crate) fn from_proto(node: pb::Node) -> Self {
        let pb::Node { id, workload, cluster, version, features } = node;
        Self {
            id: id.into(),
            workload: workload.into(),
            cluster: cluster.into(),
            version: version.into(),
            features: features.into_iter().map(Into::into).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_covers_payload_and_features_and_is_never_unknown() {
        let none: &[Arc<str>] = &[];
        assert_eq!(Version::of(b"a", none), Version::of(b"a", none));
        assert_ne!(Version::of(b"a", none), Version::of(b"b", none));
        assert_ne!(Version::of(b"a", none), Version::of(b"a", &["x".into()]));
        assert_ne!(Version::of(b"", none), Version::UNKNOWN);
    }

    #[test]
    fn a_key_without_a_name_or_with_an_endless_one_is_no_key() {
        let key = |name: &str| Some(pb::Key { kind: 1, name: name.into() });
        assert_eq!(ResourceKey::from_proto(None, 8), None);
        assert_eq!(ResourceKey::from_proto(key(""), 8), None);
        assert_eq!(ResourceKey::from_proto(key("123456789"), 8), None);
        assert_eq!(ResourceKey::from_proto(key("12345678"), 8), Some(ResourceKey::new(1, "12345678")));
    }
}
