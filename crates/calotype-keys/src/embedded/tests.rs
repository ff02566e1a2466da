//! What only the key service itself can look for: the material of its keys, where it must not be.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use calotype_catalog::SqlCatalog;
use calotype_core::access::{Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::app::Surface;
use calotype_core::id::EnterpriseProjectId;
use calotype_core::time::Timestamp;

use super::*;
use crate::SystemEntropy;
use crate::kms::{Context, KeyRef, NewKey};

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000)
    }
}

#[derive(Default)]
struct MemoryLabels(Mutex<HashMap<String, Bytes>>);

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

fn call(roles: &[&str]) -> Call {
    let domain = Named {
        id: "default".parse().unwrap(),
        name: "Default".to_owned(),
    };
    Call {
        principal: Principal {
            user: Named {
                id: "u1".parse().unwrap(),
                name: "u1".to_owned(),
            },
            user_domain: domain.clone(),
            scope: Scope::Project(ProjectScope {
                project: Named {
                    id: "p1".parse().unwrap(),
                    name: "p1".to_owned(),
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

#[tokio::test]
async fn the_material_of_no_key_is_in_the_catalog_the_label_or_a_text() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/catalog.db", directory.path().display());
    let clock: Arc<dyn Clock> = Arc::new(Still);
    let options = calotype_catalog::Options::default();
    let catalog = SqlCatalog::open(&url, options, Arc::clone(&clock)).await;
    let catalog: Arc<SqlCatalog> = Arc::new(catalog.unwrap());
    let labels = Arc::new(MemoryLabels::default());
    let ports = Ports {
        catalog: Arc::clone(&catalog) as _,
        labels: Arc::clone(&labels) as _,
        clock,
        entropy: Arc::new(SystemEntropy::new()),
    };
    let source = RootSource::File(directory.path().join("root.key"));
    let keys = EmbeddedKeys::open(ports, source, Access::default(), Options::default());
    let keys = keys.await.unwrap();

    // Everything that touches material.
    let by = call(&["admin"]);
    let permitted = |action| keys.permit(&by, action).unwrap();
    let new = NewKey {
        alias: "a".parse().unwrap(),
        description: String::new(),
        realm: None,
        enterprise_project: EnterpriseProjectId::Default,
    };
    let made = keys
        .create_key(&permitted(Action::KeysCreate), new, None)
        .await;
    let id = made.unwrap().id;
    let key = KeyRef::Id(id);
    let rotate = permitted(Action::RotationUpdate);
    keys.rotate_key(&rotate, &key).await.unwrap();
    let crypto = permitted(Action::DataKeysOpen);
    let sealed = keys.encrypt_data_key(&crypto, &key, &Context::None, b"x");
    let (_, sealed) = sealed.await.unwrap();
    keys.decrypt_data_key(&crypto, &key, &Context::None, &sealed)
        .await
        .unwrap();
    keys.rotate_root(&by).await.unwrap();
    keys.upkeep().await.unwrap();

    let mut material = Vec::new();
    for wrapped in catalog.service_material().await.unwrap() {
        material.push(keys.roots.unwrap(&wrapped).await.unwrap());
    }
    for version in [1, 2] {
        material.push(keys.material_of(id, version).await.unwrap().unwrap());
    }
    for root in keys.roots.ring().iter() {
        material.push(root.material().clone());
    }
    assert_eq!(material.len(), 6);
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    for file in std::fs::read_dir(directory.path()).unwrap().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name != "root.key" {
            places.push((name, std::fs::read(file.path()).unwrap()));
        }
    }
    assert!(places.iter().any(|(name, _)| name == "catalog.db"));
    let label = labels.label("keyring").await.unwrap().unwrap();
    places.push(("the label".to_owned(), label.to_vec()));
    let shown = format!(
        "{keys:?} {:?} {:?}",
        keys.roots.ring(),
        made_status(&keys, &by).await
    );
    places.push(("a text".to_owned(), shown.into_bytes()));
    for material in &material {
        let bytes = material.expose();
        let hex = hex::encode(*bytes);
        for canary in [&bytes[..], hex.as_bytes(), hex.to_uppercase().as_bytes()] {
            for (place, text) in &places {
                let found = text.windows(canary.len()).any(|part| part == canary);
                assert!(!found, "in {place}");
            }
        }
    }
}

async fn made_status(keys: &EmbeddedKeys, by: &Call) -> RootStatus {
    keys.root_status(by).await.unwrap()
}
