//! The immutable snapshot that every decision of a proxy is made from.
//!
//! [`Tables::apply`] turns one snapshot and a set of changes into the next; what did not change is shared. Regular
//! expressions, policies and routing tables are compiled here, once per change. Endpoints lie apart from the tables, so that
//! a change of endpoints compiles nothing.
//! Invariants: applying changes one after the other or building from what is left gives the same tables; a resource that
//! cannot be compiled is listed in [`Tables::rejected`], the last good one stays, and a policy then denies.
//! Must not know: streams, sockets, time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use leno_model::{
    ClusterName, EndpointSet, Gateway, Locality, Namespace, NetworkName, Resource, ResourceKey, ResourceKind,
    ServiceId, TlsSecret, Workload, WorkloadId,
};

use crate::{
    gateway::GatewayTable,
    inbound::Inbound,
    index::Index,
    policy::{CompiledPolicy, PolicySet},
    services::ServiceState,
};

/// The proxy's own place in the mesh, as far as decisions depend on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WhoAmI {
    /// The workload (for a gateway: the gateway's id).
    pub id: WorkloadId,
    /// Its labels.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Where it runs.
    pub locality: Locality,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its network.
    pub network: NetworkName,
}

impl WhoAmI {
    /// A proxy of which only the name is known yet; its own [`Workload`] resource fills in the rest when it comes.
    pub fn new(id: WorkloadId) -> Self {
        Self {
            id,
            labels: BTreeMap::new(),
            locality: Locality::default(),
            cluster: "".into(),
            network: "".into(),
        }
    }

    /// The proxy beside a workload.
    pub fn of_workload(workload: &Workload) -> Self {
        Self {
            id: workload.id.clone(),
            labels: workload.labels.clone(),
            locality: workload.locality.clone(),
            cluster: workload.cluster.clone(),
            network: workload.network.clone(),
        }
    }

    /// Its namespace: whose view of services it has.
    pub fn namespace(&self) -> &Namespace {
        &self.id.namespace
    }
}

/// One change.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// A resource is new or different.
    Upsert(Resource),
    /// A resource is gone.
    Remove(ResourceKey),
    /// Everything needed to call this service has come (`true`), or is no longer kept up to date (`false`). Until it has,
    /// the service is known and not loaded.
    Scope(ServiceId, bool),
}

/// The snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    pub(crate) me: Arc<WhoAmI>,
    pub(crate) index: Arc<Index>,
    pub(crate) services: Arc<HashMap<ServiceId, Arc<ServiceState>>>,
    pub(crate) endpoints: Arc<HashMap<ServiceId, Arc<EndpointSet>>>,
    scopes: Arc<HashSet<ServiceId>>,
    policies: Arc<BTreeMap<Arc<str>, Arc<CompiledPolicy>>>,
    workload: Option<Arc<Workload>>,
    inbound: Option<Arc<Inbound>>,
    gateway: Option<Arc<GatewayTable>>,
    secrets: Arc<BTreeMap<Arc<str>, Arc<TlsSecret>>>,
    rejected: Arc<BTreeMap<ResourceKey, String>>,
}

impl Tables {
    /// Empty tables of a proxy.
    pub fn new(me: WhoAmI) -> Self {
        Self {
            index: Arc::new(Index::new(me.namespace().clone())),
            me: Arc::new(me),
            services: Arc::default(),
            endpoints: Arc::default(),
            scopes: Arc::default(),
            policies: Arc::default(),
            workload: None,
            inbound: None,
            gateway: None,
            secrets: Arc::default(),
            rejected: Arc::default(),
        }
    }

    /// The tables after a set of changes.
    #[must_use]
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) -> Self {
        let mut next = self.clone();
        let mut inbound_changed = false;
        for change in changes {
            match change {
                Change::Upsert(resource) => {
                    inbound_changed |= matches!(resource, Resource::Workload(_) | Resource::Policy(_));
                    next.upsert(resource);
                }
                Change::Remove(key) => {
                    inbound_changed |= matches!(key.kind, ResourceKind::Workload | ResourceKind::Policy);
                    next.remove(&key);
                }
                Change::Scope(service, true) => {
                    Arc::make_mut(&mut next.scopes).insert(service);
                }
                Change::Scope(service, false) => {
                    Arc::make_mut(&mut next.scopes).remove(&service);
                }
            }
        }
        if inbound_changed {
            next.rebuild_inbound();
        }
        next
    }

    /// The proxy whose tables these are.
    pub fn me(&self) -> &WhoAmI {
        &self.me
    }

    /// What the workload accepts; `None` until its own resource has come.
    pub fn inbound(&self) -> Option<&Arc<Inbound>> {
        self.inbound.as_ref()
    }

    /// This proxy's listeners, if it is a gateway.
    pub fn gateway(&self) -> Option<&Arc<GatewayTable>> {
        self.gateway.as_ref()
    }

    /// A certificate of the gateway.
    pub fn secret(&self, id: &str) -> Option<&Arc<TlsSecret>> {
        self.secrets.get(id)
    }

    /// Resources that could not be compiled, and why. The control plane is told these.
    pub fn rejected(&self) -> &BTreeMap<ResourceKey, String> {
        &self.rejected
    }

    /// Whether everything needed to call a service is here.
    pub fn is_loaded(&self, service: &ServiceId) -> bool {
        self.scopes.contains(service)
    }

    /// All index entries, by id.
    pub fn index(&self) -> impl Iterator<Item = &Arc<leno_model::IndexEntry>> {
        self.index.entries()
    }

    /// The index entry of a service.
    pub fn index_entry(&self, service: &ServiceId) -> Option<&Arc<leno_model::IndexEntry>> {
        self.index.get(service)
    }

    /// The endpoints of a service. The handle is the same object for as long as nothing about them changes.
    pub fn endpoints(&self, service: &ServiceId) -> Option<&Arc<EndpointSet>> {
        self.endpoints.get(service)
    }

    fn upsert(&mut self, resource: Resource) {
        let key = resource.key();
        let problem = match resource {
            Resource::Index(entry) => {
                Arc::make_mut(&mut self.index).insert(entry);
                None
            }
            Resource::Workload(workload) => {
                if workload.id == self.me.id {
                    self.me = Arc::new(WhoAmI::of_workload(&workload));
                    self.workload = Some(workload);
                }
                None
            }
            Resource::Policy(policy) => {
                let (compiled, problem) = CompiledPolicy::compile(policy);
                let policies = Arc::make_mut(&mut self.policies);
                policies.insert(compiled.policy.id.clone(), Arc::new(compiled));
                problem
            }
            Resource::Destination(destination) => {
                if self.is_mine(destination.variant.as_ref()) {
                    self.edit(&destination.service.clone(), |state| state.set_destination(destination));
                }
                None
            }
            Resource::Routes(table) if self.is_mine(table.variant.as_ref()) => {
                self.edit(&table.service.clone(), |state| state.set_routes(&table))
            }
            Resource::Routes(_) => None,
            Resource::Endpoints(set) => {
                Arc::make_mut(&mut self.endpoints).insert(set.service.clone(), set);
                None
            }
            Resource::Gateway(gateway) => self.set_gateway(&gateway),
            Resource::Secret(secret) => {
                Arc::make_mut(&mut self.secrets).insert(secret.id.clone(), secret);
                None
            }
        };
        match problem {
            Some(problem) => {
                Arc::make_mut(&mut self.rejected).insert(key, problem);
            }
            None if self.rejected.contains_key(&key) => {
                Arc::make_mut(&mut self.rejected).remove(&key);
            }
            None => {}
        }
    }

    fn remove(&mut self, key: &ResourceKey) {
        let name: &str = &key.name;
        if self.rejected.contains_key(key) {
            Arc::make_mut(&mut self.rejected).remove(key);
        }
        let parsed = || name.parse::<ServiceId>().ok();
        match key.kind {
            ResourceKind::Index => {
                if let Some(service) = parsed() {
                    Arc::make_mut(&mut self.index).remove(&service);
                }
            }
            ResourceKind::Workload => {
                if self.workload.as_ref().is_some_and(|workload| workload.id.to_string() == name) {
                    self.workload = None;
                }
            }
            ResourceKind::Policy => {
                Arc::make_mut(&mut self.policies).remove(name);
            }
            ResourceKind::Destination | ResourceKind::Routes => self.remove_variant(key.kind, name),
            ResourceKind::Endpoints => {
                if let Some(service) = parsed() {
                    Arc::make_mut(&mut self.endpoints).remove(&service);
                }
            }
            ResourceKind::Gateway => {
                if self.gateway.as_ref().is_some_and(|table| table.gateway().id.to_string() == name) {
                    self.gateway = None;
                }
            }
            ResourceKind::Secret => {
                Arc::make_mut(&mut self.secrets).remove(name);
            }
        }
    }

    fn remove_variant(&mut self, kind: ResourceKind, name: &str) {
        let (service, variant) = match name.split_once('@') {
            Some((service, variant)) => (service, Some(Namespace::from(variant))),
            None => (name, None),
        };
        let Ok(service) = service.parse::<ServiceId>() else { return };
        if !self.is_mine(variant.as_ref()) || !self.services.contains_key(&service) {
            return;
        }
        self.edit(&service, |state| match kind {
            ResourceKind::Destination => state.remove_destination(variant.is_some()),
            _ => state.remove_routes(variant.is_some()),
        });
        if self.services.get(&service).is_some_and(|state| state.is_empty()) {
            Arc::make_mut(&mut self.services).remove(&service);
        }
    }

    fn is_mine(&self, variant: Option<&Namespace>) -> bool {
        variant.is_none_or(|namespace| namespace == self.me.namespace())
    }

    fn edit<T>(&mut self, service: &ServiceId, edit: impl FnOnce(&mut ServiceState) -> T) -> T {
        let services = Arc::make_mut(&mut self.services);
        let state =
            services.entry(service.clone()).or_insert_with(|| Arc::new(ServiceState::new(service.clone())));
        edit(Arc::make_mut(state))
    }

    fn set_gateway(&mut self, gateway: &Arc<Gateway>) -> Option<String> {
        if gateway.id != self.me.id {
            return None;
        }
        match GatewayTable::compile(gateway) {
            Ok(table) => {
                self.gateway = Some(Arc::new(table));
                None
            }
            Err(problem) => Some(problem.to_string()),
        }
    }

    fn rebuild_inbound(&mut self) {
        let build = |workload: &Arc<Workload>| {
            let policies = PolicySet::build(&workload.policies, &self.policies);
            Arc::new(Inbound::new(workload.clone(), policies))
        };
        self.inbound = self.workload.as_ref().map(build);
    }
}
