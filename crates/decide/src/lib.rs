//! Given tables and the facts of a connection or request, says what must happen to it, and can say why.
//!
//! Pure: synchronous, without I/O, clock, randomness (rolls are arguments) or logging. The proxy, `leno explain`, `leno test`
//! and the lab's simulations all decide with this crate, so they cannot differ. What makes a decision takes a [`Trace`]:
//! [`NoTrace`] costs nothing, [`Recorder`] keeps each step.
//!
//! ```text
//!  resources -> tables ---> outbound  which service is dialled, is it loaded
//!                 |     \-> route     which rule, which backends    (tcp, gateway, rewrite)
//!                 |     \-> inbound   which mTLS mode applies
//!                 |     \-> authorize allowed or denied, by what    (policy)
//!                 |     \-> locality  which endpoints first         (hash)
//!                 |     \-> retry, limits
//!                 \-------> explain   all of these, in words
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod authorize;
pub mod explain;
pub mod facts;
pub mod gateway;
pub mod hash;
pub mod inbound;
mod index;
pub mod limits;
pub mod locality;
pub mod matching;
pub mod outbound;
pub mod path;
pub mod policy;
pub mod retry;
mod rewrite;
pub mod route;
mod services;
pub mod tables;
pub mod tcp;
pub mod trace;

pub use authorize::{
    AllowReason, DenyReason, NearMiss, OpenRules, Precheck, RuleRef, Verdict, authorize, precheck,
};
pub use explain::{Call, Explanation, Server, explain};
pub use facts::{ConnectionFacts, Headers, NoHeaders, RequestFacts, host_of, port_of};
pub use gateway::{GatewayTable, HostSelection, ListenerTable};
pub use hash::{Ring, hash_key};
pub use inbound::{Admission, Inbound, InboundRule, admit_connection};
pub use limits::{Limits, Room, room};
pub use locality::{Group, Tier, candidates, tiers};
pub use outbound::{BackendState, Known, Loaded, Outbound, ReadyBackend};
pub use policy::{CompiledPolicy, PolicySet};
pub use retry::{AttemptOutcome, NoRetry, Retry, is_idempotent, pause, retry};
pub use route::{Distribution, FaultOutcome, Forward, HttpTable, RouteOutcome, fault, is_sampled, route};
pub use services::PortTable;
pub use tables::{Change, Tables, WhoAmI};
pub use tcp::{TcpFacts, TcpOutcome, TcpTable, route_tcp};
pub use trace::{NoTrace, Recorder, Step, Trace};
