//! Which traffic of a pod goes through its proxy, as arguments of `leno-proxy capture`.
//!
//! Invariant: what the annotations say is read completely or refused; the proxy's own ports are never captured.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::contract::{PROXY_UID, UNCAPTURED_PORTS};

/// Everything, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Those<T> {
    All,
    Listed(Vec<T>),
}

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Captured {
    inbound_ports: Those<u16>,
    exclude_inbound_ports: Vec<u16>,
    outbound_cidrs: Those<IpNet>,
    exclude_outbound_cidrs: Vec<IpNet>,
    outbound_ports: Vec<u16>,
    exclude_outbound_ports: Vec<u16>,
}

/// Reads the `traffic.sidecar.istio.io/*` annotations.
pub(crate) fn read(annotations: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Captured {
    let mut reader = Reader { annotations, problems };
    let mut exclude_inbound_ports = UNCAPTURED_PORTS.to_vec();
    exclude_inbound_ports.extend(reader.listed("excludeInboundPorts", port));
    exclude_inbound_ports.sort_unstable();
    exclude_inbound_ports.dedup();
    Captured {
        inbound_ports: reader.those("includeInboundPorts", port),
        exclude_inbound_ports,
        outbound_cidrs: reader.those("includeOutboundIPRanges", cidr),
        exclude_outbound_cidrs: reader.listed("excludeOutboundIPRanges", cidr),
        outbound_ports: reader.listed("includeOutboundPorts", port),
        exclude_outbound_ports: reader.listed("excludeOutboundPorts", port),
    }
}

impl Captured {
    /// Arguments of `leno-proxy capture`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Self {
            inbound_ports,
            exclude_inbound_ports,
            outbound_cidrs,
            exclude_outbound_cidrs,
            outbound_ports,
            exclude_outbound_ports,
        } = self;
        [
            ("--inbound-ports", those(inbound_ports)),
            ("--exclude-inbound-ports", joined(exclude_inbound_ports)),
            ("--outbound-cidrs", those(outbound_cidrs)),
            ("--exclude-outbound-cidrs", joined(exclude_outbound_cidrs)),
            ("--outbound-ports", joined(outbound_ports)),
            ("--exclude-outbound-ports", joined(exclude_outbound_ports)),
            ("--proxy-uid", PROXY_UID.to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    /// A list that may be `*`, which it is when the annotation is absent.
    fn those<T>(&mut self, name: &str, item: fn(&str) -> Result<T, String>) -> Those<T> {
        match self.annotations.get(&format!("traffic.sidecar.istio.io/{name}")).map(|text| text.trim()) {
            None | Some("*") => Those::All,
            Some(_) => Those::Listed(self.listed(name, item)),
        }
    }

    fn listed<T>(&mut self, name: &str, item: fn(&str) -> Result<T, String>) -> Vec<T> {
        let key = format!("traffic.sidecar.istio.io/{name}");
        let Some(text) = self.annotations.get(&key) else { return Vec::new() };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut items = Vec::new();
        for part in parts {
            match item(part) {
                Ok(item) => items.push(item),
                Err(why) => self.problems.push(format!("annotation {key}: {why}")),
            }
        }
        items
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{text}` is no port"))
}

fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .map(|cidr| cidr.trunc())
        .map_err(|_| format!("`{text}` is no range of addresses such as `10.0.0.0/8`"))
}

fn those<T: ToString>(those: &Those<T>) -> String {
    match those {
        Those::All => "*".to_owned(),
        Those::Listed(items) => joined(items),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
