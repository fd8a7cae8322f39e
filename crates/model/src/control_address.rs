//! Where a control plane is.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Where a control plane is: `HOST:PORT`. A name is resolved anew each time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ControlAddress {
    /// Address or name.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// Text that is no `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no HOST:PORT")]
pub struct NotAnAddress(String);

impl FromStr for ControlAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let problem = || NotAnAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if host.is_empty() || !(is_name || host.parse::<IpAddr>().is_ok()) {
            return Err(problem());
        }
        Ok(Self { host: host.into(), port: port.parse().map_err(|_| problem())? })
    }
}

impl TryFrom<String> for ControlAddress {
    type Error = NotAnAddress;

    fn try_from(text: String) -> Result<Self, NotAnAddress> {
        text.parse()
    }
}

impl From<ControlAddress> for String {
    fn from(address: ControlAddress) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for ControlAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_planes_are_addresses_or_names() {
        for text in ["leno-control.leno-system.svc:15012", "127.0.0.1:15012", "[fd00::1]:15012"] {
            let address: ControlAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        for text in ["leno-control", ":15012", "a b:1", "host:port", "host:70000"] {
            assert!(text.parse::<ControlAddress>().is_err(), "{text}");
        }
    }
}
