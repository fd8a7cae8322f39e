//! Every diagnostic code of this crate with its one-line meaning, for the documentation.
//!
//! Invariant: a code never changes its meaning; a code that is gone is not used again.
//! LN00xx are about text, LN01xx about objects. LN1xxx belong to `compile`, LN2xxx to `analyze`.

/// The text is not YAML.
pub const SYNTAX: &str = "LN0001";
/// The document is too large, too deep, or its aliases expand too far.
pub const LIMIT: &str = "LN0002";
/// A mapping has the same key twice.
pub const DUPLICATE_KEY: &str = "LN0003";
/// The document is not a Kubernetes object.
pub const NOT_AN_OBJECT: &str = "LN0004";
/// The value has the wrong type.
pub const WRONG_TYPE: &str = "LN0101";
/// The API has no such field.
pub const UNKNOWN_FIELD: &str = "LN0102";
/// The API has the field, this release does not act on it.
pub const UNSUPPORTED_FIELD: &str = "LN0103";
/// A required field is missing.
pub const MISSING_FIELD: &str = "LN0104";
/// The value has the right type and is not allowed.
pub const INVALID_VALUE: &str = "LN0105";
/// The kind is known, this release does not act on it.
pub const UNSUPPORTED_KIND: &str = "LN0106";
/// Fields that exclude each other are both set.
pub const CONFLICTING_FIELDS: &str = "LN0107";
/// The kind is known, this version of it is not.
pub const UNKNOWN_VERSION: &str = "LN0108";
/// The API allows the value, this release does not act on it.
pub const UNSUPPORTED_VALUE: &str = "LN0109";
/// Two texts hold an object of one name.
pub const DUPLICATE_OBJECT: &str = "LN0110";
/// The kind or its group is a misspelt one of ours.
pub const MISSPELT_KIND: &str = "LN0111";

/// Code and meaning, ascending.
pub const ALL: &[(&str, &str)] = &[
    (SYNTAX, "the text is not YAML; the other documents of the file are still read"),
    (LIMIT, "the document is too large, nested too deeply, or its aliases expand too far"),
    (DUPLICATE_KEY, "a mapping has the same key twice, so one of the two values would be lost"),
    (NOT_AN_OBJECT, "the document is not a Kubernetes object: apiVersion, kind or metadata.name is missing"),
    (WRONG_TYPE, "the value has the wrong type, for example a number where the API wants a string"),
    (UNKNOWN_FIELD, "the API has no field of this name, most often a spelling mistake"),
    (
        UNSUPPORTED_FIELD,
        "the API has the field, this release does not act on it; what it belongs to is withheld",
    ),
    (MISSING_FIELD, "a field that the API requires is missing"),
    (INVALID_VALUE, "the value has the right type and the API does not allow it"),
    (UNSUPPORTED_KIND, "the kind is known, this release does not act on it; the object has no effect"),
    (CONFLICTING_FIELDS, "fields of which the API allows only one are set together, or none of them is"),
    (UNKNOWN_VERSION, "the kind is known, the version in apiVersion is not"),
    (UNSUPPORTED_VALUE, "the API allows the value, this release does not act on it"),
    (DUPLICATE_OBJECT, "two texts hold an object of one kind, namespace and name; only the first is used"),
    (
        MISSPELT_KIND,
        "there is no such kind, and one of ours has nearly its name; nothing of its file counts as deleted",
    ),
];

/// Whether an API server that has the kind's schema would not store such an object at all.
#[must_use]
pub fn is_invalid(code: &str) -> bool {
    const INVALID: &[&str] = &[
        DUPLICATE_KEY,
        WRONG_TYPE,
        UNKNOWN_FIELD,
        MISSING_FIELD,
        INVALID_VALUE,
        CONFLICTING_FIELDS,
        UNKNOWN_VERSION,
    ];
    INVALID.contains(&code)
}

/// The meaning of a code of this crate.
#[must_use]
pub fn meaning(code: &str) -> Option<&'static str> {
    ALL.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning)
}
