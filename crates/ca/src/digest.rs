//! How a join token is named where its text must not be: in the file that a supervisor writes for a control plane.

use std::fmt::Write as _;

use aws_lc_rs::digest;

/// The SHA-256 of a token in lower-case hexadecimal.
#[must_use]
pub fn token_digest(token: &[u8]) -> String {
    digest::digest(&digest::SHA256, token).as_ref().iter().fold(
        String::with_capacity(64),
        |mut text, byte| {
            // Writing to a String does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256_in_hexadecimal() {
        // The first test vector of FIPS 180-4's example for SHA-256, "abc".
        assert_eq!(token_digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
