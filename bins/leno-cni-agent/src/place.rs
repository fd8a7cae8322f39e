//! The plugin's program and its entry in the node's configuration.
//!
//! Invariants: files are replaced whole, so that the runtime never reads half of one; what the entry was put into is kept beside it, and
//! given back when it is taken out. The runtime takes the configuration whose name comes first, and so does this.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use leno_cni::{
    Entry,
    conflist::{self, LARGEST, NoList},
};
use thiserror::Error;

/// Files that runtimes read.
const SUFFIXES: [&str; 3] = ["conf", "conflist", "json"];

/// What is kept in place, and where.
pub(crate) struct Place {
    /// The program, in the agent's image.
    pub(crate) plugin: PathBuf,
    /// The node's plugins.
    pub(crate) bin_dir: PathBuf,
    /// The node's configurations.
    pub(crate) conf_dir: PathBuf,
    /// The entry.
    pub(crate) entry: Entry,
}

/// Why it is not in place.
#[derive(Debug, Error)]
pub(crate) enum Misplaced {
    #[error("{0}")]
    File(PathBuf, #[source] io::Error),
    #[error("{0} has no configuration: the cluster's own CNI plugin has not come yet")]
    NoNetwork(PathBuf),
    #[error("{0}")]
    NoList(PathBuf, #[source] NoList),
}

impl Place {
    /// Copies the program to the node.
    pub(crate) fn program(&self) -> Result<(), Misplaced> {
        let bytes = fs::read(&self.plugin).map_err(of(&self.plugin))?;
        replace(&self.on_the_node(), &bytes, 0o755)
    }

    fn on_the_node(&self) -> PathBuf {
        self.bin_dir.join(&self.entry.program)
    }

    /// Mends what is not in place; the file that has the entry since then.
    pub(crate) fn keep(&self) -> Result<Option<PathBuf>, Misplaced> {
        // An entry whose program is gone stops every pod of the node, this agent's excepted.
        if !self.on_the_node().exists() {
            self.program()?;
        }
        let files = self.configurations()?;
        let Some((first, others)) = files.split_first() else {
            return Err(Misplaced::NoNetwork(self.conf_dir.clone()));
        };
        for file in others {
            self.take_out(file)?;
        }
        let text = read(first)?;
        let kept = self.kept(first);
        let no_list = |why| Misplaced::NoList(first.clone(), why);
        let Some(chained) = conflist::with(&text, &self.entry).map_err(no_list)? else { return Ok(None) };
        let original = conflist::without(&text, &self.entry.program, read(&kept).ok().as_deref());
        let original = original.map_err(no_list)?.unwrap_or(text);
        let mode = mode(first)?;
        replace(&kept, original.as_bytes(), mode)?;
        replace(first, chained.as_bytes(), mode)?;
        Ok(Some(first.clone()))
    }

    /// Takes the entry out of every configuration. The program stays: a runtime may remember the configuration of a running pod, and
    /// call it at the pod's end.
    pub(crate) fn remove(&self) -> Result<(), Misplaced> {
        self.configurations()?.iter().try_for_each(|file| self.take_out(file))
    }

    fn take_out(&self, file: &Path) -> Result<(), Misplaced> {
        let (text, kept) = (read(file)?, self.kept(file));
        // What is no list never had the entry.
        if let Ok(Some(original)) = conflist::without(&text, &self.entry.program, read(&kept).ok().as_deref())
        {
            replace(file, original.as_bytes(), mode(file)?)?;
        }
        match fs::remove_file(&kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(of(&kept)(error)),
            _ => Ok(()),
        }
    }

    /// In the order in which runtimes look.
    fn configurations(&self) -> Result<Vec<PathBuf>, Misplaced> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.conf_dir).map_err(of(&self.conf_dir))? {
            let path = entry.map_err(of(&self.conf_dir))?.path();
            let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
            if SUFFIXES.contains(&suffix) && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Where the configuration is kept as it was without the entry; no runtime reads such a name.
    fn kept(&self, file: &Path) -> PathBuf {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        self.conf_dir.join(format!(".{name}.before-{}", self.entry.program))
    }
}

fn of(path: &Path) -> impl Fn(io::Error) -> Misplaced {
    let path = path.to_owned();
    move |error| Misplaced::File(path.clone(), error)
}

fn read(path: &Path) -> Result<String, Misplaced> {
    let mut text = String::new();
    let limit = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    read.map(|_| text).map_err(of(path))
}

fn mode(path: &Path) -> Result<u32, Misplaced> {
    let metadata = fs::metadata(path).map_err(of(path))?;
    Ok(metadata.permissions().mode() & 0o777)
}

/// Another file takes its place when it is whole.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Misplaced> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = path.with_file_name(format!(".{name}.draft"));
    let written = File::create(&draft).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    });
    written.map_err(of(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str =
        "{\"cniVersion\": \"1.0.0\", \"name\": \"pods\",   \"plugins\": [{\"type\": \"bridge\"}]}";

    fn place(folder: &Path) -> Place {
        for name in ["bin", "conf"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        fs::write(folder.join("plugin"), "program").unwrap();
        let entry = Entry {
            program: "leno-cni".to_owned(),
            revision: "default".to_owned(),
            socket: "/run/leno-cni/agent.sock".to_owned(),
            exclude_namespaces: vec!["kube-system".to_owned()],
        };
        Place {
            plugin: folder.join("plugin"),
            bin_dir: folder.join("bin"),
            conf_dir: folder.join("conf"),
            entry,
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_put_in_once_kept_in_and_taken_out_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let file = place.conf_dir.join("10-bridge.conflist");
        fs::write(&file, BRIDGE).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(place.keep().unwrap(), Some(file.clone()));
        assert!(read(&file).unwrap().contains("leno-cni"));
        assert_eq!(mode(&file).unwrap(), 0o600);
        assert_eq!(mode(&place.bin_dir.join("leno-cni")).unwrap(), 0o755);
        assert_eq!(place.keep().unwrap(), None, "it is there");
        // The cluster's own plugin starts again, and writes its file anew.
        fs::write(&file, BRIDGE).unwrap();
        assert_eq!(place.keep().unwrap(), Some(file.clone()));
        place.remove().unwrap();
        assert_eq!(read(&file).unwrap(), BRIDGE);
        assert_eq!(names(&place.conf_dir), ["10-bridge.conflist"], "nothing is left");
    }

    #[test]
    fn what_others_change_while_it_is_in_stays_when_it_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let file = place.conf_dir.join("10-bridge.conflist");
        fs::write(&file, BRIDGE).unwrap();
        place.keep().unwrap();
        fs::write(&file, read(&file).unwrap().replace("\"bridge\"", "\"ptp\"")).unwrap();
        place.remove().unwrap();
        let text = read(&file).unwrap();
        assert!(text.contains("ptp") && !text.contains("leno-cni"), "{text}");
    }

    #[test]
    fn it_moves_to_the_configuration_that_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        let (late, early) =
            (place.conf_dir.join("10-bridge.conflist"), place.conf_dir.join("05-other.conflist"));
        fs::write(&late, BRIDGE).unwrap();
        place.keep().unwrap();
        fs::write(&early, BRIDGE).unwrap();
        assert_eq!(place.keep().unwrap(), Some(early.clone()));
        assert_eq!(read(&late).unwrap(), BRIDGE);
        assert!(read(&early).unwrap().contains("leno-cni"));
    }

    #[test]
    fn a_program_that_was_deleted_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        fs::write(place.conf_dir.join("10-bridge.conflist"), BRIDGE).unwrap();
        place.keep().unwrap();
        fs::remove_file(place.bin_dir.join("leno-cni")).unwrap();
        place.keep().unwrap();
        assert_eq!(fs::read(place.bin_dir.join("leno-cni")).unwrap(), b"program");
    }

    #[test]
    fn what_cannot_be_chained_is_said_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        assert!(matches!(place.keep(), Err(Misplaced::NoNetwork(_))));
        let file = place.conf_dir.join("10-bridge.conf");
        for text in ["{\"type\": \"bridge\"}", "{\"plugins\": [{\"ty"] {
            fs::write(&file, text).unwrap();
            assert!(matches!(place.keep(), Err(Misplaced::NoList(..))));
            place.remove().unwrap();
            assert_eq!(read(&file).unwrap(), text);
        }
    }
}
