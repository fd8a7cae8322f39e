//! Runs the Gateways of our class: a ServiceAccount, a Deployment and a Service for each, and its addresses in its status.
//!
//! Invariants: an object is written only when it differs from what is there; one that somebody else made, without this Gateway as
//! its owner, is never touched; nothing is deleted here (owner references do). One Gateway's trouble is not another's, and leaves
//! what runs already as it is. A Gateway that we run is `Programmed` only as long as its status has an address.

mod parameters;
mod render;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use leno_apis::{
    AnyObject, Kind, Object,
    gateway::{Gateway, listeners::ParametersRef},
};
use leno_compile::{Condition, ObjectKey, World};
use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use self::parameters::{Parameters, Unusable};
use super::{Cluster, KubernetesError, MANAGER, failed, status::CONTROLLER};

/// Revision that a Gateway chooses, as a namespace does.
const REVISION: &str = "leno.dev/rev";
/// Annotation with the hash of what was applied: by it is seen that something is to be taken away.
const APPLIED: &str = "leno.dev/applied";

/// Of the condition `Programmed`: what the Gateway asks for cannot be.
const INVALID: &str = "Invalid";
/// Of the same: what it needs cannot be had.
const NO_RESOURCES: &str = "NoResources";
/// Of `Accepted` and `Programmed` (Gateway API): the parameters that it refers to cannot be used.
const INVALID_PARAMETERS: &str = "InvalidParameters";

/// The Gateways that we run.
#[derive(Default)]
pub(crate) struct Gateways {
    all: BTreeMap<ObjectKey, Known>,
}

/// What is known of one of them.
#[derive(Default)]
struct Known {
    /// The objects that were applied, as long as they are believed to be there.
    applied: Option<[Value; 3]>,
    /// Its parameters, as they were read for this reference.
    parameters: Option<(ParametersRef, Parameters)>,
    /// The addresses that its status has.
    addresses: Option<Value>,
    trouble: Option<Trouble>,
}

/// Why a Gateway is not run.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    /// Of the condition `Programmed`.
    reason: &'static str,
    /// Of the condition `Accepted`, when it is not even that.
    rejection: Option<&'static str>,
    why: String,
}

/// What is to be said of a Gateway's being `Programmed`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Programmed {
    /// What the compiler says: somebody else runs it.
    AsCompiled,
    /// Nothing, before its Service has been looked at.
    Unknown,
    /// This.
    Is(Condition),
}

impl Gateways {
    /// Compares everything with the API server again, in case somebody changed it.
    pub(crate) fn look_again(&mut self) {
        for known in self.all.values_mut() {
            (known.applied, known.parameters, known.addresses) = (None, None, None);
        }
    }

    /// Runs each Gateway of ours.
    pub(crate) async fn run(&mut self, cluster: &Cluster, world: &World) -> Result<(), KubernetesError> {
        if !cluster.config.gateways.deploy {
            return Ok(());
        }
        let mut problem = Ok(());
        let mut before = std::mem::take(&mut self.all);
        for any in world.of_kind(Kind::Gateway).filter(|any| is_ours(cluster, world, any)) {
            let AnyObject::Gateway(gateway) = &**any else { continue };
            let key = ObjectKey::of(any);
            let mut known = before.remove(&key).unwrap_or_default();
            if let Err(error) = known.run(cluster, &key, gateway).await {
                problem = Err(error);
            }
            self.all.insert(key, known);
        }
        problem
    }

    /// Whether the Gateway of this name has what runs it, and an address.
    pub(crate) fn programmed(&self, key: &ObjectKey) -> Programmed {
        let Some(known) = self.all.get(key) else { return Programmed::AsCompiled };
        if let Some(Trouble { reason, rejection: _, why }) = &known.trouble {
            return Programmed::Is(Condition::no(reason, why.clone()));
        }
        match known.addresses.as_ref().map(is_empty) {
            None => Programmed::Unknown,
            Some(true) => {
                let text = "its Service has no address yet";
                Programmed::Is(Condition::no("AddressNotAssigned", text))
            }
            Some(false) => Programmed::Is(Condition::yes("Programmed")),
        }
    }

    /// The Gateways of ours that are not run, and why.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.all.iter().filter_map(|(key, known)| Some((key, known.trouble.as_ref()?.why.as_str())))
    }

    /// Why a Gateway of ours is not accepted although the compiler accepts it.
    pub(crate) fn rejected(&self, key: &ObjectKey) -> Option<Condition> {
        let trouble = self.all.get(key)?.trouble.as_ref()?;
        Some(Condition::no(trouble.rejection?, trouble.why.clone()))
    }
}

impl Known {
    async fn run(
        &mut self,
        cluster: &Cluster,
        key: &ObjectKey,
        gateway: &Object<Gateway>,
    ) -> Result<(), KubernetesError> {
        let trouble = match render::objects(&cluster.config.injection, gateway) {
            Ok(objects) => match self.change(cluster, gateway, objects).await? {
                Ok(objects) => self.apply(cluster, objects).await?,
                Err(unusable) => Some(Trouble {
                    reason: INVALID,
                    rejection: Some(INVALID_PARAMETERS),
                    why: unusable.to_string(),
                }),
            },
            Err(not) => Some(Trouble { reason: INVALID, rejection: None, why: not.to_string() }),
        };
        if let Some(trouble) = trouble {
            if self.trouble.as_ref() != Some(&trouble) {
                tracing::warn!(gateway = %key, why = trouble.why, "a Gateway is not run");
                self.trouble = Some(trouble);
            }
            return Ok(());
        }
        self.trouble = None;
        self.address(cluster, key, gateway).await
    }

    /// The objects as the Gateway's parameters change them, each with the hash of what it is then.
    async fn change(
        &mut self,
        cluster: &Cluster,
        gateway: &Object<Gateway>,
        objects: [Value; 3],
    ) -> Result<Result<[Value; 3], Unusable>, KubernetesError> {
        let objects = match &gateway.spec.infrastructure.parameters {
            None => objects,
            Some(reference) => {
                if self.parameters.as_ref().is_none_or(|(read, _)| read != reference) {
                    match read(cluster, gateway.namespace(), reference).await? {
                        Ok(parameters) => self.parameters = Some((reference.clone(), parameters)),
                        Err(unusable) => return Ok(Err(unusable)),
                    }
                }
                self.parameters.iter().fold(objects, |objects, (_, parameters)| parameters.apply(objects))
            }
        };
        Ok(Ok(objects.map(|mut object| {
            let hash = xxh64(object.to_string().as_bytes(), 0);
            object["metadata"]["annotations"][APPLIED] = json!(format!("{hash:016x}"));
            object
        })))
    }

    /// Applies what differs from what was applied before.
    async fn apply(
        &mut self,
        cluster: &Cluster,
        objects: [Value; 3],
    ) -> Result<Option<Trouble>, KubernetesError> {
        if self.applied.as_ref() == Some(&objects) {
            return Ok(None);
        }
        // A Gateway of the same name that was made anew has no addresses in its status.
        (self.applied, self.addresses) = (None, None);
        for object in &objects {
            let why = match apply(cluster, object).await {
                Ok(why) => why,
                Err(error) => Some(error.refusal().ok_or(error)?),
            };
            if let Some(why) = why {
                return Ok(Some(Trouble { reason: NO_RESOURCES, rejection: None, why }));
            }
        }
        self.applied = Some(objects);
        Ok(None)
    }

    /// Writes where the Service is reached into the Gateway's status.
    async fn address(
        &mut self,
        cluster: &Cluster,
        key: &ObjectKey,
        gateway: &Object<Gateway>,
    ) -> Result<(), KubernetesError> {
        // An address that is written is looked at again in the next full round.
        if self.addresses.as_ref().is_some_and(|it| !is_empty(it)) {
            return Ok(());
        }
        let what = format!("the addresses of {key} cannot be written");
        let services = api(cluster, "v1", "Service", gateway.namespace());
        let service =
            services.get_opt(&render::name(gateway)).await.map_err(failed(what.clone()))?.map(|it| json!(it));
        let addresses = addresses(&service.unwrap_or_default());
        let gateways = api(cluster, &gateway.api_version, "Gateway", gateway.namespace());
        let found = gateways.get_opt(gateway.name()).await.map_err(failed(what.clone()))?;
        let Some(found) = found.map(|it| json!(it)) else { return Ok(()) };
        let none = json!([]);
        if found["status"].get("addresses").unwrap_or(&none) != &addresses {
            let patch = json!({"status": {"addresses": addresses}});
            let parameters =
                PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let written = gateways.patch_status(gateway.name(), &parameters, &Patch::Merge(&patch)).await;
            written.map_err(failed(what))?;
        }
        self.addresses = Some(addresses);
        Ok(())
    }
}

/// The parameters that a Gateway refers to.
async fn read(
    cluster: &Cluster,
    namespace: &str,
    reference: &ParametersRef,
) -> Result<Result<Parameters, Unusable>, KubernetesError> {
    let ParametersRef { group, kind, name } = reference;
    if !group.is_empty() || kind != "ConfigMap" {
        return Ok(Err(Unusable::Kind { group: group.clone(), kind: kind.clone() }));
    }
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let what = format!("ConfigMap {namespace}/{name} of a Gateway's parameters cannot be read");
    let found = maps.get_opt(name).await.map_err(failed(what))?;
    Ok(match found {
        Some(map) => Parameters::read(name, &map.data.unwrap_or_default()),
        None => Err(Unusable::Missing { name: name.clone() }),
    })
}

/// Whether a Gateway is ours to run: its class has our controller, and it asks for our revision.
fn is_ours(cluster: &Cluster, world: &World, any: &AnyObject) -> bool {
    let AnyObject::Gateway(gateway) = any else { return false };
    let class = ObjectKey::new(Kind::GatewayClass, "", gateway.spec.class_name.as_str());
    let class = world.get(&class).map(|class| &**class);
    let Some(AnyObject::GatewayClass(class)) = class else { return false };
    let revision = gateway.metadata.labels.get(REVISION).map_or("default", String::as_str);
    class.spec.controller_name.as_str() == CONTROLLER
        && cluster.config.injection.serves(revision)
        && gateway.metadata.deletion_timestamp.is_none()
}

fn api(cluster: &Cluster, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(cluster.client.clone(), namespace, &resource)
}

/// Applies one object unless it is there as it should be; says why when it is somebody else's.
async fn apply(cluster: &Cluster, object: &Value) -> Result<Option<String>, KubernetesError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&object["kind"]), &object["metadata"]);
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let what = format!("{kind} {namespace}/{name} of a Gateway cannot be applied");
    let api = api(cluster, &text(&object["apiVersion"]), &kind, &namespace);
    if let Some(found) = api.get_opt(&name).await.map_err(failed(what.clone()))? {
        let found = json!(found);
        if !has_owner(&found, &metadata["ownerReferences"][0]["uid"]) {
            return Ok(Some(format!("{kind} {namespace}/{name} is there already and is not this Gateway's")));
        }
        if contains(&found, object) {
            return Ok(None);
        }
    }
    let parameters = PatchParams::apply(MANAGER).force();
    api.patch(&name, &parameters, &Patch::Apply(object)).await.map_err(failed(what))?;
    tracing::info!(kind, namespace, name, "applied for a Gateway");
    Ok(None)
}

fn has_owner(found: &Value, uid: &Value) -> bool {
    found["metadata"]["ownerReferences"].as_array().into_iter().flatten().any(|owner| owner["uid"] == *uid)
}

/// Whether everything that we say is there; what the API server and others have added does not count, but lists are whole.
fn contains(found: &Value, ours: &Value) -> bool {
    match (found, ours) {
        (Value::Object(found), Value::Object(ours)) => ours.iter().all(|(key, value)| {
            if matches!(key.as_str(), "apiVersion" | "kind") {
                return true;
            }
            // The API server leaves out what is empty.
            found.get(key).map_or(is_empty(value), |found| contains(found, value))
        }),
        (Value::Array(found), Value::Array(ours)) => {
            found.len() == ours.len() && found.iter().zip(ours).all(|(found, ours)| contains(found, ours))
        }
        _ => found == ours,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Where a Service is reached, as a Gateway's status says it.
fn addresses(service: &Value) -> Value {
    let given = service["status"]["loadBalancer"]["ingress"].as_array();
    let entry = |ingress: &Value| match (ingress["ip"].as_str(), ingress["hostname"].as_str()) {
        (Some(ip), _) => Some(json!({"type": "IPAddress", "value": ip})),
        (None, Some(hostname)) => Some(json!({"type": "Hostname", "value": hostname})),
        (None, None) => None,
    };
    if service["spec"]["type"] == "LoadBalancer" {
        return given.into_iter().flatten().filter_map(entry).collect();
    }
    let own = service["spec"]["clusterIP"].as_str().filter(|address| !matches!(*address, "" | "None"));
    own.map_or(json!([]), |address| json!([{"type": "IPAddress", "value": address}]))
}

#[cfg(test)]
mod tests;
