//! Namespace, Node and ServiceAccount: names and labels, which are in their metadata.

use crate::decode::Fields;

/// A namespace; everything we read is in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {}

/// A machine; region and zone are labels (`topology.kubernetes.io/*`) in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {}

/// A workload identity; everything we read is in its metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAccount {}

pub(crate) fn namespace(_: &mut Fields<'_>) -> Option<Namespace> {
    Some(Namespace {})
}

pub(crate) fn node(_: &mut Fields<'_>) -> Option<Node> {
    Some(Node {})
}

pub(crate) fn service_account(_: &mut Fields<'_>) -> Option<ServiceAccount> {
    Some(ServiceAccount {})
}
