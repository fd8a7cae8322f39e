//! The generator of `src/gen`, and the test that what is checked in is what it would write.
//!
//! After a change of the protos: `LENO_REGENERATE=1 cargo nextest run -p leno-xds --test it codegen`.

use std::fs;
use std::path::Path;

const PROTOS: [&str; 3] = [
    "leno/discovery/v1/discovery.proto",
    "leno/identity/v1/identity.proto",
    "leno/replicas/v1/replicas.proto",
];
const GENERATED: [&str; 3] = ["leno.discovery.v1.rs", "leno.identity.v1.rs", "leno.replicas.v1.rs"];

#[test]
fn checked_in_code_is_what_the_protos_say() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = crate_dir.join("src/gen");
    let fresh = tempfile::tempdir().unwrap();
    generate(&crate_dir.join("../../proto"), fresh.path());
    for name in GENERATED {
        let wanted = fs::read_to_string(fresh.path().join(name)).unwrap();
        if std::env::var_os("LENO_REGENERATE").is_some() {
            fs::write(checked_in.join(name), &wanted).unwrap();
        }
        let found = fs::read_to_string(checked_in.join(name)).unwrap_or_default();
        assert!(found == wanted, "src/gen/{name} is stale: regenerate as the head of {} says", file!());
    }
}

fn generate(protos: &Path, out: &Path) {
    let descriptors = protox::compile(PROTOS, [protos]).unwrap();
    tonic_prost_build::configure().out_dir(out).bytes(".").compile_fds(descriptors).unwrap();
}
