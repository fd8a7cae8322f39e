//! Join tokens from the file that a supervisor writes: only digests of them, with whom each is for.
//!
//! Invariants: a token works once, also across a restart of this process (what was used is kept beside the file), before its
//! end, and for the identity it was made for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use leno_ca::token_digest;
use leno_identity::{SpiffeId, UnixTime};
use leno_model::WorkloadId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Larger files are not ours.
const MAX_BYTES: u64 = 64 << 20;

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenGrant {
    /// `namespace/name` of the workload or gateway.
    pub workload: String,
    /// The identity that its certificate will name.
    pub identity: SpiffeId,
    /// The last second in which it works, since 1970.
    pub expires: u64,
}

/// The tokens file: grants by [`leno_ca::token_digest`].
pub type TokenFile = BTreeMap<String, TokenGrant>;

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenProblem {
    #[error("this control plane takes no join tokens")]
    None,
    #[error("the join token is unknown or was used already")]
    Unknown,
    #[error("the join token has expired; the workload took too long to start")]
    Expired,
    #[error("{workload} is {expected} in the mesh, and the join token is for {granted}")]
    OtherIdentity { workload: String, granted: SpiffeId, expected: SpiffeId },
    #[error("the tokens cannot be read or marked as used")]
    Io(#[source] io::Error),
}

/// The tokens that are not used yet.
pub(crate) struct Tokens {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stamp: Option<(SystemTime, u64)>,
    grants: TokenFile,
    used: BTreeSet<String>,
}

impl Tokens {
    /// Those of a file, which may not be there yet.
    pub(crate) fn new(path: Option<PathBuf>) -> io::Result<Self> {
        let used = match path.as_deref().map(used_path).map(fs::read_to_string) {
            Some(Ok(text)) => text.lines().map(str::to_owned).collect(),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Some(Err(_)) | None => BTreeSet::new(),
        };
        Ok(Self { path, state: Mutex::new(State { used, ..State::default() }) })
    }

    /// Whom a token was made for; it is used up by this. `identity_of` says what the mesh knows of a workload: a token for
    /// another identity than the workload has is refused.
    pub(crate) fn redeem(
        &self,
        token: &[u8],
        now: UnixTime,
        identity_of: impl FnOnce(&WorkloadId) -> Option<SpiffeId>,
    ) -> Result<TokenGrant, TokenProblem> {
        let path = self.path.as_deref().ok_or(TokenProblem::None)?;
        let digest = token_digest(token);
        let mut state = self.state.lock();
        state.refresh(path).map_err(TokenProblem::Io)?;
        let grant = state.grants.get(&digest).filter(|_| !state.used.contains(&digest));
        let grant = grant.cloned().ok_or(TokenProblem::Unknown)?;
        if now.as_secs() > grant.expires {
            return Err(TokenProblem::Expired);
        }
        let workload: WorkloadId = grant.workload.parse().map_err(|_| TokenProblem::Unknown)?;
        // A supervisor may hand a token over before the mesh has heard of the pod.
        if let Some(expected) = identity_of(&workload)
            && expected != grant.identity
        {
            return Err(TokenProblem::OtherIdentity {
                workload: grant.workload,
                granted: grant.identity,
                expected,
            });
        }
        mark(&used_path(path), &digest).map_err(TokenProblem::Io)?;
        state.used.insert(digest);
        Ok(grant)
    }
}

impl State {
    /// Reads the file again if it is another one.
    fn refresh(&mut self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if metadata.len() > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // A file that was replaced has another inode; one that was rewritten has another time.
        let stamp = (metadata.modified()?, metadata.ino() ^ metadata.len().rotate_left(32));
        if self.stamp != Some(stamp) {
            self.grants = serde_json::from_slice(&fs::read(path)?)?;
            self.stamp = Some(stamp);
        }
        Ok(())
    }
}

fn used_path(tokens: &Path) -> PathBuf {
    tokens.with_extension("used")
}

fn mark(path: &Path, digest: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{digest}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leno_identity::TrustDomain;

    use super::*;

    fn cart() -> SpiffeId {
        SpiffeId::workload(&TrustDomain::default(), "shop", "cart").unwrap()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn tokens() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.json");
        let grant = TokenGrant { workload: "shop/cart-0".into(), identity: cart(), expires: 60 };
        let file = TokenFile::from([(token_digest(b"secret"), grant)]);
        fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        (folder, path)
    }

    #[test]
    fn a_token_works_once_also_across_a_restart() {
        let (_folder, path) = tokens();
        let tokens = Tokens::new(Some(path.clone())).unwrap();
        assert_eq!(tokens.redeem(b"secret", at(1), |_| None).unwrap().identity, cart());
        assert!(matches!(tokens.redeem(b"secret", at(1), |_| None), Err(TokenProblem::Unknown)));
        let restarted = Tokens::new(Some(path)).unwrap();
        assert!(matches!(restarted.redeem(b"secret", at(1), |_| None), Err(TokenProblem::Unknown)));
    }

    #[test]
    fn an_expired_or_wrong_token_is_refused() {
        let (_folder, path) = tokens();
        let tokens = Tokens::new(Some(path)).unwrap();
        assert!(matches!(tokens.redeem(b"secret", at(61), |_| None), Err(TokenProblem::Expired)));
        assert!(matches!(tokens.redeem(b"guess", at(1), |_| None), Err(TokenProblem::Unknown)));
    }

    #[test]
    fn a_token_for_another_workloads_identity_is_refused_and_not_used_up() {
        let (_folder, path) = tokens();
        let tokens = Tokens::new(Some(path)).unwrap();
        let other = SpiffeId::workload(&TrustDomain::default(), "shop", "admin").unwrap();
        let refused = tokens.redeem(b"secret", at(1), |_| Some(other));
        assert!(matches!(refused, Err(TokenProblem::OtherIdentity { .. })));
        assert!(tokens.redeem(b"secret", at(1), |_| Some(cart())).is_ok());
    }
}
