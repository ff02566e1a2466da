//! Disks in other formats: qemu-img converts them, in a jail.
//!
//! [`jail`] is what the process does to itself before it becomes qemu-img. Why it is so is in
//! `docs/adr/0014-exports-by-a-jailed-qemu-img.md`.

pub mod jail;
