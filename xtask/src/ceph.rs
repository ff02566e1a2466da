//! A Ceph of the run's own: a real one with its RADOS Gateway, on loopback, on free ports, with its data in a directory that
//! goes with it.
//!
//! It is the least that serves objects: one monitor, a store in a sparse file or several, one gateway, no manager, and no
//! authentication between them; the gateway's clients sign as everywhere. All run as children of this process, and are stopped
//! by their process ids when the value goes out of scope, also where the tests failed. So are stores that a test killed and
//! started again. Of a run that was killed, daemons and directory are left; the next one removes both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Outcome, output, target};
use crate::service::{Service, free_port, random_hex, status_of};

/// Bytes that a store can hold. What is not written takes no room.
const ROOM: u64 = 10 << 30;
const ACCESS_KEY: &str = "AKCALOTYPE";

/// A running cluster.
pub struct Ceph {
    gateway: Service,
    stores: Vec<Service>,
    monitor: Service,
    port: u16,
    secret: String,
    directory: PathBuf,
}

impl Ceph {
    /// Makes and starts one with so many stores, and waits until its gateway answers. Each object is in all of them, and can be
    /// written while no more than one of three is away.
    pub fn start(stores: usize) -> Outcome<Self> {
        remove_stale()?;
        let directory = target().join(format!("ceph-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let started = Self::start_in(&directory, stores);
        if started.is_err() {
            // What did start was stopped by its own value; the failure matters more than what lies there.
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(directory: &Path, count: usize) -> Outcome<Self> {
        let (monitor_port, port) = (free_port()?, free_port()?);
        let cluster = uuid()?;
        for name in ["monitor", "gateway"] {
            fs::create_dir(directory.join(name))?;
        }
        fs::write(
            directory.join("ceph.conf"),
            settings(directory, &cluster, (monitor_port, port), count),
        )?;
        let program = |name: &str| {
            let mut command = Command::new(name);
            command
                .current_dir(directory)
                .env("CEPH_CONF", directory.join("ceph.conf"));
            command
        };
        let address = format!("[v1:127.0.0.1:{monitor_port}]");
        output(
            program("monmaptool")
                .args(["--create", "--fsid", &cluster, "--addv", "a", &address])
                .arg("monitors"),
        )?;
        output(program("ceph-mon").args(["--mkfs", "-i", "a", "--monmap", "monitors"]))?;
        let mut daemon = program("ceph-mon");
        daemon.args(["-i", "a", "-f"]);
        let mut monitor = Service::start("ceph-mon", daemon)?;
        let stores = std::thread::scope(|scope| {
            let begun = (0..count).map(|number| {
                let (number, disk) = (number.to_string(), uuid()?);
                let new = ["--connect-timeout", "60", "osd", "new", &disk, &number];
                // The monitor answers for a while before it takes commands, which it then refuses now and then.
                monitor.wait(|| output(program("ceph").args(new)).is_ok())?;
                fs::create_dir(directory.join(format!("store.{number}")))?;
                let program = &program;
                Ok(scope.spawn(move || start_store(program, &number, &disk)))
            });
            let begun: Vec<_> = begun.collect::<Outcome<_>>()?;
            let started = begun.into_iter().map(|store| {
                let store = store.join();
                store.map_err(|_| Failure::new("starting a store panicked"))?
            });
            started.collect::<Outcome<_>>()
        })?;
        let mut daemon = program("radosgw");
        daemon.args(["-n", "client.rgw.a", "-f"]);
        let mut gateway = Service::start("radosgw", daemon)?;
        gateway.wait(|| status_of(port) == Some(200))?;
        let secret = random_hex(20)?;
        output(program("radosgw-admin").args([
            "user",
            "create",
            "--uid=calotype",
            "--display-name=calotype",
            &format!("--access-key={ACCESS_KEY}"),
            &format!("--secret={secret}"),
            // Tests make users of their own.
            "--caps=users=write",
        ]))?;
        Ok(Self {
            gateway,
            stores,
            monitor,
            port,
            secret,
            directory: directory.to_owned(),
        })
    }

    /// What tests find it by.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let settings = self.directory.join("ceph.conf");
        [
            (
                "CALOTYPE_TEST_RGW_URL",
                format!("http://127.0.0.1:{}", self.port),
            ),
            ("CALOTYPE_TEST_RGW_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("CALOTYPE_TEST_RGW_SECRET_KEY", self.secret.clone()),
            (
                "CALOTYPE_TEST_CEPH_CONF",
                settings.to_string_lossy().into_owned(),
            ),
        ]
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        self.gateway.end();
        self.stores.iter_mut().for_each(Service::end);
        self.monitor.end();
        if let Err(failure) = end_daemons_in(&self.directory) {
            eprintln!("not all of Ceph is ended: {failure}");
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

/// Makes and starts a store. On a busy machine it may ask the monitor for something before it knows which cluster it is in, and ends;
/// started again it does not.
fn start_store(
    program: &(dyn Fn(&str) -> Command + Sync),
    number: &str,
    disk: &str,
) -> Outcome<Service> {
    output(program("ceph-osd").args(["-i", number, "--mkfs", "--osd-uuid", disk]))?;
    let up = || {
        let told = output(program("ceph").args(["--connect-timeout", "10", "osd", "dump"]));
        told.is_ok_and(|told| {
            let line = format!("osd.{number} up ");
            String::from_utf8_lossy(&told).contains(&line)
        })
    };
    let mut tries = 0;
    loop {
        let mut daemon = program("ceph-osd");
        daemon.args(["-i", number, "-f"]);
        let mut store = Service::start(&format!("ceph-osd-{number}"), daemon)?;
        match store.wait(up) {
            Ok(()) => return Ok(store),
            Err(failure) if tries == 3 => return Err(failure),
            Err(_) => tries += 1,
        }
    }
}

/// Its configuration. Without an agreement at once, each of the gateway's dozen pools takes seconds.
fn settings(
    directory: &Path,
    cluster: &str,
    (monitor_port, port): (u16, u16),
    stores: usize,
) -> String {
    // Of three, one may be away.
    let fewest = stores / 2 + 1;
    let shown = directory.display();
    format!(
        "[global]\nfsid = {cluster}\nmon host = v1:127.0.0.1:{monitor_port}\n\
         mon initial members = a\npublic addr = 127.0.0.1\ncluster addr = 127.0.0.1\n\
         ms bind ipv6 = false\nms bind msgr2 = false\n\
         auth cluster required = none\nauth service required = none\nauth client required = none\n\
         log to file = false\nmon cluster log to file = false\nlog to stderr = true\n\
         debug rocksdb = 0\ndebug bluestore = 0\ndebug bluefs = 0\ndebug bdev = 0\n\
         admin socket =\npid file =\nrun dir = {shown}\ncrash dir = {shown}\n\
         paxos propose interval = 0.05\n\
         osd pool default size = {stores}\nosd pool default min size = {fewest}\nmon allow pool size one = true\n\
         osd pool default pg num = 8\nosd pool default pgp num = 8\n\
         osd pool default pg autoscale mode = off\nosd crush chooseleaf type = 0\n\
         mon osd min down reporters = 1\nmon osd reporter subtree level = osd\n\
         mon max pg per osd = 1000\nmon data avail warn = 2\nmon data avail crit = 1\n\
         [mon]\nmon data = {shown}/monitor\n\
         [osd]\nosd data = {shown}/store.$id\nosd objectstore = bluestore\nosd fast shutdown = true\n\
         bluestore block size = {ROOM}\nbluestore block create = true\n\
         bluestore cache autotune = false\nbluestore cache size = 134217728\n\
         [client.rgw.a]\nrgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1\n\
         rgw data = {shown}/gateway\nrgw thread pool size = 64\nrgw enable usage log = false\n\
         rgw dynamic resharding = false\n"
    )
}

/// Ends the daemons and removes the directories of runs that are no more.
fn remove_stale() -> Outcome {
    let Ok(entries) = fs::read_dir(target()) else {
        return Ok(());
    };
    for entry in entries {
        let directory = entry?.path();
        let name = directory.file_name().and_then(|name| name.to_str());
        let run = name.and_then(|name| name.strip_prefix("ceph-"));
        let Some(run) = run.and_then(|run| run.parse::<u32>().ok()) else {
            continue;
        };
        if run != std::process::id() && Path::new("/proc").join(run.to_string()).exists() {
            continue;
        }
        end_daemons_in(&directory)?;
        fs::remove_dir_all(&directory)?;
    }
    Ok(())
}

/// Kills what of Ceph works in a directory.
fn end_daemons_in(directory: &Path) -> Outcome {
    for daemon in daemons_in(directory)? {
        let killed = Command::new("kill").args(["-KILL", &daemon]).status()?;
        if !killed.success() {
            eprintln!("{daemon}, a daemon of Ceph, is not ended");
        }
    }
    Ok(())
}

/// The ids of the processes of Ceph that work in a directory.
fn daemons_in(directory: &Path) -> Outcome<Vec<String>> {
    let directory = directory.canonicalize()?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let process = entry.path();
        let works_there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == directory);
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        if works_there && ["ceph-mon", "ceph-osd", "radosgw"].contains(&name.trim()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

/// A random UUID, as the kernel makes them.
fn uuid() -> Outcome<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|error| Failure::new(format!("no random UUID: {error}")))?;
    Ok(text.trim().to_owned())
}
