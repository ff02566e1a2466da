//! OpenStack Glance, to measure against: uWSGI with two workers, the file store, SQLite, and no identity service.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use calotype_tests::until;
use serde_json::Value;

use crate::wire::Wire;

/// What anyone may do where the policy says so: a measurement has no identity service to ask.
const OPEN_TO_ALL: [&str; 4] = ["add_image", "get_image", "upload_image", "delete_image"];

/// A running Glance. It is killed when the value goes out of scope.
pub(crate) struct Glance {
    process: Child,
    host: String,
}

impl Glance {
    /// Starts one with its data under `home`.
    pub(crate) fn start(home: &Path) -> Self {
        let programs = programs();
        let config = configure(home, &programs);
        let file = config.join("glance-api.conf").display().to_string();
        let manage = programs.join("glance-manage");
        run(Command::new(manage).args(["--config-file", &file, "db_sync"]));
        let port = calotype_tests::free_port();
        let host = format!("127.0.0.1:{port}");
        let process = Command::new(programs.join("uwsgi"))
            .args(["--http-socket", &host])
            .args(["--module", "glance.wsgi.api:application"])
            .args(["--processes", "2", "--enable-threads", "--lazy-apps"])
            .args(["--master", "--die-on-term", "--disable-logging"])
            .arg("--virtualenv")
            .arg(programs.parent().expect("an environment"))
            .env("OS_GLANCE_CONFIG_DIR", &config)
            // uWSGI takes the first python3 that it finds for its own.
            .env("PATH", "/usr/bin:/bin")
            .stdout(Stdio::null())
            .stderr(File::create(home.join("log")).expect("room"))
            .spawn()
            .expect("uWSGI starts; `cargo xtask bench` installs it");
        let glance = Self { process, host };
        until("Glance to answer", || {
            std::net::TcpStream::connect(&glance.host).ok()
        });
        glance
    }

    /// A connection to it.
    pub(crate) fn wire(&self) -> Wire {
        Wire::to(&self.host, "none")
    }

    /// A new image without bytes: its id.
    pub(crate) fn create(&self) -> String {
        let body = r#"{"name": "measured", "disk_format": "raw", "container_format": "bare"}"#;
        let mut wire = self.wire();
        let image = wire.post("/v2/images", body, 201);
        let image: Value = serde_json::from_slice(image).expect("JSON");
        image["id"].as_str().expect("an id").to_owned()
    }

    /// Removes an image.
    pub(crate) fn delete(&self, image: &str) {
        self.wire().delete(&format!("/v2/images/{image}"));
    }
}

impl Drop for Glance {
    fn drop(&mut self) {
        // SIGTERM ends uWSGI's workers too; an error means that it had ended already.
        let pid = self.process.id().cast_signed();
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

fn programs() -> PathBuf {
    let python = std::env::var_os("CALOTYPE_BENCH_PYTHON")
        .expect("CALOTYPE_BENCH_PYTHON: run `cargo xtask bench`, which installs Glance");
    let python = PathBuf::from(python);
    python.parent().expect("a directory").to_owned()
}

fn configure(home: &Path, programs: &Path) -> PathBuf {
    let config = home.join("etc");
    std::fs::create_dir_all(&config).expect("room");
    let paste = programs.join("../etc/glance/glance-api-paste.ini");
    std::fs::copy(paste, config.join("glance-api-paste.ini")).expect("Glance's own file");
    let policy: String = OPEN_TO_ALL
        .iter()
        .map(|action| format!("\"{action}\": \"@\"\n"))
        .collect();
    std::fs::write(config.join("policy.yaml"), policy).expect("room");
    let (home, etc) = (home.display(), config.display());
    let text = format!(
        "[DEFAULT]\nenabled_backends = file:file\n[glance_store]\ndefault_backend = file\n\
         [file]\nfilesystem_store_datadir = {home}/images\n\
         [os_glance_staging_store]\nfilesystem_store_datadir = {home}/staging\n\
         [os_glance_tasks_store]\nfilesystem_store_datadir = {home}/tasks\n\
         [database]\nconnection = sqlite:///{home}/glance.db\n\
         [paste_deploy]\nflavor =\nconfig_file = {etc}/glance-api-paste.ini\n\
         [oslo_policy]\npolicy_file = {etc}/policy.yaml\nenforce_scope = false\n\
         enforce_new_defaults = false\n"
    );
    std::fs::write(config.join("glance-api.conf"), text).expect("room");
    config
}

fn run(command: &mut Command) {
    let output = command.output().expect("a program of Glance's starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
