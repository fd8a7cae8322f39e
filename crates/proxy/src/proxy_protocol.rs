//! The PROXY protocol, version 2: how an application without capture tells its proxy which address it dialled.
//!
//! Only listeners that are told to expect it read it (specification, section 2.2: never detect it on a port that may get
//! other traffic), and a header that is not complete in time closes the connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Most bytes of addresses and TLVs that are read; the specification asks receivers for 216 at least.
const MAX_BODY: usize = 536;

/// What the header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialled {
    /// Who connected.
    pub source: SocketAddr,
    /// What was dialled: here a virtual address.
    pub destination: SocketAddr,
}

/// Writes the header for a TCP connection from `source` to `destination`. Both must be of one family.
pub fn encode(dialled: Dialled) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(0x21);
    match (dialled.source.ip(), dialled.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([0x11, 0, 12]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        (source, destination) => {
            header.extend([0x21, 0, 36]);
            header.extend(to_v6(source).octets());
            header.extend(to_v6(destination).octets());
        }
    }
    header.extend(dialled.source.port().to_be_bytes());
    header.extend(dialled.destination.port().to_be_bytes());
    header
}

/// Reads the header. `None`: a LOCAL connection, such as a health check of the sender itself.
///
/// # Errors
/// When the bytes are not a version 2 header for TCP, or the stream fails.
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<Option<Dialled>> {
    let mut head = [0_u8; 16];
    stream.read_exact(&mut head).await?;
    if head[..12] != SIGNATURE || head[12] >> 4 != 2 {
        return Err(invalid("not a PROXY protocol v2 header"));
    }
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MAX_BODY {
        return Err(invalid("PROXY protocol header too long"));
    }
    let mut body = [0_u8; MAX_BODY];
    let body = &mut body[..length];
    stream.read_exact(body).await?;
    match (head[12] & 0x0f, head[13]) {
        (0, _) => Ok(None),
        (1, 0x11) if length >= 12 => Ok(Some(Dialled {
            source: SocketAddr::new(v4(&body[0..4]), port(&body[8..10])),
            destination: SocketAddr::new(v4(&body[4..8]), port(&body[10..12])),
        })),
        (1, 0x21) if length >= 36 => Ok(Some(Dialled {
            source: SocketAddr::new(v6(&body[0..16]), port(&body[32..34])),
            destination: SocketAddr::new(v6(&body[16..32]), port(&body[34..36])),
        })),
        _ => Err(invalid("PROXY protocol header for another protocol than TCP")),
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn v4(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 4];
    octets.copy_from_slice(bytes);
    Ipv4Addr::from(octets).into()
}

fn v6(bytes: &[u8]) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    IpAddr::from(octets).to_canonical()
}

fn port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn reread(dialled: Dialled) -> Dialled {
        read(&mut encode(dialled).as_slice()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn both_families_survive_the_header() {
        for (source, destination) in [("127.0.0.1:4000", "240.240.0.7:80"), ("[::1]:4000", "[fd00::7]:80")] {
            let dialled =
                Dialled { source: source.parse().unwrap(), destination: destination.parse().unwrap() };
            assert_eq!(reread(dialled).await, dialled);
        }
    }

    #[tokio::test]
    async fn what_is_not_a_header_is_refused() {
        let local = [SIGNATURE.as_slice(), &[0x20, 0, 0, 0]].concat();
        assert_eq!(read(&mut local.as_slice()).await.unwrap(), None);
        for bad in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            [SIGNATURE.as_slice(), &[0x11, 0x11, 0, 12], &[0; 12]].concat(),
            [SIGNATURE.as_slice(), &[0x21, 0x12, 0, 12], &[0; 12]].concat(),
            [SIGNATURE.as_slice(), &[0x21, 0x11, 0, 11], &[0; 11]].concat(),
            [SIGNATURE.as_slice(), &[0x21, 0x11, 0xff, 0xff], &[0; 12]].concat(),
        ] {
            assert!(read(&mut bad.as_slice()).await.is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_says_the_same_when_written(
            signed in proptest::bool::weighted(0.9),
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
            head in proptest::sample::select(vec![[0x21, 0x11, 0, 12], [0x21, 0x21, 0, 36], [0x20, 0, 0, 0], [0x21, 0x11, 2, 0x18]]),
        ) {
            let mut input = if signed { [SIGNATURE.as_slice(), &head].concat() } else { Vec::new() };
            input.extend(bytes);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Ok(Some(dialled)) = runtime.block_on(read(&mut input.as_slice())) {
                let again = runtime.block_on(reread(dialled));
                proptest::prop_assert_eq!(again, dialled);
            }
        }
    }
}
