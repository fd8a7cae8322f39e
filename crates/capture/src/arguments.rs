//! A plan from the arguments of `leno-proxy capture`, as the injector writes them to a pod's annotation: a JSON list.
//!
//! Whoever makes a pod can write them, so they are bounded, and what is not understood is refused. They can say nothing but which of
//! the pod's own connections are redirected.

use thiserror::Error;

use crate::plan::{self, BadEntry, Plan};

/// Longest text: some thousand ports or networks.
pub const LONGEST: usize = 16 << 10;

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum NoPlan {
    /// Too long.
    #[error("it has {0} bytes; at most {LONGEST} are read")]
    TooLong(usize),
    /// Not a JSON list of strings.
    #[error("it is no JSON list of strings")]
    NoList(#[source] serde_json::Error),
    /// An option without a value.
    #[error("{0} has no value")]
    NoValue(String),
    /// An option that is none, or is there twice.
    #[error("{0:?} is no option, or is there twice")]
    Unknown(String),
    /// A value that cannot be read.
    #[error("{option}")]
    Value {
        /// The option.
        option: String,
        /// What is wrong.
        #[source]
        why: BadEntry,
    },
    /// A user that the proxy never is.
    #[error("--proxy-uid: {0:?} is no user from 1 on")]
    User(String),
}

/// Reads a plan. Options that are not there have their defaults.
///
/// # Errors
/// When there is anything in the text that is not understood.
pub fn read(text: &str) -> Result<Plan, NoPlan> {
    if text.len() > LONGEST {
        return Err(NoPlan::TooLong(text.len()));
    }
    let words: Vec<String> = serde_json::from_str(text).map_err(NoPlan::NoList)?;
    let mut plan = Plan::default();
    let mut seen = Vec::new();
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(NoPlan::NoValue(pair[0].clone())) };
        if seen.contains(&option) {
            return Err(NoPlan::Unknown(option.clone()));
        }
        seen.push(option);
        take(&mut plan, option, value)?;
    }
    Ok(plan)
}

fn take(plan: &mut Plan, option: &str, value: &str) -> Result<(), NoPlan> {
    let wrong = |why| NoPlan::Value { option: option.to_owned(), why };
    match option {
        "--inbound-ports" => plan.inbound_ports = plan::selected_ports(value).map_err(wrong)?,
        "--exclude-inbound-ports" => plan.exclude_inbound_ports = plan::ports(value).map_err(wrong)?,
        "--outbound-cidrs" => plan.outbound_cidrs = plan::selected_networks(value).map_err(wrong)?,
        "--exclude-outbound-cidrs" => plan.exclude_outbound_cidrs = plan::networks(value).map_err(wrong)?,
        "--outbound-ports" => plan.outbound_ports = plan::ports(value).map_err(wrong)?,
        "--exclude-outbound-ports" => plan.exclude_outbound_ports = plan::ports(value).map_err(wrong)?,
        "--proxy-uid" => {
            let user = value.parse().ok().filter(|user| *user > 0);
            plan.proxy_uid = user.ok_or_else(|| NoPlan::User(value.to_owned()))?;
        }
        _ => return Err(NoPlan::Unknown(option.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Selection, networks};

    #[test]
    fn every_option_of_the_command_is_read() {
        let text = r#"["--inbound-ports","80,443","--exclude-inbound-ports","22","--outbound-cidrs","*",
            "--exclude-outbound-cidrs","10.0.0.0/8","--outbound-ports","9092","--exclude-outbound-ports","5432","--proxy-uid","7"]"#;
        let plan = Plan {
            inbound_ports: Selection::Only(vec![80, 443]),
            exclude_inbound_ports: vec![22],
            outbound_cidrs: Selection::All,
            exclude_outbound_cidrs: networks("10.0.0.0/8").unwrap(),
            outbound_ports: vec![9092],
            exclude_outbound_ports: vec![5432],
            proxy_uid: 7,
        };
        assert_eq!(read(text).unwrap(), plan);
        assert_eq!(read("[]").unwrap(), Plan::default());
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        for (text, named) in [
            ("{}", "list"),
            (r#"["--dry-run"]"#, "--dry-run"),
            (r#"["--dry-run", "1"]"#, "--dry-run"),
            (r#"["--outbound-ports", "80", "--outbound-ports", "81"]"#, "--outbound-ports"),
            (r#"["--outbound-ports", "80; flush ruleset"]"#, "--outbound-ports"),
            (r#"["--outbound-cidrs", "0.0.0.0/0 } delete table"]"#, "--outbound-cidrs"),
            (r#"["--proxy-uid", "0"]"#, "--proxy-uid"),
            (r#"["--proxy-uid", "1 return"]"#, "--proxy-uid"),
        ] {
            let refusal = read(text).unwrap_err().to_string();
            assert!(refusal.contains(named), "{text}: {refusal}");
        }
        let long = format!(r#"["--outbound-ports", "{}"]"#, "80,".repeat(LONGEST));
        assert!(matches!(read(&long), Err(NoPlan::TooLong(_))));
    }
}
