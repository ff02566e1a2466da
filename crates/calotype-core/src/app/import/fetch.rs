//! The worker's part of an import: the object's bytes into a blob.
//!
//! # Crash consistency
//! The states of the digests can't be kept, so a new attempt reads the object from its beginning. What an attempt that
//! died had staged is removed first. A blob that such an attempt had finished is taken as it is: it was sealed under the
//! import's own data key, of the very version of the object that the import names.
//!
//! # Memory
//! That of an upload, and what the bucket's reader reads ahead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt as _, TryStreamExt as _};

use crate::app::Service;
use crate::app::transfer::{Inspection, check_formats};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::KeyId;
use crate::image::Image;
use crate::job::{Claim, Import};
use crate::keys::{Authority, KeyRole, KeyUser};
use crate::ports::{BlobCheck, BlobFacts, ByteStream, Depth, ResealProgress, WriteOptions};
use crate::size::ByteSize;

impl Service {
    /// Makes the image's blob of the object. With it comes the size of the disk that the bytes describe.
    pub(in crate::app) async fn fetch(
        &self,
        claim: &Claim,
        import: &Import,
        progress: &Arc<ResealProgress>,
    ) -> Result<(BlobFacts, Option<ByteSize>)> {
        let fetched = self.fetch_as_it_is(claim, import, progress).await;
        fetched.map_err(as_of_an_import)
    }

    async fn fetch_as_it_is(
        &self,
        claim: &Claim,
        import: &Import,
        progress: &Arc<ResealProgress>,
    ) -> Result<(BlobFacts, Option<ByteSize>)> {
        let user = KeyUser {
            project: claim.job.project.clone(),
            user: claim.job.user.clone(),
            authority: Authority::Job,
        };
        let key: Option<&KeyId> = import.target_cmk.as_ref();
        if let Some(key) = key {
            self.check_key(&user, key, KeyRole::Target).await?;
        }
        // The operator may have closed it since the import was accepted.
        self.settings
            .buckets
            .check(&claim.job.project, &import.object)?;
        let image = self.image_of(claim).await?;
        check_formats(&image)?;
        let inspection = Inspection::of(&image);
        let found = match claim.attempt {
            1 => None,
            _ => self.found_done(import, &inspection).await?,
        };
        let facts = match found {
            Some(facts) => facts,
            None => {
                let source = counted(self.source_of(import), progress);
                let write = self.write_import(import, inspection.watch(source));
                tokio::select! {
                    biased;
                    facts = write => facts?,
                    refused = self.keep_checking_key(&user, key, KeyRole::Target) => return Err(refused),
                }
            }
        };
        Ok((facts, inspection.virtual_size()?))
    }

    async fn image_of(&self, claim: &Claim) -> Result<Image> {
        let gone = || Error::ims(ImsCode::IMG_0144);
        let id = claim.job.image.ok_or_else(gone)?;
        let seen = self.catalog.image(id, None).await?;
        seen.map(|seen| seen.image).ok_or_else(gone)
    }

    fn source_of(&self, import: &Import) -> ByteStream {
        let bytes = import.bytes();
        self.objects.read(&import.object, &import.facts, bytes)
    }

    async fn write_import(&self, import: &Import, source: ByteStream) -> Result<BlobFacts> {
        let options = WriteOptions {
            digests: self.settings.digests,
            max_size: import.size(),
            expected_size: Some(import.size()),
            progress: Arc::new(AtomicU64::new(0)),
        };
        let written = self
            .blobs
            .write(import.target, &import.target_key, source, options)
            .await;
        written.map_err(|error| match error.kind() {
            // Another attempt came first, or took this one for dead: the next one finds what there is.
            ErrorKind::Conflict => Error::unavailable(error),
            _ => error,
        })
    }

    /// The blob, where an attempt that died had finished it; its bytes are looked at again, for the size of the disk that
    /// they describe. What else it left is removed.
    async fn found_done(
        &self,
        import: &Import,
        inspection: &Inspection,
    ) -> Result<Option<BlobFacts>> {
        let (blob, key) = (import.target, &import.target_key);
        match self.blobs.check(blob, Some(key), Depth::Ends).await? {
            BlobCheck::Whole(facts) => {
                let opened = self.blobs.open(blob, Some(key)).await;
                let reader = opened.map_err(|fault| fault.into_error(KeyRole::Target))?;
                let all = reader.read(0..facts.size.bytes());
                let mut looked = inspection.watch(all);
                while looked.try_next().await?.is_some() {}
                Ok(Some(facts))
            }
            BlobCheck::Closed | BlobCheck::Away => {
                let opened = self.blobs.open(blob, Some(key)).await;
                let opened = opened.map_err(|fault| fault.into_error(KeyRole::Target));
                opened.map(|_| None)
            }
            // What is staged alone: by now another attempt may have finished the blob.
            BlobCheck::Missing => {
                self.blobs.discard(blob).await?;
                Ok(None)
            }
            // Nobody has it yet: it is made again.
            BlobCheck::Damaged(_) => {
                self.blobs.delete(blob).await?;
                Ok(None)
            }
        }
    }
}

/// The same bytes, counted as they pass.
fn counted(source: ByteStream, progress: &Arc<ResealProgress>) -> ByteStream {
    let progress = Arc::clone(progress);
    Box::pin(source.map(move |chunk| {
        if let Ok(chunk) = &chunk {
            progress
                .done
                .fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        chunk
    }))
}

/// What is wrong with bytes has no code by itself; here they are those of an image file.
fn as_of_an_import(error: Error) -> Error {
    match (error.code(), error.kind()) {
        (None, ErrorKind::UnsupportedMediaType | ErrorKind::InvalidRequest) => {
            error.with_code(ImsCode::IMG_0057)
        }
        (None, ErrorKind::TooLarge) => error.with_code(ImsCode::IMG_0059),
        _ => error,
    }
}
