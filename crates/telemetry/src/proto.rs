//! Generated OTLP messages and service; the generator is `tests/it/codegen.rs`.
//!
//! Must not be edited by hand: a test compares it with the protos in `proto/opentelemetry`. The nesting is the
//! packages', because the messages refer to each other by it.

/// `opentelemetry.proto.collector`.
pub mod collector {
    /// `opentelemetry.proto.collector.trace`.
    pub mod trace {
        /// `opentelemetry.proto.collector.trace.v1`.
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
        pub mod v1 {
            include!("gen/opentelemetry.proto.collector.trace.v1.rs");
        }
    }
}

/// `opentelemetry.proto.common`.
pub mod common {
    /// `opentelemetry.proto.common.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    pub mod v1 {
        include!("gen/opentelemetry.proto.common.v1.rs");
    }
}

/// `opentelemetry.proto.resource`.
pub mod resource {
    /// `opentelemetry.proto.resource.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    pub mod v1 {
        include!("gen/opentelemetry.proto.resource.v1.rs");
    }
}

/// `opentelemetry.proto.trace`.
pub mod trace {
    /// `opentelemetry.proto.trace.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    pub mod v1 {
        include!("gen/opentelemetry.proto.trace.v1.rs");
    }
}
