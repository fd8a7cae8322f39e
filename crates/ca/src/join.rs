//! One-use tokens: a supervisor gets one for a workload, hands it over a file descriptor, and the workload's first request proves itself with it.
//!
//! Invariant: a token works once, before its end, for the identity it was made for. The store is bounded and keeps no token
//! in a form that could be used: only digests. Secrets are compared in constant time.

use std::{collections::BTreeMap, fmt};

use aws_lc_rs::{constant_time, digest};
use leno_identity::{SpiffeId, UnixTime};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::template::{NoRandomness, random};

const HANDLE: usize = 16;
const SECRET: usize = 32;

/// Bytes of a token.
pub const TOKEN_BYTES: usize = HANDLE + SECRET;

/// Tokens that are not used yet.
pub struct JoinTokens {
    capacity: usize,
    waiting: Mutex<BTreeMap<[u8; HANDLE], Waiting>>,
}

struct Waiting {
    digest: digest::Digest,
    identity: SpiffeId,
    expires: UnixTime,
}

/// A token, which wipes itself; hand it on, never log it.
#[derive(Clone)]
pub struct JoinToken(Zeroizing<Vec<u8>>);

/// Why no token is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokensFull {
    /// As many as allowed wait already.
    #[error("{waiting} join tokens wait to be used already; workloads that were started do not join")]
    Full {
        /// How many.
        waiting: usize,
    },
    /// No randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinProblem {
    /// Unknown, already used, or wrong: a guesser is not told which.
    #[error("the join token is unknown or was used already")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired; the workload took too long to start")]
    Expired,
}

impl JoinTokens {
    /// An empty store that keeps at most `capacity` unused tokens.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, waiting: Mutex::new(BTreeMap::new()) }
    }

    /// Makes a token for a workload. Expired ones make room.
    ///
    /// # Errors
    /// When the store is full.
    pub fn mint(
        &self,
        identity: SpiffeId,
        expires: UnixTime,
        now: UnixTime,
    ) -> Result<JoinToken, TokensFull> {
        let token = JoinToken(Zeroizing::new(random::<TOKEN_BYTES>()?.to_vec()));
        let (handle, secret) = token.0.split_at(HANDLE);
        let mut key = [0; HANDLE];
        key.copy_from_slice(handle);
        let digest = digest::digest(&digest::SHA256, secret);

        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.capacity {
            waiting.retain(|_, token| now <= token.expires);
        }
        if waiting.len() >= self.capacity {
            return Err(TokensFull::Full { waiting: waiting.len() });
        }
        waiting.insert(key, Waiting { digest, identity, expires });
        Ok(token)
    }

    /// Whom a token was made for; it is used up by this. Check the rest of the request before.
    ///
    /// # Errors
    /// When it is unknown, used or expired.
    pub fn redeem(&self, token: &[u8], now: UnixTime) -> Result<SpiffeId, JoinProblem> {
        let (handle, secret) = token.split_first_chunk::<HANDLE>().ok_or(JoinProblem::Unknown)?;
        let digest = digest::digest(&digest::SHA256, secret);
        let mut waiting = self.waiting.lock();
        let known = waiting.get(handle).ok_or(JoinProblem::Unknown)?;
        // A wrong secret leaves the token in place: else whoever learns a handle could lock its workload out.
        constant_time::verify_slices_are_equal(known.digest.as_ref(), digest.as_ref())
            .map_err(|_| JoinProblem::Unknown)?;
        let Some(used) = waiting.remove(handle) else { return Err(JoinProblem::Unknown) };
        if now > used.expires { Err(JoinProblem::Expired) } else { Ok(used.identity) }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// The bytes to hand over.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use leno_identity::TrustDomain;

    use super::*;

    #[test]
    fn a_token_works_once_for_its_identity() {
        let tokens = JoinTokens::new(8);
        let token = tokens.mint(cart(), at(60), at(0)).unwrap();
        assert_eq!(token.as_bytes().len(), TOKEN_BYTES);
        assert_eq!(tokens.redeem(token.as_bytes(), at(1)), Ok(cart()));
        assert_eq!(tokens.redeem(token.as_bytes(), at(1)), Err(JoinProblem::Unknown));
    }

    #[test]
    fn a_token_ends() {
        let tokens = JoinTokens::new(8);
        let token = tokens.mint(cart(), at(60), at(0)).unwrap();
        assert_eq!(tokens.redeem(token.as_bytes(), at(61)), Err(JoinProblem::Expired));
        assert_eq!(tokens.waiting(), 0);
    }

    #[test]
    fn a_wrong_secret_is_refused_and_does_not_use_the_token_up() {
        let tokens = JoinTokens::new(8);
        let token = tokens.mint(cart(), at(60), at(0)).unwrap();
        let mut wrong = token.as_bytes().to_vec();
        wrong[TOKEN_BYTES - 1] ^= 1;
        let short = &token.as_bytes()[..HANDLE];
        for guess in [&wrong[..], short, &[], &token.as_bytes()[..TOKEN_BYTES - 1]] {
            assert_eq!(tokens.redeem(guess, at(1)), Err(JoinProblem::Unknown));
        }
        assert_eq!(tokens.redeem(token.as_bytes(), at(1)), Ok(cart()));
    }

    #[test]
    fn a_full_store_makes_room_only_by_dropping_expired_tokens() {
        let tokens = JoinTokens::new(2);
        tokens.mint(cart(), at(10), at(0)).unwrap();
        let second = tokens.mint(cart(), at(60), at(0)).unwrap();
        let full = tokens.mint(cart(), at(60), at(5)).map(|_| ());
        assert_eq!(full, Err(TokensFull::Full { waiting: 2 }));
        tokens.mint(cart(), at(60), at(11)).unwrap();
        assert_eq!(tokens.redeem(second.as_bytes(), at(12)), Ok(cart()));
    }

    fn cart() -> SpiffeId {
        SpiffeId::workload(&TrustDomain::default(), "shop", "cart").unwrap()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }
}
