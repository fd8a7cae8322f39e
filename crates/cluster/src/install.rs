//! Applies the objects of an installation, in their order.
//!
//! Invariants: server-side apply, so that what others have set in the objects stays; the objects after the Deployment (the webhook
//! among them) come when its pods are available, so that no pod of the cluster waits for a control plane that never came up.

use std::time::Duration;

use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    object::Named,
    problem::{Problem, is_status},
    wait,
};

/// Field manager of what a person installs.
pub(crate) const MANAGER: &str = "leno-install";

/// How to install.
#[derive(Clone, Copy, Debug)]
pub struct Installation {
    /// How long the control plane may take to be available; `None`: it is not waited for.
    pub wait: Option<Duration>,
    /// Whether fields that other managers have set are taken over.
    pub force: bool,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as it should be.
    Applied(String),
    /// It was left out, and why.
    Skipped(String, String),
    /// It is gone.
    Deleted(String),
    /// It was not there.
    Absent(String),
    /// It is waited for: how far it is.
    Waiting(String, String),
    /// It was waited for and is ready.
    Ready(String),
}

/// Applies the objects; `tell` learns of each step.
///
/// # Errors
/// At the first object that the API server does not take, or that is not ready in time. What was told of before is in force.
pub async fn install(
    client: &Client,
    objects: &[Value],
    how: Installation,
    mut tell: impl FnMut(Step),
) -> Result<(), Problem> {
    let deadline = how.wait.map(|patience| Deadline { end: Instant::now() + patience, patience });
    for object in objects {
        let named = Named::of(object);
        match apply(client, &named, object, how.force).await {
            Ok(()) => tell(Step::Applied(named.to_string())),
            Err(error) if named.kind == "GatewayClass" && is_status(&error, 404) => {
                tell(Step::Skipped(named.to_string(), NO_GATEWAY_API.to_owned()));
            }
            Err(error) => return Err(Problem::of(&named, "patch", &error)),
        }
        if let Some(deadline) = &deadline {
            wait::until_ready(client, &named, deadline, &mut tell).await?;
        }
    }
    Ok(())
}

const NO_GATEWAY_API: &str =
    "the cluster has no CRDs of the Gateway API; install them and then this again, to have Gateways";

/// How long a whole installation may be waited for.
pub(crate) struct Deadline {
    pub(crate) end: Instant,
    pub(crate) patience: Duration,
}

async fn apply(client: &Client, named: &Named, object: &Value, force: bool) -> Result<(), kube::Error> {
    let parameters = PatchParams { force, ..PatchParams::apply(MANAGER) };
    named.api(client).patch(&named.name, &parameters, &Patch::Apply(object)).await.map(drop)
}
