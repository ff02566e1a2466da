//! Temporary access keys: how long they last, and what can be made with one.

use std::time::Duration;

use calotype_core::access::Credential;
use calotype_core::app::Call;
use calotype_core::ports::{AssignmentTarget, Directory as _};
use calotype_core::{ErrorKind, Result};
use secrecy::{ExposeSecret as _, SecretString};

use super::{World, call};
use crate::{Issued, NewProject, NewUser, sha256_hex};

const DAY: u64 = 86_400;

/// A request that was signed with a temporary key of who was issued the token.
fn signed(issued: &Issued, lasts: Duration) -> Call {
    let mut call = call(issued);
    let ends = issued.session.issued_at.plus(lasts);
    call.principal.credential = Credential::TemporaryKey(ends);
    call
}

#[track_caller]
fn refused<T>(result: Result<T>) {
    let refused = result.map(drop).expect_err("it was done");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn a_key_ends_with_what_it_was_made_with_and_after_a_day_at_the_latest() {
    let (world, first) = World::started().await;
    let issued = world.in_project(&first.demo).await;
    let start = issued.session.issued_at;
    let mut permanent = call(&issued);
    permanent.principal.credential = Credential::AccessKey;
    let temporary = signed(&issued, Duration::from_secs(1000));
    world.clock.advance(Duration::from_secs(600));
    for (call, seconds, lasts) in [
        (&call(&issued), 900, 600 + 900),
        // The token was given for a day, ten minutes ago.
        (&call(&issued), DAY, DAY),
        (&permanent, DAY, 600 + DAY),
        (&temporary, 900, 1000),
        (&temporary, DAY, 1000),
    ] {
        let made = world.identity.create_temporary_key(call, seconds).await;
        let ends = start.plus(Duration::from_secs(lasts));
        assert_eq!(made.unwrap().expires_at, ends, "{seconds}");
    }
    for seconds in [0, 899, DAY + 1, u64::MAX] {
        let refused = world.identity.create_temporary_key(&permanent, seconds);
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    }
}

#[tokio::test]
async fn a_keys_secrets_are_not_stored_and_it_stands_for_the_callers_scope() {
    let (world, first) = World::started().await;
    let issued = world.in_project(&first.demo).await;
    let demo = call(&issued);
    let made = world.identity.create_temporary_key(&demo, 900).await;
    let made = made.unwrap();
    let (secret, token) = (made.secret.expose_secret(), &made.security_token);
    let token = token.expose_secret();
    assert!(!format!("{made:?}").contains(secret) && !format!("{made:?}").contains(token));
    let stored = world.memory.access_key(&made.access).await.unwrap();
    let stored = stored.unwrap();
    // The key service of these tests puts the context in front of what it should seal.
    let sealed = format!("access-key:{}|{secret}", made.access);
    assert_eq!(stored.sealed_secret, sealed.as_bytes());
    assert_eq!(stored.project.as_ref(), Some(&first.demo.project.id));
    let temporary = stored.temporary.unwrap();
    assert_eq!(temporary.scope, issued.session.principal.scope);
    assert_eq!(temporary.security_token_hash, sha256_hex(token.as_bytes()));
    let [line] = &world.memory.new_lines()[..] else {
        panic!("one line");
    };
    assert_eq!(line.trace, "createTemporaryAccessKey");
    assert_eq!(line.resource_id, made.access);
    let text = format!("{line:?}");
    assert!(!text.contains(secret) && !text.contains(token));
    // It is not one that the user keeps.
    let user = &first.demo.user.id;
    let listed = world.identity.access_keys(&issued.session.principal, user);
    assert_eq!(listed.await.unwrap().len(), 1);
}

#[tokio::test]
async fn with_a_temporary_key_nothing_lasting_is_made_or_changed() {
    let (world, first) = World::started().await;
    let identity = &world.identity;
    let admin = signed(
        &world.in_project(&first.admin).await,
        Duration::from_secs(900),
    );
    let by = identity.administrator(&admin).unwrap();
    let (user, project) = (&first.demo.user.id, &first.demo.project.id);
    let role = &identity.roles(&by, Some("admin")).await.unwrap()[0].id;
    let domain = &admin.principal.user_domain.id;
    let target = || AssignmentTarget::Project(project.clone());
    let password = SecretString::from("a password");
    let new_user = NewUser {
        name: "ada".to_owned(),
        domain: domain.clone(),
        password: Some(password.clone()),
        default_project: None,
        enabled: true,
    };
    let new_project = NewProject {
        name: "research".to_owned(),
        domain: domain.clone(),
        description: String::new(),
        enabled: true,
    };
    let key = &first.demo.access_key.access;
    let itself = &admin.principal.user.id;
    refused(identity.create_access_key(&admin, itself, None).await);
    refused(identity.create_access_key(&admin, user, None).await);
    refused(identity.delete_access_key(&admin, user, key).await);
    refused(identity.create_user(&by, new_user).await);
    refused(identity.delete_user(&by, user).await);
    refused(identity.set_password(&by, user, &password).await);
    refused(identity.set_user_enabled(&by, user, true).await);
    refused(identity.create_project(&by, new_project).await);
    refused(identity.delete_project(&by, project).await);
    refused(identity.set_project_enabled(&by, project, true).await);
    refused(identity.create_role(&by, "r".to_owned()).await);
    refused(identity.delete_role(&by, role).await);
    refused(identity.assign(&by, user, role, target()).await);
    refused(identity.unassign(&by, user, role, target()).await);
    assert_eq!(world.memory.new_lines(), []);
    let seen = identity.visible_users(&admin.principal, None, None).await;
    assert_eq!(seen.unwrap().len(), 2);
}
