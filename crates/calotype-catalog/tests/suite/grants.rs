//! Grants and tags on master keys.

use std::collections::BTreeSet;

use calotype_core::codes::KmsCode;
use calotype_core::master_key::{
    Grant, GrantId, GranteeType, KeyChange, KeyOperation, KeyState, MasterKeyRecord,
};
use calotype_core::ports::{
    Assignment, AssignmentTarget, Directory as _, DomainRecord, MasterKeys as _, ProjectRecord,
    RoleRecord, TagChange, UserRecord, Window,
};
use calotype_core::time::Timestamp;
use uuid::Uuid;

use crate::master_keys::{ALL, assert_code};
use crate::world::{DAY, World, event, project, trail};

pub(crate) fn grant(
    number: u8,
    key: &MasterKeyRecord,
    to: (GranteeType, &str),
    words: &[&str],
) -> Grant {
    Grant {
        id: format!("{number:064x}").parse().unwrap(),
        key: key.id,
        grantee: to.1.to_owned(),
        grantee_type: to.0,
        operations: words.iter().map(|word| word.parse().unwrap()).collect(),
        name: Some("g".to_owned()),
        retiring: None,
        issuer: "u1".parse().unwrap(),
        created_at: Timestamp::from_micros(DAY + i64::from(number)),
    }
}

pub(crate) async fn a_user_sees_what_it_and_its_domain_were_granted(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    for domain in ["d1", "d2"] {
        let record = DomainRecord {
            id: domain.parse().unwrap(),
            name: domain.to_owned(),
            enabled: true,
        };
        catalog.insert_domain(&record).await.unwrap();
    }
    for (user, domain) in [("u1", "d1"), ("u2", "d2")] {
        let record = UserRecord {
            id: user.parse().unwrap(),
            domain: domain.parse().unwrap(),
            name: user.to_owned(),
            password_hash: None,
            default_project: None,
            enabled: true,
        };
        catalog.insert_user(&record, None).await.unwrap();
    }
    let (key, other) = (world.make_key(1, "a").await, world.make_key(2, "b").await);
    for grant in [
        grant(1, &key, (GranteeType::User, "u1"), &["describe-key"]),
        grant(
            2,
            &key,
            (GranteeType::Domain, "d1"),
            &["decrypt-datakey", "describe-key"],
        ),
        grant(3, &key, (GranteeType::User, "d2"), &["encrypt-datakey"]),
        grant(4, &other, (GranteeType::User, "u2"), &["encrypt-datakey"]),
    ] {
        catalog.insert_grant(&grant, 9, trail()).await.unwrap();
    }
    let granted = async |user: &str| {
        let seen = catalog.seen_key(key.id, &user.parse().unwrap()).await;
        seen.unwrap().unwrap().granted
    };
    let both = [KeyOperation::DecryptDataKey, KeyOperation::DescribeKey];
    assert_eq!(granted("u1").await, BTreeSet::from(both));
    assert_eq!(granted("u2").await, BTreeSet::new());
    assert_eq!(granted("nobody").await, BTreeSet::new());
    let seen = catalog.seen_key(key.id, &"u1".parse().unwrap()).await;
    let seen = seen.unwrap().unwrap();
    assert!(seen.permits(&project("p1"), KeyOperation::CreateDataKey));
    assert!(seen.permits(&project("p2"), KeyOperation::DescribeKey));
    assert_code(
        seen.check(&project("p2"), KeyOperation::CreateDataKey),
        KmsCode::KMS_0306,
    );
}

pub(crate) async fn what_those_of_a_project_were_granted_is_told_of_each(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    for domain in ["d1", "d2"] {
        let record = DomainRecord {
            id: domain.parse().unwrap(),
            name: domain.to_owned(),
            enabled: true,
        };
        catalog.insert_domain(&record).await.unwrap();
    }
    let record = ProjectRecord {
        id: project("p2"),
        domain: "d1".parse().unwrap(),
        name: "p2".to_owned(),
        description: String::new(),
        enabled: true,
    };
    catalog.insert_project(&record, None).await.unwrap();
    let role = RoleRecord {
        id: "r1".parse().unwrap(),
        name: "member".to_owned(),
    };
    catalog.insert_role(&role, None).await.unwrap();
    for (user, domain) in [("u1", "d2"), ("u2", "d2"), ("u3", "d2")] {
        let record = UserRecord {
            id: user.parse().unwrap(),
            domain: domain.parse().unwrap(),
            name: user.to_owned(),
            password_hash: None,
            default_project: None,
            enabled: true,
        };
        catalog.insert_user(&record, None).await.unwrap();
        if user != "u3" {
            let assignment = Assignment {
                user: user.parse().unwrap(),
                target: AssignmentTarget::Project(project("p2")),
                role: role.id.clone(),
            };
            catalog.assign(&assignment, None).await.unwrap();
        }
    }
    let key = world.make_key(1, "a").await;
    let granted = async || {
        let readers = catalog.key_readers(key.id, &project("p2")).await;
        let readers = readers.unwrap().unwrap();
        assert_eq!((readers.state, readers.own), (KeyState::Enabled, false));
        readers.granted
    };
    let (describe, decrypt) = (KeyOperation::DescribeKey, KeyOperation::DecryptDataKey);
    assert_eq!(granted().await, []);
    for grant in [
        grant(1, &key, (GranteeType::User, "u1"), &["describe-key"]),
        grant(2, &key, (GranteeType::User, "u2"), &["decrypt-datakey"]),
        grant(3, &key, (GranteeType::User, "u3"), &["create-grant"]),
    ] {
        catalog.insert_grant(&grant, 9, trail()).await.unwrap();
    }
    let apart = [BTreeSet::from([describe]), BTreeSet::from([decrypt])];
    assert_eq!(granted().await, apart);
    let to_domain = grant(4, &key, (GranteeType::Domain, "d1"), &["describe-key"]);
    catalog.insert_grant(&to_domain, 9, trail()).await.unwrap();
    assert_eq!(granted().await.len(), 3, "the project's domain too");
    let to_users = grant(5, &key, (GranteeType::Domain, "d2"), &["describe-key"]);
    catalog.insert_grant(&to_users, 9, trail()).await.unwrap();
    assert!(
        granted()
            .await
            .contains(&BTreeSet::from([describe, decrypt]))
    );
    let own = catalog.key_readers(key.id, &key.project).await;
    assert!(own.unwrap().unwrap().own);
    let none = catalog
        .key_readers(Uuid::nil().into(), &project("p2"))
        .await;
    assert_eq!(none.unwrap(), None);
}

pub(crate) async fn grants_are_counted_paged_and_removed(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let key = world.make_key(1, "a").await;
    let make = |number: u8, retiring: Option<&str>| Grant {
        retiring: retiring.map(str::to_owned),
        ..grant(number, &key, (GranteeType::User, "u2"), &["describe-key"])
    };
    let mut made = Vec::new();
    for (number, retiring) in [(1, None), (2, Some("u3")), (3, Some("u3"))] {
        let grant = make(number, retiring);
        catalog.insert_grant(&grant, 3, trail()).await.unwrap();
        made.push(grant);
    }
    let over = catalog.insert_grant(&make(4, None), 3, trail()).await;
    assert_code(over, KmsCode::KMS_2404);
    let all = catalog.grants(key.id, ALL).await.unwrap();
    assert_eq!((&all.items, all.total), (&made, 3));
    let second = Window {
        offset: 1,
        limit: 1,
    };
    let page = catalog.grants(key.id, second).await.unwrap();
    assert_eq!((&page.items[..], page.total), (&made[1..2], 3));
    let retirable = catalog.retirable_grants(&"u3".parse().unwrap(), ALL).await;
    assert_eq!(retirable.unwrap().items, made[1..]);
    let usage = catalog.key_usage(&key.project).await.unwrap();
    assert_eq!((usage.keys, usage.most_grants), (1, 3));

    let line = event("revokeGrant");
    let id = &made[0].id;
    assert_eq!(catalog.grant(id).await.unwrap().as_ref(), Some(&made[0]));
    assert!(catalog.remove_grant(id, &line).await.unwrap());
    assert!(!catalog.remove_grant(id, &line).await.unwrap());
    assert_eq!(catalog.grant(id).await.unwrap(), None);
    assert_eq!(world.lines("revokeGrant").await, 1);

    world.change(&key, KeyChange::Disable).await.unwrap();
    let refused = catalog.insert_grant(&make(5, None), 9, trail()).await;
    assert_code(refused, KmsCode::KMS_0209);
    world
        .change(&key, KeyChange::ScheduleDeletion(7))
        .await
        .unwrap();
    let refused = catalog.insert_grant(&make(6, None), 9, trail()).await;
    assert_code(refused, KmsCode::KMS_0210);
    let missing = Grant {
        key: Uuid::from_u128(9).into(),
        ..make(7, None)
    };
    let refused = catalog.insert_grant(&missing, 9, trail()).await;
    assert_code(refused, KmsCode::KMS_0207);
    let unknown: GrantId = "f".repeat(64).parse().unwrap();
    assert_eq!(catalog.grant(&unknown).await.unwrap(), None);
}

pub(crate) async fn tags_are_set_counted_and_removed(world: World) {
    let catalog = &world.catalog;
    world.rooted().await;
    let (key, other) = (world.make_key(1, "a").await, world.make_key(2, "b").await);
    let line = event("changeKeyTags");
    let set = |tags: &[(&str, &str)]| TagChange {
        set: tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        remove: Vec::new(),
    };
    let change = async |key: &MasterKeyRecord, change: TagChange| {
        catalog.change_key_tags(key.id, &change, 3, &line).await
    };
    let some = set(&[("x", "1"), ("y", ""), ("x", "2")]);
    assert_eq!(change(&key, some).await.unwrap(), 0);
    assert_eq!(change(&other, set(&[("x", "9")])).await.unwrap(), 0);
    let tags = async || catalog.key_tags(key.id).await.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(tags().await, [pair("x", "2"), pair("y", "")]);
    let over = change(&key, set(&[("z", "1"), ("w", "1")])).await;
    assert_code(over, KmsCode::KMS_0409);
    assert_eq!(tags().await.len(), 2);
    let of_project = catalog.project_key_tags(&key.project).await.unwrap();
    let names: Vec<_> = of_project
        .iter()
        .map(|(key, name, _)| (*key, name.as_str()))
        .collect();
    assert_eq!(names, [(key.id, "x"), (key.id, "y"), (other.id, "x")]);
    let remove = |names: &[&str]| TagChange {
        set: Vec::new(),
        remove: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(change(&key, remove(&["x", "nothing"])).await.unwrap(), 1);
    assert_eq!(change(&key, remove(&["x"])).await.unwrap(), 0);
    assert_eq!(tags().await, [pair("y", "")]);
    assert_eq!(world.lines("changeKeyTags").await, 3);
    let missing = (
        MasterKeyRecord {
            id: Uuid::from_u128(9).into(),
            ..key
        },
        set(&[("x", "1")]),
    );
    let refused = change(&missing.0, missing.1).await;
    assert_code(refused, KmsCode::KMS_0207);
}
