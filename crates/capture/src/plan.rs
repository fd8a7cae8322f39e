//! What is to be captured in a network namespace, as command line, annotations and CNI configuration say it.
//!
//! Lists are comma-separated; `*` is everything, an empty list nothing.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// Everything, or what a list names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection<T> {
    /// Everything.
    All,
    /// These.
    Only(Vec<T>),
}

/// A network or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(pub IpNet);

/// What is to be captured. An exclusion always wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Ports of the workload.
    pub inbound_ports: Selection<u16>,
    /// Ports of the workload that are left alone.
    pub exclude_inbound_ports: Vec<u16>,
    /// Destinations.
    pub outbound_cidrs: Selection<Network>,
    /// Destinations that are left alone.
    pub exclude_outbound_cidrs: Vec<Network>,
    /// Ports that are captured whatever their destination.
    pub outbound_ports: Vec<u16>,
    /// Ports that are left alone whatever their destination.
    pub exclude_outbound_ports: Vec<u16>,
    /// The proxy's user, whose connections are left alone.
    pub proxy_uid: u32,
}

/// An entry of a list that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no {1}")]
pub struct BadEntry(String, &'static str);

impl Default for Plan {
    fn default() -> Self {
        Self {
            inbound_ports: Selection::All,
            exclude_inbound_ports: Vec::new(),
            outbound_cidrs: Selection::All,
            exclude_outbound_cidrs: Vec::new(),
            outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            proxy_uid: 1337,
        }
    }
}

/// A list of ports.
///
/// # Errors
/// When an entry is no port.
pub fn ports(text: &str) -> Result<Vec<u16>, BadEntry> {
    list(text, "port")?
        .into_iter()
        .map(|port| if port == 0 { Err(bad("0", "port")) } else { Ok(port) })
        .collect()
}

/// A list of networks.
///
/// # Errors
/// When an entry is neither a network nor an address.
pub fn networks(text: &str) -> Result<Vec<Network>, BadEntry> {
    list(text, "network (as 10.0.0.0/8) or address")
}

/// `*` or a list of ports.
///
/// # Errors
/// As [`ports`].
pub fn selected_ports(text: &str) -> Result<Selection<u16>, BadEntry> {
    if text.trim() == "*" { Ok(Selection::All) } else { ports(text).map(Selection::Only) }
}

/// `*` or a list of networks.
///
/// # Errors
/// As [`networks`].
pub fn selected_networks(text: &str) -> Result<Selection<Network>, BadEntry> {
    if text.trim() == "*" { Ok(Selection::All) } else { networks(text).map(Selection::Only) }
}

fn list<T: FromStr>(text: &str, what: &'static str) -> Result<Vec<T>, BadEntry> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| entry.parse().map_err(|_| bad(entry, what))).collect()
}

fn bad(entry: &str, what: &'static str) -> BadEntry {
    BadEntry(entry.to_owned(), what)
}

impl FromStr for Network {
    type Err = BadEntry;

    fn from_str(text: &str) -> Result<Self, BadEntry> {
        let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        parsed.map(|network| Self(network.trunc())).map_err(|_| bad(text, "network"))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_what_is_no_entry_is_named() {
        assert_eq!(selected_ports("*").unwrap(), Selection::All);
        assert_eq!(selected_ports("").unwrap(), Selection::Only(vec![]));
        assert_eq!(ports(" 80, 443,").unwrap(), [80, 443]);
        let read: Vec<String> =
            networks("10.1.2.3/8,fd00::1,192.0.2.1").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.0/8", "fd00::1/128", "192.0.2.1/32"]);
        for bad in ["http", "0", "70000", "80-90", "*"] {
            assert!(ports(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
        assert!(networks("10.0.0.0/33").is_err() && networks("*").is_err());
    }
}
