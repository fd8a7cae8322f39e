//! The demo's manifests: services, their workloads in clusters, routes and policy, as files that one could write by hand.
//!
//! ```text
//! FOLDER/common/{mesh,services,canary,policies}.yaml   every cluster        FOLDER/CLUSTER/{workloads,gateway}.yaml   one cluster
//! ```
//!
//! `front/web` calls the rest and is what the gateway serves; `front/reports` is the caller that a policy will deny;
//! `shop/checkout` has two versions; `billing/ledger` and a third of the others spread their traffic over all clusters.
//! Invariants: every service runs in two clusters or more; one of them is the last one, the region that will be lost.
//! Must not know: meshes, loads.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::mesh::ClusterPlan;

/// The port of every service.
pub(super) const PORT: u16 = 8080;
/// Services that every demo has.
pub(super) const LEAST_SERVICES: usize = 6;
/// Names of the others.
const STEMS: [&str; 10] =
    ["catalog", "search", "pricing", "stock", "reviews", "profile", "shipping", "invoices", "tax", "offers"];
const NAMESPACES: [&str; 4] = ["front", "shop", "billing", "data"];
/// Clusters with their regions and zones.
const CLUSTERS: [(&str, &str, &str); 3] = [
    ("west-1", "us-west", "us-west-a"),
    ("west-2", "us-west", "us-west-b"),
    ("east-1", "us-east", "us-east-a"),
];

/// A service with its workloads.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) namespace: &'static str,
    pub(super) name: String,
    /// Its `app` label.
    pub(super) app: String,
    /// Its `version` label, where the service selects by it.
    version: Option<&'static str>,
    /// Replicas by cluster; empty when its pods are those of other services.
    replicas: Vec<usize>,
    /// What it calls.
    calls: Vec<String>,
    /// Whether callers use all clusters alike, not the nearest first.
    spread: bool,
}

/// The files of a demo.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) clusters: Vec<ClusterPlan>,
    pub(super) services: Vec<Service>,
    folder: PathBuf,
}

impl Service {
    /// Its name as callers in other namespaces write it.
    pub(super) fn host(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// The SPIFFE id of its pods.
    pub(super) fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.app)
    }
}

impl Scenario {
    /// Writes the files of so many services in so many clusters (2 or 3) into a folder.
    pub(super) fn write(folder: &Path, services: usize, clusters: usize) -> io::Result<Self> {
        let chosen: Vec<_> = match clusters {
            0..=2 => vec![CLUSTERS[0], CLUSTERS[2]],
            _ => CLUSTERS.to_vec(),
        };
        let services = self::services(services.max(LEAST_SERVICES), chosen.len());
        let common = folder.join("common");
        fs::create_dir_all(&common)?;
        let mut plans = Vec::new();
        for (index, (name, region, zone)) in chosen.iter().enumerate() {
            let own = folder.join(name);
            fs::create_dir_all(&own)?;
            fs::write(own.join("workloads.yaml"), workloads(&services, name, index))?;
            if index == 0 {
                fs::write(own.join("gateway.yaml"), GATEWAY)?;
            }
            plans.push(ClusterPlan {
                region: (*region).to_owned(),
                zone: (*zone).to_owned(),
                ..ClusterPlan::new(name, vec![common.clone(), own])
            });
        }
        fs::write(common.join("mesh.yaml"), mesh())?;
        fs::write(common.join("services.yaml"), service_objects(&services))?;
        let scenario = Self { clusters: plans, services, folder: folder.to_owned() };
        scenario.split(10, 10)?;
        scenario.lock(&[])?;
        Ok(scenario)
    }

    /// The cluster that is lost: a whole region.
    pub(super) fn lost(&self) -> &str {
        self.clusters.last().map_or("", |cluster| cluster.name.as_str())
    }

    /// The clusters that stay.
    pub(super) fn kept(&self) -> impl Iterator<Item = &str> {
        let kept = self.clusters.len().saturating_sub(1);
        self.clusters.iter().take(kept).map(|cluster| cluster.name.as_str())
    }

    /// The service of that name.
    pub(super) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Services without a part of their own in the demo.
    pub(super) fn others(&self) -> &[Service] {
        &self.services[LEAST_SERVICES.min(self.services.len())..]
    }

    /// Edits the canary: answers say `step`, and `share` of 100 requests go to v2.
    pub(super) fn split(&self, step: u32, share: u32) -> io::Result<()> {
        let stay = 100_u32.saturating_sub(share);
        self.replace(
            "canary.yaml",
            &format!(
                "# The canary of checkout: {share} of 100 requests go to v2.
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: checkout, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: checkout}}]
  rules:
  - filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{set: [{{name: x-canary-step, value: \"{step}\"}}]}}
    backendRefs:
    - {{name: checkout-v1, port: {PORT}, weight: {stay}}}
    - {{name: checkout-v2, port: {PORT}, weight: {share}}}
"
            ),
        )
    }

    /// Edits the policies: these service accounts of `front` may not call the ledger.
    pub(super) fn lock(&self, denied: &[&str]) -> io::Result<()> {
        let mut text = String::from("# Who may call whom.\n");
        for namespace in NAMESPACES {
            let _ = write!(
                text,
                "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: callers, namespace: {namespace}}}
spec:
  action: ALLOW
  rules: [{{from: [{{source: {{namespaces: [edge, front, shop, billing, data]}}}}]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: no-debug, namespace: {namespace}}}
spec:
  action: DENY
  rules: [{{to: [{{operation: {{paths: [\"/debug/*\"]}}}}]}}]
"
            );
        }
        if !denied.is_empty() {
            let principals: Vec<String> =
                denied.iter().map(|account| format!("\"cluster.local/ns/front/sa/{account}\"")).collect();
            let _ = write!(
                text,
                "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: lockdown, namespace: billing}}
spec:
  selector: {{matchLabels: {{app: ledger}}}}
  action: DENY
  rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]
",
                principals.join(", ")
            );
        }
        self.replace("policies.yaml", &text)
    }

    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        // As editors save: a new file under the old name.
        let file = self.folder.join("common").join(name);
        let next = self.folder.join(format!("{name}.new"));
        fs::write(&next, text)?;
        fs::rename(next, file)
    }
}

fn services(count: usize, clusters: usize) -> Vec<Service> {
    let everywhere = |replicas| vec![replicas; clusters];
    let named = |namespace, name: &str, replicas, spread| Service {
        namespace,
        name: name.to_owned(),
        app: name.to_owned(),
        version: None,
        replicas,
        calls: Vec::new(),
        spread,
    };
    let version = |version, name, replicas| Service {
        app: "checkout".to_owned(),
        version: Some(version),
        ..named("shop", name, everywhere(replicas), false)
    };
    let mut services = vec![
        named("front", "web", everywhere(1), false),
        named("front", "reports", everywhere(1), false),
        named("shop", "checkout", Vec::new(), false),
        version("v1", "checkout-v1", 2),
        version("v2", "checkout-v2", 1),
        named("billing", "ledger", everywhere(1), true),
    ];
    for index in services.len()..count {
        let replicas = match (clusters, index % 4) {
            (3, 1) => vec![2, 0, 1],
            (3, 3) => vec![0, 1, 2],
            _ => everywhere(1),
        };
        let name = format!("{}-{index:03}", STEMS[index % STEMS.len()]);
        services.push(named(NAMESPACES[1 + index % 3], &name, replicas, index % 3 == 0));
    }
    let hosts: Vec<String> = services.iter().map(Service::host).collect();
    // Every tenth service calls the two that follow it, and `web` three: a graph of depth three.
    for index in (LEAST_SERVICES..count).step_by(10) {
        services[index].calls = hosts.iter().skip(index + 1).take(2).cloned().collect();
    }
    let first = hosts.get(LEAST_SERVICES).into_iter().cloned();
    services[0].calls = [hosts[2].clone(), hosts[5].clone()].into_iter().chain(first).collect();
    services
}

fn mesh() -> String {
    let mut text = String::from("# Mutual TLS everywhere.\n");
    for namespace in NAMESPACES.iter().chain(&["edge", "leno-system"]) {
        let _ = write!(text, "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n");
    }
    text.push_str(
        "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: leno-system}
spec: {mtls: {mode: STRICT}}
",
    );
    text
}

fn service_objects(services: &[Service]) -> String {
    let mut text = String::new();
    for service in services {
        let Service { namespace, name, app, version, spread, .. } = service;
        let version = version.map(|version| format!(", version: {version}")).unwrap_or_default();
        let _ = write!(
            text,
            "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {app}{version}}}
  ports: [{{name: http, port: {PORT}}}]
"
        );
        if version.is_empty() {
            let _ = write!(
                text,
                "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {app}, namespace: {namespace}}}\n"
            );
        }
        if *spread {
            let _ = write!(
                text,
                "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  host: {name}.{namespace}.svc.cluster.local
  trafficPolicy: {{loadBalancer: {{localityLbSetting: {{enabled: false}}}}}}
"
            );
        }
    }
    text
}

fn workloads(services: &[Service], cluster: &str, index: usize) -> String {
    let mut text = format!("# What runs in {cluster}.\n");
    for service in services {
        let Service { namespace, name, app, version, replicas, calls, .. } = service;
        let Some(replicas) = replicas.get(index).filter(|replicas| **replicas > 0) else { continue };
        let version = version.unwrap_or("v1");
        let _ = write!(
            text,
            "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}-{cluster}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {app}, version: {version}}}}}
  template:
    metadata: {{labels: {{app: {app}, version: {version}}}}}
    spec:
      serviceAccountName: {app}
      containers:
      - name: app
        image: example.com/{name}
        ports: [{{containerPort: {PORT}}}]
"
        );
        if !calls.is_empty() {
            text.push_str("        env:\n");
        }
        for (number, host) in calls.iter().enumerate() {
            let _ = writeln!(text, "        - {{name: UPSTREAM_{number}_ADDR, value: \"{host}:{PORT}\"}}");
        }
    }
    text
}

const GATEWAY: &str = "# The way in.
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: edge}
spec:
  gatewayClassName: leno
  listeners: [{name: http, port: 8080, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: front}
spec:
  parentRefs: [{name: public, namespace: edge}]
  rules: [{backendRefs: [{name: web, port: 8080}]}]
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_runs_in_two_clusters_or_more_and_two_hundred_have_six_hundred_workloads() {
        let services = services(200, 3);
        assert_eq!(services.len(), 200);
        assert_eq!(services.iter().flat_map(|service| &service.replicas).sum::<usize>(), 600);
        for service in services.iter().filter(|service| service.name != "checkout") {
            assert!(
                service.replicas.iter().filter(|replicas| **replicas > 0).count() >= 2,
                "{}",
                service.name
            );
            assert!(service.replicas[2] > 0, "{}", service.name);
        }
    }

    #[test]
    fn the_manifests_are_read_without_a_finding() {
        let folder = tempfile::tempdir().unwrap();
        let scenario = Scenario::write(folder.path(), 20, 3).unwrap();
        scenario.lock(&["reports"]).unwrap();
        for file in [
            "common/mesh",
            "common/services",
            "common/canary",
            "common/policies",
            "west-1/workloads",
            "west-1/gateway",
        ] {
            let text = fs::read_to_string(folder.path().join(format!("{file}.yaml"))).unwrap();
            let parsed = leno_apis::parse(file, &text);
            assert!(parsed.diagnostics.is_empty(), "{file}: {:?}", parsed.diagnostics);
            assert!(!parsed.objects.is_empty());
        }
    }
}
