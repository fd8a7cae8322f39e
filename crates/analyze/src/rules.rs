//! Rules over a world and its compilation.
//!
//! Invariant: each rule reports what has an effect that its author cannot have meant, once per place; the result is in the
//! order of files, lines and codes. Must not know: what `compile` already reports (its codes are LN1xxx).

mod protocols;
mod shadow;
mod workloads;

use std::{collections::BTreeSet, sync::Arc};

use leno_apis::{AnyObject, Diagnostic, Source, kind::KINDS};
use leno_compile::{Compiled, ObjectKey, World};
use leno_model::{Destination, EndpointSet, Gateway, IndexEntry, Origin, Resource, RouteTable, Workload};

/// Looks for problems.
#[must_use]
pub fn analyze(world: &World, compiled: &Compiled) -> Vec<Diagnostic> {
    let scene = Scene::of(world, compiled);
    let mut found = Findings { world, all: Vec::new(), seen: BTreeSet::new() };
    workloads::services(&scene, &mut found);
    workloads::subsets(&scene, &mut found);
    workloads::policies(&scene, &mut found);
    workloads::identities(&scene, &mut found);
    workloads::plaintext(&scene, &mut found);
    shadow::routes(&scene, &mut found);
    protocols::routes(&scene, &mut found);
    let mut all = found.all;
    all.sort_by(|a, b| {
        let key = |d: &Diagnostic| (d.at.file.clone(), d.at.line, d.at.column, d.code, d.at.field.clone());
        key(a).cmp(&key(b))
    });
    all
}

/// The compilation by kind of resource.
struct Scene<'w> {
    world: &'w World,
    workloads: Vec<&'w Arc<Workload>>,
    destinations: Vec<&'w Arc<Destination>>,
    routes: Vec<&'w Arc<RouteTable>>,
    endpoints: Vec<&'w Arc<EndpointSet>>,
    gateways: Vec<&'w Arc<Gateway>>,
    index: Vec<&'w Arc<IndexEntry>>,
}

impl<'w> Scene<'w> {
    fn of(world: &'w World, compiled: &'w Compiled) -> Self {
        let mut scene = Self {
            world,
            workloads: Vec::new(),
            destinations: Vec::new(),
            routes: Vec::new(),
            endpoints: Vec::new(),
            gateways: Vec::new(),
            index: Vec::new(),
        };
        for resource in compiled.resources.values() {
            match resource {
                Resource::Workload(it) => scene.workloads.push(it),
                Resource::Destination(it) => scene.destinations.push(it),
                Resource::Routes(it) => scene.routes.push(it),
                Resource::Endpoints(it) => scene.endpoints.push(it),
                Resource::Gateway(it) => scene.gateways.push(it),
                Resource::Index(it) => scene.index.push(it),
                Resource::Policy(_) | Resource::Secret(_) => {}
            }
        }
        scene
    }

    fn endpoints_of(&self, destination: &Destination) -> Option<&'w Arc<EndpointSet>> {
        self.endpoints.iter().find(|set| set.service == destination.service).copied()
    }
}

/// What was found.
struct Findings<'w> {
    world: &'w World,
    all: Vec<Diagnostic>,
    seen: BTreeSet<(Source, &'static str, String)>,
}

impl Findings<'_> {
    fn warn(&mut self, object: &AnyObject, code: &'static str, at: Source, text: String) {
        if self.seen.insert((at.clone(), code, text.clone())) {
            self.all.push(Diagnostic::warning(code, at, text).about(object.reference()));
        }
    }

    /// A finding at a place that the model cites.
    fn warn_at(&mut self, origin: &Origin, code: &'static str, text: String) {
        let at = source_of(origin);
        match object_of(self.world, origin) {
            Some(object) => self.warn(&object, code, at, text),
            None if self.seen.insert((at.clone(), code, text.clone())) => {
                self.all.push(Diagnostic::warning(code, at, text));
            }
            None => {}
        }
    }
}

fn source_of(origin: &Origin) -> Source {
    let (file, line) = match origin.place.rsplit_once(':') {
        Some((file, line)) => (file, line.parse().unwrap_or(0)),
        None => (&*origin.place, 0),
    };
    Source { file: file.into(), line, column: u32::from(line > 0), field: origin.field.clone() }
}

fn object_of(world: &World, origin: &Origin) -> Option<Arc<AnyObject>> {
    let kinds = KINDS.iter().filter(|info| *info.name == *origin.kind);
    let mut objects =
        kinds.filter_map(|info| world.get(&ObjectKey::new(info.kind, &origin.namespace, &origin.name)));
    objects.next().cloned()
}

#[cfg(test)]
mod tests;
