//! `leno-proxy capture`: writes the rules of this network namespace, through the `nft` program.

use std::io::Write as _;

use anyhow::Context as _;
use leno_capture::{Network, Plan, Selection, plan, render, write::write};

/// What to capture. Lists are comma-separated, `*` is everything, an empty list nothing; an exclusion always wins.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Ports of the workload whose callers go through the proxy
    #[arg(long, value_name = "*|PORTS", default_value = "*", value_parser = plan::selected_ports)]
    inbound_ports: Selection<u16>,
    /// Ports of the workload that are left alone
    #[arg(long, value_name = "PORTS", default_value = "")]
    exclude_inbound_ports: String,
    /// Destinations that are called through the proxy
    #[arg(long, value_name = "*|CIDRS", default_value = "*", value_parser = plan::selected_networks)]
    outbound_cidrs: Selection<Network>,
    /// Destinations that are left alone
    #[arg(long, value_name = "CIDRS", default_value = "")]
    exclude_outbound_cidrs: String,
    /// Ports that are called through the proxy whatever the destination
    #[arg(long, value_name = "PORTS", default_value = "")]
    outbound_ports: String,
    /// Ports that are left alone whatever the destination
    #[arg(long, value_name = "PORTS", default_value = "")]
    exclude_outbound_ports: String,
    /// User of the proxy, whose connections are left alone
    #[arg(long, value_name = "UID", default_value_t = 1337, value_parser = clap::value_parser!(u32).range(1..))]
    proxy_uid: u32,
    /// Print the rules instead of writing them
    #[arg(long)]
    dry_run: bool,
}

/// Writes the rules, or prints them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let rules = render(&plan_of(arguments)?);
    if arguments.dry_run {
        std::io::stdout().write_all(rules.as_bytes())?;
        return Ok(());
    }
    write(&rules)?;
    tracing::info!("capture is in force in this network namespace");
    Ok(())
}

fn plan_of(arguments: &Arguments) -> anyhow::Result<Plan> {
    let Arguments {
        inbound_ports,
        exclude_inbound_ports,
        outbound_cidrs,
        exclude_outbound_cidrs,
        outbound_ports,
        exclude_outbound_ports,
        proxy_uid,
        dry_run: _,
    } = arguments;
    Ok(Plan {
        inbound_ports: inbound_ports.clone(),
        exclude_inbound_ports: plan::ports(exclude_inbound_ports).context("--exclude-inbound-ports")?,
        outbound_cidrs: outbound_cidrs.clone(),
        exclude_outbound_cidrs: plan::networks(exclude_outbound_cidrs).context("--exclude-outbound-cidrs")?,
        outbound_ports: plan::ports(outbound_ports).context("--outbound-ports")?,
        exclude_outbound_ports: plan::ports(exclude_outbound_ports).context("--exclude-outbound-ports")?,
        proxy_uid: *proxy_uid,
    })
}
