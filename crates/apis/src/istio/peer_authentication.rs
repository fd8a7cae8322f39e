//! PeerAuthentication: whether a workload demands mTLS.

use std::collections::BTreeMap;

use crate::codes;
use crate::decode::{Cursor, Fields, choice};
use crate::diagnostic::Spanned;

use super::selector::match_labels;

/// A PeerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Labels of the workloads; empty means the namespace or, in the root namespace, the mesh.
    pub match_labels: BTreeMap<String, String>,
    /// Mode; absent inherits.
    pub mode: Option<Spanned<MtlsMode>>,
    /// Mode by port of the workload.
    pub ports: BTreeMap<u16, Option<Spanned<MtlsMode>>>,
}

/// Whether mTLS is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}

const MODES: &[(&str, Option<MtlsMode>)] = &[
    ("UNSET", None),
    ("DISABLE", Some(MtlsMode::Disable)),
    ("PERMISSIVE", Some(MtlsMode::Permissive)),
    ("STRICT", Some(MtlsMode::Strict)),
];

pub(crate) fn peer_authentication(o: &mut Fields<'_>) -> Option<PeerAuthentication> {
    // An empty specification is allowed: it inherits.
    let nothing = PeerAuthentication { match_labels: BTreeMap::new(), mode: None, ports: BTreeMap::new() };
    o.or("spec", nothing, |value| {
        value.object(|o| {
            let match_labels = match_labels(o, "selector");
            let mut ports = BTreeMap::new();
            if let Some(map) = o.take("portLevelMtls") {
                for (key, value) in map.entries()? {
                    match key.parse::<u16>() {
                        Ok(port) if port > 0 => {
                            ports.insert(port, mtls(value).flatten());
                        }
                        _ => value.invalid(format!("{key:?} is not a port")),
                    }
                }
            }
            if !ports.is_empty() && match_labels.is_empty() {
                let message = "`portLevelMtls` needs a `selector`: ports are those of a workload";
                o.here().refuse(codes::MISSING_FIELD, message, None);
            }
            Some(PeerAuthentication { match_labels, mode: o.or("mtls", None, mtls)?, ports })
        })
    })
}

fn mtls(value: Cursor<'_>) -> Option<Option<Spanned<MtlsMode>>> {
    let at = value.source();
    value.object(|o| Some(o.or("mode", None, choice(MODES))?.map(|value| Spanned { value, at })))
}
