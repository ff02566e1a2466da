//! A Keystone and a Barbican of the run's own: real ones, on loopback, on free ports, with their data in a directory that
//! goes with them.
//!
//! Both run under gunicorn as children of this process, and are stopped by their process ids when the value goes out of
//! scope, also where the tests failed. Keystone has its administrator and nothing else: each test makes the projects,
//! users and endpoints that it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Failure, Outcome, output};
use crate::service::{Service, free_port, random_hex, status_of};

/// A service, and the port that it answers at.
type Answering = (Service, u16);

/// Running services.
pub struct OpenStack {
    keystone: Answering,
    barbican: Answering,
    password: String,
    directory: PathBuf,
}

impl OpenStack {
    /// Makes and starts both from a Python environment that has them, and waits until they answer.
    pub fn start(python: &Path) -> Outcome<Self> {
        let name = format!("calotype-openstack-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        let place = Place {
            programs: python.parent().unwrap_or(python).to_owned(),
            directory: directory.clone(),
        };
        let started = start(&place);
        if started.is_err() {
            // What did start was stopped by its own value; the failure matters more than what lies there.
            let _ = fs::remove_dir_all(&directory);
        }
        let (keystone, barbican, password) = started?;
        Ok(Self {
            keystone,
            barbican,
            password,
            directory,
        })
    }

    /// What tests find the services by.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let at = |port| format!("http://127.0.0.1:{port}");
        [
            ("CALOTYPE_TEST_KEYSTONE_URL", at(self.keystone.1)),
            ("CALOTYPE_TEST_KEYSTONE_PASSWORD", self.password.clone()),
            ("CALOTYPE_TEST_BARBICAN_URL", at(self.barbican.1)),
        ]
    }
}

impl Drop for OpenStack {
    fn drop(&mut self) {
        self.barbican.0.end();
        self.keystone.0.end();
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} is left behind: {error}", self.directory.display());
        }
    }
}

/// Where the services' programs and files are.
struct Place {
    programs: PathBuf,
    directory: PathBuf,
}

fn start(place: &Place) -> Outcome<(Answering, Answering, String)> {
    let (keystone_port, barbican_port) = (free_port()?, free_port()?);
    let password = random_hex(24)?;
    std::thread::scope(|scope| {
        // Keystone's database takes longest; Barbican's is made meanwhile.
        let keystone = scope.spawn(|| start_keystone(place, keystone_port, &password));
        let barbican = start_barbican(place, barbican_port, keystone_port, &password);
        let keystone = keystone
            .join()
            .map_err(|_| Failure::new("starting Keystone panicked"))?;
        Ok((
            (keystone?, keystone_port),
            (barbican?, barbican_port),
            password.clone(),
        ))
    })
}

fn start_keystone(place: &Place, port: u16, password: &str) -> Outcome<Service> {
    let home = place.directory.join("keystone");
    let url = format!("http://127.0.0.1:{port}/v3/");
    for keys in ["fernet", "credential"] {
        fs::create_dir_all(home.join(keys))?;
    }
    let shown = home.display();
    // The cache makes a validation a hundred times faster. Passwords are not worth guarding here.
    fs::write(
        home.join("keystone.conf"),
        format!(
            "[DEFAULT]\nuse_stderr = true\npublic_endpoint = http://127.0.0.1:{port}\n\
             [database]\nconnection = sqlite:///{shown}/keystone.db\n\
             [identity]\npassword_hash_rounds = 4\n\
             [token]\nprovider = fernet\n\
             [fernet_tokens]\nkey_repository = {shown}/fernet\n\
             [fernet_receipts]\nkey_repository = {shown}/fernet\n\
             [credential]\nkey_repository = {shown}/credential\n\
             [cache]\nenabled = true\nbackend = dogpile.cache.memory\n"
        ),
    )?;
    // Keystone reads the command line of whatever it runs in.
    fs::write(
        home.join("calotype_wsgi.py"),
        "import sys\nsys.argv = ['keystone']\nfrom keystone.wsgi.api import application\n",
    )?;
    let user = String::from_utf8_lossy(&output(Command::new("id").arg("-un"))?).into_owned();
    let group = String::from_utf8_lossy(&output(Command::new("id").arg("-gn"))?).into_owned();
    let owner = [
        "--keystone-user",
        user.trim(),
        "--keystone-group",
        group.trim(),
    ];
    let manage = |arguments: &[&str]| {
        let mut command = Command::new(place.programs.join("keystone-manage"));
        command.arg("--config-file").arg(home.join("keystone.conf"));
        output(command.args(arguments).current_dir(&home)).map(drop)
    };
    manage(&["db_sync"])?;
    manage(&[&["fernet_setup"], owner.as_slice()].concat())?;
    manage(&[&["credential_setup"], owner.as_slice()].concat())?;
    manage(&[
        "bootstrap",
        "--bootstrap-password",
        password,
        "--bootstrap-public-url",
        &url,
        // Barbican's middleware looks for this one.
        "--bootstrap-internal-url",
        &url,
        "--bootstrap-region-id",
        "calotype",
    ])?;
    let mut command = gunicorn(place, &home, port);
    command
        .env("OS_KEYSTONE_CONFIG_DIR", &home)
        .env("OS_KEYSTONE_CONFIG_FILES", "keystone.conf");
    answering("keystone", command, port)
}

fn start_barbican(place: &Place, port: u16, keystone: u16, password: &str) -> Outcome<Service> {
    let home = place.directory.join("barbican");
    fs::create_dir_all(home.join(".barbican"))?;
    let shown = home.display();
    // Hexadecimal digits are letters of Base64 too: 43 of them and a sign are 32 bytes.
    let kek = format!("{}=", &random_hex(22)?[..43]);
    // The middleware validates tokens; any user who may will do.
    fs::write(
        home.join(".barbican/barbican.conf"),
        format!(
            "[DEFAULT]\nhost_href = http://127.0.0.1:{port}\nuse_stderr = true\n\
             db_auto_create = false\n\
             [database]\nconnection = sqlite:///{shown}/barbican.db\n\
             [secretstore]\nenabled_secretstore_plugins = store_crypto\n\
             [crypto]\nenabled_crypto_plugins = simple_crypto\n\
             [simple_crypto_plugin]\nkek = {kek}\n\
             [queue]\nenable = false\n\
             [keystone_authtoken]\nauth_url = http://127.0.0.1:{keystone}\n\
             www_authenticate_uri = http://127.0.0.1:{keystone}\nauth_type = password\n\
             username = admin\npassword = {password}\nproject_name = admin\n\
             user_domain_id = default\nproject_domain_id = default\nregion_name = calotype\n\
             token_cache_time = -1\nservice_token_roles_required = true\n"
        ),
    )?;
    let paste = place
        .programs
        .join("../etc/barbican/barbican-api-paste.ini");
    let paste = paste.canonicalize()?;
    fs::write(
        home.join("calotype_wsgi.py"),
        format!(
            "import sys\nsys.argv = ['barbican']\nfrom paste import deploy\n\
             application = deploy.loadapp('config:{}')\n",
            paste.display()
        ),
    )?;
    output(
        Command::new(place.programs.join("barbican-manage"))
            .args(["db", "upgrade"])
            .current_dir(&home)
            .env("HOME", &home),
    )?;
    let mut command = gunicorn(place, &home, port);
    command.env("HOME", &home);
    answering("barbican", command, port)
}

fn gunicorn(place: &Place, home: &Path, port: u16) -> Command {
    let mut command = Command::new(place.programs.join("gunicorn"));
    command
        .args(["--bind", &format!("127.0.0.1:{port}"), "--workers", "1"])
        // One thread: two that write to one SQLite file find it locked.
        .args(["--worker-class", "gthread", "--threads", "1"])
        // So that a connection that a client keeps is not closed under its next request.
        .args(["--keep-alive", "75", "--graceful-timeout", "2"])
        .args(["--worker-tmp-dir", "/dev/shm", "--no-control-socket"])
        .arg("--pythonpath")
        .arg(home)
        .arg("calotype_wsgi:application")
        .current_dir(home);
    command
}

/// Starts a service and waits until it can do its work: both list their versions.
fn answering(name: &'static str, command: Command, port: u16) -> Outcome<Service> {
    let mut service = Service::start(name, command)?;
    service.wait(|| status_of(port) == Some(300))?;
    Ok(service)
}
