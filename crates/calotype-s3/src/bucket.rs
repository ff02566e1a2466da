//! A bucket of the service's own.
//!
//! # Guarantees
//! Every request is bounded in time, and all of them together in number; see [`crate::tries`]. They run on the runtime that the
//! bucket was made in, whoever waits for them: connections are shared, and need its I/O.
//!
//! Nothing is asked of the store but that a key, once written, is read as it was last written: no condition, no
//! version, no encryption, no order of a listing.
//!
//! # Cancellation
//! A future that is dropped ends its request. Whether the store did what was asked is not known then.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use calotype_core::ports::Entropy;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::AmazonS3;
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload,
    RetryConfig,
};
use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::breaker::Breaker;
use crate::client::{Client, Http};
use crate::told::away;
use crate::tries::{Fault, Operation, Tries};
use crate::uploads::{self, Page};

/// Objects that are deleted at once.
const DELETIONS: usize = 16;

/// What bounds the requests to a bucket.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most requests at once.
    pub connections: usize,
    /// The longest that one try of a request may take, with its body.
    pub attempt_timeout: Duration,
    /// The longest that all tries of a request may take together.
    pub time_limit: Duration,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
}

/// A bucket. Clones are the same one.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
    runtime: Handle,
    patient: bool,
}

struct Shared {
    store: AmazonS3,
    url: Url,
    http: Http,
    tries: Tries,
}

impl Bucket {
    /// The bucket of this name, in the store that the metrics call `store`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// InvalidRequest where there can be no such bucket; Internal outside a runtime.
    pub fn new(
        client: &Client,
        store: &str,
        name: &str,
        limits: Limits,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        // Tried again here, where it is known what of.
        let never = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let connections = limits.connections.max(1);
        Ok(Self {
            shared: Arc::new(Shared {
                store: client.bucket(name, never)?,
                url: client.url_of(name)?,
                http: client.http().clone(),
                tries: Tries {
                    store: store.to_owned().into(),
                    limits,
                    permits: Semaphore::new(connections),
                    bulk: Semaphore::new((connections * 3 / 4).max(1)),
                    breaker: Breaker::default(),
                    entropy,
                },
            }),
            runtime: Handle::try_current().map_err(Error::internal)?,
            patient: false,
        })
    }

    /// The same bucket for who is in the middle of something that would be lost: it waits for a store that is believed to
    /// be away, as long as a request's time lasts.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self {
            patient: true,
            ..self.clone()
        }
    }

    /// An object of at most `most` bytes; nothing where there is none.
    ///
    /// # Errors
    /// Damaged where it is larger; Unavailable.
    pub async fn get(&self, key: &str, most: u64) -> Result<Option<Bytes>> {
        self.get_as(key, most, |bytes| Some(bytes.clone())).await
    }

    /// As [`Bucket::get`], of an object that `read` makes something of. Where it can't, the answer is doubted at first.
    ///
    /// # Errors
    /// Damaged where the object is larger, or nothing can be made of it; Unavailable.
    pub async fn get_as<T: Send + 'static>(
        &self,
        key: &str,
        most: u64,
        read: fn(&Bytes) -> Option<T>,
    ) -> Result<Option<T>> {
        let path = Path::from(key);
        let got = self.run(Operation::Get, move |shared| {
            let path = path.clone();
            async move {
                let found = shared.store.get(&path).await?;
                let size = found.meta.size;
                if size > most {
                    return Err(Fault::Doubtful(Error::damaged("an object is too large")));
                }
                let bytes = whole(found.bytes().await?, size)?;
                let made = read(&bytes);
                made.ok_or_else(|| Fault::Doubtful(Error::damaged("an object is not whole")))
            }
        });
        unless_missing(got.await)
    }

    /// A range of an object that has `size` bytes; nothing where there is none.
    ///
    /// # Errors
    /// Damaged where the object is of another size; Unavailable.
    pub async fn read(&self, key: &str, range: Range<u64>, size: u64) -> Result<Option<Bytes>> {
        let path = Path::from(key);
        let got = self.run(Operation::Read, move |shared| {
            let (path, range) = (path.clone(), range.clone());
            async move {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(range.clone())),
                    ..GetOptions::default()
                };
                let found = shared.store.get_opts(&path, options).await?;
                if found.meta.size != size {
                    let told = format!("an object of {size} bytes has {}", found.meta.size);
                    return Err(Fault::Doubtful(Error::damaged(told)));
                }
                let bytes = found.bytes().await?;
                whole(bytes, range.end - range.start)
            }
        });
        unless_missing(got.await)
    }

    /// An object's length; nothing where there is none.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = Path::from(key);
        let got = self.run(Operation::Head, move |shared| {
            let path = path.clone();
            async move { Ok(shared.store.head(&path).await?.size) }
        });
        unless_missing(got.await)
    }

    /// Writes an object, in the place of the one that is there. It is durable when this returns. After an error it may be
    /// there, and may still come.
    ///
    /// # Errors
    /// StorageFull; Unavailable.
    pub async fn put(&self, key: &str, bytes: Vec<Bytes>) -> Result<()> {
        let (path, payload) = (Path::from(key), PutPayload::from_iter(bytes));
        let put = self.run(Operation::Put, move |shared| {
            let (path, payload) = (path.clone(), payload.clone());
            async move {
                shared.store.put(&path, payload).await?;
                Ok(())
            }
        });
        put.await.map_err(Fault::into_error)
    }

    /// Writes an object under a key that no other try was made with, and returns the key: the given one with a random
    /// ending. So a request whose answer was lost has no effect when it comes late.
    ///
    /// # Errors
    /// StorageFull; Unavailable.
    pub async fn put_once(&self, key: &str, bytes: Vec<Bytes>) -> Result<String> {
        let (key, payload) = (key.to_owned(), PutPayload::from_iter(bytes));
        let put = self.run(Operation::Put, move |shared| {
            let mut random = [0; 8];
            shared.tries.entropy.fill(&mut random);
            let (key, payload) = (format!("{key}.{}", hex::encode(random)), payload.clone());
            async move {
                shared.store.put(&Path::from(key.as_str()), payload).await?;
                Ok(key)
            }
        });
        put.await.map_err(Fault::into_error)
    }

    /// Removes an object. Not an error where there is none.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let path = Path::from(key);
        let deleted = self.run(Operation::Delete, move |shared| {
            let path = path.clone();
            async move {
                shared.store.delete(&path).await?;
                Ok(())
            }
        });
        unless_missing(deleted.await).map(|_| ())
    }

    /// Removes objects, several at once.
    ///
    /// # Errors
    /// Unavailable, with some of them removed.
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<()> {
        let deletions = stream::iter(keys).map(|key| async move { self.delete(&key).await });
        deletions.buffer_unordered(DELETIONS).try_collect().await
    }

    /// Gives each object whose key begins so to `each`.
    ///
    /// # Errors
    /// Unavailable, after some of them.
    pub async fn list(&self, prefix: &str, mut each: impl FnMut(Entry)) -> Result<()> {
        self.pages(prefix, None, |objects, _| {
            for object in objects {
                each(Entry {
                    key: object.location.to_string(),
                    size: object.size,
                    written: Timestamp::from_micros(object.last_modified.timestamp_micros()),
                });
            }
        })
        .await
    }

    /// Gives each name that comes after the prefix, and before a slash, to `each`.
    ///
    /// # Errors
    /// Unavailable, after some of them.
    pub async fn list_folders(&self, prefix: &str, mut each: impl FnMut(&str)) -> Result<()> {
        self.pages(prefix, Some("/"), |_, folders| {
            for folder in folders {
                each(folder.filename().unwrap_or_default());
            }
        })
        .await
    }

    async fn pages(
        &self,
        prefix: &str,
        delimiter: Option<&'static str>,
        mut each: impl FnMut(Vec<ObjectMeta>, Vec<Path>),
    ) -> Result<()> {
        let mut token = None;
        loop {
            let (prefix, from) = (prefix.to_owned(), token.take());
            let page = self.run(Operation::List, move |shared| {
                let (prefix, page_token) = (prefix.clone(), from.clone());
                async move {
                    let options = PaginatedListOptions {
                        delimiter: delimiter.map(Into::into),
                        page_token,
                        ..PaginatedListOptions::default()
                    };
                    Ok(shared.store.list_paginated(Some(&prefix), options).await?)
                }
            });
            let page = page.await.map_err(Fault::into_error)?;
            each(page.result.objects, page.result.common_prefixes);
            token = page.page_token;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Begins to write an object in parts; the upload's id.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn begin(&self, key: &str) -> Result<String> {
        let path = Path::from(key);
        let begun = self.run(Operation::Begin, move |shared| {
            let path = path.clone();
            async move { Ok(shared.store.create_multipart(&path).await?) }
        });
        begun.await.map_err(Fault::into_error)
    }

    /// Writes a part, by its index; what the store calls it. All but the last have at least 5 MiB.
    ///
    /// # Errors
    /// StorageFull; Unavailable.
    pub async fn put_part(
        &self,
        key: &str,
        upload: &str,
        index: usize,
        bytes: Vec<Bytes>,
    ) -> Result<String> {
        let (path, upload) = (Path::from(key), upload.to_owned());
        let payload = PutPayload::from_iter(bytes);
        let put = self.run(Operation::Part, move |shared| {
            let (path, upload, payload) = (path.clone(), upload.clone(), payload.clone());
            async move {
                let put = shared.store.put_part(&path, &upload, index, payload);
                Ok(put.await?.content_id)
            }
        });
        put.await.map_err(Fault::into_error)
    }

    /// Puts the parts together to an object of `size` bytes. It is durable when this returns.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: Vec<String>,
        size: u64,
    ) -> Result<()> {
        let (path, id) = (Path::from(key), upload.to_owned());
        let completed = self.run(Operation::Complete, move |shared| {
            let (path, id) = (path.clone(), id.clone());
            let parts = parts.iter().map(|part| PartId {
                content_id: part.clone(),
            });
            let parts = parts.collect();
            async move {
                shared.store.complete_multipart(&path, &id, parts).await?;
                Ok(())
            }
        });
        let Err(fault) = completed.await else {
            return Ok(());
        };
        // A try whose answer was lost may have done it: some stores know no such upload then.
        match self.size(key).await? {
            Some(found) if found == size => Ok(()),
            _ => Err(fault.into_error()),
        }
    }

    /// Ends an upload, whose parts go. Not an error where there is none.
    ///
    /// # Errors
    /// Unavailable.
    pub async fn abort(&self, key: &str, upload: &str) -> Result<()> {
        let (path, upload) = (Path::from(key), upload.to_owned());
        let aborted = self.run(Operation::Abort, move |shared| {
            let (path, upload) = (path.clone(), upload.clone());
            async move {
                shared.store.abort_multipart(&path, &upload).await?;
                Ok(())
            }
        });
        unless_missing(aborted.await).map(|_| ())
    }

    /// Ends the uploads of all keys that begin so. A store that can't list them needs a rule of the bucket's life cycle.
    ///
    /// # Errors
    /// Unavailable, with some of them ended.
    pub async fn abort_all(&self, prefix: &str) -> Result<()> {
        let mut page = Page::default();
        loop {
            let mut query = vec![
                ("uploads".to_owned(), String::new()),
                ("prefix".to_owned(), prefix.to_owned()),
            ];
            if let Some(next) = page.next.take() {
                query.push(("key-marker".to_owned(), next.key));
                query.push(("upload-id-marker".to_owned(), next.id));
            }
            let listed = self.run(Operation::Uploads, move |shared| {
                let mut url = shared.url.clone();
                url.query_pairs_mut().extend_pairs(&query);
                async move { shared.list_uploads(url).await }
            });
            page = match listed.await {
                Ok(page) => page,
                Err(Fault::Unknown | Fault::Missing) => return Ok(()),
                Err(fault) => return Err(fault.into_error()),
            };
            for upload in &page.uploads {
                self.abort(&upload.key, &upload.id).await?;
            }
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    async fn run<T, F, R>(&self, operation: Operation, once: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: Fn(Arc<Shared>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let patient = self.patient || operation == Operation::Read;
        let tries = async move {
            let once = || once(Arc::clone(&shared));
            shared.tries.run(operation, patient, once).await
        };
        // A set that is dropped aborts what is in it.
        let mut running = JoinSet::new();
        running.spawn_on(tries, &self.runtime);
        match running.join_next().await {
            Some(Ok(ended)) => ended,
            // The runtime is ending.
            Some(Err(error)) => Err(Fault::Refused(away(error))),
            None => Err(Fault::Refused(Error::internal("a request is gone"))),
        }
    }
}

impl Shared {
    /// The library has no call for this.
    async fn list_uploads(&self, url: Url) -> Result<Page, Fault> {
        let failed = |error: reqwest::Error| Fault::Failed(away(error.without_url()));
        let answer = self.http.get(url).await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => {}
            429 => return Err(Fault::Busy(away("429"))),
            // Not every store knows it.
            400 | 404 | 405 | 501 => return Err(Fault::Unknown),
            // Without the right to it the parts would stay, and nobody would know.
            status @ 400..=499 => {
                let refused = format!("listing begun uploads: status {status}");
                return Err(Fault::Refused(away(refused)));
            }
            status => return Err(Fault::Failed(away(format!("status {status}")))),
        }
        let text = answer.text().await.map_err(failed)?;
        uploads::parse(&text).map_err(Fault::Failed)
    }
}

fn whole(bytes: Bytes, expected: u64) -> Result<Bytes, Fault> {
    if bytes.len() as u64 != expected {
        return Err(Fault::Failed(away("an object came short")));
    }
    Ok(bytes)
}

fn unless_missing<T>(ended: Result<T, Fault>) -> Result<Option<T>> {
    match ended {
        Ok(done) => Ok(Some(done)),
        Err(Fault::Missing) => Ok(None),
        Err(fault) => Err(fault.into_error()),
    }
}
