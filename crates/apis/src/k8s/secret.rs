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

#[cfg(test)]
mod tests {
    use crate::{AnyObject, parse};

    #[test]
    fn data_is_decoded_and_never_shown() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata: {tls.key: c2VjcmV0}\nstringData: {tls.crt: plain}\n";
        let parsed = parse("s.yaml", text);
        let AnyObject::Secret(object) = parsed.objects[0].as_ref() else {
            panic!("{:?}", parsed.diagnostics)
        };
        assert_eq!(object.spec.data["tls.key"], b"secret");
        assert_eq!(object.spec.data["tls.crt"], b"plain");
        assert!(!format!("{object:?}").contains("115"), "bytes must not be printed");
        let broken = parse("s.yaml", &text.replace("c2VjcmV0", "hunter2!"));
        assert_eq!(broken.diagnostics.len(), 1);
        assert!(!broken.diagnostics[0].to_string().contains("hunter2"));
    }
}
