//! Buckets in a store that speaks S3: OBS, Ceph's RGW, Garage, AWS.
//!
//! # Guarantees
//! Those of [`calotype_s3`].
//!
//! An object's version is its ETag. Every request for a part of it names that (`If-Match`), and every answer is compared
//! with it, so that no store is relied on to do so.
//!
//! # Memory
//! A read holds [`AHEAD`] parts of 4 MiB; a write as many of its own.
//!
//! # What S3 does not promise
//! Large objects are written in parts, and the stores that were tried (Ceph 16, Garage 2) look at no condition when those
//! are put together. So [`Objects::create`] and [`ObjectWriter::finish`] each look whether the place is taken; of two who
//! write one object at the same moment, the last one stays. A crash leaves parts that are no object: a rule of the
//! bucket's life cycle (`AbortIncompleteMultipartUpload`) removes them.

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use calotype_core::codes::ImsCode;
use calotype_core::id::JobId;
use calotype_core::object::ObjectAddress;
use calotype_core::ports::{ByteStream, Clock, ObjectFacts, ObjectWriter, Objects};
use calotype_core::size::ByteSize;
use calotype_core::{Error, ErrorKind, Result};
use calotype_s3::{Client, S3Options, Told, away};
use futures_util::{StreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, BackoffConfig, GetOptions, GetRange, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::copy::copy_in;
use crate::{changed, no_bucket, no_object, taken};

/// Bytes of a part that is read, and of the smallest that is written (S3 demands 5 MiB, but for the last).
const READ_PART: u64 = 4 << 20;
const WRITE_PART: u64 = 8 << 20;

/// S3 takes 10,000 parts; some are left for objects that turn out to be larger than they were said to be.
const PARTS: u64 = 9_000;

/// Parts that are read ahead, and that are written at once.
const AHEAD: usize = 4;

/// A store that speaks S3.
pub struct S3(Client);

impl S3 {
    /// Nothing is asked of the store yet. Requests are signed with the time of `clock`.
    ///
    /// # Errors
    /// InvalidRequest where the options can't work; says why.
    pub fn new(options: S3Options, clock: Arc<dyn Clock>) -> Result<Self> {
        Client::new(options, clock).map(Self)
    }

    fn bucket(&self, name: &str) -> Result<AmazonS3> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                max_backoff: Duration::from_secs(3),
                ..BackoffConfig::default()
            },
            max_retries: 10,
            retry_timeout: self.0.time_limit(),
        };
        self.0.bucket(name, retry)
    }

    fn place(&self, at: &ObjectAddress) -> Result<Place> {
        let path = Path::parse(at.key()).map_err(|error| no_object().with_context(error))?;
        Ok(Place {
            store: self.bucket(at.bucket())?,
            path,
        })
    }
}

#[async_trait::async_trait]
impl Objects for S3 {
    async fn look(&self, at: &ObjectAddress) -> Result<ObjectFacts> {
        self.place(at)?.look().await
    }

    fn read(&self, at: &ObjectAddress, facts: &ObjectFacts, range: Range<u64>) -> ByteStream {
        let place = match self.place(at) {
            Ok(place) => place,
            Err(error) => return Box::pin(stream::once(std::future::ready(Err(error)))),
        };
        let (facts, end) = (facts.clone(), range.end);
        let parts = stream::iter(range.step_by(READ_PART as usize)).map(move |from| {
            let (place, facts) = (place.clone(), facts.clone());
            async move { place.part(&facts, from..end.min(from + READ_PART)).await }
        });
        Box::pin(parts.buffered(AHEAD))
    }

    async fn create(
        &self,
        at: &ObjectAddress,
        expected: ByteSize,
        job: Option<&JobId>,
    ) -> Result<Box<dyn ObjectWriter>> {
        let place = self.place(at)?;
        place.check_free().await?;
        let part = expected.bytes().div_ceil(PARTS).max(WRITE_PART);
        let part = part.next_multiple_of(1 << 20);
        Ok(Box::new(Writing {
            place,
            part: usize::try_from(part).map_err(Error::internal)?,
            attributes: marked(job),
            gathered: BytesMut::new(),
            parts: None,
            sending: JoinSet::new(),
        }))
    }

    async fn put(
        &self,
        at: &ObjectAddress,
        file: Arc<File>,
        job: Option<&JobId>,
    ) -> Result<ObjectFacts> {
        copy_in(self, at, file, job).await
    }

    async fn made_by(&self, at: &ObjectAddress, job: &JobId) -> Result<Option<ObjectFacts>> {
        let (facts, attributes) = self.place(at)?.find().await?;
        let told = attributes.get(&MARK);
        let is_its = told.is_some_and(|told| told.as_ref() == job.as_str());
        Ok(is_its.then_some(facts))
    }

    async fn remove(&self, at: &ObjectAddress, facts: &ObjectFacts) -> Result<()> {
        let place = self.place(at)?;
        // Not every store deletes on a condition: between the two another object could come.
        if place.look().await? != *facts {
            return Err(changed());
        }
        match place.store.delete(&place.path).await {
            Ok(()) => Ok(()),
            Err(error) => Err(place.refusal(error).await),
        }
    }
}

/// Says in an object's metadata which job made it.
const MARK: Attribute = Attribute::Metadata(Cow::Borrowed("calotype-job"));

fn marked(job: Option<&JobId>) -> Attributes {
    let marks = job.map(|job| (MARK, job.as_str().to_owned()));
    marks.into_iter().collect()
}

/// An object's place in its bucket.
#[derive(Clone)]
struct Place {
    store: AmazonS3,
    path: Path,
}

impl Place {
    /// By its first byte and not by its head alone: the answer to a failed HEAD does not say why.
    async fn look(&self) -> Result<ObjectFacts> {
        self.find().await.map(|(facts, _)| facts)
    }

    async fn find(&self) -> Result<(ObjectFacts, Attributes)> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..1)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&self.path, options).await {
            Ok(found) => Ok((facts_of(&found.meta), found.attributes)),
            Err(error) => Err(self.refusal(error).await),
        }
    }

    async fn check_free(&self) -> Result<()> {
        match self.look().await {
            Ok(_) => Err(taken()),
            // An empty one has no first byte, but it is there.
            Err(error) if error.code() == Some(ImsCode::IMG_0057) => {
                let head = GetOptions {
                    head: true,
                    ..GetOptions::default()
                };
                match self.store.get_opts(&self.path, head).await {
                    Ok(_) => Err(taken()),
                    Err(_) => Ok(()),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn part(&self, facts: &ObjectFacts, range: Range<u64>) -> Result<Bytes> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            if_match: facts
                .version
                .starts_with('"')
                .then(|| facts.version.clone()),
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&self.path, options).await {
            Ok(found) => found,
            Err(error) => return Err(self.refusal(error).await),
        };
        if facts_of(&found.meta) != *facts {
            return Err(changed());
        }
        let bytes = found.bytes().await.map_err(away)?;
        if bytes.len() as u64 != range.end - range.start {
            return Err(away("a part of an object came short"));
        }
        Ok(bytes)
    }

    /// How the writing of a part ended.
    async fn settle(
        &self,
        sent: std::result::Result<object_store::Result<()>, tokio::task::JoinError>,
    ) -> Result<()> {
        match sent.map_err(Error::internal)? {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refusal(error).await),
        }
    }

    /// What the store's refusal means. Not every store says whether it is about the bucket or about the object, so the
    /// bucket is asked for by itself.
    async fn refusal(&self, error: object_store::Error) -> Error {
        let told = Told::by(&error);
        match told.code.as_deref() {
            Some("NoSuchBucket") => return no_bucket().with_context(error),
            Some("PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed") => {
                return Error::ims(ImsCode::IMG_0058).with_context(error);
            }
            // The operator's to mend, whatever was asked for: a job waits for that.
            Some(
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "RequestTimeTooSkewed"
                | "ExpiredToken"
                | "InvalidToken",
            ) => return away(error),
            _ => {}
        }
        match told.status {
            Some(403 | 404) => {
                let mut listing = self.store.list(Some(&self.path));
                match listing.next().await {
                    None | Some(Ok(_)) => no_object().with_context(error),
                    Some(Err(refused)) => match Told::by(&refused).status {
                        Some(408 | 429) => away(refused),
                        Some(400..500) => no_bucket().with_context(refused),
                        _ => away(refused),
                    },
                }
            }
            Some(409) => taken().with_context(error),
            Some(412) => changed().with_context(error),
            // The first byte of nothing.
            Some(416) => no_object().with_context(error),
            Some(301 | 302 | 307 | 308) => Error::ims(ImsCode::IMG_0058).with_context(error),
            Some(507) => full(error),
            Some(400) => no_bucket().with_context(error),
            _ => away(error),
        }
    }
}

fn facts_of(meta: &ObjectMeta) -> ObjectFacts {
    let version = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None => meta.last_modified.timestamp_micros().to_string(),
    };
    ObjectFacts {
        size: ByteSize::new(meta.size),
        version,
    }
}

/// An object that is being written: small ones at once, larger ones in parts.
struct Writing {
    place: Place,
    part: usize,
    attributes: Attributes,
    gathered: BytesMut,
    parts: Option<Box<dyn MultipartUpload>>,
    sending: JoinSet<object_store::Result<()>>,
}

#[async_trait::async_trait]
impl ObjectWriter for Writing {
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.gathered.len() == self.part {
                self.send().await?;
            }
            let room = self.part - self.gathered.len();
            let taken = rest.split_to(room.min(rest.len()));
            self.gathered.extend_from_slice(&taken);
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<ObjectFacts> {
        if self.parts.is_some() {
            self.send().await?;
            while let Some(sent) = self.sending.join_next().await {
                self.place.settle(sent).await?;
            }
            self.place.check_free().await?;
            if let Some(parts) = &mut self.parts {
                let completed = parts.complete().await;
                if let Err(error) = completed {
                    return Err(self.place.refusal(error).await);
                }
            }
            self.parts = None;
        } else {
            let whole = PutPayload::from(std::mem::take(&mut self.gathered).freeze());
            let options = PutOptions {
                mode: PutMode::Create,
                attributes: std::mem::take(&mut self.attributes),
                ..PutOptions::default()
            };
            let put = self.place.store.put_opts(&self.place.path, whole, options);
            match put.await {
                Err(object_store::Error::AlreadyExists { .. }) => return Err(taken()),
                Err(error) => return Err(self.place.refusal(error).await),
                Ok(_) => {}
            }
        }
        self.place.look().await
    }
}

impl Writing {
    /// Sends what is gathered as a part, once there is room for one more on its way.
    async fn send(&mut self) -> Result<()> {
        while self.sending.len() >= AHEAD {
            match self.sending.join_next().await {
                Some(sent) => self.place.settle(sent).await?,
                None => break,
            }
        }
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let options = PutMultipartOptions {
                    attributes: self.attributes.clone(),
                    ..PutMultipartOptions::default()
                };
                let begun = self
                    .place
                    .store
                    .put_multipart_opts(&self.place.path, options);
                match begun.await {
                    Ok(parts) => self.parts.insert(parts),
                    Err(error) => return Err(self.place.refusal(error).await),
                }
            }
        };
        let part = std::mem::replace(&mut self.gathered, BytesMut::with_capacity(self.part));
        self.sending.spawn(parts.put_part(part.freeze().into()));
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        let mut sending = std::mem::take(&mut self.sending);
        // Where the runtime is ending, the bucket's life cycle has to do it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sending.shutdown().await;
                if let Err(error) = parts.abort().await {
                    tracing::warn!(%error, "parts of an object are left behind");
                }
            });
        }
    }
}

fn full(error: object_store::Error) -> Error {
    Error::new(ErrorKind::StorageFull, "The bucket is full.").with_context(error)
}
