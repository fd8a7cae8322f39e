//! What a redirected connection had dialled, from the kernel's connection tracking.
//!
//! Invariant: a connection that was made to the listener itself is refused: passing it on to where it was going would be a loop.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

/// The original destination of a connection that the kernel redirected to us.
///
/// # Errors
/// When nothing redirected it, or the kernel does not say.
pub(crate) fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    let own = canonical(stream.local_addr()?);
    let socket = socket2::SockRef::from(stream);
    let dialled = if own.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let dialled = dialled?.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let dialled = canonical(SocketAddr::new(dialled.ip(), dialled.port()));
    if dialled == own {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it was made to the capture port itself, which is for redirected connections only",
        ));
    }
    Ok(dialled)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
