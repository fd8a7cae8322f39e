//! Adler-32, which Helm's templates have as `adler32sum`.
//!
//! It tells one configuration from the next, so that a change of it makes new pods; it protects from nothing.

/// The checksum in decimal.
pub(crate) fn adler32(text: &str) -> String {
    const MODULUS: u32 = 65_521;
    let (a, b) = text.bytes().fold((1, 0), |(a, b), byte| {
        let a = (a + u32::from(byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    (b << 16 | a).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_checksum_of_rfc_1950() {
        assert_eq!(adler32("Wikipedia"), 0x11E6_0398_u32.to_string());
        assert_eq!(adler32(""), "1");
    }
}
