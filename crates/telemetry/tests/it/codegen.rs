//! The generator of `src/gen`, and the test that what is checked in is what it would write.
//!
//! After a change of the protos: `LENO_REGENERATE=1 cargo nextest run -p leno-telemetry --test it codegen`.

use std::{fs, path::Path};

const PROTOS: [&str; 1] = ["opentelemetry/proto/collector/trace/v1/trace_service.proto"];
const GENERATED: [&str; 4] = [
    "opentelemetry.proto.collector.trace.v1.rs",
    "opentelemetry.proto.common.v1.rs",
    "opentelemetry.proto.resource.v1.rs",
    "opentelemetry.proto.trace.v1.rs",
];

#[test]
fn checked_in_code_is_what_the_protos_say() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = crate_dir.join("src/gen");
    let fresh = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(PROTOS, [crate_dir.join("../../proto")]).unwrap();
    tonic_prost_build::configure().out_dir(fresh.path()).bytes(".").compile_fds(descriptors).unwrap();
    for name in GENERATED {
        let wanted = fs::read_to_string(fresh.path().join(name)).unwrap();
        if std::env::var_os("LENO_REGENERATE").is_some() {
            fs::write(checked_in.join(name), &wanted).unwrap();
        }
        let found = fs::read_to_string(checked_in.join(name)).unwrap_or_default();
        assert!(found == wanted, "src/gen/{name} is stale: regenerate as the head of {} says", file!());
    }
}
