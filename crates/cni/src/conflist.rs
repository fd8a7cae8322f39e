//! The plugin's entry in a network's configuration, which is a list of plugins.
//!
//! Invariants: all that is not the entry stays, in its order; putting it in twice is putting it in once; taking it out gives what was
//! there before.

use serde_json::{Value, json};
use thiserror::Error;

use crate::Entry;

/// Largest configuration that is read, in bytes.
pub const LARGEST: usize = 1 << 20;

/// Why a configuration cannot have the entry.
#[derive(Debug, Error)]
pub enum NoList {
    /// Not JSON.
    #[error("it is no JSON")]
    Syntax(#[from] serde_json::Error),
    /// It configures one plugin.
    #[error("it configures one plugin, not a list of them (`plugins`), so nothing can be chained in it")]
    OnePlugin,
    /// A list without plugins.
    #[error("its list of plugins is empty")]
    Empty,
}

/// The configuration with the entry at its end, or `None` when it is so already.
///
/// # Errors
/// When there is no list of plugins.
pub fn with(text: &str, entry: &Entry) -> Result<Option<String>, NoList> {
    let mut list: Value = serde_json::from_str(text)?;
    let ours = entry.to_json();
    let plugins = plugins(&mut list)?;
    if plugins.iter().filter(|it| is_of(it, &entry.program)).eq([&ours]) {
        return Ok(None);
    }
    plugins.retain(|it| !is_of(it, &entry.program));
    if plugins.is_empty() {
        return Err(NoList::Empty);
    }
    plugins.push(ours);
    Ok(Some(written(&list)))
}

/// The configuration without entries of `program`, or `None` when it has none. `original` is given back where that says the same.
///
/// # Errors
/// When there is no list of plugins.
pub fn without(text: &str, program: &str, original: Option<&str>) -> Result<Option<String>, NoList> {
    let mut list: Value = serde_json::from_str(text)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|it| !is_of(it, program));
    if plugins.len() == before {
        return Ok(None);
    }
    let same = |original: &&str| serde_json::from_str::<Value>(original).is_ok_and(|it| it == list);
    Ok(Some(original.filter(same).map_or_else(|| written(&list), str::to_owned)))
}

fn plugins(list: &mut Value) -> Result<&mut Vec<Value>, NoList> {
    match list.get_mut("plugins") {
        Some(Value::Array(plugins)) => Ok(plugins),
        _ => Err(NoList::OnePlugin),
    }
}

fn is_of(plugin: &Value, program: &str) -> bool {
    plugin["type"] == json!(program)
}

fn written(list: &Value) -> String {
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = "{\"cniVersion\": \"1.0.0\", \"name\": \"pods\", \"zeta\": {\"b\": 1, \"a\": [true, null]},\n \
        \"plugins\": [{\"type\": \"bridge\", \"mtu\": 9001, \"ipam\": {\"type\": \"host-local\"}}, {\"type\": \"portmap\"}], \"after\": 1.5}";

    fn entry(program: &str) -> Entry {
        Entry {
            program: program.to_owned(),
            revision: "default".to_owned(),
            socket: "/run/leno-cni/agent.sock".to_owned(),
            exclude_namespaces: vec!["kube-system".to_owned()],
        }
    }

    fn types(text: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(text).unwrap();
        list["plugins"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_entry_comes_last_and_all_else_stays_in_its_order() {
        let text = with(BRIDGE, &entry("leno-cni")).unwrap().unwrap();
        assert_eq!(types(&text), ["bridge", "portmap", "leno-cni"]);
        let keys = |text: &str| {
            serde_json::from_str::<Value>(text)
                .unwrap()
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(&text), keys(BRIDGE));
        let mut back: Value = serde_json::from_str(&text).unwrap();
        let ours = back["plugins"].as_array_mut().unwrap().pop().unwrap();
        assert_eq!(back, serde_json::from_str::<Value>(BRIDGE).unwrap());
        assert_eq!(ours["capabilities"], json!({"io.kubernetes.cri.pod-annotations": true}));
    }

    #[test]
    fn the_entry_is_there_once_and_a_changed_one_replaces_it() {
        let once = with(BRIDGE, &entry("leno-cni")).unwrap().unwrap();
        assert_eq!(with(&once, &entry("leno-cni")).unwrap(), None);
        let changed = Entry { socket: "/run/other".to_owned(), ..entry("leno-cni") };
        let text = with(&once, &changed).unwrap().unwrap();
        assert_eq!(types(&text), ["bridge", "portmap", "leno-cni"]);
        assert!(text.contains("/run/other"));
    }

    #[test]
    fn two_revisions_stand_beside_each_other() {
        let both = with(&with(BRIDGE, &entry("leno-cni")).unwrap().unwrap(), &entry("leno-cni-canary"))
            .unwrap()
            .unwrap();
        assert_eq!(types(&both), ["bridge", "portmap", "leno-cni", "leno-cni-canary"]);
        assert_eq!(with(&both, &entry("leno-cni")).unwrap(), None);
        assert_eq!(
            types(&without(&both, "leno-cni", None).unwrap().unwrap()),
            ["bridge", "portmap", "leno-cni-canary"]
        );
    }

    #[test]
    fn taken_out_it_is_the_original_to_the_byte_unless_others_have_changed_it() {
        let text = with(BRIDGE, &entry("leno-cni")).unwrap().unwrap();
        assert_eq!(without(&text, "leno-cni", Some(BRIDGE)).unwrap().as_deref(), Some(BRIDGE));
        let changed = text.replace("9001", "1500");
        let out = without(&changed, "leno-cni", Some(BRIDGE)).unwrap().unwrap();
        assert!(out.contains("1500") && types(&out) == ["bridge", "portmap"], "{out}");
        assert_eq!(without(BRIDGE, "leno-cni", None).unwrap(), None);
    }

    #[test]
    fn what_is_no_list_is_said() {
        let refused = |text: &str| with(text, &entry("leno-cni")).unwrap_err().to_string();
        assert!(refused("{\"type\": \"bridge\"}").contains("one plugin"));
        assert!(refused("{").contains("no JSON"));
        assert!(refused("{\"plugins\": []}").contains("empty"));
    }
}
