//! Manifests together with what a supervisor of a mesh without Kubernetes adds: cluster IPs, and the pods that run.
//!
//! The supervisor owns the overlay file and replaces it by rename. What it says of pods counts: a bare Pod of the user's that
//! has no address is only the wish for one, so it is left out.
//!
//! Invariant: an overlay that cannot be read changes nothing; it is said, and the last one stays in force.
//! Must not know: how pods are planned or started.

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use leno_apis::{AnyObject, Diagnostic, ObjectRef, Source};
use serde::{Deserialize, Serialize};

use crate::{FileSource, Reading, SourceError};

/// Largest overlay in bytes.
const MAX_OVERLAY_BYTES: u64 = 64 * 1024 * 1024;

/// What is added to the user's objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Cluster IPs by `namespace/name`, for Services that have none of their own.
    #[serde(default)]
    pub services: BTreeMap<String, IpAddr>,
    /// The pods that run, as an API server would give them.
    #[serde(default)]
    pub pods: Vec<serde_json::Value>,
}

impl Overlay {
    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(&beside, path)
    }
}

/// Reads manifests and an overlay, again and again.
#[derive(Debug)]
pub struct EmbeddedSource {
    files: FileSource,
    user: Option<Reading>,
    path: PathBuf,
    text: Option<String>,
    services: BTreeMap<String, IpAddr>,
    pods: BTreeMap<ObjectRef, RunningPod>,
    problems: Vec<Diagnostic>,
}

/// A pod as the overlay has it, and what that means.
#[derive(Debug)]
struct RunningPod {
    json: serde_json::Value,
    object: Arc<AnyObject>,
}

impl EmbeddedSource {
    /// The manifests of `files` under the overlay at `path`.
    pub fn new(files: FileSource, path: PathBuf) -> Self {
        Self {
            files,
            user: None,
            path,
            text: None,
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    /// The paths to watch.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.paths().iter().cloned().chain([self.path.clone()]).collect()
    }

    /// Reads what is there. `None`: nothing changed since the last time.
    ///
    /// # Errors
    /// When the manifests cannot be read, or the overlay cannot the first time; what was read before stays.
    pub fn read(&mut self) -> Result<Option<Reading>, SourceError> {
        let overlay = self.read_overlay()?;
        let files = match self.files.read() {
            // Pods come and go although the manifests cannot be seen at present.
            Err(error) if overlay && self.user.is_some() => {
                let at = Source::whole(&self.path.display().to_string());
                let mut reading = self.merged();
                reading.diagnostics.push(Diagnostic::error(leno_apis::codes::SYNTAX, at, error.to_string()));
                return Ok(Some(reading));
            }
            read => read?,
        };
        let changed = files.is_some() || overlay;
        self.user = files.or(self.user.take());
        Ok(changed.then(|| self.merged()))
    }

    /// Reads the overlay; whether something changed.
    fn read_overlay(&mut self) -> Result<bool, SourceError> {
        let text = match read_text(&self.path) {
            Ok(text) => text,
            Err(source) if self.text.is_none() => {
                return Err(SourceError::Unreadable { path: self.path.clone(), source });
            }
            Err(error) => return Ok(self.note(vec![self.problem(0, error.to_string())])),
        };
        if self.text.as_ref() == Some(&text) && self.problems.is_empty() {
            return Ok(false);
        }
        let parsed = serde_json::from_str::<Overlay>(&text);
        let first = self.text.is_none();
        match parsed {
            Ok(overlay) => {
                self.text = Some(text);
                self.take(overlay);
                Ok(true)
            }
            Err(error) if first => {
                Err(SourceError::Unreadable { path: self.path.clone(), source: error.into() })
            }
            Err(error) => {
                let line = u32::try_from(error.line()).unwrap_or(0);
                Ok(self.note(vec![self.problem(line, error.to_string())]))
            }
        }
    }

    fn problem(&self, line: u32, message: String) -> Diagnostic {
        let at = Source { line, column: line.min(1), ..Source::whole(&self.path.display().to_string()) };
        Diagnostic::error(leno_apis::codes::SYNTAX, at, format!("the last overlay stays in force: {message}"))
    }

    /// Remembers what is wrong; whether that is news.
    fn note(&mut self, problems: Vec<Diagnostic>) -> bool {
        let news = self.problems != problems;
        self.problems = problems;
        news
    }

    fn take(&mut self, overlay: Overlay) {
        let Overlay { services, pods } = overlay;
        self.services = services;
        let mut before = std::mem::take(&mut self.pods);
        self.problems.clear();
        let file = self.path.display().to_string();
        for json in pods {
            let name = reference(&json);
            // A pod that is as it was keeps its object, so that comparing readings costs nothing.
            if let Some((name, pod)) = name.and_then(|name| before.remove_entry(&name))
                && pod.json == json
            {
                self.pods.insert(name, pod);
                continue;
            }
            let parsed = leno_apis::parse_json(&file, &json);
            self.problems.extend(parsed.diagnostics);
            for object in parsed.objects {
                self.pods.insert(object.reference(), RunningPod { json: json.clone(), object });
            }
        }
    }

    fn merged(&self) -> Reading {
        let mut reading = self.user.clone().unwrap_or_default();
        reading.objects.retain(
            |_, object| !matches!(&**object, AnyObject::Pod(pod) if pod.spec.status.pod_ip.is_none()),
        );
        for object in reading.objects.values_mut() {
            if let Some(patched) = self.with_address(object) {
                *object = patched;
            }
        }
        let pods = self.pods.iter().map(|(name, pod)| (name.clone(), pod.object.clone()));
        reading.objects.extend(pods);
        reading.diagnostics.extend(self.problems.iter().cloned());
        reading
    }

    fn with_address(&self, object: &Arc<AnyObject>) -> Option<Arc<AnyObject>> {
        let AnyObject::Service(service) = &**object else { return None };
        let spec = &service.spec;
        if spec.headless || !spec.cluster_ips.is_empty() || spec.external_name.is_some() {
            return None;
        }
        let address = self.services.get(&format!("{}/{}", service.namespace(), service.name()))?;
        let mut service = service.clone();
        service.spec.cluster_ips = vec![address.to_string()];
        Some(Arc::new(AnyObject::Service(service)))
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_OVERLAY_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "more than 64 MiB"));
    }
    fs::read_to_string(path)
}

/// Names a pod without decoding it.
fn reference(json: &serde_json::Value) -> Option<ObjectRef> {
    let metadata = json.get("metadata")?;
    let text = |field: &str| metadata.get(field).and_then(serde_json::Value::as_str);
    Some(ObjectRef {
        group: "".into(),
        kind: "Pod".into(),
        namespace: Some(text("namespace").unwrap_or("default").into()),
        name: text("name")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    const BARE: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: bare}\nspec: {containers: [{name: x}]}\n";

    fn pod(name: &str, ip: &str) -> serde_json::Value {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "x"}]},
            "status": {"podIP": ip, "phase": "Running"},
        })
    }

    fn source() -> (tempfile::TempDir, EmbeddedSource) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("m")).unwrap();
        fs::write(folder.path().join("m/a.yaml"), format!("{SERVICE}---\n{BARE}")).unwrap();
        let overlay = Overlay {
            services: [("default/a".to_owned(), "240.240.0.1".parse().unwrap())].into(),
            pods: vec![pod("a-1", "127.16.0.2")],
        };
        overlay.write(&folder.path().join("overlay.json")).unwrap();
        let files = FileSource::new([folder.path().join("m")]);
        let source = EmbeddedSource::new(files, folder.path().join("overlay.json"));
        (folder, source)
    }

    fn names(reading: &Reading) -> Vec<String> {
        reading.objects.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn services_get_addresses_and_running_pods_replace_wishes() {
        let (_folder, mut source) = source();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(names(&reading), ["Pod default/a-1", "Service default/a"]);
        let AnyObject::Service(service) = &*reading.objects.values().nth(1).unwrap().clone() else {
            panic!("no service")
        };
        assert_eq!(service.spec.cluster_ips, ["240.240.0.1"]);
        assert!(service.source.line > 0, "the place in the user's file stays");
        assert!(source.read().unwrap().is_none());
    }

    #[test]
    fn unchanged_pods_keep_their_objects() {
        let (folder, mut source) = source();
        let before = source.read().unwrap().unwrap();
        let overlay = Overlay {
            services: BTreeMap::new(),
            pods: vec![pod("a-1", "127.16.0.2"), pod("a-2", "127.16.0.3")],
        };
        overlay.write(&folder.path().join("overlay.json")).unwrap();
        let after = source.read().unwrap().unwrap();
        let name = before.objects.keys().next().unwrap();
        assert!(Arc::ptr_eq(&before.objects[name], &after.objects[name]));
        assert_eq!(names(&after), ["Pod default/a-1", "Pod default/a-2", "Service default/a"]);
    }

    #[test]
    fn a_broken_or_missing_overlay_keeps_the_last_one() {
        let (folder, mut source) = source();
        let path = folder.path().join("overlay.json");
        let good = source.read().unwrap().unwrap();
        fs::write(&path, "{\"pods\": [").unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(reading.objects, good.objects);
        assert_eq!(reading.diagnostics.len(), 1);
        assert!(source.read().unwrap().is_none(), "the same problem is said once");
        fs::remove_file(&path).unwrap();
        assert_eq!(source.read().unwrap().unwrap().objects, good.objects);
    }

    #[test]
    fn without_an_overlay_there_is_no_first_reading() {
        let (folder, mut source) = source();
        fs::remove_file(folder.path().join("overlay.json")).unwrap();
        assert!(matches!(source.read(), Err(SourceError::Unreadable { .. })));
    }
}
