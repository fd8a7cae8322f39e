//! Writes the table of all CRD fields that `leno-apis` embeds (`crates/apis/src/schema/*.txt`).
//!
//! The CRDs come from Go modules at pinned versions (`go mod download`), so that two runs give the same files. To move to
//! another version of an API: change the constants, run `cargo run -p xtask -- schema`, and see which fields are new.
//! Format: `= group Kind`, then one line a field: path, type, allowed values joined by `|`, `experimental`, tab-separated.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use leno_apis::yaml::{Node, Value, documents};

const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.6.3";
const ISTIO: &str = "istio.io/api@v1.31.4";

/// By group and kind, by path.
type Table = BTreeMap<(String, String), BTreeMap<String, Field>>;

#[derive(Default)]
struct Field {
    kind: String,
    values: Vec<String>,
}

/// Writes both files into a folder.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let gateway = module(GATEWAY_API)?.join("config/crd");
    let standard = read(&crds(&gateway.join("standard"))?)?;
    let experimental = read(&crds(&gateway.join("experimental"))?)?;
    std::fs::write(folder.join("gateway-api.txt"), render(GATEWAY_API, &standard, &experimental)?)?;
    let istio = read(&[module(ISTIO)?.join("kubernetes/customresourcedefinitions.gen.yaml")])?;
    std::fs::write(folder.join("istio.txt"), render(ISTIO, &istio, &Table::new())?)?;
    Ok(())
}

/// The folder of a Go module, downloaded when it is not there.
fn module(name: &str) -> anyhow::Result<PathBuf> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", name])
        .current_dir(std::env::temp_dir())
        .output();
    let output = output.context("cannot run go")?;
    ensure!(output.status.success(), "go mod download {name}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(answer["Dir"].as_str().context("go mod download names no folder")?.into())
}

fn crds(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("gateway.networking.k8s.io_") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(files: &[PathBuf]) -> anyhow::Result<Table> {
    let mut table = Table::new();
    for file in files {
        for document in documents(&std::fs::read_to_string(file)?) {
            let crd =
                document.map_err(|problem| anyhow::anyhow!("{}: {}", file.display(), problem.message))?;
            if crd.get("kind").and_then(Node::as_text) == Some("CustomResourceDefinition") {
                read_crd(&crd, &mut table).with_context(|| file.display().to_string())?;
            }
        }
    }
    Ok(table)
}

fn at<'n>(node: &'n Node, path: &str) -> Option<&'n Node> {
    path.split('.').try_fold(node, Node::get)
}

/// The union of the fields of all versions.
fn read_crd(crd: &Node, table: &mut Table) -> anyhow::Result<()> {
    let text =
        |path| at(crd, path).and_then(Node::as_text).map(str::to_owned).with_context(|| format!("no {path}"));
    let fields = table.entry((text("spec.group")?, text("spec.names.kind")?)).or_default();
    let Some(Value::List(versions)) = at(crd, "spec.versions").map(|node| &node.value) else { return Ok(()) };
    for version in versions {
        if let Some(spec) = at(version, "schema.openAPIV3Schema.properties.spec") {
            read_schema(spec, "spec", fields);
        }
    }
    fields.remove("spec");
    Ok(())
}

fn read_schema(schema: &Node, path: &str, fields: &mut BTreeMap<String, Field>) {
    let children = |key| match schema.get(key).map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    let is_true = |key| schema.get(key).is_some_and(|node| node.value == Value::Bool(true));
    let additional = schema.get("additionalProperties").filter(|node| matches!(node.value, Value::Map(_)));
    let properties = children("properties");
    let kind = match schema.get("type").and_then(Node::as_text) {
        None if is_true("x-kubernetes-int-or-string") => "int-or-string",
        None => "any",
        Some("object") if is_true("x-kubernetes-preserve-unknown-fields") && properties.is_empty() => "any",
        Some("object") if additional.is_some() => "map",
        Some(kind) => kind,
    };
    let field =
        fields.entry(path.to_owned()).or_insert_with(|| Field { kind: kind.to_owned(), ..Field::default() });
    if let Some(Value::List(values)) = schema.get("enum").map(|node| &node.value) {
        for value in values {
            let word = match &value.value {
                Value::Text(text) => text.clone(),
                Value::Int(int) => int.to_string(),
                Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => continue,
            };
            if !field.values.contains(&word) {
                field.values.push(word);
            }
        }
    }
    for entry in properties {
        read_schema(&entry.value, &format!("{path}.{}", entry.key), fields);
    }
    if let Some(values) = additional {
        read_schema(values, &format!("{path}{{}}"), fields);
    }
    if let Some(items) = schema.get("items") {
        read_schema(items, &format!("{path}[]"), fields);
    }
}

fn render(source: &str, table: &Table, experimental: &Table) -> anyhow::Result<String> {
    let mut text =
        format!("# Field paths of the CRDs of {}: path, type, enum values, ", source.replace('@', " "));
    text.push_str("\"experimental\" when only that channel has it.\n# Written by `cargo run -p xtask -- schema`; do not edit.\n");
    for (key, fields) in table {
        writeln!(text, "= {} {}", key.0, key.1)?;
        let more = experimental.get(key);
        let mut lines: BTreeMap<&str, (&Field, bool)> = BTreeMap::new();
        lines.extend(more.into_iter().flatten().map(|(path, field)| (path.as_str(), (field, true))));
        lines.extend(fields.iter().map(|(path, field)| (path.as_str(), (field, false))));
        for (path, (field, only_experimental)) in lines {
            let mark = if only_experimental { "experimental" } else { "" };
            let values = field.values.join("|");
            writeln!(text, "{}", format!("{path}\t{}\t{values}\t{mark}", field.kind).trim_end_matches('\t'))?;
        }
    }
    Ok(text)
}
