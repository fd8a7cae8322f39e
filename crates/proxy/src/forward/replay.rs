//! A request's body that can be sent again, as long as little of it was sent.
//!
//! Invariant: at most [`MAX_KEPT`] bytes are kept, in memory of their own: a received piece, however small, holds the whole
//! buffer that it was read into. A body of which more was sent cannot be sent again.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::http::{Body, BodyError, BodyStream};

/// Bytes kept for another attempt.
pub(crate) const MAX_KEPT: usize = 64 * 1024;

/// Makes copies of one body, one after the other.
pub(crate) struct Replay(Rc<RefCell<State>>);

struct State {
    source: Option<Body>,
    kept: BytesMut,
    /// More was sent than is kept.
    lost: bool,
    /// The copy that may read from the source; older ones get nothing.
    turn: u64,
}

impl Replay {
    /// Of this body.
    pub(crate) fn new(body: Body) -> Self {
        Self(Rc::new(RefCell::new(State { source: Some(body), kept: BytesMut::new(), lost: false, turn: 0 })))
    }

    /// Whether [`Self::copy`] would give the whole body.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.0.borrow();
        !state.lost && state.source.is_some()
    }

    /// The body for the next attempt. The copy before must be dropped.
    pub(crate) fn copy(&self) -> Body {
        let mut state = self.0.borrow_mut();
        if let Some(bytes) = state.source.as_ref().and_then(Body::as_full) {
            return Body::full(bytes);
        }
        state.turn += 1;
        Body::boxed(Copy { state: self.0.clone(), turn: state.turn, next: 0 })
    }
}

struct Copy {
    state: Rc<RefCell<State>>,
    turn: u64,
    next: usize,
}

impl BodyStream for Copy {
    fn poll_progress(self: Pin<&mut Self>, cx: &mut Context<'_>) {
        let mut state = self.state.borrow_mut();
        if state.turn == self.turn
            && let Some(source) = &mut state.source
        {
            source.poll_progress(cx);
        }
    }
}

impl http_body::Body for Copy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut state = this.state.borrow_mut();
        if state.turn != this.turn {
            return Poll::Ready(Some(Err(BodyError::Stale)));
        }
        if let Some(rest) = state.kept.get(this.next..).filter(|rest| !rest.is_empty()) {
            let rest = Bytes::copy_from_slice(rest);
            this.next += rest.len();
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        let Some(source) = &mut state.source else { return Poll::Ready(None) };
        let polled = Pin::new(source).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            match frame.data_ref() {
                Some(chunk) if !state.lost && state.kept.len() + chunk.len() <= MAX_KEPT => {
                    state.kept.extend_from_slice(chunk);
                    this.next += chunk.len();
                }
                Some(_) | None => {
                    state.lost = true;
                    state.kept = BytesMut::new();
                    this.next = 0;
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        self.next >= state.kept.len() && state.source.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let rest = state.source.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint);
        let kept = state.kept.len().saturating_sub(self.next);
        match rest.exact() {
            Some(exact) => SizeHint::with_exact(exact + kept as u64),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of these chunks.
    struct Chunks(std::collections::VecDeque<Bytes>);

    impl BodyStream for Chunks {}

    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    fn chunks(sizes: &[usize]) -> Body {
        Body::boxed(Chunks(sizes.iter().map(|size| Bytes::from(vec![b'x'; *size])).collect()))
    }

    #[tokio::test]
    async fn a_short_body_can_be_sent_again_even_when_it_was_sent_in_part() {
        let replay = Replay::new(chunks(&[3, 4, 5]));
        let mut first = replay.copy();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 3);
        drop(first);
        assert!(replay.is_whole());
        assert_eq!(replay.copy().collect(100).await.unwrap().len(), 12);
        assert_eq!(replay.copy().collect(100).await.unwrap().len(), 12);
    }

    #[tokio::test]
    async fn a_long_body_cannot_be_sent_again_once_more_was_sent_than_is_kept() {
        let replay = Replay::new(chunks(&[MAX_KEPT, 1]));
        let mut first = replay.copy();
        first.frame().await.unwrap().unwrap();
        assert!(replay.is_whole());
        first.frame().await.unwrap().unwrap();
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn small_pieces_do_not_hold_the_buffers_that_they_came_in() {
        let buffers: Vec<BytesMut> = (0..50).map(|_| BytesMut::zeroed(16 * 1024)).collect();
        let pieces = buffers.into_iter().map(|mut buffer| buffer.split_to(1).freeze()).collect();
        let replay = Replay::new(Body::boxed(Chunks(pieces)));
        let mut first = replay.copy();
        while let Some(frame) = first.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.is_unique(), "the buffer of a piece that was sent on is held");
        }
        assert_eq!(replay.copy().collect(100).await.unwrap().len(), 50);
    }

    #[tokio::test]
    async fn an_older_copy_reads_nothing_once_there_is_a_newer_one() {
        let replay = Replay::new(chunks(&[1, 1]));
        let mut old = replay.copy();
        let _new = replay.copy();
        assert_eq!(old.frame().await.unwrap().unwrap_err(), BodyError::Stale);
    }
}
