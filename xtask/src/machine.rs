//! What the tests need of the machine: Debian packages, cargo's tools, a Python environment.
//!
//! Each is looked for first and installed only where it is missing; what can't be installed fails the
//! chore with its name. Nothing is written into the source tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Outcome, cargo, command, root, run, succeeds, target};

/// A Debian package, and the files of which any one shows that it is there.
struct Package {
    name: &'static str,
    any_of: &'static [&'static str],
}

const PACKAGES: &[Package] = &[
    Package {
        name: "curl",
        any_of: &["curl"],
    },
    Package {
        name: "dosfstools",
        any_of: &["mkfs.vfat"],
    },
    Package {
        name: "e2fsprogs",
        any_of: &["mkfs.ext4"],
    },
    Package {
        name: "libfaketime",
        any_of: &[
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        ],
    },
    Package {
        name: "haproxy",
        any_of: &["haproxy"],
    },
    Package {
        name: "memtest86+",
        any_of: &[
            "/usr/lib/memtest86+/memtest86+x64.iso",
            "/boot/memtest86+.iso",
        ],
    },
    Package {
        name: "nginx-light",
        any_of: &["nginx"],
    },
    Package {
        name: "openssl",
        any_of: &["openssl"],
    },
    Package {
        name: "pgbouncer",
        any_of: &["pgbouncer"],
    },
    Package {
        name: "postgresql",
        any_of: &[
            "/usr/lib/postgresql/15/bin/initdb",
            "/usr/lib/postgresql/16/bin/initdb",
            "/usr/lib/postgresql/17/bin/initdb",
            "/usr/lib/postgresql/18/bin/initdb",
        ],
    },
    Package {
        name: "postgresql-client",
        any_of: &["psql"],
    },
    // For promtool. The rest of it is not run.
    Package {
        name: "prometheus",
        any_of: &["promtool"],
    },
    Package {
        name: "python3-venv",
        any_of: &[
            "/usr/lib/python3.11/ensurepip/__init__.py",
            "/usr/lib/python3.12/ensurepip/__init__.py",
            "/usr/lib/python3.13/ensurepip/__init__.py",
        ],
    },
    Package {
        name: "qemu-utils",
        any_of: &["qemu-img"],
    },
    Package {
        name: "sqlite3",
        any_of: &["sqlite3"],
    },
];

/// A Ceph with its gateway: some sixty packages. Its manager is not needed.
const CEPH_PACKAGES: &[Package] = &[
    Package {
        name: "ceph-common",
        any_of: &["ceph"],
    },
    Package {
        name: "ceph-mon",
        any_of: &["ceph-mon"],
    },
    Package {
        name: "ceph-osd",
        any_of: &["ceph-osd"],
    },
    Package {
        name: "radosgw",
        any_of: &["radosgw"],
    },
];

/// What the measurements need beside what the tests do: uWSGI is built from source.
const BENCH_PACKAGES: &[Package] = &[
    Package {
        name: "gcc",
        any_of: &["gcc"],
    },
    Package {
        name: "python3-dev",
        any_of: &[
            "/usr/include/python3.11/Python.h",
            "/usr/include/python3.12/Python.h",
            "/usr/include/python3.13/Python.h",
        ],
    },
];

/// Installs the Debian packages that are missing for the tests.
///
/// # Errors
/// Where one is missing and the caller is not root, or apt fails.
pub fn install_packages() -> Outcome {
    install(PACKAGES)
}

/// As [`install_packages`], for a Ceph.
///
/// # Errors
/// See [`install_packages`].
pub fn install_ceph_packages() -> Outcome {
    install(CEPH_PACKAGES)
}

/// As [`install_packages`], for the measurements.
///
/// # Errors
/// See [`install_packages`].
pub fn install_bench_packages() -> Outcome {
    install(PACKAGES)?;
    install(BENCH_PACKAGES)
}

fn install(packages: &[Package]) -> Outcome {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !package.any_of.iter().any(|file| is_there(file)))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        return Err(Failure::new(format!(
            "missing, and only root can install: apt-get install {}",
            missing.join(" ")
        )));
    }
    run(apt().args(["update", "-qq"]))?;
    run(apt()
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    user_id(None) == Some(0)
}

/// The number of a user, or of the caller.
pub fn user_id(name: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg("-u").args(name).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

/// The newest PostgreSQL's directory of programs, 15 or later.
pub fn postgres_programs() -> Outcome<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .map_err(|error| Failure::new(format!("no PostgreSQL is installed: {error}")))?;
    versions
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse::<u32>().ok()
        })
        .filter(|version| *version >= 15)
        .max()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
        .ok_or_else(|| Failure::new("no PostgreSQL 15 or later under /usr/lib/postgresql"))
}

/// Installs one of cargo's tools where `cargo <subcommand>` does not run.
///
/// Without optimisation: the tools' own work is small, and building them is most of a clean run.
pub fn install_cargo_tool(subcommand: &str, package: &str) -> Outcome {
    if succeeds(cargo().args([subcommand, "--version"])) {
        return Ok(());
    }
    run(cargo()
        .args(["install", "--locked", "--debug", package])
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_TARGET_DIR", target().join("cargo-tools"))
        .env_remove("RUSTFLAGS"))
}

/// The interpreter of a Python environment under `target/` with the packages of a list, made where it is missing
/// or the list has changed.
pub fn python(name: &str, list: &str) -> Outcome<PathBuf> {
    let list = root().join(list);
    let wanted = std::fs::read_to_string(&list)?;
    let home = target().join(name);
    let python = home.join("bin/python");
    let installed = home.join("requirements.installed");
    if std::fs::read_to_string(&installed).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    let debian = Path::new("/usr/bin/python3");
    let base = if debian.exists() {
        debian
    } else {
        Path::new("python3")
    };
    run(command(base).args(["-m", "venv"]).arg(&home))?;
    run(command(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            // What another interpreter of this version had built may not fit this one.
            "--no-cache-dir",
            "-r",
        ])
        .arg(&list))?;
    std::fs::write(&installed, wanted)?;
    Ok(python)
}

fn apt() -> Command {
    let mut apt = command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

fn is_there(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(file).exists())
}
