//! `leno explain`: what would happen to a request, and why, in the words of the user's YAML.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use leno_compile::Compiled;
use leno_decide::{
    Change, Explanation, Outbound, RequestFacts, Tables, WhoAmI,
    explain::{Call, CallTarget, Lookup, explain as decide},
    path::{PathPolicy, normalise},
};
use leno_model::{Resource, ResourceKey, ResourceKind, Workload, WorkloadId};
use serde_json::json;

use crate::{
    Output,
    failure::Failure,
    live::{self, Which},
    offline, write,
};

/// Say what would happen to a request, and why
///
/// Shows the route that matches, every branch of a split with its share, the endpoints by nearness, timeouts, retries and
/// faults, and what each server's proxy says: mTLS mode, policies, allowed or denied. Everything cites the object, field,
/// file and line that it comes from. Offline with -f, else against the running mesh. Exit code 1 when a server denies it or
/// nothing takes it.
#[derive(Args)]
#[command(after_help = "Examples:
  leno explain -f shop/ --from shop/frontend http://cart:7070/items -X POST
  leno explain --from default/web-gateway http://shop.example/ -H 'end-user: jason'
  leno explain -f shop/ --from shop/cart tcp://redis-cart:6379")]
pub(crate) struct Arguments {
    /// Who calls: a workload (of the pod or its Deployment), or a gateway
    #[arg(long, value_name = "NAMESPACE/NAME")]
    from: String,
    /// Only what this server says
    #[arg(long, value_name = "NAMESPACE/NAME")]
    to: Option<String>,
    /// What is called: http://HOST[:PORT]/PATH, or tcp://HOST:PORT
    url: String,
    /// The method
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header, `NAME: VALUE`
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Manifests, offline: a file, a folder, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    which: Which,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once(':').ok_or_else(|| format!("{text:?} is not of the form NAME: VALUE"))?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Says it.
pub(crate) fn explain(arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let mut explanations = Vec::new();
    // Of several clusters, the first that has the caller.
    let mut taken = None;
    if arguments.files.is_empty() {
        live::block_on(async {
            let clusters = live::clusters(&arguments.which)?;
            for cluster in &clusters {
                let compiled = offline::of_cluster(cluster).await?;
                if let Some(caller) = Caller::find(&compiled, &arguments.from) {
                    explanations.push(of(&compiled, &caller, arguments).map_err(Failure::Usage)?);
                    taken = (clusters.len() > 1).then(|| cluster.name.clone());
                    return Ok(());
                }
            }
            Err(Failure::Usage(anyhow!("the running mesh has no workload or gateway {}", arguments.from)))
        })?;
    } else {
        let offline = offline::read(&arguments.files)?;
        let caller = Caller::find(&offline.compiled, &arguments.from);
        let caller = caller.ok_or_else(|| {
            Failure::Usage(anyhow!("the manifests have no workload or gateway {}", arguments.from))
        })?;
        explanations.push(of(&offline.compiled, &caller, arguments).map_err(Failure::Usage)?);
    }
    let mut refused = false;
    for explanation in &explanations {
        refused |= !explanation.is_served();
        match output {
            Output::Json => {
                let mut told = json!(explanation);
                if let Some(cluster) = &taken {
                    told["cluster"] = json!(cluster);
                }
                write::json(&told);
            }
            Output::Text => {
                if let Some(cluster) = &taken {
                    write::line(&format!("in the cluster {cluster} (--cluster names another)"));
                }
                write::line(explanation.to_string().trim_end());
                if arguments.files.is_empty() && explanation.lookup == Lookup::Unknown {
                    write::line(&format!("  {}", fate_of_a_stranger(&arguments.url)));
                }
            }
        }
    }
    if refused { Err(Failure::DoesNotHold) } else { Ok(()) }
}

/// What becomes of a call to nobody that the mesh knows, in a mesh on this machine.
fn fate_of_a_stranger(url: &str) -> &'static str {
    let host =
        url.parse::<http::Uri>().ok().and_then(|url| url.host().map(str::to_owned)).unwrap_or_default();
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_address {
        "here: connections to this address are passed through as they are"
    } else {
        "here: the name does not resolve, and a request for it by way of HTTP_PROXY is answered 502"
    }
}

/// Who calls.
struct Caller {
    me: WhoAmI,
    gateway: bool,
}

impl Caller {
    fn find(compiled: &Compiled, name: &str) -> Option<Self> {
        let gateway = compiled.resources.values().find_map(|resource| match resource {
            Resource::Gateway(gateway) => {
                let object = format!("{}/{}", gateway.origin.namespace, gateway.origin.name);
                (gateway.id.to_string() == name || object == name).then_some(&gateway.id)
            }
            _ => None,
        });
        let of = |id: &WorkloadId| {
            workloads(compiled).find(|workload| workload.id == *id).map(WhoAmI::of_workload)
        };
        if let Some(id) = gateway {
            return Some(Self { me: of(id).unwrap_or_else(|| WhoAmI::new(id.clone())), gateway: true });
        }
        let found = workloads(compiled).find(|workload| is_called(workload, name))?;
        Some(Self { me: WhoAmI::of_workload(found), gateway: false })
    }
}

fn is_called(workload: &Workload, name: &str) -> bool {
    let Some((namespace, short)) = name.split_once('/') else { return false };
    let same = |other: &str| other == short;
    workload.id.namespace.as_str() == namespace
        && (same(&workload.id.name)
            || same(&workload.owner)
            || workload.labels.get("app").is_some_and(|app| same(app)))
}

fn workloads(compiled: &Compiled) -> impl Iterator<Item = &Workload> {
    compiled.resources.values().filter_map(|resource| match resource {
        Resource::Workload(workload) => Some(&**workload),
        _ => None,
    })
}

/// A URL, taken apart.
struct Target {
    scheme: String,
    host: String,
    port: u16,
    authority: String,
    path: String,
    query: Option<String>,
}

impl Target {
    fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        let scheme = uri.scheme_str().unwrap_or("http").to_owned();
        let host = uri.host().ok_or_else(|| anyhow!("{url:?} names no host"))?.to_owned();
        let port = match (uri.port_u16(), scheme.as_str()) {
            (Some(port), _) => port,
            (None, "http") => 80,
            (None, "https") => 443,
            (None, _) => bail!("{url:?} names no port"),
        };
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        let path = normalise(path, &PathPolicy::default())
            .with_context(|| format!("proxies answer 400 to {path:?}"))?;
        Ok(Self {
            scheme,
            host,
            port,
            authority,
            path: path.into_owned(),
            query: uri.query().map(str::to_owned),
        })
    }
}

fn of(compiled: &Compiled, caller: &Caller, arguments: &Arguments) -> anyhow::Result<Explanation> {
    let target = Target::parse(&arguments.url)?;
    let mut tables = tables(compiled, caller.me.clone());
    if let Outbound::Known(known) = tables.outbound_by_host(&target.host, target.port) {
        let service = known.entry.service.clone();
        let keys = compiled.closure(tables.me().namespace(), &service).unwrap_or_default();
        let loaded = upserts(compiled, keys).chain([Change::Scope(service, true)]);
        tables = tables.apply(loaded);
    }
    let facts = RequestFacts {
        method: &arguments.method,
        path: &target.path,
        query: target.query.as_deref(),
        scheme: &target.scheme,
        authority: &target.authority,
        headers: &arguments.headers,
        remote_ip: None,
    };
    let is_http = matches!(target.scheme.as_str(), "http" | "https");
    let call = Call {
        tables: &tables,
        to: if caller.gateway {
            CallTarget::GatewayHost(&target.host)
        } else {
            CallTarget::Host(&target.host)
        },
        port: target.port,
        request: is_http.then_some(&facts),
        sni: None,
    };
    let asked = workloads(compiled)
        .filter(|workload| arguments.to.as_ref().is_none_or(|name| is_called(workload, name)));
    let servers: Vec<Tables> =
        asked.map(|workload| self::tables(compiled, WhoAmI::of_workload(workload))).collect();
    Ok(decide(&call, &servers.iter().collect::<Vec<_>>()))
}

/// The tables of a proxy with all it has by itself, and nothing on demand.
fn tables(compiled: &Compiled, me: WhoAmI) -> Tables {
    let index = compiled.resources.keys().filter(|key| key.kind == ResourceKind::Index).cloned();
    let own = compiled.own(&me.id).unwrap_or_default();
    Tables::new(me).apply(upserts(compiled, index.chain(own).collect()))
}

fn upserts(compiled: &Compiled, keys: Vec<ResourceKey>) -> impl Iterator<Item = Change> {
    keys.into_iter().filter_map(|key| compiled.resources.get(&key).cloned().map(Change::Upsert))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_the_port_of_its_scheme_and_a_normal_path() {
        let target = Target::parse("http://cart.shop//a/./b?x=1").unwrap();
        assert_eq!((target.port, &*target.path, target.query.as_deref()), (80, "/a/b", Some("x=1")));
        assert_eq!(Target::parse("tcp://db:5432").unwrap().port, 5432);
        assert!(Target::parse("tcp://db").is_err());
    }

    #[test]
    fn a_strange_address_is_passed_through_and_a_strange_name_is_not() {
        for address in ["http://10.1.2.3/", "tcp://[2001:db8::1]:5432"] {
            assert!(fate_of_a_stranger(address).contains("passed through"), "{address}");
        }
        assert!(fate_of_a_stranger("http://nothing/").contains("502"));
    }
}
