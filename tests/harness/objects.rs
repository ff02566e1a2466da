//! Objects to import: in a server's own buckets, and in a store that speaks S3.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, Client, text};
use crate::s3_files;
use crate::server::Server;

const ID: &str = "AKTEST";
const SECRET: &str = "a secret that opens every bucket";

impl Server {
    /// Makes a bucket, unless it is there.
    pub fn make_bucket(&self, name: &str) {
        match self.buckets() {
            Some(ceph) => ceph.make_bucket(name),
            None => std::fs::create_dir_all(self.bucket(name)).expect("a bucket"),
        }
    }

    /// The directory of a bucket, of a server that has them below one.
    pub fn bucket(&self, name: &str) -> PathBuf {
        self.data().join("buckets").join(name)
    }

    /// Makes an object in the bucket `images`, of the file that `write` makes; the result is its address.
    pub fn make_object(&self, key: &str, write: impl FnOnce(&Path)) -> String {
        self.make_bucket("images");
        let file = made_for(self.file(key));
        write(&file);
        if let Some(ceph) = self.buckets() {
            ceph.put("images", key, &file);
        }
        format!("images:{key}")
    }

    /// Puts an object into the bucket `images`; the result is its address.
    pub fn put_object(&self, key: &str, content: impl Read) -> String {
        self.make_object(key, |path| write(path, content))
    }

    /// Puts an object of `length` zeros there, but for some bytes at both ends.
    pub fn put_sparse_object(&self, key: &str, length: u64) -> String {
        self.make_object(key, |path| sparse(path, length))
    }

    /// A file with the bytes of an object in the bucket `images`: the object itself, where buckets are below a directory.
    pub fn object(&self, key: &str) -> PathBuf {
        let file = self.file(key);
        if let Some(ceph) = self.buckets() {
            ceph.get("images", key, &made_for(file.clone()));
        }
        file
    }

    /// Whether there is an object in the bucket `images`.
    pub fn has_object(&self, key: &str) -> bool {
        match self.buckets() {
            Some(ceph) => ceph.keys("images").iter().any(|there| there == key),
            None => self.file(key).exists(),
        }
    }

    fn file(&self, key: &str) -> PathBuf {
        match self.buckets() {
            Some(_) => self.home().join("objects").join(key),
            None => self.bucket("images").join(key),
        }
    }
}

/// A file's path, once its directory is there.
fn made_for(file: PathBuf) -> PathBuf {
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
    file
}

fn write(path: &Path, mut content: impl Read) {
    let mut file = File::create(path).expect("an object");
    std::io::copy(&mut content, &mut file).expect("the object's bytes");
}

fn sparse(path: &Path, length: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = File::create(path).expect("an object");
    file.set_len(length).expect("the object's length");
    file.write_all_at(b"begin", 0).expect("the beginning");
    file.write_all_at(b"end", length - 3).expect("the end");
}

impl Client {
    /// Asks for an image of an object, with the fields that every request needs and `more`.
    pub fn import(&self, object: &str, more: Value) -> Answer {
        self.import_at("/v2/cloudimages/action", object, more)
    }

    /// As [`Client::import`], by any path.
    pub fn import_at(&self, path: &str, object: &str, more: Value) -> Answer {
        let mut body = json!({"name": "imported", "image_url": object, "min_disk": 40});
        for (name, value) in more.as_object().expect("fields") {
            body[name] = value.clone();
        }
        self.post(path, body)
    }

    /// Asks for an image of an object, which must be accepted; the result is the job's id.
    pub fn begin_import(&self, object: &str, more: Value) -> String {
        let accepted = self.import(object, more).expect(200).json();
        text(&accepted["job_id"])
    }

    /// Makes an image of an object, and waits for it; the result is its id.
    pub fn imported(&self, object: &str, more: Value) -> String {
        let job = self.job(&self.begin_import(object, more));
        assert_eq!(job.status(), "SUCCESS", "{}", job.document);
        job.image()
    }
}

/// A store that speaks S3, on a free port, with the bucket `images`. It ends with the value.
pub struct S3Store {
    directory: TempDir,
    endpoint: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl S3Store {
    /// Starts one.
    pub fn start() -> Self {
        let directory = TempDir::with_prefix("calotype-s3-").expect("a temporary directory");
        std::fs::create_dir(directory.path().join("images")).expect("a bucket");
        std::fs::write(directory.path().join("secret"), SECRET).expect("the secret");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoint = runtime.block_on(s3_files::serve(directory.path(), (ID, SECRET)));
        Self {
            directory,
            endpoint,
            runtime: Some(runtime),
        }
    }

    /// The section that makes a server use it.
    pub fn config(&self) -> String {
        format!(
            "[objects]\ntype = \"s3\"\nendpoint = {:?}\nallow_http = true\nunlisted_buckets = \"allow\"\naccess_key = {ID:?}\nsecret_file = {:?}\n",
            self.endpoint,
            self.directory.path().join("secret"),
        )
    }

    /// The file of an object of the bucket `images`.
    pub fn file(&self, key: &str) -> PathBuf {
        self.directory.path().join("images").join(key)
    }

    /// Puts an object into the bucket `images`; the result is its address.
    pub fn put(&self, key: &str, content: impl Read) -> String {
        write(&made_for(self.file(key)), content);
        format!("images:{key}")
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        self.stop();
    }
}
