//! Units of compilation, their reads, and their recomputation.
//!
//! A unit turns one thing (a service, its routes, its endpoints, a workload, a policy, a gateway) into resources. It reads the
//! world through a [`View`] that records the classes of objects it looked at. A change of an object touches the classes of
//! its old and new content: the units that read one of them are recomputed, and those that the object itself calls for.
//!
//! Invariant: after any sequence of changes [`Compiler::compiled`] equals [`compile`] of the same world (a property test).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use leno_apis::{AnyObject, Diagnostic, Kind};
use leno_model::{Resource, ResourceKey, ServiceId, WorkloadId};

use crate::{
    destination_rule, endpoints,
    exports::{self, ExportedService},
    gateway::{self, GatewaySummary},
    object_checks,
    output::{Output, key_of},
    policies, routes, services,
    settings::{MeshSettings, RemoteCluster},
    status::ObjectStatus,
    view::{Class, Index, View, classes_of},
    workloads,
    world::{Change, ObjectKey, World},
};

/// Everything that a world means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// What proxies may be sent.
    pub resources: BTreeMap<ResourceKey, Resource>,
    /// What objects' authors are told.
    pub statuses: BTreeMap<ObjectKey, ObjectStatus>,
    /// What is wrong, by file and line.
    pub diagnostics: Vec<Diagnostic>,
    /// What this cluster tells the others.
    pub exports: Vec<ExportedService>,
    pub(crate) gateways: Vec<GatewaySummary>,
}

impl Compiled {
    /// The gateways and their ports, by namespace and name.
    #[must_use]
    pub fn gateways(&self) -> &[GatewaySummary] {
        &self.gateways
    }
}

/// What a batch of changes did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Resources that are new or have another content.
    pub changed: BTreeMap<ResourceKey, Resource>,
    /// Resources that are gone.
    pub removed: BTreeSet<ResourceKey>,
    /// Statuses that changed; `None` when there is nothing to say about the object any more.
    pub statuses: BTreeMap<ObjectKey, Option<ObjectStatus>>,
    /// Whether [`Compiled::diagnostics`] may have changed.
    pub diagnostics: bool,
    /// Whether [`Compiled::exports`] changed.
    pub exports: bool,
    /// Whether [`Compiled::gateways`] changed.
    pub gateways: bool,
    /// How many units were recomputed: the cost of the batch.
    pub recomputed: usize,
}

/// One unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    /// A service's index entry, destinations and export.
    Service(ServiceId),
    /// A service's routing tables.
    Routes(ServiceId),
    /// A service's endpoints.
    Endpoints(ServiceId),
    /// A pod.
    Workload(ObjectKey),
    /// An AuthorizationPolicy.
    Policy(ObjectKey),
    /// A Gateway of the Gateway API.
    Gateway(WorkloadId),
    /// The Gateways of Istio that a workload of their own serves, by its name.
    IstioGateway(Arc<str>),
    /// A Secret that some gateway names.
    Secret(ObjectKey),
    /// What can be said about an object by itself: its references, its status.
    Object(ObjectKey),
}

/// Compiles a world.
#[must_use]
pub fn compile(world: &World, settings: &MeshSettings, remotes: &[RemoteCluster]) -> Compiled {
    Compiler::new(world.clone(), settings.clone(), remotes.to_vec()).compiled
}

/// A world and its compilation, kept up to date.
#[derive(Clone, Debug)]
pub struct Compiler {
    world: World,
    index: Index,
    settings: MeshSettings,
    remotes: Vec<RemoteCluster>,
    outputs: BTreeMap<Unit, Output>,
    reads: BTreeMap<Unit, BTreeSet<Class>>,
    readers: BTreeMap<Class, BTreeSet<Unit>>,
    compiled: Compiled,
}

impl Compiler {
    /// Compiles a world in full.
    #[must_use]
    pub fn new(world: World, settings: MeshSettings, mut remotes: Vec<RemoteCluster>) -> Self {
        remotes.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        let mut index = Index::default();
        let mut units = BTreeSet::new();
        for object in world.iter() {
            index.insert(object);
            units.extend(units_of(object));
        }
        units.extend(units_of_remotes(&remotes));
        let mut compiler = Self {
            world,
            index,
            settings,
            remotes,
            outputs: BTreeMap::new(),
            reads: BTreeMap::new(),
            readers: BTreeMap::new(),
            compiled: Compiled::default(),
        };
        compiler.recompute(units);
        compiler
    }

    /// The compilation of the present world.
    #[must_use]
    pub const fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// The present world.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Applies changes and recomputes what they touch.
    pub fn update(&mut self, changes: &[Change]) -> Delta {
        let mut touched = BTreeSet::new();
        let mut units = BTreeSet::new();
        for change in changes {
            let before = self.world.apply(change);
            if before == change.object {
                continue;
            }
            if let Some(object) = &before {
                self.index.remove(object);
            }
            if let Some(object) = &change.object {
                self.index.insert(object);
            }
            for object in before.iter().chain(&change.object) {
                touched.extend(classes_of(object));
                units.extend(units_of(object));
            }
        }
        self.recompute_readers(touched, units)
    }

    /// Replaces what other clusters say.
    pub fn update_remotes(&mut self, mut remotes: Vec<RemoteCluster>) -> Delta {
        remotes.sort_by(|a, b| a.cluster.cmp(&b.cluster));
        let mut touched = BTreeSet::new();
        let mut units = BTreeSet::new();
        for remote in self.remotes.iter().chain(&remotes) {
            let same = self.remotes.contains(remote) && remotes.contains(remote);
            if !same {
                let hosts = remote.exports.iter().map(|export| export.service.host.shared());
                touched.extend(hosts.map(Class::Remote));
                units.extend(units_of_remotes(std::slice::from_ref(remote)));
            }
        }
        self.remotes = remotes;
        self.recompute_readers(touched, units)
    }

    fn recompute_readers(&mut self, touched: BTreeSet<Class>, mut units: BTreeSet<Unit>) -> Delta {
        for class in &touched {
            units.extend(self.readers.get(class).into_iter().flatten().cloned());
        }
        self.recompute(units)
    }

    fn recompute(&mut self, units: BTreeSet<Unit>) -> Delta {
        let mut delta = Delta { recomputed: units.len(), ..Delta::default() };
        let mut statuses = BTreeSet::new();
        // All old resources go before any new one comes: a resource may move from one unit to another.
        let mut before = BTreeMap::new();
        let mut after = BTreeMap::new();
        for unit in units {
            let (output, reads) = self.run(&unit);
            let old = self.replace(&unit, &output, reads);
            statuses.extend(old.statuses.keys().chain(output.statuses.keys()).cloned());
            delta.diagnostics |= old.diagnostics != output.diagnostics;
            if old.export != output.export {
                delta.exports = true;
                self.replace_export(old.export.as_ref(), output.export.clone());
            }
            delta.gateways |= old.gateway != output.gateway;
            before.extend(old.resources);
            after.extend(output.resources);
        }
        for (key, resource) in &after {
            if before.remove(key).as_ref() != Some(resource) {
                self.compiled.resources.insert(key.clone(), resource.clone());
                delta.changed.insert(key.clone(), resource.clone());
            }
        }
        for key in before.into_keys() {
            self.compiled.resources.remove(&key);
            delta.removed.insert(key);
        }
        self.merge_statuses(statuses, &mut delta);
        if delta.diagnostics {
            self.compiled.diagnostics = self.all_diagnostics();
        }
        if delta.gateways {
            self.compiled.gateways =
                self.outputs.values().filter_map(|output| output.gateway.clone()).collect();
            self.compiled.gateways.sort_by(|a, b| a.id.cmp(&b.id));
        }
        delta
    }

    /// Stores what a unit now says and reads; forgets a unit that says nothing for want of its object. Returns the old output.
    fn replace(&mut self, unit: &Unit, output: &Output, reads: BTreeSet<Class>) -> Output {
        for class in self.reads.remove(unit).into_iter().flatten() {
            if let Some(readers) = self.readers.get_mut(&class) {
                readers.remove(unit);
                if readers.is_empty() {
                    self.readers.remove(&class);
                }
            }
        }
        if *output == Output::default() && !self.is_called_for(unit) {
            return self.outputs.remove(unit).unwrap_or_default();
        }
        for class in &reads {
            self.readers.entry(class.clone()).or_default().insert(unit.clone());
        }
        self.reads.insert(unit.clone(), reads);
        self.outputs.insert(unit.clone(), output.clone()).unwrap_or_default()
    }

    /// Whether the object that a unit is about is still there.
    fn is_called_for(&self, unit: &Unit) -> bool {
        match unit {
            Unit::Workload(key) | Unit::Policy(key) | Unit::Object(key) => self.world.get(key).is_some(),
            Unit::Secret(key) => self.world.get(key).is_some(),
            Unit::Service(id) | Unit::Routes(id) | Unit::Endpoints(id) => {
                let view = View::new(&self.world, &self.index, &self.settings, &self.remotes);
                services::find(&view, id).is_some()
            }
            Unit::Gateway(id) => {
                self.world.get(&ObjectKey::new(Kind::Gateway, id.namespace.as_str(), &id.name)).is_some()
            }
            Unit::IstioGateway(selector) => {
                let view = View::new(&self.world, &self.index, &self.settings, &self.remotes);
                !view.istio_gateways(selector).is_empty()
            }
        }
    }

    fn run(&self, unit: &Unit) -> (Output, BTreeSet<Class>) {
        let view = View::new(&self.world, &self.index, &self.settings, &self.remotes);
        let mut out = Output::default();
        match unit {
            Unit::Service(id) => service(&view, id, &mut out),
            Unit::Routes(id) => routes::compile(&view, id, &mut out),
            Unit::Endpoints(id) => {
                if let Some(service) = services::find(&view, id) {
                    out.resource(Resource::Endpoints(Arc::new(endpoints::set(&view, &service))));
                }
            }
            Unit::Workload(key) => {
                if let Some(pod) = view.pod(&key.namespace, &key.name)
                    && let Some(workload) = workloads::workload(&view, pod)
                {
                    out.resource(Resource::Workload(Arc::new(workload)));
                    gateway::of_pod(&view, pod, &mut out);
                }
            }
            Unit::Policy(key) => policies::compile(&view, key, &mut out),
            Unit::Gateway(id) => gateway::compile(&view, id, &mut out),
            Unit::IstioGateway(selector) => gateway::compile_istio(&view, selector, &mut out),
            Unit::Secret(key) => gateway::compile_secret(&view, key, &mut out),
            Unit::Object(key) => object_checks::compile(&view, key, &mut out),
        }
        (out, view.into_reads())
    }

    /// Keeps the exports in the order of their services.
    fn replace_export(&mut self, old: Option<&ExportedService>, new: Option<ExportedService>) {
        let exports = &mut self.compiled.exports;
        let place = |exports: &[ExportedService], service: &ServiceId| {
            exports.binary_search_by(|known| known.service.cmp(service))
        };
        if let Some(old) = old
            && let Ok(index) = place(exports, &old.service)
        {
            exports.remove(index);
        }
        if let Some(new) = new {
            let (Ok(index) | Err(index)) = place(exports, &new.service);
            exports.insert(index, new);
        }
    }

    fn merge_statuses(&mut self, keys: BTreeSet<ObjectKey>, delta: &mut Delta) {
        if keys.is_empty() {
            return;
        }
        let mut merged: BTreeMap<ObjectKey, ObjectStatus> = BTreeMap::new();
        for output in self.outputs.values() {
            for (key, status) in &output.statuses {
                if keys.contains(key) {
                    merged.entry(key.clone()).or_default().merge(status);
                }
            }
        }
        for key in keys {
            // A unit may still cite an object that its last change removed; an object that is gone has no status.
            let status = merged.remove(&key).filter(|_| self.world.get(&key).is_some());
            let before = match &status {
                Some(status) => self.compiled.statuses.insert(key.clone(), status.clone()),
                None => self.compiled.statuses.remove(&key),
            };
            if before != status {
                delta.statuses.insert(key, status);
            }
        }
    }

    /// All findings, by place; the same finding of several units once.
    fn all_diagnostics(&self) -> Vec<Diagnostic> {
        let mut all: Vec<Diagnostic> =
            self.outputs.values().flat_map(|output| output.diagnostics.iter().cloned()).collect();
        all.sort_by(|a, b| {
            let key = |d: &Diagnostic| (d.at.clone(), d.code, d.object.clone(), d.message.clone());
            key(a).cmp(&key(b))
        });
        all.dedup();
        all
    }
}

/// A service's index entry, destinations and export.
fn service(view: &View<'_>, id: &ServiceId, out: &mut Output) {
    let Some(service) = services::find(view, id) else { return };
    let set = endpoints::set(view, &service);
    let variants = routes::variants(view, &service);
    for variant in std::iter::once(None).chain(variants.iter().map(Some)) {
        let destination = destination_rule::destination(view, &service, variant, &set, out);
        out.resource(Resource::Destination(Arc::new(destination)));
    }
    let mut local = set;
    local.endpoints.retain(|endpoint| endpoint.cluster == view.settings.cluster);
    out.export = exports::export(view.settings, &service, &local);
    out.resource(Resource::Index(Arc::new(services::index_entry(view, &service, variants))));
}

/// The units that an object calls for.
fn units_of(object: &AnyObject) -> Vec<Unit> {
    let key = ObjectKey::of(object);
    let mut units: Vec<Unit> = services::declared_by(object).into_iter().flat_map(units_of_service).collect();
    match object {
        AnyObject::Pod(_) => units.push(Unit::Workload(key)),
        AnyObject::Secret(_) => units.push(Unit::Secret(key)),
        AnyObject::AuthorizationPolicy(_) => units.push(Unit::Policy(key)),
        AnyObject::Refused(refused) if refused.kind == Kind::AuthorizationPolicy => {
            units.push(Unit::Policy(key));
        }
        AnyObject::Refused(_) => units.push(Unit::Object(key)),
        AnyObject::Gateway(gateway) => {
            units.push(Unit::Gateway(WorkloadId::new(gateway.namespace(), gateway.name())));
        }
        AnyObject::IstioGateway(gateway) => {
            units.push(Unit::IstioGateway(gateway::synthetic_name(&gateway.spec.selector)));
            units.push(Unit::Object(key_of(gateway)));
        }
        AnyObject::VirtualService(_)
        | AnyObject::DestinationRule(_)
        | AnyObject::HttpRoute(_)
        | AnyObject::GrpcRoute(_)
        | AnyObject::TcpRoute(_)
        | AnyObject::TlsRoute(_)
        | AnyObject::ServiceEntry(_)
        | AnyObject::PeerAuthentication(_)
        | AnyObject::BackendTlsPolicy(_)
        | AnyObject::ListenerSet(_)
        | AnyObject::GatewayClass(_) => units.push(Unit::Object(key)),
        _ => {}
    }
    units
}

fn units_of_service(id: ServiceId) -> [Unit; 3] {
    [Unit::Service(id.clone()), Unit::Routes(id.clone()), Unit::Endpoints(id)]
}

fn units_of_remotes(remotes: &[RemoteCluster]) -> impl Iterator<Item = Unit> + '_ {
    let exports = remotes.iter().flat_map(|remote| &remote.exports);
    exports.flat_map(|export| units_of_service(export.service.clone()))
}
