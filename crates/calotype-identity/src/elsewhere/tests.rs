use calotype_core::access::{Named, Scope};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind};
use calotype_remote::scripted::{Same, Script, Step, json};
use calotype_remote::{Endpoint, LoginScope, Trouble};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json as value};
use tokio::time::{Instant, advance};

use super::*;
use crate::memory::SetClock;

const NOW: &str = "2026-11-24T11:00:00Z";
const LIFE: Duration = Duration::from_secs(60);

struct World {
    keystone: Keystone,
    logins: Arc<Script>,
    asks: Arc<Script>,
    clock: Arc<SetClock>,
}

impl World {
    /// A Keystone that lets the service in as often as it likes, and then answers so.
    fn new(asks: impl IntoIterator<Item = Step>) -> Self {
        Self::of((0..3).map(|_| login()), asks)
    }

    fn of(logins: impl IntoIterator<Item = Step>, asks: impl IntoIterator<Item = Step>) -> Self {
        let (logins, asks) = (Script::new(logins), Script::new(asks));
        let clock = Arc::new(SetClock::at(Timestamp::parse(NOW).unwrap()));
        let entropy: Arc<dyn Entropy> = Arc::new(Same(0));
        let options = KeystoneOptions {
            login: Login {
                auth_url: "http://keystone.example/v3/".to_owned(),
                user: "svc".to_owned(),
                user_domain: "Default".to_owned(),
                password: zeroize::Zeroizing::new("geheim".to_owned()),
                scope: LoginScope::System,
                region: None,
                interface: "public".to_owned(),
            },
            connection: Connection {
                attempts: 2,
                ..Connection::default()
            },
            public_url: None,
            cache_life: LIFE,
            cache_size: 100,
        };
        let endpoint = |script: &Arc<Script>| {
            let script = Arc::clone(script) as _;
            Endpoint::over(
                ask::NAMES,
                script,
                &options.connection,
                Arc::clone(&entropy),
            )
        };
        let (first, second) = (endpoint(&logins), endpoint(&asks));
        let port: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let asked = Asked::at(options.login.clone(), first, second, Arc::clone(&port)).unwrap();
        Self {
            keystone: Keystone::of(asked, options, &entropy, port),
            logins,
            asks,
            clock,
        }
    }

    async fn by_token(&self, token: &str) -> Result<Principal> {
        self.keystone.by_token(token).await
    }

    /// What was asked, as paths with queries.
    fn asked(&self) -> Vec<String> {
        let path = |(_, request): (Instant, calotype_remote::Request)| {
            let query = request.url.query().map(|query| format!("?{query}"));
            format!("{}{}", request.url.path(), query.unwrap_or_default())
        };
        self.asks.sent().into_iter().map(path).collect()
    }
}

fn login() -> Step {
    let body = value!({"token": {"expires_at": "2026-11-24T12:00:00Z", "user": {"id": "u0"}}});
    Step::Answer(
        201,
        &[("x-subject-token", "the-services")],
        body.to_string(),
    )
}

fn of_a_project() -> Step {
    let domain = value!({"id": "default", "name": "Default"});
    let token = value!({"token": {
        "expires_at": "2026-11-24T12:00:00.000000Z",
        "user": {"id": "u1", "name": "ada", "domain": domain},
        "project": {"id": "p1", "name": "web", "domain": domain},
        "roles": [{"id": "r1", "name": "member"}],
    }});
    json(200, token.to_string())
}

fn missing() -> Step {
    json(
        404,
        r#"{"error": {"code": 404, "title": "Not Found", "message": "no"}}"#,
    )
}

fn gone() -> Step {
    Step::Trouble(Trouble::Connection("refused".to_owned()))
}

fn kind(outcome: Result<Principal>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable { .. })
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shown_to_keystone_beside_the_services_own() {
    let world = World::new([of_a_project()]);
    for _ in 0..3 {
        let principal = world.by_token("gAAAA").await.unwrap();
        assert_eq!(principal.user.name, "ada");
        assert_eq!(principal.roles, ["member"]);
    }
    assert_eq!(world.asked(), ["/v3/auth/tokens?nocatalog"]);
    let headers = &world.asks.sent()[0].1.headers;
    assert_eq!(headers["x-auth-token"], "the-services");
    assert_eq!(headers["x-subject-token"], "gAAAA");
    assert!(headers["x-subject-token"].is_sensitive());
    let body = world.logins.sent()[0].1.body.clone().unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["auth"]["scope"], value!({"system": {"all": true}}));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_none_is_refused_unasked() {
    let world = World::new([]);
    let long = "x".repeat(LONGEST_TOKEN + 1);
    for token in ["", "two words", "t\u{fc}r", long.as_str()] {
        assert_eq!(
            kind(world.by_token(token).await),
            ErrorKind::Unauthenticated
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_services_token_is_renewed_once_where_it_is_refused() {
    let world = World::new([json(401, "{}"), of_a_project()]);
    assert!(world.by_token("gAAAA").await.is_ok());
    assert_eq!(world.logins.sent().len(), 2);
    let world = World::new([json(401, "{}"), json(401, "{}")]);
    let error = world.by_token("gAAAA").await.unwrap_err();
    assert!(is_away(&error), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn only_keystones_own_word_makes_a_token_bad() {
    let world = World::new([missing()]);
    assert_eq!(
        kind(world.by_token("gAAAA").await),
        ErrorKind::Unauthenticated
    );
    for step in [
        json(404, "<html>no such page</html>"),
        json(404, r#"{"error": "not found"}"#),
        json(200, "<html>welcome</html>"),
        json(403, "{}"),
        json(400, "{}"),
        Step::Answer(429, &[("retry-after", "60")], String::new()),
    ] {
        let world = World::new([step]);
        let error = world.by_token("gAAAA").await.unwrap_err();
        assert!(is_away(&error), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_keystone_is_away_those_who_are_known_go_on_until_the_caches_end() {
    let steps = [
        of_a_project(),
        gone(),
        gone(),
        gone(),
        gone(),
        of_a_project(),
    ];
    let world = World::new(steps);
    assert_eq!(world.keystone.standing().await.unwrap(), Standing::Whole);
    assert!(world.by_token("known").await.is_ok());
    assert!(is_away(&world.by_token("new").await.unwrap_err()));
    assert_eq!(
        world.keystone.standing().await.unwrap(),
        Standing::KnownOnly
    );
    assert!(world.by_token("known").await.is_ok());
    advance(LIFE).await;
    assert!(is_away(&world.by_token("known").await.unwrap_err()));
    assert!(world.by_token("known").await.is_ok());
    assert_eq!(world.keystone.standing().await.unwrap(), Standing::Whole);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_new_credentials_keeps_nobody_who_is_known_waiting() {
    const ROOM: usize = 128;
    let hanging = (0..32).map(|_| Step::Hang);
    let world = World::new([of_a_project()].into_iter().chain(hanging));
    assert!(world.by_token("known").await.is_ok());
    let tokens: Vec<String> = (0..ROOM).map(|number| format!("new-{number}")).collect();
    let mut crowd: FuturesUnordered<_> = tokens.iter().map(|token| world.by_token(token)).collect();
    // Until all have asked or wait; no time goes by meanwhile.
    for _ in 0..ROOM {
        tokio::select! {
            biased;
            _ = crowd.next() => unreachable!("nobody is answered"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(world.asked().len(), 1 + 32);
    let begun = Instant::now();
    assert!(is_away(&world.by_token("one-too-many").await.unwrap_err()));
    assert!(world.by_token("known").await.is_ok());
    assert_eq!(world.keystone.standing().await.unwrap(), Standing::Whole);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(crowd);
}

#[tokio::test(start_paused = true)]
async fn a_keystone_that_never_let_the_service_in_is_none() {
    let world = World::of([gone(), gone(), login()], []);
    assert!(is_away(&world.keystone.standing().await.unwrap_err()));
    assert_eq!(world.keystone.standing().await.unwrap(), Standing::Whole);
}

#[tokio::test(start_paused = true)]
async fn a_tokens_end_is_measured_by_keystones_own_time() {
    // Ours is a day ahead; by Keystone's the token has 10 seconds left.
    let with = |headers, step| match step {
        Step::Answer(status, _, body) => Step::Answer(status, headers, body),
        other => other,
    };
    let late = || with(&[("date", "Tue, 24 Nov 2026 11:59:50 GMT")], of_a_project());
    let login = with(
        &[
            ("x-subject-token", "the-services"),
            ("date", "Tue, 24 Nov 2026 11:00:00 GMT"),
        ],
        login(),
    );
    let world = World::of([login], [late(), late()]);
    world
        .clock
        .set(Timestamp::parse("2026-11-25T11:00:00Z").unwrap());
    for _ in 0..2 {
        assert!(world.by_token("gAAAA").await.is_ok());
    }
    assert_eq!(world.asked().len(), 1);
    advance(Duration::from_secs(10)).await;
    assert!(world.by_token("gAAAA").await.is_ok());
    assert_eq!(world.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_project_is_there_where_keystone_says_so_or_may_not_say() {
    for (step, live) in [
        (json(200, r#"{"project": {"enabled": true}}"#), true),
        (json(200, r#"{"project": {"enabled": false}}"#), false),
        (missing(), false),
        (json(403, "{}"), true),
    ] {
        let world = World::new([step]);
        let project = "p1".parse().unwrap();
        for _ in 0..2 {
            assert_eq!(world.keystone.is_live(&project).await.unwrap(), live);
        }
        assert_eq!(world.asked(), ["/v3/projects/p1"]);
    }
}

/// The documents of an access key, with these fields changed in them.
struct Key {
    credential: Value,
    blob: Value,
    user: Value,
    project: Value,
    roles: Value,
}

impl Key {
    fn new() -> Self {
        Self {
            credential: value!({"type": "ec2", "user_id": "u1", "project_id": "p1"}),
            blob: value!({"access": "AK", "secret": "SK", "trust_id": null}),
            user: value!({"name": "ada", "domain_id": "default", "enabled": true}),
            project: value!({"name": "web", "domain_id": "d1", "enabled": true}),
            roles: value!([{"name": "member"}, {"name": "own", "domain": {"id": "d1"}}]),
        }
    }

    fn steps(mut self) -> Vec<Step> {
        self.credential["blob"] = self.blob.to_string().into();
        let roles = self.roles.as_array().unwrap().iter();
        let roles: Vec<Value> = roles.map(|role| value!({ "role": role })).collect();
        let domain = |name| value!({"domain": {"name": name, "enabled": true}});
        [
            value!({"credential": self.credential}),
            value!({"user": self.user}),
            value!({"project": self.project}),
            domain("Default"),
            domain("Other"),
            value!({"role_assignments": roles}),
        ]
        .map(|document| json(200, document.to_string()))
        .into()
    }
}

async fn look_up(world: &World) -> Result<Told<KeyHolder>> {
    let asked = &world.keystone.asked;
    access_key::look_up(asked, "AK", asked.deadline()).await
}

#[tokio::test(start_paused = true)]
async fn an_access_key_stands_for_its_user_in_its_project() {
    let world = World::new(Key::new().steps());
    let Told::Good(holder, None) = look_up(&world).await.unwrap() else {
        panic!("refused");
    };
    assert_eq!(holder.secret.expose_secret(), "SK");
    assert_eq!(holder.principal.roles, ["member"]);
    let Scope::Project(scope) = &holder.principal.scope else {
        panic!("{:?}", holder.principal.scope);
    };
    let named = |id: &str, name: &str| Named {
        id: id.parse().unwrap(),
        name: name.to_owned(),
    };
    assert_eq!(scope.domain, named("d1", "Other"));
    assert_eq!(holder.principal.user_domain, named("default", "Default"));
    let hash = crate::sha256_hex(b"AK");
    assert_eq!(
        world.asked(),
        [
            format!("/v3/credentials/{hash}"),
            "/v3/users/u1".to_owned(),
            "/v3/projects/p1".to_owned(),
            "/v3/domains/default".to_owned(),
            "/v3/domains/d1".to_owned(),
            "/v3/role_assignments?effective&include_names&user.id=u1&scope.project.id=p1"
                .to_owned(),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_less_than_its_user_or_whose_user_is_out_is_refused() {
    let changed = |change: fn(&mut Key)| {
        let mut key = Key::new();
        change(&mut key);
        key
    };
    for (number, key) in [
        changed(|key| key.credential["type"] = "totp".into()),
        changed(|key| key.credential["project_id"] = Value::Null),
        changed(|key| key.blob["access"] = "another".into()),
        changed(|key| key.blob["secret"] = "".into()),
        changed(|key| key.blob["trust_id"] = "t1".into()),
        changed(|key| key.blob["app_cred_id"] = "a1".into()),
        changed(|key| key.blob["access_token_id"] = "o1".into()),
        changed(|key| key.user["enabled"] = false.into()),
        changed(|key| key.project["enabled"] = false.into()),
        changed(|key| key.roles = value!([])),
        changed(|key| key.roles = value!([{"name": "admin", "domain": {"id": "d1"}}])),
        changed(|key| key.roles = value!([{"name": "admin"}])),
    ]
    .into_iter()
    .enumerate()
    {
        let world = World::new(key.steps());
        let told = look_up(&world).await.unwrap();
        assert!(matches!(told, Told::Refused(_)), "{number}");
    }
    for step in [missing(), json(403, "{}")] {
        let told = look_up(&World::new([step])).await.unwrap();
        assert!(matches!(told, Told::Refused(_)));
    }
}
