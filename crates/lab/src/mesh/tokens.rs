//! Join tokens, handed to proxies once, and the file in which the control plane finds their digests.
//!
//! Invariants: a token is in the file before it is handed out; the file holds no token, only digests; expired ones leave it.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use leno_control::tokens::{TokenFile, TokenGrant};
use leno_model::{SpiffeId, WorkloadId};
use rand::RngCore as _;
use tokio::sync::Mutex;

/// How long a proxy may take to join.
const LIFETIME: Duration = Duration::from_secs(300);

/// The tokens of one cluster.
pub(super) struct Tokens {
    file: PathBuf,
    waiting: parking_lot::Mutex<Waiting>,
    /// The number of tokens that the file reflects.
    written: Mutex<u64>,
}

#[derive(Default)]
struct Waiting {
    made: u64,
    entries: TokenFile,
}

impl Tokens {
    pub(super) fn new(file: PathBuf) -> io::Result<Self> {
        super::runtime_dir::replace(&file, b"{}")?;
        Ok(Self { file, waiting: parking_lot::Mutex::default(), written: Mutex::new(0) })
    }

    /// A token for a workload. Several callers at once share one writing of the file.
    pub(super) async fn issue(&self, workload: &WorkloadId, identity: &SpiffeId) -> io::Result<String> {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        let token: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = leno_ca::token_digest(token.as_bytes());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let grant = TokenGrant {
            workload: workload.to_string(),
            identity: identity.clone(),
            expires: now + LIFETIME.as_secs(),
        };
        let mine = {
            let mut waiting = self.waiting.lock();
            waiting.entries.retain(|_, grant| grant.expires >= now);
            waiting.entries.insert(digest, grant);
            waiting.made += 1;
            waiting.made
        };
        let mut written = self.written.lock().await;
        if *written < mine {
            let (made, text) = {
                let waiting = self.waiting.lock();
                (waiting.made, serde_json::to_vec(&waiting.entries)?)
            };
            super::runtime_dir::replace(&self.file, &text)?;
            *written = made;
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_names_every_token_that_was_handed_out_and_holds_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.json");
        let tokens = Tokens::new(file.clone()).unwrap();
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        for name in ["a", "b"] {
            let token = tokens.issue(&WorkloadId::new("shop", name), &identity).await.unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains(&leno_ca::token_digest(token.as_bytes())));
            assert!(!text.contains(&token));
            assert!(text.contains(&format!("shop/{name}")));
        }
    }
}
