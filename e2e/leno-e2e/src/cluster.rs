//! One cluster, through kubectl.
//!
//! Invariant: every command and every wait ends.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// The program inside the stand-ins' image.
const STAND_IN: &str = "/usr/bin/leno-standin";

/// A cluster that `kube` has brought up.
pub(crate) struct Cluster {
    pub(crate) name: &'static str,
}

/// `kube`, beside this crate.
pub(crate) fn kube() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../kube/kube")
}

impl Cluster {
    pub(crate) fn named(name: &'static str) -> Self {
        Self { name }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // kubectl's --request-timeout would end its watches, on which it waits.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "300"]).arg(kube()).args(["ctl", self.name]).args(arguments);
        command
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let arguments = ["config", self.name];
        let path = said(&arguments, &Command::new(kube()).args(arguments).output()?)?;
        Ok(path.trim().into())
    }

    /// kubectl, with what it printed.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        said(arguments, &self.command(arguments).output()?)
    }

    /// The words of one line, as one types them.
    pub(crate) fn run(&self, line: &str) -> anyhow::Result<String> {
        self.ctl(&line.split(' ').collect::<Vec<_>>())
    }

    pub(crate) fn get(&self, line: &str) -> anyhow::Result<Value> {
        let text = self.run(&format!("get {line} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {line}"))
    }

    pub(crate) fn items(&self, line: &str) -> anyhow::Result<Vec<Value>> {
        let mut list = self.get(line)?;
        serde_json::from_value(list["items"].take()).with_context(|| format!("{line} is no list"))
    }

    pub(crate) fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        self.apply_in("default", manifests)
    }

    /// Into a namespace, unless a manifest names another.
    pub(crate) fn apply_in(&self, namespace: &str, manifests: &str) -> anyhow::Result<()> {
        // With `-n` kubectl would refuse manifests of other namespaces.
        let (namespaced, all) =
            (["apply", "--server-side", "--force-conflicts", "-f", "-", "-n", namespace], 5);
        let arguments = if namespace == "default" { &namespaced[..all] } else { &namespaced[..] };
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("kubectl reads nothing")?.write_all(manifests.as_bytes())?;
        said(arguments, &child.wait_with_output()?).map(drop)
    }

    /// `kubectl proxy` at a port that its first line says; SIGTERM ends it.
    pub(crate) fn proxy(&self) -> anyhow::Result<Child> {
        Ok(self.command(&["proxy", "--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// Until all replicas of a Deployment are new and ready.
    pub(crate) fn rolled_out(&self, namespace: &str, deployment: &str) -> anyhow::Result<()> {
        self.ctl(&["-n", namespace, "rollout", "status", "deployment", deployment, "--timeout=180s"])
            .map(drop)
    }

    /// A signal for a container; kubelet has not asked for it, so to it the container ends by itself.
    pub(crate) fn kill(&self, signal: &str, node: &str, container: &str) -> anyhow::Result<()> {
        let state = std::env::var("KUBE_STATE").unwrap_or_else(|_| "/var/tmp/kube".to_owned());
        let node = node.rsplit('-').next().unwrap_or_default();
        let socket = format!("{state}/clusters/{}/{node}/containerd.sock", self.name);
        let container = container.trim_start_matches("containerd://");
        let arguments = ["-a", &socket, "-n", "k8s.io", "task", "kill", "-s", signal, container];
        said(&arguments, &Command::new("ctr").args(arguments).output()?).map(drop)
    }

    /// What a pod is answered at a URL: status and body, or why there is no answer.
    pub(crate) fn call(&self, namespace: &str, from: &str, url: &str) -> anyhow::Result<(u16, String)> {
        let text = self.ctl(&["-n", namespace, "exec", from, "-c", "app", "--", STAND_IN, "get", url])?;
        let (status, body) = text.split_once('\n').context("the answer has no status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}

/// Until something holds; the last reason otherwise.
pub(crate) fn until(seconds: u64, mut holds: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("{seconds} s have passed")));
            }
            Err(_) => sleep(Duration::from_millis(500)),
        }
    }
}

/// What a command printed, or what it complained of.
pub(crate) fn said(what: &[&str], output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` {}: {}", what.join(" "), output.status, complaint.trim());
    }
    ensure!(output.stdout.len() < 64 << 20, "`{}` printed too much", what.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
