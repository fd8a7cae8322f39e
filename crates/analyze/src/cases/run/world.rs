//! A case's world, compiled, and the tables that each proxy of it would have.

use std::sync::Arc;

use leno_apis::Diagnostic;
use leno_compile::{Compiled, MeshSettings, World, compile};
use leno_decide::{Change, Tables, WhoAmI};
use leno_model::{Resource, ResourceKey, ServiceId, Workload, WorkloadId};

use crate::{
    cases::format::{Case, WorkloadName},
    embedded::materialise,
};

pub(super) struct CaseWorld {
    pub(super) compiled: Compiled,
    found: Vec<Diagnostic>,
}

impl CaseWorld {
    pub(super) fn of(case: &Case, settings: &MeshSettings) -> Self {
        let world = World::of(materialise(&case.objects));
        let compiled = compile(&world, settings, &[]);
        let found = crate::analyze(&world, &compiled);
        Self { compiled, found }
    }

    /// Everything that is said about the case's objects.
    pub(super) fn diagnostics(&self, case: &Case) -> Vec<Diagnostic> {
        case.diagnostics.iter().chain(&self.compiled.diagnostics).chain(&self.found).cloned().collect()
    }

    /// The workload that a case names: by its pod, its owner, or its `app` label.
    pub(super) fn workload(&self, name: &WorkloadName) -> Result<&Arc<Workload>, String> {
        let named = |workload: &&Arc<Workload>| {
            *workload.id.name == *name.name
                || *workload.owner == *name.name
                || workload.labels.get("app").is_some_and(|app| **app == *name.name)
        };
        let mut here = self.workloads().filter(|workload| workload.id.namespace.as_str() == name.namespace);
        here.find(named).ok_or_else(|| format!("the mesh has no workload {name}"))
    }

    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.compiled.resources.values().filter_map(|resource| match resource {
            Resource::Workload(workload) => Some(workload),
            _ => None,
        })
    }

    /// The tables of a proxy with all it has by itself, and nothing on demand.
    pub(super) fn tables(&self, me: WhoAmI) -> Tables {
        let index = self.compiled.resources.keys().filter(|key| key.kind == leno_model::ResourceKind::Index);
        let own = self.compiled.own(&me.id).unwrap_or_default();
        let keys: Vec<ResourceKey> = index.cloned().chain(own).collect();
        Tables::new(me).apply(self.upserts(&keys))
    }

    /// The tables after a service's scope has been loaded.
    pub(super) fn load(&self, tables: &Tables, service: &ServiceId) -> Tables {
        let keys = self.compiled.closure(tables.me().namespace(), service).unwrap_or_default();
        let loaded = Change::Scope(service.clone(), true);
        tables.apply(self.upserts(&keys).into_iter().chain([loaded]))
    }

    /// The tables of the proxy beside a workload.
    pub(super) fn tables_of(&self, id: &WorkloadId) -> Option<Tables> {
        let workload = self.workloads().find(|workload| workload.id == *id)?;
        Some(self.tables(WhoAmI::of_workload(workload)))
    }

    fn upserts(&self, keys: &[ResourceKey]) -> Vec<Change> {
        keys.iter().filter_map(|key| self.compiled.resources.get(key).cloned().map(Change::Upsert)).collect()
    }
}
