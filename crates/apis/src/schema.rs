//! Every field of every Gateway API and Istio CRD, as a table.
//!
//! It tells a field that the API has and we refuse from one that the API does not have, and it is what a support check
//! enumerates. The files in `schema/` are written by `cargo run -p xtask -- schema` from the CRDs in the projects' Go modules.
//! Invariant: paths are sorted, `[]` stands for list items and `{}` for map values.
//! Must not know: which fields the decoders take.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One field of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    /// Path from the object, such as `spec.http[].match[].headers{}.exact`.
    pub path: &'static str,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `object`, `map`, `array`, `int-or-string`, `any`.
    pub kind: &'static str,
    /// The values that the schema allows; empty when it does not list them.
    pub values: Vec<&'static str>,
    /// Only in the experimental channel of the API.
    pub experimental: bool,
}

type Table = BTreeMap<&'static str, BTreeMap<&'static str, Vec<FieldPath>>>;

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::new();
    for text in [include_str!("schema/gateway-api.txt"), include_str!("schema/istio.txt")] {
        read(text, &mut table);
    }
    table
});

fn read(text: &'static str, table: &mut Table) {
    let mut fields: Option<&mut Vec<FieldPath>> = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((group, kind)) = line.strip_prefix("= ").and_then(|name| name.split_once(' ')) {
            fields = Some(table.entry(group).or_default().entry(kind).or_default());
            continue;
        }
        let mut columns = line.split('\t');
        let (Some(path), Some(kind), Some(fields)) = (columns.next(), columns.next(), fields.as_mut()) else {
            continue;
        };
        let values =
            columns.next().map(|all| all.split('|').filter(|v| !v.is_empty()).collect()).unwrap_or_default();
        fields.push(FieldPath { path, kind, values, experimental: columns.next() == Some("experimental") });
    }
    for fields in table.values_mut().flat_map(BTreeMap::values_mut) {
        fields.sort_by_key(|field| field.path);
    }
}

/// The fields of a kind; empty for kinds that are not of the Gateway API or Istio.
#[must_use]
pub fn fields(group: &str, kind: &str) -> &'static [FieldPath] {
    TABLE.get(group).and_then(|kinds| kinds.get(kind)).map_or(&[], Vec::as_slice)
}

/// All kinds of the table, as group and kind.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().flat_map(|(group, kinds)| kinds.keys().map(|kind| (*group, *kind)))
}

/// The field of a path.
pub(crate) fn field(fields: &'static [FieldPath], path: &str) -> Option<&'static FieldPath> {
    fields.binary_search_by_key(&path, |field| field.path).ok().map(|index| &fields[index])
}

/// The names of the fields directly below a path.
pub(crate) fn children<'p>(
    fields: &'static [FieldPath],
    parent: &'p str,
) -> impl Iterator<Item = &'static str> + 'p {
    fields.iter().filter_map(move |field| {
        let name = field.path.strip_prefix(parent)?.strip_prefix('.')?;
        (!name.contains(['.', '[', '{'])).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_kind_and_knows_types_and_values() {
        assert_eq!(kinds().count(), 25);
        let rule = fields("networking.istio.io", "DestinationRule");
        let mode = field(rule, "spec.trafficPolicy.tls.mode").unwrap();
        assert_eq!(mode.values, ["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]);
        let route = fields("gateway.networking.k8s.io", "HTTPRoute");
        assert!(field(route, "spec.rules[].retry").unwrap().experimental);
        assert!(children(rule, "spec").any(|name| name == "subsets"));
    }
}
