//! Files, folders and standard input as a source of objects.
//!
//! Invariant: an object whose new text is broken keeps its last good form; an object disappears only when a text that
//! parses no longer has it, or its file is gone from a folder that can be read. A file that cannot be read (or is empty, as
//! one is while it is being written) says nothing about its objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use leno_apis::{AnyObject, Diagnostic, ObjectRef, Refused, Severity, Source};

use crate::folder::{Found, Text, collect, read_stream};

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
    /// Objects that stay in force in an older form (or out of force) because their present text is broken or waits for another.
    pub kept: BTreeSet<ObjectRef>,
}

/// Reads manifests below some paths, again and again.
#[derive(Debug)]
pub struct FileSource {
    paths: Vec<PathBuf>,
    /// What streams (standard input, pipes) said: they can be read once only.
    streams: BTreeMap<PathBuf, Text>,
    files: BTreeMap<PathBuf, LoadedFile>,
}

#[derive(Debug, Default)]
struct LoadedFile {
    /// What was read last; `None` before the first reading.
    text: Option<Text>,
    objects: BTreeMap<ObjectRef, Arc<AnyObject>>,
    kept: BTreeSet<ObjectRef>,
    diagnostics: Vec<Diagnostic>,
    unused_kinds: BTreeMap<String, usize>,
}

impl FileSource {
    /// A source of these files and folders. `-` is standard input; it and pipes are read once, at the first [`Self::read`].
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect(), streams: BTreeMap::new(), files: BTreeMap::new() }
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
        let mut found = Found::new();
        for path in self.paths.clone() {
            if let Some(text) = self.streams.get(&path) {
                found.insert(path, text.clone());
            } else if is_stream(&path) {
                let text = read_stream(&path).map_err(|source| unreadable(&path, source))?;
                self.streams.insert(path.clone(), text.clone());
                found.insert(path, text);
            } else {
                collect(&path, &mut found).map_err(|source| unreadable(&path, source))?;
            }
        }
        if found.is_empty() {
            let paths =
                self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
            return Err(SourceError::Nothing { paths });
        }
        let same = found.len() == self.files.len()
            && found.iter().all(|(path, text)| self.files.get(path).is_some_and(|file| file.is_of(text)));
        if same {
            return Ok(None);
        }
        let mut before = std::mem::take(&mut self.files);
        for (path, text) in found {
            let old = before.remove(&path).unwrap_or_default();
            let file = if old.is_of(&text) { old } else { load(&path, text, old) };
            self.files.insert(path, file);
        }
        Ok(Some(self.reading()))
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
                    reading.diagnostics.push(duplicate(name, first, object));
                } else {
                    reading.objects.insert(name.clone(), object.clone());
                }
            }
            tracing::trace!(file = %path.display(), objects = file.objects.len(), "read");
        }
        reading
    }
}

impl LoadedFile {
    fn is_of(&self, text: &Text) -> bool {
        self.text.as_ref() == Some(text)
    }

    /// The form of an object that may stay in force when its text breaks.
    fn last_good(&self, name: &ObjectRef) -> Option<&Arc<AnyObject>> {
        let object = self.objects.get(name).filter(|object| !matches!(&***object, AnyObject::Refused(_)))?;
        (self.kept.contains(name) || !is_invalid(&self.diagnostics, name)).then_some(object)
    }
}

fn unreadable(path: &Path, source: io::Error) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), source }
}

/// Whether a path is standard input, a pipe or the like.
fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-" || path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// How a path is quoted.
fn name_of(path: &Path) -> String {
    if path.as_os_str() == "-" { "(standard input)".to_owned() } else { path.display().to_string() }
}

/// Parses a file's new text; what is broken in it stays as it was.
fn load(path: &Path, text: Text, old: LoadedFile) -> LoadedFile {
    let name = name_of(path);
    let content = match &text {
        Ok(content) if content.trim().is_empty() && !old.objects.is_empty() => {
            let what = "the file is empty, so its objects stay in force; delete it to delete them";
            return keep(
                Diagnostic::warning(leno_apis::codes::SYNTAX, Source::whole(&name), what),
                text,
                old,
            );
        }
        Ok(content) => content.clone(),
        Err(problem) => {
            let what = format!("cannot be read: {problem}");
            return keep(Diagnostic::error(leno_apis::codes::SYNTAX, Source::whole(&name), what), text, old);
        }
    };
    let parsed = leno_apis::parse(&name, &content);
    let mut diagnostics = parsed.diagnostics;
    let mut objects: BTreeMap<ObjectRef, Arc<AnyObject>> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    for object in parsed.objects {
        let name = object.reference();
        if let Some(first) = objects.get(&name) {
            diagnostics.push(duplicate(&name, first, &object));
            continue;
        }
        let broken = matches!(&*object, AnyObject::Refused(_)) || is_invalid(&diagnostics, &name);
        match old.last_good(&name) {
            Some(good) if broken => {
                withhold_nothing(&mut diagnostics, &name);
                kept.insert(name.clone());
                objects.insert(name, Arc::clone(good));
            }
            _ => {
                objects.insert(name, object);
            }
        }
    }
    // A document that cannot be read at all may be any object that is missing, so none of them counts as deleted.
    let unreadable = diagnostics.iter().any(|d| d.severity == Severity::Error && d.object.is_none());
    if unreadable {
        for (name, object) in old.objects {
            if let std::collections::btree_map::Entry::Vacant(vacant) = objects.entry(name) {
                kept.insert(vacant.key().clone());
                vacant.insert(object);
            }
        }
    }
    LoadedFile { text: Some(text), objects, kept, diagnostics, unused_kinds: parsed.unused_kinds }
}

/// Whether something of an object is withheld that no API server would have stored.
fn is_invalid(diagnostics: &[Diagnostic], name: &ObjectRef) -> bool {
    diagnostics.iter().any(|said| {
        let withheld = said.severity == Severity::Error && said.effect != Some(Refused::Field);
        withheld && said.object.as_ref() == Some(name) && leno_apis::codes::is_invalid(said.code)
    })
}

/// Takes back that a part is withheld: the whole is as it was.
fn withhold_nothing(diagnostics: &mut [Diagnostic], name: &ObjectRef) {
    for said in diagnostics.iter_mut().filter(|said| said.object.as_ref() == Some(name)) {
        said.effect = None;
    }
}

/// The file as it was, with what is wrong with it now.
fn keep(diagnostic: Diagnostic, text: Text, old: LoadedFile) -> LoadedFile {
    let LoadedFile { text: _, objects, kept: _, diagnostics: _, unused_kinds } = old;
    let kept = objects.keys().cloned().collect();
    LoadedFile { text: Some(text), objects, kept, diagnostics: vec![diagnostic], unused_kinds }
}

/// What is said of an object whose name is taken.
fn duplicate(name: &ObjectRef, first: &AnyObject, object: &AnyObject) -> Diagnostic {
    let message = format!("{name} is in {} already; this one is not used", first.source());
    Diagnostic::error(leno_apis::codes::DUPLICATE_OBJECT, object.source().clone(), message)
        .about(name.clone())
        .refusing(Refused::Object)
}

#[cfg(test)]
mod tests;
