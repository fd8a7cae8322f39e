//! The issuing authority: how long it lasts, by the Secret that the control plane takes it from.
//!
//! Invariant: only certificates are looked at, never the key. Whether the control plane has read the Secret since it was changed
//! is not seen here.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use x509_parser::pem::Pem;

use super::{Finding, Look};

/// What a user plugs in, and what is made where nothing is plugged in: the first that is there counts.
const SECRETS: [&str; 2] = ["cacerts", "leno-ca"];
/// Sooner than this it should be replaced: certificates of pods never outlive it.
const SOON: i64 = 30 * 24 * 3600;
const DAY: i64 = 24 * 3600;

/// How long every certificate between the root and the workloads lasts.
pub(super) async fn findings(look: &Look<'_>) -> Vec<Finding> {
    let secrets: Api<Secret> = Api::namespaced(look.client.clone(), &look.names.namespace);
    for name in SECRETS {
        match secrets.get_opt(name).await {
            Ok(Some(secret)) => return vec![judged(name, &secret, look.now)],
            Ok(None) => {}
            Err(error) => return vec![Finding::unseen("authority", &format!("the Secret {name}"), &error)],
        }
    }
    vec![Finding::fail(
        "authority",
        format!("there is no authority: {} has neither a Secret cacerts nor leno-ca", look.names.namespace),
        "the control plane makes leno-ca when it starts: look at its log",
    )]
}

fn judged(name: &str, secret: &Secret, now: i64) -> Finding {
    let data =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |it| it.0.as_slice());
    let certificates =
        ["ca-cert.pem", "cert-chain.pem"].map(data).into_iter().flat_map(Pem::iter_from_buffer);
    let ends = certificates.map(|pem| Some(pem.ok()?.parse_x509().ok()?.validity().not_after.timestamp()));
    let replace =
        "replace it (docs/guide/troubleshooting.md, certificates and clocks) and restart the control plane";
    match ends.collect::<Option<Vec<_>>>().and_then(|ends| ends.into_iter().min()) {
        None => Finding::fail("authority", format!("the Secret {name} holds no usable certificate"), replace),
        Some(end) if end <= now => {
            Finding::fail("authority", format!("the authority in the Secret {name} has ended"), replace)
        }
        Some(end) => {
            let text = format!("the authority in the Secret {name} is valid for {} days", (end - now) / DAY);
            if end - now < SOON {
                Finding::warn("authority", text, replace)
            } else {
                Finding::ok("authority", text)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;
    use crate::check::Level;

    fn certificate(year: i32) -> String {
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn secret(ca: &str, chain: &str) -> Secret {
        let bytes = |(key, text): (&str, &str)| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
        // The root goes on for long, and does not count.
        let data = [("ca-cert.pem", ca), ("cert-chain.pem", chain), ("root-cert.pem", &certificate(2046))];
        Secret { data: Some(data.map(bytes).into_iter().collect::<BTreeMap<_, _>>()), ..Secret::default() }
    }

    #[test]
    fn the_authority_is_judged_by_the_first_end_below_the_root() {
        let (soon, late) = (certificate(2027), certificate(2036));
        let end = 1_798_761_600; // 2027-01-01
        for secret in [secret(&soon, &soon), secret(&soon, &late), secret(&late, &soon), secret(&soon, "")] {
            let level = |now: i64| judged("cacerts", &secret, now).level;
            assert_eq!(level(end - SOON - 1), Level::Ok);
            assert_eq!(level(end - SOON + 1), Level::Warn);
            assert_eq!(level(end), Level::Fail);
        }
        assert_eq!(judged("cacerts", &secret("rubbish", ""), 0).level, Level::Fail);
        assert_eq!(judged("cacerts", &Secret::default(), 0).level, Level::Fail);
    }
}
