//! The lease of what one process at a time does, of all on a catalog.

use std::time::Duration;

use crate::app::Service;

/// After how many intervals without a sign of life another process has it.
const INTERVALS: u32 = 3;

/// A lease that a process wants.
pub(super) struct Lease<'a> {
    service: &'a Service,
    /// What it is for.
    name: &'static str,
    /// Who this is among the processes on the catalog.
    holder: &'a str,
    /// How often it is extended.
    interval: Duration,
    had: bool,
}

impl<'a> Lease<'a> {
    pub(super) fn new(
        service: &'a Service,
        name: &'static str,
        holder: &'a str,
        interval: Duration,
    ) -> Self {
        Self {
            service,
            name,
            holder,
            interval,
            had: false,
        }
    }

    /// Takes or extends it, and says whether this process has it; none where the catalog does not answer.
    pub(super) async fn hold(&mut self) -> Option<bool> {
        let has = self.ask().await?;
        if has != self.had {
            tracing::info!(lease = self.name, lease.holder = %self.holder, here = has, "a lease changed hands");
        }
        self.had = has;
        Some(has)
    }

    /// Extends it during long work, until it is another's.
    pub(super) async fn until_lost(&self) {
        loop {
            tokio::time::sleep(self.interval).await;
            if self.ask().await == Some(false) {
                return;
            }
        }
    }

    /// Gives it up.
    pub(super) async fn release(self) {
        let released = self.service.catalog.release_lease(self.name, self.holder);
        if self.had
            && let Err(error) = released.await
        {
            tracing::warn!(lease = self.name, error.chain = %error.chain(), "a lease was not given up");
        }
    }

    async fn ask(&self) -> Option<bool> {
        let lease = self.interval * INTERVALS;
        let held = self
            .service
            .catalog
            .hold_lease(self.name, self.holder, lease);
        match held.await {
            Ok(held) => Some(held),
            Err(error) => {
                tracing::warn!(lease = self.name, error.chain = %error.chain(), "a lease is not to be had");
                None
            }
        }
    }
}
