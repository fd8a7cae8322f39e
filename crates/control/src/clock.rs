//! The wall clock, as certificates and status see it.

use std::time::SystemTime;

use leno_identity::UnixTime;

/// Now.
pub(crate) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
