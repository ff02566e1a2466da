//! The key services of a deployment behind the one port.
//!
//! # Guarantees
//! New wraps under customers' keys are made by the one key service that is chosen for them; the service's own key is
//! always the embedded one's. A wrap opens at the key service that made it, as its master key's prefix says, as long as
//! that is still configured. Where it is not, nothing is damaged: the error names what is missing, and passes.

use std::sync::Arc;

use calotype_core::Error;
use calotype_core::id::{BlobId, KeyId, ProjectId};
use calotype_core::keys::{KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey};
use calotype_core::ports::{DataKey, KeyService, WrappedKey};

use crate::remote::unusable;
use crate::{barbican, kms_client};

/// Where customers' keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CustomersKeys {
    /// In the catalog.
    #[default]
    Embedded,
    /// In a KMS of OTC or Huawei.
    Kms,
    /// In Barbican.
    Barbican,
}

impl CustomersKeys {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kms => "otc",
            Self::Barbican => "barbican",
        }
    }

    /// Which key service made a wrap.
    fn of(wrapped: &WrappedKey) -> Option<Self> {
        let name = wrapped.master_key.as_str();
        if name == "service" || name.starts_with("key:") {
            Some(Self::Embedded)
        } else if name.starts_with(kms_client::PREFIX) {
            Some(Self::Kms)
        } else if name.starts_with(barbican::PREFIX) {
            Some(Self::Barbican)
        } else {
            None
        }
    }
}

/// All key services, as one.
pub struct KeyServices {
    chosen: CustomersKeys,
    embedded: Arc<dyn KeyService>,
    kms: Option<Arc<dyn KeyService>>,
    barbican: Option<Arc<dyn KeyService>>,
}

impl KeyServices {
    /// The embedded key service alone, for everything.
    pub fn new(embedded: Arc<dyn KeyService>) -> Self {
        Self {
            chosen: CustomersKeys::Embedded,
            embedded,
            kms: None,
            barbican: None,
        }
    }

    /// With a KMS too.
    #[must_use]
    pub fn with_kms(mut self, kms: Arc<dyn KeyService>) -> Self {
        self.kms = Some(kms);
        self
    }

    /// With a Barbican too.
    #[must_use]
    pub fn with_barbican(mut self, barbican: Arc<dyn KeyService>) -> Self {
        self.barbican = Some(barbican);
        self
    }

    /// With new wraps under customers' keys made there.
    #[must_use]
    pub const fn choosing(mut self, chosen: CustomersKeys) -> Self {
        self.chosen = chosen;
        self
    }

    fn at(&self, place: CustomersKeys) -> KeyResult<&dyn KeyService> {
        let service = match place {
            CustomersKeys::Embedded => Some(&self.embedded),
            CustomersKeys::Kms => self.kms.as_ref(),
            CustomersKeys::Barbican => self.barbican.as_ref(),
        };
        service.map(Arc::as_ref).ok_or_else(|| {
            unusable(format!(
                "the key service {} is not configured",
                place.name()
            ))
            .into()
        })
    }

    /// The key services, the chosen one first. Fails where the chosen one is not there.
    fn all(&self) -> KeyResult<Vec<&dyn KeyService>> {
        let mut all = vec![self.at(self.chosen)?];
        for place in [
            CustomersKeys::Embedded,
            CustomersKeys::Kms,
            CustomersKeys::Barbican,
        ] {
            if place != self.chosen
                && let Ok(service) = self.at(place)
            {
                all.push(service);
            }
        }
        Ok(all)
    }
}

#[async_trait::async_trait]
impl KeyService for KeyServices {
    /// A key's id does not say where the key is. To seal, only the chosen key service counts. To open, a key is also
    /// looked for where it may have been before; ids are drawn at random, so no two services have the same.
    async fn check(&self, user: &KeyUser, key: &KeyId, purpose: KeyPurpose) -> KeyResult<()> {
        if purpose == KeyPurpose::Seal {
            return self.at(self.chosen)?.check(user, key, purpose).await;
        }
        let mut refusal = KeyFault::Missing;
        for service in self.all()? {
            match service.check(user, key, purpose).await {
                Ok(()) => return Ok(()),
                Err(KeyFault::Missing) => {}
                Err(fault) if matches!(refusal, KeyFault::Missing) => refusal = fault,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
        let mut refusal = KeyFault::Missing;
        for service in self.all()? {
            match service.is_own(user, key).await {
                Ok(own) => return Ok(own),
                Err(KeyFault::Missing) => {}
                Err(fault) if matches!(refusal, KeyFault::Missing) => refusal = fault,
                Err(_) => {}
            }
        }
        Err(refusal)
    }

    /// The first that says so.
    async fn lets_read(
        &self,
        by: &KeyUser,
        key: &KeyId,
        project: &ProjectId,
    ) -> KeyResult<Option<bool>> {
        let (mut silent, mut refusal) = (false, KeyFault::Missing);
        for service in self.all()? {
            match service.lets_read(by, key, project).await {
                Ok(None) => silent = true,
                Ok(known) => return Ok(known),
                Err(KeyFault::Missing) => {}
                Err(fault) if matches!(refusal, KeyFault::Missing) => refusal = fault,
                Err(_) => {}
            }
        }
        if silent { Ok(None) } else { Err(refusal) }
    }

    async fn wrap(&self, master: &MasterKey, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
        let place = match master {
            MasterKey::Service => CustomersKeys::Embedded,
            MasterKey::Customer(..) => self.chosen,
        };
        self.at(place)?.wrap(master, blob, key).await
    }

    async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        let place = CustomersKeys::of(wrapped).ok_or_else(|| -> KeyFault {
            // Of a later version, perhaps. That it is damaged, nobody knows.
            let error: Error =
                unusable("a data key was wrapped by a key service that is not known");
            error.into()
        })?;
        self.at(place)?.unwrap(blob, wrapped).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ScriptedKeys, ServiceKey, SystemEntropy, Wrong};
    use calotype_core::ErrorKind;
    use calotype_core::keys::Authority;

    /// A key service whose keys have names with a prefix, as the real ones'.
    struct Prefixed(&'static str, ScriptedKeys);

    #[async_trait::async_trait]
    impl KeyService for Prefixed {
        async fn check(&self, user: &KeyUser, key: &KeyId, purpose: KeyPurpose) -> KeyResult<()> {
            self.1.check(user, key, purpose).await
        }

        async fn is_own(&self, user: &KeyUser, key: &KeyId) -> KeyResult<Option<bool>> {
            self.1.is_own(user, key).await
        }

        async fn wrap(
            &self,
            master: &MasterKey,
            blob: BlobId,
            key: &DataKey,
        ) -> KeyResult<WrappedKey> {
            let wrapped = self.1.wrap(master, blob, key).await?;
            Ok(WrappedKey {
                master_key: format!("{}{}", self.0, wrapped.master_key),
                ..wrapped
            })
        }

        async fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
            let name = wrapped.master_key.strip_prefix(self.0).unwrap().to_owned();
            let own = WrappedKey {
                master_key: name,
                ..wrapped.clone()
            };
            self.1.unwrap(blob, &own).await
        }
    }

    fn at(prefix: &'static str, missing: &[&str]) -> Arc<dyn KeyService> {
        let keys = ScriptedKeys::new(Arc::new(SystemEntropy::new()));
        for key in missing {
            keys.set(key, Some(Wrong::Missing));
        }
        Arc::new(Prefixed(prefix, keys))
    }

    fn embedded() -> Arc<dyn KeyService> {
        let entropy = Arc::new(SystemEntropy::new());
        Arc::new(ServiceKey::from_hex(&"07".repeat(32), entropy).unwrap())
    }

    fn user() -> KeyUser {
        KeyUser {
            project: "p1".parse().unwrap(),
            user: "u1".parse().unwrap(),
            authority: Authority::Job,
        }
    }

    fn id(text: &str) -> KeyId {
        text.parse().unwrap()
    }

    fn customer() -> MasterKey {
        MasterKey::Customer(id("k1"), user())
    }

    fn blob() -> BlobId {
        BlobId::random(&SystemEntropy::new())
    }

    #[tokio::test]
    async fn a_wrap_opens_where_it_was_made_whatever_is_chosen_now() {
        let key = DataKey::new([5; 32]);
        let services = || {
            KeyServices::new(embedded())
                .with_kms(at("kms:", &[]))
                .with_barbican(at("barbican:", &[]))
        };
        let blob = blob();
        for (chosen, prefix) in [
            (CustomersKeys::Kms, "kms:k1"),
            (CustomersKeys::Barbican, "barbican:k1"),
        ] {
            let then = services().choosing(chosen);
            let wrapped = then.wrap(&customer(), blob, &key).await.unwrap();
            assert_eq!(wrapped.master_key, prefix);
            let own = then.wrap(&MasterKey::Service, blob, &key).await.unwrap();
            assert_eq!(own.master_key, "service");
            for now in [
                CustomersKeys::Embedded,
                CustomersKeys::Kms,
                CustomersKeys::Barbican,
            ] {
                let now = services().choosing(now);
                for wrapped in [&wrapped, &own] {
                    let opened = now.unwrap(blob, wrapped).await.unwrap();
                    assert_eq!(opened.expose(), key.expose());
                }
            }
        }
    }

    #[tokio::test]
    async fn a_wrap_of_a_key_service_that_is_not_configured_is_not_damaged() {
        let with = KeyServices::new(embedded())
            .with_kms(at("kms:", &[]))
            .choosing(CustomersKeys::Kms);
        let (blob, key) = (blob(), DataKey::new([5; 32]));
        let wrapped = with.wrap(&customer(), blob, &key).await.unwrap();
        let without = KeyServices::new(embedded());
        for (master_key, named) in [(wrapped.master_key.as_str(), "otc"), ("vault:k1", "known")] {
            let wrapped = WrappedKey {
                master_key: master_key.to_owned(),
                ..wrapped.clone()
            };
            let Err(KeyFault::Failed(error)) = without.unwrap(blob, &wrapped).await else {
                panic!("{master_key}");
            };
            assert!(matches!(error.kind(), ErrorKind::Unavailable { .. }));
            assert!(error.chain().contains(named), "{}", error.chain());
            assert!(!error.message().contains(named));
        }
    }

    #[tokio::test]
    async fn to_open_a_key_is_looked_for_everywhere_and_to_seal_where_new_ones_are() {
        let services = KeyServices::new(embedded())
            .with_kms(at("kms:", &["new"]))
            .with_barbican(at("barbican:", &["old"]))
            .choosing(CustomersKeys::Barbican);
        let check = async |key, purpose| services.check(&user(), &id(key), purpose).await;
        assert!(check("old", KeyPurpose::Open).await.is_ok());
        assert!(check("new", KeyPurpose::Open).await.is_ok());
        assert!(check("new", KeyPurpose::Seal).await.is_ok());
        let refused = check("old", KeyPurpose::Seal).await;
        assert!(matches!(refused, Err(KeyFault::Missing)));
    }

    #[tokio::test]
    async fn a_key_that_is_nowhere_is_missing_and_one_that_may_be_away_is_not() {
        let nowhere = KeyServices::new(embedded()).with_kms(at("kms:", &["k1"]));
        let refused = nowhere.check(&user(), &id("k1"), KeyPurpose::Open).await;
        assert!(matches!(refused, Err(KeyFault::Missing)));

        let away = ScriptedKeys::new(Arc::new(SystemEntropy::new()));
        away.set("k1", Some(Wrong::Away));
        let services = KeyServices::new(embedded()).with_kms(Arc::new(away));
        let refused = services.check(&user(), &id("k1"), KeyPurpose::Open).await;
        assert!(matches!(refused, Err(KeyFault::Failed(_))));
    }
}
