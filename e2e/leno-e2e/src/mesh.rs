//! The images, the installation and the applications that the checks look at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    authority,
    cluster::{Cluster, kube, said},
};

/// The namespace of the applications: enrolled, STRICT.
pub(crate) const APPS: &str = "shop";
const APPLICATIONS: &str = include_str!("../manifests/applications.yaml");
const VALUES: &str = include_str!("../manifests/values.yaml");
/// The CRDs, from the modules that `xtask schema` reads too.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api@v1.6.3";
const ISTIO: &str = "istio.io/api@v1.31.4";

/// What the checks look at.
pub(crate) struct Mesh {
    pub(crate) west: Cluster,
    /// The other cluster, where a check needs two.
    pub(crate) east: Option<Cluster>,
    pub(crate) bin: PathBuf,
    pub(crate) evidence: PathBuf,
}

impl Mesh {
    /// The images into the nodes, assembled from the lists of `deploy/images`.
    pub(crate) fn load_images(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.evidence)?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let bin = self.bin.display().to_string();
        let listed = |name: &str| -> anyhow::Result<Vec<String>> {
            let list = fs::read_to_string(root.join(format!("deploy/images/{name}.files")))?;
            let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            Ok(lines.map(|line| line.replace("{BIN}", &bin)).collect())
        };
        let stand_in = vec![format!("{bin}/leno-standin:/usr/bin/leno-standin")];
        for (image, program, files) in [
            ("leno/proxy", "leno-proxy", listed("proxy")?),
            ("leno/control", "leno-control", listed("control")?),
            ("standin", "leno-standin", stand_in),
        ] {
            self.image(&format!("leno.test/{image}:e2e"), &format!("/usr/bin/{program}"), &files)?;
        }
        Ok(())
    }

    /// A stand-in under another name, with a command line of its own.
    pub(crate) fn load_image(&self, image: &str, command: &str) -> anyhow::Result<()> {
        let image = if image.contains('/') { image.to_owned() } else { format!("docker.io/library/{image}") };
        let stand_in = format!("{}/leno-standin:/usr/bin/leno-standin", self.bin.display());
        self.image(&image, command, &[stand_in])
    }

    fn image(&self, name: &str, command: &str, files: &[String]) -> anyhow::Result<()> {
        let archive = self.evidence.join("image.tar");
        let mut make = Command::new(kube().with_file_name("mkimage"));
        make.arg(name).arg(&archive).arg(command);
        said(&["mkimage", name], &make.args(files).output()?)?;
        said(&["kube", "image", name], &Command::new(kube()).arg("image").arg(&archive).output()?).map(drop)
    }

    /// The CRDs of both APIs, then Leno as its users install it.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        crds(&self.west)?;
        if self.east.is_some() {
            authority::plug_in(&self.west, &self.evidence)?;
        }
        self.install_into(&self.west, VALUES)
    }

    /// Leno into a cluster, or with other values where it is.
    pub(crate) fn install_into(&self, cluster: &Cluster, values: &str) -> anyhow::Result<()> {
        fs::write(self.values(cluster), values)?;
        let steps = self.leno_of(cluster, "install", &[])?;
        for wanted in ["ready   Deployment leno-system/leno-control", "applied GatewayClass leno"] {
            ensure!(steps.contains(wanted), "no line `{wanted}` in what `leno install` says: {steps}");
        }
        cluster.rolled_out("leno-system", "leno-control")
    }

    fn values(&self, cluster: &Cluster) -> PathBuf {
        self.evidence.join(format!("values-{}.yaml", cluster.name))
    }

    /// A command of `leno` about the cluster, with the installation's values; what it printed, or why it did not succeed.
    pub(crate) fn leno(&self, command: &str) -> anyhow::Result<String> {
        self.leno_with(command, &[])
    }

    /// The same with more arguments.
    pub(crate) fn leno_with(&self, command: &str, more: &[&str]) -> anyhow::Result<String> {
        self.leno_of(&self.west, command, more)
    }

    fn leno_of(&self, cluster: &Cluster, command: &str, more: &[&str]) -> anyhow::Result<String> {
        let mut leno = Command::new("timeout");
        leno.args(["--kill-after=5", "330"]).arg(self.bin.join("leno")).arg(command);
        leno.arg("-f").arg(self.values(cluster)).arg("--kubeconfig").arg(cluster.kubeconfig()?).args(more);
        let output = leno.output()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        said(&["leno", command], &output).with_context(|| format!("it prints `{}`", printed.trim()))
    }

    /// The applications, until they are ready.
    pub(crate) fn deploy(&self) -> anyhow::Result<()> {
        deploy_to(&self.west)
    }

    /// The addresses of an application's pods.
    pub(crate) fn addresses(&self, namespace: &str, app: &str) -> anyhow::Result<Vec<String>> {
        let pods = self.west.items(&format!("pod -n {namespace} -l app={app}"))?;
        let address = |pod: &Value| pod["status"]["podIP"].as_str().map(str::to_owned);
        pods.iter().map(|pod| address(pod).context("a pod has no address")).collect()
    }

    /// What one needs to see after a failure.
    pub(crate) fn keep_evidence(&self, number: usize) {
        let mut text = String::new();
        let clusters = std::iter::once(&self.west).chain(&self.east);
        let lines = [
            "get pod -A -o wide",
            "get event -A --sort-by=.lastTimestamp",
            "-n leno-system logs -l app=leno-control --tail=300 --prefix",
            "-n leno-system logs -l app=leno-eastwest --tail=300 --prefix",
            "-n shop logs -l app --all-containers --tail=100 --prefix",
        ];
        for (cluster, line) in clusters.flat_map(|cluster| lines.map(|line| (cluster, line))) {
            let said = cluster.run(line).unwrap_or_else(|error| format!("{error:#}"));
            text.push_str(&format!("# {}: kubectl {line}\n{said}\n", cluster.name));
        }
        let _full_disk = fs::write(self.evidence.join(format!("failed-{number}.txt")), text);
    }
}

/// The CRDs of both APIs.
pub(crate) fn crds(cluster: &Cluster) -> anyhow::Result<()> {
    for crds in [
        module(GATEWAY_API)?.join("config/crd/standard"),
        module(ISTIO)?.join("kubernetes/customresourcedefinitions.gen.yaml"),
    ] {
        cluster.ctl(&["apply", "--server-side", "-f", &crds.display().to_string()])?;
    }
    cluster.run("wait crd --all --for=condition=Established --timeout=60s").map(drop)
}

/// The applications, until they are ready.
pub(crate) fn deploy_to(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(APPLICATIONS)?;
    for (namespace, deployment) in [(APPS, "front"), (APPS, "back"), ("plain", "outsider")] {
        cluster.rolled_out(namespace, deployment)?;
    }
    Ok(())
}

/// The folder of a Go module, downloaded when it is not there.
fn module(name: &str) -> anyhow::Result<PathBuf> {
    let arguments = ["mod", "download", "-json", name];
    let output = Command::new("go").args(arguments).current_dir(std::env::temp_dir()).output()?;
    let answer: Value = serde_json::from_str(&said(&arguments, &output)?)?;
    Ok(answer["Dir"].as_str().context("go mod download names no folder")?.into())
}
