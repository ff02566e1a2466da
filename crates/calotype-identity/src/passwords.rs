//! Passwords: argon2id, on blocking threads, a bounded number at a time.
//!
//! A verification costs some 20 ms of a core and 7 MiB. At most [`AT_ONCE`] run, at most [`WAITING`] wait, and
//! the next is told to come back: a flood of logins can't take the memory or the cores that serve images.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use calotype_core::ports::Entropy;
use calotype_core::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

/// Verifications that run at a time.
const AT_ONCE: usize = 4;
/// Verifications that run or wait.
const WAITING: usize = 256;
/// The longest password, in bytes: Keystone's limit.
pub(crate) const MAX_PASSWORD: usize = 4096;

/// What an unknown user's password is compared with, at the cost of a known one's. No password is known that has
/// this hash, and a match would be ignored.
const NOBODY: &str = "$argon2id$v=19$m=7168,t=5,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub(crate) struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Passwords {
    pub(crate) fn new() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Hashes a password with a fresh salt, in PHC form.
    ///
    /// # Errors
    /// InvalidRequest for an empty or a too long one; Unavailable where too many wait.
    pub(crate) async fn hash(
        &self,
        password: &SecretString,
        entropy: &dyn Entropy,
    ) -> Result<String> {
        if password.expose_secret().is_empty() || password.expose_secret().len() > MAX_PASSWORD {
            return Err(Error::invalid("A password has 1 to 4096 bytes."));
        }
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        let password = password.clone();
        self.run(move || {
            let hash = hasher()?
                .hash_password_with_salt(password.expose_secret().as_bytes(), &salt)
                .map_err(|error| Error::internal(error.to_string()))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password has this hash; never, and at the same cost, where there is none.
    ///
    /// # Errors
    /// Unavailable where too many wait.
    pub(crate) async fn verify(&self, password: &SecretString, hash: Option<&str>) -> Result<bool> {
        let known = hash.is_some() && password.expose_secret().len() <= MAX_PASSWORD;
        let hash = hash.unwrap_or(NOBODY).to_owned();
        let password = if known {
            password.clone()
        } else {
            SecretString::from("nobody")
        };
        self.run(move || {
            let verified = hasher()?
                .verify_password(password.expose_secret().as_bytes(), hash.as_str())
                .is_ok();
            Ok(verified && known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let waiting = Arc::clone(&self.waiting)
            .try_acquire_owned()
            .map_err(|_| Error::unavailable("too many logins wait"))?;
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(Error::internal)?;
        // The permits go with the work: a caller that leaves does not make room while its work still runs.
        tokio::task::spawn_blocking(move || {
            let _permits = (waiting, running);
            work()
        })
        .await
        .map_err(Error::internal)?
    }
}

/// The fifth of the choices that OWASP holds equally strong for argon2id (Password Storage Cheat Sheet): 7 MiB, five
/// passes, one lane. An allocator keeps for a while what a login took, and an idle service is to stay small.
fn hasher() -> Result<Argon2<'static>> {
    let params =
        Params::new(7 * 1024, 5, 1, None).map_err(|error| Error::internal(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;

    impl Entropy for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            for (byte, value) in bytes.iter_mut().zip(1..) {
                *byte = value;
            }
        }
    }

    #[tokio::test]
    async fn only_the_password_itself_verifies() {
        let passwords = Passwords::new();
        let right = SecretString::from("correct horse");
        let hash = passwords.hash(&right, &Counting).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{hash}");
        assert!(passwords.verify(&right, Some(&hash)).await.unwrap());
        for wrong in ["", "correct horse ", "nobody"] {
            let wrong = SecretString::from(wrong);
            assert!(!passwords.verify(&wrong, Some(&hash)).await.unwrap());
        }
    }

    #[tokio::test]
    async fn nothing_verifies_where_there_is_no_hash() {
        let passwords = Passwords::new();
        for password in ["", "nobody"] {
            let password = SecretString::from(password);
            assert!(!passwords.verify(&password, None).await.unwrap());
        }
        // The stand-in is a hash that is really computed, not one that fails to parse.
        assert!(argon2::PasswordHash::new(NOBODY).is_ok());
    }

    #[tokio::test]
    async fn more_than_the_waiting_room_holds_are_turned_away() {
        let passwords = Passwords::new();
        let _taken = passwords.waiting.try_acquire_many(WAITING as u32).unwrap();
        let refused = passwords.verify(&SecretString::from("x"), None).await;
        assert!(refused.unwrap_err().is_transient());
    }
}
