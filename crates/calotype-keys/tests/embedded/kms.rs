//! The use cases of the KMS API.

use calotype_core::access::Action;
use calotype_core::app::Call;
use calotype_core::codes::KmsCode;
use calotype_core::id::MasterKeyId;
use calotype_core::master_key::{GranteeType, KeyChange, KeyOperation, MasterKeyRecord};
use calotype_core::ports::{Ledger as _, TagChange, Window};
use calotype_core::{ErrorKind, Result};
use calotype_keys::EmbeddedKeys;
use calotype_keys::kms::{Context, KeyRef, TagFilter};
use serde_json::json;

use crate::world::{World, assert_code, call, change, grant, make_key, member};

const ALL: Window = Window {
    offset: 0,
    limit: 1000,
};

async fn encrypt(
    keys: &EmbeddedKeys,
    by: &Call,
    key: &MasterKeyRecord,
    context: &Context,
    plain: &[u8],
) -> Result<Vec<u8>> {
    let permitted = keys.permit(by, Action::DataKeysOpen).unwrap();
    let id = KeyRef::Id(key.id);
    let made = keys.encrypt_data_key(&permitted, &id, context, plain);
    made.await.map(|(_, cipher)| cipher)
}

async fn decrypt(
    keys: &EmbeddedKeys,
    by: &Call,
    key: &MasterKeyRecord,
    context: &Context,
    cipher: &[u8],
) -> Result<Vec<u8>> {
    let permitted = keys.permit(by, Action::DataKeysOpen).unwrap();
    let id = KeyRef::Id(key.id);
    let plain = keys.decrypt_data_key(&permitted, &id, context, cipher);
    plain.await.map(|plain| plain.to_vec())
}

#[tokio::test]
async fn a_cipher_text_opens_under_its_key_in_its_context_and_nowhere_else() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let (key, other) = (
        make_key(&keys, &owner, "a").await,
        make_key(&keys, &owner, "b").await,
    );
    let context = Context::parse(Some(&json!({"a": "1"})), None).unwrap();
    for plain in [&[0; 64][..], b"x", &[7; 1024]] {
        let cipher = encrypt(&keys, &owner, &key, &context, plain).await.unwrap();
        let opened = decrypt(&keys, &owner, &key, &context, &cipher).await;
        assert_eq!(opened.unwrap(), plain);
        let wrong = Context::parse(Some(&json!({"a": "2"})), None).unwrap();
        for context in [&wrong, &Context::None, &Context::Additional("a".to_owned())] {
            let refused = decrypt(&keys, &owner, &key, context, &cipher).await;
            assert_code(refused, KmsCode::KMS_2201);
        }
        let refused = decrypt(&keys, &owner, &other, &context, &cipher).await;
        assert_code(refused, KmsCode::KMS_2201);
    }
    let cipher = encrypt(&keys, &owner, &key, &context, &[9; 64])
        .await
        .unwrap();
    assert_eq!(cipher.len(), 1 + 16 + 4 + 1 + 32 + 64 + 16);
    for byte in 0..cipher.len() {
        let mut flipped = cipher.clone();
        flipped[byte] ^= 0x10;
        let refused = decrypt(&keys, &owner, &key, &context, &flipped).await;
        assert_code(refused, KmsCode::KMS_2201);
        let refused = decrypt(&keys, &owner, &key, &context, &cipher[..byte]).await;
        assert_code(refused, KmsCode::KMS_2201);
    }
    // A data key is no data, and the other way round.
    let permitted = keys.permit(&owner, Action::DataCrypto).unwrap();
    let refused = keys.decrypt_data(&permitted, None, &context, &cipher).await;
    assert_code(refused, KmsCode::KMS_2201);
    let id = KeyRef::Id(key.id);
    let made = keys.encrypt_data(&permitted, &id, &context, b"text").await;
    let (_, data) = made.unwrap();
    let refused = decrypt(&keys, &owner, &key, &context, &data).await;
    assert_code(refused, KmsCode::KMS_2201);
    for named in [None, Some(&id)] {
        let opened = keys.decrypt_data(&permitted, named, &context, &data).await;
        let (found, plain) = opened.unwrap();
        assert_eq!((found, plain.as_slice()), (key.id, &b"text"[..]));
    }
    let wrong = KeyRef::Id(other.id);
    let refused = keys.decrypt_data(&permitted, Some(&wrong), &context, &data);
    assert_code(refused.await, KmsCode::KMS_2201);
}

#[tokio::test]
async fn cipher_texts_outlive_rotations_and_no_disabled_key_opens_them() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let none = Context::None;
    let first = encrypt(&keys, &owner, &key, &none, b"first").await.unwrap();
    let permitted = keys.permit(&owner, Action::RotationUpdate).unwrap();
    let id = KeyRef::Id(key.id);
    keys.rotate_key(&permitted, &id).await.unwrap();
    let second = encrypt(&keys, &owner, &key, &none, b"second")
        .await
        .unwrap();
    assert_ne!(first[17..21], second[17..21], "each names its version");
    for (cipher, plain) in [(&first, "first"), (&second, "second")] {
        let opened = decrypt(&keys, &owner, &key, &none, cipher).await.unwrap();
        assert_eq!(opened, plain.as_bytes());
    }
    for (state, code) in [
        (KeyChange::Disable, KmsCode::KMS_0209),
        (KeyChange::ScheduleDeletion(7), KmsCode::KMS_0210),
    ] {
        change(&keys, &owner, &key, state).await.unwrap();
        assert_code(encrypt(&keys, &owner, &key, &none, b"x").await, code);
        assert_code(decrypt(&keys, &owner, &key, &none, &first).await, code);
        let permitted = keys.permit(&owner, Action::DataKeysSeal).unwrap();
        let made = keys.create_data_key(&permitted, &id, 64, &none, true).await;
        assert_code(made, code);
        let permitted = keys.permit(&owner, Action::RotationUpdate).unwrap();
        assert_code(keys.rotate_key(&permitted, &id).await, code);
    }
}

#[tokio::test]
async fn a_data_key_is_shown_to_who_may_see_it_and_opens_as_itself() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let (owner, other) = (member("u1", "p1"), member("u2", "p2"));
    let key = make_key(&keys, &owner, "a").await;
    let id = KeyRef::Id(key.id);
    let make = async |by: &Call, visible| {
        let permitted = keys.permit(by, Action::DataKeysSeal).unwrap();
        keys.create_data_key(&permitted, &id, 64, &Context::None, visible)
            .await
    };
    let made = make(&owner, true).await.unwrap();
    let plain = made.plain.unwrap();
    let opened = decrypt(&keys, &owner, &key, &Context::None, &made.cipher).await;
    assert_eq!(opened.unwrap(), *plain);
    let hidden = make(&owner, false).await.unwrap();
    assert!(hidden.plain.is_none());
    let opened = decrypt(&keys, &owner, &key, &Context::None, &hidden.cipher).await;
    assert_ne!(opened.unwrap(), *plain);

    let to = (GranteeType::User, "u2");
    let only = [KeyOperation::CreateDataKeyWithoutPlaintext];
    grant(&keys, &owner, &key, to, &only).await.unwrap();
    assert_code(make(&other, true).await, KmsCode::KMS_0306);
    make(&other, false).await.unwrap();
    let refused = decrypt(&keys, &other, &key, &Context::None, &hidden.cipher).await;
    assert_code(refused, KmsCode::KMS_0306);
}

#[tokio::test]
async fn who_is_not_permitted_gets_no_proof_and_a_proof_is_for_one_action() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let reader = call("u1", "p1", &["reader"]);
    assert_code(keys.permit(&reader, Action::KeysCreate), KmsCode::KMS_0307);
    keys.permit(&reader, Action::KeysList).unwrap();
    let mut unscoped = member("u1", "p1");
    unscoped.principal.scope = calotype_core::access::Scope::System;
    assert_code(keys.permit(&unscoped, Action::KeysList), KmsCode::KMS_0321);
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let wrong = keys.permit(&owner, Action::KeysList).unwrap();
    let refused = keys.describe_key(&wrong, &KeyRef::Id(key.id)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn another_projects_key_is_there_and_is_not_the_callers() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let (owner, other) = (member("u1", "p1"), member("u2", "p2"));
    let key = make_key(&keys, &owner, "a").await;
    for state in [
        KeyChange::Enable,
        KeyChange::Disable,
        KeyChange::ScheduleDeletion(7),
        KeyChange::CancelDeletion,
        KeyChange::Alias("b".parse().unwrap()),
        KeyChange::EnableRotation,
    ] {
        assert_code(change(&keys, &other, &key, state).await, KmsCode::KMS_0306);
    }
    let describe = async |by: &Call, key: KeyRef| {
        let permitted = keys.permit(by, Action::KeysGet).unwrap();
        keys.describe_key(&permitted, &key).await
    };
    let id = KeyRef::Id(key.id);
    assert_code(describe(&other, id.clone()).await, KmsCode::KMS_0306);
    let unknown = MasterKeyId::from(uuid::Uuid::from_u128(1));
    for missing in [
        KeyRef::Id(unknown),
        KeyRef::Foreign,
        KeyRef::Alias("a".to_owned()),
    ] {
        assert_code(describe(&other, missing).await, KmsCode::KMS_0207);
    }
    let alias = KeyRef::Alias("a".to_owned());
    assert_eq!(describe(&owner, alias).await.unwrap(), key);
    let to = (GranteeType::User, "u2");
    grant(&keys, &owner, &key, to, &[KeyOperation::DescribeKey])
        .await
        .unwrap();
    assert_eq!(describe(&other, id).await.unwrap(), key);
    let permitted = keys.permit(&other, Action::KeysList).unwrap();
    let listed = keys.list_keys(&permitted, None, ALL).await.unwrap();
    assert_eq!(listed.total, 0, "granted keys are in no list");
}

#[tokio::test]
async fn who_may_pass_a_grant_on_passes_on_what_it_has_and_no_more() {
    use KeyOperation::{CreateGrant, DecryptDataKey, DescribeKey, EncryptDataKey, RetireGrant};
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let (owner, middle, last) = (member("u1", "p1"), member("u2", "p2"), member("u3", "p3"));
    let key = make_key(&keys, &owner, "a").await;
    let (to_middle, to_last) = ((GranteeType::User, "u2"), (GranteeType::User, "u3"));
    let none = grant(&keys, &middle, &key, to_last, &[DescribeKey]).await;
    assert_code(none, KmsCode::KMS_0306);
    let some = [CreateGrant, DescribeKey, DecryptDataKey];
    let first = grant(&keys, &owner, &key, to_middle, &some).await.unwrap();
    let more = grant(&keys, &middle, &key, to_last, &[EncryptDataKey]).await;
    assert_code(more, KmsCode::KMS_0306);
    let second = grant(&keys, &middle, &key, to_last, &[DescribeKey]).await;
    let second = second.unwrap();

    let id = KeyRef::Id(key.id);
    let listed = async |by: &Call| {
        let permitted = keys.permit(by, Action::GrantsList).unwrap();
        let page = keys.list_grants(&permitted, &id, ALL).await;
        page.map(|page| page.total)
    };
    assert_eq!(listed(&owner).await.unwrap(), 2);
    assert_eq!(listed(&middle).await.unwrap(), 2);
    assert_code(listed(&last).await, KmsCode::KMS_0306);

    let revoke = async |by: &Call, grant| {
        let permitted = keys.permit(by, Action::GrantsRevoke).unwrap();
        keys.revoke_grant(&permitted, &id, grant).await
    };
    let retire = async |by: &Call, grant| {
        let permitted = keys.permit(by, Action::GrantsRetire).unwrap();
        keys.retire_grant(&permitted, &id, grant).await
    };
    assert_code(revoke(&middle, &second).await, KmsCode::KMS_0306);
    // The grantee may not, without retire-grant; the issuer may.
    assert_code(retire(&last, &second).await, KmsCode::KMS_0306);
    assert_code(retire(&owner, &second).await, KmsCode::KMS_0306);
    revoke(&owner, &first).await.unwrap();
    assert_code(revoke(&owner, &first).await, KmsCode::KMS_2501);
    let permitted = keys.permit(&last, Action::KeysGet).unwrap();
    keys.describe_key(&permitted, &id)
        .await
        .expect("it outlives the grant that it came from");
    retire(&middle, &second).await.unwrap();
    assert_eq!(listed(&owner).await.unwrap(), 0);

    let own = grant(&keys, &owner, &key, to_last, &[DescribeKey, RetireGrant]).await;
    let own = own.unwrap();
    let other = make_key(&keys, &owner, "b").await;
    let permitted = keys.permit(&owner, Action::GrantsRevoke).unwrap();
    let other = KeyRef::Id(other.id);
    let elsewhere = keys.revoke_grant(&permitted, &other, &own);
    assert_code(elsewhere.await, KmsCode::KMS_2502);
    retire(&last, &own).await.unwrap();
}

#[tokio::test]
async fn keys_are_found_by_their_tags_and_names() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let mut made = Vec::new();
    for (alias, tags) in [
        ("disk-one", &[("env", "test"), ("team", "a")][..]),
        ("disk-two", &[("env", "prod")]),
        ("other", &[]),
    ] {
        let key = make_key(&keys, &owner, alias).await;
        let permitted = keys.permit(&owner, Action::KeyTagsBatch).unwrap();
        let change = TagChange {
            set: tags
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            remove: Vec::new(),
        };
        let id = KeyRef::Id(key.id);
        let changed = keys.change_tags(&permitted, &id, &change);
        changed.await.unwrap();
        made.push(key.id);
    }
    let found = async |tags: &[(&str, &[&str])], names: &[&str]| {
        let owned = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        let filter = TagFilter {
            tags: tags
                .iter()
                .map(|(name, values)| ((*name).to_owned(), owned(values)))
                .collect(),
            names: owned(names),
        };
        let permitted = keys.permit(&owner, Action::KeyTagsFind).unwrap();
        let page = keys.find_keys(&permitted, &filter, ALL).await.unwrap();
        assert_eq!(page.total, page.items.len() as u64);
        let mut found: Vec<usize> = page
            .items
            .iter()
            .map(|tagged| made.iter().position(|id| *id == tagged.key.id).unwrap())
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(found(&[], &[]).await, [0, 1, 2]);
    assert_eq!(found(&[("env", &[])], &[]).await, [0, 1]);
    assert_eq!(found(&[("env", &["test", "x"])], &[]).await, [0]);
    assert_eq!(found(&[("env", &["test", "prod"])], &[]).await, [0, 1]);
    assert_eq!(found(&[("env", &[]), ("team", &["a"])], &[]).await, [0]);
    assert_eq!(found(&[], &["DISK"]).await, [0, 1]);
    assert_eq!(found(&[("env", &[])], &["two"]).await, [1]);
    let permitted = keys.permit(&owner, Action::KeyTagsList).unwrap();
    let tags = keys.project_tags(&permitted).await.unwrap();
    let tags: Vec<_> = tags
        .iter()
        .map(|(name, values)| (name.as_str(), values.len()))
        .collect();
    assert_eq!(tags, [("env", 2), ("team", 1)]);
    let permitted = keys.permit(&owner, Action::KeyTagsDelete).unwrap();
    let id = KeyRef::Id(made[0]);
    keys.delete_tag(&permitted, &id, "team".to_owned())
        .await
        .unwrap();
    let again = keys.delete_tag(&permitted, &id, "team".to_owned()).await;
    assert_code(again, KmsCode::KMS_0416);
}

#[tokio::test]
async fn every_change_and_every_use_is_in_the_audit_trail_with_the_clients_number() {
    let world = World::new().await;
    let keys = world.open_file().await.unwrap();
    let owner = member("u1", "p1");
    let key = make_key(&keys, &owner, "a").await;
    let cipher = encrypt(&keys, &owner, &key, &Context::None, &[0; 64]).await;
    let cipher = cipher.unwrap();
    decrypt(&keys, &owner, &key, &Context::None, &cipher)
        .await
        .unwrap();
    let refused = decrypt(&keys, &owner, &key, &Context::None, &cipher[1..]).await;
    assert_code(refused, KmsCode::KMS_2201);
    let permitted = keys.permit(&owner, Action::KeysDisable).unwrap();
    let permitted = permitted.with_sequence(Some("s1".to_owned()));
    keys.change_key(&permitted, &KeyRef::Id(key.id), &KeyChange::Disable)
        .await
        .unwrap();
    let trail = world.catalog.audit_trail(None, None, 9).await.unwrap();
    let lines: Vec<_> = trail
        .iter()
        .map(|(_, line)| {
            assert_eq!(line.resource_type, "kms");
            assert_eq!(line.resource_id, key.id.to_string());
            (line.trace.as_str(), line.detail.clone())
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("disableKey", json!({"sequence": "s1"})),
            ("decryptDataKey", json!({"version": 1})),
            ("encryptDataKey", json!({"version": 1})),
            ("createKey", json!({"alias": "a"})),
        ]
    );
}
