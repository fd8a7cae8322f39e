//! The root that clusters share, made by the commands of the guide as they stand there.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::cluster::{Cluster, said};

const GUIDE: &str = include_str!("../../../docs/guide/several-clusters.md");

/// Plugs the cluster's intermediate in before Leno is installed.
pub(crate) fn plug_in(cluster: &Cluster, evidence: &Path) -> anyhow::Result<()> {
    let folder = evidence.join("authority");
    if !folder.exists() {
        fs::create_dir_all(&folder)?;
        let mut script = Command::new("bash");
        script.args(["-euo", "pipefail", "-c", commands()?]).current_dir(&folder);
        said(&["the guide's openssl"], &script.output()?)?;
    }
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: leno-system}}")?;
    let own = folder.join(cluster.name);
    let mut create = "-n leno-system create secret generic cacerts".to_owned();
    for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
        create.push_str(&format!(" --from-file={}", own.join(file).display()));
    }
    cluster.run(&create).map(drop)
}

/// The guide's block of commands that makes the certificates.
fn commands() -> anyhow::Result<&'static str> {
    let blocks = GUIDE.split("```bash\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut found = blocks.filter(|block| block.contains("openssl"));
    let block = found.next().context("the guide makes no certificates")?;
    ensure!(found.next().is_none(), "the guide makes certificates twice");
    Ok(block)
}
