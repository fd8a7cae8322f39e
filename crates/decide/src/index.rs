//! The index of all services, by address and by host.
//!
//! Invariant: which entry wins an address or host does not depend on the order in which entries came: one that this
//! proxy's namespace may see, then one of its own namespace, then one inside the mesh, then the lowest id.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use leno_model::{Host, IndexEntry, Namespace, Port, ServiceId};
use smallvec::SmallVec;

type Slot = SmallVec<[Arc<IndexEntry>; 1]>;

/// Longest name that a lookup completes (DNS allows 253 bytes).
const NAME_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index {
    namespace: Namespace,
    entries: BTreeMap<ServiceId, Arc<IndexEntry>>,
    by_address: HashMap<(IpAddr, Port), Slot>,
    /// Entries of an address, whatever the port.
    addresses: HashMap<IpAddr, Slot>,
    by_host: HashMap<Host, Slot>,
}

impl Index {
    pub(crate) fn new(namespace: Namespace) -> Self {
        Self {
            namespace,
            entries: BTreeMap::new(),
            by_address: HashMap::new(),
            addresses: HashMap::new(),
            by_host: HashMap::new(),
        }
    }

    pub(crate) fn insert(&mut self, entry: Arc<IndexEntry>) {
        self.remove(&entry.service);
        let namespace = self.namespace.clone();
        let add = |slot: &mut Slot| {
            slot.push(entry.clone());
            slot.sort_by(|a, b| preference(&namespace, a).cmp(&preference(&namespace, b)));
        };
        for address in entry.addresses.iter().map(IpAddr::to_canonical) {
            add(self.addresses.entry(address).or_default());
            for port in &entry.ports {
                add(self.by_address.entry((address, port.port)).or_default());
            }
        }
        add(self.by_host.entry(entry.service.host.clone()).or_default());
        self.entries.insert(entry.service.clone(), entry);
    }

    pub(crate) fn remove(&mut self, service: &ServiceId) {
        let Some(entry) = self.entries.remove(service) else { return };
        for address in entry.addresses.iter().map(IpAddr::to_canonical) {
            take_out(&mut self.addresses, &address, service);
            for port in &entry.ports {
                take_out(&mut self.by_address, &(address, port.port), service);
            }
        }
        take_out(&mut self.by_host, &entry.service.host, service);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<IndexEntry>> {
        self.entries.values()
    }

    pub(crate) fn get(&self, service: &ServiceId) -> Option<&Arc<IndexEntry>> {
        self.entries.get(service)
    }

    /// The entry of an address: of the port, else of any port.
    pub(crate) fn by_address(&self, address: IpAddr, port: Port) -> Option<&Arc<IndexEntry>> {
        let address = address.to_canonical();
        let slot = self.by_address.get(&(address, port)).or_else(|| self.addresses.get(&address))?;
        slot.first()
    }

    /// The entry of a host, which may be short (`reviews`, `reviews.shop`, `reviews.shop.svc`) as a pod's resolver allows.
    pub(crate) fn by_host(&self, host: &str) -> Option<&Arc<IndexEntry>> {
        let mut buffer = [0; NAME_BYTES];
        let length = host.len();
        let name = buffer.get_mut(..length)?;
        name.copy_from_slice(host.as_bytes());
        name.make_ascii_lowercase();
        if let Some(found) = self.exact(&buffer[..length]) {
            return Some(found);
        }
        let namespace = self.namespace.as_str();
        let tails: [&[&str]; 3] =
            [&[".", namespace, ".svc.cluster.local"], &[".svc.cluster.local"], &[".cluster.local"]];
        tails.into_iter().find_map(|tail| self.completed(&mut buffer, length, tail)).or_else(|| {
            // ServiceEntry hosts may be wildcards; the most specific wins.
            let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at);
            dots.filter(|at| *at > 0).find_map(|at| {
                let mut wildcard = [0; NAME_BYTES];
                wildcard[0] = b'*';
                wildcard.get_mut(1..=length - at)?.copy_from_slice(&buffer[at..length]);
                self.exact(&wildcard[..=length - at])
            })
        })
    }

    fn completed(
        &self,
        buffer: &mut [u8; NAME_BYTES],
        length: usize,
        tail: &[&str],
    ) -> Option<&Arc<IndexEntry>> {
        let mut end = length;
        for part in tail {
            buffer.get_mut(end..end + part.len())?.copy_from_slice(part.as_bytes());
            end += part.len();
        }
        self.exact(&buffer[..end])
    }

    fn exact(&self, name: &[u8]) -> Option<&Arc<IndexEntry>> {
        self.by_host.get(std::str::from_utf8(name).ok()?)?.first()
    }
}

fn preference<'e>(namespace: &Namespace, entry: &'e IndexEntry) -> (bool, bool, bool, &'e ServiceId) {
    let hidden = !entry.exposure.includes(namespace);
    (hidden, entry.service.namespace != *namespace, entry.external, &entry.service)
}

fn take_out<K: Eq + std::hash::Hash + Clone>(map: &mut HashMap<K, Slot>, key: &K, service: &ServiceId) {
    if let Some(slot) = map.get_mut(key) {
        slot.retain(|entry| entry.service != *service);
        if slot.is_empty() {
            map.remove(key);
        }
    }
}
