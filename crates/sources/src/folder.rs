//! Which files are below a path, and their texts.
//!
//! Invariants: a file that cannot be read is there with the reason, so that it is told from one that is gone; nothing is
//! followed round in a circle, and nothing that may never end is read from a folder.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Largest manifest file in bytes.
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Deepest folder below a path that was given.
const MAX_DEPTH: usize = 16;

/// A file's text, or why it cannot be read.
pub(crate) type Text = Result<Arc<str>, Arc<str>>;

/// Texts by path.
pub(crate) type Found = BTreeMap<PathBuf, Text>;

/// Reads a file, or the manifests below a folder, that a user gave. Hidden files are left out.
pub(crate) fn collect(path: &Path, found: &mut Found) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return below(path, &mut vec![(metadata.dev(), metadata.ino())], found);
    }
    found.insert(path.to_owned(), text(read_limited(File::open(path)?)?));
    Ok(())
}

/// Reads what can be read once only: standard input (`-`), a pipe.
pub(crate) fn read_stream(path: &Path) -> io::Result<Text> {
    let bytes = if path.as_os_str() == "-" {
        read_limited(io::stdin().lock())
    } else {
        read_limited(File::open(path)?)
    };
    Ok(text(bytes?))
}

fn below(folder: &Path, inside: &mut Vec<(u64, u64)>, found: &mut Found) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let metadata = fs::metadata(&path);
        match metadata {
            Ok(metadata) if metadata.is_dir() => {
                let here = (metadata.dev(), metadata.ino());
                if inside.len() <= MAX_DEPTH && !inside.contains(&here) {
                    inside.push(here);
                    below(&path, inside, found)?;
                    inside.pop();
                }
            }
            Ok(_) | Err(_) if !is_manifest(&path) => {}
            Ok(metadata) if !metadata.is_file() => {
                found.insert(path, Err("it is no regular file".into()));
            }
            read => match read.and_then(|_| File::open(&path)).and_then(read_limited) {
                Ok(bytes) => {
                    found.insert(path, text(bytes));
                }
                // Deleted while the folder was read; a link that leads nowhere is there.
                Err(_) if fs::symlink_metadata(&path).is_err() => {}
                Err(error) => {
                    found.insert(path, Err(error.to_string().into()));
                }
            },
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

fn read_limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 32 MiB"));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> Text {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.into()),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(format!("line {line} is not UTF-8").into())
        }
    }
}
