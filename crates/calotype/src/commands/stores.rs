//! `admin stores`, `admin image move` and `migrate-store`: what is where, and moving it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::admin::json_of;
use super::session;
use crate::cli::{Connection, MigrateStoreArgs, WaitArgs};
use crate::client::{Call, JobWait, Session, encode};
use crate::config::Environment;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell, fields};

/// How often it is said how far a migration is.
const TELL: Duration = Duration::from_secs(5);

/// The wait before a store is looked through again for what was still being written or moved by others.
const PAUSE: Duration = Duration::from_millis(500);

/// Blobs of a page.
const PAGE: usize = 500;

/// Lists the stores.
pub(super) async fn list(session: &Session, output: &Output) -> Result<(), Failure> {
    let stores = details(session).await?;
    output.result(&stores, |stores| {
        let mut rows = Rows::new(&[
            "STORE", "TYPE", "DEFAULT", "BLOBS", "BYTES", "WRITING", "ARRIVING", "LEAVING", "FREE",
        ])
        .numeric(&[3, 4, 5, 6, 7, 8]);
        for store in stores.as_array().into_iter().flatten() {
            let own = ["id", "type", "default"].map(|name| cell(store, name));
            let names = [
                "blobs",
                "bytes",
                "writing",
                "arriving",
                "leaving",
                "free_bytes",
            ];
            let held = names.map(|name| cell(&store["properties"], name));
            rows.push(own.into_iter().chain(held));
        }
        rows
    })
}

/// Moves an image's bytes.
pub(super) async fn move_image(
    session: &Session,
    image: &str,
    store: &str,
    wait: &WaitArgs,
    output: &Output,
) -> Result<(), Failure> {
    let id = session.find_image(image).await?;
    let job = order(session, &format!("/admin/v1/images/{id}/move"), store).await?;
    let waiting = wait.wait.then_some(wait.timeout);
    super::image::follow(session, &job, "moving", waiting, output).await
}

/// Moves all bytes of a store. Interrupted and called again, it goes on.
///
/// # Errors
/// Usage where the stores are not two that there are, or new images still go to the one that is to be left; a failure where something
/// could not be moved; damage where the check in the end finds any.
pub(crate) async fn migrate(
    args: &MigrateStoreArgs,
    connection: &Connection,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let session = session(connection, environment).await?;
    let stores = details(&session).await?;
    check_stores(args, &stores)?;
    let mut migration = Migration {
        session: &session,
        args,
        output,
        moved: 0,
        bytes: 0,
        refused: BTreeMap::new(),
        told: Instant::now(),
    };
    migration.run().await?;
    let Migration {
        moved,
        bytes,
        refused,
        ..
    } = migration;
    output.note("Checking what is stored now.");
    let path = format!("/admin/v1/verify?deep={}", args.deep);
    let report = json_of(session.image(Call::get(path).patient()).await?).await?;
    let violations = report["violations"].as_array().map_or(0, Vec::len);
    let left = details(&session).await?;
    let leaving = find(&left, &args.from).map(|store| store["properties"]["leaving"].clone());
    let document = json!({
        "from": args.from,
        "to": args.to,
        "moved": moved,
        "bytes": bytes,
        "leaving": leaving,
        "refused": refused,
        "blobs_checked": report["blobs_checked"],
        "violations": report["violations"],
    });
    output.result(&document, fields)?;
    if violations > 0 {
        return Err(Failure::new(format!("{violations} violations")).with_exit(Exit::Damaged));
    }
    if let Some((blob, reason)) = refused.first_key_value() {
        return Err(Failure::new(format!(
            "{} blobs are still in {}, such as {blob}: {reason}",
            refused.len(),
            args.from
        ))
        .with_exit(Exit::JobFailed));
    }
    output.note(&format!(
        "Nothing refers to the store {} any more. What blobs have left there goes after the deletion grace: \
         `calotype admin stores` shows it under LEAVING. Then its section can go.",
        args.from
    ));
    Ok(())
}

fn check_stores(args: &MigrateStoreArgs, stores: &Value) -> Result<(), Failure> {
    if args.from == args.to {
        return Err(Failure::usage("--from and --to name one store"));
    }
    let of = |name: &str| {
        find(stores, name).ok_or_else(|| {
            Failure::new(format!("there is no store {name:?}")).with_exit(Exit::NotFound)
        })
    };
    of(&args.to)?;
    if of(&args.from)?["default"] == "true" {
        return Err(Failure::new(format!(
            "new images still go to the store {}, so it would never be empty",
            args.from
        ))
        .with_exit(Exit::Refused)
        .with_hint(format!(
            "set `[stores] default = {:?}` in every node's configuration, and start them again",
            args.to
        )));
    }
    Ok(())
}

/// A migration that is running.
struct Migration<'a> {
    session: &'a Session,
    args: &'a MigrateStoreArgs,
    output: &'a Output,
    moved: u64,
    bytes: u64,
    /// Why a blob could not be moved.
    refused: BTreeMap<String, String>,
    told: Instant,
}

/// What became of a blob.
enum Outcome {
    Moved,
    /// Others are at it, or it is gone: it is looked for again.
    Later,
    Refused(String),
}

impl Migration<'_> {
    /// Goes through the store until nothing is left in it but what could not be moved.
    async fn run(&mut self) -> Result<(), Failure> {
        loop {
            let mut found = self.blobs().await?;
            if found.is_empty() {
                return Ok(());
            }
            found.retain(|blob| blob["status"] == "stored");
            let before = self.moved + self.refused.len() as u64;
            self.move_all(found).await?;
            if self.moved + self.refused.len() as u64 == before {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn is_refused(&self, blob: &Value) -> bool {
        let id = blob["id"].as_str().unwrap_or_default();
        self.refused.contains_key(id)
    }

    /// The next blobs of the store that are not refused, and all that are being written: where there are none, it is empty.
    async fn blobs(&self) -> Result<Vec<Value>, Failure> {
        let mut found: Vec<Value> = Vec::new();
        let mut marker = String::new();
        loop {
            let store = encode(&self.args.from);
            let path = format!("/admin/v1/stores/{store}/blobs?limit={PAGE}{marker}");
            let mut page = json_of(self.session.image(Call::get(path)).await?).await?;
            if let Value::Array(blobs) = page["blobs"].take() {
                found.extend(blobs.into_iter().filter(|blob| !self.is_refused(blob)));
            }
            match page["next_marker"].as_str() {
                Some(last) if found.len() < PAGE => marker = format!("&marker={last}"),
                _ => return Ok(found),
            }
        }
    }

    async fn move_all(&mut self, blobs: Vec<Value>) -> Result<(), Failure> {
        let (session, to) = (self.session, self.args.to.as_str());
        let at_once = usize::try_from(self.args.at_once).unwrap_or(1);
        let moves = blobs.into_iter().map(|blob| async move {
            let outcome = move_blob(session, &blob, to).await;
            outcome.map(|outcome| (blob, outcome))
        });
        let mut moves = stream::iter(moves).buffer_unordered(at_once);
        while let Some(moved) = moves.next().await {
            let (blob, outcome) = moved?;
            let id = blob["id"].as_str().unwrap_or_default();
            match outcome {
                Outcome::Moved => {
                    self.moved += 1;
                    self.bytes += blob["size"].as_u64().unwrap_or_default();
                }
                Outcome::Later => {}
                Outcome::Refused(reason) => {
                    self.output.note(&format!("blob {id}: {reason}"));
                    self.refused.insert(id.to_owned(), reason);
                }
            }
            if self.told.elapsed() >= TELL {
                self.told = Instant::now();
                let (moved, bytes) = (self.moved, self.bytes);
                self.output
                    .note(&format!("{moved} blobs moved, {bytes} bytes"));
            }
        }
        Ok(())
    }
}

async fn move_blob(session: &Session, blob: &Value, to: &str) -> Result<Outcome, Failure> {
    let id = blob["id"].as_str().unwrap_or_default();
    let path = format!("/admin/v1/blobs/{}/move", encode(id));
    let job = match order(session, &path, to).await {
        Ok(job) => job,
        // Being moved already, as by a run of this that was interrupted; or deleted meanwhile.
        Err(failure) if matches!(failure.exit, Exit::Refused | Exit::NotFound) => {
            return Ok(Outcome::Later);
        }
        Err(failure) => return Err(failure),
    };
    let hidden = ProgressBar::hidden();
    match session.wait_job(&job, JobWait::default(), &hidden).await {
        Ok(_) => Ok(Outcome::Moved),
        Err(failure) if failure.exit == Exit::JobFailed => {
            Ok(Outcome::Refused(failure.to_string()))
        }
        Err(failure) => Err(failure),
    }
}

/// Asks for a move; its job comes back.
async fn order(session: &Session, path: &str, store: &str) -> Result<String, Failure> {
    session.start_job(path, &json!({ "store": store })).await
}

async fn details(session: &Session) -> Result<Value, Failure> {
    let call = Call::get("/v2/info/stores/detail");
    let mut answer = json_of(session.image(call).await?).await?;
    Ok(answer["stores"].take())
}

fn find<'a>(stores: &'a Value, name: &str) -> Option<&'a Value> {
    let mut stores = stores.as_array()?.iter();
    stores.find(|store| store["id"] == name)
}
