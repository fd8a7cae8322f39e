//! `leno why ID`: which policy, rule and field refused a request.

use std::net::SocketAddr;

use clap::Args;
use leno_lab::mesh::api;
use leno_model::WorkloadId;
use serde_json::{Value, json};

use crate::{
    Output,
    failure::Failure,
    live::{self, Which},
    write::{self, text},
};

/// Say why a request was refused
///
/// A refused response carries its id in the header `x-leno-denial`; proxies keep their last refusals. Says the policy, the
/// rule and the field, and the file and line that they come from. Exit code 1 when no proxy knows the id.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The id of the denial
    id: String,
    #[command(flatten)]
    which: Which,
}

/// Says it.
pub(crate) fn why(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let Arguments { id, which } = arguments;
    if id.is_empty() || !id.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Err(Failure::Usage(anyhow::anyhow!("{id:?} is no id of a denial")));
    }
    live::block_on(async {
        let clusters = live::clusters(which)?;
        let workloads = clusters.iter().flat_map(|cluster| &cluster.workloads);
        let workloads = workloads.filter_map(|workload| Some((&workload.id, workload.admin?)));
        let gateways = clusters.iter().flat_map(|cluster| &cluster.gateways);
        let mut proxies: Vec<(&WorkloadId, SocketAddr)> =
            workloads.chain(gateways.map(|gateway| (&gateway.id, gateway.admin))).collect();
        // The id says whose it is; the others are asked when that proxy does not know it.
        proxies.sort_by_key(|(workload, _)| {
            !id.starts_with(&format!("{:08x}", leno_proxy::id_prefix(workload)))
        });
        for (workload, admin) in proxies {
            if let Ok(denial) = api::get_json(admin, &format!("/denials/{id}")).await {
                match output {
                    Output::Json => write::json(&denial),
                    Output::Text => tell(workload, &denial),
                }
                return Ok(());
            }
        }
        let unknown = "no proxy knows it: it is older than the last that each keeps, or its proxy is gone";
        match output {
            Output::Json => write::json(&json!({"id": id, "found": false, "because": unknown})),
            Output::Text => write::line(&format!("denial {id}: {unknown}")),
        }
        Err(Failure::DoesNotHold)
    })
}

fn tell(workload: &WorkloadId, denial: &Value) {
    let what = [&denial["method"], &denial["path"], &denial["target"]].map(text).join(" ");
    write::line(&format!("{workload} refused {}", what.trim()));
    write::line(&format!("  asked by {}", text(&denial["peer"])));
    write::line(&format!("  because {}", text(&denial["reason"])));
    if let Some(policy) = denial["policy"].as_str() {
        let rule = denial["rule"].as_u64().map(|rule| format!(", rule {rule}")).unwrap_or_default();
        let field = denial["field"]
            .as_str()
            .filter(|field| !field.is_empty())
            .map(|field| format!(", field {field}"))
            .unwrap_or_default();
        write::line(&format!("  policy {policy}{rule}{field}"));
    }
    let origin = &denial["origin"];
    if let Some(kind) = origin["kind"].as_str() {
        let namespace = text(&origin["namespace"]);
        let name = if namespace.is_empty() {
            text(&origin["name"])
        } else {
            format!("{namespace}/{}", text(&origin["name"]))
        };
        let told = [kind.to_owned(), name, text(&origin["field"]), text(&origin["place"])];
        let told: Vec<_> = told.into_iter().filter(|part| !part.is_empty()).collect();
        write::line(&format!("  written in {}", told.join(" ")));
    }
}
