//! The generator of `src/standin/gen`, and the test that what is checked in is what it would write.
//!
//! After a change of the proto: `LENO_REGENERATE=1 cargo nextest run -p leno-lab --test it codegen`.

use std::fs;
use std::path::Path;

use prost::Message;

const PROTO: &str = "leno/standin/v1/echo.proto";
const GENERATED: [&str; 2] = ["leno.standin.v1.rs", "descriptors.bin"];

#[test]
fn checked_in_code_is_what_the_proto_says() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let checked_in = crate_dir.join("src/standin/gen");
    let fresh = tempfile::tempdir().unwrap();
    let descriptors = protox::compile([PROTO], [crate_dir.join("../../proto")]).unwrap();
    fs::write(fresh.path().join("descriptors.bin"), descriptors.encode_to_vec()).unwrap();
    tonic_prost_build::configure().out_dir(fresh.path()).compile_fds(descriptors).unwrap();
    for name in GENERATED {
        let wanted = fs::read(fresh.path().join(name)).unwrap();
        if std::env::var_os("LENO_REGENERATE").is_some() {
            fs::write(checked_in.join(name), &wanted).unwrap();
        }
        let found = fs::read(checked_in.join(name)).unwrap_or_default();
        assert!(
            found == wanted,
            "src/standin/gen/{name} is stale: regenerate as the head of {} says",
            file!()
        );
    }
}
