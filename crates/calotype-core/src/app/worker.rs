//! The worker: picks jobs and does them.
//!
//! # Consistency
//! A job is claimed by raising its attempt. Every later write names the attempt, and the catalog refuses it
//! once another attempt has begun: of two workers on one job, one's effects are visible.
//!
//! # Crash consistency
//! A worker that dies leaves a claim whose lease ends; then any worker picks the job again, and goes on where the last
//! one had got to. Replicating by sharing a blob is a single commit, so there is nothing half done.
//!
//! # Cancellation
//! When the worker is stopped it picks no more jobs, breaks off those that it has, and hands them back at once: the
//! next worker goes on. An ending whose commit was already under way stands, and the handing back changes nothing.
//!
//! # Panics
//! An execution that panics is a fault of ours that would be met again: its job fails.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::app::Service;
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{
    BlobMove, Claim, Export, Import, JobFailure, JobType, MembersChange, Release, ReplicaBytes,
    Replication, Work,
};
use crate::ports::ResealProgress;

/// The most jobs that a worker picks at once.
const MOST_PICKS: usize = 8;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The worker's name, shown in the catalog beside what it has claimed.
    pub name: String,
    /// Jobs done at once.
    pub concurrency: usize,
    /// How long a claim holds without a sign of life.
    pub lease: Duration,
    /// How often the catalog is asked for jobs when nothing rings.
    pub poll_interval: Duration,
    /// How long after its acceptance a job that meets only transient faults is given up.
    pub give_up_after: Duration,
    /// After how many attempts that died one after the other, without any progress between, a job is given up: it may be
    /// what they died of.
    pub give_up_after_deaths: u32,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            name: "worker".to_owned(),
            concurrency: 64,
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            give_up_after: Duration::from_secs(24 * 3600),
            give_up_after_deaths: 20,
        }
    }
}

/// Picks jobs and does them.
pub struct Worker {
    service: Arc<Service>,
    options: WorkerOptions,
}

/// How an execution of a job ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    PutOff,
    HandedBack,
    Lost,
}

impl Worker {
    /// A worker of this service.
    pub fn new(service: Arc<Service>, options: WorkerOptions) -> Self {
        Self { service, options }
    }

    /// Works until `stop` completes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let this = Arc::new(self);
        let (halt, halted) = watch::channel(false);
        let (mut running, mut at_once) = (JoinSet::new(), 1);
        while stop.as_mut().now_or_never().is_none() {
            // Registered before the catalog is asked, so that a ring between the two is not missed.
            let bell = this.service.catalog.bell().notified();
            tokio::pin!(bell);
            bell.as_mut().enable();
            while running.try_join_next().is_some() {}
            let room = this.options.concurrency.saturating_sub(running.len());
            let wanted = at_once.min(room);
            let claims = this.pick(wanted).await;
            // One, then more: a few jobs are for all workers, and of a long queue each takes many with one commit.
            at_once = if claims.len() < wanted {
                1
            } else {
                (2 * at_once).min(MOST_PICKS)
            };
            let picked = !claims.is_empty();
            for claim in claims {
                let (worker, halted) = (Arc::clone(&this), halted.clone());
                let span = span_of(&claim);
                running.spawn(async move { worker.execute(claim, halted).await }.instrument(span));
            }
            if picked {
                continue;
            }
            let full = room == 0;
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = running.join_next() => {}
                () = &mut bell, if !full => {}
                () = tokio::time::sleep(this.options.poll_interval), if !full => {}
            }
        }
        halt.send_replace(true);
        while running.join_next().await.is_some() {}
    }

    async fn pick(&self, most: usize) -> Vec<Claim> {
        if most == 0 {
            return Vec::new();
        }
        let (name, lease) = (&self.options.name, self.options.lease);
        let picked = self.service.catalog.pick_jobs(name, lease, most).await;
        picked.unwrap_or_else(|error| {
            tracing::warn!(error.chain = %error.chain(), "no job could be picked");
            Vec::new()
        })
    }

    async fn execute(&self, claim: Claim, mut halted: watch::Receiver<bool>) {
        let work = async {
            self.check_worth(&claim)?;
            let finished = match &claim.work {
                Work::Replicate(replication) => self.replicate(&claim, replication).await?,
                Work::ChangeMembers(change) => self.change_members(&claim, change).await?,
                Work::Import(import) => self.import(&claim, import).await?,
                Work::Parts => return Err(Error::internal("a job with parts was picked")),
                Work::Export(export) => self.export(&claim, export).await?,
                Work::Move(order) => self.move_blob(&claim, order).await?,
            };
            match finished {
                Release::Done => Ok(Outcome::Done),
                Release::Lost => Ok(Outcome::Lost),
                Release::Cancelled => Err(super::cancel::cancelled()),
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = AssertUnwindSafe(work).catch_unwind() => {
                outcome.unwrap_or_else(|_| Err(Error::internal("the execution panicked")))
            }
            () = halt_of(&mut halted) => self.hand_back(&claim).await,
        };
        let settled = match outcome {
            Ok(outcome) => Ok(outcome),
            Err(error) => self.settle(&claim, &error).await,
        };
        match settled {
            Ok(Outcome::Done) => tracing::info!("job ended"),
            // Said where it was decided.
            Ok(Outcome::PutOff) => {}
            Ok(Outcome::HandedBack) => tracing::info!("job handed back"),
            Ok(Outcome::Lost) => tracing::warn!("job lost to another attempt"),
            // The lease will end, and the job will be picked again.
            Err(error) => tracing::error!(error.chain = %error.chain(), "job not ended"),
        }
    }

    /// Lets another worker, or the next start, go on with the job.
    async fn hand_back(&self, claim: &Claim) -> Result<Outcome> {
        let (job, attempt) = (&claim.job.id, claim.attempt);
        let catalog = &self.service.catalog;
        match catalog.hand_back(job, attempt, Duration::ZERO).await? {
            Release::Done => Ok(Outcome::HandedBack),
            Release::Lost => Ok(Outcome::Lost),
            Release::Cancelled => Err(super::cancel::cancelled()),
        }
    }

    /// Whether an attempt is to do anything but end the job.
    ///
    /// # Errors
    /// What the job ends with.
    fn check_worth(&self, claim: &Claim) -> Result<()> {
        if claim.cancelled {
            return Err(super::cancel::cancelled());
        }
        if claim.deaths >= self.options.give_up_after_deaths {
            return Err(Error::internal(format!(
                "{} attempts died one after the other",
                claim.deaths
            )));
        }
        Ok(())
    }

    async fn replicate(&self, claim: &Claim, replication: &Replication) -> Result<Release> {
        let (job, attempt) = (&claim.job.id, claim.attempt);
        let (service, lease) = (&self.service, self.options.lease);
        let progress = Arc::new(ResealProgress::of(claim.job.progress));
        let source = replication.source;
        match &replication.bytes {
            ReplicaBytes::Share { wrapped } => {
                let open = service.open_shared(source, wrapped.as_ref());
                match service.alive(claim, lease, &progress, open).await? {
                    Some(()) => service.catalog.finish_share(job, attempt).await,
                    None => Ok(Release::Lost),
                }
            }
            ReplicaBytes::Reseal(plan) => {
                let reseal = service.reseal(claim, source, plan, &progress);
                match service.alive(claim, lease, &progress, reseal).await? {
                    Some(facts) => service.catalog.finish_reseal(job, attempt, &facts).await,
                    None => Ok(Release::Lost),
                }
            }
        }
    }

    async fn change_members(&self, claim: &Claim, change: &MembersChange) -> Result<Release> {
        let progress = ResealProgress::of(claim.job.progress);
        let work = self.service.change_members(claim, change);
        let alive = self
            .service
            .alive(claim, self.options.lease, &progress, work);
        Ok(alive.await?.unwrap_or(Release::Lost))
    }

    async fn import(&self, claim: &Claim, import: &Import) -> Result<Release> {
        let (service, lease) = (&self.service, self.options.lease);
        let progress = Arc::new(ResealProgress::default());
        let fetch = service.fetch(claim, import, &progress);
        let Some(fetched) = service.alive(claim, lease, &progress, fetch).await? else {
            return Ok(Release::Lost);
        };
        let (facts, virtual_size) = fetched;
        service
            .catalog
            .finish_import(&claim.job.id, claim.attempt, &facts, virtual_size)
            .await
    }

    async fn export(&self, claim: &Claim, export: &Export) -> Result<Release> {
        let (service, lease) = (&self.service, self.options.lease);
        let progress = Arc::new(ResealProgress::default());
        let write = service.write_object(claim, export, &progress);
        let Some(facts) = service.alive(claim, lease, &progress, write).await? else {
            return Ok(Release::Lost);
        };
        let ended = service.catalog.finish_steps(&claim.job.id, claim.attempt);
        let ended = ended.await?;
        if ended == Release::Cancelled {
            // The job fails whether this does or not; then the object is removed where it says which job made it, which not every
            // file system lets it.
            let removed = service.objects.remove(&export.object, &facts).await;
            if let Err(error) = removed {
                tracing::warn!(error.chain = %error.chain(), "an object of a cancelled export was not removed");
            }
        }
        Ok(ended)
    }

    async fn move_blob(&self, claim: &Claim, order: &BlobMove) -> Result<Release> {
        let (service, lease) = (&self.service, self.options.lease);
        let progress = Arc::new(ResealProgress::of(claim.job.progress));
        let copy = service.copy_blob(claim, order, &progress);
        if service
            .alive(claim, lease, &progress, copy)
            .await?
            .is_none()
        {
            return Ok(Release::Lost);
        }
        let grace = service.settings.deletion_grace;
        let catalog = &service.catalog;
        catalog
            .finish_move(&claim.job.id, claim.attempt, grace)
            .await
    }

    /// Tries a job again later after a transient fault, and fails it after any other, and where it was cancelled.
    async fn settle(&self, claim: &Claim, error: &Error) -> Result<Outcome> {
        let job = &claim.job;
        let age = self.service.clock.now().since(job.created_at);
        if !error.is_transient() || age >= self.options.give_up_after {
            return self.fail(claim, error).await;
        }
        let delay = backoff(claim.attempt);
        let catalog = &self.service.catalog;
        match catalog.hand_back(&job.id, claim.attempt, delay).await? {
            Release::Done => {
                tracing::warn!(error.chain = %error.chain(), retry.after_s = delay.as_secs_f64(), "job put off");
                Ok(Outcome::PutOff)
            }
            Release::Lost => Ok(Outcome::Lost),
            Release::Cancelled => self.fail(claim, &super::cancel::cancelled()).await,
        }
    }

    async fn fail(&self, claim: &Claim, error: &Error) -> Result<Outcome> {
        let job = &claim.job;
        tracing::error!(error.chain = %error.chain(), "job failed");
        let failure = JobFailure {
            code: failure_code(job.job_type, error),
            reason: error.message().to_owned(),
        };
        let failed = self
            .service
            .catalog
            .fail_job(&job.id, claim.attempt, &failure)
            .await?;
        if !failed {
            return Ok(Outcome::Lost);
        }
        // No other attempt comes after this one.
        if let Work::Export(export) = &claim.work {
            self.service.remove_made(&job.id, export).await;
        }
        Ok(Outcome::Done)
    }
}

/// Completes when the worker is stopped, or is gone.
async fn halt_of(halted: &mut watch::Receiver<bool>) {
    let _ = halted.wait_for(|halted| *halted).await;
}

/// The IMS code of a job of this type that failed with this error.
fn failure_code(job_type: JobType, error: &Error) -> ImsCode {
    match (error.code(), error.kind()) {
        (Some(super::cancel::CANCELLED), _) => super::cancel::CANCELLED,
        // Whatever went wrong with it (spec 2.7): the reason says what.
        _ if job_type == JobType::NativeImportImage => ImsCode::IMG_1075,
        (Some(code), _) => code,
        (None, ErrorKind::NotFound | ErrorKind::Gone) => ImsCode::IMG_0144,
        (None, _) => ImsCode::IMG_0061,
    }
}

/// The longest that a job waits between two attempts. A key service that is back is asked again within twice this:
/// where it was away, it may be left alone for as long again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Half a second, doubled with each attempt, up to [`LONGEST_BACKOFF`].
fn backoff(attempt: i64) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 8) - 1).unwrap_or(0);
    Duration::from_millis(500 * (1 << doublings)).min(LONGEST_BACKOFF)
}

/// What every line of the log about an attempt says, whatever the level.
fn span_of(claim: &Claim) -> tracing::Span {
    let job = &claim.job;
    let image = job.image.or(job.source);
    tracing::error_span!(
        "job",
        job.id = %job.id,
        job.attempt = claim.attempt,
        project.id = %job.project,
        image.id = image.map(tracing::field::display),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_grows_and_is_bounded() {
        assert_eq!(backoff(1), Duration::from_millis(500));
        assert_eq!(backoff(2), Duration::from_secs(1));
        assert_eq!(backoff(5), Duration::from_secs(8));
        assert_eq!(backoff(6), LONGEST_BACKOFF);
        assert_eq!(backoff(i64::MAX), LONGEST_BACKOFF);
        assert_eq!(backoff(0), Duration::from_millis(500));
    }
}
