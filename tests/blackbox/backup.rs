//! What docs/operations.md says of backup and restore, done: what was backed up is whole again after everything else is lost.

use std::path::{Path, PathBuf};

use calotype_tests::{Client, Content, Digests, Options, Server, config, database, program};
use serde_json::{Value, json};

const LENGTH: u64 = 300_000;

/// A service whose blobs and root key are beside its catalog, and what was made on it when.
struct World {
    server: Server,
    files: tempfile::TempDir,
    /// In the backup, with the numbers of their bytes.
    kept: Vec<(String, u64)>,
    /// Under a customer's key, and in the backup.
    sealed: String,
    /// Deleted after the catalog was backed up.
    deleted: String,
    /// Made after the catalog was backed up, and before the blobs were.
    between: String,
}

impl World {
    /// Works on a service, and has its catalog backed up in the middle of it.
    fn with(text: impl FnOnce(&Path) -> String, back_up: impl FnOnce(&Server, &Path)) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let server = Server::start(Options::config(text(files.path())).embedded());
        let client = server.user();
        let kept: Vec<_> = (1..=3)
            .map(|number| (client.image("kept", number, LENGTH + number), number))
            .collect();
        let key = client.create_key("key");
        let under = json!({"name": "sealed", "cmk_id": key});
        let sealed = client.replicate_with(&kept[0].0, under);
        let deleted = client.image("deleted", 4, LENGTH);
        back_up(&server, &files.path().join("catalog.backup"));
        client.delete(&format!("/v2/images/{deleted}")).expect(204);
        let between = client.image("between", 5, LENGTH);
        let world = Self {
            server,
            files,
            kept,
            sealed,
            deleted,
            between,
        };
        world.copy("blobs", "blobs.backup");
        world.server.user().image("lost", 6, LENGTH);
        world
    }

    fn place(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn copy(&self, from: &str, to: &str) {
        program::run("cp", &["-a".into(), self.place(from), self.place(to)]);
    }

    /// Takes away all that is not a backup.
    fn lose_everything(&mut self) {
        self.server.kill9();
        std::fs::remove_dir_all(self.place("blobs")).expect("the blobs");
    }

    /// Puts the blobs back, starts the service, and looks at everything.
    fn recovers(mut self, options: Options) {
        self.copy("blobs.backup", "blobs");
        self.server.try_restart(options).expect("the service");
        self.server.verify();
        let client = self.server.user();
        for (image, number) in &self.kept {
            let wanted = Digests::of(Content::new(*number, LENGTH + number));
            assert_eq!(client.download(image), wanted);
        }
        let first = Digests::of(Content::new(1, LENGTH + 1));
        assert_eq!(client.download(&self.sealed), first);
        // The grace kept its bytes.
        let wanted = Digests::of(Content::new(4, LENGTH));
        assert_eq!(client.download(&self.deleted), wanted);
        let newer = format!("/v2/images/{}", self.between);
        client.get(&newer).expect(404);
        let listed: Vec<Value> = client.list();
        assert_eq!(listed.len(), self.kept.len() + 2);
        assert_ne!(orphans(&self.server.admin()), 0);
        let replica = client.replicate(&self.sealed, "after");
        assert_eq!(client.download(&replica), first);
    }
}

/// Blobs that the catalog does not know.
fn orphans(admin: &Client) -> u64 {
    let report = admin.get("/admin/v1/verify").expect(200).json();
    report["orphans"].as_u64().expect("a number")
}

#[test]
fn a_service_on_postgresql_recovers_after_everything_but_the_backup_is_lost() {
    let url = database::fresh("backup");
    let mut world = World::with(
        |files| config::shared(&url, files),
        |_, file| database::dump(&url, file),
    );
    world.lose_everything();
    let restored = database::fresh("backup_restored");
    database::restore(&world.place("catalog.backup"), &restored);
    let text = config::shared(&restored, world.files.path());
    world.recovers(Options::config(text).embedded());
}

#[test]
fn a_service_on_sqlite_recovers_after_everything_but_the_backup_is_lost() {
    let mut world = World::with(config::kept_in, |server, file| {
        let catalog = server.data().join("catalog.db").display().to_string();
        program::run("sqlite3", &[catalog, format!(".backup {}", file.display())]);
    });
    world.lose_everything();
    let data = world.server.data();
    for file in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        // The last two are there only where the server left them.
        let _ = std::fs::remove_file(data.join(file));
    }
    let catalog = data.join("catalog.db");
    std::fs::copy(world.place("catalog.backup"), catalog).expect("the catalog");
    let text = config::kept_in(world.files.path());
    world.recovers(Options::config(text).embedded());
}
