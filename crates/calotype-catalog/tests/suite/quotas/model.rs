//! Usage against a model that adds up what there is.

use std::collections::BTreeSet;
use std::time::Duration;

use calotype_core::Error;
use calotype_core::id::{BlobId, ImageId, JobId};
use calotype_core::job::{JobStatus, Release, ReplicaBytes};
use calotype_core::ports::{
    ByteLimit, Images as _, Jobs as _, NewReplica, Quotas as _, Reservation, SharedBlobs, Usage,
};
use calotype_core::size::ByteSize;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use super::failure;
use crate::world::{LEASE, PickJob as _, World, facts, project, trail};

const PROJECTS: [&str; 2] = ["p1", "p2"];
const MOST: u64 = 1000;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Queued,
    /// An upload, also one whose image is deleted.
    Writing {
        blob: BlobId,
        reserved: u64,
        deleted: bool,
    },
    Active {
        blob: BlobId,
        size: u64,
    },
    /// A replication that a worker has; the blob is the target's where it has one of its own.
    Made {
        job: JobId,
        blob: BlobId,
        size: u64,
        own: bool,
    },
}

#[derive(Debug, Clone)]
struct Known {
    id: ImageId,
    project: &'static str,
    state: State,
}

struct Model {
    images: Vec<Known>,
    shared: SharedBlobs,
}

impl Model {
    fn limit(&self) -> ByteLimit {
        ByteLimit {
            configured: Some(ByteSize::new(MOST)),
            shared: self.shared,
        }
    }

    fn usage(&self, project: &str) -> Usage {
        let mut usage = Usage::default();
        let (mut bytes, mut reserved) = (0, 0);
        let mut blobs = BTreeSet::new();
        for image in self.images.iter().filter(|image| image.project == project) {
            usage.images += 1;
            match &image.state {
                State::Queued => {}
                State::Writing {
                    reserved: more,
                    deleted,
                    ..
                } => {
                    reserved += more;
                    usage.images -= u64::from(*deleted);
                }
                State::Made {
                    size, own: true, ..
                } => reserved += size,
                State::Active { blob, size }
                | State::Made {
                    blob,
                    size,
                    own: false,
                    ..
                } => {
                    bytes += size;
                    blobs.insert((*blob, *size));
                }
            }
        }
        usage.bytes = ByteSize::new(bytes);
        usage.blob_bytes = ByteSize::new(blobs.iter().map(|(_, size)| size).sum());
        usage.reserved = ByteSize::new(reserved);
        usage
    }

    fn room(&self, project: &str) -> u64 {
        let usage = self.usage(project);
        MOST - usage.charged(self.shared).bytes() - usage.reserved.bytes()
    }

    /// What one more image of a blob costs a project.
    fn price(&self, project: &str, blob: BlobId, size: u64) -> u64 {
        let held = self.images.iter().any(|image| {
            image.project == project
                && match &image.state {
                    State::Active { blob: held, .. }
                    | State::Made {
                        blob: held,
                        own: false,
                        ..
                    } => *held == blob,
                    _ => false,
                }
        });
        match self.shared {
            SharedBlobs::Once if held => 0,
            _ => size,
        }
    }

    /// One of the images that `wanted` chooses.
    fn pick(&self, at: usize, wanted: impl Fn(&State) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.images.len())
            .filter(|n| wanted(&self.images[*n].state))
            .collect();
        (!fit.is_empty()).then(|| fit[at % fit.len()])
    }
}

/// Whether the call was refused for want of room. No other refusal is due.
fn refused<T>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(error) => {
            let no_room = error.code() == ByteLimit::refusal().code();
            assert!(no_room, "{error:?}");
            true
        }
    }
}

pub(crate) async fn usage_is_what_the_model_says_in_whatever_order_things_happen(world: World) {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let draws = (0..10_u8, any::<usize>(), 0..400_u64);
    let mut tallies = [0_u32; 10];
    for shared in [SharedBlobs::Once, SharedBlobs::Each] {
        let images = Vec::new();
        let mut model = Model { images, shared };
        for step in 0..250 {
            let (what, at, amount) = draws.new_tree(&mut runner).unwrap().current();
            let before: Vec<Usage> = PROJECTS.map(|name| model.usage(name)).to_vec();
            if act(&world, &mut model, what, at, amount).await {
                tallies[usize::from(what)] += 1;
            }
            for (name, before) in PROJECTS.into_iter().zip(before) {
                let now = world.catalog.usage(&project(name)).await.unwrap();
                let drawn = (what, at, amount);
                assert_eq!(now, model.usage(name), "{drawn:?} after {before:?}");
                let taken = now.charged(shared).bytes() + now.reserved.bytes();
                assert!(taken <= MOST, "{now:?}");
            }
            if step % 25 == 0 {
                world.assert_sound().await;
            }
        }
        world.assert_sound().await;
        // The next way of counting begins with nothing.
        clear(&world, &mut model).await;
        for name in PROJECTS {
            let left = world.catalog.usage(&project(name)).await.unwrap();
            assert_eq!(left, Usage::default());
        }
    }
    assert!(
        tallies.iter().all(|tally| *tally > 0),
        "something never happened: {tallies:?}"
    );
}

async fn clear(world: &World, model: &mut Model) {
    while !model.images.is_empty() {
        let (end, delete) = (5, 6);
        let what = match model.images[0].state {
            State::Writing { .. } | State::Made { .. } => end,
            State::Queued | State::Active { .. } => delete,
        };
        for at in 0..model.images.len() {
            act(world, model, what, at, 1).await;
        }
    }
    world.assert_sound().await;
}

/// Does one thing, in the catalog and in the model, and says whether there was something to do it to.
async fn act(world: &World, model: &mut Model, what: u8, at: usize, amount: u64) -> bool {
    let catalog = &world.catalog;
    let limit = model.limit();
    let asks = |needed, wanted| Reservation {
        needed: ByteSize::new(needed),
        wanted: ByteSize::new(wanted),
        limit,
    };
    let granted = |room: u64, needed: u64, wanted: u64| needed.max(wanted.min(room / 16));
    let writing = |state: &State| matches!(state, State::Writing { deleted: false, .. });
    match what {
        // A record.
        0 => {
            let project = PROJECTS[at % 2];
            let image = world.image(project);
            world.insert(&image).await;
            model.images.push(Known {
                id: image.id,
                project,
                state: State::Queued,
            });
        }
        // An upload begins.
        1 => {
            let Some(n) = model.pick(at, |state| *state == State::Queued) else {
                return false;
            };
            let Known { id, project, .. } = model.images[n];
            let (room, blob) = (model.room(project), world.blob_id());
            let (needed, wanted) = (if at.is_multiple_of(3) { 0 } else { amount }, amount);
            let begun = catalog
                .begin_upload(id, blob, LEASE, asks(needed, wanted))
                .await;
            assert_eq!(refused(begun), needed > room);
            if needed <= room {
                model.images[n].state = State::Writing {
                    blob,
                    reserved: granted(room, needed, wanted),
                    deleted: false,
                };
            }
        }
        // More of its bytes come.
        2 => {
            let Some(n) = model.pick(at, writing) else {
                return false;
            };
            let room = model.room(model.images[n].project);
            let State::Writing { blob, reserved, .. } = &mut model.images[n].state else {
                return false;
            };
            let (needed, wanted) = (amount / 4, amount);
            let more = catalog.reserve(*blob, asks(needed, wanted)).await;
            assert_eq!(refused(more), needed > room);
            if needed <= room {
                *reserved += granted(room, needed, wanted);
            }
        }
        // It ends well, with as many bytes as were reserved, fewer, or more.
        3 => {
            let Some(n) = model.pick(at, writing) else {
                return false;
            };
            let Known { id, project, state } = model.images[n].clone();
            let State::Writing { blob, reserved, .. } = state else {
                return false;
            };
            let size = (reserved + amount / 8).saturating_sub(20);
            let fits = size <= reserved || size - reserved <= model.room(project);
            let finished = catalog
                .finish_upload(id, blob, &facts(size), None, limit, trail())
                .await;
            assert_eq!(refused(finished), !fits);
            if fits {
                model.images[n].state = State::Active { blob, size };
            }
        }
        // A replication ends well.
        4 => {
            let Some(n) = model.pick(at, |state| matches!(state, State::Made { .. })) else {
                return false;
            };
            let State::Made {
                job,
                blob,
                size,
                own,
            } = model.images[n].state.clone()
            else {
                return false;
            };
            let done = if own {
                catalog.finish_reseal(&job, 1, &facts(size)).await
            } else {
                catalog.finish_share(&job, 1).await
            };
            assert_eq!(done.unwrap(), Release::Done);
            model.images[n].state = State::Active { blob, size };
        }
        // An upload or a replication ends badly.
        5 => {
            let bad = |state: &State| matches!(state, State::Writing { .. } | State::Made { .. });
            let Some(n) = model.pick(at, bad) else {
                return false;
            };
            let id = model.images[n].id;
            match model.images[n].state.clone() {
                State::Writing { blob, deleted, .. } => {
                    assert!(catalog.abort_upload(id, blob).await.unwrap());
                    model.images[n].state = State::Queued;
                    if deleted {
                        model.images.remove(n);
                    }
                }
                State::Made { job, .. } => {
                    assert!(catalog.fail_job(&job, 1, &failure()).await.unwrap());
                    model.images.remove(n);
                }
                State::Queued | State::Active { .. } => return false,
            }
        }
        // An image is deleted, also while it is uploaded.
        6 => {
            let there = |state: &State| {
                !matches!(
                    state,
                    State::Made { .. } | State::Writing { deleted: true, .. }
                )
            };
            let Some(n) = model.pick(at, there) else {
                return false;
            };
            let image = world.get(model.images[n].id).await;
            let deleted = catalog.delete_image(&image, Duration::ZERO, trail()).await;
            deleted.unwrap();
            match &mut model.images[n].state {
                State::Writing { deleted, .. } => *deleted = true,
                _ => {
                    model.images.remove(n);
                }
            }
        }
        // A replication is accepted, by sharing (7) or with a blob of its own (8), or accepted and cancelled (9).
        _ => {
            let active = |state: &State| matches!(state, State::Active { .. });
            let Some(n) = model.pick(at, active) else {
                return false;
            };
            let State::Active { blob, size } = model.images[n].state else {
                return false;
            };
            let source = world.get(model.images[n].id).await;
            let project = PROJECTS[at / 7 % 2];
            let own = what == 8 || (what == 9 && at.is_multiple_of(3));
            let order = if own {
                world.resealed_replica(&source, project)
            } else {
                world.replica(&source, project)
            };
            let replica = NewReplica {
                byte_limit: limit,
                ..order
            };
            let price = match own {
                true => size,
                false => model.price(project, blob, size),
            };
            let fits = price <= model.room(project);
            let accepted = catalog.submit_replica(&replica, trail()).await;
            assert_eq!(refused(accepted), !fits);
            if !fits {
                return true;
            }
            let job = replica.job.id.clone();
            if what == 9 {
                let cancelled = catalog.cancel_job(&job, None, &failure(), trail()).await;
                assert_eq!(cancelled.unwrap().unwrap().status, JobStatus::Fail);
                return true;
            }
            let claim = catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
            assert_eq!((&claim.job.id, claim.attempt), (&job, 1));
            let target = match &replica.replication.bytes {
                ReplicaBytes::Reseal(plan) => plan.target,
                ReplicaBytes::Share { .. } => blob,
            };
            model.images.push(Known {
                id: replica.image.id,
                project,
                state: State::Made {
                    job,
                    blob: target,
                    size,
                    own,
                },
            });
        }
    }
    true
}
