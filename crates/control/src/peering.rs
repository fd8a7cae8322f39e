//! Other clusters: what each control plane tells this one, for as long as it can be heard and after.
//!
//! Invariants: a cluster is believed only about itself; what was last heard stays in force, marked stale, until it is heard
//! again; the first words after a restart are those of the last run, also marked stale.
//! Must not know: what becomes of the exports (that is the compiler's).

pub(crate) mod dial;
mod listener;
mod memory;
pub(crate) mod told;

use std::{collections::BTreeMap, sync::Arc};

use leno_compile::RemoteCluster;
use leno_identity::UnixTime;
use leno_model::ClusterName;
use tokio::sync::watch;

pub(crate) use listener::{Listener, listen_to};
pub(crate) use memory::Memory;

/// Another cluster, as far as it was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// What it last said; `None`: nothing yet.
    pub(crate) remote: Option<RemoteCluster>,
    /// Whether its stream is open.
    pub(crate) connected: bool,
    /// When it was last heard.
    pub(crate) last: Option<UnixTime>,
    /// Why it cannot be heard.
    pub(crate) cause: Option<Arc<str>>,
    /// What it said and is not believed.
    pub(crate) disbelieved: Vec<String>,
}

/// All other clusters. Clones are the same table.
#[derive(Clone)]
pub(crate) struct Peers {
    table: Arc<watch::Sender<BTreeMap<ClusterName, Heard>>>,
}

impl Peers {
    /// These clusters, with what the last run knew of them.
    pub(crate) fn new(known: impl IntoIterator<Item = (ClusterName, Option<RemoteCluster>)>) -> Self {
        let table =
            known.into_iter().map(|(cluster, remote)| (cluster, Heard { remote, ..Heard::default() }));
        Self { table: Arc::new(watch::Sender::new(table.collect())) }
    }

    /// The table as it is.
    pub(crate) fn all(&self) -> BTreeMap<ClusterName, Heard> {
        self.table.borrow().clone()
    }

    /// Resolves when something changed.
    pub(crate) fn changes(&self) -> watch::Receiver<BTreeMap<ClusterName, Heard>> {
        self.table.subscribe()
    }

    fn edit(&self, cluster: &ClusterName, edit: impl FnOnce(&mut Heard)) {
        self.table.send_modify(|table| edit(table.entry(cluster.clone()).or_default()));
    }
}

/// What the compiler is given of a table.
pub(crate) fn remotes(table: &BTreeMap<ClusterName, Heard>) -> Vec<RemoteCluster> {
    table.values().filter_map(|heard| heard.remote.clone()).collect()
}
