//! `leno check`: what a cluster has, lacks and does wrong, in the order in which a person would look.
//!
//! | module | looks at |
//! | --- | --- |
//! | `server` | the API server's version, its clock |
//! | `apis` | CRDs of the Gateway API and of Istio |
//! | `rights` | what the asking user and the control plane may do |
//! | `authority` | how long the issuing authority lasts |
//! | `webhook` | the injector's configuration, its bundle, and whether a pod that is only tried gets a proxy |
//! | `agents` | the nodes' agent, where a CNI plugin captures |
//! | `clusters` | whether other clusters can come in, and are heard |
//! | `control_plane` | its pods |
//! | `pods` | pods of the mesh without a proxy, or with one that is not ready |
//!
//! Invariants: nothing is changed (what is created is created with `dryRun`); what cannot be looked at is a warning that says so,
//! never left out; every failure says what to do.

mod agents;
mod apis;
mod authority;
mod clusters;
mod control_plane;
mod finding;
mod pods;
mod rights;
mod server;
mod webhook;

use kube::Client;
use leno_install::{Names, Values, objects};
use serde_json::Value;

pub use self::finding::{Finding, Level};
use crate::problem::Problem;

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before an installation: could it be installed?
    Before,
    /// After it: does it work?
    After,
}

/// What is looked at.
struct Look<'a> {
    client: &'a Client,
    values: &'a Values,
    names: Names,
    objects: Vec<Value>,
    /// Seconds since 1970, by this machine.
    now: i64,
}

/// Looks at everything. `now` is this machine's time, in seconds since 1970.
///
/// # Errors
/// When the API server cannot be reached or does not let the user in.
pub async fn check(client: &Client, values: &Values, when: When, now: i64) -> Result<Vec<Finding>, Problem> {
    let look = Look { client, values, names: Names::of(values), objects: objects(values), now };
    let mut findings = server::findings(&look).await?;
    findings.extend(apis::findings(&look).await);
    match when {
        When::Before => findings.extend(rights::of_the_user(&look).await),
        When::After => {
            findings.extend(rights::of_the_control_plane(&look).await);
            findings.extend(control_plane::findings(&look).await);
            findings.extend(authority::findings(&look).await);
            findings.extend(agents::findings(&look).await);
            findings.extend(webhook::findings(&look).await);
            findings.extend(clusters::findings(&look).await);
            findings.extend(pods::of_the_mesh(&look).await);
        }
    }
    Ok(findings)
}
