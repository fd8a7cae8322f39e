//! Loopback addresses for workloads, and virtual ones for services.
//!
//! One mesh takes one block `127.B.0.0/16`, so that several can run on one machine; within it each cluster has 16 values
//! of the third octet: eight for proxies, eight for applications. Virtual addresses (240.240.0.0/16) are never bound.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use leno_model::WorkloadId;

/// Where a block's owner holds a socket for as long as the block is its own.
const LOCK_PORT: u16 = 15999;

/// Blocks that are tried, by their second octet; lower ones are left to the machine.
const BLOCKS: std::ops::RangeInclusive<u8> = 16..=239;

const THIRD_OCTETS_PER_CLUSTER: u8 = 16;
const APP_OFFSET: u8 = 8;
const WORKLOADS_PER_CLUSTER: u16 = 8 * 254;

/// Most clusters of one mesh on a machine.
pub const MAX_CLUSTERS: usize = 15;

/// No addresses are left.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Every block is taken.
    #[error("every block 127.{}.0.0/16 to 127.{}.0.0/16 is taken by another mesh", BLOCKS.start(), BLOCKS.end())]
    AllTaken,
    /// The socket that marks a block cannot be made.
    #[error("loopback addresses cannot be used")]
    Unusable(#[source] io::Error),
}

/// A block of loopback addresses that no other mesh on this machine uses.
#[derive(Debug)]
pub struct Block {
    second: u8,
    _lock: Option<TcpListener>,
}

impl Block {
    /// Takes the first free block.
    ///
    /// # Errors
    /// When none is free.
    pub fn take() -> Result<Self, BlockError> {
        for second in BLOCKS {
            let lock = SocketAddr::new(Ipv4Addr::new(127, second, 255, 254).into(), LOCK_PORT);
            match TcpListener::bind(lock) {
                Ok(listener) => return Ok(Self { second, _lock: Some(listener) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(BlockError::Unusable(error)),
            }
        }
        Err(BlockError::AllTaken)
    }

    /// The address of a cluster's control plane.
    pub fn control(&self, cluster: usize) -> IpAddr {
        self.address(cluster, 0, 0)
    }

    fn address(&self, cluster: usize, index: u16, offset: u8) -> IpAddr {
        let third = u8::try_from(cluster).unwrap_or(u8::MAX).saturating_mul(THIRD_OCTETS_PER_CLUSTER);
        let (row, column) = (index / 254, index % 254);
        let row = u8::try_from(row).unwrap_or(u8::MAX);
        Ipv4Addr::new(127, self.second, third + offset + row, 1 + u8::try_from(column).unwrap_or(0)).into()
    }
}

/// The addresses of one cluster's names.
#[derive(Debug)]
pub struct Addresses {
    block: Arc<Block>,
    cluster: usize,
    workloads: BTreeMap<WorkloadId, u16>,
    free: Vec<u16>,
    services: BTreeMap<(String, String), u16>,
}

impl Addresses {
    /// For the `cluster`-th cluster of the mesh that owns `block`.
    pub fn new(block: Arc<Block>, cluster: usize) -> Self {
        Self { block, cluster, workloads: BTreeMap::new(), free: Vec::new(), services: BTreeMap::new() }
    }

    /// The addresses of a workload: its proxy's and its application's. `None`: the cluster has no more.
    pub fn workload(&mut self, id: &WorkloadId) -> Option<(IpAddr, IpAddr)> {
        let index = match self.workloads.get(id) {
            Some(index) => *index,
            None => {
                // Index 0 is the control plane's. A fresh index is preferred, so that an address is reused late.
                let used = u16::try_from(self.workloads.len() + self.free.len()).ok()?;
                let index = if used + 1 < WORKLOADS_PER_CLUSTER {
                    used + 1
                } else {
                    (!self.free.is_empty()).then(|| self.free.remove(0))?
                };
                self.workloads.insert(id.clone(), index);
                index
            }
        };
        Some((
            self.block.address(self.cluster, index, 0),
            self.block.address(self.cluster, index, APP_OFFSET),
        ))
    }

    /// Gives a workload's addresses back.
    pub fn release(&mut self, id: &WorkloadId) {
        self.free.extend(self.workloads.remove(id));
    }

    /// The virtual address of a service.
    pub fn service(&mut self, namespace: &str, name: &str) -> IpAddr {
        let next = u16::try_from(self.services.len() + 1).unwrap_or(u16::MAX);
        let index = *self.services.entry((namespace.to_owned(), name.to_owned())).or_insert(next);
        let [high, low] = index.to_be_bytes();
        Ipv4Addr::new(240, 240, high, low).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meshes_on_one_machine_have_different_blocks() {
        let (one, two) = (Block::take().unwrap(), Block::take().unwrap());
        assert_ne!(one.second, two.second);
    }

    #[test]
    fn names_keep_their_addresses_and_nobody_shares_one() {
        let block = Arc::new(Block { second: 16, _lock: None });
        let mut seen = std::collections::BTreeSet::new();
        seen.insert(block.control(1));
        let mut addresses = Addresses::new(block, 1);
        for index in 0..600 {
            let (proxy, app) =
                addresses.workload(&WorkloadId::new("default", &format!("pod-{index}"))).unwrap();
            assert!(seen.insert(proxy) && seen.insert(app), "{proxy} {app}");
        }
        let first = WorkloadId::new("default", "pod-0");
        let before = addresses.workload(&first);
        addresses.release(&WorkloadId::new("default", "pod-1"));
        assert_eq!(addresses.workload(&first), before);
        let late = addresses.workload(&WorkloadId::new("default", "late")).unwrap().0;
        assert!(seen.insert(late), "a released address is not reused while fresh ones are left");
    }
}
