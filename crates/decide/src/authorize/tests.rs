//! Istio's rules for authorization, sentence by sentence, and the laws that follow from them.

use std::{net::IpAddr, sync::Arc};

use leno_model::{
    AuthorizationPolicy, Condition, ConditionValue, Operation, PathMatch, PolicyRule, Source, StringMatch,
};
use proptest::prelude::*;

use super::*;
use crate::{
    facts::{Headers, NoHeaders},
    trace::{NoTrace, Recorder},
};

#[test]
fn without_any_policy_everything_is_allowed() {
    assert!(judge(&[], Some("shop/cart"), Some(GET)).is_allow());
    assert!(judge(&[], None, None).is_allow());
}

#[test]
fn an_allow_policy_without_rules_denies_everything() {
    let verdict = judge(&[policy("a", PolicyAction::Allow, vec![])], Some("shop/cart"), Some(GET));
    assert_eq!(verdict, Verdict::Deny { by: DenyReason::NothingAllows(None) });
}

#[test]
fn deny_wins_over_allow_and_names_its_rule() {
    let deny = rule(None, methods(&["GET"]));
    let policies = [
        policy("a", PolicyAction::Allow, vec![PolicyRule::default()]),
        policy("d", PolicyAction::Deny, vec![deny]),
    ];
    let Verdict::Deny { by } = judge(&policies, Some("shop/cart"), Some(GET)) else { panic!("allowed") };
    assert_eq!((by.policy(), by.rule()), (Some("ns/d"), Some(0)));
    assert!(judge(&policies, Some("shop/cart"), Some(("POST", "/"))).is_allow());
}

#[test]
fn a_withheld_policy_denies_whatever_it_selects() {
    let mut withheld = policy("a", PolicyAction::Allow, vec![PolicyRule::default()]);
    withheld.withheld = Some("it asks for tokens".into());
    let Verdict::Deny { by } = judge(&[withheld], Some("shop/cart"), Some(GET)) else { panic!("allowed") };
    assert!(by.to_string().contains("it asks for tokens"), "{by}");
}

#[test]
fn a_policy_that_does_not_compile_denies() {
    let bad = Operation { methods: vec![StringMatch::Regex("(".into())], ..Operation::default() };
    let policies = [policy("a", PolicyAction::Allow, vec![rule(None, Some(bad)), PolicyRule::default()])];
    assert!(!judge(&policies, Some("shop/cart"), Some(GET)).is_allow());
}

#[test]
fn a_policy_that_is_named_and_not_there_denies() {
    let set = PolicySet::build(&["ns/gone".into()], &std::collections::BTreeMap::new());
    let verdict = authorize(&set, &connection(None), None, &mut NoTrace);
    assert_eq!(verdict, Verdict::Deny { by: DenyReason::Missing("ns/gone".into()) });
}

#[test]
fn a_caller_without_identity_matches_no_principal_and_every_not_principal() {
    let any = Source { principals: vec![StringMatch::Present], ..Source::default() };
    let allow = [policy("a", PolicyAction::Allow, vec![rule(Some(any), None)])];
    assert!(!judge(&allow, None, Some(GET)).is_allow());
    assert!(judge(&allow, Some("shop/cart"), Some(GET)).is_allow());
    // The usual "deny what has no identity": DENY notPrincipals ["*"].
    let nobody = Source { not_principals: vec![StringMatch::Present], ..Source::default() };
    let deny = [policy("d", PolicyAction::Deny, vec![rule(Some(nobody), None)])];
    assert!(!judge(&deny, None, Some(GET)).is_allow());
    assert!(judge(&deny, Some("shop/cart"), Some(GET)).is_allow());
}

#[test]
fn principals_namespaces_and_accounts_are_those_of_the_verified_identity() {
    let cases = [
        (Source { principals: exact("cluster.local/ns/shop/sa/cart"), ..Source::default() }, true),
        (Source { principals: exact("spiffe://cluster.local/ns/shop/sa/cart"), ..Source::default() }, false),
        (Source { namespaces: exact("shop"), ..Source::default() }, true),
        (Source { namespaces: exact("web"), ..Source::default() }, false),
        (Source { service_accounts: exact("shop/cart"), ..Source::default() }, true),
        (Source { not_service_accounts: exact("shop/cart"), ..Source::default() }, false),
        (
            Source {
                namespaces: exact("shop"),
                not_principals: vec![StringMatch::Suffix("/sa/cart".into())],
                ..Source::default()
            },
            false,
        ),
    ];
    for (source, allowed) in cases {
        let policies = [policy("a", PolicyAction::Allow, vec![rule(Some(source.clone()), None)])];
        assert_eq!(judge(&policies, Some("shop/cart"), Some(GET)).is_allow(), allowed, "{source:?}");
    }
}

#[test]
fn a_field_of_http_never_allows_tcp() {
    let policies = [policy("a", PolicyAction::Allow, vec![rule(None, methods(&["GET"]))])];
    assert!(!judge(&policies, Some("shop/cart"), None).is_allow());
    let negative = Operation { not_methods: exact("GET"), ..Operation::default() };
    let policies = [policy("a", PolicyAction::Allow, vec![rule(None, Some(negative))])];
    assert!(!judge(&policies, Some("shop/cart"), None).is_allow());
}

#[test]
fn a_deny_rule_with_a_field_of_http_denies_tcp_on_the_ports_it_names() {
    let on = |port| Operation { ports: vec![port], methods: exact("GET"), ..Operation::default() };
    let here = [policy("d", PolicyAction::Deny, vec![rule(None, Some(on(8080)))])];
    let elsewhere = [policy("d", PolicyAction::Deny, vec![rule(None, Some(on(9090)))])];
    assert!(!judge(&here, Some("shop/cart"), None).is_allow());
    assert!(judge(&elsewhere, Some("shop/cart"), None).is_allow());
}

#[test]
fn hosts_match_in_any_case_and_with_or_without_their_port() {
    let host = Operation { hosts: exact("example.com"), ..Operation::default() };
    let set = set(&[policy("d", PolicyAction::Deny, vec![rule(None, Some(host))])]);
    for (authority, denied) in [
        ("example.com", true),
        ("EXAMPLE.com:8080", true),
        ("example.com.", true),
        ("sub.example.com", false),
    ] {
        let request = RequestFacts { authority, ..request(GET) };
        let verdict = authorize(&set, &connection(None), Some(&request), &mut NoTrace);
        assert_eq!(!verdict.is_allow(), denied, "{authority}");
    }
}

#[test]
fn a_path_template_has_one_segment_for_a_star_and_any_for_two() {
    let cases = [
        ("/foo/{*}", "/foo/bar", true),
        ("/foo/{*}", "/foo/bar/baz", false),
        ("/foo/{*}", "/foo/", false),
        ("/foo/{**}/", "/foo/bar/", true),
        ("/foo/{**}/", "/foo/bar", false),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
        ("/a.b/{*}", "/aXb/c", false),
    ];
    for (template, path, allowed) in cases {
        let to = Operation { paths: vec![PathMatch::Template(template.into())], ..Operation::default() };
        let policies = [policy("a", PolicyAction::Allow, vec![rule(None, Some(to))])];
        assert_eq!(judge(&policies, None, Some(("GET", path))).is_allow(), allowed, "{template} {path}");
    }
}

#[test]
fn a_condition_on_a_missing_header_holds_only_in_its_not_form() {
    let condition = |values: Vec<StringMatch>, not: Vec<StringMatch>| Condition {
        key: ConditionKey::RequestHeader("x-tier".into()),
        values: values.into_iter().map(ConditionValue::Text).collect(),
        not_values: not.into_iter().map(ConditionValue::Text).collect(),
        origin: Origin::default(),
    };
    let allows = |condition: Condition, headers: &dyn Headers| {
        let rule = PolicyRule { when: vec![condition], ..PolicyRule::default() };
        let set = set(&[policy("a", PolicyAction::Allow, vec![rule])]);
        let request = RequestFacts { headers, ..request(GET) };
        authorize(&set, &connection(None), Some(&request), &mut NoTrace).is_allow()
    };
    let gold = vec![("x-tier".to_owned(), "gold".to_owned())];
    assert!(allows(condition(exact("gold"), vec![]), &gold));
    assert!(!allows(condition(exact("gold"), vec![]), &NoHeaders));
    assert!(allows(condition(vec![], exact("gold")), &NoHeaders));
    assert!(!allows(condition(vec![], exact("gold")), &gold));
}

#[test]
fn a_regex_deny_cannot_be_passed_with_bytes_that_are_not_text() {
    struct Odd;
    impl Headers for Odd {
        fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
            (name == "x").then_some(Cow::Borrowed(b"evil\xff"))
        }
    }
    let condition = Condition {
        key: ConditionKey::RequestHeader("x".into()),
        values: vec![ConditionValue::Text(StringMatch::Regex("evil.*".into()))],
        not_values: vec![],
        origin: Origin::default(),
    };
    let rule = PolicyRule { when: vec![condition], ..PolicyRule::default() };
    let set = set(&[policy("d", PolicyAction::Deny, vec![rule])]);
    let request = RequestFacts { headers: &Odd, ..request(GET) };
    assert!(!authorize(&set, &connection(None), Some(&request), &mut NoTrace).is_allow());
}

#[test]
fn a_refusal_names_the_nearest_rule_and_the_part_that_did_not_hold() {
    let far = rule(Some(Source { namespaces: exact("web"), ..Source::default() }), None);
    let near = rule(Some(Source { namespaces: exact("shop"), ..Source::default() }), methods(&["PUT"]));
    let set = set(&[policy("a", PolicyAction::Allow, vec![far, near])]);
    let peer = peer("shop/cart");
    let mut trace = Recorder::default();
    let verdict = authorize(&set, &connection(Some(&peer)), Some(&request(GET)), &mut trace);
    let Verdict::Deny { by: DenyReason::NothingAllows(Some(near)) } = verdict else { panic!("{verdict:?}") };
    assert_eq!((near.rule.rule, near.field), (1, "to.operation.methods"));
    assert_eq!(trace.steps.len(), 2);
}

#[test]
fn a_connection_is_settled_when_no_policy_looks_at_requests() {
    let source = Source { namespaces: exact("shop"), ..Source::default() };
    let set = set(&[policy("a", PolicyAction::Allow, vec![rule(Some(source), None)])]);
    let peer = peer("shop/cart");
    assert!(matches!(precheck(&set, &connection(Some(&peer))), Precheck::Fixed(Verdict::Allow { .. })));
    assert!(matches!(precheck(&set, &connection(None)), Precheck::Fixed(Verdict::Deny { .. })));
}

proptest! {
    /// "If there are any DENY policies that match the request, deny it": another one never permits more.
    #[test]
    fn another_deny_policy_never_allows_more(
        policies in policies(), more in rules(), peer in peers(), request in requests(), http in any::<bool>(),
    ) {
        let request = http.then_some(request.as_str_pair());
        let before = judge(&policies, peer.as_deref(), request);
        let mut after = policies.clone();
        after.push(policy("more", PolicyAction::Deny, more));
        if !before.is_allow() {
            prop_assert!(!judge(&after, peer.as_deref(), request).is_allow());
        }
    }

    /// Once there is an ALLOW policy, another rule of ALLOW never refuses what was permitted.
    #[test]
    fn another_allow_rule_never_denies_what_was_allowed(
        policies in policies(), more in rules(), peer in peers(), request in requests(), http in any::<bool>(),
    ) {
        let request = http.then_some(request.as_str_pair());
        let mut before = policies.clone();
        before.push(policy("base", PolicyAction::Allow, vec![]));
        let mut after = before.clone();
        after.push(policy("more", PolicyAction::Allow, more));
        if judge(&before, peer.as_deref(), request).is_allow() {
            prop_assert!(judge(&after, peer.as_deref(), request).is_allow());
        }
    }

    #[test]
    fn judging_the_connection_first_changes_no_verdict(
        policies in policies(), peer in peers(), first in requests(), remote in any::<bool>(),
    ) {
        let set = set(&policies);
        let id = peer.as_deref().map(super::tests::peer);
        let connection = connection(id.as_ref());
        let mut request = request(first.as_str_pair());
        request.remote_ip = remote.then(|| IpAddr::from([192, 0, 2, 1]));
        let whole = authorize(&set, &connection, Some(&request), &mut NoTrace);
        let checked = precheck(&set, &connection);
        let split = checked.request(&set, &connection, &request, &mut NoTrace);
        prop_assert_eq!(whole.is_allow(), split.is_allow());
    }

    #[test]
    fn a_trace_changes_no_verdict(policies in policies(), peer in peers(), request in requests()) {
        let set = set(&policies);
        let id = peer.as_deref().map(super::tests::peer);
        let facts = super::tests::request(request.as_str_pair());
        let plain = authorize(&set, &connection(id.as_ref()), Some(&facts), &mut NoTrace);
        let traced = authorize(&set, &connection(id.as_ref()), Some(&facts), &mut Recorder::default());
        prop_assert_eq!(plain, traced);
    }
}

const GET: (&str, &str) = ("GET", "/");

#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
}

impl Asked {
    fn as_str_pair(&self) -> (&str, &str) {
        (&self.method, &self.path)
    }
}

fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let one = (any::<bool>(), rules()).prop_map(|(deny, rules)| {
        policy("p", if deny { PolicyAction::Deny } else { PolicyAction::Allow }, rules)
    });
    proptest::collection::vec(one, 0..4)
}

fn rules() -> impl Strategy<Value = Vec<PolicyRule>> {
    let names = || proptest::collection::vec(prop_oneof![Just("shop"), Just("web")], 0..2);
    let words = || proptest::collection::vec(prop_oneof![Just("GET"), Just("POST")], 0..2);
    let source =
        (names(), names(), any::<bool>(), any::<bool>()).prop_map(|(any, none, principal, remote)| Source {
            namespaces: all_exact(&any),
            not_namespaces: all_exact(&none),
            principals: if principal { vec![StringMatch::Present] } else { vec![] },
            remote_ip_blocks: if remote {
                vec![leno_model::IpBlock("192.0.2.0/24".parse().unwrap())]
            } else {
                vec![]
            },
            ..Source::default()
        });
    let operation = (words(), words(), proptest::option::of(prop_oneof![Just(8080_u16), Just(9090)]))
        .prop_map(|(any, none, port)| Operation {
            methods: all_exact(&any),
            not_methods: all_exact(&none),
            ports: port.into_iter().collect(),
            ..Operation::default()
        });
    let rule = (proptest::collection::vec(source, 0..3), proptest::collection::vec(operation, 0..3))
        .prop_map(|(from, to)| PolicyRule { from, to, ..PolicyRule::default() });
    proptest::collection::vec(rule, 0..3)
}

fn peers() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![Just("shop/cart".to_owned()), Just("web/front".to_owned())])
}

fn requests() -> impl Strategy<Value = Asked> {
    (prop_oneof![Just("GET"), Just("POST"), Just("PUT")], prop_oneof![Just("/"), Just("/a")])
        .prop_map(|(method, path)| Asked { method: method.to_owned(), path: path.to_owned() })
}

fn all_exact(values: &[&str]) -> Vec<StringMatch> {
    values.iter().map(|value| StringMatch::Exact((*value).into())).collect()
}

fn exact(value: &str) -> Vec<StringMatch> {
    all_exact(&[value])
}

fn methods(values: &[&str]) -> Option<Operation> {
    Some(Operation { methods: all_exact(values), ..Operation::default() })
}

fn rule(from: Option<Source>, to: Option<Operation>) -> PolicyRule {
    PolicyRule { from: from.into_iter().collect(), to: to.into_iter().collect(), ..PolicyRule::default() }
}

fn policy(name: &str, action: PolicyAction, rules: Vec<PolicyRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        id: format!("ns/{name}").into(),
        origin: Origin::default(),
        action,
        rules,
        withheld: None,
    }
}

fn set(policies: &[AuthorizationPolicy]) -> PolicySet {
    PolicySet::of(policies.iter().cloned().map(Arc::new))
}

fn peer(account: &str) -> SpiffeId {
    let (namespace, name) = account.split_once('/').unwrap();
    SpiffeId::workload(&leno_model::TrustDomain::default(), namespace, name).unwrap()
}

fn connection(peer: Option<&SpiffeId>) -> ConnectionFacts<'_> {
    ConnectionFacts {
        peer,
        source_ip: IpAddr::from([10, 0, 0, 1]),
        remote_ip: IpAddr::from([10, 0, 0, 1]),
        destination_ip: IpAddr::from([10, 0, 0, 2]),
        destination_port: 8080,
        sni: None,
    }
}

fn request<'r>((method, path): (&'r str, &'r str)) -> RequestFacts<'r> {
    RequestFacts {
        method,
        path,
        query: None,
        scheme: "http",
        authority: "cart",
        headers: &NoHeaders,
        remote_ip: None,
    }
}

fn judge(policies: &[AuthorizationPolicy], caller: Option<&str>, asked: Option<(&str, &str)>) -> Verdict {
    let id = caller.map(peer);
    let request = asked.map(request);
    authorize(&set(policies), &connection(id.as_ref()), request.as_ref(), &mut NoTrace)
}
