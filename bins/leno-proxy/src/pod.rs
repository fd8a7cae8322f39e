//! `leno-proxy sidecar` and `leno-proxy gateway`: a proxy in a pod, told everything by its environment
//! (docs/reference/proxy-environment.md).

mod settings;

use std::{collections::BTreeMap, env, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use leno_identity::{CONTROL_PLANE_NAMESPACE, control_plane_identity_in};
use leno_model::{Millis, TrustDomain, WorkloadId};
use leno_proxy::{
    Bootstrap, JoinToken,
    bootstrap::{Capture, ControlAddress, Role, Roots},
};

use self::settings::{Settings, Span};

/// Lifetime that is asked for; the control plane decides.
const CERTIFICATE_TTL: Millis = Millis(24 * 3600 * 1000);

/// Where the injector mounts what a proxy needs.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Roots of the mesh, PEM
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/leno/root-cert.pem")]
    roots: PathBuf,
    /// The service account's token for the control plane
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/tokens/leno-token")]
    token: PathBuf,
    /// Where configuration, key and chain are kept across restarts of the container; memory-backed
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/leno")]
    state: PathBuf,
    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

/// Serves until it is told to stop.
pub(crate) fn serve(arguments: &Arguments, role: Role) -> anyhow::Result<()> {
    let environment = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let prepared = prepare(arguments, role, environment);
    crate::log(prepared.as_ref().map_or("info", |(_, level)| level), arguments.log_json);
    let (bootstrap, _) = prepared?;
    tracing::info!(
        workload = %bootstrap.workload,
        service_account = environment("SERVICE_ACCOUNT"),
        network = environment("LENO_NETWORK"),
        cores = bootstrap.cores,
        "starts"
    );
    crate::serve::serve(bootstrap, JoinToken::File(arguments.token.clone()))
}

/// The bootstrap and the level of logs.
fn prepare(
    arguments: &Arguments,
    role: Role,
    environment: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(Bootstrap, String)> {
    let needed = |name: &str| environment(name).with_context(|| format!("{name} is not set"));
    let address: IpAddr = needed("POD_IP")?.parse().context("POD_IP is no address")?;
    let workload = match role {
        Role::Sidecar => WorkloadId::new(&needed("POD_NAMESPACE")?, &needed("POD_NAME")?),
        Role::Gateway => {
            let gateway = needed("LENO_GATEWAY")?;
            gateway.parse().ok().with_context(|| format!("LENO_GATEWAY: {gateway:?} is no NAMESPACE/NAME"))?
        }
    };
    let trust_domain = match environment("LENO_TRUST_DOMAIN") {
        None => TrustDomain::default(),
        Some(domain) => TrustDomain::parse(&domain).context("LENO_TRUST_DOMAIN")?,
    };
    let namespace = environment("LENO_CONTROL_NAMESPACE");
    let namespace = namespace.as_deref().unwrap_or(CONTROL_PLANE_NAMESPACE);
    let control_identity =
        control_plane_identity_in(&trust_domain, namespace).context("LENO_CONTROL_NAMESPACE")?;
    let control: Result<Vec<ControlAddress>, _> =
        needed("LENO_CONTROL")?.split(',').map(|address| address.trim().parse()).collect();
    let settings = match environment("LENO_PROXY_CONFIG") {
        None => Settings::default(),
        Some(text) => serde_json::from_str(&text).context("LENO_PROXY_CONFIG")?,
    };
    let Settings { concurrency, drain_duration, log_level, access_log, tracing, probes } = settings;
    let drain = match environment("LENO_DRAIN") {
        None => drain_duration,
        Some(text) => Span::try_from(text).map_err(anyhow::Error::msg).context("LENO_DRAIN")?,
    };
    let bootstrap = Bootstrap {
        workload,
        uid: needed("POD_UID")?.into(),
        role,
        cluster: needed("LENO_CLUSTER")?.as_str().into(),
        control_identity,
        trust_domain,
        control: control.context("LENO_CONTROL")?,
        roots: Roots::File { file: arguments.roots.clone() },
        certificate_ttl: CERTIFICATE_TTL,
        state_dir: Some(arguments.state.clone()),
        capture: Capture::Captured,
        address,
        app_ports: BTreeMap::new(),
        app_address: address,
        low_port_offset: 0,
        cores: concurrency.threads(),
        drain: drain.0,
        allow_unknown: true,
        access_log,
        tracing,
        probes,
    };
    Ok((bootstrap, log_level))
}

#[cfg(test)]
mod tests {
    use leno_proxy::bootstrap::AccessLog;

    use super::*;

    const POD: [(&str, &str); 6] = [
        ("POD_NAME", "web-0"),
        ("POD_NAMESPACE", "shop"),
        ("POD_UID", "u-1"),
        ("POD_IP", "198.18.0.7"),
        ("LENO_CLUSTER", "west"),
        ("LENO_CONTROL", "leno-control.leno-system.svc:15012"),
    ];

    fn prepared(role: Role, more: &[(&str, &str)]) -> anyhow::Result<(Bootstrap, String)> {
        let arguments =
            Arguments { roots: "/r".into(), token: "/t".into(), state: "/s".into(), log_json: false };
        let all: BTreeMap<String, String> =
            POD.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        prepare(&arguments, role, |name| all.get(name).cloned())
    }

    #[test]
    fn a_sidecar_is_its_pod() {
        let (bootstrap, level) = prepared(Role::Sidecar, &[]).unwrap();
        assert_eq!(bootstrap.workload.to_string(), "shop/web-0");
        assert_eq!(bootstrap.capture, Capture::Captured);
        assert_eq!(bootstrap.address, bootstrap.app_address);
        assert_eq!((bootstrap.cores, bootstrap.drain, level.as_str()), (1, Millis(45_000), "info"));
        assert_eq!(bootstrap.control[0].to_string(), "leno-control.leno-system.svc:15012");
        assert_eq!(bootstrap.trust_domain, TrustDomain::default());
    }

    #[test]
    fn only_control_planes_of_the_installations_namespace_are_believed() {
        let believed = |more: &[(&str, &str)]| prepared(Role::Sidecar, more).unwrap().0.control_identity;
        let usual = believed(&[]);
        assert_eq!(usual.as_str(), "spiffe://cluster.local/ns/leno-system/sa/leno-control");
        let elsewhere = believed(&[("LENO_CONTROL_NAMESPACE", "mesh")]);
        assert_eq!(elsewhere.as_str(), "spiffe://cluster.local/ns/mesh/sa/leno-control");
    }

    #[test]
    fn a_gateway_is_its_gateway() {
        let (bootstrap, _) = prepared(Role::Gateway, &[("LENO_GATEWAY", "infra/public")]).unwrap();
        assert_eq!(bootstrap.workload.to_string(), "infra/public");
        let config = [("LENO_GATEWAY", "infra/public"), ("LENO_DRAIN", "1m")];
        assert_eq!(prepared(Role::Gateway, &config).unwrap().0.drain, Millis(60_000));
        let missing = prepared(Role::Gateway, &[]).unwrap_err();
        assert!(missing.to_string().contains("LENO_GATEWAY"), "{missing}");
    }

    #[test]
    fn settings_are_honoured_and_unknown_ones_are_refused() {
        let config = r#"{"concurrency": 2, "drainDuration": "1m30s", "logLevel": "leno_proxy=debug", "accessLog": "json",
            "tracing": {"endpoint": "http://otel:4317", "sampling": 0.1},
            "probes": {"web/livez": {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 3}}}"#;
        let (bootstrap, level) = prepared(Role::Sidecar, &[("LENO_PROXY_CONFIG", config)]).unwrap();
        assert_eq!((bootstrap.cores, bootstrap.drain), (2, Millis(90_000)));
        assert_eq!((level.as_str(), bootstrap.access_log), ("leno_proxy=debug", AccessLog::Json));
        assert!(bootstrap.probes.contains_key("web/livez") && bootstrap.tracing.is_some());
        let refused = prepared(Role::Sidecar, &[("LENO_PROXY_CONFIG", r#"{"concurency": 2}"#)]).unwrap_err();
        assert!(format!("{refused:#}").contains("concurency"), "{refused:#}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (name, value) in [
            ("POD_IP", "here"),
            ("LENO_CONTROL", "nowhere"),
            ("LENO_CONTROL_NAMESPACE", "a/b"),
            ("LENO_TRUST_DOMAIN", "a/b"),
            ("LENO_DRAIN", "soon"),
            ("LENO_PROXY_CONFIG", "{"),
        ] {
            let wrong = format!("{:#}", prepared(Role::Sidecar, &[(name, value)]).unwrap_err());
            assert!(wrong.contains(name), "{wrong}");
        }
    }
}
