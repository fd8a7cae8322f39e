//! Files, folders and standard input as a source of objects.
//!
//! Invariant: an object whose new text is broken keeps its last good form; an object disappears only when a text that
//! parses no longer has it, or its file is gone from a folder that can be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use leno_apis::{AnyObject, Diagnostic, ObjectRef, Refused, Severity};

/// Largest manifest file in bytes.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Deepest folder below a path that was given.
const MAX_DEPTH: usize = 16;

/// A path cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The path that was given does not exist or cannot be read.
    #[error("{}: cannot be read", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No manifest is below the paths.
    #[error("no .yaml, .yml or .json file is below {paths}")]
    Nothing {
        /// The paths.
        paths: String,
    },
}

/// Everything the source has, with what is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Every object, by name, last good form.
    pub objects: BTreeMap<ObjectRef, Arc<AnyObject>>,
    /// What is wrong with the present texts.
    pub diagnostics: Vec<Diagnostic>,
    /// Kinds that are not used, and how many objects of each.
    pub unused_kinds: BTreeMap<String, usize>,
    /// Objects that stay in force in an older form because their present text is broken.
    pub kept: BTreeSet<ObjectRef>,
}

/// Reads manifests below some paths, again and again.
#[derive(Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    stdin: Option<Arc<str>>,
    files: BTreeMap<PathBuf, LoadedFile>,
}

#[derive(Debug, Default)]
struct LoadedFile {
    text: Arc<str>,
    objects: BTreeMap<ObjectRef, Arc<AnyObject>>,
    kept: BTreeSet<ObjectRef>,
    diagnostics: Vec<Diagnostic>,
    unused_kinds: BTreeMap<String, usize>,
}

impl FileSource {
    /// A source of these files and folders; `-` is standard input, read once, at the first [`Self::read`].
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect(), stdin: None, files: BTreeMap::new() }
    }

    /// The paths to watch.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// Reads what is there. `None`: nothing changed since the last time.
    ///
    /// # Errors
    /// When a path that was given cannot be read; what was read before stays.
    pub fn read(&mut self) -> Result<Option<Reading>, SourceError> {
        let mut found = BTreeMap::new();
        for path in self.paths.clone() {
            if path.as_os_str() == "-" {
                found.insert(PathBuf::from("(standard input)"), self.read_stdin()?);
            } else {
                collect(&path, 0, true, &mut found)?;
            }
        }
        if found.is_empty() {
            let paths =
                self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            return Err(SourceError::Nothing { paths });
        }
        let same = found.len() == self.files.len()
            && found.iter().all(|(path, text)| self.files.get(path).is_some_and(|file| file.text == *text));
        if same {
            return Ok(None);
        }
        let mut before = std::mem::take(&mut self.files);
        for (path, text) in found {
            let old = before.remove(&path).unwrap_or_default();
            let file = if old.text == text && !text.is_empty() { old } else { load(&path, text, old) };
            self.files.insert(path, file);
        }
        Ok(Some(self.reading()))
    }

    fn read_stdin(&mut self) -> Result<Arc<str>, SourceError> {
        if let Some(text) = &self.stdin {
            return Ok(text.clone());
        }
        let mut text = String::new();
        io::stdin()
            .lock()
            .take(MAX_FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|source| SourceError::Unreadable { path: "-".into(), source })?;
        let text: Arc<str> = text.into();
        self.stdin = Some(text.clone());
        Ok(text)
    }

    /// All files together. Of two objects with one name the first file's counts, in the order of their paths.
    fn reading(&self) -> Reading {
        let mut reading = Reading::default();
        for (path, file) in &self.files {
            reading.diagnostics.extend(file.diagnostics.iter().cloned());
            reading.kept.extend(file.kept.iter().cloned());
            for (kind, count) in &file.unused_kinds {
                *reading.unused_kinds.entry(kind.clone()).or_default() += count;
            }
            for (name, object) in &file.objects {
                if let Some(first) = reading.objects.get(name) {
                    let message = format!("{name} is in {} already; this one is not used", first.source());
                    let diagnostic = Diagnostic::error(
                        leno_apis::codes::DUPLICATE_OBJECT,
                        object.source().clone(),
                        message,
                    )
                    .about(name.clone())
                    .refusing(Refused::Object);
                    reading.diagnostics.push(diagnostic);
                } else {
                    reading.objects.insert(name.clone(), object.clone());
                }
            }
            tracing::trace!(file = %path.display(), objects = file.objects.len(), "read");
        }
        reading
    }
}

/// Parses a file's new text; what is broken in it stays as it was.
fn load(path: &Path, text: Arc<str>, old: LoadedFile) -> LoadedFile {
    let parsed = leno_apis::parse(&path.display().to_string(), &text);
    let mut objects = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for object in parsed.objects {
        let name = object.reference();
        match (&*object, old.objects.get(&name)) {
            (AnyObject::Refused(_), Some(good)) if !matches!(&**good, AnyObject::Refused(_)) => {
                kept.insert(name.clone());
                objects.insert(name, good.clone());
            }
            _ => {
                objects.entry(name).or_insert(object);
            }
        }
    }
    // A document that cannot be read at all may be any object that is missing, so none of them counts as deleted.
    let unreadable = parsed.diagnostics.iter().any(|d| d.severity == Severity::Error && d.object.is_none());
    if unreadable {
        for (name, object) in old.objects {
            if let std::collections::btree_map::Entry::Vacant(vacant) = objects.entry(name) {
                kept.insert(vacant.key().clone());
                vacant.insert(object);
            }
        }
    }
    LoadedFile { text, objects, kept, diagnostics: parsed.diagnostics, unused_kinds: parsed.unused_kinds }
}

fn collect(
    path: &Path,
    depth: usize,
    given: bool,
    found: &mut BTreeMap<PathBuf, Arc<str>>,
) -> Result<(), SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        if depth == MAX_DEPTH {
            return Ok(());
        }
        let mut entries: Vec<_> =
            fs::read_dir(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !hidden {
                collect(&entry.path(), depth + 1, false, found)?;
            }
        }
        return Ok(());
    }
    let manifest = path
        .extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json");
    if !given && !manifest {
        return Ok(());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, "more than 32 MiB")));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    found.insert(path.to_owned(), String::from_utf8_lossy(&bytes).into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    const OTHER: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {ports: [{port: 80}]}\n";

    fn folder() -> (tempfile::TempDir, FileSource) {
        let folder = tempfile::tempdir().unwrap();
        let source = FileSource::new([folder.path().to_owned()]);
        (folder, source)
    }

    fn names(reading: &Reading) -> Vec<&str> {
        reading.objects.keys().map(|name| &*name.name).collect()
    }

    #[test]
    fn an_unchanged_folder_is_not_read_twice() {
        let (folder, mut source) = folder();
        fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
        assert_eq!(names(&source.read().unwrap().unwrap()), ["a"]);
        assert!(source.read().unwrap().is_none());
    }

    #[test]
    fn a_deleted_object_goes_and_a_broken_text_keeps_the_last_good_one() {
        let (folder, mut source) = folder();
        let file = folder.path().join("a.yaml");
        fs::write(&file, format!("{GOOD}---\n{OTHER}")).unwrap();
        assert_eq!(names(&source.read().unwrap().unwrap()), ["a", "b"]);

        fs::write(&file, format!("{GOOD}---\nkind: [\n")).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(names(&reading), ["a", "b"], "a text that cannot be read deletes nothing");
        assert_eq!(reading.kept.len(), 1);
        assert!(!reading.diagnostics.is_empty());

        fs::write(&file, GOOD).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(names(&reading), ["a"]);
        assert!(reading.kept.is_empty());
    }

    #[test]
    fn an_object_that_becomes_invalid_stays_in_its_last_good_form() {
        let (folder, mut source) = folder();
        let file = folder.path().join("a.yaml");
        fs::write(&file, GOOD).unwrap();
        let good = source.read().unwrap().unwrap();
        fs::write(&file, GOOD.replace("80", "eighty")).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(reading.objects, good.objects);
        assert_eq!(reading.kept.len(), 1);
    }

    #[test]
    fn of_two_objects_with_one_name_the_first_file_counts() {
        let (folder, mut source) = folder();
        fs::write(folder.path().join("1.yaml"), GOOD).unwrap();
        fs::write(folder.path().join("2.yaml"), GOOD).unwrap();
        let reading = source.read().unwrap().unwrap();
        assert_eq!(reading.objects.len(), 1);
        assert_eq!(reading.diagnostics.len(), 1);
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_and_not_an_empty_world() {
        let (folder, mut source) = folder();
        assert!(matches!(source.read(), Err(SourceError::Nothing { .. })));
        fs::write(folder.path().join("a.yaml"), GOOD).unwrap();
        source.read().unwrap();
        drop(folder);
        assert!(matches!(source.read(), Err(SourceError::Unreadable { .. })));
    }
}
