//! Customers' keys at work for images: who may use which, when it ends, and what opens what.

use std::time::Duration;

use calotype_core::app::Call;
use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{Authority, KeyFault, KeyPurpose, KeyUser, MasterKey};
use calotype_core::master_key::{GranteeType, KeyChange, KeyOperation, MasterKeyRecord};
use calotype_core::ports::{
    DataKey, Directory as _, DomainRecord, KeyService as _, MasterKeys as _, Reconcile as _,
    UserRecord, WrappedKey,
};
use calotype_core::{Error, ErrorKind};
use calotype_keys::{EmbeddedKeys, SystemEntropy};

use crate::world::{DAY, World, call, change, grant, make_key, member};

fn user(call: &Call) -> KeyUser {
    KeyUser {
        project: call.principal.project().unwrap().clone(),
        user: call.principal.user.id.clone(),
        authority: Authority::Signed,
    }
}

fn cmk(key: &MasterKeyRecord) -> KeyId {
    key.id.to_string().parse().unwrap()
}

/// What a check says: `ok`, or the fault's name.
async fn checked(keys: &EmbeddedKeys, by: &Call, key: &str, purpose: KeyPurpose) -> &'static str {
    let key: KeyId = key.parse().unwrap();
    name(keys.check(&user(by), &key, purpose).await)
}

fn name<T>(result: Result<T, KeyFault>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(KeyFault::Missing) => "missing",
        Err(KeyFault::NotEnabled) => "not enabled",
        Err(KeyFault::Forbidden) => "forbidden",
        Err(KeyFault::Throttled { .. }) => "throttled",
        Err(KeyFault::Failed(error)) if error.kind() == ErrorKind::Damaged => "damaged",
        Err(KeyFault::Failed(error)) => panic!("{error:?}"),
    }
}

struct Wrapped {
    blob: BlobId,
    key: DataKey,
    wrapped: WrappedKey,
}

async fn wrap(keys: &EmbeddedKeys, by: &Call, key: &MasterKeyRecord) -> Wrapped {
    let entropy = SystemEntropy::new();
    let (blob, data_key) = (BlobId::random(&entropy), DataKey::random(&entropy));
    let master = MasterKey::Customer(cmk(key), user(by));
    let wrapped = keys.wrap(&master, blob, &data_key).await.unwrap();
    Wrapped {
        blob,
        key: data_key,
        wrapped,
    }
}

async fn opened(keys: &EmbeddedKeys, wrapped: &Wrapped) -> &'static str {
    let opened = keys.unwrap(wrapped.blob, &wrapped.wrapped).await;
    if let Ok(key) = &opened {
        assert_eq!(key.expose(), wrapped.key.expose());
    }
    name(opened)
}

#[tokio::test]
async fn a_wrap_under_a_customers_key_that_was_changed_opens_nothing() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let by = member("u1", "p1");
    let key = make_key(&keys, &by, "k1").await;
    let other = make_key(&keys, &by, "k2").await;
    let whole = wrap(&keys, &by, &key).await;
    let elsewhere = wrap(&keys, &by, &other).await;
    assert_eq!(opened(&keys, &whole).await, "ok");
    let mut wrong = vec![(elsewhere.blob, whole.wrapped.clone())];
    let mut under_other = whole.wrapped.clone();
    under_other
        .master_key
        .clone_from(&elsewhere.wrapped.master_key);
    wrong.push((whole.blob, under_other));
    for bit in 0..whole.wrapped.sealed.len() * 8 {
        let mut flipped = whole.wrapped.clone();
        flipped.sealed[bit / 8] ^= 1 << (bit % 8);
        wrong.push((whole.blob, flipped));
    }
    for length in 0..whole.wrapped.sealed.len() {
        let mut cut = whole.wrapped.clone();
        cut.sealed.truncate(length);
        wrong.push((whole.blob, cut));
    }
    for (blob, wrapped) in wrong {
        assert_eq!(name(keys.unwrap(blob, &wrapped).await), "damaged");
    }
}

#[tokio::test]
async fn a_key_is_missing_not_enabled_or_forbidden_in_this_order() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let (owner, stranger) = (member("u1", "p1"), member("u2", "p2"));
    let key = make_key(&keys, &owner, "a").await;
    let id = key.id.to_string();
    for purpose in [KeyPurpose::Seal, KeyPurpose::Open] {
        for missing in [
            "0d0466b0-e727-4d9c-b35d-f84bb474a37f",
            &id.to_uppercase(),
            &id.replace('-', ""),
            "k1",
        ] {
            assert_eq!(checked(&keys, &owner, missing, purpose).await, "missing");
        }
        assert_eq!(checked(&keys, &owner, &id, purpose).await, "ok");
        assert_eq!(checked(&keys, &stranger, &id, purpose).await, "forbidden");
    }
    let own = keys.is_own(&user(&owner), &cmk(&key)).await.unwrap();
    assert_eq!(own, Some(true));
    let own = keys.is_own(&user(&stranger), &cmk(&key)).await.unwrap();
    assert_eq!(own, Some(false));
    for state in [KeyChange::Disable, KeyChange::ScheduleDeletion(7)] {
        change(&keys, &owner, &key, state).await.unwrap();
        for by in [&owner, &stranger] {
            assert_eq!(
                checked(&keys, by, &id, KeyPurpose::Open).await,
                "not enabled"
            );
        }
        let master = MasterKey::Customer(cmk(&key), user(&owner));
        let blob = BlobId::random(&SystemEntropy::new());
        let refused = keys.wrap(&master, blob, &DataKey::new([1; 32])).await;
        assert_eq!(name(refused), "not enabled");
    }
}

#[tokio::test]
async fn a_grant_lets_a_user_or_a_domain_do_what_it_says_until_it_is_taken_away() {
    use KeyOperation::{
        CreateDataKey, CreateDataKeyWithoutPlaintext, DecryptDataKey, DescribeKey, EncryptDataKey,
    };
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    for domain in ["default", "d2"] {
        let record = DomainRecord {
            id: domain.parse().unwrap(),
            name: domain.to_owned(),
            enabled: true,
        };
        world.catalog.insert_domain(&record).await.unwrap();
    }
    let record = UserRecord {
        id: "u3".parse().unwrap(),
        domain: "d2".parse().unwrap(),
        name: "u3".to_owned(),
        password_hash: None,
        default_project: None,
        enabled: true,
    };
    world.catalog.insert_user(&record, None).await.unwrap();
    let owner = member("u1", "p1");
    let (other, in_domain) = (member("u2", "p2"), member("u3", "p3"));
    let key = make_key(&keys, &owner, "a").await;
    let id = key.id.to_string();
    let both = async |by: &Call| {
        (
            checked(&keys, by, &id, KeyPurpose::Seal).await,
            checked(&keys, by, &id, KeyPurpose::Open).await,
        )
    };
    let to = (GranteeType::User, "u2");
    for (operations, seal, open) in [
        (&[DescribeKey][..], "forbidden", "forbidden"),
        (&[DecryptDataKey, EncryptDataKey], "forbidden", "forbidden"),
        (&[DescribeKey, DecryptDataKey], "forbidden", "ok"),
        (&[DescribeKey, EncryptDataKey], "ok", "forbidden"),
        (&[DescribeKey, CreateDataKey], "ok", "forbidden"),
        (
            &[DescribeKey, CreateDataKeyWithoutPlaintext],
            "ok",
            "forbidden",
        ),
    ] {
        let made = grant(&keys, &owner, &key, to, operations).await.unwrap();
        assert_eq!(both(&other).await, (seal, open), "{operations:?}");
        assert_eq!(both(&in_domain).await, ("forbidden", "forbidden"));
        let line = owner.event(key.created_at, "x", "kms", key.id, serde_json::json!({}));
        assert!(world.catalog.remove_grant(&made, &line).await.unwrap());
        assert_eq!(both(&other).await, ("forbidden", "forbidden"));
    }
    // Of several grants the rights add up, and a domain's are its users'.
    grant(&keys, &owner, &key, to, &[DescribeKey])
        .await
        .unwrap();
    grant(&keys, &owner, &key, to, &[DecryptDataKey])
        .await
        .unwrap();
    assert_eq!(both(&other).await, ("forbidden", "ok"));
    let domain = (GranteeType::Domain, "d2");
    let all = [DescribeKey, EncryptDataKey, DecryptDataKey];
    grant(&keys, &owner, &key, domain, &all).await.unwrap();
    assert_eq!(both(&in_domain).await, ("ok", "ok"));
    let wrapped = wrap(&keys, &in_domain, &key).await;
    assert_eq!(opened(&keys, &wrapped).await, "ok");
}

#[tokio::test]
async fn what_is_wrapped_opens_for_its_blob_under_its_key_and_version_only() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let (key, other) = (
        make_key(&keys, &owner, "a").await,
        make_key(&keys, &owner, "b").await,
    );
    let wrapped = wrap(&keys, &owner, &key).await;
    assert_eq!(wrapped.wrapped.master_key, format!("key:{}", key.id));
    assert_eq!(opened(&keys, &wrapped).await, "ok");
    assert_eq!(
        opened(&world.open_file().await.unwrap(), &wrapped).await,
        "ok"
    );
    let damaged = async |blob: BlobId, wrapped: &WrappedKey| {
        assert_eq!(name(keys.unwrap(blob, wrapped).await), "damaged");
    };
    let strange = BlobId::random(&SystemEntropy::new());
    damaged(strange, &wrapped.wrapped).await;
    for (master_key, version) in [
        (format!("key:{}", other.id), 1),
        (format!("key:{}", key.id), 2),
        ("service".to_owned(), 1),
        ("secrets".to_owned(), 1),
        ("key:x".to_owned(), 1),
        (format!("key:{}", key.id.to_string().to_uppercase()), 1),
        (key.id.to_string(), 1),
    ] {
        let changed = WrappedKey {
            master_key,
            version,
            ..wrapped.wrapped.clone()
        };
        damaged(wrapped.blob, &changed).await;
    }
    for byte in 0..wrapped.wrapped.sealed.len() {
        let mut changed = wrapped.wrapped.clone();
        changed.sealed[byte] ^= 1;
        damaged(wrapped.blob, &changed).await;
    }
}

#[tokio::test]
async fn a_disabled_key_opens_nothing_at_once_and_an_enabled_one_opens_it_again() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let other_node = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let wrapped = wrap(&keys, &owner, &key).await;
    // Both have its material at hand.
    for keys in [&keys, &other_node] {
        assert_eq!(opened(keys, &wrapped).await, "ok");
    }
    for (state, wanted) in [
        (KeyChange::Disable, "not enabled"),
        (KeyChange::Enable, "ok"),
        (KeyChange::ScheduleDeletion(7), "not enabled"),
        (KeyChange::CancelDeletion, "not enabled"),
        (KeyChange::Enable, "ok"),
    ] {
        change(&keys, &owner, &key, state.clone()).await.unwrap();
        for keys in [&keys, &other_node] {
            assert_eq!(opened(keys, &wrapped).await, wanted, "{state:?}");
        }
    }
}

#[tokio::test]
async fn a_key_whose_time_is_over_is_gone_with_all_that_it_wrapped() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let wrapped = wrap(&keys, &owner, &key).await;
    let days = KeyChange::ScheduleDeletion(7);
    change(&keys, &owner, &key, days).await.unwrap();
    world.advance(7 * DAY - Duration::from_secs(1));
    assert_eq!(world.catalog.purge_expired().await.unwrap(), 0);
    assert_eq!(opened(&keys, &wrapped).await, "not enabled");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.catalog.purge_expired().await.unwrap(), 1);
    let id = key.id.to_string();
    assert_eq!(opened(&keys, &wrapped).await, "missing");
    assert_eq!(
        checked(&keys, &owner, &id, KeyPurpose::Open).await,
        "missing"
    );
    let cancelled = change(&keys, &owner, &key, KeyChange::CancelDeletion).await;
    assert_eq!(cancelled.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn versions_come_by_hand_and_by_themselves_and_all_of_them_open() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let other_node = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let mut all = vec![wrap(&keys, &owner, &key).await];
    let permitted = keys
        .permit(&owner, calotype_core::access::Action::RotationUpdate)
        .unwrap();
    let id = calotype_keys::kms::KeyRef::Id(key.id);
    let (one, two) = tokio::join!(
        keys.rotate_key(&permitted, &id),
        other_node.rotate_key(&permitted, &id)
    );
    let mut versions = [one.unwrap().version, two.unwrap().version];
    versions.sort_unstable();
    assert_eq!(versions, [2, 3]);
    all.push(wrap(&other_node, &owner, &key).await);

    change(&keys, &owner, &key, KeyChange::EnableRotation)
        .await
        .unwrap();
    change(&keys, &owner, &key, KeyChange::RotationDays(30))
        .await
        .unwrap();
    keys.upkeep().await.unwrap();
    world.advance(30 * DAY);
    // Every node looks, and one rotates.
    let (one, two) = tokio::join!(keys.upkeep(), other_node.upkeep());
    one.and(two).unwrap();
    all.push(wrap(&keys, &owner, &key).await);
    let versions: Vec<_> = all.iter().map(|wrap| wrap.wrapped.version).collect();
    assert_eq!(versions, [1, 3, 4]);
    for keys in [&keys, &other_node, &world.open_file().await.unwrap()] {
        for wrapped in &all {
            assert_eq!(opened(keys, wrapped).await, "ok");
        }
    }
}

#[tokio::test]
async fn customers_keys_outlive_the_root_key_that_they_were_made_under() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let other_node = world.open_file().await.unwrap();
    let (owner, admin) = (member("u1", "p1"), call("u9", "p9", &["admin"]));
    let mut all = Vec::new();
    // More than one step of rewrapping.
    for number in 0..70 {
        let key = make_key(&keys, &owner, &format!("k{number}")).await;
        all.push(wrap(&keys, &owner, &key).await);
    }
    keys.rotate_root(&admin).await.unwrap();
    // A node that has not heard of it reads the file again.
    let late = make_key(&other_node, &owner, "late").await;
    all.push(wrap(&other_node, &owner, &late).await);
    let status = keys.root_status(&admin).await.unwrap();
    assert_eq!(status.roots[0].record.versions, 1);
    keys.upkeep().await.unwrap();
    keys.retire_roots(&admin).await.unwrap();
    world.advance(Duration::from_secs(301));
    for keys in [&keys, &other_node, &world.open_file().await.unwrap()] {
        for wrapped in &all {
            assert_eq!(opened(keys, wrapped).await, "ok");
        }
    }
    let status = keys.root_status(&admin).await.unwrap();
    assert_eq!(status.roots[0].record.versions, 73);
}

#[tokio::test]
async fn a_node_without_the_new_root_key_is_unavailable_and_calls_nothing_damaged() {
    use crate::world::environment;
    let (old, new) = ("0a".repeat(32), "b1".repeat(32));
    let world = World::new().await;
    let stale = world.open(environment(&old)).await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&stale, &owner, "a").await;
    let wrapped = wrap(&stale, &owner, &key).await;
    let keys = world.open(environment(&format!("{new} {old}"))).await;
    keys.unwrap().upkeep().await.unwrap();
    // What it remembers it opens, for as long as it may.
    assert_eq!(opened(&stale, &wrapped).await, "ok");
    world.advance(Duration::from_secs(301));
    let fault = stale.unwrap(wrapped.blob, &wrapped.wrapped).await;
    let error = Error::from(fault.map(drop).unwrap_err());
    assert!(error.is_transient(), "{error:?}");
}
