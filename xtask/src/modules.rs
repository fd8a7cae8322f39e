//! Every module opens with `//!`, none is named after nothing, and no file is two rooms.

use std::{fs, path::Path};

/// Names that say no job (STYLE 2).
const NAMELESS: [&str; 6] = ["utils", "util", "common", "helpers", "misc", "manager"];

/// Most lines of a file (STYLE 1).
const MAX_LINES: usize = 850;

/// What breaks a rule below `root`.
pub(crate) fn faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for folder in ["crates", "bins", "e2e", "xtask"] {
        visit(&root.join(folder), &mut faults)?;
    }
    Ok(faults)
}

fn visit(folder: &Path, faults: &mut Vec<String>) -> anyhow::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != "gen") {
                visit(&path, faults)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            faults.extend(file_faults(&path, &fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn file_faults(path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if NAMELESS.contains(&stem) {
        faults.push(format!("{}: `{stem}` does not say a job", path.display()));
    }
    if !text.starts_with("//!") && !text.starts_with("// @generated") {
        faults.push(format!("{}: does not open with `//!`", path.display()));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{}: {lines} lines, more than {MAX_LINES}", path.display()));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_named_after_nothing_and_one_without_a_header_are_faults() {
        assert_eq!(file_faults(Path::new("a/utils.rs"), "//! x\n").len(), 1);
        assert_eq!(file_faults(Path::new("a/route.rs"), "fn x() {}\n").len(), 1);
        assert!(file_faults(Path::new("a/route.rs"), "//! x\n").is_empty());
        assert_eq!(file_faults(Path::new("a/route.rs"), &"//! x\n".repeat(900)).len(), 1);
    }
}
