//! The mesh with real peers: programs of other people, as clients, servers, Prometheus and collector.
//!
//! ```text
//!   mesh       `leno up --processes` on peers.yaml, and a workload whose place programs take
//!   programs   what tools/debian.txt and tools/requirements.txt install; a missing one fails its test
//!   curl, raw, http2, grpc, websocket, tcp      what is carried, each with its client
//!   slow, outside                               peers that misbehave
//!   prometheus, otlp, access_log, overhead      what one sees
//! ```
//!
//! Every mesh is of processes of its own, so that nothing hides in shared memory; traffic stays on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap")]

mod access_log;
mod curl;
mod grpc;
mod http2;
mod mesh;
mod otlp;
mod outside;
mod overhead;
mod programs;
mod prometheus;
mod raw;
mod slow;
mod tcp;
mod websocket;
