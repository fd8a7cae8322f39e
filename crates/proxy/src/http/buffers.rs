//! Buffers that connections borrow while bytes are on the move.
//!
//! Invariant: a connection that waits holds no buffer; what is kept for reuse is bounded per thread.

use std::cell::RefCell;

use bytes::BytesMut;

/// How much one read asks for.
pub(super) const CHUNK: usize = 16 * 1024;
const KEPT: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for [`CHUNK`] bytes.
pub(super) fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(CHUNK))
}

/// Gives a buffer back. Its contents are lost. A buffer whose memory is shared with live `Bytes` is only let go.
pub(super) fn give(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() > 4 * CHUNK || !buffer.try_reclaim(CHUNK) {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}
