//! Cluster DNS as the stand-in applications see it: short names, `name.namespace`, and fully qualified ones.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use leno_apis::AnyObject;

/// A table of names. Made anew when services or pods change.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    hosts: BTreeMap<String, Vec<IpAddr>>,
}

impl Dns {
    /// The names of these services (which have their cluster IPs already) and of the pods behind headless ones.
    pub fn of<'a>(objects: impl Iterator<Item = &'a Arc<AnyObject>> + Clone) -> Self {
        let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for object in objects.clone() {
            let AnyObject::Service(service) = &**object else { continue };
            let host = format!("{}.{}.svc.cluster.local", service.name(), service.namespace());
            if !service.spec.headless {
                let addresses = service.spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok());
                hosts.entry(host).or_default().extend(addresses);
                continue;
            }
            for object in objects.clone() {
                let AnyObject::Pod(pod) = &**object else { continue };
                let selected = pod.namespace() == service.namespace()
                    && !service.spec.selector.is_empty()
                    && service.spec.selector.iter().all(|(key, value)| pod.metadata.label(key) == Some(value));
                if let (true, Some(address)) = (selected && pod.spec.status.ready, pod.spec.status.pod_ip) {
                    hosts.entry(host.clone()).or_default().push(address);
                    hosts.entry(format!("{}.{host}", pod.name())).or_default().push(address);
                }
            }
        }
        Self { hosts }
    }

    /// Looks a name up as a pod of `namespace` would.
    pub fn resolve(&self, namespace: &str, name: &str) -> &[IpAddr] {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let candidates = [
            name.clone(),
            format!("{name}.{namespace}.svc.cluster.local"),
            format!("{name}.svc.cluster.local"),
            format!("{name}.cluster.local"),
        ];
        candidates.iter().find_map(|candidate| self.hosts.get(candidate)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_form_of_a_name_resolves() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec: {clusterIP: 240.240.0.1, ports: [{port: 80}]}\n";
        let parsed = leno_apis::parse("test", text);
        let dns = Dns::of(parsed.objects.iter());
        for name in ["cart", "cart.shop", "cart.shop.svc", "cart.shop.svc.cluster.local", "CART.shop.svc.cluster.local."] {
            assert_eq!(dns.resolve("shop", name).len(), 1, "{name}");
        }
        assert!(dns.resolve("web", "cart").is_empty());
        assert_eq!(dns.resolve("web", "cart.shop").len(), 1);
    }
}
