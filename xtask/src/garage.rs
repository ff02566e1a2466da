//! A Garage of the run's own: three nodes on loopback, on free ports, each object on all of them, with their data in a directory
//! that goes with them.
//!
//! It is no package of Debian's, and takes as long to build as everything else together: so it is no part of the tests, but a
//! chore of its own. It is built from the registry, once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Outcome, cargo, command, output, run, target};
use crate::service::{Service, free_port, random_hex};

const VERSION: &str = "2.5.0";
const NODES: usize = 3;

/// A running cluster.
pub struct Garage {
    nodes: Vec<Service>,
    port: u16,
    access_key: String,
    secret: String,
    directory: PathBuf,
}

/// Where it is installed.
fn home() -> PathBuf {
    target().join("garage")
}

fn program() -> PathBuf {
    home().join("bin/garage")
}

/// Builds it, where it is not there.
pub fn install() -> Outcome {
    run(cargo()
        .args(["install", "garage", "--version", VERSION, "--locked"])
        .arg("--root")
        .arg(home()))
}

impl Garage {
    /// Makes and starts one, and waits until it takes requests.
    pub fn start() -> Outcome<Self> {
        let directory = target().join(format!("garage-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let started = Self::start_in(&directory);
        if started.is_err() {
            // What did start was stopped by its own value; the failure matters more than what lies there.
            let _ = fs::remove_dir_all(&directory);
        }
        started
    }

    fn start_in(directory: &Path) -> Outcome<Self> {
        let rpc_secret = random_hex(32)?;
        let (access_key, secret) = (format!("GK{}", random_hex(12)?), random_hex(32)?);
        let mut ports = Vec::new();
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let (rpc, s3) = (free_port()?, free_port()?);
            ports.push(s3);
            fs::write(
                settings_of(directory, number),
                settings(directory, number, &rpc_secret, (rpc, s3)),
            )?;
            let mut server = node(directory, number);
            server.arg("server");
            nodes.push(Service::start(&format!("garage-{number}"), server)?);
        }
        let mut ids = Vec::new();
        for (number, service) in nodes.iter_mut().enumerate() {
            let id = || output(node(directory, number).args(["node", "id", "-q"]));
            service.wait(|| id().is_ok())?;
            ids.push(String::from_utf8_lossy(&id()?).trim().to_owned());
        }
        let ask = |arguments: &[&str]| output(node(directory, 0).args(arguments));
        nodes[0].wait(|| ask(&["status"]).is_ok())?;
        for id in &ids[1..] {
            nodes[0].wait(|| ask(&["node", "connect", id]).is_ok())?;
        }
        for (number, id) in ids.iter().enumerate() {
            let (zone, short) = (format!("z{number}"), &id[..16]);
            ask(&["layout", "assign", "-z", &zone, "-c", "20G", short])?;
        }
        ask(&["layout", "apply", "--version", "1"])?;
        ask(&[
            "key",
            "import",
            "--yes",
            "-n",
            "calotype",
            &access_key,
            &secret,
        ])?;
        ask(&["key", "allow", "--create-bucket", "calotype"])?;
        Ok(Self {
            nodes,
            port: ports[0],
            access_key,
            secret,
            directory: directory.to_owned(),
        })
    }

    /// What tests find it by, in the place of a Ceph.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let url = format!("http://127.0.0.1:{}", self.port);
        [
            ("CALOTYPE_TEST_RGW_URL", url),
            ("CALOTYPE_TEST_RGW_ACCESS_KEY", self.access_key.clone()),
            ("CALOTYPE_TEST_RGW_SECRET_KEY", self.secret.clone()),
        ]
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Service::end);
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

fn settings_of(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("garage-{number}.toml"))
}

fn node(directory: &Path, number: usize) -> Command {
    let mut garage = command(program());
    garage.arg("-c").arg(settings_of(directory, number));
    garage
}

fn settings(directory: &Path, number: usize, secret: &str, (rpc, s3): (u16, u16)) -> String {
    let shown = directory.join(format!("node.{number}"));
    let shown = shown.display();
    format!(
        "metadata_dir = \"{shown}/meta\"\ndata_dir = \"{shown}/data\"\ndb_engine = \"sqlite\"\n\
         replication_factor = {NODES}\nconsistency_mode = \"consistent\"\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{secret}\"\n\
         [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{s3}\"\n\
         root_domain = \".s3.localhost\"\n"
    )
}
