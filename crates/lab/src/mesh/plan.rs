//! What a mesh is to be: its clusters, where their manifests are, and how it is run.
//!
//! Must not know: how any of it is started.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use leno_proxy::bootstrap::{AccessLog, Tracing};

/// Longest name of a cluster.
const MAX_NAME: usize = 63;

/// A mesh on this machine.
#[derive(Clone, Debug)]
pub struct MeshPlan {
    /// Its clusters.
    pub clusters: Vec<ClusterPlan>,
    /// Each control plane and proxy is a process of its own.
    pub processes: bool,
    /// Lifetime of workloads' certificates.
    pub certificate_ttl: Duration,
    /// How long a proxy that is told to go may finish what it has.
    pub drain: Duration,
    /// What stand-in applications do beyond what their environment says.
    pub app_file: Option<PathBuf>,
    /// Threads that carry the traffic of all proxies of this process.
    pub workers: usize,
    /// Access log of every proxy.
    pub access_log: AccessLog,
    /// Where the proxies' spans go.
    pub tracing: Option<Tracing>,
    /// Where the mesh describes itself for other commands; `None`: [`super::record_path`].
    pub record: Option<PathBuf>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// Its name.
    pub name: String,
    /// Files and folders of manifests; `-` is standard input.
    pub paths: Vec<PathBuf>,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its network; clusters of one network reach each other's pods.
    pub network: String,
}

/// A text that describes no cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterPlanError {
    /// There is no `=`.
    #[error("{0:?} is not of the form NAME=PATH[,PATH...][,region=R][,zone=Z][,network=N]")]
    Form(String),
    /// The name is no DNS label.
    #[error("{0:?} is no name of a cluster: 1 to 63 of a-z, 0-9 and `-`")]
    Name(String),
    /// A word with `=` that says nothing of a cluster.
    #[error("unknown key {key}{hint} (a path of this name is written ./{key}=...)")]
    Key {
        /// The word before `=`.
        key: String,
        /// `; did you mean ...?`, where a known one is like it.
        hint: String,
    },
    /// There is no path.
    #[error("the cluster {0} has no path")]
    NoPath(String),
}

impl MeshPlan {
    /// A plan with the usual settings.
    pub fn new(clusters: Vec<ClusterPlan>) -> Self {
        Self {
            clusters,
            processes: false,
            certificate_ttl: Duration::from_secs(24 * 3600),
            drain: Duration::from_secs(10),
            app_file: None,
            workers: 1,
            access_log: AccessLog::Off,
            tracing: None,
            record: None,
        }
    }
}

impl ClusterPlan {
    /// A cluster of these manifests, without region, zone or network.
    pub fn new(name: &str, paths: Vec<PathBuf>) -> Self {
        let nothing = String::new;
        Self { name: name.to_owned(), paths, region: nothing(), zone: nothing(), network: nothing() }
    }

    /// Reads `NAME=PATH[,PATH...][,region=R][,zone=Z][,network=N]`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Self, ClusterPlanError> {
        let (name, rest) = text.split_once('=').ok_or_else(|| ClusterPlanError::Form(text.to_owned()))?;
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
            return Err(ClusterPlanError::Name(name.to_owned()));
        }
        let mut plan = Self::new(name, Vec::new());
        for part in rest.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("region", region)) => plan.region = region.to_owned(),
                Some(("zone", zone)) => plan.zone = zone.to_owned(),
                Some(("network", network)) => plan.network = network.to_owned(),
                Some((key, _)) if !key.contains('/') => return Err(unknown(key)),
                _ => plan.paths.push(Path::new(part).to_owned()),
            }
        }
        if plan.paths.is_empty() {
            return Err(ClusterPlanError::NoPath(name.to_owned()));
        }
        Ok(plan)
    }
}

fn unknown(key: &str) -> ClusterPlanError {
    let meant = leno_apis::closest(key, ["region", "zone", "network"].into_iter());
    let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    ClusterPlanError::Key { key: key.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_read_from_its_short_form() {
        let plan = ClusterPlan::parse("west=a,b.yaml,region=us,zone=us-1,network=n1").unwrap();
        assert_eq!(plan.name, "west");
        assert_eq!(plan.paths, [Path::new("a"), Path::new("b.yaml")]);
        assert_eq!((&*plan.region, &*plan.zone, &*plan.network), ("us", "us-1", "n1"));
    }

    #[test]
    fn what_is_no_cluster_is_refused() {
        assert!(matches!(ClusterPlan::parse("west"), Err(ClusterPlanError::Form(_))));
        assert!(matches!(ClusterPlan::parse("We st=a"), Err(ClusterPlanError::Name(_))));
        assert!(matches!(ClusterPlan::parse("west=region=r"), Err(ClusterPlanError::NoPath(_))));
    }

    #[test]
    fn a_misspelt_key_is_no_path() {
        let said = ClusterPlan::parse("west=shop,regoin=x").unwrap_err().to_string();
        assert!(said.starts_with("unknown key regoin; did you mean region?"), "{said}");
        let plan = ClusterPlan::parse("west=./a=b.yaml").unwrap();
        assert_eq!(plan.paths, [Path::new("./a=b.yaml")]);
    }
}
