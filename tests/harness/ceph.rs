//! The Ceph that `cargo xtask test` started, and what one test makes in it for itself.
//!
//! Objects are put there by curl, so that another program's signatures and requests have made them. Also compiled into the
//! tests of `calotype-blob` and `calotype-objects`, which need the same.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::engines::{engine, fresh_name};
use super::local::{free_port, until};

/// The gateway, as its user.
pub struct Ceph {
    url: String,
    access_key: String,
    secret_key: String,
    home: tempfile::TempDir,
}

impl Ceph {
    /// That of this run.
    pub fn connect() -> Self {
        Self::with(
            engine("CALOTYPE_TEST_RGW_ACCESS_KEY"),
            engine("CALOTYPE_TEST_RGW_SECRET_KEY"),
        )
    }

    fn with(access_key: String, secret_key: String) -> Self {
        let home = tempfile::TempDir::with_prefix("calotype-ceph-").expect("a directory");
        std::fs::write(home.path().join("secret"), &secret_key).expect("the secret");
        Self {
            url: engine("CALOTYPE_TEST_RGW_URL"),
            access_key,
            secret_key,
            home,
        }
    }

    /// Where the gateway answers.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The id of its user's access key.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// The access key's secret.
    pub fn secret_key(&self) -> &str {
        &self.secret_key
    }

    /// The file that holds the secret.
    pub fn secret_file(&self) -> PathBuf {
        self.home.path().join("secret")
    }

    /// A fresh bucket.
    pub fn bucket(&self) -> String {
        let bucket = fresh_name("bucket");
        self.make_bucket(&bucket);
        bucket
    }

    /// Makes a bucket, unless it is there.
    pub fn make_bucket(&self, name: &str) {
        self.send(&["-X", "PUT"], name);
    }

    /// Puts a file into a bucket; the result is its address.
    pub fn put(&self, bucket: &str, key: &str, file: &Path) -> String {
        self.send(&["-T", &file.to_string_lossy()], &format!("{bucket}/{key}"));
        format!("{bucket}:{key}")
    }

    /// Puts bytes into a bucket; the result is their address.
    pub fn put_bytes(&self, bucket: &str, key: &str, bytes: &[u8]) -> String {
        let mut file = tempfile::NamedTempFile::new_in(self.home.path()).expect("a file");
        file.write_all(bytes).expect("the bytes");
        self.put(bucket, key, file.path())
    }

    /// Writes an object into a file.
    pub fn get(&self, bucket: &str, key: &str, file: &Path) {
        self.send(&["-o", &file.to_string_lossy()], &format!("{bucket}/{key}"));
    }

    /// Lets another user do these actions alone (`s3:GetObject`) in a bucket.
    pub fn permit(&self, bucket: &str, user: &Self, actions: &[&str]) {
        let principal = format!("arn:aws:iam:::user/{}", user.access_key);
        let actions = actions.join("\", \"");
        let policy = format!(
            "{{\"Version\": \"2012-10-17\", \"Statement\": [{{\"Effect\": \"Allow\", \
             \"Principal\": {{\"AWS\": [\"{principal}\"]}}, \"Action\": [\"{actions}\"], \
             \"Resource\": [\"arn:aws:s3:::{bucket}\", \"arn:aws:s3:::{bucket}/*\"]}}]}}"
        );
        let how = ["-X", "PUT", "--data-binary", &policy];
        self.send(&how, &format!("{bucket}?policy="));
    }

    /// Removes an object.
    pub fn remove(&self, bucket: &str, key: &str) {
        self.send(&["-X", "DELETE"], &format!("{bucket}/{key}"));
    }

    /// The keys of a bucket's objects, a thousand of them at most.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let listed = self.send(&[], &format!("{bucket}?list-type=2"));
        let keys = listed.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    /// How many uploads in parts are begun in a bucket and not ended.
    pub fn uploads(&self, bucket: &str) -> usize {
        let listed = self.send(&[], &format!("{bucket}?uploads="));
        listed.matches("<UploadId>").count()
    }

    fn send(&self, how: &[&str], path: &str) -> String {
        let output = Command::new("curl")
            .args(["-sS", "--fail-with-body", "--noproxy", "*"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
            .arg(format!("{}:{}", self.access_key, self.secret_key))
            .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .args(how)
            .arg(format!("{}/{path}", self.url))
            .output()
            .expect("curl runs");
        assert!(
            output.status.success(),
            "{how:?} {path}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Another user of the gateway's.
    pub fn stranger(&self) -> Self {
        self.user("")
    }

    /// A user of a tenant of its own, among whose buckets no other's names are taken.
    pub fn tenant(&self) -> Self {
        let tenant = fresh_name("tenant").replace('-', "_");
        self.user(&format!("&tenant={tenant}"))
    }

    fn user(&self, more: &str) -> Self {
        let name = fresh_name("user");
        let secret = format!("the-secret-of-{name}");
        // In the order that signatures want.
        let query = format!(
            "access-key={name}&display-name=test&format=json&secret-key={secret}{more}&uid={name}"
        );
        self.send(&["-X", "PUT"], &format!("admin/user?{query}"));
        Self::with(name, secret)
    }

    /// Kills one of the stores that objects are in. Whoever does so runs alone, and starts it again.
    pub fn kill_store(&self, number: u32) -> Store {
        let directory = cluster();
        let number = number.to_string();
        let pid = running_store(&directory, &number);
        let pid = pid.unwrap_or_else(|| panic!("no store {number} runs in {directory:?}"));
        signal(pid, "KILL");
        until("the store to end", || {
            let runs = running_store(&directory, &number);
            runs.is_none().then_some(())
        });
        Store(number)
    }

    /// Starts a store again. It outlives the test: whoever started the cluster ends it.
    pub fn start_store(&self, store: &Store) {
        let log = File::create(self.home.path().join("store")).expect("a log");
        let begun = Command::new("setsid")
            .args(["--fork", "ceph-osd", "-i", &store.0, "-f"])
            .current_dir(cluster())
            .env("CEPH_CONF", engine("CALOTYPE_TEST_CEPH_CONF"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .status();
        assert!(begun.expect("setsid runs").success());
    }

    /// Waits until all stores are up again.
    pub fn wait_until_up(&self) {
        until("every store to be up", || {
            let told = Command::new("ceph")
                .args(["--connect-timeout", "10", "osd", "dump"])
                .env("CEPH_CONF", engine("CALOTYPE_TEST_CEPH_CONF"))
                .output()
                .expect("ceph runs");
            let told = String::from_utf8_lossy(&told.stdout).into_owned();
            let up = |number: u32| told.contains(&format!("osd.{number} up "));
            (0..3).all(up).then_some(())
        });
    }

    /// A gateway of the test's own to the same cluster, which may be stopped and killed.
    pub fn gateway(&self) -> Gateway {
        let port = free_port();
        let log = self.home.path().join(format!("gateway-{port}"));
        Gateway {
            process: Gateway::launch(port, &log),
            port,
            log,
        }
    }
}

/// A gateway of a test's own. It is killed when the value goes out of scope.
pub struct Gateway {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Gateway {
    fn launch(port: u16, log: &Path) -> Child {
        let file = File::create(log).expect("a log");
        let mut process = Command::new("radosgw")
            .args(["-n", "client.rgw.a", "-f", "--rgw-frontends"])
            .arg(format!("beast endpoint=127.0.0.1:{port} tcp_nodelay=1"))
            .env("CEPH_CONF", engine("CALOTYPE_TEST_CEPH_CONF"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log"))
            .stderr(file)
            .spawn()
            .expect("radosgw starts");
        until("the gateway to answer", || {
            let ended = process.try_wait().expect("its state");
            if ended.is_some() {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                panic!("the gateway ended ({ended:?}): {log}");
            }
            answers(port).then_some(())
        });
        process
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes it stand still, until [`Gateway::go_on`].
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Ends [`Gateway::pause`].
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        // An error means that it had ended already.
        let _ = self.process.kill();
        self.process.wait().expect("its end");
    }

    /// Starts it again after its end, at the same address.
    pub fn restart(&mut self) {
        self.process = Self::launch(self.port, &self.log);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A store that was killed.
pub struct Store(String);

/// Where the cluster's daemons work.
fn cluster() -> PathBuf {
    let settings = PathBuf::from(engine("CALOTYPE_TEST_CEPH_CONF"));
    let directory = settings.parent().expect("a directory");
    directory.canonicalize().expect("the cluster's directory")
}

/// The process of a store that works in a directory.
fn running_store(directory: &Path, number: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id: &u32| {
        let process = PathBuf::from(format!("/proc/{id}"));
        let works_there = std::fs::read_link(process.join("cwd")).is_ok_and(|at| at == directory);
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let wanted = format!("ceph-osd\0-i\0{number}\0");
        works_there && line.starts_with(wanted.as_bytes())
    })
}

fn signal(pid: u32, name: &str) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.expect("kill runs").success(), "{name}");
}

fn answers(port: u16) -> bool {
    let status = Command::new("curl")
        .args(["-sf", "-o", "/dev/null", "--noproxy", "*"])
        .arg(format!("http://127.0.0.1:{port}/"))
        .status();
    status.is_ok_and(|status| status.success())
}
