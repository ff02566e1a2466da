//! A fresh catalog and the things that tests put into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use calotype_catalog::{DirectUrl, Options, Pooler, SqlCatalog};
use calotype_core::ErrorKind;
use calotype_core::id::{BlobId, ImageId, ProjectId, StoreName};
use calotype_core::image::{Digests, Image, ImageStatus, Visibility};
use calotype_core::job::{Claim, Job, JobType, ReplicaBytes, Replication, ResealPlan};
use calotype_core::ports::{
    AuditEvent, BlobFacts, ByteLimit, Clock, ImageLimit, Images as _, Jobs as _, MemberLimit,
    NewReplica, Reconcile as _, Reservation, Trail, WrappedKey,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const NO_LIMIT: ImageLimit = ImageLimit(u64::MAX);
/// A day that is not near the real one: tests see what is taken from which clock.
pub(crate) const DAY: i64 = 1_704_164_645_000_000;

/// A clock that stands still until it is moved.
#[derive(Default)]
pub(crate) struct StoppedClock(AtomicI64);

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) catalog: Arc<SqlCatalog>,
    next: AtomicU64,
}

impl World {
    pub(crate) async fn open(url: &str) -> Self {
        Self::open_with(url, Options::default()).await
    }

    pub(crate) async fn open_with(url: &str, options: Options) -> Self {
        Self {
            url: url.to_owned(),
            catalog: Arc::new(open_with(url, options).await.unwrap()),
            next: AtomicU64::new(1),
        }
    }

    fn uuid(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.next.fetch_add(1, Ordering::SeqCst)))
    }

    pub(crate) fn blob_id(&self) -> BlobId {
        self.uuid().into()
    }

    /// A queued private image, later than those before it.
    pub(crate) fn image(&self, owner: &str) -> Image {
        let id = self.uuid();
        let time = Timestamp::from_micros(DAY + i64::try_from(id.as_u128()).unwrap());
        Image {
            id: ImageId::from(id),
            name: Some("cirros".to_owned()),
            owner: project(owner),
            status: ImageStatus::Queued,
            visibility: Visibility::Private,
            disk_format: Some("qcow2".to_owned()),
            container_format: Some("bare".to_owned()),
            min_disk: 1,
            min_ram: 512,
            protected: false,
            hidden: false,
            size: None,
            virtual_size: None,
            digests: Digests::default(),
            blob: None,
            wrapped_key: None,
            damaged_at: None,
            cmk_id: None,
            enterprise_project: calotype_core::id::EnterpriseProjectId::Default,
            properties: BTreeMap::new(),
            tags: Vec::new(),
            created_at: time,
            updated_at: time,
            active_at: None,
            version: 1,
        }
    }

    pub(crate) async fn insert(&self, image: &Image) {
        self.catalog
            .insert_image(image, NO_LIMIT, trail())
            .await
            .unwrap();
    }

    pub(crate) async fn get(&self, id: ImageId) -> Image {
        self.find(id).await.unwrap()
    }

    pub(crate) async fn find(&self, id: ImageId) -> Option<Image> {
        self.catalog
            .image(id, None)
            .await
            .unwrap()
            .map(|seen| seen.image)
    }

    /// An active image of this size.
    pub(crate) async fn active(&self, owner: &str, size: u64) -> Image {
        let image = self.image(owner);
        self.insert(&image).await;
        let blob = self.blob_id();
        self.catalog
            .begin_upload(image.id, blob, LEASE, Reservation::NONE)
            .await
            .unwrap();
        self.catalog
            .finish_upload(image.id, blob, &facts(size), None, ByteLimit::NONE, trail())
            .await
            .unwrap()
    }

    /// A replication of `source` into `owner`'s project.
    pub(crate) fn replica(&self, source: &Image, owner: &str) -> NewReplica {
        let image = self.image(owner);
        let job = Job {
            source: Some(source.id),
            image: Some(image.id),
            image_name: image.name.clone(),
            ..self.job(image.id, JobType::CopyImageInRegion, owner)
        };
        NewReplica {
            job,
            image,
            replication: Replication {
                source: source.blob.unwrap(),
                bytes: ReplicaBytes::Share { wrapped: None },
            },
            store: None,
            image_limit: NO_LIMIT,
            byte_limit: ByteLimit::NONE,
            concurrency: u64::MAX,
        }
    }

    /// A replication of `source` into `owner`'s project, under another key.
    pub(crate) fn resealed_replica(&self, source: &Image, owner: &str) -> NewReplica {
        let plan = ResealPlan {
            source_key: None,
            source_cmk: None,
            target: self.blob_id(),
            target_key: wrapped("k1"),
            target_cmk: Some("k1".parse().unwrap()),
        };
        with_bytes(self.replica(source, owner), ReplicaBytes::Reseal(plan))
    }

    /// A job of a project, accepted when the image was made whose number it has too.
    pub(crate) fn job(&self, number: ImageId, job_type: JobType, owner: &str) -> Job {
        let number = number.as_uuid().as_u128();
        Job::accepted(
            format!("{number:032x}").parse().unwrap(),
            project(owner),
            "u1".parse().unwrap(),
            job_type,
            Timestamp::from_micros(DAY + i64::try_from(number).unwrap()),
        )
    }

    pub(crate) async fn assert_sound(&self) {
        assert_eq!(self.catalog.violations().await.unwrap(), []);
    }

    /// The time by which the catalog judges.
    pub(crate) async fn now(&self) -> Timestamp {
        use sqlx::{Connection as _, Row as _};
        if self.url.starts_with("sqlite") {
            return Timestamp::from_micros(DAY);
        }
        let mut c = sqlx::PgConnection::connect(&self.url).await.unwrap();
        let sql = "select cast(extract(epoch from now()) * 1000000 as bigint)";
        let row = sqlx::query(sql).fetch_one(&mut c).await.unwrap();
        Timestamp::from_micros(row.get(0))
    }

    /// The one number that a statement tells, by a connection of its own.
    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        use sqlx::Connection as _;
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let c = sqlx::SqliteConnection::connect_with(&options).await;
            let asked = sqlx::query_scalar(sql).fetch_one(&mut c.unwrap()).await;
            return asked.unwrap();
        }
        let c = sqlx::PgConnection::connect(&self.url).await;
        let asked = sqlx::query_scalar(sql).fetch_one(&mut c.unwrap()).await;
        asked.unwrap()
    }

    /// Executes SQL behind the catalog's back.
    pub(crate) async fn tamper(&self, sql: impl Into<String>) {
        use sqlx::Connection as _;
        let sql = sqlx::AssertSqlSafe(sql.into());
        if let Some(path) = self.url.strip_prefix("sqlite://") {
            let options = sqlx::sqlite::SqliteConnectOptions::new()
                .filename(path)
                .foreign_keys(false);
            let mut c = sqlx::SqliteConnection::connect_with(&options)
                .await
                .unwrap();
            sqlx::raw_sql(sql).execute(&mut c).await.unwrap();
        } else {
            let mut c = sqlx::PgConnection::connect(&self.url).await.unwrap();
            sqlx::raw_sql(sql).execute(&mut c).await.unwrap();
        }
    }
}

pub(crate) async fn open(url: &str) -> calotype_core::Result<SqlCatalog> {
    open_with(url, Options::default()).await
}

thread_local! {
    /// The port of the pooler that catalogs of this test are behind.
    static POOLER: std::cell::Cell<Option<u16>> = const { std::cell::Cell::new(None) };
}

/// From now on catalogs that this test opens are behind the pooler at this port.
pub(crate) fn behind(port: u16) {
    POOLER.set(Some(port));
}

async fn open_with(url: &str, options: Options) -> calotype_core::Result<SqlCatalog> {
    let (url, options) = match POOLER.get() {
        Some(port) => {
            let (_, database) = url.rsplit_once('/').unwrap();
            let pooled = Options {
                pooler: Pooler::Transaction(DirectUrl(url.to_owned())),
                ..options
            };
            (
                &*format!("postgres://postgres@127.0.0.1:{port}/{database}"),
                pooled,
            )
        }
        None => (url, options),
    };
    let clock = StoppedClock::default();
    clock.0.store(DAY, Ordering::SeqCst);
    SqlCatalog::open(url, options, Arc::new(clock)).await
}

/// A replication whose replica gets its bytes so.
pub(crate) fn with_bytes(mut replica: NewReplica, bytes: ReplicaBytes) -> NewReplica {
    replica.replication.bytes = bytes;
    replica
}

pub(crate) fn project(name: &str) -> ProjectId {
    name.parse().unwrap()
}

pub(crate) fn facts(size: u64) -> BlobFacts {
    BlobFacts {
        size: ByteSize::new(size),
        stored: ByteSize::new(size / 2),
        digests: Digests {
            md5: Some("aa".repeat(16)),
            sha256: None,
            sha512: Some("bb".repeat(64)),
        },
    }
}

pub(crate) fn wrapped(key: &str) -> WrappedKey {
    WrappedKey {
        master_key: key.to_owned(),
        version: 3,
        sealed: vec![0, 1, 255],
    }
}

pub(crate) fn trail() -> Trail {
    Trail {
        event: event("createImage"),
        answer: None,
    }
}

pub(crate) fn event(trace: &str) -> AuditEvent {
    AuditEvent {
        at: Timestamp::from_micros(DAY + 7),
        trace: trace.to_owned(),
        request_id: "req-1".to_owned(),
        project: Some(project("p1")),
        user: "u1".parse().unwrap(),
        resource_type: "image".to_owned(),
        resource_id: "1".to_owned(),
        detail: serde_json::json!({"name": "cirros"}),
    }
}

pub(crate) const fn at_most(most: u64) -> MemberLimit {
    MemberLimit {
        configured: most,
        at_most: None,
    }
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: calotype_core::Result<T>, kind: ErrorKind) {
    assert_eq!(result.unwrap_err().kind(), kind);
}

/// The blobs after one that may be deletable. All are in the one store of the world.
pub(crate) async fn deletable(
    catalog: &SqlCatalog,
    after: Option<BlobId>,
    most: u32,
) -> Vec<BlobId> {
    let found = catalog.deletable_blobs(after, most).await.unwrap();
    let blobs = found.into_iter().map(|(blob, store)| {
        assert_eq!(store, StoreName::main());
        blob
    });
    blobs.collect()
}

/// Jobs one by one.
pub(crate) trait PickJob {
    /// The next job, if there is one.
    async fn pick_job(&self, worker: &str, lease: Duration)
    -> calotype_core::Result<Option<Claim>>;
}

impl PickJob for SqlCatalog {
    async fn pick_job(
        &self,
        worker: &str,
        lease: Duration,
    ) -> calotype_core::Result<Option<Claim>> {
        let claims = self.pick_jobs(worker, lease, 1).await?;
        assert!(claims.len() <= 1, "more than was asked for: {claims:?}");
        Ok(claims.into_iter().next())
    }
}
