//! Matching, splitting, rewriting and redirecting, by the specifications' own examples.

use leno_model::{
    AbortWith, BackendTarget, HeaderEdits, HeaderMatch, HeaderTest, HttpEntry, HttpMatch, PathMatch,
    PathRewrite, QueryMatch, Redirect, RedirectPort, RetryPolicy, Rewrite, StringMatch, Weight, WorkloadId,
};
use proptest::prelude::*;

use super::*;
use crate::{facts::NoHeaders, trace::NoTrace};

#[test]
fn a_path_prefix_of_the_gateway_api_is_matched_by_segments() {
    // gateway-api: HTTPPathMatch, "PathPrefix".
    for (prefix, path, matches) in [
        ("/abc", "/abc", true),
        ("/abc", "/abc/", true),
        ("/abc", "/abc/def", true),
        ("/abc", "/abcd", false),
        ("/abc/", "/abc", true),
        ("/abc/", "/abc/def", true),
        ("/", "/anything", true),
        ("/Abc", "/abc", false),
    ] {
        assert_eq!(is_match(PathMatch::SegmentPrefix(prefix.into()), path), matches, "{prefix} {path}");
    }
}

#[test]
fn a_prefix_of_istio_is_matched_by_characters_and_a_regex_by_the_whole_path() {
    assert!(is_match(PathMatch::Prefix("/foo".into()), "/foobar"));
    assert!(is_match(PathMatch::Regex("/v[0-9]+/.*".into()), "/v12/x"));
    assert!(!is_match(PathMatch::Regex("/v[0-9]+".into()), "/v12/x"));
    assert!(!is_match(PathMatch::Regex("/a|/b".into()), "/bc"));
}

#[test]
fn the_first_matching_entry_wins() {
    let first =
        entry(HttpMatch { method: Some(StringMatch::Exact("GET".into())), ..HttpMatch::default() }, 0);
    let table = HttpTable::compile(&HttpRoutes {
        entries: vec![first, entry(HttpMatch::default(), 1)],
        rules: vec![respond(201), respond(202)],
    });
    let table = table.unwrap();
    assert!(matches!(go(&table, &request("/")), RouteOutcome::Respond { status: 201, .. }));
    let post = RequestFacts { method: "POST", ..request("/") };
    assert!(matches!(go(&table, &post), RouteOutcome::Respond { status: 202, .. }));
    assert!(matches!(go(&HttpTable::compile(&HttpRoutes::default()).unwrap(), &post), RouteOutcome::NoRoute));
}

#[test]
fn headers_are_joined_and_an_absent_one_satisfies_only_the_inverse() {
    let test = |invert| HttpMatch {
        headers: vec![HeaderMatch {
            name: "x".into(),
            test: HeaderTest::Value(StringMatch::Exact("a,b".into())),
            invert,
        }],
        ..HttpMatch::default()
    };
    let both = vec![("x".to_owned(), "a".to_owned()), ("x".to_owned(), "b".to_owned())];
    let with = RequestFacts { headers: &both, ..request("/") };
    assert!(matches!(go(&table(test(false)), &with), RouteOutcome::Respond { .. }));
    assert!(matches!(go(&table(test(false)), &request("/")), RouteOutcome::NoRoute));
    assert!(matches!(go(&table(test(true)), &request("/")), RouteOutcome::Respond { .. }));
}

#[test]
fn the_first_of_repeated_query_parameters_counts_and_is_decoded() {
    let test = QueryMatch { name: "q".into(), test: HeaderTest::Value(StringMatch::Exact("a b".into())) };
    let table = table(HttpMatch { query: vec![test], ..HttpMatch::default() });
    let asked = |query| go_query(&table, query);
    assert!(asked("z=1&q=a%20b&q=c"));
    assert!(!asked("q=c&q=a%20b"));
    assert!(!asked("qq=a%20b"));
}

#[test]
fn replaced_prefixes_follow_the_table_of_the_gateway_api() {
    // gateway-api: HTTPPathModifier.replacePrefixMatch.
    for (path, prefix, replacement, changed) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
    ] {
        let rewrite = PathRewrite::SegmentPrefix(replacement.into());
        let result = rewritten(Some(PathMatch::SegmentPrefix(prefix.into())), rewrite, path);
        assert_eq!(result, changed, "{path} {prefix} {replacement:?}");
    }
}

#[test]
fn rewrites_of_istio_replace_bytes_whole_paths_or_patterns() {
    let prefix = |to: &str| PathRewrite::Prefix(to.into());
    assert_eq!(rewritten(Some(PathMatch::Prefix("/foo".into())), prefix("/bar"), "/foobar"), "/barbar");
    assert_eq!(rewritten(Some(PathMatch::Exact("/foo".into())), prefix("/bar"), "/foo"), "/bar");
    assert_eq!(rewritten(None, prefix("/v1/"), "/foo"), "/v1/foo");
    let regex = PathRewrite::Regex { pattern: "/user/([a-z]+)".into(), substitution: r"/u/\1$".into() };
    assert_eq!(rewritten(None, regex, "/user/ann/x"), "/u/ann$/x");
}

#[test]
fn a_redirect_leaves_out_well_known_ports_and_keeps_the_query() {
    let to = |scheme: Option<&str>, host: Option<&str>, port, path: Option<&str>| Redirect {
        scheme: scheme.map(Into::into),
        host: host.map(Into::into),
        port,
        path: path.map(|path| PathRewrite::Full(path.into())),
        status: 302,
    };
    let derived = RedirectPort::Derived;
    for (redirect, listener, location) in [
        (to(Some("https"), None, derived, None), 8080, "https://shop.example/a?x=1"),
        (to(None, Some("other.example"), derived, None), 8080, "http://other.example:8080/a?x=1"),
        (to(None, Some("other.example"), derived, None), 80, "http://other.example/a?x=1"),
        (to(None, None, RedirectPort::Port(8443), None), 80, "http://shop.example:8443/a?x=1"),
        (to(Some("https"), None, RedirectPort::Port(443), Some("/b")), 80, "https://shop.example/b?x=1"),
        (to(None, None, RedirectPort::FromRequest, None), 80, "http://shop.example:8080/a?x=1"),
        (to(Some("https"), None, RedirectPort::ProtocolDefault, None), 80, "https://shop.example/a?x=1"),
    ] {
        let table = HttpTable::compile(&HttpRoutes {
            entries: vec![entry(HttpMatch::default(), 0)],
            rules: vec![rule(Action::Redirect(redirect.clone()))],
        });
        let request = RequestFacts { query: Some("x=1"), authority: "shop.example:8080", ..request("/a") };
        match route(&table.unwrap(), &me(), &request, listener, &mut NoTrace) {
            RouteOutcome::Redirect { location: found, .. } => assert_eq!(found, location, "{redirect:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_backend_or_no_weight_is_500() {
    for backends in [vec![], vec![backend(0)]] {
        let table = HttpTable::compile(&HttpRoutes {
            entries: vec![entry(HttpMatch::default(), 0)],
            rules: vec![rule(Action::Forward(backends))],
        });
        assert!(matches!(go(&table.unwrap(), &request("/")), RouteOutcome::Fail { status: 500, .. }));
    }
}

#[test]
fn a_fault_delays_and_aborts_by_independent_rolls() {
    let both = Fault {
        delay: Some((Percent::from_percent(50.0), Millis(10))),
        abort: Some((Percent::from_percent(50.0), AbortWith::Http(503))),
    };
    let half = u64::MAX / 2 + 1;
    assert_eq!(fault(&both, 0, half), FaultOutcome { delay: Some(Millis(10)), abort: None });
    assert_eq!(fault(&both, half, 0), FaultOutcome { delay: None, abort: Some(AbortWith::Http(503)) });
    assert!(!is_sampled(Percent::NONE, 0));
    assert!(is_sampled(Percent::ALL, u64::MAX));
}

proptest! {
    #[test]
    fn shares_sum_to_one_and_weight_zero_is_never_picked(
        weights in proptest::collection::vec(0_u32..100, 1..6), roll: u64,
    ) {
        let backends: Vec<Backend> = weights.iter().map(|weight| backend(*weight)).collect();
        match Distribution::of(&backends) {
            None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            Some(distribution) => {
                let sum: f64 = distribution.shares().map(|(_, share)| share).sum();
                prop_assert!((sum - 1.0).abs() < 1e-9);
                prop_assert!(distribution.pick(roll).is_some_and(|backend| backend.weight.0 > 0));
            }
        }
    }

    #[test]
    fn a_rewritten_path_is_absolute(path in "/[a-z/]{0,12}", to in "[a-z/]{0,6}") {
        for rewrite in [PathRewrite::SegmentPrefix(to.as_str().into()), PathRewrite::Prefix(to.as_str().into()), PathRewrite::Full(to.as_str().into())] {
            prop_assert!(rewritten(None, rewrite, &path).starts_with('/'));
        }
    }
}

#[test]
fn every_part_of_a_split_is_hit_in_proportion() {
    let backends = [backend(1), backend(3)];
    let distribution = Distribution::of(&backends).unwrap();
    let step = u64::MAX / 400;
    let first = (0..400_u64).filter(|n| distribution.pick(n * step).unwrap().weight.0 == 1).count();
    assert!((99..=101).contains(&first), "{first}");
}

fn rewritten(matched: Option<PathMatch>, to: PathRewrite, path: &str) -> String {
    let mut forward = rule(Action::Forward(vec![backend(1)]));
    forward.rewrite = Rewrite { path: Some(to), authority: None };
    let matcher = HttpMatch { path: matched, ..HttpMatch::default() };
    let routes = HttpRoutes { entries: vec![entry(matcher, 0)], rules: vec![forward] };
    match go(&HttpTable::compile(&routes).unwrap(), &request(path)) {
        RouteOutcome::Forward(forward) => forward.path(path).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn is_match(path: PathMatch, asked: &str) -> bool {
    let table = table(HttpMatch { path: Some(path), ..HttpMatch::default() });
    matches!(go(&table, &request(asked)), RouteOutcome::Respond { .. })
}

fn go_query(table: &HttpTable, query: &str) -> bool {
    let request = RequestFacts { query: Some(query), ..request("/") };
    matches!(go(table, &request), RouteOutcome::Respond { .. })
}

fn table(matcher: HttpMatch) -> HttpTable {
    HttpTable::compile(&HttpRoutes { entries: vec![entry(matcher, 0)], rules: vec![respond(200)] }).unwrap()
}

fn go<'t>(table: &'t HttpTable, request: &RequestFacts<'_>) -> RouteOutcome<'t> {
    route(table, &me(), request, 80, &mut NoTrace)
}

fn me() -> WhoAmI {
    WhoAmI::new(WorkloadId::new("web", "front-1"))
}

fn request(path: &str) -> RequestFacts<'_> {
    RequestFacts {
        method: "GET",
        path,
        query: None,
        scheme: "http",
        authority: "shop.example",
        headers: &NoHeaders,
        remote_ip: None,
    }
}

fn entry(matcher: HttpMatch, rule: u32) -> HttpEntry {
    HttpEntry { matcher, rule, origin: Origin::default() }
}

fn respond(status: u16) -> HttpRule {
    rule(Action::Respond { status, body: "".into() })
}

fn rule(action: Action) -> HttpRule {
    HttpRule {
        name: "".into(),
        origin: Origin::default(),
        action,
        rewrite: Rewrite::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        retry: RetryPolicy::safe(),
        fault: None,
        mirrors: vec![],
    }
}

fn backend(weight: u32) -> Backend {
    Backend {
        weight: Weight(weight),
        target: BackendTarget::Unresolved { status: 500, reason: "".into() },
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        timeout: None,
        origin: Origin::default(),
    }
}
