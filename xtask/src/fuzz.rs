//! The chore that fuzzes the inspection of images.
//!
//! The driver is an example of `calotype-core`, built for speed: it mutates samples in place and needs no instrumentation, so
//! that the stable compiler builds it. What it is given beside the samples made by code are images that qemu-img writes.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::machine::install_packages;
use crate::process::{Failure, Outcome, cargo, command, run, target};

const EXECUTIONS: u64 = 10_000_000;
const USAGE: &str = "usage: fuzz [--executions N] [--seed N] [--format NAME]";
/// A disk with little in it: the mutations are to meet its tables.
const DISK: u64 = 1 << 20;
/// What qemu-img writes, with its options, and the disk format that it is.
const IMAGES: [(&str, &str, &str); 14] = [
    ("qcow2", "compat=0.10", "qcow2"),
    ("qcow2", "cluster_size=512", "qcow2"),
    ("qcow2", "preallocation=falloc", "qcow2"),
    ("vmdk", "subformat=monolithicSparse", "vmdk"),
    ("vmdk", "subformat=streamOptimized", "vmdk"),
    ("vmdk", "zeroed_grain=on", "vmdk"),
    ("vdi", "static=off", "vdi"),
    ("vdi", "static=on", "vdi"),
    ("vpc", "subformat=dynamic", "vhd"),
    ("vpc", "subformat=fixed", "vhd"),
    ("vhdx", "subformat=dynamic,block_size=1M", "vhdx"),
    ("vhdx", "subformat=fixed", "vhdx"),
    ("luks", "key-secret=secret,iter-time=10", "luks"),
    ("parallels", "cluster_size=64k", "ploop"),
];

/// Inspects mutated images, ten million of each format where nothing else is said.
pub fn fuzz(arguments: &[String]) -> Outcome {
    let (executions, seed, format) = options(arguments)?;
    install_packages()?;
    let images = images(&target().join("fuzz-images"))?;
    run(cargo()
        .args(["run", "--release", "--locked", "--package", "calotype-core"])
        .args(["--example", "fuzz_inspect", "--"])
        .args([executions.to_string(), seed.to_string(), format])
        .args(images))
}

/// How many executions there are to be, from which seed, and of which format: every night has another seed.
fn options(arguments: &[String]) -> Outcome<(u64, u64, String)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = now.map_or(0, |now| now.as_secs()) << 32;
    let mut executions = EXECUTIONS;
    let mut format = "all".to_owned();
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|number| number.parse().ok());
        match (pair, number) {
            ([option, _], Some(number)) if option == "--executions" => executions = number,
            ([option, _], Some(number)) if option == "--seed" => seed = number,
            ([option, name], _) if option == "--format" => format.clone_from(name),
            _ => return Err(Failure::new(USAGE)),
        }
    }
    Ok((executions, seed, format))
}

fn images(directory: &Path) -> Outcome<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)?;
    let (disk, secret) = (directory.join("disk"), directory.join("secret"));
    let mut bytes = vec![0; DISK as usize];
    bytes[70_000..170_000].fill(7);
    std::fs::write(&disk, bytes)?;
    std::fs::write(&secret, "secret")?;
    let secret = format!("secret,id=secret,file={}", secret.display());
    let mut images = Vec::new();
    for (number, (format, options, extension)) in IMAGES.into_iter().enumerate() {
        let image = directory.join(format!("{number}.{extension}"));
        run(command("qemu-img")
            .args(["convert", "-q", "--object", &secret, "-f", "raw"])
            .args(["-O", format, "-o", options])
            .arg(&disk)
            .arg(&image))?;
        images.push(image);
    }
    Ok(images)
}
