//! The embedded identity's records.

use std::collections::BTreeSet;

use calotype_core::ErrorKind;
use calotype_core::access::{Named, ProjectScope, Scope};
use calotype_core::ports::{
    AccessKey, Assignment, AssignmentTarget, Directory as _, DomainRecord, Images as _,
    ProjectRecord, Reconcile as _, RoleRecord, TokenRecord, UserRecord,
};
use calotype_core::time::Timestamp;

use crate::world::{DAY, World, assert_kind, project, trail};

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
        expires_at: Timestamp::from_micros(4_000_000_000_000_000),
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
    }
}

async fn fill(world: &World) {
    let catalog = &world.catalog;
    catalog.insert_domain(&domain()).await.unwrap();
    catalog.insert_project(&project_record()).await.unwrap();
    catalog.insert_user(&user()).await.unwrap();
    catalog.insert_role(&role()).await.unwrap();
    let target = AssignmentTarget::Project(project("p1"));
    catalog.assign(&assignment(target)).await.unwrap();
    catalog.insert_access_key(&access_key()).await.unwrap();
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
    catalog.assign(&assignment(in_project)).await.unwrap();
    for target in [
        AssignmentTarget::System,
        AssignmentTarget::Domain(domain().id),
    ] {
        assert_eq!(catalog.roles_of(&user().id, &target).await.unwrap(), []);
        catalog.assign(&assignment(target.clone())).await.unwrap();
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
    assert_kind(catalog.insert_project(&twin).await, ErrorKind::Conflict);
    let twin = UserRecord {
        id: "u2".parse().unwrap(),
        ..user()
    };
    assert_kind(catalog.insert_user(&twin).await, ErrorKind::Conflict);
    assert_kind(catalog.insert_domain(&domain()).await, ErrorKind::Conflict);
    assert_kind(catalog.insert_role(&role()).await, ErrorKind::Conflict);
    assert_kind(
        catalog.insert_access_key(&access_key()).await,
        ErrorKind::Conflict,
    );
}

pub(crate) async fn losing_a_right_revokes_the_tokens(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let id = user().id;
    let target = AssignmentTarget::Project(project("p1"));
    let mut revoked = BTreeSet::new();
    for way in ["password", "user", "project", "role", "revoke", "purge"] {
        let mut record = token(way);
        if way == "purge" {
            record.expires_at = Timestamp::from_micros(1);
        }
        catalog.insert_token(&record).await.unwrap();
        assert!(match way {
            "password" => catalog.set_password(&id, "$new").await.unwrap(),
            "user" => catalog.set_user_enabled(&id, false).await.unwrap(),
            "project" => catalog
                .set_project_enabled(&project("p1"), false)
                .await
                .unwrap(),
            "role" => catalog.unassign(&assignment(target.clone())).await.unwrap(),
            "revoke" => catalog.revoke_token(way).await.unwrap(),
            _ => catalog.purge_expired().await.unwrap() == 1,
        });
        if catalog.token(way).await.unwrap().is_none() {
            revoked.insert(way);
        }
    }
    assert_eq!(revoked.len(), 6, "{revoked:?}");
    assert!(!catalog.unassign(&assignment(target)).await.unwrap());
    assert_eq!(catalog.projects_of(&id).await.unwrap(), []);
    assert!(!catalog.user(&id).await.unwrap().unwrap().enabled);
    catalog.insert_token(&token("kept")).await.unwrap();
    assert!(catalog.set_user_enabled(&id, true).await.unwrap());
    assert!(catalog.token("kept").await.unwrap().is_some());
    assert!(
        !catalog
            .set_password(&"u9".parse().unwrap(), "$x")
            .await
            .unwrap()
    );
}

pub(crate) async fn deleting_takes_what_depends_along(world: World) {
    fill(&world).await;
    let catalog = &world.catalog;
    let image = world.image("p1");
    world.insert(&image).await;
    assert_kind(
        catalog.delete_project(&project("p1")).await,
        ErrorKind::Conflict,
    );
    assert!(catalog.token("h1").await.unwrap().is_some());
    catalog
        .delete_image(&image, std::time::Duration::ZERO, trail())
        .await
        .unwrap();
    assert!(catalog.delete_project(&project("p1")).await.unwrap());
    assert!(!catalog.delete_project(&project("p1")).await.unwrap());
    assert_eq!(catalog.token("h1").await.unwrap(), None);
    assert_eq!(catalog.access_key("AK1").await.unwrap(), None);
    let target = AssignmentTarget::Project(project("p1"));
    assert_eq!(catalog.roles_of(&user().id, &target).await.unwrap(), []);

    catalog.insert_project(&project_record()).await.unwrap();
    catalog.insert_access_key(&access_key()).await.unwrap();
    catalog.insert_token(&token("h2")).await.unwrap();
    assert!(catalog.delete_user(&user().id).await.unwrap());
    assert!(!catalog.delete_user(&user().id).await.unwrap());
    assert_eq!(catalog.token("h2").await.unwrap(), None);
    assert_eq!(catalog.access_key("AK1").await.unwrap(), None);
    assert!(!catalog.delete_access_key("AK1").await.unwrap());
}
