//! Which crate may use which: normal dependencies only, from `cargo metadata`.

use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

/// Our crates and those of ours that each may depend on. `lab` and the binaries may use all.
const ALLOWED: &[(&str, &[&str])] = &[
    ("leno-model", &[]),
    ("leno-apis", &[]),
    ("leno-capture", &[]),
    ("leno-cni", &[]),
    ("leno-xds", &[]),
    ("leno-decide", &["leno-model"]),
    ("leno-wire", &["leno-model"]),
    ("leno-identity", &["leno-model"]),
    ("leno-telemetry", &["leno-model"]),
    ("leno-inject", &["leno-apis"]),
    ("leno-compile", &["leno-apis", "leno-model"]),
    ("leno-install", &["leno-inject", "leno-apis"]),
    ("leno-ca", &["leno-identity", "leno-telemetry", "leno-model"]),
    ("leno-analyze", &["leno-compile", "leno-decide", "leno-apis", "leno-model"]),
    ("leno-sources", &["leno-apis"]),
    ("leno-cluster", &["leno-install", "leno-inject", "leno-apis"]),
    ("leno-e2e", &[]),
    (
        "leno-proxy",
        &[
            "leno-model",
            "leno-capture",
            "leno-decide",
            "leno-wire",
            "leno-xds",
            "leno-identity",
            "leno-telemetry",
        ],
    ),
    (
        "leno-control",
        &[
            "leno-sources",
            "leno-inject",
            "leno-install",
            "leno-compile",
            "leno-analyze",
            "leno-apis",
            "leno-decide",
            "leno-wire",
            "leno-xds",
            "leno-identity",
            "leno-inject",
            "leno-ca",
            "leno-telemetry",
            "leno-model",
        ],
    ),
];

/// Who talks with API servers: `sources` reads, `control` writes what is the control plane's, `cluster` is the command line's client, the
/// node's agent asks whether it is being removed.
const OF_API_SERVERS: &[&str] = &["leno-sources", "leno-control", "leno-cluster", "leno-cni-agent"];

/// Libraries that only some of ours may use directly.
const RESERVED: &[(&str, &[&str])] = &[
    ("kube", OF_API_SERVERS),
    ("k8s-openapi", OF_API_SERVERS),
    ("aws-lc-rs", &["leno-identity", "leno-ca"]),
    ("rcgen", &["leno-identity", "leno-ca"]),
];

/// Libraries that would let the outside into a pure crate.
const IMPURE: &[&str] = &["tokio", "rand", "tracing", "hyper", "socket2", "rustix"];
const PURE: &[&str] = &[
    "leno-model",
    "leno-apis",
    "leno-cni",
    "leno-decide",
    "leno-inject",
    "leno-install",
    "leno-compile",
    "leno-analyze",
    "leno-wire",
];

/// `cargo metadata` of this workspace.
pub(crate) fn workspace() -> anyhow::Result<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cargo metadata")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What breaks a rule.
pub(crate) fn faults(metadata: &Value) -> anyhow::Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("a package without a name")?;
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        for dependency in normal.filter_map(|dependency| dependency["name"].as_str()) {
            if let Some(fault) = fault(name, dependency, &ours) {
                faults.push(fault);
            }
        }
    }
    Ok(faults)
}

fn fault(name: &str, dependency: &str, ours: &[&str]) -> Option<String> {
    if let Some((_, allowed)) = ALLOWED.iter().find(|(layered, _)| *layered == name)
        && ours.contains(&dependency)
        && !allowed.contains(&dependency)
    {
        return Some(format!("{name} may not depend on {dependency}"));
    }
    if let Some((_, users)) = RESERVED.iter().find(|(reserved, _)| *reserved == dependency)
        && !users.contains(&name)
    {
        return Some(format!("{name} may not use {dependency}; only {} may", users.join(" and ")));
    }
    if PURE.contains(&name) && IMPURE.contains(&dependency) {
        return Some(format!("{name} is pure and may not use {dependency}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_may_not_know_the_control_plane() {
        let ours = ["leno-proxy", "leno-control"];
        assert!(fault("leno-proxy", "leno-control", &ours).is_some());
        assert!(fault("leno-control", "leno-proxy", &ours).is_some());
    }

    #[test]
    fn kubernetes_stays_out_of_the_proxy_and_tokio_out_of_the_pure_crates() {
        assert!(fault("leno-proxy", "kube", &[]).is_some());
        assert!(fault("leno-sources", "kube", &[]).is_none());
        assert!(fault("leno-decide", "tokio", &[]).is_some());
    }
}
