//! Rules into the network namespace of the calling thread, through the `nft` program.
//!
//! Invariants: one transaction, all of it or nothing; `nft` is not waited for without end.

use std::{
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

use thiserror::Error;

use crate::rules::TABLE;

/// Where images have nft. What `PATH` says is the runtime's choice in an image without one, and it may leave `sbin` out.
const NFT: &str = "/usr/sbin/nft";
/// Between two looks at whether nft has ended, and looks at most: 10 s.
const PERIOD: Duration = Duration::from_millis(5);
const LOOKS: usize = 2000;

/// Why the rules are not in force.
#[derive(Debug, Error)]
pub enum NotWritten {
    /// There is no nft.
    #[error("nft cannot be started; the image must have nftables")]
    NoNft(#[source] io::Error),
    /// It did not do it.
    #[error("nft refuses the rules ({status}; it needs the capability NET_ADMIN): {said}")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// There are none.
    #[error("they are not there: {0}")]
    Absent(String),
    /// It did not end.
    #[error("nft has not ended for 10 s")]
    Late,
    /// Its ends of the pipes broke.
    #[error("nft cannot be talked with")]
    Pipe(#[from] io::Error),
}

/// Replaces this namespace's rules by these.
///
/// # Errors
/// When they are not in force; then those of before are.
pub fn write(rules: &str) -> Result<(), NotWritten> {
    let mut nft = start(&["-f", "-"])?;
    // What nft did not read shows in its exit status and what it says.
    let written = match nft.stdin.take() {
        Some(mut input) => input.write_all(rules.as_bytes()),
        None => Ok(()),
    };
    end(nft)?;
    Ok(written?)
}

/// Whether this namespace has rules of ours.
///
/// # Errors
/// When it has none, or that cannot be seen.
pub fn verify() -> Result<(), NotWritten> {
    match end(start(&["list", "table", "inet", TABLE])?) {
        Err(NotWritten::Refused { said, .. }) => Err(NotWritten::Absent(said)),
        other => other,
    }
}

fn start(arguments: &[&str]) -> Result<Child, NotWritten> {
    let program = if Path::new(NFT).exists() { NFT } else { "nft" };
    let mut nft = Command::new(program);
    nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    nft.spawn().map_err(NotWritten::NoNft)
}

fn end(mut nft: Child) -> Result<(), NotWritten> {
    for _ in 0..LOOKS {
        let Some(status) = nft.try_wait()? else {
            sleep(PERIOD);
            continue;
        };
        if status.success() {
            return Ok(());
        }
        let mut said = Vec::new();
        if let Some(complaint) = nft.stderr.take() {
            complaint.take(4096).read_to_end(&mut said)?;
        }
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(NotWritten::Refused { status, said });
    }
    nft.kill()?;
    nft.wait()?;
    Err(NotWritten::Late)
}
