//! ServiceEntry: a service that Kubernetes does not know.

use std::collections::BTreeMap;

use crate::decode::{Cursor, Fields, choice, name, port, spanned, text, unsigned};
use crate::diagnostic::{Rule, Source, Spanned};

/// A ServiceEntry.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Hosts, possibly `*.example.com`.
    pub hosts: Vec<Spanned<String>>,
    /// Virtual addresses (or blocks of them).
    pub addresses: Vec<Spanned<String>>,
    /// Ports.
    pub ports: Vec<Rule<EntryPort>>,
    /// Whether the service is part of the mesh.
    pub mesh_internal: bool,
    /// How its endpoints are found.
    pub resolution: Spanned<Resolution>,
    /// Endpoints.
    pub endpoints: Vec<Rule<EntryEndpoint>>,
    /// Labels of workloads that are its endpoints.
    pub workload_selector: Option<BTreeMap<String, String>>,
    /// Namespaces that see it; empty means all.
    pub export_to: Vec<Spanned<String>>,
    /// Names its certificates must have one of.
    pub subject_alt_names: Vec<Spanned<String>>,
}

/// A port of a service entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPort {
    /// Number.
    pub number: Spanned<u16>,
    /// Name.
    pub name: String,
    /// Protocol as written, such as `HTTPS`; empty when it does not say.
    pub protocol: String,
    /// Port of the endpoints, when another.
    pub target_port: Option<u16>,
}

/// An endpoint of a service entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEndpoint {
    /// Where it starts.
    pub at: Source,
    /// Address, name or `unix://` path.
    pub address: Option<Spanned<String>>,
    /// Its port by the name of the entry's.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Network it is in.
    pub network: Option<String>,
    /// `region/zone/subzone`.
    pub locality: Option<String>,
    /// Share.
    pub weight: Option<u32>,
    /// Identity.
    pub service_account: Option<String>,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The address that the client asked for.
    None,
    /// The endpoints as written.
    Static,
    /// By name.
    Dns,
    /// By name, one address at a time.
    DnsRoundRobin,
}

const RESOLUTIONS: &[(&str, Resolution)] = &[
    ("NONE", Resolution::None),
    ("STATIC", Resolution::Static),
    ("DNS", Resolution::Dns),
    ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
];

pub(crate) fn service_entry(o: &mut Fields<'_>) -> Option<ServiceEntry> {
    o.req("spec", |value| {
        let default = Spanned { value: Resolution::None, at: value.source() };
        value.object(|o| {
            Some(ServiceEntry {
                hosts: o.list("hosts", spanned(name)),
                addresses: o.list("addresses", spanned(name)),
                ports: o.rules("ports", entry_port),
                mesh_internal: o.or(
                    "location",
                    false,
                    choice(&[("MESH_EXTERNAL", false), ("MESH_INTERNAL", true)]),
                )?,
                resolution: o.or("resolution", default, spanned(choice(RESOLUTIONS)))?,
                endpoints: o.rules("endpoints", entry_endpoint),
                workload_selector: o
                    .opt("workloadSelector", |value| value.object(|o| Some(o.map("labels", text)))),
                export_to: o.list("exportTo", spanned(name)),
                subject_alt_names: o.list("subjectAltNames", spanned(name)),
            })
        })
    })
}

fn entry_port(value: Cursor<'_>) -> Option<EntryPort> {
    value.object(|o| {
        Some(EntryPort {
            protocol: o.or("protocol", String::new(), text)?,
            target_port: o.opt("targetPort", port),
            number: o.req("number", spanned(port))?,
            name: o.req("name", name)?,
        })
    })
}

fn entry_endpoint(value: Cursor<'_>) -> Option<EntryEndpoint> {
    let at = value.source();
    value.object(|o| {
        Some(EntryEndpoint {
            at,
            address: o.opt("address", spanned(name)),
            ports: o.map("ports", port),
            labels: o.map("labels", text),
            network: o.opt("network", text),
            locality: o.opt("locality", text),
            weight: o.opt("weight", unsigned),
            service_account: o.opt("serviceAccount", text),
        })
    })
}
