//! Other projects' demos from their own manifests: every call works, and all of it is mutual TLS.
//!
//! Invariant: the manifests are used as they are; what runs under their images' names are stand-ins, which call what the
//! manifests' environments (or, for Bookinfo, the original programs) name.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Skipped, traffic::counted_as};
use crate::mesh::Mesh;

/// Beside the repository.
const DATA: &str = "../../../shared/data";

/// A demo.
struct Application {
    namespace: &'static str,
    manifests: &'static str,
    /// Where its visitors go, and how often they must so that each version of each service is called.
    url: &'static str,
    visits: usize,
    /// Calls that must be among those that one visit leads to.
    calls: &'static [&'static str],
    /// The one whose service is not among the manifests.
    missing: &'static str,
}

const BOOKINFO: Application = Application {
    namespace: "bookinfo",
    manifests: "bookinfo/kube/bookinfo.yaml",
    url: "http://productpage:9080/productpage",
    visits: 20,
    calls: &["details:9080", "reviews:9080", "ratings:9080"],
    missing: "",
};
const BOUTIQUE: Application = Application {
    namespace: "boutique",
    manifests: "online-boutique/kubernetes-manifests.yaml",
    url: "http://frontend/",
    visits: 2,
    calls: &[
        "adservice:9555",
        "cartservice:7070",
        "checkoutservice:5050",
        "currencyservice:7000",
        "emailservice:5000",
        "paymentservice:50051",
        "productcatalogservice:3550",
        "recommendationservice:8080",
        "redis-cart:6379",
        "shippingservice:50051",
    ],
    missing: "shoppingassistantservice:80",
};

pub(super) fn bookinfo(mesh: &Mesh) -> anyhow::Result<()> {
    BOOKINFO.runs(mesh)
}

pub(super) fn online_boutique(mesh: &Mesh) -> anyhow::Result<()> {
    BOUTIQUE.runs(mesh)
}

impl Application {
    fn runs(&self, mesh: &Mesh) -> anyhow::Result<()> {
        let Self { namespace, manifests, .. } = self;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(DATA).join(manifests);
        let Ok(text) = fs::read_to_string(&file) else {
            return Err(Skipped(format!("{manifests} is not at hand (../shared/data)")).into());
        };
        // Visitors are the checks' own; those of Online Boutique want a shell.
        let documents = text.split("\n---").filter(|it| !it.contains("name: loadgenerator"));
        let text = documents.collect::<Vec<_>>().join("\n---");
        crate::load::stop(&mesh.west)?;
        for image in images(&text) {
            mesh.load_image(&image, &format!("/usr/bin/leno-standin {}", arguments(&image)?))?;
        }
        mesh.west.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{leno.dev/inject: enabled}}}}}}\n---\n\
             {{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: default, namespace: {namespace}}}, \
             spec: {{mtls: {{mode: STRICT}}}}}}"
        ))?;
        mesh.west.apply_in(namespace, &text)?;
        mesh.west.apply_in(
            namespace,
            "{apiVersion: v1, kind: Pod, metadata: {name: visitor, labels: {app: visitor}}, spec: {containers: [{name: app, \
             image: \"leno.test/standin:e2e\", imagePullPolicy: Never}]}}",
        )?;
        mesh.west
            .run(&format!("-n {namespace} wait deployment --all --for=condition=Available --timeout=240s"))?;
        mesh.west.run(&format!("-n {namespace} wait pod visitor --for=condition=Ready --timeout=60s"))?;
        let worked = self.visits(mesh).and_then(|()| self.all_mutual(mesh));
        if worked.is_ok() {
            mesh.west.run(&format!("delete namespace {namespace} --timeout=120s"))?;
        }
        worked
    }

    fn visits(&self, mesh: &Mesh) -> anyhow::Result<()> {
        // The page waits for its calls, which may take longer than the first request of a cold pod should.
        std::thread::sleep(Duration::from_secs(2));
        let mut called = BTreeSet::new();
        for _ in 0..self.visits {
            let (status, body) = mesh.west.call(self.namespace, "pod/visitor", self.url)?;
            ensure!(status == 200, "{} answers {status}: {body}", self.url);
            self.examine(&serde_json::from_str(&body)?, &mut called)?;
        }
        let never = self.calls.iter().filter(|it| !called.contains(**it)).collect::<Vec<_>>();
        ensure!(never.is_empty(), "never called: {never:?}; called: {called:?}");
        Ok(())
    }

    /// All calls of an answer, and those that these led to.
    fn examine(&self, answer: &Value, called: &mut BTreeSet<String>) -> anyhow::Result<()> {
        for call in answer["calls"].as_array().into_iter().flatten() {
            let target = call["target"].as_str().context("a call has no target")?;
            match call["error"].as_str() {
                None => ensure!(target != self.missing, "{target} answers, and does not exist"),
                Some(error) if target == self.missing => {
                    ensure!(error.contains("looked up"), "{target}, which does not exist: {error}");
                }
                Some(error) => bail!("{target}: {error}"),
            }
            called.insert(target.to_owned());
            self.examine(call, called)?;
        }
        Ok(())
    }

    /// Each server has been called, over mutual TLS and in no other way.
    fn all_mutual(&self, mesh: &Mesh) -> anyhow::Result<()> {
        for deployment in mesh.west.items(&format!("deployment -n {}", self.namespace))? {
            let labels = &deployment["spec"]["template"]["metadata"]["labels"];
            let app = labels["app"].as_str().context("a Deployment without `app`")?;
            let selector = match labels["version"].as_str() {
                Some(version) => format!("{app},version={version}"),
                None => app.to_owned(),
            };
            let metric = if app.contains("redis") {
                "istio_tcp_connections_opened_total"
            } else {
                "istio_requests_total"
            };
            let counts = |security| counted_as(mesh, metric, self.namespace, &selector, 15020, security);
            let (mutual, plain) = (counts("mutual_tls")?, counts("none")?);
            ensure!(mutual > 0 && plain == 0, "{selector}: {mutual} over mutual TLS, {plain} in plaintext");
        }
        Ok(())
    }
}

fn images(manifests: &str) -> BTreeSet<String> {
    let named =
        manifests.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image: "));
    named.map(|image| image.trim().to_owned()).collect()
}

/// What the stand-in is told that takes an image's place: who it is, and the port that its manifest does not say.
fn arguments(image: &str) -> anyhow::Result<String> {
    let name = image.rsplit('/').next().and_then(|it| it.split(':').next()).unwrap_or_default();
    if let Some(of_bookinfo) = name.strip_prefix("examples-bookinfo-") {
        let (app, version) = of_bookinfo.rsplit_once('-').with_context(|| image.to_owned())?;
        return Ok(format!("--bookinfo --http 9080 --app {app} --version {version}"));
    }
    Ok(match name {
        "redis" => "--app redis --tcp 6379".to_owned(),
        "cartservice" => "--app cartservice --grpc-calls --http 7070".to_owned(),
        name => format!("--app {name} --grpc-calls"),
    })
}
