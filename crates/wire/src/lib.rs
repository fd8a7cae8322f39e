//! The wire form of model resources, both directions.
//!
//! A resource travels as MessagePack with field names, inside the protobuf envelope of `leno-xds` (ADR 0003): the
//! vocabulary is written once, in `leno-model`, and a field that a reader does not know is skipped. What a reader *must*
//! know is listed by [`required_features`], and a peer that lacks it is not sent the resource.
//!
//! Invariant: equal resources have equal bytes, so a hash of the bytes serves as the version.

#![forbid(unsafe_code)]
#![deny(missing_docs)]

use bytes::Bytes;
use leno_model::{PolicyAction, Resource, ResourceKey, ResourceKind};

/// Deepest nesting that a payload may have; our own resources stay below 16.
const MAX_DEPTH: usize = 64;

/// Largest payload of one resource in bytes. A service with 20,000 endpoints fits.
pub const MAX_RESOURCE_BYTES: usize = 16 * 1024 * 1024;

/// The features that this version's readers know (DESIGN: skew is designed for).
pub const KNOWN_FEATURES: &[&str] = &["base-0.1", "policy-deny"];

/// Why bytes are not a resource.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The kind's number is not known to this version.
    #[error("resource kind {0} is not known to this version")]
    UnknownKind(u32),
    /// The payload is larger than [`MAX_RESOURCE_BYTES`].
    #[error("{name} has {size} bytes, more than the {MAX_RESOURCE_BYTES} allowed")]
    TooLarge {
        /// The resource's name.
        name: String,
        /// Its size.
        size: usize,
    },
    /// The payload does not read as a resource.
    #[error("{name} does not read as a resource")]
    Malformed {
        /// The resource's name.
        name: String,
        /// What is wrong.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// The payload reads as a resource of another name or kind.
    #[error("the payload named {named} holds {held}")]
    Misnamed {
        /// The envelope's name.
        named: String,
        /// The payload's own.
        held: String,
    },
}

/// A resource could not be encoded; only a defect of this program makes this happen.
#[derive(Debug, thiserror::Error)]
#[error("{key} cannot be encoded")]
pub struct EncodeError {
    key: ResourceKey,
    #[source]
    source: rmp_serde::encode::Error,
}

/// Encodes a resource.
///
/// # Errors
/// When serialisation fails, which no resource of the model makes happen.
pub fn encode(resource: &Resource) -> Result<Bytes, EncodeError> {
    rmp_serde::to_vec_named(resource)
        .map(Bytes::from)
        .map_err(|source| EncodeError { key: resource.key(), source })
}

/// Decodes a resource and checks that it is the one its envelope names.
///
/// # Errors
/// When the kind is unknown, the payload is too large or malformed, or it holds another resource.
pub fn decode(kind: u32, name: &str, payload: &[u8]) -> Result<Resource, DecodeError> {
    let kind = ResourceKind::from_number(kind).ok_or(DecodeError::UnknownKind(kind))?;
    if payload.len() > MAX_RESOURCE_BYTES {
        return Err(DecodeError::TooLarge { name: name.to_owned(), size: payload.len() });
    }
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    reader.set_max_depth(MAX_DEPTH);
    let resource: Resource = serde::Deserialize::deserialize(&mut reader)
        .map_err(|source| DecodeError::Malformed { name: name.to_owned(), source })?;
    let key = resource.key();
    if key.kind != kind || &*key.name != name {
        return Err(DecodeError::Misnamed { named: format!("{kind:?} {name}"), held: key.to_string() });
    }
    Ok(resource)
}

/// What a reader must know to honour a resource. Empty: everybody does.
pub fn required_features(resource: &Resource) -> &'static [&'static str] {
    match resource {
        Resource::Policy(policy) if policy.action == PolicyAction::Deny => &["policy-deny"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use leno_model::{Exposure, IndexEntry, IndexPort, Protocol, ServiceId};

    use super::*;

    fn entry() -> Resource {
        Resource::Index(
            IndexEntry {
                service: ServiceId::kubernetes("default", "reviews"),
                addresses: vec!["240.240.0.1".parse().unwrap()],
                ports: vec![IndexPort { port: 9080, protocol: Protocol::Http1 }],
                exposure: Exposure::Everywhere,
                external: false,
                variants: vec![],
            }
            .into(),
        )
    }

    #[test]
    fn a_resource_survives_the_wire() {
        let resource = entry();
        let encoded = encode(&resource).unwrap();
        let key = resource.key();
        assert_eq!(decode(key.kind as u32, &key.name, &encoded).unwrap(), resource);
    }

    #[test]
    fn a_payload_under_another_name_is_refused() {
        let encoded = encode(&entry()).unwrap();
        let refused = decode(ResourceKind::Index as u32, "default/ratings", &encoded);
        assert!(matches!(refused, Err(DecodeError::Misnamed { .. })));
        let refused = decode(ResourceKind::Policy as u32, &entry().key().name, &encoded);
        assert!(matches!(refused, Err(DecodeError::Misnamed { .. })));
    }

    #[test]
    fn no_truncated_payload_reads_as_a_resource() {
        let encoded = encode(&entry()).unwrap();
        for cut in 0..encoded.len() {
            assert!(decode(1, &entry().key().name, &encoded[..cut]).is_err(), "cut at {cut}");
        }
    }
}
