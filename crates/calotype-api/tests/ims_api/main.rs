//! The IMS API, the lists and the operator's API as a client meets them: the whole router over a real catalog.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test, and what prepares it, fails by panicking"
)]

mod cancel;
mod copy;
mod cross_region;
mod enterprise_projects;
mod harness;
mod jobs;
mod keys;
mod lists;
mod members;
mod older;
mod permissions;
mod resource_tags;
mod sources;
mod surroundings;
mod tags;
mod update;
