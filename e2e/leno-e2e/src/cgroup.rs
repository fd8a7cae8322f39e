//! What a container has used, as its control groups (version 1) say.
//!
//! Must not know: what runs in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Folders below which containers' groups are looked for.
const DEPTH: usize = 8;

/// Seconds of CPU.
pub(crate) fn cpu(container: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(group(&["cpuacct", "cpu,cpuacct"], container)?.join("cpuacct.usage"))?;
    Ok(text.trim().parse::<f64>()? / 1e9)
}

/// MiB that cannot be given back: without pages of files that nobody has used lately, as `kubectl top` counts.
pub(crate) fn memory(container: &str) -> anyhow::Result<f64> {
    let group = group(&["memory"], container)?;
    let used: f64 = fs::read_to_string(group.join("memory.usage_in_bytes"))?.trim().parse()?;
    let stat = fs::read_to_string(group.join("memory.stat"))?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix("total_inactive_file "));
    let inactive: f64 = inactive.context("memory.stat has no total_inactive_file")?.parse()?;
    Ok((used - inactive) / f64::from(1 << 20))
}

fn group(controllers: &[&str], container: &str) -> anyhow::Result<PathBuf> {
    for controller in controllers {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        if let Some(found) = find(&root, container, DEPTH) {
            return Ok(found);
        }
    }
    bail!("container {container} has no group of {controllers:?} in /sys/fs/cgroup")
}

fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let below = fs::read_dir(folder).ok()?.flatten();
    let folders = below.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path());
    let folders = folders.collect::<Vec<_>>();
    let named = folders.iter().find(|it| it.file_name().is_some_and(|it| it == name)).cloned();
    named.or_else(|| (depth > 0).then(|| folders.iter().find_map(|it| find(it, name, depth - 1)))?)
}
