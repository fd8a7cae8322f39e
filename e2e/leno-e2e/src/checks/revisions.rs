//! Leno's own upgrade: in place as far as a plan shows it, and from one revision to the next under load.

use anyhow::{Context as _, ensure};

use crate::{
    cluster::until,
    load,
    mesh::{APPS, Mesh},
};

/// The other revision.
const NEXT: &str = "next";

/// What is installed is what the values say: there is nothing to change, and the plan changes nothing.
pub(super) fn plan(mesh: &Mesh) -> anyhow::Result<()> {
    let said = mesh.leno_with("upgrade", &["--check"])?;
    let stays = said.lines().last().unwrap_or_default();
    let counts: Vec<&str> = stays.split(' ').collect();
    ensure!(counts.len() > 2 && counts[0] == counts[2], "something would change: {said}");
    let more = mesh.leno_with("upgrade", &["--check", "--set", "replicas=3"])?;
    ensure!(more.contains("spec.replicas: 2 -> 3"), "{more}");
    let deployment = mesh.west.get("deployment -n leno-system leno-control")?;
    ensure!(deployment["spec"]["replicas"] == 2, "a plan has changed something");
    Ok(())
}

/// Under load: a second control plane comes, the namespace goes over to it pod by pod, back again, and it is removed.
pub(super) fn revisions(mesh: &Mesh) -> anyhow::Result<()> {
    let other = format!("revision={NEXT}");
    let outcome = load::unharmed(&mesh.west, || {
        mesh.leno_with("install", &["--set", &other])?;
        mesh.west.run(&format!("label namespace {APPS} leno.dev/inject- leno.dev/rev={NEXT}"))?;
        restart(mesh, NEXT)
    });
    let back = load::unharmed(&mesh.west, || {
        mesh.west.run(&format!("label namespace {APPS} leno.dev/rev- leno.dev/inject=enabled"))?;
        restart(mesh, "default")?;
        mesh.leno_with("uninstall", &["--set", &other])?;
        Ok(())
    });
    outcome.context("over to the next revision")?;
    back.context("and back")?;
    let pods = mesh.west.items("pod -n leno-system -l app=leno-control")?;
    ensure!(pods.len() >= 2, "the first revision is there: {} pods", pods.len());
    mesh.leno("check").map(drop)
}

/// Server and client get proxies of a revision.
fn restart(mesh: &Mesh, revision: &str) -> anyhow::Result<()> {
    for deployment in ["back", "front"] {
        mesh.west.run(&format!("-n {APPS} rollout restart deployment {deployment}"))?;
        mesh.west.rolled_out(APPS, deployment)?;
    }
    until(60, || {
        for app in ["back", "front"] {
            for pod in mesh.west.items(&format!("pod -n {APPS} -l app={app}"))? {
                let of = &pod["metadata"]["annotations"]["leno.dev/rev"];
                ensure!(*of == revision, "{} is of revision {of}", pod["metadata"]["name"]);
            }
        }
        Ok(())
    })?;
    let (status, body) = mesh.west.call(APPS, "deployment/front", "http://back/")?;
    ensure!(status == 200 && body.contains("spiffe://cluster.local/ns/shop/sa/front"), "{status} {body}");
    Ok(())
}
