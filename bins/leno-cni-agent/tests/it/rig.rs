//! A node: folders, an agent, pods' network namespaces, and the runtime's calls of the plugin.

use std::{
    fs::{self, File},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use leno_inject::{Capture, InjectionConfig, Outcome, inject};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use serde_json::{Value, json};

const AGENT: &str = env!("CARGO_BIN_EXE_leno-cni-agent");
/// A configuration as a cluster's own plugin writes it.
pub(crate) const BRIDGE: &str = "{\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"plugins\": [{\"type\": \"bridge\", \"bridge\": \"b0\"}]}";

/// A pod's network namespace, removed when dropped.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// `None` without root; says so.
    pub(crate) fn two() -> Option<[Self; 2]> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        Some([Self::new(), Self::new()])
    }

    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("leno-cni-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        assert!(made.expect("iproute2 is installed (tools/debian.txt)").success());
        Self { name }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs on a thread of its own that is in this namespace.
    pub(crate) fn enter(&self, run: impl FnOnce() + Send + 'static) {
        let file = File::open(self.path()).unwrap();
        let thread = thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            run();
        });
        thread.join().unwrap();
    }

    /// What nft lists here.
    pub(crate) fn rules(&self) -> String {
        let listed =
            Command::new("ip").args(["netns", "exec", &self.name, "nft", "list", "ruleset"]).output();
        String::from_utf8(listed.unwrap().stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A node with a configuration and an agent.
pub(crate) struct Agent {
    folder: tempfile::TempDir,
    process: Mutex<Child>,
}

impl Agent {
    /// Until it has somebody to ask.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "conf"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("conf/10-bridge.conflist"), BRIDGE).unwrap();
        fs::write(at("plugin"), "#!/bin/true").unwrap();
        let mut command = Command::new(AGENT);
        command.arg("run").arg("--plugin").arg(at("plugin"));
        command.arg("--bin-dir").arg(at("bin")).arg("--conf-dir").arg(at("conf"));
        command.arg("--socket").arg(at("agent.sock"));
        command
            .args(["--exclude-namespaces=kube-node-lease,kube-system", "--daemon-set=kube-system/leno-cni"]);
        command.env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
        let agent = Self { process: Mutex::new(command.spawn().unwrap()), folder };
        until("the agent is ready", || agent.is_ready());
        agent
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.folder.path().join("conf")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    /// As the DaemonSet's probe asks.
    pub(crate) fn is_ready(&self) -> bool {
        let asked = Command::new(AGENT).arg("ready").arg("--socket").arg(self.socket()).output();
        asked.unwrap().status.success()
    }

    /// SIGTERM, and until it has ended.
    pub(crate) fn stop(&self) -> ExitStatus {
        let mut process = self.process.lock().unwrap();
        kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
        process.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut process = self.process.lock().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// The annotations of an injected pod that has these of its own.
pub(crate) fn annotations(own: Value) -> Value {
    let config = InjectionConfig { capture: Capture::Cni, ..InjectionConfig::default() };
    let namespace = leno_inject::Namespace::of(
        &json!({"metadata": {"name": "shop", "labels": {"leno.dev/inject": "enabled"}}}),
    );
    let pod = json!({"metadata": {"name": "web-0", "annotations": own}, "spec": {"containers": [{"name": "app", "image": "a"}]}});
    match inject(&config, &namespace, &pod, "web").unwrap() {
        Outcome::Injected(injected) => injected.pod["metadata"]["annotations"].clone(),
        Outcome::Left(reason) => panic!("{reason}"),
    }
}

/// What the plugins before have made.
pub(crate) fn previous() -> Value {
    json!({"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "198.18.0.7/24"}], "dns": {}})
}

/// A call by the runtime for pod `web-0`, which tells its annotations unless they are null.
pub(crate) fn call(
    agent: &Agent,
    command: &str,
    namespace: &str,
    pod: &Namespace,
    annotations: &Value,
) -> (Option<Value>, bool) {
    call_at(agent, command, namespace, &pod.path(), annotations)
}

/// The same at any path.
pub(crate) fn call_at(
    agent: &Agent,
    command: &str,
    namespace: &str,
    netns: &Path,
    annotations: &Value,
) -> (Option<Value>, bool) {
    let list = fs::read_to_string(agent.conf().join("10-bridge.conflist")).unwrap();
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut input = list["plugins"][1].clone();
    assert_eq!(input["capabilities"]["io.kubernetes.cri.pod-annotations"], true);
    input["cniVersion"] = list["cniVersion"].clone();
    input["name"] = list["name"].clone();
    input["prevResult"] = previous();
    if !annotations.is_null() {
        input["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    }
    let environment = |name: &str| {
        Some(match name {
            "CNI_COMMAND" => command.to_owned(),
            "CNI_CONTAINERID" => "c1".to_owned(),
            "CNI_NETNS" => netns.to_str().unwrap().to_owned(),
            "CNI_IFNAME" => "eth0".to_owned(),
            "CNI_ARGS" => format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web-0"),
            _ => return None,
        })
    };
    leno_cni_plugin::run(environment, &input.to_string())
}

/// Tries until something holds, for 30 s at most.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..300 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("not within 30 s: {what}");
}
