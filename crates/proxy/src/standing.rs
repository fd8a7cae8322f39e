//! What was let pass stays open only as long as it still would be (DESIGN: policy changes reach open connections and streams).
//!
//! Invariant: no change between the first decision and the watch is missed: a request's watch begins before the tables are read
//! that decide about it, a connection's judges what is in force before it waits.
//! Must not know: routes, endpoints, what a body or a tunnel carries.

use std::rc::Rc;

use http::{Request, Response};
use leno_decide::{DenyReason, Inbound};
use tokio::sync::watch;

use crate::{
    core::Core,
    forward::guarded::ending,
    http::{Body, BodyError},
    policy,
    serve_http::{EdgeConnection, HeaderFacts, InboundConnection, request_facts},
};

/// Ends when what is in force does not satisfy `holds`.
pub(crate) async fn until_not(core: &Core, holds: impl Fn(&Inbound) -> bool) {
    let mut changed = core.shared.changed.subscribe();
    loop {
        if core.shared.tables.load().inbound().is_some_and(|inbound| !holds(inbound)) {
            return;
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The connection that a request came by.
pub(crate) enum Asked {
    /// To our application.
    Inbound(Rc<InboundConnection>),
    /// At a gateway.
    Edge(Rc<EdgeConnection>),
}

/// A request that is open.
pub(crate) struct Standing {
    core: Rc<Core>,
    asked: Asked,
    head: Request<()>,
    changed: watch::Receiver<u64>,
}

impl Standing {
    /// To be made before the tables are read that decide about the request.
    pub(crate) fn new(core: &Rc<Core>, asked: Asked, request: &Request<Body>) -> Self {
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        head.headers_mut().clone_from(request.headers());
        Self { changed: core.shared.changed.subscribe(), core: core.clone(), asked, head }
    }

    /// Carries the request and gives its response, which ends when a change of policy would refuse the request. `Err`: it was
    /// refused before there was one.
    pub(crate) async fn while_it_holds(
        self,
        carried: impl Future<Output = Response<Body>>,
    ) -> Result<Response<Body>, (Request<()>, String, DenyReason)> {
        let standing = Rc::new(self);
        let mut refused = Box::pin(standing.clone().until_denied());
        let response = tokio::select! {
            biased;
            response = Box::pin(carried) => response,
            (id, by) = &mut refused => {
                let mut head = Request::new(());
                head.headers_mut().clone_from(standing.head.headers());
                return Err((head, id, by));
            }
        };
        let (parts, body) = response.into_parts();
        let until = async move { _ = refused.await };
        Ok(Response::from_parts(
            parts,
            ending(body, Box::pin(until), BodyError::Refused("a change of policy")),
        ))
    }

    async fn until_denied(self: Rc<Self>) -> (String, DenyReason) {
        let mut changed = self.changed.clone();
        loop {
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(denial) = self.denial() {
                return denial;
            }
        }
    }

    /// Why the request would be refused by what is in force.
    fn denial(&self) -> Option<(String, DenyReason)> {
        let tables = self.core.shared.tables.load();
        let inbound = tables.inbound()?;
        let headers = HeaderFacts(self.head.headers());
        let (arrival, scheme) = match &self.asked {
            Asked::Inbound(connection) => (connection.arrival(), "http"),
            Asked::Edge(connection) => (connection.arrival(&self.core), connection.scheme),
        };
        let facts = request_facts(&self.head, &headers, scheme);
        policy::admit_request(&self.core, inbound, &arrival, &facts).err()
    }
}
