//! Authorization policies.

use leno_model::{ConditionKey, PathMatch, PolicyAction, StringMatch};

use super::*;

fn policy(compiled: &Compiled, id: &str) -> Arc<leno_model::AuthorizationPolicy> {
    match &compiled.resources[&ResourceKey::policy(id)] {
        Resource::Policy(found) => found.clone(),
        _ => unreachable!(),
    }
}

fn with_policy(spec: &str) -> Compiled {
    let yaml = format!(
        "{}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: shop}}
spec: {spec}
",
        application("shop", "cart") + &application("shop", "web")
    );
    compile(&World::of(partly_refused(&yaml)), &MeshSettings::default(), &[])
}

#[test]
fn a_policy_selects_by_labels_and_keeps_its_forms() {
    let compiled = with_policy(
        "{selector: {matchLabels: {app: cart}}, rules: [{from: [{source: {principals: ['*/sa/web'], namespaces: ['sh*'], serviceAccounts: [web]}}], \
         to: [{operation: {hosts: [CART], methods: [GET], paths: ['/a*', '/b/{*}/c'], ports: ['8080']}}], when: [{key: 'request.headers[X-User]', values: ['*']}]}]}",
    );
    assert_eq!(*workload(&compiled, "shop", "cart-0").policies, ["shop/p".into()]);
    assert!(workload(&compiled, "shop", "web-0").policies.is_empty());
    let policy = policy(&compiled, "shop/p");
    assert_eq!((policy.action, &policy.withheld), (PolicyAction::Allow, &None));
    let rule = &policy.rules[0];
    assert_eq!(rule.from[0].principals, [StringMatch::Suffix("/sa/web".into())]);
    assert_eq!(rule.from[0].namespaces, [StringMatch::Prefix("sh".into())]);
    assert_eq!(rule.from[0].service_accounts, [StringMatch::Exact("shop/web".into())]);
    assert_eq!(rule.to[0].hosts, [StringMatch::Exact("cart".into())]);
    assert_eq!(rule.to[0].paths, [PathMatch::Prefix("/a".into()), PathMatch::Template("/b/{*}/c".into())]);
    assert_eq!(rule.when[0].key, ConditionKey::RequestHeader("x-user".into()));
}

#[test]
fn what_cannot_be_honoured_is_withheld_and_denies() {
    for spec in [
        "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
        "{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}",
        "{rules: [{when: [{key: 'request.auth.claims[iss]', values: [a]}]}]}",
        "{rules: [{when: [{key: 'experimental.envoy.filters.x[y]', values: [a]}]}]}",
        "{rules: [{to: [{operation: {ports: ['http']}}]}]}",
        "{rules: [{from: [{source: {ipBlocks: ['10.0.0']}}]}]}",
        "{rules: [{to: [{operation: {paths: ['/a/{x}']}}]}]}",
        "{rules: [{to: [{operation: {pahts: ['/a']}}]}]}",
    ] {
        let compiled = with_policy(spec);
        let policy = policy(&compiled, "shop/p");
        assert!(policy.withheld.is_some(), "{spec}");
        assert_eq!(workload(&compiled, "shop", "cart-0").policies.len(), 1, "{spec}");
        assert!(codes(&compiled).contains(&crate::codes::POLICY_WITHHELD), "{spec}");
    }
}

#[test]
fn a_policy_whose_selector_cannot_be_read_denies_its_namespace() {
    let compiled = with_policy("{selector: {matchLabels: 3}, rules: [{}]}");
    assert!(policy(&compiled, "shop/p").withheld.is_some());
    for pod in ["cart-0", "web-0"] {
        assert_eq!(workload(&compiled, "shop", pod).policies.len(), 1);
    }
}

#[test]
fn audit_allows_and_denies_nothing() {
    let compiled = with_policy("{action: AUDIT, rules: [{}]}");
    assert!(workload(&compiled, "shop", "cart-0").policies.is_empty());
    assert!(!compiled.resources.contains_key(&ResourceKey::policy("shop/p")));
    assert_eq!(codes(&compiled), [crate::codes::POLICY_WITHOUT_EFFECT]);
}

#[test]
fn a_policy_may_target_a_service() {
    let compiled =
        with_policy("{targetRefs: [{kind: Service, name: web, group: ''}], action: DENY, rules: [{}]}");
    assert!(workload(&compiled, "shop", "cart-0").policies.is_empty());
    assert_eq!(*workload(&compiled, "shop", "web-0").policies, ["shop/p".into()]);
}

#[test]
fn a_policy_of_the_root_namespace_selects_everywhere() {
    for root in ["istio-system", "leno-system"] {
        let yaml = application("shop", "cart")
            + &format!(
                "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: deny-all, namespace: {root}}}
spec: {{}}
"
            );
        let compiled = compiled(&yaml);
        assert_eq!(*workload(&compiled, "shop", "cart-0").policies, [format!("{root}/deny-all").into()]);
        assert!(policy(&compiled, &format!("{root}/deny-all")).rules.is_empty());
        let own = compiled.own(&WorkloadId::new("shop", "cart-0")).unwrap();
        assert_eq!(own.len(), 2);
    }
}
