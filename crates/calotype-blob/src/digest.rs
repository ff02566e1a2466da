//! Digests of the plaintext, each on a thread of its own while the bytes go by.
//!
//! They are most of what an upload costs, so each is by the fastest implementation that there is as a
//! library: docs/adr/0005-libraries-for-digests.md.

use bytes::Bytes;
use calotype_core::image::Digests;
use calotype_core::ports::DigestChoice;
use calotype_core::{Error, Result};
use sha2::{Digest, Sha256, Sha512};
use tokio::sync::{mpsc, oneshot};

use crate::threads;

type Answer = oneshot::Receiver<String>;

/// The digests being computed. Dropping it ends their threads.
pub(crate) struct Digesting {
    pieces: Vec<mpsc::Sender<Bytes>>,
    md5: Option<Answer>,
    sha256: Option<Answer>,
    sha512: Option<Answer>,
}

impl Digesting {
    /// Starts a thread for each digest wanted, with a queue of `depth` pieces before it.
    pub(crate) fn start(choice: DigestChoice, depth: usize) -> Result<Self> {
        let mut pieces = Vec::new();
        let md5 = start(choice.md5, "blob-md5", depth, &mut pieces, md5_of)?;
        let sha256 = start(
            choice.sha256,
            "blob-sha256",
            depth,
            &mut pieces,
            sha_of::<Sha256>,
        )?;
        let sha512 = start(
            choice.sha512,
            "blob-sha512",
            depth,
            &mut pieces,
            sha_of::<Sha512>,
        )?;
        Ok(Self {
            pieces,
            md5,
            sha256,
            sha512,
        })
    }

    /// Hands over the next piece, waiting where a digest is behind.
    pub(crate) async fn push(&self, piece: &Bytes) -> Result<()> {
        for queue in &self.pieces {
            queue
                .send(piece.clone())
                .await
                .map_err(|_| Error::internal("a digest's thread ended early"))?;
        }
        Ok(())
    }

    /// The digests of all that was pushed.
    pub(crate) async fn finish(self) -> Result<Digests> {
        drop(self.pieces);
        Ok(Digests {
            md5: answer(self.md5).await?,
            sha256: answer(self.sha256).await?,
            sha512: answer(self.sha512).await?,
        })
    }
}

fn start(
    wanted: bool,
    name: &str,
    depth: usize,
    pieces: &mut Vec<mpsc::Sender<Bytes>>,
    work: impl FnOnce(mpsc::Receiver<Bytes>) -> String + Send + 'static,
) -> Result<Option<Answer>> {
    if !wanted {
        return Ok(None);
    }
    let (sender, queue) = mpsc::channel(depth);
    let answer = threads::spawn(name, move || work(queue))?;
    pieces.push(sender);
    Ok(Some(answer))
}

async fn answer(answer: Option<Answer>) -> Result<Option<String>> {
    match answer {
        None => Ok(None),
        Some(answer) => answer.await.map(Some).map_err(Error::internal),
    }
}

fn md5_of(mut queue: mpsc::Receiver<Bytes>) -> String {
    let mut digest = fast_md5::Md5::new();
    while let Some(piece) = queue.blocking_recv() {
        digest.update(&piece);
    }
    hex::encode(digest.finalize())
}

fn sha_of<D: Digest>(mut queue: mpsc::Receiver<Bytes>) -> String {
    let mut digest = D::new();
    while let Some(piece) = queue.blocking_recv() {
        digest.update(&piece);
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use md5::Md5;

    use super::*;

    /// Bytes that no cut of them repeats.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    }

    #[test]
    fn both_libraries_agree_on_md5_at_every_length_around_its_blocks() {
        let bytes = bytes(64 * 5 + 1);
        for length in 0..=bytes.len() {
            let ours = fast_md5::digest(&bytes[..length]);
            assert_eq!(ours, Md5::digest(&bytes[..length]).0, "{length} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn both_libraries_agree_on_md5_however_the_bytes_are_cut(
            length in 0_usize..20_000,
            cuts in proptest::collection::vec(1_usize..700, 1..40),
        ) {
            let bytes = bytes(length);
            let (mut ours, mut rest) = (fast_md5::Md5::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                ours.update(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            proptest::prop_assert_eq!(ours.finalize(), Md5::digest(&bytes).0);
        }
    }
}
