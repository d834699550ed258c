//! Random tokens, compared in constant time.

use std::fs::File;
use std::io::{self, Read as _};

/// Random bytes of a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// Length of a token: two hexadecimal digits for each byte.
pub(super) const TOKEN_LENGTH: usize = 2 * TOKEN_BYTES;

/// Creates a token from the kernel's random numbers.
///
/// # Errors
/// Returns an error if `/dev/urandom` cannot be read.
pub(super) fn new_token() -> io::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns whether two tokens are equal, in a time that does not depend on where they differ.
pub(super) fn equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    // The optimizer must not end the comparison early.
    (std::hint::black_box(difference) == 0) & (one.len() == other.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_equals_itself_only() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_eq!(one.len(), TOKEN_LENGTH);
        assert!(equal(one.as_bytes(), one.as_bytes()));
        for wrong in [other.as_bytes(), &one.as_bytes()[1..], b""] {
            assert!(!equal(one.as_bytes(), wrong));
        }
    }
}
