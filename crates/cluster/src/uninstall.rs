//! Deletes the objects of an installation, in the order given.
//!
//! Invariant: a namespace goes only when nothing in it belongs to somebody else: another revision, or the user's own authority.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams},
};
use serde_json::Value;

use crate::{
    install::Step,
    object::Named,
    problem::{Problem, is_status},
};

/// Deletes the objects; `tell` learns of each step.
///
/// # Errors
/// At the first object that the API server does not delete. What was told of before is gone.
pub async fn uninstall(
    client: &Client,
    objects: &[Value],
    mut tell: impl FnMut(Step),
) -> Result<(), Problem> {
    for object in objects {
        let named = Named::of(object);
        if named.kind == "Namespace"
            && let Some(why) = still_needed(client, &named, objects).await?
        {
            tell(Step::Skipped(named.to_string(), why));
            continue;
        }
        match named.api(client).delete(&named.name, &DeleteParams::background()).await {
            Ok(_) => tell(Step::Deleted(named.to_string())),
            Err(error) if is_status(&error, 404) => tell(Step::Absent(named.to_string())),
            Err(error) => return Err(Problem::of(&named, "delete", &error)),
        }
    }
    Ok(())
}

/// Why a namespace stays: what in it is not of the list.
async fn still_needed(client: &Client, namespace: &Named, ours: &[Value]) -> Result<Option<String>, Problem> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace.name);
    let all = deployments.list(&ListParams::default().limit(100)).await;
    let all = all.map_err(|error| Problem::of(namespace, "list Deployments of", &error))?;
    let is_ours = |name: &str| {
        ours.iter().any(|it| it["kind"] == "Deployment" && it["metadata"]["name"].as_str() == Some(name))
    };
    let mut names = all.items.into_iter().filter_map(|it| it.metadata.name);
    if let Some(other) = names.find(|name| !is_ours(name)) {
        return Ok(Some(format!("Deployment {other} is in it")));
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace.name);
    let plugged_in = secrets.get_metadata_opt("cacerts").await;
    let plugged_in =
        plugged_in.map_err(|error| Problem::of(namespace, "get the Secret cacerts of", &error))?;
    Ok(plugged_in.map(|_| "your Secret cacerts is in it".to_owned()))
}
