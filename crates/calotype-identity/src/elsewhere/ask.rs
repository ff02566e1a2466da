//! Keystone, asked with the service's own token.
//!
//! # Guarantees
//! At most [`AT_ONCE`] requests are under way; some further ones wait, until their deadline, and the rest is Unavailable: who
//! comes with made-up credentials must not hold up those who are known. A token of the service's that is
//! refused is renewed once. What is not Keystone's own answer (a proxy's page, an address where there is none) says nothing
//! of the credential that was asked about: it is Unavailable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use calotype_core::ports::{Clock, Entropy};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use calotype_remote::{
    Answer, Connection, Endpoint, Granted, Login, Names, Request, Session, http_url,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// Requests that are under way at once, and that wait for one of those to end.
const AT_ONCE: usize = 32;
const WAITING: usize = 96;

/// The largest answer, in bytes. No catalog is asked for.
const ANSWER_LIMIT: usize = 256 * 1024;

/// When a retry makes sense where a busy Keystone did not say.
const BUSY: Duration = Duration::from_secs(5);

pub(super) const NAMES: Names = Names {
    name: "Keystone",
    away: "The identity service is temporarily unavailable.",
};

/// A Keystone.
pub(super) struct Asked {
    session: Session,
    endpoint: Endpoint,
    /// Its URL, with `/v3` and without a slash at its end.
    url: String,
    /// Places among those who ask or wait.
    queue: Semaphore,
    turns: Semaphore,
    clock: Arc<dyn Clock>,
    /// Whether it has ever let the service in.
    met: AtomicBool,
    /// Whether it was away when it was last asked.
    away: AtomicBool,
}

/// What Keystone answered.
pub(super) enum Found {
    /// The document.
    Document(Answer),
    /// There is no such thing.
    Missing,
    /// The service's user may not see it.
    NotPermitted,
}

impl Asked {
    /// The Keystone of this login.
    ///
    /// # Errors
    /// InvalidRequest where URL, certificates or proxy are none.
    pub(super) fn new(
        login: Login,
        connection: &Connection,
        entropy: &Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let endpoint = || Endpoint::new(NAMES, connection, Arc::clone(entropy));
        Self::at(login, endpoint()?, endpoint()?, clock)
    }

    /// The same over these endpoints: one for logins, one for everything else.
    ///
    /// # Errors
    /// As [`Asked::new`].
    pub(super) fn at(
        login: Login,
        logins: Endpoint,
        endpoint: Endpoint,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let url = login.v3_url();
        http_url(&url)?;
        Ok(Self {
            session: Session::new(login, logins, Arc::clone(&clock))?,
            endpoint,
            url,
            queue: Semaphore::new(AT_ONCE + WAITING),
            turns: Semaphore::new(AT_ONCE),
            clock,
            met: AtomicBool::new(false),
            away: AtomicBool::new(false),
        })
    }

    /// Keystone's URL, with `/v3`.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// When what begins now has to end.
    pub(super) fn deadline(&self) -> Instant {
        self.endpoint.deadline()
    }

    /// Whether it was away when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// That Keystone has let the service in, now or before.
    ///
    /// # Errors
    /// Unavailable where it has not, and does not within `patience`.
    pub(super) async fn meet(self: &Arc<Self>, patience: Duration) -> Result<()> {
        if self.met.load(Ordering::Relaxed) {
            return Ok(());
        }
        // It goes on where nobody waits for it any more: the next one finds the service let in.
        let asked = Arc::clone(self);
        let login = tokio::spawn(async move {
            let deadline = asked.deadline();
            asked.granted(deadline).await.map(drop)
        });
        match timeout(patience, login).await {
            Ok(ended) => ended.map_err(Error::internal)?,
            Err(_) => Err(self.too_slow()),
        }
    }

    fn too_slow(&self) -> Error {
        let said = "Keystone: the service's login takes too long";
        self.endpoint.unusable(said)
    }

    /// GET of a path below `/v3/`; `subject` is the token that it is about.
    ///
    /// # Errors
    /// Unavailable.
    pub(super) async fn get(
        &self,
        path: &str,
        subject: Option<&str>,
        deadline: Instant,
    ) -> Result<Found> {
        // A crowd here says nothing of Keystone.
        let crowded = |_| self.endpoint.unavailable(BUSY, "Keystone: too many wait");
        let _place = self.queue.try_acquire().map_err(crowded)?;
        let found = self.ask(path, subject, deadline).await;
        self.away.store(found.is_err(), Ordering::Relaxed);
        found
    }

    /// As [`Asked::get`], of a document that must be understood.
    ///
    /// # Errors
    /// Unavailable, also where it is not.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        deadline: Instant,
    ) -> Result<Read<T>> {
        Ok(match self.get(path, None, deadline).await? {
            Found::Document(answer) => Read::Document(self.parsed(&answer)?),
            Found::Missing => Read::Missing,
            Found::NotPermitted => Read::NotPermitted,
        })
    }

    /// A document of Keystone's.
    ///
    /// # Errors
    /// Unavailable where it is not understood. What serde says of it stays here: it may quote a secret.
    pub(super) fn parsed<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T> {
        serde_json::from_slice(&answer.body).map_err(|_| self.not_understood())
    }

    /// Keystone's answer makes no sense.
    pub(super) fn not_understood(&self) -> Error {
        self.endpoint
            .unusable("Keystone's answer is not understood")
    }

    /// Keystone's time when it answered, or else ours: its tokens end by its own.
    pub(super) fn time_of(&self, answer: &Answer) -> Timestamp {
        answer.date().unwrap_or_else(|| self.clock.now())
    }

    async fn ask(&self, path: &str, subject: Option<&str>, deadline: Instant) -> Result<Found> {
        let late = |_| self.endpoint.unusable("Keystone: no turn in time");
        let turn = timeout_at(deadline, self.turns.acquire()).await;
        let _turn = turn.map_err(late)?.map_err(Error::internal)?;
        let url = http_url(&format!("{}/{path}", self.url))?;
        let mut renewed = false;
        loop {
            let granted = self.granted(deadline).await?;
            let mut request = Request::get(url.clone()).header("accept", "application/json");
            request.limit = ANSWER_LIMIT;
            let mut request = request.secret("x-auth-token", &granted.token)?;
            if let Some(subject) = subject {
                request = request.secret("x-subject-token", subject)?;
            }
            let answer = self.endpoint.call(&request, deadline).await?;
            if answer.status == 401
                && !renewed
                && self.session.give_up(&granted, Duration::ZERO).await
            {
                renewed = true;
                continue;
            }
            return self.judge(answer);
        }
    }

    async fn granted(&self, deadline: Instant) -> Result<Arc<Granted>> {
        let granted = timeout_at(deadline, self.session.granted(deadline)).await;
        let granted = granted.unwrap_or_else(|_| Err(self.too_slow()));
        self.met.fetch_or(granted.is_ok(), Ordering::Relaxed);
        granted
    }

    fn judge(&self, answer: Answer) -> Result<Found> {
        let said = format!(
            "Keystone answered {} ({})",
            answer.status,
            answer.request_id()
        );
        match answer.status {
            200 => Ok(Found::Document(answer)),
            404 if is_keystones(&answer) => Ok(Found::Missing),
            403 => Ok(Found::NotPermitted),
            401 => {
                tracing::error!(
                    keystone.request_id = answer.request_id(),
                    "Keystone does not take the service's token"
                );
                Err(self.endpoint.unavailable(BUSY, said))
            }
            429 => {
                let wait = answer.retry_after().unwrap_or(BUSY);
                Err(self.endpoint.unavailable(wait, said))
            }
            _ => Err(self.endpoint.unusable(said)),
        }
    }
}

/// A document, or why there is none.
pub(super) enum Read<T> {
    Document(T),
    Missing,
    NotPermitted,
}

/// Whether a 404 has Keystone's own form.
fn is_keystones(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Document {
        error: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        code: u16,
    }
    serde_json::from_slice::<Document>(&answer.body)
        .is_ok_and(|document| document.error.code == answer.status)
}
