//! The embedded identity against a directory in memory.

mod temporary_keys;

use std::sync::Arc;
use std::time::Duration;

use calotype_core::access::{Access, Scope};
use calotype_core::app::{Call, Surface};
use calotype_core::ports::{AssignmentTarget, Clock, Directory};
use calotype_core::{ErrorKind, Result};
use secrecy::{ExposeSecret as _, SecretString};

use crate::memory::{Counted, Memory, PlainKeys, SetClock};
use crate::*;

struct World {
    identity: Embedded,
    memory: Arc<Memory>,
    clock: Arc<SetClock>,
}

impl World {
    fn new() -> Self {
        let memory = Arc::new(Memory::default());
        let clock = Arc::new(SetClock::default());
        let ports = Ports {
            directory: Arc::clone(&memory) as Arc<dyn Directory>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::new(Counted::default()),
            keys: Arc::new(PlainKeys),
        };
        let access = Arc::new(Access::default());
        Self {
            identity: Embedded::new(ports, access, Options::default()),
            memory,
            clock,
        }
    }

    async fn started() -> (Self, Bootstrapped) {
        let world = Self::new();
        let first = world.identity.bootstrap(Renewal::UntilConfirmed).await;
        (world, first.unwrap().unwrap())
    }

    async fn login(&self, user: &FirstUser, scope: RequestedScope) -> Result<Issued> {
        self.identity.login(by_id(user, scope)).await
    }

    async fn in_project(&self, user: &FirstUser) -> Issued {
        let scope = RequestedScope::Project(ProjectRef::Id(user.project.id.clone()));
        self.login(user, scope).await.unwrap()
    }

    async fn is_good(&self, issued: &Issued) -> bool {
        match self.identity.session(&issued.token).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unauthenticated);
                false
            }
        }
    }
}

fn by_id(user: &FirstUser, scope: RequestedScope) -> Login {
    let named = UserRef::Id(user.user.id.clone());
    Login {
        proof: Proof::Password(named, user.password.clone()),
        scope,
        address: None,
    }
}

fn by_name(name: &str, domain: DomainRef, password: &str) -> Login {
    Login {
        proof: Proof::Password(
            UserRef::Name(name.to_owned(), domain),
            SecretString::from(password),
        ),
        scope: RequestedScope::Default,
        address: None,
    }
}

/// A request of who was issued the token.
fn call(issued: &Issued) -> Call {
    Call {
        principal: issued.session.principal.clone(),
        request_id: "req-1".to_owned(),
        surface: Surface::Native,
        token: None,
    }
}

fn default_domain() -> DomainRef {
    DomainRef::Name("Default".to_owned())
}

#[tokio::test]
async fn the_first_users_can_log_in_to_what_is_theirs() {
    let (world, first) = World::started().await;
    let demo = world.in_project(&first.demo).await;
    assert_eq!(demo.session.principal.roles, ["member", "reader"]);
    for scope in [
        RequestedScope::System,
        RequestedScope::Domain(default_domain()),
        RequestedScope::Project(ProjectRef::Name("demo".to_owned(), default_domain())),
    ] {
        let admin = world.login(&first.admin, scope.clone()).await.unwrap();
        assert_eq!(admin.session.principal.roles, ["admin"], "{scope:?}");
    }
    for scope in [
        RequestedScope::System,
        RequestedScope::Project(ProjectRef::Id(first.admin.project.id.clone())),
        RequestedScope::Project(ProjectRef::Name("none".to_owned(), default_domain())),
    ] {
        let refused = world.login(&first.demo, scope).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    }
    let unscoped = world.login(&first.demo, RequestedScope::Unscoped).await;
    assert!(unscoped.unwrap().session.principal.roles.is_empty());
    let by_default = world.login(&first.demo, RequestedScope::Default).await;
    let scope = &by_default.unwrap().session.principal.scope;
    assert!(matches!(scope, Scope::Project(scope) if scope.project.name == "demo"));
}

#[tokio::test]
async fn every_wrong_login_is_refused_in_the_same_words() {
    let (world, first) = World::started().await;
    let right = first.demo.password.expose_secret();
    let mut words = Vec::new();
    for login in [
        by_name("demo", default_domain(), "wrong"),
        by_name("nobody", default_domain(), right),
        by_name("demo", DomainRef::Name("none".to_owned()), right),
        by_name("demo", default_domain(), ""),
    ] {
        let refused = world.identity.login(login).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
        words.push(refused.message().to_owned());
    }
    words.dedup();
    assert_eq!(words.len(), 1, "{words:?}");
    let good = by_name("demo", DomainRef::Id("default".parse().unwrap()), right);
    assert!(world.identity.login(good).await.is_ok());
}

#[tokio::test]
async fn after_five_wrong_passwords_the_right_one_has_to_wait_where_they_came_from() {
    let (world, first) = World::started().await;
    let right = first.demo.password.expose_secret();
    let from = |address: &str, password: &str| Login {
        address: Some(address.parse().unwrap()),
        ..by_name("demo", default_domain(), password)
    };
    for _ in 0..5 {
        let wrong = from("192.0.2.1", "wrong");
        assert!(world.identity.login(wrong).await.is_err());
    }
    let good = |address: &str| world.identity.login(from(address, right));
    assert!(good("192.0.2.1").await.is_err());
    assert!(good("192.0.2.2").await.is_ok());
    assert!(good("192.0.2.1").await.is_err());
    world.in_project(&first.admin).await;
    world.clock.advance(Duration::from_secs(2));
    assert!(good("192.0.2.1").await.is_ok());
}

#[tokio::test]
async fn a_token_is_not_stored_and_ends_with_its_time() {
    let (world, first) = World::started().await;
    let issued = world.in_project(&first.demo).await;
    let text = issued.token.expose_secret();
    assert!(text.starts_with("calo_") && text.len() == 69);
    for stored in world.memory.stored_tokens() {
        assert!(!format!("{stored:?}").contains(text.get(5..).unwrap()));
    }
    assert!(!format!("{issued:?}").contains(text));
    assert!(world.is_good(&issued).await);
    world.clock.advance(Duration::from_secs(24 * 3600));
    assert!(!world.is_good(&issued).await);
    for bad in ["", "calo_", "x", &"calo_0".repeat(50)] {
        let refused = world.identity.session(&SecretString::from(bad)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unauthenticated);
    }
}

#[tokio::test]
async fn a_token_that_was_got_for_a_token_ends_with_it() {
    let (world, first) = World::started().await;
    let issued = world.in_project(&first.demo).await;
    world.clock.advance(Duration::from_secs(3600));
    let again = Login {
        proof: Proof::Token(issued.token.clone()),
        scope: RequestedScope::Unscoped,
        address: None,
    };
    let again = world.identity.login(again).await.unwrap();
    assert_eq!(again.session.expires_at, issued.session.expires_at);
    assert_eq!(again.session.methods, ["password", "token"]);
}

#[tokio::test]
async fn revoking_a_token_a_role_a_user_or_a_project_ends_tokens_at_once() {
    let (world, first) = World::started().await;
    let identity = &world.identity;
    let admin = call(&world.in_project(&first.admin).await);
    let administrator = identity.administrator(&admin).unwrap();
    let user = &first.demo.user.id;
    let project = &first.demo.project.id;

    let issued = world.in_project(&first.demo).await;
    assert!(world.is_good(&issued).await);
    let itself = call(&issued);
    identity.revoke(&itself, &issued.token).await.unwrap();
    assert!(!world.is_good(&issued).await);

    let issued = world.in_project(&first.demo).await;
    assert!(world.is_good(&issued).await);
    for role in &issued.session.roles {
        let target = AssignmentTarget::Project(project.clone());
        let taken = identity.unassign(&administrator, user, &role.id, target);
        taken.await.unwrap();
    }
    assert!(!world.is_good(&issued).await);

    let unscoped = world.login(&first.demo, RequestedScope::Unscoped).await;
    let unscoped = unscoped.unwrap();
    assert!(world.is_good(&unscoped).await);
    let disabled = identity.set_user_enabled(&administrator, user, false).await;
    disabled.unwrap();
    assert!(!world.is_good(&unscoped).await);
    assert!(
        world
            .login(&first.demo, RequestedScope::Unscoped)
            .await
            .is_err()
    );

    let scope = RequestedScope::Project(ProjectRef::Id(project.clone()));
    let issued = world.login(&first.admin, scope).await.unwrap();
    assert!(world.is_good(&issued).await);
    let disabled = identity.set_project_enabled(&administrator, project, false);
    disabled.await.unwrap();
    assert!(!world.is_good(&issued).await);
}

#[tokio::test]
async fn a_change_on_another_node_is_noticed_within_seconds() {
    let (world, first) = World::started().await;
    let issued = world.in_project(&first.demo).await;
    assert!(world.is_good(&issued).await);
    let hash = sha256_hex(issued.token.expose_secret().as_bytes());
    world.memory.revoke_token(&hash, None).await.unwrap();
    world.clock.advance(Duration::from_secs(5));
    assert!(!world.is_good(&issued).await);
}

#[tokio::test]
async fn a_first_start_that_crashes_anywhere_is_made_good_by_the_next() {
    for changes in 0..40 {
        let world = World::new();
        world.memory.crash_after(Some(changes));
        let crashed = world.identity.bootstrap(Renewal::UntilConfirmed).await;
        world.memory.crash_after(None);
        let again = world.identity.bootstrap(Renewal::UntilConfirmed).await;
        let again = again.unwrap().expect("not confirmed");
        world.in_project(&again.demo).await;
        for user in [&again.demo, &again.admin] {
            let keys = world.memory.access_keys(&user.user.id).await.unwrap();
            let known: Vec<_> = keys.iter().map(|key| key.access.as_str()).collect();
            assert_eq!(known, [user.access_key.access.as_str()]);
        }
        world.identity.confirm_bootstrap().await.unwrap();
        let third = world.identity.bootstrap(Renewal::UntilConfirmed).await;
        assert!(third.unwrap().is_none());
        if crashed.is_ok() {
            assert_eq!(changes, 19, "every change was a place to crash");
            return;
        }
    }
    panic!("the first start never ended");
}

#[tokio::test]
async fn only_an_administrator_gets_the_proof_of_one() {
    let (world, first) = World::started().await;
    let demo = call(&world.in_project(&first.demo).await);
    let refused = world.identity.administrator(&demo);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Forbidden);
    let unscoped = world.login(&first.admin, RequestedScope::Unscoped).await;
    let unscoped = call(&unscoped.unwrap());
    assert!(world.identity.administrator(&unscoped).is_err());
}

#[tokio::test]
async fn what_a_caller_changes_is_in_the_audit_trail_and_logins_and_the_first_start_are_not() {
    let (world, first) = World::started().await;
    let identity = &world.identity;
    let admin = call(&world.in_project(&first.admin).await);
    let by = identity.administrator(&admin).unwrap();
    let mine = world.in_project(&first.admin).await;
    identity.revoke(&admin, &mine.token).await.unwrap();
    assert_eq!(world.memory.new_lines(), []);

    let domain = admin.principal.user_domain.id.clone();
    let project = NewProject {
        name: "research".to_owned(),
        domain: domain.clone(),
        description: String::new(),
        enabled: true,
    };
    let project = identity.create_project(&by, project).await.unwrap().id;
    let password = SecretString::from("canary-password");
    let user = NewUser {
        name: "ada".to_owned(),
        domain,
        password: Some(password.clone()),
        default_project: None,
        enabled: true,
    };
    let user = identity.create_user(&by, user).await.unwrap().id;
    let role = identity.create_role(&by, "auditor".to_owned()).await;
    let role = role.unwrap().id;
    let target = || AssignmentTarget::Project(project.clone());
    for _ in 0..2 {
        let assigned = identity.assign(&by, &user, &role, target()).await;
        assigned.unwrap();
    }
    let key = identity.create_access_key(&admin, &user, Some(&project));
    let key = key.await.unwrap();
    let login = || Login {
        proof: Proof::Password(UserRef::Id(user.clone()), password.clone()),
        scope: RequestedScope::Unscoped,
        address: None,
    };
    let theirs = identity.login(login()).await.unwrap();
    identity.revoke(&admin, &theirs.token).await.unwrap();
    let deleted = identity.delete_access_key(&admin, &user, &key.access);
    deleted.await.unwrap();
    let set = identity.set_password(&by, &user, &password).await;
    set.unwrap();
    let disabled = identity.set_user_enabled(&by, &user, false).await;
    disabled.unwrap();
    let disabled = identity.set_project_enabled(&by, &project, false);
    disabled.await.unwrap();
    let taken = identity.unassign(&by, &user, &role, target()).await;
    taken.unwrap();
    assert!(
        identity
            .unassign(&by, &user, &role, target())
            .await
            .is_err()
    );
    identity.delete_role(&by, &role).await.unwrap();
    identity.delete_user(&by, &user).await.unwrap();
    assert!(identity.delete_user(&by, &user).await.is_err());
    identity.delete_project(&by, &project).await.unwrap();

    let lines = world.memory.new_lines();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line.trace.as_str(), line.resource_id.as_str()))
        .collect();
    let (user, project, role) = (user.as_str(), project.as_str(), role.as_str());
    let token = theirs.session.audit_id.as_str();
    assert_eq!(
        told,
        [
            ("createProject", project),
            ("createUser", user),
            ("createRole", role),
            ("assignRole", user),
            ("createAccessKey", &key.access),
            ("revokeToken", token),
            ("deleteAccessKey", &key.access),
            ("changePassword", user),
            ("updateUser", user),
            ("updateProject", project),
            ("unassignRole", user),
            ("deleteRole", role),
            ("deleteUser", user),
            ("deleteProject", project),
        ]
    );
    for line in &lines {
        assert_eq!(line.resource_type, "identity");
        assert_eq!(line.request_id, "req-1");
        assert_eq!(line.user, admin.principal.user.id);
        assert_eq!(line.project.as_ref(), admin.principal.project());
        let text = format!("{line:?}");
        for secret in [
            password.expose_secret(),
            key.secret.expose_secret(),
            theirs.token.expose_secret(),
            "argon2",
        ] {
            assert!(!text.contains(secret), "{}", line.trace);
        }
    }
    let detail = |at: usize| lines[at].detail.to_string();
    assert_eq!(
        detail(0),
        r#"{"name":"research","domain":"default","enabled":true}"#
    );
    let assigned = format!(r#"{{"role":"auditor","project":"{project}"}}"#);
    assert_eq!((detail(3), detail(10)), (assigned.clone(), assigned));
    assert_eq!(detail(8), r#"{"enabled":false}"#);
    assert_eq!(detail(12), r#"{"name":"ada"}"#);
}
