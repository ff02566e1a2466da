//! A catalog in a directory, root keys in a file or a text, and labels in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use calotype_catalog::SqlCatalog;
use calotype_core::Result;
use calotype_core::access::{Access, Action, Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::app::{Call, Surface};
use calotype_core::codes::KmsCode;
use calotype_core::id::{BlobId, EnterpriseProjectId};
use calotype_core::keys::MasterKey;
use calotype_core::master_key::{GrantId, GranteeType, KeyChange, KeyOperation, MasterKeyRecord};
use calotype_core::ports::{
    AccessKey, Clock, DataKey, Directory as _, DomainRecord, Entropy, KeyService as _, Labels,
    Secrets as _, UserRecord, WrappedKey,
};
use calotype_core::time::Timestamp;
use calotype_keys::kms::{KeyRef, NewGrant, NewKey};
use calotype_keys::{EmbeddedKeys, Options, Ports, RootSource, SystemEntropy};
use zeroize::Zeroizing;

/// A clock that is moved by hand.
pub(crate) struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
pub(crate) struct MemoryLabels(Mutex<HashMap<String, Bytes>>);

#[async_trait::async_trait]
impl Labels for MemoryLabels {
    async fn label(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(name).cloned())
    }

    async fn set_label(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.0.lock().unwrap().insert(name.to_owned(), bytes);
        Ok(())
    }
}

impl MemoryLabels {
    pub(crate) fn text(&self) -> String {
        let labels = self.0.lock().unwrap();
        let bytes = labels.get("keyring").cloned().unwrap_or_default();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) catalog: Arc<SqlCatalog>,
    pub(crate) labels: Arc<MemoryLabels>,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(1_700_000_000_000_000)));
        let catalog = catalog(directory.path(), "catalog.db", &clock).await;
        Self {
            directory,
            catalog,
            labels: Arc::default(),
            clock,
            entropy: Arc::new(SystemEntropy::new()),
        }
    }

    /// The same store and root keys, and a catalog that is new.
    pub(crate) async fn with_new_catalog(mut self) -> Self {
        self.catalog = catalog(self.directory.path(), "other.db", &self.clock).await;
        self
    }

    pub(crate) fn root_file(&self) -> PathBuf {
        self.directory.path().join("root.key")
    }

    pub(crate) fn advance(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.0.fetch_add(micros, Ordering::SeqCst);
    }

    pub(crate) async fn open(&self, source: RootSource) -> Result<Arc<EmbeddedKeys>> {
        let ports = Ports {
            catalog: Arc::clone(&self.catalog) as _,
            labels: Arc::clone(&self.labels) as _,
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy),
        };
        let opened = EmbeddedKeys::open(ports, source, Access::default(), Options::default());
        opened.await.map(Arc::new)
    }

    pub(crate) async fn open_file(&self) -> Result<Arc<EmbeddedKeys>> {
        self.open(RootSource::File(self.root_file())).await
    }

    /// With an access key whose secret is sealed so.
    pub(crate) async fn insert_access_key(&self, sealed_secret: Vec<u8>) {
        let domain = DomainRecord {
            id: "default".parse().unwrap(),
            name: "Default".to_owned(),
            enabled: true,
        };
        self.catalog.insert_domain(&domain).await.unwrap();
        let user = UserRecord {
            id: "u1".parse().unwrap(),
            domain: domain.id,
            name: "u1".to_owned(),
            password_hash: None,
            default_project: None,
            enabled: true,
        };
        self.catalog.insert_user(&user, None).await.unwrap();
        let key = AccessKey {
            access: "AK1".to_owned(),
            sealed_secret,
            user: user.id,
            project: None,
            enabled: true,
            created_at: self.clock.now(),
            temporary: None,
        };
        self.catalog.insert_access_key(&key, None).await.unwrap();
    }
}

async fn catalog(directory: &Path, name: &str, clock: &Arc<SetClock>) -> Arc<SqlCatalog> {
    let url = format!("sqlite://{}", directory.join(name).display());
    let options = calotype_catalog::Options::default();
    let catalog = SqlCatalog::open(&url, options, Arc::clone(clock) as _).await;
    Arc::new(catalog.unwrap())
}

pub(crate) fn environment(text: &str) -> RootSource {
    let name = "CALOTYPE_ROOT_KEY".to_owned();
    RootSource::Environment(name, Zeroizing::new(text.to_owned()))
}

/// A request of a user with roles in a project.
pub(crate) fn call(user: &str, project: &str, roles: &[&str]) -> Call {
    let domain = Named {
        id: "default".parse().unwrap(),
        name: "Default".to_owned(),
    };
    Call {
        principal: Principal {
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
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            enterprise_roles: std::collections::BTreeMap::new(),
            credential: Credential::AccessKey,
        },
        request_id: "req-1".to_owned(),
        surface: Surface::Native,
        token: None,
    }
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A member of a project.
pub(crate) fn member(user: &str, project: &str) -> Call {
    call(user, project, &["member"])
}

/// A new key of the caller's project, under this alias.
pub(crate) async fn make_key(keys: &EmbeddedKeys, by: &Call, alias: &str) -> MasterKeyRecord {
    let permitted = keys.permit(by, Action::KeysCreate).unwrap();
    let new = NewKey {
        alias: alias.parse().unwrap(),
        description: String::new(),
        realm: None,
        enterprise_project: EnterpriseProjectId::Default,
    };
    keys.create_key(&permitted, new, None).await.unwrap()
}

pub(crate) async fn change(
    keys: &EmbeddedKeys,
    by: &Call,
    key: &MasterKeyRecord,
    change: KeyChange,
) -> Result<MasterKeyRecord> {
    let action = match change {
        KeyChange::Enable => Action::KeysEnable,
        KeyChange::Disable => Action::KeysDisable,
        KeyChange::EnableRotation => Action::RotationEnable,
        KeyChange::DisableRotation => Action::RotationDisable,
        KeyChange::RotationDays(_) => Action::RotationUpdate,
        _ => Action::KeysUpdate,
    };
    let permitted = keys.permit(by, action).unwrap();
    keys.change_key(&permitted, &KeyRef::Id(key.id), &change)
        .await
}

pub(crate) async fn grant(
    keys: &EmbeddedKeys,
    by: &Call,
    key: &MasterKeyRecord,
    to: (GranteeType, &str),
    operations: &[KeyOperation],
) -> Result<GrantId> {
    let permitted = keys.permit(by, Action::GrantsCreate).unwrap();
    let new = NewGrant {
        grantee: to.1.to_owned(),
        grantee_type: to.0,
        operations: operations.to_vec(),
        name: None,
        retiring: None,
    };
    keys.create_grant(&permitted, &KeyRef::Id(key.id), new, None)
        .await
}

#[track_caller]
pub(crate) fn assert_code<T>(result: Result<T>, code: KmsCode) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.kms_code(), Some(code), "{error:?}");
}

/// A data key and a secret that were sealed, to be opened later.
pub(crate) struct Sealed {
    blob: BlobId,
    key: DataKey,
    wrapped: WrappedKey,
    secret: Vec<u8>,
}

impl Sealed {
    pub(crate) async fn under(
        keys: &(impl calotype_core::ports::KeyService + calotype_core::ports::Secrets),
    ) -> Self {
        let entropy = SystemEntropy::new();
        let (blob, key) = (BlobId::random(&entropy), DataKey::random(&entropy));
        let wrapped = keys.wrap(&MasterKey::Service, blob, &key).await.unwrap();
        let secret = keys.seal_secret("access-key:AK1", b"secret").unwrap();
        Self {
            blob,
            key,
            wrapped,
            secret,
        }
    }

    pub(crate) fn secret(&self) -> Vec<u8> {
        self.secret.clone()
    }

    pub(crate) async fn opens_under(&self, keys: &EmbeddedKeys) -> bool {
        let key = keys.unwrap(self.blob, &self.wrapped).await;
        let secret = keys.open_secret("access-key:AK1", &self.secret);
        key.is_ok_and(|key| key.expose() == self.key.expose())
            && secret.is_ok_and(|secret| secret.as_slice() == b"secret")
    }
}
