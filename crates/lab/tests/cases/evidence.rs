//! What proxies say of themselves: who refused and why, what they count, what they were given.
//!
//! Must not know: what a case expects.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use leno_analyze::cases::ObservedDenial;
use leno_lab::mesh::api;
use leno_model::Destination;
use leno_proxy::bootstrap::ADMIN_PORT;
use serde_json::Value;

use crate::rig::Rig;

/// How long a line may take to be in the log.
const LOGGED: Duration = Duration::from_secs(5);

fn admin(proxy: IpAddr) -> SocketAddr {
    SocketAddr::new(proxy, ADMIN_PORT)
}

/// A denial, as the proxy that made it recorded it; its access log must say the same.
pub(crate) async fn denial(rig: &Rig, id: &str) -> Option<ObservedDenial> {
    for proxy in rig.proxies() {
        let Ok(record) = api::get_json(admin(proxy), &format!("/denials/{id}")).await else { continue };
        let recorded = of_record(&record);
        let logged = lines(rig, proxy, 1, |line| line["denial_id"] == id).await;
        let details =
            logged.first().and_then(|line| line["response_code_details"].as_str().map(str::to_owned));
        let wanted = format!("rbac_access_denied_matched_policy[{}]", matched(&recorded));
        if details.as_ref() != Some(&wanted) {
            let policy = Some(format!("{recorded:?}, and {details:?} in the log"));
            return Some(ObservedDenial { policy, rule: None });
        }
        return Some(recorded);
    }
    None
}

/// The first denial that any proxy made since then.
pub(crate) async fn denial_since(rig: &Rig, since: u64) -> Option<ObservedDenial> {
    for proxy in rig.proxies() {
        let records = api::get_json(admin(proxy), "/denials").await.unwrap();
        let mut new = records.as_array().unwrap().iter();
        if let Some(record) = new.find(|record| record["at_millis"].as_u64() >= Some(since)) {
            return Some(of_record(record));
        }
    }
    None
}

fn of_record(record: &Value) -> ObservedDenial {
    // When nothing allows, the record names the rule that came nearest; it refused nothing.
    let reason = record["reason"].as_str().unwrap();
    if reason.starts_with("no ALLOW policy matches") || reason.starts_with("there are ALLOW policies") {
        return ObservedDenial { policy: None, rule: None };
    }
    ObservedDenial {
        policy: record["policy"].as_str().map(str::to_owned),
        rule: record["rule"].as_u64().map(|rule| u32::try_from(rule).unwrap()),
    }
}

/// Istio's name of what refused.
fn matched(denial: &ObservedDenial) -> String {
    let Some((namespace, name)) = denial.policy.as_deref().and_then(|policy| policy.split_once('/')) else {
        return "none".to_owned();
    };
    let rule = denial.rule.map(|rule| format!("-rule[{rule}]")).unwrap_or_default();
    format!("ns[{namespace}]-policy[{name}]{rule}")
}

/// What a proxy logged about a path; at least so many lines are waited for.
pub(crate) async fn lines_about(rig: &Rig, proxy: IpAddr, path: &str, least: usize) -> Vec<Value> {
    lines(rig, proxy, least, |line| line["path"] == path).await
}

async fn lines(rig: &Rig, proxy: IpAddr, least: usize, is: impl Fn(&Value) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + LOGGED;
    loop {
        let text = std::fs::read_to_string(rig.log(proxy)).unwrap_or_default();
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = all.filter(&is).collect();
        if found.len() >= least || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Now, as records of denials have it.
pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// What all proxies have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// Plaintext connections that were refused.
    pub(crate) plaintext_refused: f64,
    /// TCP connections that servers took, over mTLS and without.
    pub(crate) tcp_mtls: f64,
    pub(crate) tcp_plain: f64,
}

impl Counted {
    pub(crate) async fn of(rig: &Rig) -> Self {
        let mut counted = Self::default();
        for proxy in rig.proxies() {
            let page = api::get(admin(proxy), "/stats/prometheus").await.unwrap();
            let page = String::from_utf8_lossy(&page).into_owned();
            for line in page.lines() {
                let Some((name, value)) = line.rsplit_once(' ') else { continue };
                let value: f64 = value.parse().unwrap_or(0.0);
                if name.starts_with("leno_plaintext_refused_total") {
                    counted.plaintext_refused += value;
                }
                let tcp = name.starts_with("istio_tcp_connections_opened_total");
                if tcp && name.contains("reporter=\"destination\"") {
                    let mtls = name.contains("connection_security_policy=\"mutual_tls\"");
                    *(if mtls { &mut counted.tcp_mtls } else { &mut counted.tcp_plain }) += value;
                }
            }
        }
        counted
    }
}

/// The destination of a service, as a proxy has it.
pub(crate) async fn destination(proxy: IpAddr, host: &str) -> Option<Destination> {
    let dump = api::get_json(admin(proxy), "/config_dump").await.unwrap();
    let loaded = dump["loaded"].as_array()?.iter().map(|loaded| &loaded["destination"]);
    let found = loaded.filter_map(|it| serde_json::from_value::<Destination>(it.clone()).ok());
    found.into_iter().find(|destination| destination.service.host.as_str() == host)
}
