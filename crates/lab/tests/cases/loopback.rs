//! Moves the addresses that cases use onto this machine: pods' (10.0.0.0/8) and those for documentation (RFC 5737).
//!
//! Invariants: one block contains another before and after; nothing outside loopback is ever dialled.
//! Must not know: YAML, cases.

use std::net::{IpAddr, Ipv4Addr};

use leno_lab::embedded::Block;

/// Where the two kinds of addresses are: `127.PODS.0.0/16` and `127.OTHERS.0.0/16`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    pods: u8,
    others: u8,
}

/// The third octets of the three networks for documentation.
const DOCUMENTATION: [([u8; 3], u8); 3] = [([198, 51, 100], 100), ([192, 0, 2], 102), ([203, 0, 113], 113)];

impl Places {
    /// In the blocks of a mesh and of everything outside it.
    pub(crate) fn new(mesh: &Block, outside: &Block) -> Self {
        Self { pods: second_octet(mesh), others: second_octet(outside) }
    }

    /// A caller of which nothing else is said.
    pub(crate) fn somewhere(&self) -> IpAddr {
        Ipv4Addr::new(127, self.others, 113, 7).into()
    }

    /// A server outside the mesh.
    pub(crate) fn elsewhere(&self) -> IpAddr {
        Ipv4Addr::new(127, self.others, 200, 1).into()
    }

    /// A virtual address that leads out of the mesh, for services that are not shown to everybody.
    pub(crate) fn hidden(&self, index: u8) -> IpAddr {
        Ipv4Addr::new(127, self.others, 201, index).into()
    }

    /// Whether the address is one of ours outside the mesh.
    pub(crate) fn is_outside(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [127, self.others])
    }

    /// The text with its addresses moved. A block of pods' loses eight bits of its size, so `10.1.2.3` is `127.B.1.2`.
    pub(crate) fn translate(&self, text: &str) -> String {
        let mut moved = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = ' ';
        while let Some(first) = rest.chars().next() {
            let starts = first.is_ascii_digit() && !(before.is_ascii_alphanumeric() || before == '.');
            if let Some((length, address, prefix)) = starts.then(|| block(rest)).flatten()
                && let Some(text) = self.moved(address, prefix)
            {
                moved.push_str(&text);
                rest = &rest[length..];
                before = '0';
                continue;
            }
            moved.push(first);
            before = first;
            rest = &rest[first.len_utf8()..];
        }
        moved
    }

    fn moved(&self, address: Ipv4Addr, prefix: Option<u8>) -> Option<String> {
        let [a, b, c, d] = address.octets();
        let (octets, grow) = match [a, b, c] {
            [10, ..] => ([127, self.pods, b, c], 8),
            network => {
                let (_, third) = DOCUMENTATION.iter().find(|(known, _)| *known == network)?;
                ([127, self.others, *third, d], 0)
            }
        };
        let address = Ipv4Addr::from(octets);
        Some(match prefix {
            Some(prefix) => format!("{address}/{}", (prefix + grow).min(32)),
            None => address.to_string(),
        })
    }
}

fn second_octet(block: &Block) -> u8 {
    match block.control(0) {
        IpAddr::V4(address) => address.octets()[1],
        IpAddr::V6(_) => unreachable!("blocks are IPv4"),
    }
}

/// An address or block at the start of a text, and its length.
fn block(text: &str) -> Option<(usize, Ipv4Addr, Option<u8>)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let address: Ipv4Addr = text[..end].parse().ok()?;
    let Some(rest) = text[end..].strip_prefix('/') else { return Some((end, address, None)) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let prefix = rest[..digits].parse().ok()?;
    Some((end + 1 + digits, address, Some(prefix)))
}

#[test]
fn addresses_of_cases_are_moved_to_loopback_and_keep_their_blocks() {
    let places = Places { pods: 20, others: 30 };
    let moved = places
        .translate("{ip: [10.1.0.0/16, 192.0.2.7], s: \"::ffff:10.1.2.3\", v: 1.10.0.1, n: 240.0.0.0/4}");
    assert_eq!(
        moved,
        "{ip: [127.20.1.0/24, 127.30.102.7], s: \"::ffff:127.20.1.2\", v: 1.10.0.1, n: 240.0.0.0/4}"
    );
    assert_eq!(places.translate("10.0.0.0/8 198.51.100.0/24"), "127.20.0.0/16 127.30.100.0/24");
}
