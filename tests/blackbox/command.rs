//! The command line at work: every command of `image`, `job` and `admin` against the real server, once as
//! tables and once as JSON, with the exit codes that `--help` documents.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use calotype_tests::server::binary;
use calotype_tests::{Client, Content, Server};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const FORMATS: [&str; 2] = ["table", "json"];
pub(crate) const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

/// The documented exit codes.
pub(crate) mod exit {
    pub const FAILURE: i32 = 1;
    pub const USAGE: i32 = 2;
    pub const NOT_FOUND: i32 = 3;
    pub const NOT_AUTHORISED: i32 = 4;
    pub const REFUSED: i32 = 5;
}

/// One user's terminal.
pub(crate) struct Terminal {
    directory: TempDir,
    clouds: std::path::PathBuf,
    cloud: &'static str,
    format: &'static str,
}

/// What a command that succeeded printed.
pub(crate) struct Printed {
    pub(crate) text: String,
    json: bool,
}

impl Terminal {
    pub(crate) fn new(server: &Server, cloud: &'static str, format: &'static str) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            clouds: server.data().join("clouds.yaml"),
            cloud,
            format,
        }
    }

    fn path(&self, name: &str) -> String {
        let path = self.directory.path().join(name);
        path.to_string_lossy().into_owned()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["--output", self.format])
            .args(arguments)
            .env_clear()
            .env("HOME", self.directory.path())
            .env("OS_CLIENT_CONFIG_FILE", &self.clouds)
            .env("OS_CLOUD", self.cloud)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output();
        output.expect("the calotype binary runs")
    }

    /// Runs what must succeed, and say nothing but its result.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Printed {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert_eq!(said, "", "{arguments:?}");
        Printed {
            text: String::from_utf8(output.stdout).expect("text"),
            json: self.format == "json",
        }
    }

    /// Runs what must fail with this code, print no result, and say why in the form that was asked for.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        if self.format == "json" {
            let document: Value = serde_json::from_str(&said).expect("JSON");
            assert_eq!(document["error"]["exit"], code, "{said}");
            let message = document["error"]["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "{said}");
        } else {
            assert!(said.starts_with("error: "), "{arguments:?}: {said}");
        }
        said
    }
}

impl Printed {
    /// One field of the one object that was printed, as a table shows it.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        if !self.json {
            let mut rows = self.text.lines().map(|line| line.split_once("  "));
            let value = rows.find_map(|row| row.filter(|(field, _)| *field == name));
            let (_, value) = value.unwrap_or_else(|| panic!("no {name}: {}", self.text));
            return value.trim().to_owned();
        }
        let document: Value = serde_json::from_str(&self.text).expect("JSON");
        // A job's table shows what is nested in it beside its own fields.
        let value = ["", "/entities", "/calotype"]
            .iter()
            .find_map(|at| document.pointer(at)?.get(name));
        match value.unwrap_or_else(|| panic!("no {name}: {document}")) {
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
                items.join(", ")
            }
            other => other.to_string(),
        }
    }

    /// How many rows a list has, and whether one of them has this value.
    #[track_caller]
    pub(crate) fn list(&self, field: &str, value: &str) -> (usize, bool) {
        if !self.json {
            let rows: Vec<&str> = self.text.lines().skip(1).collect();
            let has = |row: &&str| row.split("  ").any(|cell| cell.trim() == value);
            return (rows.len(), rows.iter().any(has));
        }
        let document: Value = serde_json::from_str(&self.text).expect("JSON");
        let rows = document.as_array().or_else(|| document["jobs"].as_array());
        let rows = rows.unwrap_or_else(|| panic!("no list: {document}"));
        let has = |row: &Value| match &row[field] {
            Value::Bool(yes) => value.parse() == Ok(*yes),
            cell => cell == value,
        };
        (rows.len(), rows.iter().any(has))
    }

    #[track_caller]
    pub(crate) fn nothing(&self) {
        assert_eq!(self.text, "");
    }
}

#[test]
fn images_are_made_listed_shown_changed_and_fetched_by_command() {
    let server = Server::with_defaults();
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        let content = Content::bytes(1, 3_000_000);
        std::fs::write(terminal.path("disk.raw"), &content).expect("room");
        let made = terminal.ok(&[
            "image",
            "create",
            "disk",
            "--file",
            "disk.raw",
            "--verify",
            "--tag",
            "web",
            "--property",
            "os_distro=debian",
            "--min-disk",
            "3",
            "--min-ram",
            "64",
        ]);
        assert_eq!(made.field("status"), "active");
        assert_eq!(made.field("size"), "3000000");
        assert_eq!(made.field("min_disk"), "3");
        let id = made.field("id");
        let other = terminal.ok(&["image", "create", "record", "--disk-format", "qcow2"]);
        assert_eq!(other.field("status"), "queued");

        let listed = terminal.ok(&["image", "list"]);
        assert_eq!(listed.list("id", &id), (2, true));
        let listed = terminal.ok(&["image", "list", "--tag", "web", "--status", "active"]);
        assert_eq!(listed.list("name", "disk"), (1, true));
        let listed = terminal.ok(&["image", "list", "--name", "absent"]);
        assert_eq!(listed.list("name", "absent"), (0, false));
        assert_eq!(
            terminal
                .ok(&["image", "list", "--limit", "1"])
                .list("", "")
                .0,
            1
        );
        assert_eq!(terminal.ok(&["image", "show", "disk"]).field("id"), id);

        let changed = terminal.ok(&[
            "image",
            "set",
            "disk",
            "--name",
            "renamed",
            "--property",
            "a/b=c",
            "--remove-property",
            "os_distro",
            "--tag",
            "fresh",
            "--remove-tag",
            "web",
            "--visibility",
            "private",
            "--min-ram",
            "128",
            "--protected",
        ]);
        assert_eq!(changed.field("name"), "renamed");
        assert_eq!(changed.field("a/b"), "c");
        assert_eq!(changed.field("tags"), "fresh");
        assert_eq!(changed.field("visibility"), "private");
        assert!(!changed.text.contains("os_distro"), "{}", changed.text);
        terminal.fails(&["image", "delete", "renamed"], exit::NOT_AUTHORISED);
        terminal.ok(&["image", "set", &id, "--unprotected"]);

        let fetched = terminal.ok(&["image", "download", "renamed", "--file", "copy.raw"]);
        assert_eq!(fetched.field("bytes"), "3000000");
        assert_eq!(fetched.field("verified"), "sha512");
        assert!(read(&terminal.path("copy.raw")) == content);
        let again = ["image", "download", "renamed", "--file", "copy.raw"];
        terminal.fails(&again, exit::REFUSED);
        terminal.ok(&[&again[..], &["--force"]].concat());
        let piped = terminal.run(&["image", "download", &id]);
        assert!(piped.status.success() && piped.stdout == content);

        terminal
            .ok(&["image", "delete", "renamed", "record"])
            .nothing();
        terminal.fails(&["image", "show", "renamed"], exit::NOT_FOUND);
        terminal.fails(&["image", "show", &id], exit::NOT_FOUND);
        assert_eq!(terminal.ok(&["image", "list"]).list("", "").0, 0);
    }
}

#[test]
fn images_are_tagged_by_command() {
    let server = Server::with_defaults();
    let user = server.user();
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        let name = format!("{format}-tagged");
        let id = user.create(&name);
        let team = format!("team={format}");
        terminal
            .ok(&["image", "tag", "add", &name, "env=dev", &team, "web"])
            .nothing();
        terminal
            .ok(&["image", "tag", "add", &id, "env=a=b"])
            .nothing();
        let listed = terminal.ok(&["image", "tag", "list", &name]);
        assert_eq!(listed.list("key", "env"), (3, true));
        assert_eq!(listed.list("value", "a=b"), (3, true));
        let listed = terminal.ok(&["image", "tag", "list"]);
        assert_eq!(listed.list("key", "team"), (3, true));
        let found = terminal.ok(&["image", "list", "--tag", &team]);
        assert_eq!(found.list("id", &id), (1, true));
        terminal
            .ok(&["image", "tag", "remove", &name, "env", "team"])
            .nothing();
        terminal.fails(&["image", "tag", "remove", &name, "env"], exit::NOT_FOUND);
        assert_eq!(
            terminal
                .ok(&["image", "tag", "list", &id])
                .list("key", "web"),
            (1, true)
        );
        terminal.fails(&["image", "tag", "list", UNKNOWN], exit::NOT_FOUND);
        let said = terminal.fails(&["image", "tag", "add", &id, "=x"], exit::REFUSED);
        assert!(said.contains("IMG.0115"), "{said}");
        user.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn operating_systems_are_listed_by_command() {
    let server = Server::with_defaults();
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        let (all, narrow) = terminal
            .ok(&["image", "os-versions"])
            .list("os_version", "Other(32 bit)");
        assert!(narrow);
        let (wide, narrow) = terminal
            .ok(&["image", "os-versions", "--tag", "uefi"])
            .list("os_version", "Other(32 bit)");
        assert!(!narrow && wide < all);
        let output = terminal.run(&["image", "os-versions", "--tag", "x"]);
        assert_eq!(output.status.code(), Some(exit::USAGE));
    }
}

#[test]
fn an_image_comes_from_standard_input() {
    let server = Server::with_defaults();
    let terminal = Terminal::new(&server, "calotype", "json");
    let content = Content::bytes(2, 100_000);
    std::fs::write(terminal.path("disk.raw"), &content).expect("room");
    let input = std::fs::File::open(terminal.path("disk.raw")).expect("the file");
    let output = terminal
        .command(&["image", "create", "piped", "--file", "-"])
        .stdin(input)
        .output()
        .expect("the calotype binary runs");
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&made["status"], &made["size"]),
        (&"active".into(), &100_000.into())
    );
}

#[test]
fn an_image_is_replicated_and_its_job_followed_by_command() {
    let server = Server::with_defaults();
    let user = server.user();
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        let (source, replica, later) = (
            format!("{format}-source"),
            format!("{format}-replica"),
            format!("{format}-later"),
        );
        user.image(&source, 1, 100_000);
        let job = terminal.ok(&[
            "image",
            "replicate",
            &source,
            "--name",
            &replica,
            "--description",
            "by hand",
            "--wait",
            "--timeout",
            "60s",
        ]);
        assert_eq!(job.field("status"), "SUCCESS");
        assert_eq!(job.field("job_type"), "imsCopyImageInRegionJob");
        assert_eq!(
            terminal.ok(&["image", "show", &replica]).field("id"),
            job.field("image_id")
        );

        let accepted = terminal.ok(&["image", "replicate", &source, "--name", &later]);
        let id = accepted.field("job_id");
        let ended = terminal.ok(&["job", "wait", &id, "--timeout", "60s"]);
        assert_eq!(ended.field("status"), "SUCCESS");
        let shown = terminal.ok(&["job", "show", &id]);
        assert_eq!(shown.field("image_id"), ended.field("image_id"));
        let listed = terminal.ok(&["job", "list", "--status", "success"]);
        assert!(listed.list("job_id", &id).1, "{}", listed.text);
        assert_eq!(
            terminal.ok(&["job", "list", "--limit", "1"]).list("", "").0,
            1
        );
        assert_eq!(
            terminal
                .ok(&["job", "list", "--status", "FAIL"])
                .list("", "")
                .0,
            0
        );

        let unknown = "0".repeat(32);
        let said = terminal.fails(&["job", "show", &unknown], exit::NOT_FOUND);
        assert!(said.contains("IMG.0023"), "{said}");
        terminal.fails(&["job", "wait", &unknown], exit::NOT_FOUND);
        let said = terminal.fails(
            &["image", "replicate", UNKNOWN, "--name", "a"],
            exit::NOT_FOUND,
        );
        assert!(said.contains("IMG.0027"), "{said}");
        let said = terminal.fails(
            &["image", "replicate", &source, "--name", " "],
            exit::REFUSED,
        );
        assert!(said.contains("IMG.0003"), "{said}");
        let said = terminal.fails(
            &[
                "image",
                "replicate",
                &source,
                "--name",
                "a",
                "--enterprise-project",
                UNKNOWN,
            ],
            exit::REFUSED,
        );
        assert!(said.contains("IMG.0155"), "{said}");
        let said = terminal.fails(
            &[
                "image",
                "replicate",
                &source,
                "--name",
                "a",
                "--key",
                UNKNOWN,
            ],
            exit::REFUSED,
        );
        assert!(said.contains("IMG.0095"), "{said}");
    }
}

#[test]
fn a_name_that_two_images_have_is_refused_and_a_wrong_command_line_is_told_apart() {
    let server = Server::with_defaults();
    let user = server.user();
    let (one, two) = (user.create("twin"), user.create("twin"));
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        let said = terminal.fails(&["image", "show", "twin"], exit::REFUSED);
        assert!(said.contains(&one) && said.contains(&two), "{said}");
        terminal.fails(&["image", "set", "twin"], exit::REFUSED);
        terminal.fails(&["image", "set", &one], exit::USAGE);
        let absent = ["image", "create", "a", "--file", "absent.raw"];
        terminal.fails(&absent, exit::USAGE);
        let output = terminal.run(&["image", "no-such-command"]);
        assert_eq!(output.status.code(), Some(exit::USAGE));
    }
    assert_eq!(user.list().len(), 2, "nothing was left behind");
}

#[test]
fn who_cannot_log_in_or_reach_the_service_learns_which_by_the_exit_code() {
    let mut server = Server::with_defaults();
    for format in FORMATS {
        let mut terminal = Terminal::new(&server, "calotype", format);
        let text = std::fs::read_to_string(&terminal.clouds).expect("clouds.yaml");
        let password = server.clouds().get("password");
        let wrong = terminal.path("wrong.yaml");
        std::fs::write(&wrong, text.replace(&password, "not-the-password")).expect("room");
        terminal.clouds = wrong.into();
        let said = terminal.fails(&["image", "list"], exit::NOT_AUTHORISED);
        assert!(!said.contains("not-the-password"), "{said}");
        terminal.cloud = "no-such-cloud";
        terminal.fails(&["image", "list"], exit::USAGE);
    }
    assert!(server.stop().success());
    for format in FORMATS {
        let terminal = Terminal::new(&server, "calotype", format);
        terminal.fails(&["image", "list"], exit::FAILURE);
    }
}

#[test]
fn projects_users_roles_and_access_keys_are_administered_by_command() {
    let server = Server::embedded();
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let name = |kind: &str| format!("{format}-{kind}");
        let (project, user, role) = (name("project"), name("user"), name("role"));
        let made = admin.ok(&["admin", "project", "create", &project]);
        assert_eq!(made.field("name"), project);
        assert_eq!(made.field("enabled"), "true");
        assert!(
            admin
                .ok(&["admin", "project", "list"])
                .list("name", &project)
                .1
        );
        let made = admin.ok(&["admin", "user", "create", &user]);
        let password = made.field("password");
        assert!(password.len() >= 16, "a password is made up and printed");
        assert!(admin.ok(&["admin", "user", "list"]).list("name", &user).1);
        let made = admin.ok(&["admin", "role", "create", &role]);
        assert_eq!(made.field("name"), role);
        assert!(admin.ok(&["admin", "role", "list"]).list("name", &role).1);

        let target = ["--user", &user, "--project", &project];
        let roles = [
            "admin",
            "role",
            "list",
            "--user",
            &user,
            "--project",
            &project,
        ];
        let with = |verb: &'static str, role: &str| {
            let command = ["admin", "role", verb, role];
            admin.ok(&[&command[..], &target].concat()).nothing();
        };
        assert_eq!(admin.ok(&roles).list("", "").0, 0);
        with("grant", "member");
        with("grant", &role);
        assert_eq!(admin.ok(&roles).list("name", &role), (2, true));
        let login = || Client::login(server.base(), &user, &password, &project);
        let client = login();
        client.create("made by the new user");
        with("revoke", &role);
        assert_eq!(admin.ok(&roles).list("name", "member"), (1, true));
        admin.ok(&["admin", "role", "delete", &role]).nothing();
        admin.fails(&["admin", "role", "delete", &role], exit::NOT_FOUND);
        admin.fails(&["admin", "role", "delete", "admin"], exit::NOT_AUTHORISED);

        for (kind, one) in [("user", &user), ("project", &project)] {
            admin.ok(&["admin", kind, "disable", one]).nothing();
            assert_eq!(client.get("/v2/images").status, 401, "{kind}");
            admin.ok(&["admin", kind, "enable", one]).nothing();
            login().get("/v2/images").expect(200);
        }

        let keys = ["admin", "access-key", "list", "--user", &user];
        let make = ["admin", "access-key", "create"];
        let key = admin.ok(&[&make[..], &target].concat());
        let (access, secret) = (key.field("access"), key.field("secret"));
        assert!(access.len() == 20 && secret.len() == 40);
        let listed = admin.ok(&keys);
        assert_eq!(listed.list("access", &access), (1, true));
        assert!(!listed.text.contains(&secret), "the secret is shown once");
        let keyed = |verb| ["admin", "access-key", verb, &access, "--user", &user];
        for (verb, enabled) in [("disable", "false"), ("enable", "true")] {
            admin.ok(&keyed(verb)).nothing();
            assert_eq!(admin.ok(&keys).list("enabled", enabled), (1, true));
        }
        let delete = keyed("delete");
        admin.ok(&delete).nothing();
        admin.fails(&delete, exit::NOT_FOUND);
        assert_eq!(admin.ok(&keys).list("", "").0, 0);

        admin.fails(&["admin", "project", "create", &project], exit::REFUSED);
        admin.fails(&["admin", "project", "delete", &project], exit::REFUSED);
        for image in login().list() {
            let id = image["id"].as_str().expect("an id");
            login().delete(&format!("/v2/images/{id}")).expect(204);
        }
        admin.ok(&["admin", "user", "delete", &user]).nothing();
        admin
            .ok(&["admin", "project", "delete", &project])
            .nothing();
        admin.fails(&["admin", "user", "delete", &user], exit::NOT_FOUND);
        admin.fails(&["admin", "project", "enable", &project], exit::NOT_FOUND);

        let file = admin.path("password");
        std::fs::write(&file, "a phrase of its own\n").expect("room");
        let made = ["admin", "user", "create", &user, "--password-file", &file];
        let made = admin.ok(&made);
        assert!(!made.text.contains("phrase"), "{}", made.text);

        let plain = Terminal::new(&server, "calotype", format);
        plain.fails(&["admin", "user", "create", "x"], exit::NOT_AUTHORISED);
        plain.fails(&["admin", "role", "list"], exit::NOT_AUTHORISED);
        plain.fails(&["admin", "verify"], exit::NOT_AUTHORISED);
    }
}

#[test]
fn a_service_is_verified_by_command_while_it_runs_and_when_it_stands() {
    let mut server = Server::embedded();
    server.user().image("whole", 1, 200_000);
    let data = server.data();
    let data = data.to_str().expect("a path");
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        for deep in [&[][..], &["--deep"]] {
            admin.ok(&[&["admin", "verify"][..], deep].concat());
        }
    }
    assert!(server.stop().success());
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        admin.ok(&["admin", "verify", "--deep", "--data-dir", data]);
        let absent = admin.path("absent");
        let output = admin.run(&["admin", "verify", "--data-dir", &absent]);
        assert!(!output.status.success(), "{output:?}");
        assert!(!Path::new(&absent).exists(), "verifying makes nothing");
    }
    let body = files(Path::new(data)).max_by_key(|(_, size)| *size);
    let (body, size) = body.expect("the image's bytes");
    let file = std::fs::File::options().write(true).open(&body);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", body.display()));
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", size / 2).expect("room");
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let output = admin.run(&["admin", "verify", "--deep", "--data-dir", data]);
        assert_eq!(output.status.code(), Some(8), "{output:?}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(!printed.is_empty(), "the violation is a result");
    }
}

/// The files with a blob's bytes, with their sizes.
fn files(data: &Path) -> impl Iterator<Item = (std::path::PathBuf, u64)> {
    let mut directories = vec![data.to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().is_some_and(|name| name == "body") {
                let size = path.metadata().expect("the file").len();
                found.push((path, size));
            }
        }
    }
    found.into_iter()
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn variables_are_enough_to_reach_a_service() {
    let server = Server::with_defaults();
    let image = server.user().create("named");
    let clouds = std::fs::read_to_string(server.data().join("clouds.yaml")).expect("clouds.yaml");
    let of = |name: &str| {
        let line = clouds
            .lines()
            .find_map(|line| line.trim().strip_prefix(name));
        line.expect("its line")
            .trim_matches([':', ' ', '"'])
            .to_owned()
    };
    let home = tempfile::tempdir().expect("a directory");
    let ask = |password: &str| {
        Command::new(binary())
            .args(["--output", "json", "image", "show", "named"])
            .env_clear()
            .env("HOME", home.path())
            .env("OS_AUTH_URL", of("auth_url"))
            .env("OS_USERNAME", of("username"))
            .env("OS_PASSWORD", password)
            .env("OS_PROJECT_NAME", of("project_name"))
            .env("OS_USER_DOMAIN_NAME", "Default")
            .env("OS_PROJECT_DOMAIN_NAME", "Default")
            .env("OS_REGION_NAME", of("region_name"))
            .current_dir(home.path())
            .output()
            .expect("the calotype binary runs")
    };
    let output = ask(&of("password"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["id"], image);
    let refused = ask("wrong");
    assert_eq!(refused.status.code(), Some(exit::NOT_AUTHORISED));
}
