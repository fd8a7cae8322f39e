//! What must hold, in order: later checks use what earlier ones have made.

mod applications;
mod capture;
mod change;
mod clusters;
mod cni;
mod control_plane;
mod figures;
mod first_packet;
mod orders;
mod revisions;
mod server_ends;
mod traffic;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::mesh::{APPS, Mesh};

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// Of the short form.
    pub(crate) short: bool,
    /// Without it nothing else can be.
    pub(crate) always: bool,
    pub(crate) run: fn(&Mesh) -> anyhow::Result<()>,
}

/// Why a check that says so could not be run here: it is neither passed nor failed.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

const fn needed(name: &'static str, run: fn(&Mesh) -> anyhow::Result<()>) -> Check {
    Check { name, short: true, always: true, run }
}
const fn short(name: &'static str, run: fn(&Mesh) -> anyhow::Result<()>) -> Check {
    Check { name, short: true, always: false, run }
}
const fn long(name: &'static str, run: fn(&Mesh) -> anyhow::Result<()>) -> Check {
    Check { name, short: false, always: false, run }
}

pub(crate) const CHECKS: &[Check] = &[
    needed(
        "install: two replicas are ready, one of them leads, and `leno check` finds nothing wrong",
        install,
    ),
    needed("inject: pods of an enrolled namespace get a proxy and become ready, others do not", inject),
    short("identity: the server sees the client's service account", traffic::identity),
    short(
        "capture: every proxy says that it works, and what the mesh does not know is reached",
        traffic::capture,
    ),
    short("metrics: mutual TLS is counted on 15020 and 15090", traffic::metrics),
    short("strict: a client outside the mesh is refused", traffic::strict),
    short("job: a Job with a proxy finishes", traffic::job),
    short("restart: a rolling restart of the server fails no request", |mesh| change::restarts(mesh, 1)),
    short("control: losing every control plane pod fails no request", control_plane::control_is_lost),
    short("probes: http, tcp, grpc and exec probes have restarted nothing so far", traffic::probes),
    long("restart x10: ten rolling restarts fail no request", |mesh| change::restarts(mesh, 10)),
    long("drain: a node is drained and no request fails", server_ends::node_is_drained),
    long(
        "killed: no GET fails, and no POST but those that the application had received",
        server_ends::application_is_killed,
    ),
    long(
        "killed with its proxy: no GET fails, and no POST but those that the application had received",
        server_ends::application_and_proxy_are_killed,
    ),
    long(
        "at once: a server that closes at once on SIGTERM fails no GET, and no POST but those that it had received",
        server_ends::server_closes_at_once,
    ),
    long("scale: from 1 to 5 and back fails no request", change::scales),
    long("away: without a control plane proxies restart and serve", control_plane::control_is_away),
    long(
        "removed: without a control plane callers do without a server that is gone",
        control_plane::server_is_removed,
    ),
    long(
        "webhook: while it is away pods go on, and new ones are refused, not bare",
        control_plane::webhook_is_away,
    ),
    long("api: the API server is away for a minute and no request fails", control_plane::api_is_away),
    long(
        "orders: a route and the rule of its subset, in each order, fail no request",
        orders::of_routes_and_rules,
    ),
    long(
        "first server: a server that starts is called over mutual TLS or not at all",
        first_packet::of_servers,
    ),
    long("first client: the first act of a container is a call over mutual TLS", first_packet::of_clients),
    long(
        "names: headless services, StatefulSet pods and ExternalNames lead where they should",
        capture::names_lead,
    ),
    long("hairpin: a pod calls itself", capture::hairpin),
    long("outside: callers by a node's port and from its network, and servers on it", capture::without_proxy),
    long("beyond: the API server is reached, and UDP is left alone", capture::beyond),
    long("permissive: plaintext and mutual TLS are served and counted", traffic::permissive),
    long("selective: a pod without a proxy calls and is called as policies say", traffic::selective),
    long("gateway: a Gateway's address leads to its backend over mutual TLS", traffic::gateway),
    long("cni: a plugin captures, pods have no privilege, and the node is as it was afterwards", cni::plugin),
    long("status: kubectl waits until all proxies have a route", change::status),
    long("leader: statuses go on within 15 s after the leader is killed", control_plane::leader_is_killed),
    long("plan: an upgrade says what it would change, and changes nothing", revisions::plan),
    long(
        "revision: a namespace goes over to another revision and back, and no request fails",
        revisions::revisions,
    ),
    long("bookinfo: every call works, over mutual TLS", applications::bookinfo),
    long("online boutique: every call works, over mutual TLS", applications::online_boutique),
    long("figures: changes, starts, CPU and memory", figures::all),
    long(
        "clusters: a server in another cluster and network is called by its Service's name",
        clusters::networks,
    ),
    long(
        "clusters: when no server is left here those of the other cluster answer, also while control planes are replaced",
        clusters::failover,
    ),
    long("clusters: over a flat network they do without gateways", clusters::flat),
];

fn install(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.load_images()?;
    mesh.install()?;
    let pods = mesh.west.items("pod -n leno-system -l app=leno-control")?;
    ensure!(pods.len() == 2, "{} replicas", pods.len());
    crate::cluster::until(20, || {
        let holder = control_plane::leader(mesh)?;
        ensure!(pods.iter().any(|pod| pod["metadata"]["name"] == holder.as_str()), "{holder} leads");
        Ok(())
    })?;
    mesh.leno("check").map(drop)
}

fn inject(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.deploy()?;
    for pod in mesh.west.items(&format!("pod -n {APPS}"))? {
        let names = names(&pod["spec"]["initContainers"])?;
        ensure!(names == ["leno-init", "istio-proxy"], "{}: {names:?}", pod["metadata"]["name"]);
        let ready = &pod["status"]["containerStatuses"];
        ensure!(ready.as_array().is_some_and(|all| all.iter().all(|it| it["ready"] == true)), "{ready}");
    }
    for pod in mesh.west.items("pod -n plain")? {
        ensure!(pod["spec"]["initContainers"].is_null(), "{pod}");
    }
    mesh.leno("check").map(drop).context("with pods that have proxies")
}

fn names(containers: &Value) -> anyhow::Result<Vec<&str>> {
    let containers = containers.as_array().context("no init containers")?;
    Ok(containers.iter().filter_map(|it| it["name"].as_str()).collect())
}
