//! The runner itself: what is false is found to be false on the wire.

use std::sync::Arc;

use crate::{documents, rig::Rig, runner};

/// Worlds that do what they say, and expectations that are false: each must fail, for the reason that its name says.
const FALSE: &str = r#"
files: [fixtures/shop.yaml]
from: web/frontend
objects:
  - {apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews, namespace: shop}, spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}
  - apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: reviews, namespace: shop}
    spec:
      hosts: [reviews]
      http:
        - {match: [{uri: {prefix: /split}}], route: [{destination: {host: reviews, subset: v1}, weight: 75}, {destination: {host: reviews, subset: v2}, weight: 25}]}
        - {match: [{uri: {prefix: /rewrite}}], rewrite: {uri: /new}, route: [{destination: {host: reviews, subset: v1}}]}
        - {match: [{uri: {prefix: /redirect}}], redirect: {authority: new.example.com}}
        - {match: [{uri: {prefix: /direct}}], directResponse: {status: 418, body: {string: tea}}}
        - {match: [{uri: {prefix: /headers}}], headers: {request: {set: {x-in: "1"}}, response: {set: {x-out: "1"}}}, route: [{destination: {host: reviews, subset: v1}}]}
        - {match: [{uri: {prefix: /timeout}}], timeout: 300ms, route: [{destination: {host: reviews, subset: v1}}]}
        - {match: [{uri: {prefix: /retry}}], retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: reviews, subset: v1}}]}
        - {match: [{uri: {prefix: /abort}}], fault: {abort: {httpStatus: 400, percentage: {value: 50}}}, route: [{destination: {host: reviews, subset: v1}}]}
        - {match: [{uri: {prefix: /mirror}}], mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 40}, route: [{destination: {host: reviews, subset: v1}}]}
        - {route: [{destination: {host: reviews, subset: v1}}]}
  - apiVersion: security.istio.io/v1
    kind: AuthorizationPolicy
    metadata: {name: ratings, namespace: shop}
    spec: {selector: {matchLabels: {app: ratings}}, action: DENY, rules: [{to: [{operation: {paths: [/never]}}]}, {to: [{operation: {paths: [/denied]}}]}]}
  - {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: echo, namespace: shop}, spec: {selector: {matchLabels: {app: echo}}, mtls: {mode: STRICT}}}
cases:
  - {name: backends, request: "http://reviews.shop:9080/split", expect: {backends: {reviews/v1: 50, reviews/v2: 50}}}
  - {name: backends, request: "http://reviews.shop:9080/split", expect: {backend: reviews/v2}}
  - {name: backends, request: "http://reviews.shop:9080/", expect: {backend: reviews/v2}}
  - {name: backends, request: {tcp: "db.shop:3306"}, expect: {backend: ratings}}
  - {name: status, request: "http://reviews.shop:9080/", expect: {status: 404}}
  - {name: location, request: "http://reviews.shop:9080/redirect", expect: {location: "http://old.example.com/redirect"}}
  - {name: body, request: "http://reviews.shop:9080/direct", expect: {body: coffee}}
  - {name: forwarded.path, request: "http://reviews.shop:9080/rewrite", expect: {forwarded: {path: /rewrite}}}
  - {name: forwarded.host, request: "http://reviews.shop:9080/rewrite", expect: {forwarded: {host: other}}}
  - {name: forwarded.headers.x-in, request: "http://reviews.shop:9080/headers", expect: {forwarded: {headers: {x-in: "2"}}}}
  - {name: response_headers.x-out, request: "http://reviews.shop:9080/headers", expect: {response_headers: {x-out: null}}}
  - {name: timeout, request: "http://reviews.shop:9080/timeout", expect: {timeout: 400ms}}
  - {name: timeout, request: "http://reviews.shop:9080/timeout", expect: {timeout: none}}
  - {name: retries.attempts, request: "http://reviews.shop:9080/retry", expect: {retries: 2}}
  - {name: fault.abort, request: "http://reviews.shop:9080/abort", expect: {fault: {abort: 400, percent: 20}}}
  - {name: fault.abort, request: "http://reviews.shop:9080/abort", expect: {fault: {abort: 500, percent: 50}}}
  - {name: fault.delay, request: "http://reviews.shop:9080/", expect: {fault: {delay: 1s}}}
  - {name: mirror, request: "http://reviews.shop:9080/mirror", expect: {mirror: {reviews/v2: 80}}}
  - {name: mirror, request: "http://reviews.shop:9080/", expect: {mirror: {reviews/v2: 100}}}
  - {name: denied, request: "http://ratings.shop:9080/", expect: {denied: true}}
  - {name: denied.policy, request: "http://ratings.shop:9080/denied", expect: {denied: shop/other}}
  - {name: denied.rule, request: "http://ratings.shop:9080/denied", expect: {denied: {policy: shop/ratings, rule: 0}}}
  - {name: allowed, request: "http://ratings.shop:9080/denied", expect: {allowed: true}}
  - {name: allowed, request: "http://ratings.shop:9080/", expect: {allowed: false}}
  - {name: mtls, request: "http://ratings.shop:9080/", expect: {mtls: false}}
  - {name: mtls, request: {tcp: "db.shop:3306"}, expect: {mtls: false}}
  - {name: mtls, request: {to: shop/ratings, url: "http://ratings.shop:9080/"}, expect: {mtls: true}}
  - {name: plaintext_refused, request: {to: shop/ratings, url: "http://ratings.shop:9080/"}, expect: {plaintext_refused: true}}
  - {name: allowed, request: {to: shop/echo, url: "http://echo.shop:7070/"}, expect: {allowed: true}}
  - {name: no_route, request: "http://reviews.shop:9080/", expect: {no_route: true}}
  - {name: passthrough, request: "http://reviews.shop:9080/", expect: {passthrough: true}}
  - {name: passthrough, request: "http://www.example.com/", expect: {passthrough: false}}
  - {name: protocol, request: "http://reviews.shop:9080/", expect: {protocol: http2}}
  - {name: destination.balancer, request: "http://reviews.shop:9080/", expect: {destination: {balancer: random}}}
  - {name: diagnostics, request: "http://reviews.shop:9080/", expect: {diagnostics: [LN0102]}}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_expectation_fails_on_the_wire_for_what_is_false() {
    let mut rig = Rig::start().await;
    let runs = documents::read("false.yaml", FALSE, &rig.places);
    let results = runner::run(&mut rig, &runs).await;
    assert_eq!(results.unsent, [], "each is sent");
    let mut wanted: Vec<&str> = runs.iter().map(|run| run.case.name.as_str()).collect();
    let mut found: Vec<&str> = results.failures.iter().map(|(name, _)| name.as_str()).collect();
    wanted.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, wanted, "each fails");
    for (name, mismatches) in &results.failures {
        let whats: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.what.as_str()).collect();
        assert!(whats.contains(&name.as_str()), "{name} fails for {whats:?}");
    }
}

/// What `decide` says of this is true; the proxies are given another world.
const TRUE: &str = r#"
files: [fixtures/shop.yaml]
from: web/frontend
objects:
  - {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: reviews, namespace: shop}, spec: {hosts: [reviews], http: [{route: [{destination: {host: ratings, port: {number: 9080}}}]}]}}
cases:
  - {name: backends, request: "http://reviews.shop:9080/", expect: {backend: "ratings:9080"}}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_decide_says_and_proxies_do_not_do_fails() {
    let mut rig = Rig::start().await;
    let mut runs = documents::read("true.yaml", TRUE, &rig.places);
    let held = runner::run(&mut rig, &runs).await;
    assert!(held.failures.is_empty(), "{:?}", held.failures);
    runs[0].world = Arc::new(runs[0].world.base());
    let results = runner::run(&mut rig, &runs).await;
    let whats: Vec<&str> =
        results.failures.iter().flat_map(|(_, all)| all).map(|it| it.what.as_str()).collect();
    assert_eq!(whats, ["backends"]);
}
