//! The control plane's metrics in Prometheus' text form: the names that Istio's dashboards read, and our own.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use leno_model::Resource;
use leno_xds::transport::Sent;

use super::{Api, status};
use crate::{clock::now, published::Published, rollout};

/// `/metrics`
pub(super) fn text(api: &Api, published: Option<&Published>) -> String {
    let mut page = Page(String::new());
    let version = env!("CARGO_PKG_VERSION");
    page.gauge("pilot_info", "Version of the control plane", &[("version", version)], 1);
    page.gauge(
        "istiod_uptime_seconds",
        "Seconds since the start",
        &[],
        now().as_secs().saturating_sub(api.started.as_secs()),
    );
    page.gauge(
        "pilot_xds",
        "Open discovery streams",
        &[("version", version)],
        api.sessions.all().len() as u64,
    );
    sent(api, &mut page);
    page.counter("citadel_server_csr_count", "Certificates asked for", api.counts.asked.load(Relaxed));
    page.counter(
        "citadel_server_success_cert_issuance_count",
        "Certificates issued",
        api.counts.issued.load(Relaxed),
    );
    page.gauge(
        "citadel_server_root_cert_expiry_timestamp",
        "Last valid second of the issuing authority",
        &[],
        api.authority.not_after().as_secs(),
    );
    peers(api, &mut page);
    if let Some(published) = published {
        of_generation(api, published, &mut page);
    }
    page.0
}

fn sent(api: &Api, page: &mut Page) {
    let Sent { streams, messages, resources, bytes } = api.sessions.sent();
    page.counter("leno_control_streams_total", "Discovery streams that were opened", streams);
    page.counter("leno_control_sent_messages_total", "Discovery messages sent", messages);
    page.counter("leno_control_sent_resources_total", "Resources sent", resources);
    page.counter("leno_control_sent_bytes_total", "Bytes of discovery messages sent", bytes);
}

fn peers(api: &Api, page: &mut Page) {
    let table = api.peers.all();
    page.gauge("istiod_managed_clusters", "Clusters of the mesh", &[], 1 + table.len() as u64);
    let stale = table.iter().map(|(cluster, heard)| {
        let stale = heard.remote.as_ref().is_none_or(|remote| remote.stale);
        (vec![("cluster", cluster.as_str())], u64::from(stale))
    });
    page.gauges("leno_control_peer_stale", "Whether a cluster is not heard at present", stale);
}

fn of_generation(api: &Api, published: &Published, page: &mut Page) {
    let resources = &published.compiled.resources;
    let services = resources.values().filter(|it| matches!(it, Resource::Index(_))).count();
    page.gauge("pilot_services", "Services of the mesh", &[], services as u64);
    page.gauge("leno_control_generation", "Number of the newest generation", &[], published.generation);
    page.gauge("leno_control_objects", "Objects read", &[], published.reading.objects.len() as u64);
    page.gauge("leno_control_resources", "Resources published", &[], resources.len() as u64);
    page.gauge(
        "leno_control_kept_objects",
        "Objects in force in an older form because their present text is broken",
        &[],
        published.reading.kept.len() as u64,
    );
    let counts = status::counts(published);
    let diagnostics = counts.iter().map(|(severity, count)| (vec![("severity", *severity)], *count as u64));
    page.gauges("leno_control_diagnostics", "Findings about objects", diagnostics);
    let proxies = rollout::proxies(&api.sessions, published);
    let rollout = rollout::rollout(&proxies);
    page.gauge("leno_control_proxies", "Proxies that the mesh has", &[], rollout.expected as u64);
    page.gauge("leno_control_proxies_connected", "Proxies that are connected", &[], rollout.connected as u64);
    page.gauge(
        "leno_control_proxies_acknowledged",
        "Proxies that have the newest generation",
        &[],
        rollout.acknowledged as u64,
    );
    let rejects = proxies.iter().map(|proxy| proxy.rejected.len() as u64).sum::<u64>();
    page.gauge("leno_control_rejected_resources", "Resources that proxies could not use", &[], rejects);
}

struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: u64) {
        self.gauges(name, help, std::iter::once((labels.to_vec(), value)));
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (Vec<(&'a str, &'a str)>, u64)>,
    ) {
        self.head(name, help, "gauge");
        for (labels, value) in values {
            self.sample(name, &labels, value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.sample(name, &[], value);
    }

    // Writing to a String does not fail.
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
