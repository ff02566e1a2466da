//! The one source of randomness.
//!
//! # Guarantees
//! [`SystemEntropy::fill`] returns only when every byte came from the system's generator. It has no way
//! to report a failure, and there is nothing sensible to do with one: a key or nonce from anything else
//! would break every promise of the blob format. So a failing generator makes the caller wait, as
//! `getrandom(2)` does before it is seeded, with a line in the log. A request that hangs is found and
//! repaired; a guessable key is not.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use calotype_core::ports::Entropy;

const RETRY: Duration = Duration::from_millis(20);

/// The system's cryptographic generator, by aws-lc.
#[derive(Debug, Default)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// The system's generator.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module that asks for randomness"
    )]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut told = false;
        while self.0.fill(bytes).is_err() {
            if !told {
                tracing::error!("the system's random generator fails; waiting for it");
                told = true;
            }
            std::thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_a_long_buffer_is_filled_and_no_two_fills_are_alike() {
        let entropy = SystemEntropy::new();
        let (mut one, mut other) = (vec![0; 4096], vec![0; 4096]);
        entropy.fill(&mut one);
        entropy.fill(&mut other);
        assert_ne!(one, other);
        // A run of 16 zero bytes has a chance of 2^-116 here.
        assert!(one.chunks(16).all(|run| run.iter().any(|byte| *byte != 0)));
    }
}
