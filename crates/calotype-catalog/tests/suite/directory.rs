//! The embedded identity's records.

use std::collections::BTreeSet;

use calotype_core::ErrorKind;
use calotype_core::access::{Named, ProjectScope, Scope};
use calotype_core::id::EnterpriseProjectId;
use calotype_core::ports::{
    AccessKey, Assignment, AssignmentTarget, Directory as _, DomainRecord, EnterpriseProject,
    Images as _, Ledger as _, ProjectRecord, Reconcile as _, RoleRecord, TemporaryKey, TokenRecord,
    UserRecord,
};
use calotype_core::time::Timestamp;

use crate::world::{DAY, World, assert_kind, event, project, trail};

/// A time that no test sees.
const NEVER: i64 = 4_000_000_000_000_000;

fn domain() -> DomainRecord {
    DomainRecord {
        id: "default".parse().unwrap(),
        name: "Default".to_owned(),
        enabled: true,
    }
}

fn project_record() -> ProjectRecord {
    ProjectRecord {
        id: project("p1"),
        domain: domain().id,
        name: "demo".to_owned(),
        description: "for tests".to_owned(),
        enabled: true,
    }
}

fn user() -> UserRecord {
    UserRecord {
        id: "u1".parse().unwrap(),
        domain: domain().id,
        name: "ada".to_owned(),
        password_hash: Some("$argon2id$...".to_owned()),
        default_project: Some(project("p1")),
        enabled: true,
    }
}

fn role() -> RoleRecord {
    RoleRecord {
        id: "r1".parse().unwrap(),
        name: "member".to_owned(),
    }
}

fn assignment(target: AssignmentTarget) -> Assignment {
    Assignment {
        user: user().id,
        role: role().id,
        target,
    }
}

fn token(hash: &str) -> TokenRecord {
    TokenRecord {
        hash: hash.to_owned(),
        user: user().id,
        scope: Scope::Project(ProjectScope {
            project: Named {
                id: project("p1"),
                name: "demo".to_owned(),
            },
            domain: Named {
                id: domain().id,
                name: "Default".to_owned(),
            },
        }),
        methods: vec!["password".to_owned()],
        issued_at: Timestamp::from_micros(DAY),
        expires_at: Timestamp::from_micros(NEVER),
        audit_id: "a1".to_owned(),
    }
}

fn access_key() -> AccessKey {
    AccessKey {
        access: "AK1".to_owned(),
        sealed_secret: vec![0, 255, 7],
        user: user().id,
        project: Some(project("p1")),
        enabled: true,
        created_at: Timestamp::from_micros(DAY),
        temporary: None,
    }
}

/// A temporary key of the user and its project, as [`token`] is.
fn temporary_key(access: &str, expires_at: i64) -> AccessKey {
    let temporary = TemporaryKey {
        security_token_hash: "h".repeat(64),
        scope: token("").scope,
        expires_at: Timestamp::from_micros(expires_at),
    };
    AccessKey {
        access: access.to_owned(),
        temporary: Some(temporary),
        ..access_key()
    }
}

async fn fill(world: &World) {
    let catalog = &world.catalog;
    catalog.insert_domain(&domain()).await.unwrap();
    catalog
        .insert_project(&project_record(), None)
        .await
        .unwrap();
    catalog.insert_user(&user(), None).await.unwrap();
    catalog.insert_role(&role(), None).await.unwrap();
    let target = AssignmentTarget::Project(project("p1"));
    catalog.assign(&assignment(target), None).await.unwrap();
    catalog
        .insert_access_key(&access_key(), None)
        .await
        .unwrap();
    catalog.insert_token(&token("h1")).await.unwrap();
}

pub(crate) async fn records_come_back_and_names_are_unique(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    assert_eq!(catalog.domain(&domain().id).await.unwrap(), Some(domain()));
    assert_eq!(catalog.domains(Some("Default")).await.unwrap(), [domain()]);
    assert_eq!(catalog.domains(Some("other")).await.unwrap(), []);
    assert_eq!(
        catalog.project(&project("p1")).await.unwrap(),
        Some(project_record())
    );
    let found = catalog
        .projects(Some("demo"), Some(&domain().id))
        .await
        .unwrap();
    assert_eq!(found, [project_record()]);
    assert_eq!(catalog.user(&user().id).await.unwrap(), Some(user()));
    assert_eq!(catalog.users(Some("ada"), None).await.unwrap(), [user()]);
    assert_eq!(catalog.roles(None).await.unwrap(), [role()]);
    assert_eq!(catalog.access_key("AK1").await.unwrap(), Some(access_key()));
    assert_eq!(
        catalog.access_keys(&user().id).await.unwrap(),
        [access_key()]
    );
    assert_eq!(catalog.token("h1").await.unwrap(), Some(token("h1")));
    assert_eq!(
        catalog.projects_of(&user().id).await.unwrap(),
        [project_record()]
    );
    let in_project = AssignmentTarget::Project(project("p1"));
    assert_eq!(
        catalog.roles_of(&user().id, &in_project).await.unwrap(),
        [role()]
    );
    catalog.assign(&assignment(in_project), None).await.unwrap();
    for target in [
        AssignmentTarget::System,
        AssignmentTarget::Domain(domain().id),
    ] {
        assert_eq!(catalog.roles_of(&user().id, &target).await.unwrap(), []);
        let assigned = assignment(target.clone());
        catalog.assign(&assigned, None).await.unwrap();
        assert_eq!(
            catalog.roles_of(&user().id, &target).await.unwrap(),
            [role()]
        );
    }
    assert_eq!(catalog.domains_of(&user().id).await.unwrap(), [domain()]);

    let twin = ProjectRecord {
        id: project("p2"),
        ..project_record()
    };
    assert_kind(
        catalog.insert_project(&twin, None).await,
        ErrorKind::Conflict,
    );
    let twin = UserRecord {
        id: "u2".parse().unwrap(),
        ..user()
    };
    assert_kind(catalog.insert_user(&twin, None).await, ErrorKind::Conflict);
    assert_kind(catalog.insert_domain(&domain()).await, ErrorKind::Conflict);
    assert_kind(
        catalog.insert_role(&role(), None).await,
        ErrorKind::Conflict,
    );
    assert_kind(
        catalog.insert_access_key(&access_key(), None).await,
        ErrorKind::Conflict,
    );
}

pub(crate) async fn losing_a_right_revokes_the_tokens(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let id = user().id;
    let target = AssignmentTarget::Project(project("p1"));
    let line = event("change");
    let mut revoked = BTreeSet::new();
    for way in ["password", "user", "project", "role", "revoke", "purge"] {
        let mut record = token(way);
        if way == "purge" {
            record.expires_at = Timestamp::from_micros(1);
        }
        catalog.insert_token(&record).await.unwrap();
        let temporary = temporary_key(way, record.expires_at.as_micros());
        catalog.insert_access_key(&temporary, None).await.unwrap();
        let found = catalog.access_key(way).await.unwrap();
        assert_eq!(found, Some(temporary));
        assert!(match way {
            "password" => catalog.set_password(&id, "$new", None).await.unwrap(),
            "user" => catalog.set_user_enabled(&id, false, &line).await.unwrap(),
            "project" => catalog
                .set_project_enabled(&project("p1"), false, &line)
                .await
                .unwrap(),
            "role" => catalog
                .unassign(&assignment(target.clone()), &line)
                .await
                .unwrap(),
            "revoke" => catalog.revoke_token(way, None).await.unwrap(),
            _ => catalog.purge_expired().await.unwrap() > 0,
        });
        let kept = catalog.access_key(way).await.unwrap().is_some();
        // A token that is revoked by itself is a logout: it takes no rights away.
        assert_eq!(kept, way == "revoke", "{way}");
        if catalog.token(way).await.unwrap().is_none() {
            revoked.insert(way);
        }
    }
    assert_eq!(revoked.len(), 6, "{revoked:?}");
    assert_eq!(catalog.access_key("AK1").await.unwrap(), Some(access_key()));
    assert!(!catalog.unassign(&assignment(target), &line).await.unwrap());
    assert_eq!(catalog.projects_of(&id).await.unwrap(), []);
    assert!(!catalog.user(&id).await.unwrap().unwrap().enabled);
    catalog.insert_token(&token("kept")).await.unwrap();
    assert!(catalog.set_user_enabled(&id, true, &line).await.unwrap());
    assert!(catalog.token("kept").await.unwrap().is_some());
    assert!(
        !catalog
            .set_password(&"u9".parse().unwrap(), "$x", None)
            .await
            .unwrap()
    );
}

pub(crate) async fn a_role_on_an_enterprise_project_is_one_in_its_project_alone(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let id = user().id;
    let line = event("change");
    let in_project = AssignmentTarget::Project(project("p1"));
    let before = assignment(in_project.clone());
    assert!(catalog.unassign(&before, &line).await.unwrap());
    assert_eq!(catalog.projects_of(&id).await.unwrap(), []);

    let group = EnterpriseProjectId::Default;
    assert!(catalog.has_enterprise_project(group).await.unwrap());
    let unknown = EnterpriseProjectId::Id(uuid::Uuid::from_u128(9));
    assert!(!catalog.has_enterprise_project(unknown).await.unwrap());
    let target = AssignmentTarget::EnterpriseProject(group, project("p1"));
    let given = assignment(target.clone());
    for _ in 0..2 {
        catalog.assign(&given, Some(&line)).await.unwrap();
    }
    let roles = catalog.roles_of(&id, &target).await.unwrap();
    assert_eq!(roles, [role()]);
    assert_eq!(catalog.roles_of(&id, &in_project).await.unwrap(), []);
    let there = catalog.enterprise_roles_of(&id, &project("p1")).await;
    assert_eq!(there.unwrap(), [(group, role())]);
    let elsewhere = catalog.enterprise_roles_of(&id, &project("p2")).await;
    assert_eq!(elsewhere.unwrap(), []);
    let projects = catalog.projects_of(&id).await.unwrap();
    assert_eq!(projects, [project_record()], "one can log in to it");

    catalog.insert_token(&token("h2")).await.unwrap();
    assert!(catalog.unassign(&given, &line).await.unwrap());
    assert_eq!(catalog.token("h2").await.unwrap(), None);
    assert!(!catalog.unassign(&given, &line).await.unwrap());

    catalog.assign(&given, None).await.unwrap();
    catalog.insert_token(&token("h3")).await.unwrap();
    assert!(catalog.delete_role(&role().id, &line).await.unwrap());
    assert_eq!(catalog.token("h3").await.unwrap(), None);
    assert_eq!(catalog.projects_of(&id).await.unwrap(), []);

    catalog.insert_role(&role(), None).await.unwrap();
    catalog.assign(&given, None).await.unwrap();
    assert!(catalog.delete_project(&project("p1"), &line).await.unwrap());
    let gone = catalog.enterprise_roles_of(&id, &project("p1")).await;
    assert_eq!(gone.unwrap(), []);
}

pub(crate) async fn deleting_takes_what_depends_along(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let line = event("change");
    let image = world.image("p1");
    world.insert(&image).await;
    assert_kind(
        catalog.delete_project(&project("p1"), &line).await,
        ErrorKind::Conflict,
    );
    assert!(catalog.token("h1").await.unwrap().is_some());
    catalog
        .delete_image(&image, std::time::Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(catalog.delete_project(&project("p1"), &line).await.unwrap());
    assert!(!catalog.delete_project(&project("p1"), &line).await.unwrap());
    assert_eq!(catalog.token("h1").await.unwrap(), None);
    assert_eq!(catalog.access_key("AK1").await.unwrap(), None);
    let target = AssignmentTarget::Project(project("p1"));
    assert_eq!(catalog.roles_of(&user().id, &target).await.unwrap(), []);

    catalog
        .insert_project(&project_record(), None)
        .await
        .unwrap();
    catalog
        .insert_access_key(&access_key(), None)
        .await
        .unwrap();
    catalog.insert_token(&token("h2")).await.unwrap();
    assert!(catalog.delete_user(&user().id, &line).await.unwrap());
    assert!(!catalog.delete_user(&user().id, &line).await.unwrap());
    assert_eq!(catalog.token("h2").await.unwrap(), None);
    assert_eq!(catalog.access_key("AK1").await.unwrap(), None);
    assert!(!catalog.delete_access_key("AK1", None).await.unwrap());
}

pub(crate) async fn a_change_writes_its_line_and_what_changes_nothing_writes_none(world: World) {
    let catalog = &world.catalog;
    catalog.insert_domain(&domain()).await.unwrap();
    let target = AssignmentTarget::Project(project("p1"));
    let assigned = assignment(target);
    let (user, role, id) = (user(), role(), user().id);
    let mut wanted: Vec<String> = Vec::new();
    for (change, changes) in [
        ("disable project", false),
        ("insert project", true),
        ("insert project", false),
        ("disable project", true),
        ("change password", false),
        ("disable user", false),
        ("insert user", true),
        ("insert user", false),
        ("change password", true),
        ("disable user", true),
        ("insert role", true),
        ("insert role", false),
        ("unassign", false),
        ("assign", true),
        ("assign", false),
        ("unassign", true),
        ("disable key", false),
        ("insert key", true),
        ("insert key", false),
        ("disable key", true),
        ("delete key", true),
        ("delete key", false),
        ("revoke token", false),
        ("delete role", true),
        ("delete role", false),
        ("delete user", true),
        ("delete user", false),
        ("delete project", true),
        ("delete project", false),
    ] {
        let line = event(change);
        let some = Some(&line);
        let changed = match change {
            "insert project" => catalog
                .insert_project(&project_record(), some)
                .await
                .is_ok(),
            "disable project" => catalog
                .set_project_enabled(&project("p1"), false, &line)
                .await
                .unwrap(),
            "delete project" => catalog.delete_project(&project("p1"), &line).await.unwrap(),
            "insert user" => catalog.insert_user(&user, some).await.is_ok(),
            "change password" => catalog.set_password(&id, "$new", some).await.unwrap(),
            "disable user" => catalog.set_user_enabled(&id, false, &line).await.unwrap(),
            "delete user" => catalog.delete_user(&id, &line).await.unwrap(),
            "insert role" => catalog.insert_role(&role, some).await.is_ok(),
            "delete role" => catalog.delete_role(&role.id, &line).await.unwrap(),
            // Says nothing of whether the user had the role.
            "assign" => catalog
                .assign(&assigned, some)
                .await
                .is_ok_and(|()| changes),
            "unassign" => catalog.unassign(&assigned, &line).await.unwrap(),
            "insert key" => catalog.insert_access_key(&access_key(), some).await.is_ok(),
            "disable key" => catalog
                .set_access_key_enabled("AK1", false, &line)
                .await
                .unwrap(),
            "delete key" => catalog.delete_access_key("AK1", some).await.unwrap(),
            _ => catalog.revoke_token("none", some).await.unwrap(),
        };
        assert_eq!(changed, changes, "{change}");
        if changes {
            wanted.insert(0, change.to_owned());
        }
        let trail = catalog.audit_trail(None, None, 99).await.unwrap();
        let written: Vec<_> = trail.into_iter().map(|(_, line)| line.trace).collect();
        assert_eq!(written, wanted, "{change}");
    }
    world
        .tamper("delete from audit_events; delete from domains")
        .await;
    fill(&world).await;
    assert_eq!(catalog.audit_trail(None, None, 99).await.unwrap(), []);
    let line = event("revoke token");
    assert!(catalog.revoke_token("h1", Some(&line)).await.unwrap());
    let trail = catalog.audit_trail(None, None, 99).await.unwrap();
    assert_eq!(trail.first().map(|(_, written)| written), Some(&line));
}

pub(crate) async fn a_change_whose_line_can_not_be_written_is_not_made(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let line = event("change");
    world
        .tamper("alter table audit_events rename to hidden")
        .await;
    let target = AssignmentTarget::Project(project("p1"));
    assert!(catalog.delete_user(&user().id, &line).await.is_err());
    assert!(catalog.delete_role(&role().id, &line).await.is_err());
    assert!(catalog.delete_project(&project("p1"), &line).await.is_err());
    let assigned = assignment(target.clone());
    assert!(catalog.unassign(&assigned, &line).await.is_err());
    let made = EnterpriseProject {
        id: EnterpriseProjectId::Id(uuid::Uuid::from_u128(9)),
        name: "research".to_owned(),
        enabled: true,
        created_at: Timestamp::from_micros(DAY),
    };
    let inserted = catalog.insert_enterprise_project(&made, trail()).await;
    assert!(inserted.is_err());
    world
        .tamper("alter table hidden rename to audit_events")
        .await;
    assert_eq!(
        catalog.roles_of(&user().id, &target).await.unwrap(),
        [role()]
    );
    assert!(catalog.token("h1").await.unwrap().is_some());
    assert_eq!(catalog.enterprise_project(made.id).await.unwrap(), None);
}

pub(crate) async fn a_temporary_key_goes_with_what_it_may_have_been_got_by(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let line = event("change");
    let other = UserRecord {
        id: "u2".parse().unwrap(),
        name: "other".to_owned(),
        ..user()
    };
    catalog.insert_user(&other, None).await.unwrap();
    let theirs = AccessKey {
        user: other.id.clone(),
        ..temporary_key("THEIRS", NEVER)
    };
    let in_no_project = AccessKey {
        project: None,
        ..temporary_key("T2", NEVER)
    };
    let fill = async || {
        for key in [&temporary_key("T1", NEVER), &in_no_project] {
            catalog.insert_access_key(key, None).await.unwrap();
        }
    };
    let left = async || {
        let mut left = Vec::new();
        for access in ["AK1", "T1", "T2", "THEIRS"] {
            let found = catalog.access_key(access).await.unwrap();
            left.extend(found.map(|_| access));
        }
        left
    };
    catalog.insert_access_key(&theirs, None).await.unwrap();
    fill().await;
    // Not in the list, and not to be removed by itself.
    let listed = catalog.access_keys(&user().id).await.unwrap();
    assert_eq!(listed, [access_key()]);
    assert!(!catalog.delete_access_key("T1", Some(&line)).await.unwrap());
    assert_eq!(left().await, ["AK1", "T1", "T2", "THEIRS"]);

    assert!(catalog.delete_access_key("AK1", Some(&line)).await.unwrap());
    assert_eq!(left().await, ["THEIRS"]);
    catalog
        .insert_access_key(&access_key(), None)
        .await
        .unwrap();
    fill().await;
    assert!(catalog.delete_role(&role().id, &line).await.unwrap());
    assert_eq!(left().await, ["AK1", "THEIRS"]);
    fill().await;
    assert!(catalog.delete_project(&project("p1"), &line).await.unwrap());
    assert_eq!(left().await, ["T2"]);
    assert!(catalog.delete_user(&user().id, &line).await.unwrap());
    assert_eq!(left().await, Vec::<&str>::new());
    let trail = catalog.audit_trail(None, None, 9).await.unwrap();
    assert_eq!(trail.len(), 4);
}
