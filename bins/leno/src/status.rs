//! `leno status`: how the running mesh is.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    Output, color,
    failure::Failure,
    live::{self, Which},
    write::{self, text},
};

/// Show how the running mesh is
///
/// For each cluster: how many proxies have acknowledged the newest configuration, changes that were refused (with file and
/// line) while the last good form stays in force, other clusters that cannot be heard, and proxies that could not use
/// something. Exit code 3 when a control plane does not answer.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// Shows it.
pub(crate) fn status(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    live::block_on(async {
        let clusters = live::clusters(&arguments.which)?;
        let mut all = Vec::new();
        let mut away = None;
        for cluster in &clusters {
            match live::ask(cluster, "/v1/status").await {
                Ok(status) => {
                    if output == Output::Text {
                        let ready = cluster.workloads.iter().filter(|workload| workload.ready).count();
                        tell(&status, ready, cluster.workloads.len());
                    }
                    all.push(status);
                }
                Err(failure) => {
                    if output == Output::Text {
                        write::line(&color::bad(&format!(
                            "cluster {}: its control plane does not answer",
                            cluster.name
                        )));
                    }
                    all.push(json!({"cluster": cluster.name, "reachable": false}));
                    away = Some(failure);
                }
            }
        }
        if output == Output::Json {
            write::json(&json!({ "clusters": all }));
        }
        away.map_or(Ok(()), Err)
    })
}

fn tell(status: &Value, ready: usize, workloads: usize) {
    let rollout = &status["rollout"];
    let (acknowledged, expected) = (rollout["acknowledged"].as_u64(), rollout["expected"].as_u64());
    let place = [&status["region"], &status["zone"]].map(text).join(" ");
    let place = if place.trim().is_empty() { String::new() } else { format!(" ({})", place.trim()) };
    write::line(&format!(
        "cluster {}{place}: generation {}, {ready} of {workloads} workloads ready",
        text(&status["cluster"]),
        status["generation"]
    ));
    let line = format!("  proxies acknowledged {}/{}", acknowledged.unwrap_or(0), expected.unwrap_or(0));
    write::line(&if acknowledged == expected { color::good(&line) } else { color::bad(&line) });
    for kept in items(&status["kept"]) {
        let object = &kept["object"];
        let name = [&object["namespace"], &object["name"]].map(text).join("/");
        write::line(&color::bad(&format!(
            "  refused change: {} {name} stays in force as it was",
            text(&object["kind"])
        )));
        for because in items(&kept["because"]) {
            write::line(&format!("    {}", write::diagnostic(because)));
        }
    }
    if let Some(error) = status["source_error"].as_str() {
        write::line(&color::bad(&format!("  the manifests cannot be read: {error}")));
    }
    for error in items(&status["errors"]) {
        write::line(&color::bad(&format!("  {}", write::diagnostic(error))));
    }
    let count = |severity: &str| {
        let found = status["diagnostics"][severity].as_u64().and_then(|found| usize::try_from(found).ok());
        write::count(found.unwrap_or(0), severity)
    };
    write::line(&format!("  diagnostics: {}, {} (`leno get diagnostics`)", count("error"), count("warning")));
    for peer in items(&status["peers"]) {
        let stale = peer["stale"].as_bool().unwrap_or(false) || !peer["connected"].as_bool().unwrap_or(false);
        let name = text(&peer["cluster"]);
        if stale {
            let since = peer["age_seconds"]
                .as_u64()
                .map_or_else(|| "never heard".to_owned(), |age| format!("last heard {age} s ago"));
            write::line(&color::bad(&format!("  cluster {name}: stale, {since} {}", text(&peer["cause"]))));
        } else {
            write::line(&format!(
                "  cluster {name}: {} services, {} endpoints",
                peer["services"], peer["endpoints"]
            ));
        }
    }
    for proxy in items(&status["proxies"]) {
        for (what, list) in [("cannot use", &proxy["rejected"]), ("was not given", &proxy["withheld"])] {
            for objection in items(list) {
                let told = format!(
                    "  {} {what} {}: {}",
                    text(&proxy["workload"]),
                    text(&objection["resource"]),
                    text(&objection["reason"])
                );
                write::line(&color::bad(&told));
            }
        }
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
