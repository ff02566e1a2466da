//! Digests of the plaintext, each on a thread of its own while the bytes go by.

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use calotype_core::image::Digests;
use calotype_core::ports::DigestChoice;
use calotype_core::{Error, Result};
use md5::{Digest as _, Md5};
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
        let sha256 = start(choice.sha256, "blob-sha256", depth, &mut pieces, |queue| {
            sha_of(Context::new(&SHA256), queue)
        })?;
        let sha512 = start(choice.sha512, "blob-sha512", depth, &mut pieces, |queue| {
            sha_of(Context::new(&SHA512), queue)
        })?;
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
    let mut digest = Md5::new();
    while let Some(piece) = queue.blocking_recv() {
        digest.update(&piece);
    }
    hex::encode(digest.finalize())
}

fn sha_of(mut digest: Context, mut queue: mpsc::Receiver<Bytes>) -> String {
    while let Some(piece) = queue.blocking_recv() {
        digest.update(&piece);
    }
    hex::encode(digest.finish())
}
