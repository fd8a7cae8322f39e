//! The Kubernetes cluster that a command is about.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use leno_cluster::{Access, Client};
use leno_lab::standin::behaviour::parse_duration;

use crate::failure::Failure;

/// Which cluster, and as whom. Without options: KUBECONFIG, ~/.kube/config, the pod's service account.
#[derive(Args)]
pub(crate) struct Cluster {
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl Cluster {
    /// A client; nothing is asked yet.
    pub(crate) async fn connect(self) -> Result<Client, Failure> {
        let Self { kubeconfig, context } = self;
        leno_cluster::connect(&Access { kubeconfig, context }).await.map_err(Failure::usage)
    }
}

/// `90s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).ok_or_else(|| format!("{text:?} is no time such as 90s or 5m"))?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(86_400);
    if bounds.contains(&time) { Ok(time) } else { Err("from 1s to 24h".to_owned()) }
}
