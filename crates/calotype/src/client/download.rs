//! Fetching an image's bytes: verified before they have their name, resumed where they broke off.
//!
//! Guarantees: the file's name never holds bytes that do not match the image's digest; what is
//! there under that name stays until then. A crash or a broken connection leaves `NAME.IMAGE-ID.part`,
//! from whose end the next download goes on (an image's bytes never change); the digest is of
//! all of it, so a part that a power loss damaged is found, and removed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use indicatif::ProgressBar;
use md5::{Digest as _, Md5};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, RANGE};
use secrecy::ExposeSecret;
use serde_json::Value;
use sha2::{Sha256, Sha512};
use tokio::sync::mpsc;

use super::calls::encode;
use super::login::Session;
use super::transport::{asks_to_wait, join, retry_after, success, unreachable};
use crate::exit::{Exit, Failure};

/// A connection that brings nothing for this long is given up, and resumed.
const IDLE: Duration = Duration::from_secs(60);
/// Chunks between network and disk.
const QUEUE: usize = 32;

/// Where the bytes go.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A file, replaced where it exists.
    File(PathBuf),
    /// Standard output: what was written can't be taken back where the digest does not match.
    Stdout,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Of those, bytes that an earlier download had left.
    pub(crate) resumed_from: u64,
    /// The digest that matched; none where the service gave none.
    pub(crate) algorithm: Option<String>,
}

impl Session {
    /// Fetches the bytes of the image of which `image` is the document.
    ///
    /// # Errors
    /// [`Exit::Damaged`] where the bytes don't match; what the service or the disk says.
    pub(crate) async fn download(
        &self,
        image: &Value,
        target: &Target,
        bar: &ProgressBar,
    ) -> Result<Verified, Failure> {
        let id = image["id"].as_str().unwrap_or_default().to_owned();
        let expected = Expected::of(image);
        let sink = match target {
            Target::File(path) => Sink::file(part_path(path, &id))?,
            Target::Stdout => Sink::Stdout,
        };
        let start = sink.length()?;
        // A part longer than the image is of no use.
        let start = if image["size"].as_u64().is_some_and(|size| start > size) {
            0
        } else {
            start
        };
        let (chunks, received) = mpsc::channel(QUEUE);
        let digest = expected.as_ref().map(Expected::hasher);
        let writer = tokio::task::spawn_blocking(move || write_all(sink, start, digest, received));
        let fetched = self
            .fetch(&id, start, image["size"].as_u64(), chunks, bar)
            .await;
        let written = writer
            .await
            .map_err(|error| Failure::new(format!("the writer stopped: {error}")))?;
        // Where both failed, the disk is the cause: the network saw only a closed queue.
        let (bytes, actual) = written?;
        fetched?;
        if let (Some(expected), Some(actual)) = (&expected, actual)
            && !expected.value.eq_ignore_ascii_case(&actual)
        {
            if let Target::File(path) = target {
                std::fs::remove_file(part_path(path, &id)).ok();
            }
            return Err(Failure::new(format!(
                "the bytes of image {id} do not match their {}: expected {}, got {actual}",
                expected.algorithm, expected.value
            ))
            .with_exit(Exit::Damaged)
            .with_hint("fetch it again; where that repeats, tell the operator"));
        }
        if let Target::File(path) = target {
            commit(&part_path(path, &id), path)?;
        }
        let algorithm = expected.map(|expected| expected.algorithm);
        Ok(Verified {
            bytes,
            resumed_from: start,
            algorithm,
        })
    }

    /// Sends the bytes from `start` to the queue, going on where a connection breaks.
    async fn fetch(
        &self,
        id: &str,
        start: u64,
        size: Option<u64>,
        chunks: mpsc::Sender<Bytes>,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        let url = join(self.endpoint(), &format!("/v2/images/{}/file", encode(id)))?;
        let retry = self.transport.retry;
        let mut position = start;
        let mut attempt = 1;
        let mut renewed = false;
        bar.set_position(position);
        loop {
            if size == Some(position) && (position > 0 || attempt > 1) {
                return Ok(());
            }
            let token = self.token().await;
            let mut request = self
                .transport
                .client(&url)
                .get(url.clone())
                .header("accept", "application/octet-stream, application/json;q=0.5")
                .header("x-auth-token", token.expose_secret());
            if position > 0 {
                request = request.header(RANGE, format!("bytes={position}-"));
            }
            let before = position;
            let mut asked = None;
            let failure = match request.send().await {
                Err(error) => unreachable(&url, &error),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    if !self.renew().await? {
                        return success(response).await.map(drop);
                    }
                    continue;
                }
                Ok(response) if asks_to_wait(response.status()) => {
                    asked = retry_after(response.headers());
                    match success(response).await {
                        Ok(_) => continue,
                        Err(failure) => failure,
                    }
                }
                Ok(response) => {
                    let mut response = success(response).await?;
                    let mut skip = skip(&response, position)?;
                    loop {
                        match tokio::time::timeout(IDLE, response.chunk()).await {
                            Ok(Ok(Some(chunk))) => {
                                let cut = usize::try_from(skip).unwrap_or(usize::MAX);
                                let cut = cut.min(chunk.len());
                                skip -= cut as u64;
                                let chunk = chunk.slice(cut..);
                                if chunk.is_empty() {
                                    continue;
                                }
                                position += chunk.len() as u64;
                                bar.set_position(position);
                                if chunks.send(chunk).await.is_err() {
                                    return Err(Failure::new("the bytes could not be written"));
                                }
                            }
                            Ok(Ok(None)) if size.is_none_or(|size| position >= size) => {
                                return Ok(());
                            }
                            Ok(Ok(None)) => break Failure::new("the connection ended early"),
                            Ok(Err(error)) => break unreachable(&url, &error),
                            Err(_) => {
                                break Failure::new(format!(
                                    "nothing came for {} s",
                                    IDLE.as_secs()
                                ))
                                .with_exit(Exit::Timeout);
                            }
                        }
                    }
                }
            };
            // Progress earns a fresh set of attempts: a long download outlives many breaks.
            if position > before {
                attempt = 1;
            } else if attempt >= retry.attempts {
                return Err(failure);
            }
            tokio::time::sleep(retry.wait(attempt, asked)).await;
            attempt += 1;
        }
    }
}

/// How many of the response's first bytes are there already.
fn skip(response: &reqwest::Response, position: u64) -> Result<u64, Failure> {
    if response.status() != StatusCode::PARTIAL_CONTENT {
        // The service does not do ranges: it starts again.
        return Ok(position);
    }
    let header = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok());
    let begin: Option<u64> = header
        .and_then(|text| text.strip_prefix("bytes "))
        .and_then(|text| text.split('-').next())
        .and_then(|text| text.parse().ok());
    begin
        .and_then(|begin| position.checked_sub(begin))
        .ok_or_else(|| Failure::new("the service answered with another range than was asked for"))
}

/// The digest that an image's bytes must have.
#[derive(Debug)]
struct Expected {
    algorithm: String,
    value: String,
}

impl Expected {
    fn of(image: &Value) -> Option<Self> {
        let text = |name: &str| image[name].as_str().map(str::to_owned);
        let algorithm = text("os_hash_algo").filter(|name| name == "sha512" || name == "sha256");
        if let (Some(algorithm), Some(value)) = (algorithm, text("os_hash_value")) {
            return Some(Self { algorithm, value });
        }
        text("checksum").map(|value| Self {
            algorithm: "md5".to_owned(),
            value,
        })
    }

    fn hasher(&self) -> Hasher {
        match self.algorithm.as_str() {
            "sha512" => Hasher::Sha512(Sha512::new()),
            "sha256" => Hasher::Sha256(Sha256::new()),
            _ => Hasher::Md5(Md5::new()),
        }
    }
}

enum Hasher {
    Sha512(Sha512),
    Sha256(Sha256),
    Md5(Md5),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha512(context) => context.update(bytes),
            Self::Sha256(context) => context.update(bytes),
            Self::Md5(context) => context.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Sha512(context) => hex::encode(context.finalize()),
            Self::Sha256(context) => hex::encode(context.finalize()),
            Self::Md5(context) => hex::encode(context.finalize()),
        }
    }
}

enum Sink {
    File(File, PathBuf),
    Stdout,
}

impl Sink {
    /// Opens a part for this process alone.
    fn file(path: PathBuf) -> Result<Self, Failure> {
        let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(named)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |_| {
                Failure::new(format!(
                    "{}: another download is writing it",
                    path.display()
                ))
                .with_exit(Exit::Refused)
            },
        )?;
        Ok(Self::File(file, path))
    }

    fn length(&self) -> Result<u64, Failure> {
        match self {
            Self::File(file, _) => Ok(file.metadata()?.len()),
            Self::Stdout => Ok(0),
        }
    }
}

/// Writes what comes after the first `start` bytes; gives the length and the digest of all of it.
fn write_all(
    sink: Sink,
    start: u64,
    mut digest: Option<Hasher>,
    mut chunks: mpsc::Receiver<Bytes>,
) -> Result<(u64, Option<String>), Failure> {
    let mut length = start;
    match sink {
        Sink::File(mut file, path) => {
            let named =
                |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
            file.set_len(start).map_err(named)?;
            if let Some(digest) = &mut digest {
                hash_start(&mut file, start, digest).map_err(named)?;
            }
            file.seek(SeekFrom::Start(start)).map_err(named)?;
            while let Some(chunk) = chunks.blocking_recv() {
                if let Some(digest) = &mut digest {
                    digest.update(&chunk);
                }
                file.write_all(&chunk).map_err(named)?;
                length += chunk.len() as u64;
            }
            file.sync_all().map_err(named)?;
        }
        Sink::Stdout => {
            let mut out = std::io::stdout().lock();
            while let Some(chunk) = chunks.blocking_recv() {
                if let Some(digest) = &mut digest {
                    digest.update(&chunk);
                }
                out.write_all(&chunk)?;
                length += chunk.len() as u64;
            }
            out.flush()?;
        }
    }
    Ok((length, digest.map(Hasher::finish)))
}

fn hash_start(file: &mut File, length: u64, digest: &mut Hasher) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut part = file.take(length);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match part.read(&mut buffer)? {
            0 => return Ok(()),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn part_path(path: &Path, id: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{id}.part"));
    path.with_file_name(name)
}

/// Gives the part its name, durably.
fn commit(part: &Path, path: &Path) -> Result<(), Failure> {
    let named = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
    std::fs::rename(part, path).map_err(named)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).map_err(named)?;
    directory.sync_all().map_err(named)
}
