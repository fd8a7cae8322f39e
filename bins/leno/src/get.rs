//! `leno get`: what the running mesh has.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    Output,
    failure::Failure,
    live::{self, Which},
    write::{self, text},
};

/// List what the running mesh has
///
/// Exit code 1 when there is nothing of the name that was given, 3 when there is no mesh.
#[derive(Args)]
pub(crate) struct Arguments {
    /// What to list
    #[arg(value_enum)]
    what: What,
    /// Only of this name
    name: Option<String>,
    #[command(flatten)]
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Replicas, their addresses, and whether they are ready
    Workloads,
    /// Services with their addresses, ports and endpoints
    Services,
    /// Gateways and where they really listen
    Gateways,
    /// Proxies and the generation that each has acknowledged
    Proxies,
    /// The objects of the manifests
    Objects,
    /// What is wrong with them
    Diagnostics,
    /// What proxies are sent
    Resources,
    /// Other clusters, as each control plane hears them
    Peers,
}

/// Lists it.
pub(crate) fn get(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { what, name, which } = arguments;
    live::block_on(async {
        let mut rows = Vec::new();
        for cluster in live::clusters(which)? {
            let (path, field) = match what {
                What::Workloads => ("", "workloads"),
                What::Gateways => ("", "gateways"),
                What::Services => ("/v1/services", "services"),
                What::Proxies => ("/v1/proxies", "proxies"),
                What::Objects => ("/v1/objects", "objects"),
                What::Diagnostics => ("/v1/diagnostics", "diagnostics"),
                What::Resources => ("/v1/resources", "resources"),
                What::Peers => ("/v1/peers", "peers"),
            };
            let mut answer = if path.is_empty() { json!(cluster) } else { live::ask(&cluster, path).await? };
            let Value::Array(items) = answer[field].take() else { continue };
            rows.extend(items.into_iter().map(|item| (cluster.name.clone(), item)));
        }
        if let Some(name) = name {
            rows.retain(|(_, item)| is_called(item, name));
        }
        let nothing_of = name.as_ref().filter(|_| rows.is_empty());
        match output {
            Output::Json => {
                let all = rows.into_iter().map(|(cluster, mut item)| {
                    item["cluster"] = json!(cluster);
                    item
                });
                write::json(&all.collect());
            }
            Output::Text if nothing_of.is_some() => {}
            Output::Text => show(*what, &rows),
        }
        let Some(name) = nothing_of else { return Ok(()) };
        write::note(&format!("no {} is called {name}; `leno get` without a name lists all", what.one()));
        Err(Failure::DoesNotHold)
    })
}

impl What {
    /// One of them.
    fn one(self) -> &'static str {
        match self {
            Self::Workloads => "workload",
            Self::Services => "service",
            Self::Gateways => "gateway",
            Self::Proxies => "proxy",
            Self::Objects => "object",
            Self::Diagnostics => "diagnostic",
            Self::Resources => "resource",
            Self::Peers => "peer",
        }
    }
}

fn is_called(item: &Value, name: &str) -> bool {
    let id = if item["id"].is_object() { &item["id"] } else { item };
    let full = format!("{}/{}", text(&id["namespace"]), text(&id["name"]));
    full == name
        || text(&id["name"]) == name
        || text(&item["owner"]) == name
        || text(&item["workload"]) == name
}

/// The cells of an item, without its cluster.
type Cells = fn(&Value) -> Vec<String>;

fn show(what: What, rows: &[(String, Value)]) {
    let full = |item: &Value| match item["namespace"].as_str() {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{}", text(&item["name"])),
        _ => text(&item["name"]),
    };
    let (headings, cells): (&[&str], Cells) = match what {
        What::Workloads => (&["CLUSTER", "WORKLOAD", "ADDRESS", "APPLICATION", "STATE"], |item| {
            let state = match (item["terminating"].as_bool(), item["ready"].as_bool()) {
                (Some(true), _) => "going",
                (_, Some(true)) => "ready",
                _ => "starting",
            };
            vec![id(&item["id"]), text(&item["address"]), text(&item["app_address"]), state.to_owned()]
        }),
        What::Gateways => (&["CLUSTER", "GATEWAY", "OBJECT", "LISTENERS"], |item| {
            let listeners = item["listeners"].as_array().into_iter().flatten();
            let listener = |it: &Value| {
                format!("{} {}://{}", text(&it["name"]), text(&it["protocol"]), text(&it["address"]))
            };
            vec![
                id(&item["id"]),
                text(&item["object"]),
                listeners.map(listener).collect::<Vec<_>>().join(", "),
            ]
        }),
        What::Services => (&["CLUSTER", "SERVICE", "ADDRESSES", "PORTS", "ENDPOINTS"], |item| {
            let port = |it: &Value| format!("{}/{}", it["port"], text(&it["protocol"]));
            let ports = item["ports"].as_array().into_iter().flatten().map(port);
            let endpoints = &item["endpoints"];
            let name = format!("{}/{}", text(&item["namespace"]), text(&item["name"]));
            let count = format!("{}/{}", endpoints["ready"], endpoints["total"]);
            vec![name, text(&item["addresses"]), ports.collect::<Vec<_>>().join(","), count]
        }),
        What::Proxies => (&["CLUSTER", "WORKLOAD", "CONNECTED", "GENERATION", "BEHIND", "SCOPES"], |item| {
            ["workload", "connected", "acknowledged", "lag", "scopes"].map(|field| text(&item[field])).into()
        }),
        What::Peers => (&["CLUSTER", "PEER", "CONNECTED", "STALE", "SERVICES", "ENDPOINTS"], |item| {
            ["cluster", "connected", "stale", "services", "endpoints"].map(|field| text(&item[field])).into()
        }),
        What::Resources => {
            (&["CLUSTER", "KIND", "NAME"], |item| ["kind", "name"].map(|field| text(&item[field])).into())
        }
        What::Objects => {
            let row = |(cluster, item): &(String, Value)| {
                let refused = if item["refused"].as_bool() == Some(true) { "refused" } else { "" };
                let place = format!("{}:{}", text(&item["file"]), item["line"]);
                vec![cluster.clone(), text(&item["kind"]), full(item), place, refused.to_owned()]
            };
            let rows: Vec<_> = rows.iter().map(row).collect();
            return write::columns(&["CLUSTER", "KIND", "NAME", "PLACE", ""], &rows);
        }
        What::Diagnostics => {
            return rows.iter().for_each(|(_, item)| write::line(&write::diagnostic(item)));
        }
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|(cluster, item)| std::iter::once(cluster.clone()).chain(cells(item)).collect())
        .collect();
    write::columns(headings, &rows);
}

fn id(value: &Value) -> String {
    format!("{}/{}", text(&value["namespace"]), text(&value["name"]))
}
