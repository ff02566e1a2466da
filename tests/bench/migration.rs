//! A catalog of a hundred thousand images on SQLite, and its move to a PostgreSQL that keeps what it has committed (`fsync` is on).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use calotype_tests::image::JSON_PATCH;
use calotype_tests::server::binary;
use calotype_tests::{Client, Options, Server, config, database, program};
use serde_json::{Value, json};

use crate::replicas;
use crate::report::{Report, quantile, time_text};
use crate::wire::Wire;

const IMAGES: u64 = 100_000;

/// So many images share a blob. For each blob there is a job that has ended, a line of the audit trail, and an image that was
/// deleted.
const SHARE: u64 = 10;

/// How many records are made before the catalog moves, and how long each waits after the one before.
const RECORDS: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn measure(report: &mut Report) {
    let limits = config::limits(2_000_000, 10);
    let mut server = Server::start(Options::config(limits).embedded());
    let image = source(&server.user());
    assert!(server.stop().success());
    let data = server.data();
    let catalog = data.join("catalog.db");
    let before = length(&catalog);
    multiply(&catalog, &image);
    let on_sqlite = length(&catalog) - before;

    let whole = stopped(report, &data, on_sqlite);

    // As if it had never left.
    sqlite(&catalog, "delete from catalog_moves");
    serving(report, &mut server, whole);
}

/// An image with properties and a tag; a replica of it, which leaves a job; and one that is deleted, which leaves its id.
fn source(client: &Client) -> String {
    let image = replicas::image(client, 1);
    let path = format!("/v2/images/{image}");
    let properties = [
        ("os_distro", "debian"),
        ("os_version", "13"),
        ("architecture", "x86_64"),
        ("hw_disk_bus", "virtio"),
    ];
    let add = |(name, value)| json!({"op": "add", "path": format!("/{name}"), "value": value});
    let change = Value::from_iter(properties.map(add));
    client.patch(&path, JSON_PATCH, change).expect(200);
    let tag = client.put(&format!("{path}/tags/tenth"), Value::Null);
    tag.expect(204);
    client.replicate(&image, "replica");
    let deleted = client.create("deleted");
    client.delete(&format!("/v2/images/{deleted}")).expect(204);
    image
}

/// Makes a hundred thousand images like this one, with its properties, and one in ten with its tag. They were made in the order of their
/// numbers, and their ids are scattered, as random ones are.
fn multiply(catalog: &Path, image: &str) {
    let id = |number: &str| {
        format!("printf('%08x-0000-4000-8000-%012x', {number} * 2654435761 & 4294967295, {number})")
    };
    let (own, shared) = (id("n.value"), id(&format!("(n.value - n.value % {SHARE})")));
    let job = own.replace("-0000-4000-8000-", "000040008000");
    let gone = own.replace("-8000-", "-9000-");
    let name = "printf('image-%07d', n.value)";
    let created = "of.created_at + n.value";
    let updated = "of.updated_at + n.value";
    let each = format!("generate_series(0, {IMAGES} - 1) n");
    let tenth = format!("generate_series(0, {IMAGES} - 1, {SHARE}) n");
    let like = |table: &str, of: &str, series: &str, values: &[(&str, &str)]| {
        let columns = format!("select name from pragma_table_info('{table}') where name <> 'seq'");
        let columns = sqlite(catalog, &columns);
        let columns: Vec<&str> = columns.lines().collect();
        let values = columns.iter().map(|column| {
            let value = values.iter().find(|(name, _)| name == column);
            value.map_or_else(|| format!("of.{column}"), |(_, value)| (*value).to_owned())
        });
        let (values, columns) = (values.collect::<Vec<_>>().join(", "), columns.join(", "));
        format!(
            "insert into {table} ({columns}) select {values} from (select * from {table} where {of} limit 1) of \
             cross join {series};"
        )
    };
    let this = format!("id = '{image}'");
    let its = format!("image_id = '{image}'");
    let part = [("image_id", own.as_str()), ("created_at", created)];
    let blob = format!("id = (select blob from images where {this})");
    let property = |name: &str| {
        let of = format!("{its} and name = '{name}'");
        like("image_properties", &of, &each, &part)
    };
    let names = format!("select name from image_properties where {its}");
    let properties: String = sqlite(catalog, &names).lines().map(property).collect();
    let tag = like("image_tags", &its, &tenth, &part);
    let job = like(
        "jobs",
        "status = 'SUCCESS'",
        &tenth,
        &[("id", &job), ("image_id", &own), ("created_at", created)],
    );
    let owner = format!("(select owner from images where {this})");
    let of_owner = format!("from images where owner = {owner}");
    let script = [
        // Nobody else has the file open, and what a crash would leave of it is of no use.
        "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -4000000;",
        &like("blobs", &blob, &tenth, &[("id", &own)]),
        &like(
            "images",
            &this,
            &each,
            &[
                ("id", &own),
                ("blob", &shared),
                ("name", name),
                ("name_key", name),
                ("created_at", created),
                ("updated_at", updated),
            ],
        ),
        &properties,
        &tag,
        &job,
        &like(
            "audit_events",
            "trace = 'copyImage'",
            &tenth,
            &[("resource_id", &own)],
        ),
        &like("burnt_image_ids", "true", &tenth, &[("id", &gone)]),
        &format!(
            "update project_usage set images = (select count(*) {of_owner}), \
             bytes = (select sum(size) {of_owner}), \
             blob_bytes = (select sum(size) from blobs where id in (select blob {of_owner})) \
             where project = {owner};"
        ),
    ]
    .join("\n");
    sqlite(catalog, &script);
}

/// The move of a service that is stopped, against the same rows by psql. Returns how long it took.
fn stopped(report: &mut Report, data: &Path, on_sqlite: u64) -> Duration {
    let target = Target::new("bench_migration", data);
    let begin = Instant::now();
    let mut process = target.migrate(data, &[]);
    let mut notes = notes(&mut process);
    // All is copied before the first table is compared.
    wait_for(&mut notes, " rows compared");
    let copied = begin.elapsed();
    let tables = ended(process, notes);
    let whole = begin.elapsed();
    sizes(report, &target, &tables, on_sqlite);
    let rows: u64 = tables.iter().map(|moved| moved.rows).sum();
    let copy = by_psql(target, &tables);
    let what =
        format!("100,000 images ({rows} rows) copied from SQLite to PostgreSQL by migrate-catalog");
    let floor = "psql's \\copy of the same rows from CSV into empty tables with the same indexes";
    report.times(&what, copied, floor, copy);
    let rate = |rows: u64| format!("{:.0} a second", rows as f64 / copied.as_secs_f64());
    report.alone("rows copied by migrate-catalog", rate(rows));
    report.alone("images copied by migrate-catalog", rate(IMAGES));
    report.part(
        "both catalogs read again by migrate-catalog, once all is copied",
        whole.saturating_sub(copied),
        "the whole move of 100,000 images",
        whole,
    );
    whole
}

/// How long psql takes to write the rows that have moved into a database of the same schema. Only one of the two is there at a
/// time.
fn by_psql(moved: Target, tables: &[Moved]) -> Duration {
    let home = tempfile::tempdir().expect("a directory");
    let place = |name: &str| home.path().join(name).display().to_string();
    let schema = place("schema.sql");
    let dump = ["--schema-only", "--no-owner", "--file", &schema, &moved.url];
    program::run("pg_dump", &dump);
    let tables: Vec<&str> = tables
        .iter()
        .filter(|moved| moved.rows > 0)
        .map(|moved| moved.table.as_str())
        .collect();
    // In the order of their keys, as they were written.
    for table in &tables {
        let file = place(table);
        database::sql(&moved.url, &format!("\\copy {table} to '{file}' csv"));
    }
    moved.drop();
    let copy = Target::new("bench_copy", home.path());
    let make = ["--no-psqlrc", "-q", "-v", "ON_ERROR_STOP=1", "-f", &schema];
    program::run("psql", &[&[copy.url.as_str()], &make[..]].concat());
    let begin = Instant::now();
    for table in &tables {
        let file = place(table);
        database::sql(&copy.url, &format!("\\copy {table} from '{file}' csv"));
    }
    let time = begin.elapsed();
    copy.drop();
    time
}

/// Bytes in the catalogs.
fn sizes(report: &mut Report, target: &Target, tables: &[Moved], on_sqlite: u64) {
    let size = number(&target.url, "select pg_database_size(current_database())");
    let of_image = |bytes: u64| format!("{} bytes", bytes / IMAGES);
    let mix = "an image with its properties, and a tenth of a tag, blob, job, line of the audit trail and deleted one,";
    report.alone(
        &format!("{mix} in PostgreSQL with its indexes"),
        of_image(size - target.empty),
    );
    report.alone(
        &format!("{mix} in SQLite with its indexes"),
        of_image(on_sqlite),
    );
    for (what, table) in [
        ("an image's record", "images"),
        ("a property", "image_properties"),
        ("a tag", "image_tags"),
        ("a blob", "blobs"),
        ("a job that has ended", "jobs"),
        ("a line of the audit trail", "audit_events"),
        ("the id of a deleted image", "burnt_image_ids"),
    ] {
        let moved = tables.iter().find(|moved| moved.table == table);
        let rows = moved.expect("a table that has moved").rows;
        let bytes = format!("select pg_total_relation_size('{table}')");
        let bytes = number(&target.url, &bytes) / rows;
        report.alone(
            &format!("{what} in PostgreSQL with its indexes, of {rows}"),
            format!("{bytes} bytes"),
        );
    }
}

/// The move of a service that serves, in which records are made.
fn serving(report: &mut Report, server: &mut Server, whole: Duration) {
    let data = server.data();
    let target = Target::new("bench_serving", &data);
    server.restart();
    let client = server.user();
    let mut alone = records(&client, |made| made < RECORDS);
    let begin = Instant::now();
    let mut process = target.migrate(&data, &["--while-serving"]);
    let mut notes = notes(&mut process);
    let (mut beside, followed) = std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            wait_for(&mut notes, "Stop the service");
            begin.elapsed()
        });
        let beside = records(&client, |_| !following.is_finished());
        (beside, following.join().expect("its time"))
    });
    let begin = Instant::now();
    assert!(server.stop().success());
    ended(process, notes);
    let closed = begin.elapsed();
    report.alone(
        &format!(
            "100,000 images copied by migrate-catalog --while-serving, and {} more that are made meanwhile",
            beside.len()
        ),
        time_text(followed),
    );
    report.times(
        "a record made while the catalog moves, median",
        quantile(&mut beside, 0.5),
        "before it moves",
        quantile(&mut alone, 0.5),
    );
    report.part(
        "a service without an answer for its clients, with --while-serving: from its stop to the end of migrate-catalog",
        closed,
        "without: the whole move",
        whole,
    );
    target.drop();
}

/// The times of records that are made one after the other, with a pause between.
fn records(client: &Client, more: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut wire = Wire::open(client);
    let body = json!({"name": "more", "disk_format": "raw", "container_format": "bare"});
    let body = body.to_string();
    let mut times = Vec::new();
    while more(times.len()) {
        let begin = Instant::now();
        wire.post("/v2/images", &body, 201);
        times.push(begin.elapsed());
        std::thread::sleep(PAUSE);
    }
    times
}

/// A table that has moved, and how many rows it has.
struct Moved {
    table: String,
    rows: u64,
}

/// A database that a catalog moves to, and the configuration that names it.
struct Target {
    url: String,
    /// How many bytes it had when nothing was in it.
    empty: u64,
    file: PathBuf,
    _home: tempfile::TempDir,
}

impl Target {
    fn new(name: &str, data: &Path) -> Self {
        let url = database::fresh(name);
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("postgres.toml");
        let text = config::shared(&url, data);
        std::fs::write(&file, text).expect("the configuration");
        // What was written before is not to be waited for.
        database::sql(&url, "checkpoint");
        Self {
            empty: number(&url, "select pg_database_size(current_database())"),
            url,
            file,
            _home: home,
        }
    }

    fn migrate(&self, data: &Path, more: &[&str]) -> Child {
        let mut command = Command::new(binary());
        command
            .args(["migrate-catalog", "--output", "json", "--data-dir"])
            .arg(data)
            .arg("--config")
            .arg(&self.file)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("calotype runs")
    }

    /// Removes it: it is as large as what has moved.
    fn drop(self) {
        let (server, name) = self.url.rsplit_once('/').expect("a URL with a database");
        let server = format!("{server}/postgres");
        database::sql(&server, &format!("drop database {name} with (force)"));
    }
}

/// What a move tells.
fn notes(process: &mut Child) -> impl Iterator<Item = String> + Send + use<> {
    let notes = BufReader::new(process.stderr.take().expect("its notes"));
    notes.lines().map(|note| note.expect("a line"))
}

/// Waits until a move tells this.
fn wait_for(notes: &mut impl Iterator<Item = String>, what: &str) {
    let mut told = Vec::new();
    while !told.last().is_some_and(|note: &String| note.contains(what)) {
        let note = notes.next();
        told.push(note.unwrap_or_else(|| panic!("it ended before {what:?}: {told:#?}")));
    }
}

/// The tables that a move ends with.
fn ended(process: Child, notes: impl Iterator<Item = String>) -> Vec<Moved> {
    let notes: Vec<String> = notes.collect();
    let output = process.wait_with_output().expect("its end");
    assert!(output.status.success(), "{notes:#?}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tables = document["tables"].as_array().expect("tables");
    let moved = |table: &Value| Moved {
        table: table["table"].as_str().expect("a name").to_owned(),
        rows: table["rows"].as_u64().expect("a number"),
    };
    tables.iter().map(moved).collect()
}

fn number(url: &str, sql: &str) -> u64 {
    database::sql(url, sql).trim().parse().expect("a number")
}

fn sqlite(catalog: &Path, sql: &str) -> String {
    program::run("sqlite3", &["-bail", &catalog.to_string_lossy(), sql])
}

fn length(file: &Path) -> u64 {
    std::fs::metadata(file).expect("a file").len()
}
