//! A file system that is soon full.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use tempfile::TempDir;

use crate::program;

/// A file system of a few MiB in memory, mounted on a directory of its own until the value goes out of
/// scope. Mounting takes root.
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// A file system of so many MiB.
    pub fn new(mebibytes: u64) -> Self {
        let directory = TempDir::with_prefix("calotype-disk-").expect("a temporary directory");
        let size = format!("size={mebibytes}m,mode=700");
        let place = directory.path().to_string_lossy().into_owned();
        program::run("mount", &["-t", "tmpfs", "-o", &size, "calotype", &place]);
        Self { directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes all the room that is left, until [`SmallDisk::free`].
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        for size in [1 << 20, 4096, 1] {
            let part = vec![1; size];
            while file.write_all(&part).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler");
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that a failed test left may still be in it.
        let place = self.path().to_string_lossy().into_owned();
        let ended = std::process::Command::new("umount")
            .args(["-l", &place])
            .status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{place} stays mounted");
        }
    }
}
