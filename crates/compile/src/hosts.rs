//! Host names as users write them, and who may see what (`exportTo`).
//!
//! Invariant: names are compared lower-case; a short name belongs to the namespace of the object that wrote it.

use leno_apis::Spanned;
use leno_model::{Exposure, Namespace};

/// The suffix of Kubernetes services.
pub(crate) const DOMAIN: &str = ".svc.cluster.local";

/// The fully qualified names that a host may mean, the likeliest first.
///
/// `reviews` is `reviews.NAMESPACE.svc.cluster.local`; `reviews.shop` and `reviews.shop.svc` may also be meant literally.
pub(crate) fn meanings(text: &str, namespace: &str) -> Vec<String> {
    let host = text.trim_end_matches('.').to_ascii_lowercase();
    if is_wildcard(&host) || host.parse::<std::net::IpAddr>().is_ok() {
        return vec![host];
    }
    match host.split('.').collect::<Vec<_>>().as_slice() {
        [name] => vec![format!("{name}.{namespace}{DOMAIN}")],
        [name, of] | [name, of, "svc"] => {
            let full = format!("{name}.{of}{DOMAIN}");
            vec![full, host]
        }
        _ => vec![host],
    }
}

/// Whether it is `*` or starts with `*.`.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether a wildcard (`*`, `*.suffix`) or an exact name covers a host.
pub(crate) fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => suffix.is_empty() || (host.len() > suffix.len() && host.ends_with(suffix)),
        None => pattern == host,
    }
}

/// Larger is more specific: an exact name, then longer wildcards.
pub(crate) fn specificity(pattern: &str) -> usize {
    if is_wildcard(pattern) { pattern.len() } else { usize::MAX }
}

/// Who sees what an object of `namespace` says, by its `exportTo`.
pub(crate) fn exposure<'t>(export_to: impl IntoIterator<Item = &'t str>, namespace: &str) -> Exposure {
    let mut only = Vec::new();
    let mut given = false;
    for text in export_to {
        given = true;
        match text {
            "*" => return Exposure::Everywhere,
            "." => only.push(Namespace::from(namespace)),
            "~" => {}
            other => only.push(Namespace::from(other)),
        }
    }
    if !given {
        return Exposure::Everywhere;
    }
    only.sort();
    only.dedup();
    Exposure::Only(only)
}

/// `exportTo` of Istio's kinds.
pub(crate) fn exposure_of(export_to: &[Spanned<String>], namespace: &str) -> Exposure {
    exposure(export_to.iter().map(|text| text.value.as_str()), namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_belongs_to_the_namespace_of_its_object() {
        assert_eq!(meanings("Reviews", "shop"), ["reviews.shop.svc.cluster.local"]);
        assert_eq!(meanings("reviews.web", "shop"), ["reviews.web.svc.cluster.local", "reviews.web"]);
        assert_eq!(meanings("api.example.com", "shop"), ["api.example.com"]);
        assert_eq!(meanings("*.example.com", "shop"), ["*.example.com"]);
    }

    #[test]
    fn a_wildcard_covers_names_below_it_only() {
        assert!(covers("*.example.com", "a.b.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(covers("*", "anything"));
        assert!(specificity("*.a.example.com") > specificity("*.example.com"));
    }

    #[test]
    fn no_export_to_is_everywhere_and_a_tilde_is_nobody() {
        assert_eq!(exposure([], "a"), Exposure::Everywhere);
        assert_eq!(exposure(["~"], "a"), Exposure::Only(vec![]));
        assert_eq!(exposure([".", "b"], "a"), Exposure::Only(vec!["a".into(), "b".into()]));
    }
}
