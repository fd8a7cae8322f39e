//! Cluster DNS of a running cluster: services by their addresses, headless ones by those of their pods.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    embedded::{PlannedService, PodPlan},
    standin::{ClusterNames, Resolver},
};

const DOMAIN: &str = "cluster.local";

/// The names at present; resolvers follow.
#[derive(Clone)]
pub(super) struct Names(watch::Receiver<Arc<ClusterNames>>);

/// Replaces the names.
pub(super) struct NamesWriter(watch::Sender<Arc<ClusterNames>>);

/// A table without names.
pub(super) fn names() -> (NamesWriter, Names) {
    let (sender, receiver) = watch::channel(Arc::new(ClusterNames::new(DOMAIN)));
    (NamesWriter(sender), Names(receiver))
}

impl NamesWriter {
    /// Puts new names in force.
    pub(super) fn set<'a>(
        &self,
        services: &[PlannedService],
        ready: impl Iterator<Item = &'a PodPlan> + Clone,
    ) {
        let mut names = ClusterNames::new(DOMAIN);
        for service in services {
            if let Some(address) = service.addresses.first() {
                names.insert(&service.name, &service.namespace, *address);
            }
            if !service.headless {
                continue;
            }
            let pods =
                ready.clone().filter(|pod| service.selects(pod.id.namespace.as_str(), |key| pod.label(key)));
            for (index, pod) in pods.enumerate() {
                if index == 0 {
                    names.insert(&service.name, &service.namespace, pod.address);
                }
                names.insert(&format!("{}.{}", pod.id.name, service.name), &service.namespace, pod.address);
            }
        }
        self.0.send_replace(Arc::new(names));
    }
}

impl Names {
    /// What a workload of `namespace` resolves names with.
    pub(super) fn resolver(&self, namespace: &str) -> Resolver {
        let (names, namespace) = (self.clone(), namespace.to_owned());
        Arc::new(move |host, port| {
            names.resolve(host, &namespace).map(|address| SocketAddr::new(address, port))
        })
    }

    fn resolve(&self, host: &str, namespace: &str) -> Option<IpAddr> {
        let names = self.0.borrow().clone();
        names.resolve(host, namespace)
    }
}
