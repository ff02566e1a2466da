//! A service with everything real but its clock, its randomness, its callers and where its bytes lie.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use calotype_api::ApiState;
use calotype_api::identity::IdentityState;
use calotype_api::state::{Authenticator, SignedBody};
use calotype_blob::store::MemoryStore;
use calotype_blob::{SealOptions, SealedBlobs};
use calotype_catalog::SqlCatalog;
use calotype_core::access::{Access, Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::app::{Service, Settings, Worker, WorkerOptions};
use calotype_core::id::{BlobId, EnterpriseProjectId, ImageId, KeyId, ProjectId, StoreName};
use calotype_core::image::{Digests, Image, ImageStatus, Member, MemberStatus, Visibility};
use calotype_core::job::Job;
use calotype_core::keys::{Authority, KeyResult, KeyUser, MasterKey};
use calotype_core::ports::{
    AuditEvent, BlobCheck, BlobFacts, BlobReader, Blobs, ByteLimit, ByteStream, Catalog, Clock,
    ComputeSource, CopyOrder, Depth, DigestChoice, Directory as _, DomainRecord, Entropy,
    ImageLimit, Images as _, Jobs as _, MemberLimit, NoCompute, Place, ProjectRecord, ResealOrder,
    Reservation, Trail, WrappedKey, WriteOptions,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind, Result};
use calotype_identity::{Embedded, Options, Ports};
use calotype_keys::{ScriptedKeys, ServiceKey};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

/// The project that most tests act in, the one that owns what it does not, and a third.
pub(crate) const OWN: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OTHER: &str = "fedcba9876543210fedcba9876543210";

/// A member of [`OWN`], a reader there, a member of [`OTHER`], and an administrator in [`OWN`].
pub(crate) const MEMBER: &str = "alice 0123456789abcdef0123456789abcdef member";
pub(crate) const READER: &str = "bob 0123456789abcdef0123456789abcdef reader";
pub(crate) const STRANGER: &str = "carol fedcba9876543210fedcba9876543210 member";
pub(crate) const ADMIN: &str = "root 0123456789abcdef0123456789abcdef admin";

pub(crate) const LONG: Duration = Duration::from_secs(3600);

pub(crate) struct World {
    pub(crate) app: Router,
    pub(crate) catalog: Arc<SqlCatalog>,
    pub(crate) service: Arc<Service>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) opening: Arc<Mutex<Opening>>,
    pub(crate) keys: Arc<ScriptedKeys>,
    pub(crate) blobs: Arc<Hindered>,
    entropy: Arc<dyn Entropy>,
    _directory: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The status and the IMS code.
    pub(crate) fn refusal(&self) -> (u16, String) {
        let body = self.json();
        let code = body["error"]["code"].as_str().unwrap_or("none");
        assert!(body["error"]["message"].is_string());
        (self.status.as_u16(), code.to_owned())
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        Self::made(settings, Access::default()).await
    }

    pub(crate) async fn with_access(access: Access) -> Self {
        Self::made(Settings::default(), access).await
    }

    async fn made(settings: Settings, access: Access) -> Self {
        Self::beside(Arc::new(NoCompute), settings, access).await
    }

    /// A service beside another one that runs servers.
    pub(crate) async fn beside(
        compute: Arc<dyn ComputeSource>,
        settings: Settings,
        mut access: Access,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_704_164_645_678_901)));
        let url = format!("sqlite://{}", directory.path().join("c.db").display());
        let options = calotype_catalog::Options::default();
        let port: Arc<dyn Clock> = clock.clone();
        let catalog = SqlCatalog::open(&url, options, Arc::clone(&port)).await;
        let catalog = Arc::new(catalog.unwrap());
        let entropy: Arc<dyn Entropy> = Arc::new(Counting(AtomicU64::new(1)));
        let opening = Arc::new(Mutex::new(Opening::Succeeds));
        // Nonces are the entropy's too, so it counts on for ever; keys are the scripted service's.
        let keys = Arc::new(ScriptedKeys::new(Arc::clone(&entropy)));
        let blobs = Arc::new(Hindered {
            inner: SealedBlobs::new(
                Arc::new(MemoryStore::new(Arc::clone(&port))),
                keys.clone(),
                Arc::clone(&entropy),
                Arc::clone(&port),
                SealOptions::default(),
            ),
            opening: Arc::clone(&opening),
            meanwhile: Mutex::default(),
            keeps: Mutex::default(),
        });
        let ports = calotype_core::app::Ports {
            catalog: Arc::clone(&catalog) as Arc<dyn Catalog>,
            blobs: blobs.clone(),
            keys: keys.clone(),
            objects: Arc::new(calotype_core::ports::NoBuckets),
            compute,
            converter: Arc::new(calotype_core::ports::NoConverter),
            projects: Arc::clone(&catalog) as _,
            clock: port,
            entropy: Arc::clone(&entropy),
        };
        let policy = r#"{"Version":"1.1","Statement":[{"Effect":"Allow","Action":["ims:*:*"]}]}"#;
        access.set_role("ims-only", serde_json::from_str(policy).unwrap());
        let service = Arc::new(Service::new(ports, access, settings));
        let state = ApiState {
            service: Arc::clone(&service),
            authenticator: Arc::new(TokenText),
            public_url: None,
            render_metrics: Arc::new(|| "calotype_up 1\n".to_owned()),
            max_json_body: 4096,
            body_idle_timeout: LONG,
            admission: Arc::default(),
            leaving: calotype_api::Leaving::default(),
        };
        let identity = IdentityState {
            identity: Arc::new(identity(&catalog, &clock, &entropy)),
            public_url: None,
        };
        let key_service = key_service(&catalog, &(clock.clone() as Arc<dyn Clock>)).await;
        Self {
            app: calotype_api::app(state, identity, key_service, Arc::clone(&entropy)),
            catalog,
            service,
            clock,
            opening,
            keys,
            blobs,
            entropy,
            _directory: directory,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.send(request("GET", token, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: &str) -> Answer {
        let body = Body::from(body.to_owned());
        self.send(request("POST", token, path, body)).await
    }

    pub(crate) async fn head(&self, token: &str, path: &str) -> Answer {
        self.send(request("HEAD", token, path, Body::empty())).await
    }

    /// Sends a JSON body by any method.
    pub(crate) async fn call(&self, method: &str, token: &str, path: &str, body: &str) -> Answer {
        let body = Body::from(body.to_owned());
        self.send(request(method, token, path, body)).await
    }

    /// An image's record as `change` makes it, with bytes where its status is `active`.
    pub(crate) async fn image(&self, change: impl FnOnce(&mut Image)) -> Image {
        let mut image = self.blank();
        image.status = ImageStatus::Active;
        change(&mut image);
        let (wanted, key) = (image.status, image.cmk_id.clone());
        image.status = ImageStatus::Queued;
        image.cmk_id = key;
        let limit = ImageLimit(u64::MAX >> 1);
        let inserted = self.catalog.insert_image(&image, limit, self.trail()).await;
        inserted.unwrap();
        if wanted == ImageStatus::Queued {
            return image;
        }
        let blob = BlobId::random(self.entropy.as_ref());
        self.catalog
            .begin_upload(image.id, blob, LONG, Reservation::NONE)
            .await
            .unwrap();
        if wanted == ImageStatus::Saving {
            return image;
        }
        let facts = self.write(blob, image.cmk_id.clone()).await;
        let finished = self
            .catalog
            .finish_upload(image.id, blob, &facts, None, ByteLimit::NONE, self.trail())
            .await;
        finished.unwrap()
    }

    /// An image's record as it is now.
    pub(crate) async fn record(&self, image: &Image) -> Image {
        let found = self.catalog.image(image.id, None).await.unwrap();
        found.unwrap().image
    }

    /// What is committed in the only store that there is.
    pub(crate) async fn stored(&self) -> Vec<(BlobId, Timestamp)> {
        self.blobs.list(&StoreName::main()).await.unwrap()
    }

    /// What is staged there.
    pub(crate) async fn staged(&self) -> Vec<(BlobId, Timestamp)> {
        self.blobs.list_staged(&StoreName::main()).await.unwrap()
    }

    /// Writes [`BYTES`], under a customer's key where one is given.
    pub(crate) async fn write(&self, blob: BlobId, key: Option<KeyId>) -> BlobFacts {
        let user = KeyUser {
            project: OWN.parse().unwrap(),
            user: "alice".parse().unwrap(),
            authority: Authority::Signed,
        };
        let master = key.map_or(MasterKey::Service, |key| MasterKey::Customer(key, user));
        let key = self.blobs.fresh_key(blob, &master).await.unwrap();
        let source = Box::pin(futures_util::stream::iter([Ok(Bytes::from_static(BYTES))]));
        let options = WriteOptions {
            digests: DigestChoice::default(),
            max_size: ByteSize::mib(1),
            expected_size: None,
            progress: Arc::default(),
        };
        let written = self.blobs.write(blob, &key, source, options).await;
        written.unwrap()
    }

    pub(crate) async fn share(&self, image: &Image, status: MemberStatus) {
        let project: ProjectId = OWN.parse().unwrap();
        let now = self.clock.now();
        let member = Member {
            image: image.id,
            project: project.clone(),
            status: MemberStatus::Pending,
            created_at: now,
            updated_at: now,
        };
        let limit = MemberLimit {
            configured: 100,
            at_most: None,
        };
        let added = self.catalog.add_member(&member, limit, self.trail()).await;
        added.unwrap();
        if status != MemberStatus::Pending {
            let answered = self
                .catalog
                .set_member_status(image.id, &project, status, self.trail())
                .await;
            answered.unwrap().unwrap();
        }
    }

    /// Works until the job has ended.
    pub(crate) async fn work_until_ended(&self, job: &str) {
        self.work_until(job, |job| job.ended_at.is_some()).await;
    }

    /// Works until the job is as wanted, and returns it as it then is.
    pub(crate) async fn work_until(&self, job: &str, wanted: impl Fn(&Job) -> bool) -> Job {
        let id = job.parse().unwrap();
        let worker = Worker::new(Arc::clone(&self.service), WorkerOptions::default());
        let reached = async {
            while !wanted(&self.catalog.job(&id).await.unwrap().unwrap()) {
                tokio::task::yield_now().await;
            }
        };
        worker.run(reached).await;
        self.catalog.job(&id).await.unwrap().unwrap()
    }

    /// Makes projects known to the directory, where their ids are their names.
    pub(crate) async fn know(&self, projects: &[&str]) {
        let domain = DomainRecord {
            id: "default".parse().unwrap(),
            name: "Default".to_owned(),
            enabled: true,
        };
        self.catalog.insert_domain(&domain).await.unwrap();
        for project in projects {
            let record = ProjectRecord {
                id: project.parse().unwrap(),
                domain: domain.id.clone(),
                name: (*project).to_owned(),
                description: String::new(),
                enabled: true,
            };
            let inserted = self.catalog.insert_project(&record, None).await;
            inserted.unwrap();
        }
    }

    fn blank(&self) -> Image {
        let now = self.clock.now();
        Image {
            id: ImageId::random(self.entropy.as_ref()),
            name: Some("source".to_owned()),
            owner: OWN.parse().unwrap(),
            status: ImageStatus::Queued,
            visibility: Visibility::Private,
            disk_format: Some("qcow2".to_owned()),
            container_format: Some("bare".to_owned()),
            min_disk: 1,
            min_ram: 0,
            protected: false,
            hidden: false,
            size: None,
            virtual_size: None,
            digests: Digests::default(),
            blob: None,
            wrapped_key: None,
            damaged_at: None,
            cmk_id: None,
            enterprise_project: EnterpriseProjectId::Default,
            properties: BTreeMap::new(),
            tags: Vec::new(),
            created_at: now,
            updated_at: now,
            active_at: None,
            version: 1,
        }
    }

    pub(crate) fn trail(&self) -> Trail {
        Trail {
            event: AuditEvent {
                at: self.clock.now(),
                trace: "test".to_owned(),
                request_id: "req-test".to_owned(),
                project: Some(OWN.parse().unwrap()),
                user: "alice".parse().unwrap(),
                resource_type: "image".to_owned(),
                resource_id: "test".to_owned(),
                detail: serde_json::json!({}),
            },
            answer: None,
        }
    }
}

/// The identity behind `/identity`, which these tests do not ask.
fn identity(
    catalog: &Arc<SqlCatalog>,
    clock: &Arc<TestClock>,
    entropy: &Arc<dyn Entropy>,
) -> Embedded {
    let keys = ServiceKey::from_hex(&"07".repeat(32), Arc::clone(entropy)).unwrap();
    let ports = Ports {
        directory: catalog.clone(),
        clock: clock.clone(),
        entropy: Arc::clone(entropy),
        keys: Arc::new(keys),
    };
    Embedded::new(ports, Arc::default(), Options::default())
}

/// A key service over the catalog, which these tests do not ask. It draws no randomness of theirs.
async fn key_service(
    catalog: &Arc<SqlCatalog>,
    clock: &Arc<dyn Clock>,
) -> Arc<calotype_keys::EmbeddedKeys> {
    let labels = calotype_blob::Stores::one(Arc::new(MemoryStore::new(Arc::clone(clock))));
    let ports = calotype_keys::Ports {
        catalog: Arc::clone(catalog) as _,
        labels: Arc::new(labels),
        clock: Arc::clone(clock),
        entropy: Arc::new(calotype_keys::SystemEntropy::new()),
    };
    let text = "07".repeat(32).into();
    let root = calotype_keys::RootSource::Environment("ROOT".to_owned(), text);
    let keys = calotype_keys::EmbeddedKeys::open(
        ports,
        root,
        Access::default(),
        calotype_keys::Options::default(),
    );
    Arc::new(keys.await.unwrap())
}

pub(crate) fn request(method: &str, token: &str, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("X-Auth-Token", token);
    }
    request.body(body).unwrap()
}

/// What active images hold.
pub(crate) const BYTES: &[u8] = b"hello";

pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap();
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let state = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::SeqCst);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A token is the text `user project role`, with `enterprise-project=role` for each role on one.
struct TokenText;

#[async_trait::async_trait]
impl Authenticator for TokenText {
    async fn authenticate(&self, parts: &Parts, _: &mut dyn SignedBody) -> Result<Principal> {
        let refused = || Error::new(ErrorKind::Unauthenticated, "No good credential.");
        let token = parts.headers.get("X-Auth-Token").ok_or_else(refused)?;
        let mut words = token.to_str().map_err(|_| refused())?.split(' ');
        let (Some(user), Some(project), Some(role)) = (words.next(), words.next(), words.next())
        else {
            return Err(refused());
        };
        let domain = Named {
            id: "default".parse().unwrap(),
            name: "Default".to_owned(),
        };
        Ok(Principal {
            user: Named {
                id: user.parse().unwrap(),
                name: user.to_owned(),
            },
            user_domain: domain.clone(),
            scope: Scope::Project(ProjectScope {
                project: Named {
                    id: project.parse().unwrap(),
                    name: project.to_owned(),
                },
                domain,
            }),
            roles: vec![role.to_owned()],
            enterprise_roles: words
                .filter_map(|word| word.split_once('='))
                .map(|(id, role)| (id.parse().unwrap(), vec![role.to_owned()]))
                .collect(),
            credential: Credential::AccessKey,
        })
    }
}

/// Blobs whose opening can be hindered.
pub(crate) struct Hindered {
    inner: SealedBlobs,
    opening: Arc<Mutex<Opening>>,
    /// What happens when a blob is opened next, or when a store was looked through.
    meanwhile: Mutex<Option<Meanwhile>>,
    /// Whether nothing can be removed, and how often that was asked for meanwhile.
    pub(crate) keeps: Mutex<Option<usize>>,
}

type Meanwhile = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// What becomes of the opening of a blob.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opening {
    Succeeds,
    NeverEnds,
    Panics,
}

impl Hindered {
    /// Has this happen when a blob is opened next, or when a store was looked through.
    pub(crate) fn meanwhile(&self, work: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::pin(work));
    }

    async fn do_meanwhile(&self) {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(work) = meanwhile {
            work.await;
        }
    }

    async fn hinder(&self) {
        self.do_meanwhile().await;
        let opening = *self.opening.lock().unwrap();
        match opening {
            Opening::Succeeds => {}
            Opening::NeverEnds => std::future::pending().await,
            Opening::Panics => panic!("as the test asked"),
        }
    }
}

#[async_trait::async_trait]
impl Blobs for Hindered {
    async fn fresh_key(&self, blob: BlobId, master: &MasterKey) -> KeyResult<WrappedKey> {
        self.inner.fresh_key(blob, master).await
    }
    async fn rewrap(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        master: &MasterKey,
    ) -> Result<WrappedKey> {
        self.inner.rewrap(blob, key, master).await
    }
    async fn write(
        &self,
        blob: BlobId,
        key: &WrappedKey,
        source: ByteStream,
        options: WriteOptions,
    ) -> Result<BlobFacts> {
        self.inner.write(blob, key, source, options).await
    }
    async fn reseal(&self, order: ResealOrder) -> Result<BlobFacts> {
        self.hinder().await;
        self.inner.reseal(order).await
    }
    async fn open(&self, blob: BlobId, key: Option<&WrappedKey>) -> KeyResult<Arc<dyn BlobReader>> {
        self.hinder().await;
        self.inner.open(blob, key).await
    }
    async fn delete(&self, blob: BlobId) -> Result<()> {
        self.inner.delete(blob).await
    }
    async fn discard(&self, blob: BlobId) -> Result<()> {
        if let Some(asked) = self.keeps.lock().unwrap().as_mut() {
            *asked += 1;
            return Err(Error::unavailable("as the test asked"));
        }
        self.inner.discard(blob).await
    }
    async fn is_there(&self, store: &StoreName) -> Result<()> {
        self.inner.is_there(store).await
    }

    async fn check(
        &self,
        blob: BlobId,
        key: Option<&WrappedKey>,
        depth: Depth,
    ) -> Result<BlobCheck> {
        self.inner.check(blob, key, depth).await
    }
    async fn copy(&self, order: CopyOrder) -> Result<()> {
        self.hinder().await;
        self.inner.copy(order).await
    }
    async fn clear(&self, place: &Place) -> Result<()> {
        self.inner.clear(place).await
    }
    async fn clear_staged(&self, place: &Place) -> Result<()> {
        self.inner.clear_staged(place).await
    }
    async fn list(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>> {
        self.inner.list(store).await
    }
    async fn list_staged(&self, store: &StoreName) -> Result<Vec<(BlobId, Timestamp)>> {
        let found = self.inner.list_staged(store).await;
        self.do_meanwhile().await;
        found
    }
    async fn free_space(&self, store: Option<&StoreName>) -> Result<Option<ByteSize>> {
        self.inner.free_space(store).await
    }
}
