//! The black-box tests: each starts the real binary and speaks HTTP to it. One program, because linking
//! is most of what a test program costs.

mod barbican;
mod clients;
mod cloud_images;
mod command;
mod command_keys;
mod command_members;
mod command_replicas;
mod copy_refusals;
mod copy_results;
mod crash;
mod crash_uploads;
mod damage;
mod demo;
mod disk_full;
mod glance_images;
mod glance_lists;
mod image_bytes;
mod image_keys;
mod kms;
mod kms_data;
mod kms_elsewhere;
mod kms_grants;
mod members;
mod probe;
mod reseal;
mod reseal_faults;
mod reseal_kills;
mod root_keys;
mod secrets;
mod serve;
mod stopping;
mod two_servers;
mod workspace;
