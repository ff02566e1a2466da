//! The harness of the black-box tests: it starts the real binary on a free port with a data directory of
//! its own, speaks HTTP to it, and kills it.
//!
//! Everything here panics where the world is not as a test needs it; a test that fails prints the server's
//! log. Nothing is skipped because something is missing: it fails and names `cargo xtask test`, which
//! installs it.

pub mod balancer;
pub mod ceph;
pub mod client;
pub mod config;
pub mod content;
pub mod database;
pub mod deployment;
mod engines;
pub mod exports;
pub mod faults;
pub mod front;
mod http;
pub mod image;
pub mod keys;
pub mod keystone;
mod local;
pub mod memory;
pub mod node;
pub mod objects;
pub mod openstack;
pub mod pgbouncer;
pub mod postgres;
pub mod program;
mod s3_files;
pub mod server;
pub mod small_disk;
pub mod standby;
pub mod wire;
pub mod worker;

pub use balancer::Balancer;
pub use ceph::Ceph;
pub use client::{Answer, Client};
pub use content::{Content, Digests};
pub use deployment::{Engines, Place, Way};
pub use engines::engine;
pub use faults::{Fault, Network};
pub use front::Front;
pub use image::Job;
pub use keystone::Keystone;
pub use local::{PATIENCE, free_port, until};
pub use node::Node;
pub use objects::S3Store;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use server::{Options, Server};
pub use standby::Standby;
pub use wire::{Weather, Wire};
pub use worker::Worker;
