//! Master keys, the root keys that wrap them, grants and tags.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::KmsCode;
use calotype_core::id::EnterpriseProjectId;
use calotype_core::master_key::{GranteeType, KeyChange, KeyState, MasterKeyRecord};
use calotype_core::ports::{
    AuditEvent, Directory as _, DomainRecord, Ledger as _, Legacy, MasterKeys as _, Placed,
    ProjectRecord, Reconcile as _, TagChange, Window, WrappedMaterial,
};
use calotype_core::time::Timestamp;
use uuid::Uuid;

use crate::grants::grant;
use crate::world::{DAY, World, assert_kind, event, open, project, trail};

pub(crate) const ALL: Window = Window {
    offset: 0,
    limit: 100,
};
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// An enabled key of project `p1`, and its first version under the root key `r1`.
pub(crate) fn key(number: u128, alias: &str) -> (MasterKeyRecord, WrappedMaterial) {
    let id = Uuid::from_u128(number);
    let created_at = Timestamp::from_micros(DAY + i64::try_from(number).unwrap());
    let key = MasterKeyRecord {
        id: id.into(),
        project: project("p1"),
        domain: "default".parse().unwrap(),
        alias: alias.parse().unwrap(),
        description: "what for".to_owned(),
        realm: "eu-de".to_owned(),
        enterprise_project: EnterpriseProjectId::Default,
        state: KeyState::Enabled,
        version: 1,
        created_at,
        deletion_at: None,
        rotation: None,
        rotated_at: None,
        rotations: 0,
    };
    (key, material(&id.to_string(), 1, "r1"))
}

fn material(key: &str, version: u32, root: &str) -> WrappedMaterial {
    WrappedMaterial {
        key: key.to_owned(),
        version,
        root: root.to_owned(),
        wrapped: format!("{key} {version} under {root}").into_bytes(),
        created_at: Timestamp::from_micros(DAY),
    }
}

#[track_caller]
pub(crate) fn assert_code<T: std::fmt::Debug>(result: calotype_core::Result<T>, code: KmsCode) {
    assert_eq!(result.unwrap_err().kms_code(), Some(code));
}

impl World {
    /// With a root key, `r1`.
    pub(crate) async fn rooted(&self) {
        assert!(self.catalog.begin_root("r1", None).await.unwrap());
    }

    pub(crate) async fn make_key(&self, number: u128, alias: &str) -> MasterKeyRecord {
        let (key, material) = key(number, alias);
        let made = self
            .catalog
            .insert_master_key(&key, &material, 100, trail());
        assert_eq!(made.await.unwrap(), Placed::Done);
        key
    }

    pub(crate) async fn change(
        &self,
        key: &MasterKeyRecord,
        change: KeyChange,
    ) -> calotype_core::Result<MasterKeyRecord> {
        let line = event("changeKey");
        self.catalog.change_key(key.id, &change, &line).await
    }

    pub(crate) async fn lines(&self, trace: &str) -> usize {
        let trail = self.catalog.audit_trail(None, None, 1000).await.unwrap();
        trail.iter().filter(|(_, line)| line.trace == trace).count()
    }
}

pub(crate) async fn a_catalog_has_one_id(world: World) {
    let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(world.catalog.catalog_id(one).await.unwrap(), one);
    assert_eq!(world.catalog.catalog_id(other).await.unwrap(), one);
    let again = open(&world.url).await.unwrap();
    assert_eq!(again.catalog_id(other).await.unwrap(), one);
    assert_eq!(world.catalog.legacy().await.unwrap(), Legacy::default());
    world.active("p1", 1).await;
    assert!(world.catalog.legacy().await.unwrap().blobs);
}

pub(crate) async fn one_root_key_wraps_and_what_it_does_not_wrap_any_more_is_found(world: World) {
    let catalog = &world.catalog;
    let (first, wrapped) = key(1, "a");
    let early = catalog.insert_master_key(&first, &wrapped, 9, trail());
    assert_eq!(early.await.unwrap(), Placed::StaleRoot);
    world.rooted().await;
    assert!(!catalog.begin_root("r1", None).await.unwrap());
    world.make_key(1, "a").await;
    world.make_key(2, "b").await;
    assert_eq!(catalog.stale_material(9).await.unwrap(), []);

    let line = event("rotateRootKey");
    assert!(catalog.begin_root("r2", Some(&line)).await.unwrap());
    assert!(!catalog.begin_root("r1", Some(&line)).await.unwrap());
    assert_eq!(world.lines("rotateRootKey").await, 1);
    let roots = catalog.roots().await.unwrap();
    let roots: Vec<_> = roots
        .iter()
        .map(|root| (root.name.as_str(), root.current, root.versions))
        .collect();
    assert_eq!(roots, [("r2", true, 0), ("r1", false, 2)]);

    // A node that has not heard of it writes nothing.
    let (third, wrapped) = key(3, "c");
    let late = catalog.insert_master_key(&third, &wrapped, 9, trail());
    assert_eq!(late.await.unwrap(), Placed::StaleRoot);
    let next = material(&first.id.to_string(), 2, "r1");
    let added = catalog.add_version(&next, false, &event("rotateKey")).await;
    assert_eq!(added.unwrap(), Placed::StaleRoot);
    let own = [material("service", 1, "r1")];
    let own = catalog.insert_service_material(&own).await.unwrap();
    assert_eq!(own, Placed::StaleRoot);

    let stale = catalog.stale_material(9).await.unwrap();
    assert_eq!(stale.len(), 2);
    assert_eq!(catalog.stale_material(1).await.unwrap().len(), 1);
    let again: Vec<_> = stale
        .iter()
        .map(|old| ("r1".to_owned(), material(&old.key, old.version, "r2")))
        .collect();
    let back: Vec<_> = stale
        .iter()
        .map(|old| ("r1".to_owned(), old.clone()))
        .collect();
    assert_eq!(catalog.rewrap(&back).await.unwrap(), Placed::StaleRoot);
    assert_eq!(catalog.rewrap(&again).await.unwrap(), Placed::Done);
    assert_eq!(catalog.stale_material(9).await.unwrap(), []);
    let found = catalog.material(&stale[0].key, 1).await.unwrap().unwrap();
    assert_eq!(found, material(&stale[0].key, 1, "r2"));
    // Somebody else was first: theirs stays.
    let mut other = again[0].clone();
    other.1.wrapped = b"other".to_vec();
    assert_eq!(catalog.rewrap(&[other]).await.unwrap(), Placed::Done);
    assert_eq!(
        catalog.material(&stale[0].key, 1).await.unwrap(),
        Some(found)
    );
    assert_eq!(catalog.material(&stale[0].key, 2).await.unwrap(), None);
}

pub(crate) async fn a_root_key_is_retired_when_nothing_is_left_under_it(world: World) {
    let catalog = &world.catalog;
    let line = event("retireRootKey");
    world.rooted().await;
    let key = world.make_key(1, "a").await;
    assert_kind(catalog.retire_root("r1", &line).await, ErrorKind::Conflict);
    assert_kind(catalog.retire_root("r9", &line).await, ErrorKind::NotFound);
    assert!(catalog.begin_root("r2", None).await.unwrap());
    assert_kind(catalog.retire_root("r1", &line).await, ErrorKind::Conflict);
    let rewrapped = ("r1".to_owned(), material(&key.id.to_string(), 1, "r2"));
    assert_eq!(catalog.rewrap(&[rewrapped]).await.unwrap(), Placed::Done);
    for _ in 0..2 {
        catalog.retire_root("r1", &line).await.unwrap();
    }
    assert_eq!(world.lines("retireRootKey").await, 1);
    assert!(!catalog.begin_root("r1", None).await.unwrap());
    let roots = catalog.roots().await.unwrap();
    assert!(roots[0].current && roots[0].retired_at.is_none());
    assert!(roots[1].retired_at.is_some());
}

pub(crate) async fn the_services_keys_are_written_once(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    assert_eq!(catalog.service_material().await.unwrap(), []);
    let own = [
        material("secrets", 1, "r1"),
        material("service", 1, "r1"),
        material("service", 2, "r1"),
    ];
    let written = catalog.insert_service_material(&own).await.unwrap();
    assert_eq!(written, Placed::Done);
    let mut others = own.clone();
    others[0].wrapped = b"other".to_vec();
    let again = catalog.insert_service_material(&others).await.unwrap();
    assert_eq!(again, Placed::Superseded);
    world.make_key(1, "a").await;
    assert_eq!(catalog.service_material().await.unwrap(), own);
    // They are nobody's to see or to change.
    let listed = catalog.list_keys(&project("p1"), None, ALL).await.unwrap();
    assert_eq!(listed.total, 1);
    let line = event("rotateKey");
    let third = material("service", 3, "r1");
    let added = catalog.add_version(&third, false, &line).await.unwrap();
    assert_eq!(added, Placed::Superseded);
}

pub(crate) async fn a_key_comes_back_as_it_was_made_and_as_it_was_changed(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let user = "u9".parse().unwrap();
    let key = world.make_key(1, "a").await;
    let seen = catalog.seen_key(key.id, &user).await.unwrap().unwrap();
    assert_eq!((&seen.key, seen.granted.len()), (&key, 0));
    let state = catalog.key_state(key.id).await.unwrap();
    assert_eq!(state, Some((KeyState::Enabled, 1)));
    let id = key.id.to_string();
    assert_eq!(
        catalog.material(&id, 1).await.unwrap(),
        Some(material(&id, 1, "r1"))
    );
    let unknown = Uuid::from_u128(99).into();
    assert_eq!(catalog.seen_key(unknown, &user).await.unwrap(), None);
    assert_eq!(catalog.key_state(unknown).await.unwrap(), None);
    let line = event("x");
    let refused = catalog.change_key(unknown, &KeyChange::Enable, &line);
    assert_code(refused.await, KmsCode::KMS_0207);

    let newer = world.make_key(2, "b").await;
    let made = world.change(&key, KeyChange::Disable).await.unwrap();
    assert_eq!(made.state, KeyState::Disabled);
    assert_code(
        world.change(&key, KeyChange::Disable).await,
        KmsCode::KMS_1301,
    );
    for change in [
        KeyChange::Alias("c".parse().unwrap()),
        KeyChange::Description(String::new()),
        KeyChange::EnableRotation,
        KeyChange::RotationDays(30),
        KeyChange::ScheduleDeletion(7),
    ] {
        world.change(&key, change).await.unwrap();
    }
    let seen = catalog.seen_key(key.id, &user).await.unwrap().unwrap().key;
    let now = world.now().await;
    let left = seen.deletion_at.unwrap().since(now);
    assert!(left > 6 * A_DAY && left <= 7 * A_DAY, "{left:?}");
    assert_eq!(seen.alias.as_str(), "c");
    assert_eq!(seen.description, "");
    assert_eq!(seen.rotation.unwrap().days, 30);
    assert_eq!(world.lines("changeKey").await, 6, "refusals write none");

    let page = |state, offset, limit| {
        let window = Window { offset, limit };
        catalog.list_keys(&key.project, state, window)
    };
    let all = page(None, 0, 9).await.unwrap();
    assert_eq!(all.items, [newer.clone(), seen.clone()]);
    let second = page(None, 1, 1).await.unwrap();
    assert_eq!((second.items, second.total), (vec![seen.clone()], 2));
    let pending = page(Some(KeyState::PendingDeletion), 0, 9).await.unwrap();
    assert_eq!((pending.items, pending.total), (vec![seen], 1));
    let others = catalog.list_keys(&project("p2"), None, ALL).await.unwrap();
    assert_eq!(others.total, 0);
}

pub(crate) async fn an_alias_is_free_again_when_its_key_is_to_go(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let old = world.make_key(1, "a").await;
    let (second, wrapped) = key(2, "a");
    let taken = catalog.insert_master_key(&second, &wrapped, 100, trail());
    assert_code(taken.await, KmsCode::KMS_1104);
    world
        .change(&old, KeyChange::ScheduleDeletion(7))
        .await
        .unwrap();
    let by_alias = || catalog.key_by_alias(&old.project, "a");
    assert_eq!(by_alias().await.unwrap(), Some(old.id));
    let young = world.make_key(2, "a").await;
    assert_eq!(by_alias().await.unwrap(), Some(young.id));
    assert_code(
        world.change(&old, KeyChange::CancelDeletion).await,
        KmsCode::KMS_1104,
    );
    let third = world.make_key(3, "b").await;
    let alias = KeyChange::Alias("a".parse().unwrap());
    assert_code(world.change(&third, alias.clone()).await, KmsCode::KMS_1104);
    world.change(&young, alias).await.unwrap();
    world
        .change(&young, KeyChange::Alias("c".parse().unwrap()))
        .await
        .unwrap();
    world.change(&old, KeyChange::CancelDeletion).await.unwrap();
    assert_eq!(by_alias().await.unwrap(), Some(old.id));
    // Another project's aliases are its own.
    let (mut other, wrapped) = key(4, "a");
    other.project = project("p2");
    let made = catalog.insert_master_key(&other, &wrapped, 1, trail());
    assert_eq!(made.await.unwrap(), Placed::Done);
}

pub(crate) async fn a_new_version_wraps_and_the_old_ones_stay(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let key = world.make_key(1, "a").await;
    let id = key.id.to_string();
    let line = event("rotateKey");
    let add = async |version| {
        let material = material(&id, version, "r1");
        catalog.add_version(&material, false, &line).await.unwrap()
    };
    assert_eq!(add(3).await, Placed::Superseded);
    assert_eq!(add(2).await, Placed::Done);
    assert_eq!(add(2).await, Placed::Superseded);
    let state = catalog.key_state(key.id).await.unwrap();
    assert_eq!(state, Some((KeyState::Enabled, 2)));
    for version in [1, 2] {
        let found = catalog.material(&id, version).await.unwrap();
        assert_eq!(found, Some(material(&id, version, "r1")));
    }
    world.change(&key, KeyChange::Disable).await.unwrap();
    assert_eq!(add(3).await, Placed::Superseded);
    assert_eq!(world.lines("rotateKey").await, 1);
    let seen = catalog.seen_key(key.id, &"u1".parse().unwrap()).await;
    let seen = seen.unwrap().unwrap().key;
    assert_eq!(seen.rotations, 1);
    assert!(seen.rotated_at.is_some() && seen.rotation.is_none());
}

pub(crate) async fn keys_are_rotated_when_they_are_due(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let (due, young, off) = (
        world.make_key(1, "a").await,
        world.make_key(2, "b").await,
        world.make_key(3, "c").await,
    );
    for key in [&due, &young, &off] {
        world.change(key, KeyChange::EnableRotation).await.unwrap();
        world
            .change(key, KeyChange::RotationDays(30))
            .await
            .unwrap();
    }
    let long_ago = world.now().await.minus(30 * A_DAY).as_micros();
    for key in [&due, &off] {
        let id = key.id;
        let sql = format!("update master_keys set rotation_since = {long_ago} where id = '{id}'");
        world.tamper(sql).await;
    }
    world.change(&off, KeyChange::Disable).await.unwrap();
    let found = catalog.due_for_rotation(9).await.unwrap();
    let ids: Vec<_> = found.iter().map(|key| key.id).collect();
    assert_eq!(ids, [due.id]);
    let line = event("rotateKey");
    let add = async |key: &MasterKeyRecord, version| {
        let material = material(&key.id.to_string(), version, "r1");
        catalog.add_version(&material, true, &line).await.unwrap()
    };
    assert_eq!(add(&young, 2).await, Placed::Superseded);
    assert_eq!(add(&due, 2).await, Placed::Done);
    assert_eq!(add(&due, 3).await, Placed::Superseded);
    assert_eq!(catalog.due_for_rotation(9).await.unwrap(), []);
}

pub(crate) async fn a_key_whose_time_has_come_goes_with_all_that_is_its(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let keys = [
        world.make_key(1, "over").await,
        world.make_key(2, "young").await,
        world.make_key(3, "cancelled").await,
    ];
    let line = event("scheduleKeyDeletion");
    let days = KeyChange::ScheduleDeletion(7);
    for key in &keys {
        let to = (GranteeType::User, "u2");
        let number = u8::try_from(key.id.as_uuid().as_u128()).unwrap();
        let grant = grant(number, key, to, &["describe-key"]);
        catalog.insert_grant(&grant, 9, trail()).await.unwrap();
        let tag = TagChange {
            set: vec![("x".to_owned(), "1".to_owned())],
            remove: Vec::new(),
        };
        let tagged = catalog.change_key_tags(key.id, &tag, 9, &line);
        tagged.await.unwrap();
        catalog.change_key(key.id, &days, &line).await.unwrap();
    }
    // The lines of the trail go by the engine's own clock, and do not matter here.
    let purge = async || while catalog.purge_expired().await.unwrap() > 0 {};
    purge().await;
    let usage = catalog.key_usage(&keys[0].project).await.unwrap();
    assert_eq!(usage.keys, 3);
    let over = world.now().await.as_micros();
    for key in [&keys[0], &keys[2]] {
        let id = key.id;
        let sql = format!("update master_keys set deletion_at = {over} where id = '{id}'");
        world.tamper(sql).await;
    }
    // Cancelled at the last moment.
    world
        .change(&keys[2], KeyChange::CancelDeletion)
        .await
        .unwrap();
    purge().await;
    assert_eq!(catalog.key_state(keys[0].id).await.unwrap(), None);
    let gone = keys[0].id.to_string();
    assert_eq!(catalog.material(&gone, 1).await.unwrap(), None);
    assert_eq!(catalog.grants(keys[0].id, ALL).await.unwrap().total, 0);
    let tags = catalog.project_key_tags(&keys[0].project).await.unwrap();
    assert_eq!(tags.len(), 2);
    let left = catalog.list_keys(&keys[0].project, None, ALL).await;
    assert_eq!(left.unwrap().total, 2);
    let trail = catalog.audit_trail(None, None, 9).await.unwrap();
    let lines: Vec<&AuditEvent> = trail
        .iter()
        .map(|(_, line)| line)
        .filter(|line| line.trace == "deleteKey")
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].resource_id, gone);
    assert_eq!(lines[0].user, line.user);
    assert_eq!(lines[0].request_id, line.request_id);
    assert_eq!(lines[0].project, Some(keys[0].project.clone()));
    world.assert_sound().await;
}

pub(crate) async fn a_project_with_keys_is_not_deleted(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let domain = DomainRecord {
        id: "default".parse().unwrap(),
        name: "Default".to_owned(),
        enabled: true,
    };
    catalog.insert_domain(&domain).await.unwrap();
    let record = ProjectRecord {
        id: project("p1"),
        domain: domain.id,
        name: "p1".to_owned(),
        description: String::new(),
        enabled: true,
    };
    catalog.insert_project(&record, None).await.unwrap();
    world.make_key(1, "a").await;
    let line = event("deleteProject");
    assert_kind(
        catalog.delete_project(&record.id, &line).await,
        ErrorKind::Conflict,
    );
    world.tamper("delete from master_keys").await;
    assert!(catalog.delete_project(&record.id, &line).await.unwrap());
}

#[tokio::test]
async fn what_was_erased_is_not_in_the_files_any_more() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", place.path().join("catalog.db").display());
    let world = World::open(&url).await;
    let found = |canary: &[u8]| {
        let files = std::fs::read_dir(place.path()).unwrap().flatten();
        let mut all = files.map(|file| std::fs::read(file.path()).unwrap());
        all.any(|bytes| bytes.windows(canary.len()).any(|part| part == canary))
    };
    world.rooted().await;
    let (record, mut material) = key(1, "a");
    material.wrapped = b"CANARY-0123456789-OF-THE-PURGE".repeat(200);
    let made = world
        .catalog
        .insert_master_key(&record, &material, 9, trail());
    assert_eq!(made.await.unwrap(), Placed::Done);
    let (kept, mut rewrapped) = key(2, "b");
    rewrapped.wrapped = b"CANARY-9876543210-OF-THE-ROOT".to_vec();
    let made = world
        .catalog
        .insert_master_key(&kept, &rewrapped, 9, trail());
    assert_eq!(made.await.unwrap(), Placed::Done);
    assert!(found(b"OF-THE-PURGE") && found(b"OF-THE-ROOT"));

    world
        .change(&record, KeyChange::ScheduleDeletion(7))
        .await
        .unwrap();
    world
        .tamper("update master_keys set deletion_at = 0 where state = 'pending'")
        .await;
    assert_eq!(world.catalog.purge_expired().await.unwrap(), 1);
    assert!(!found(b"OF-THE-PURGE"));

    assert!(world.catalog.begin_root("r2", None).await.unwrap());
    let again = self::material(&kept.id.to_string(), 1, "r2");
    let again = [("r1".to_owned(), again)];
    assert_eq!(world.catalog.rewrap(&again).await.unwrap(), Placed::Done);
    let line = event("retireRootKey");
    world.catalog.retire_root("r1", &line).await.unwrap();
    assert!(!found(b"OF-THE-ROOT"));
}
