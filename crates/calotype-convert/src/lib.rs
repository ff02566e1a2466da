//! Disks in other formats, behind [`Converter`](calotype_core::ports::Converter): qemu-img converts them, in a jail.
//!
//! [`jail`] is what the process does to itself before it becomes qemu-img, `nbd` hands it the disk's bytes, and [`QemuImg`]
//! starts, watches and ends it. Nothing else in the service starts a process. Why it is so is in
//! `docs/adr/0014-exports-by-a-jailed-qemu-img.md`.

pub mod jail;
mod nbd;
mod qemu;

pub use qemu::{QemuImg, QemuOptions};
