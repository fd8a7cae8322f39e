//! Secrets: certificates and keys of gateways.
//!
//! Invariant: the bytes never appear in a diagnostic or in `Debug`.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;

use crate::decode::{Cursor, Fields, text};
use crate::yaml::Value;

/// A secret with its data decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Type, such as `kubernetes.io/tls`; `Opaque` when the text does not say.
    pub type_: String,
    /// `data` decoded from base64, overlaid with `stringData`.
    pub data: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("type", &self.type_).field("keys", &self.data.keys()).finish()
    }
}

pub(crate) fn secret(o: &mut Fields<'_>) -> Option<Secret> {
    let type_ = o.or("type", "Opaque".to_owned(), text);
    let mut data = o.map("data", base64_bytes);
    data.extend(o.map("stringData", |value| secret_text(&value).map(String::into_bytes)));
    Some(Secret { type_: type_?, data })
}

/// Like `text`, without quoting what was found.
fn secret_text(value: &Cursor<'_>) -> Option<String> {
    match &value.node().value {
        Value::Text(text) => Some(text.clone()),
        _ => {
            value.invalid("expected a string");
            None
        }
    }
}

fn base64_bytes(value: Cursor<'_>) -> Option<Vec<u8>> {
    let encoded: String = match &value.node().value {
        Value::Null => String::new(),
        _ => secret_text(&value)?.split_ascii_whitespace().collect(),
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok();
    if bytes.is_none() {
        value.invalid("not base64");
    }
    bytes
}
