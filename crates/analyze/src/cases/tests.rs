//! Tests of the module above.

use leno_compile::MeshSettings;

use super::{read, read_sound, run_file};

const WORLD: &str = r#"
objects:
  - {apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}}
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {name: cart, namespace: shop}
    spec:
      selector: {matchLabels: {app: cart}}
      template: {metadata: {labels: {app: cart}}, spec: {containers: [{name: app, image: app, ports: [{containerPort: 80}]}]}}
"#;

fn nothing(name: &str) -> Result<String, String> {
    Err(format!("no {name}"))
}

fn errors(cases: &str) -> Vec<String> {
    let all = read("cases.yaml", cases, &nothing).unwrap_err();
    all.iter().map(ToString::to_string).collect()
}

fn summary(cases: &str) -> super::Summary {
    let file = read("cases.yaml", &format!("{WORLD}{cases}"), &nothing).unwrap();
    run_file(&file, &MeshSettings::default())
}

#[test]
fn a_case_that_holds_passes() {
    let summary = summary(
        "cases: [{name: a, from: shop/cart, request: http://cart/, expect: {backend: cart, status: 200}}]",
    );
    assert_eq!((summary.passed, summary.failed), (1, 0), "{summary}");
}

#[test]
fn a_wrong_expectation_fails_with_what_was_seen_and_why() {
    let summary = summary(
        "
cases:
  - {name: wrong, from: shop/cart, request: http://cart/, expect: {backend: ratings, status: 404, denied: true, mtls: false, timeout: 1s}}
",
    );
    assert_eq!((summary.passed, summary.failed), (0, 1));
    let report = &summary.cases[0];
    let what: Vec<&str> = report.mismatches.iter().map(|mismatch| mismatch.what.as_str()).collect();
    assert_eq!(what, ["backends", "status", "timeout", "denied", "mtls"]);
    assert!(!report.trace.is_empty());
    let text = summary.to_string();
    assert!(text.contains("expected: ratings: 100%") && text.contains("actual:   cart: 100%"), "{text}");
    assert!(serde_json::to_string(&summary).unwrap().contains("\"mismatches\""));
}

#[test]
fn unknown_keys_are_errors_with_their_place() {
    let found = errors(
        "cases:\n  - {name: a, from: shop/cart, request: http://cart/, expect: {backnd: cart, status: 200}}\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("cases.yaml:2:") && found[0].contains("unknown key `backnd`"), "{found:?}");
}

#[test]
fn one_misspelt_expectation_is_one_error_that_says_what_was_meant() {
    for (misspelt, meant) in [("alowed: true", "`allowed`"), ("backedn: cart", "`backend`")] {
        let found = errors(&format!(
            "cases:\n  - {{name: a, from: shop/cart, request: http://cart/, expect: {{{misspelt}}}}}\n"
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(&format!("did you mean {meant}?")), "{found:?}");
    }
    let found =
        errors("cases:\n  - {name: a, from: shop/cart, request: http://cart/, expect: {colour: red}}\n");
    assert!(
        found[0].contains("unknown key `colour`; expected one of backends, backend, status"),
        "{found:?}"
    );
}

#[test]
fn cases_beside_one_that_is_misspelt_are_there_and_those_that_share_a_mistake_are_not() {
    let good = "  - {name: good, from: shop/cart, request: http://cart/, expect: {allowed: true}}\n";
    let odd =
        "  - {name: odd, from: shop/cart, request: http://cart/, expect: {alowed: true, status: 200}}\n";
    let of = |text: &str| {
        let (file, errors) = read_sound("cases.yaml", text, &nothing);
        let names: Vec<String> = file.cases.iter().map(|case| case.name.clone()).collect();
        (names, errors.len())
    };
    assert_eq!(of(&format!("cases:\n{odd}{good}")), (vec!["good".to_owned()], 1));
    for shared in ["files: [missing.yaml]\n", "form: shop/cart\n", "from: nobody\n"] {
        assert_eq!(of(&format!("{shared}cases:\n{good}")), (Vec::new(), 1), "{shared}");
        let other = format!("{shared}cases:\n{good}---\ncases:\n{good}");
        assert_eq!(of(&other), (vec!["good".to_owned()], 1), "another document: {shared}");
    }
}

#[test]
fn a_case_that_expects_nothing_is_an_error() {
    let found = errors("cases:\n  - {name: a, from: shop/cart, request: http://cart/, expect: {}}\n");
    assert!(found.iter().any(|error| error.contains("expects something")), "{found:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_at_its_line() {
    let found = errors("files:\n  - missing.yaml\ncases:\n  - {name: a, expect: {diagnostics: [LN0102]}}\n");
    assert_eq!(found, ["cases.yaml:2:5: `missing.yaml` cannot be read: no missing.yaml"]);
}

#[test]
fn a_request_without_a_caller_is_an_error() {
    let found = errors("cases:\n  - {name: a, request: http://cart/, expect: {status: 200}}\n");
    assert!(found[0].contains("says `from`"), "{found:?}");
}

#[test]
fn a_misspelt_field_of_an_inline_object_fails_the_case_that_does_not_expect_it() {
    let summary = summary(
        "
cases:
  - name: misspelt
    from: shop/cart
    objects:
      - {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: {hosts: [cart], htp: []}}
    request: http://cart/
    expect: {diagnostics: [LN1001]}
",
    );
    assert_eq!(summary.failed, 1);
    assert!(summary.to_string().contains("no error in the case's objects"), "{summary}");
}

#[test]
fn what_cannot_have_happened_is_not_taken_for_what_was_expected() {
    let summary = summary(
        "
cases:
  - {name: passthrough, from: shop/cart, request: http://nowhere.example.com/, expect: {timeout: 1s, retries: 2, mtls: true, forwarded: {headers: {x: y}}}}
",
    );
    let what: Vec<&str> = summary.cases[0].mismatches.iter().map(|mismatch| mismatch.what.as_str()).collect();
    assert_eq!(what, ["forwarded.headers.x", "forwarded", "timeout", "retries", "mtls"]);
}

#[test]
fn servers_that_disagree_are_neither_allowed_nor_denied() {
    let world = "
objects:
  - {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p, namespace: shop}, spec: {selector: {matchLabels: {version: v2}}, action: DENY, rules: [{}]}}
  - {apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {selector: {app: cart}, ports: [{name: http, port: 80}]}}
  - {apiVersion: v1, kind: Pod, metadata: {name: one, namespace: shop, labels: {app: cart, version: v1}}, spec: {containers: []}}
  - {apiVersion: v1, kind: Pod, metadata: {name: two, namespace: shop, labels: {app: cart, version: v2}}, spec: {containers: []}}
cases:
  - {name: allowed, from: shop/one, request: http://cart/, expect: {allowed: true}}
  - {name: denied, from: shop/one, request: http://cart/, expect: {denied: true}}
  - {name: outside, from: outside, request: http://cart.shop/, expect: {allowed: true}}
  - {name: misspelt, from: shop/one, request: http://cat.shop/, expect: {allowed: true}}
";
    let file = read("cases.yaml", world, &nothing).unwrap();
    let summary = run_file(&file, &MeshSettings::default());
    assert_eq!(summary.failed, 4, "{summary}");
    assert!(summary.to_string().contains("others refuse it"), "{summary}");
}

#[test]
fn answers_counted_by_workload_are_told_in_terms_of_the_predicted_backends() {
    let backend = |name: &str, share: f64, owners: &[(&str, f64)]| super::ObservedBackend {
        share,
        names: vec![name.to_owned()],
        owners: owners.iter().map(|(owner, share)| ((*owner).to_owned(), *share)).collect(),
    };
    let predicted =
        [backend("cart/v1", 80.0, &[("one", 80.0)]), backend("cart", 20.0, &[("one", 10.0), ("two", 10.0)])];
    let counts = [("one", 90), ("two", 5), ("stranger", 5)].map(|(owner, count)| (owner.to_owned(), count));
    let seen = super::ObservedBackend::from_counts(&predicted, &counts.into());
    let shares: Vec<(&str, f64)> =
        seen.iter().map(|backend| (backend.names[0].as_str(), backend.share)).collect();
    assert_eq!(shares, [("cart/v1", 80.0), ("cart", 15.0), ("stranger", 5.0)]);
}
