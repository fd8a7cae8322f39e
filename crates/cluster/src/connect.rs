//! Which API server is meant, and who asks it.
//!
//! Invariant: the order is that of `kubectl`: what was given, `KUBECONFIG`, `~/.kube/config`, the pod's service account. A
//! kubeconfig that is there and cannot be used is an error; it is never passed over.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use thiserror::Error;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. The webhooks of other products may be asked before it comes.
const ANSWER: Duration = Duration::from_secs(40);

/// What a user says about where the cluster is.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// One of its contexts.
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectProblem {
    /// A kubeconfig is there and cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    /// There is no kubeconfig and no service account either.
    #[error("no cluster is named: give --kubeconfig, set KUBECONFIG, or have ~/.kube/config")]
    Nowhere,
    /// What is configured does not make a client.
    #[error("the kubeconfig names a server or credentials that cannot be used")]
    Client(#[source] Box<kube::Error>),
}

/// A client of the cluster that is meant. Nothing is asked of it yet.
///
/// # Errors
/// When no cluster is named or its configuration cannot be used.
pub async fn connect(access: &Access) -> Result<Client, ConnectProblem> {
    let mut config = config(access).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    // Or the time for which a connection was idle between two looks would count.
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| ConnectProblem::Client(Box::new(error)))
}

async fn config(access: &Access) -> Result<Config, ConnectProblem> {
    let Access { kubeconfig, context } = access;
    let wrong = |error| ConnectProblem::Kubeconfig(Box::new(error));
    let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    let found = match kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path).map_err(wrong)?),
        None => match Kubeconfig::read() {
            Ok(found) => Some(found),
            Err(KubeconfigError::FindPath) => None,
            Err(KubeconfigError::ReadConfig(error, _))
                if error.kind() == std::io::ErrorKind::NotFound
                    && std::env::var_os("KUBECONFIG").is_none() =>
            {
                None
            }
            Err(error) => return Err(wrong(error)),
        },
    };
    match found {
        Some(found) => Config::from_custom_kubeconfig(found, &options).await.map_err(wrong),
        None if context.is_none() => Config::incluster().map_err(|_| ConnectProblem::Nowhere),
        None => Err(ConnectProblem::Nowhere),
    }
}
