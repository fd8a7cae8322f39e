//! Certificates: by a token that is a file, as in a pod, and again and again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use leno_model::Millis;
use leno_proxy::{JoinToken, bootstrap::Roots};
use serde_json::Value;

use crate::rig::{Rig, admin, until};

/// The end of a pod's certificate, in seconds since 1970.
async fn not_after(pod: &str) -> u64 {
    let page: Value = serde_json::from_str(&admin(pod, "/certs").await).unwrap();
    page["not_after"].as_u64().unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ran_out_is_replaced_by_the_token_that_is_in_the_file_then() {
    let mut rig = Rig::start("", 1).await;
    let token = rig.folder.path().join("token");
    std::fs::write(&token, "token of web-0\n").unwrap();
    let mut bootstrap = rig.bootstrap("web-0");
    bootstrap.certificate_ttl = Millis(3000);
    bootstrap.roots = Roots::File { file: rig.roots_file() };
    let _proxy = rig.proxy_with(bootstrap, JoinToken::File(token.clone())).await;
    let first = not_after("web-0").await;
    until("it is renewed, though the token was used", async || not_after("web-0").await > first).await;
    rig.stop_control().await;
    let last = not_after("web-0").await;
    until("it has run out", async || now() > last + 1).await;
    std::fs::write(&token, "the kubelet's next token\n").unwrap();
    rig.add_token("the kubelet's next token", "web-0");
    rig.start_control().await;
    until("there is a new one", async || not_after("web-0").await > now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_shortest_life_are_renewed_and_not_without_a_pause() {
    let mut rig = Rig::start("", 1).await;
    rig.certificate_ttl = Millis(1000);
    let _proxy = rig.proxy("web-0").await;
    let began = Instant::now();
    let mut serials = BTreeSet::new();
    while began.elapsed() < Duration::from_secs(3) || serials.len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "{serials:?}");
        let page: Value = serde_json::from_str(&admin("web-0", "/certs").await).unwrap();
        serials.insert(page["serial"].to_string());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One at the start, one in progress, and one for each half second.
    let most = 2 + began.elapsed().as_millis() / 500;
    assert!(serials.len() as u128 <= most, "{} in {:?}", serials.len(), began.elapsed());
}
