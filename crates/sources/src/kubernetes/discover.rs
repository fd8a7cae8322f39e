//! Which of our kinds an API server serves, and in which version they are read.

use std::collections::BTreeMap;

use kube::{Client, core::ApiResource};
use leno_apis::{
    Kind,
    kind::{KINDS, KindInfo},
};

/// A kind that is served.
pub(super) struct Served {
    pub(super) kind: Kind,
    pub(super) resource: ApiResource,
}

/// Kinds of Kubernetes' own that are read from manifests only: on a cluster the pods tell what they are templates of.
const TEMPLATES: [Kind; 5] =
    [Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::ReplicaSet, Kind::ServiceAccount];

/// Asks for all of our kinds that are served. The first version of our table that is served is the one that is read.
pub(super) async fn served(client: &Client) -> Result<Vec<Served>, kube::Error> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    groups.insert(String::new(), vec!["v1".to_owned()]);
    for group in client.list_api_groups().await?.groups {
        let versions = group.versions.into_iter().map(|version| version.version).collect();
        groups.insert(group.name, versions);
    }
    let mut resources: BTreeMap<(String, String), Vec<(String, String)>> = BTreeMap::new();
    let mut found = Vec::new();
    for info in KINDS.iter().filter(|info| !TEMPLATES.contains(&info.kind)) {
        let Some(versions) = groups.get(info.group) else { continue };
        for version in info.versions.iter().filter(|version| versions.iter().any(|it| it == *version)) {
            let place = (info.group.to_owned(), (*version).to_owned());
            if !resources.contains_key(&place) {
                let list = list(client, info.group, version).await?;
                resources.insert(place.clone(), list);
            }
            let plural =
                resources[&place].iter().find(|(kind, _)| kind == info.name).map(|(_, plural)| plural);
            if let Some(plural) = plural {
                found.push(Served { kind: info.kind, resource: resource(info, version, plural) });
                break;
            }
        }
    }
    Ok(found)
}

/// Kinds and plural names of a version.
async fn list(client: &Client, group: &str, version: &str) -> Result<Vec<(String, String)>, kube::Error> {
    let list = if group.is_empty() {
        client.list_core_api_resources(version).await?
    } else {
        client.list_api_group_resources(&format!("{group}/{version}")).await?
    };
    // `pods/status` and the like are no kinds.
    let kinds = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    Ok(kinds.map(|resource| (resource.kind, resource.name)).collect())
}

fn resource(info: &KindInfo, version: &str, plural: &str) -> ApiResource {
    let api_version =
        if info.group.is_empty() { version.to_owned() } else { format!("{}/{version}", info.group) };
    ApiResource {
        group: info.group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: info.name.to_owned(),
        plural: plural.to_owned(),
    }
}
