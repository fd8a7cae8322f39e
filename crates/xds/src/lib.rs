//! The delta discovery protocol, client and server, as state machines, plus a thin tonic transport.
