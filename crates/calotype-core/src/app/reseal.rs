//! Replication under other keys: what is checked of them, and the worker's part.
//!
//! # Consistency
//! The replica's data key is made and wrapped when the replication is accepted, with the caller's authority, and its
//! wrap is a part of the job: whatever happens later, every attempt seals under the same data key, and a key that can't
//! be used is refused before anything is written.
//!
//! # Crash consistency
//! An attempt goes on where the last one noted its segments. What it made becomes visible by the one transaction that
//! also ends the job; before it, the new blob's row says that it is being written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::replicate::{EncryptionMode, Keys, ReplicaOrder, Strictness};
use super::{Call, Service};
use crate::access::Action;
use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{BlobId, KeyId};
use crate::image::Image;
use crate::job::{Claim, Heartbeat, Progress, ReplicaBytes, ResealPlan};
use crate::keys::{Authority, KeyPurpose, KeyRole, KeyUser, MasterKey, requested_key};
use crate::ports::{BlobFacts, ResealOrder, ResealProgress, WrappedKey};
use crate::size::ByteSize;

/// How often a worker shows that it lives, and writes how far it is.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// When it does so first: an attempt that got anywhere is known to have, although it dies young.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(200);

/// How often a running job asks whether its user may still use the keys.
const KEYS_CHECKED: Duration = Duration::from_secs(10);

impl Service {
    /// Step 14 of spec 3.3: the table of spec 3.4.
    pub(super) async fn check_keys(
        &self,
        call: &Call,
        source: &Image,
        order: &ReplicaOrder,
    ) -> Result<Keys> {
        let named = order.cmk_id.as_deref();
        if named.is_some_and(|key| !key.trim().is_empty()) && source.is_bare_metal() {
            return Err(Error::ims(ImsCode::IMG_0118));
        }
        let keys = Keys {
            source: source.cmk_id.clone(),
            target: requested_key(named)?,
        };
        if keys.source.is_some() && keys.source == keys.target {
            return Err(Error::ims(ImsCode::IMG_0096));
        }
        if keys.source.is_none() && keys.target.is_none() {
            return Ok(keys);
        }
        let user = self.key_user(call)?;
        if let Some(key) = &keys.source {
            let strict = order.strictness;
            self.check_permission(call, strict, Action::DataKeysOpen, ImsCode::IMG_0103)?;
            self.check_key(&user, key, KeyRole::Source).await?;
        }
        if let Some(key) = &keys.target {
            let strict = order.strictness;
            self.check_permission(call, strict, Action::DataKeysSeal, ImsCode::IMG_0099)?;
            self.check_key(&user, key, KeyRole::Target).await?;
            self.check_ownership(&user, source, key).await?;
        }
        Ok(keys)
    }

    /// Decision D7: another project's encrypted image is replicated under a key of the caller's own, and not under one
    /// that was granted. Where the key service does not say whose a key is, one that the caller may use has to do.
    async fn check_ownership(&self, user: &KeyUser, source: &Image, key: &KeyId) -> Result<()> {
        if source.owner == user.project || source.cmk_id.is_none() {
            return Ok(());
        }
        let own = self.keys.is_own(user, key).await;
        match own.map_err(|fault| fault.into_error(KeyRole::Target))? {
            Some(false) => Err(Error::ims(ImsCode::IMG_0197)),
            Some(true) | None => Ok(()),
        }
    }

    /// Decision D19.
    pub(super) fn check_permission(
        &self,
        call: &Call,
        strictness: Strictness,
        action: Action,
        code: ImsCode,
    ) -> Result<()> {
        if strictness == Strictness::Caller && !self.access.permits(&call.principal, action) {
            return Err(Error::ims(code));
        }
        Ok(())
    }

    pub(super) async fn check_key(&self, user: &KeyUser, key: &KeyId, role: KeyRole) -> Result<()> {
        let purpose = match role {
            KeyRole::Source => KeyPurpose::Open,
            KeyRole::Target => KeyPurpose::Seal,
        };
        let checked = self.keys.check(user, key, purpose).await;
        checked.map_err(|fault| fault.into_error(role))
    }

    /// A customer's key for the caller to use; without one, the service's own.
    pub(super) fn master_key(&self, call: &Call, key: Option<&KeyId>) -> Result<MasterKey> {
        Ok(match key {
            Some(key) => MasterKey::Customer(key.clone(), self.key_user(call)?),
            None => MasterKey::Service,
        })
    }

    /// The data key of a blob that is to be made, wrapped.
    pub(super) async fn new_data_key(
        &self,
        blob: BlobId,
        master: &MasterKey,
    ) -> Result<WrappedKey> {
        let fresh = self.blobs.fresh_key(blob, master).await;
        fresh.map_err(|fault| fault.into_error(KeyRole::Target))
    }

    /// How the replica gets its bytes, with the data key that it takes.
    pub(super) async fn plan_bytes(
        &self,
        call: &Call,
        source: &Image,
        blob: BlobId,
        order: &ReplicaOrder,
        keys: &Keys,
    ) -> Result<ReplicaBytes> {
        if keys.source.is_none() && keys.target.is_none() {
            if order.mode == EncryptionMode::Rewrap {
                return Err(Error::invalid(
                    "A replica is rewrapped from one customer's key to another.",
                ));
            }
            return Ok(ReplicaBytes::Share { wrapped: None });
        }
        let master = self.master_key(call, keys.target.as_ref())?;
        if order.mode == EncryptionMode::Rewrap {
            self.check_rewrap(call, source, keys).await?;
            let current = source.wrapped_key.as_ref();
            let wrapped = self.blobs.rewrap(blob, current, &master).await;
            let wrapped = self.watch_for_damage(wrapped).await?;
            return Ok(ReplicaBytes::Share {
                wrapped: Some(wrapped),
            });
        }
        let target = BlobId::random(self.entropy.as_ref());
        Ok(ReplicaBytes::Reseal(ResealPlan {
            source_key: source.wrapped_key.clone(),
            source_cmk: keys.source.clone(),
            target,
            target_key: self.new_data_key(target, &master).await?,
            target_cmk: keys.target.clone(),
        }))
    }

    /// Rewrapping leaves the bytes as they are, so it stays within one project's own keys, and within what the operator
    /// allows.
    async fn check_rewrap(&self, call: &Call, source: &Image, keys: &Keys) -> Result<()> {
        if !self.settings.allow_rewrap {
            return Err(Error::invalid(
                "encryption_mode rewrap is not allowed by this service.",
            ));
        }
        let user = self.key_user(call)?;
        let (Some(from), Some(to)) = (&keys.source, &keys.target) else {
            return Err(Error::invalid(
                "A replica is rewrapped from one customer's key to another.",
            ));
        };
        let own = source.owner == user.project
            && self.is_own(&user, from, KeyRole::Source).await?
            && self.is_own(&user, to, KeyRole::Target).await?;
        if !own {
            return Err(Error::invalid(
                "A replica is rewrapped only between keys of the image's own project.",
            ));
        }
        Ok(())
    }

    /// Whether the key is known to be the user's project's own.
    async fn is_own(&self, user: &KeyUser, key: &KeyId, role: KeyRole) -> Result<bool> {
        let own = self.keys.is_own(user, key).await;
        Ok(own.map_err(|fault| fault.into_error(role))? == Some(true))
    }

    /// The worker's part of a replica that shares its source's blob: opens that, so that damage is found now and not by
    /// the replica's first reader, and a key that was closed meanwhile too.
    pub(super) async fn open_shared(
        &self,
        blob: BlobId,
        wrapped: Option<&WrappedKey>,
    ) -> Result<()> {
        // A wrap of the replica's own is under the key that the caller asked for.
        let role = match wrapped {
            Some(_) => KeyRole::Target,
            None => KeyRole::Source,
        };
        let opened = self.blobs.open(blob, wrapped).await;
        let opened = opened.map_err(|fault| fault.into_error(role));
        self.watch_for_damage(opened).await.map(drop)
    }

    /// The worker's part: makes the replica's blob.
    pub(super) async fn reseal(
        &self,
        claim: &Claim,
        source: BlobId,
        plan: &ResealPlan,
        progress: &Arc<ResealProgress>,
    ) -> Result<BlobFacts> {
        let user = KeyUser {
            project: claim.job.project.clone(),
            user: claim.job.user.clone(),
            authority: Authority::Job,
        };
        self.check_keys_of(&user, plan).await?;
        let order = ResealOrder {
            source,
            source_key: plan.source_key.clone(),
            target: plan.target,
            target_key: plan.target_key.clone(),
            project: claim.job.project.clone(),
            progress: Arc::clone(progress),
        };
        let facts = tokio::select! {
            biased;
            facts = self.blobs.reseal(order) => facts,
            refused = self.keep_checking_keys(&user, plan) => Err(refused),
        };
        self.watch_for_damage(facts).await
    }

    async fn check_keys_of(&self, user: &KeyUser, plan: &ResealPlan) -> Result<()> {
        if let Some(key) = &plan.source_cmk {
            self.check_key(user, key, KeyRole::Source).await?;
        }
        if let Some(key) = &plan.target_cmk {
            self.check_key(user, key, KeyRole::Target).await?;
        }
        Ok(())
    }

    /// Ends when the user may not use the keys any more. What may pass by itself is left to the data keys' leases.
    async fn keep_checking_keys(&self, user: &KeyUser, plan: &ResealPlan) -> Error {
        loop {
            tokio::time::sleep(KEYS_CHECKED).await;
            match self.check_keys_of(user, plan).await {
                Err(error) if !error.is_transient() => return error,
                _ => {}
            }
        }
    }

    /// As [`Self::keep_checking_keys`], of the one key that an import or an export uses; for ever where there is none.
    pub(super) async fn keep_checking_key(
        &self,
        user: &KeyUser,
        key: Option<&KeyId>,
        role: KeyRole,
    ) -> Error {
        let Some(key) = key else {
            return std::future::pending().await;
        };
        loop {
            tokio::time::sleep(KEYS_CHECKED).await;
            match self.check_key(user, key, role).await {
                Err(error) if !error.is_transient() => return error,
                _ => {}
            }
        }
    }

    /// Does `work` for a job and shows meanwhile that its worker lives, whatever the work waits for: a key service that
    /// does not answer is no death. Nothing where another attempt has the job now; an error where it was cancelled.
    pub(super) async fn alive<T>(
        &self,
        claim: &Claim,
        lease: Duration,
        progress: &ResealProgress,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        tokio::select! {
            biased;
            done = work => done.map(Some),
            lost = self.heartbeats(claim, progress, lease) => lost.map(|()| None),
        }
    }

    /// Writes the job's progress from time to time. Ends when another attempt has the job, and with an error when the
    /// job was cancelled.
    async fn heartbeats(
        &self,
        claim: &Claim,
        progress: &ResealProgress,
        lease: Duration,
    ) -> Result<()> {
        let mut pause = FIRST_HEARTBEAT;
        loop {
            tokio::time::sleep(pause.min(lease / 4)).await;
            pause = HEARTBEAT;
            let bytes = |count: &AtomicU64| ByteSize::new(count.load(Ordering::Relaxed));
            let progress = Progress {
                done: bytes(&progress.done),
                total: claim.job.progress.total,
                noted: bytes(&progress.noted),
                resumed: bytes(&progress.resumed),
            };
            let (job, attempt) = (&claim.job.id, claim.attempt);
            match self.catalog.heartbeat(job, attempt, progress, lease).await {
                Ok(Heartbeat::Continue) => {}
                Ok(Heartbeat::Lost) => return Ok(()),
                Ok(Heartbeat::Cancelled) => return Err(super::cancel::cancelled()),
                // The lease will end if this goes on.
                Err(error) => {
                    tracing::warn!(job.id = %job, error.chain = %error.chain(), "no sign of life could be given");
                }
            }
        }
    }
}
