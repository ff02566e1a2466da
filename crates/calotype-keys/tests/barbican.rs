//! The Barbican adapter, against a real Barbican with a real Keystone.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    dead_code,
    reason = "the harness is shared with the black-box tests, and a test's own functions are tests"
)]

#[path = "../../../tests/harness"]
mod harness {
    mod engines;
    pub mod openstack;
}

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{
    Authority, CallerToken, KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey,
};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind};
use calotype_keys::{Authorize, Barbican, BarbicanOptions, SystemEntropy};
use calotype_remote::{Connection, Login, LoginScope};
use harness::openstack::{OpenStack, User};
use serde_json::json;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

/// Bounds a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("later");
        Timestamp::from_micros(i64::try_from(since.as_micros()).expect("a time"))
    }
}

/// An owner of secrets, the service's user, and the adapter.
struct World {
    openstack: OpenStack,
    owner: User,
    service: User,
    runtime: Runtime,
    barbican: Barbican,
}

fn options(openstack: &OpenStack, service: &User) -> BarbicanOptions {
    BarbicanOptions {
        endpoint: Some(openstack.barbican().to_owned()),
        login: Login {
            auth_url: openstack.keystone().to_owned(),
            user: service.name.clone(),
            user_domain: "Default".to_owned(),
            password: Zeroizing::new(service.password.clone()),
            scope: LoginScope::Project(service.project_name.clone(), "Default".to_owned()),
            region: None,
            interface: "public".to_owned(),
        },
        authorize: Authorize::Caller,
        cache_life: Duration::ZERO,
        connection: Connection {
            // The machine may be busy with other tests.
            attempt_timeout: Duration::from_secs(30),
            time_limit: Duration::from_secs(60),
            ..Connection::default()
        },
    }
}

impl World {
    /// Without a cache, unless `change` says otherwise.
    fn new(change: impl FnOnce(&OpenStack, &mut BarbicanOptions)) -> Self {
        let openstack = OpenStack::connect();
        let (owner, service) = (openstack.user("member"), openstack.user("service"));
        let mut options = options(&openstack, &service);
        change(&openstack, &mut options);
        let runtime = Runtime::new().expect("a runtime");
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let barbican = Barbican::new(options, entropy, Arc::new(SystemClock)).expect("an adapter");
        Self {
            openstack,
            owner,
            service,
            runtime,
            barbican,
        }
    }

    fn plain() -> Self {
        Self::new(|_, _| ())
    }

    /// A key that the service may use.
    fn key(&self) -> String {
        let key = self.openstack.key(&self.owner);
        self.open(&key);
        key
    }

    fn open(&self, key: &str) {
        self.openstack
            .let_read(&self.owner, key, &[&self.service], true);
    }

    fn close(&self, key: &str) {
        self.openstack.let_read(&self.owner, key, &[], true);
    }

    fn check(&self, user: &KeyUser, key: &str) -> KeyResult<()> {
        let id: KeyId = key.parse().expect("an id");
        let check = self.barbican.check(user, &id, KeyPurpose::Open);
        self.runtime.block_on(check)
    }

    fn wrap(&self, key: &str, blob: BlobId, data: &DataKey) -> KeyResult<WrappedKey> {
        let master = MasterKey::Customer(key.parse().expect("an id"), job(&self.owner));
        self.runtime
            .block_on(self.barbican.wrap(&master, blob, data))
    }

    fn unwrap(&self, blob: BlobId, wrapped: &WrappedKey) -> KeyResult<DataKey> {
        self.runtime.block_on(self.barbican.unwrap(blob, wrapped))
    }
}

fn by(user: &User, authority: Authority) -> KeyUser {
    KeyUser {
        project: user.project.parse().expect("an id"),
        user: user.id.parse().expect("an id"),
        authority,
    }
}

fn caller(user: &User) -> KeyUser {
    with_token(user, &user.token)
}

fn with_token(user: &User, token: &str) -> KeyUser {
    by(user, Authority::Token(CallerToken::new(token.to_owned())))
}

fn job(user: &User) -> KeyUser {
    by(user, Authority::Job)
}

fn blob() -> BlobId {
    BlobId::random(&SystemEntropy::new())
}

#[track_caller]
fn missing<T>(outcome: KeyResult<T>) {
    let fault = outcome.err();
    assert!(matches!(fault, Some(KeyFault::Missing)), "{fault:?}");
}

#[track_caller]
fn not_enabled<T>(outcome: KeyResult<T>) {
    let fault = outcome.err();
    assert!(matches!(fault, Some(KeyFault::NotEnabled)), "{fault:?}");
}

#[track_caller]
fn forbidden<T>(outcome: KeyResult<T>) {
    let fault = outcome.err();
    assert!(matches!(fault, Some(KeyFault::Forbidden)), "{fault:?}");
}

#[track_caller]
fn failed<T>(outcome: KeyResult<T>) -> Error {
    match outcome.err() {
        Some(KeyFault::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn unavailable<T>(outcome: KeyResult<T>) {
    let error = failed(outcome);
    assert!(
        matches!(error.kind(), ErrorKind::Unavailable { .. }),
        "{error:?}"
    );
}

#[test]
fn a_data_key_is_wrapped_under_a_secret_and_opens_again() {
    // By the catalog, in a region that has its own endpoint.
    let world = World::new(|openstack, options| {
        options.endpoint = None;
        options.login.region = Some(openstack.region(openstack.barbican()));
    });
    let key = world.key();
    world.check(&caller(&world.owner), &key).expect("permitted");
    let (blob, data) = (blob(), DataKey::random(&SystemEntropy::new()));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    assert_eq!(wrapped.master_key, format!("barbican:{key}"));
    let opened = world.unwrap(blob, &wrapped).expect("unwrapped");
    assert_eq!(opened.expose(), data.expose());

    let another = BlobId::random(&SystemEntropy::new());
    let refused = failed(world.unwrap(another, &wrapped));
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    let other = WrappedKey {
        master_key: format!("barbican:{}", world.key()),
        ..wrapped
    };
    assert_eq!(
        failed(world.unwrap(blob, &other)).kind(),
        ErrorKind::Damaged
    );
}

#[test]
fn secrets_that_are_not_there_are_missing() {
    let world = World::plain();
    let user = caller(&world.owner);
    let key = world.key();
    let hyphenless = key.replace('-', "");
    for id in ["k1", "00000000-0000-4000-8000-000000000000", &hyphenless] {
        missing(world.check(&user, id));
        missing(world.check(&job(&world.owner), id));
    }
    // Barbican itself knows no upper case.
    world.check(&user, &key.to_uppercase()).expect("permitted");
    // A reference is no id, so that nobody chooses whom the service shows its token.
    let reference = format!("http://evil.example/v1/secrets/{key}");
    assert!(reference.parse::<KeyId>().is_err());

    let (blob, data) = (blob(), DataKey::new([5; 32]));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    world.openstack.delete(&world.owner, &key);
    missing(world.check(&user, &key));
    missing(world.check(&job(&world.owner), &key));
    missing(world.unwrap(blob, &wrapped));
}

#[test]
fn secrets_of_another_make_are_not_enabled() {
    let world = World::plain();
    for fields in [
        // Made in two steps, of which the second is to come.
        json!({"payload": null, "payload_content_type": null, "payload_content_encoding": null}),
        json!({"payload": "AAECAwQFBgcICQoLDA0ODw=="}),
        json!({"payload": "AAECAwQFBgcICQoLDA0ODw==", "bit_length": 128}),
        json!({"algorithm": "des"}),
        json!({"bit_length": 192}),
        json!({"secret_type": "passphrase", "payload": "x".repeat(32),
            "payload_content_type": "text/plain", "payload_content_encoding": null}),
    ] {
        let secret = world.openstack.secret(&world.owner, &fields);
        world.open(&secret);
        let refused = world.check(&job(&world.owner), &secret).err();
        assert!(
            matches!(refused, Some(KeyFault::NotEnabled)),
            "{fields}: {refused:?}"
        );
    }
    for fields in [
        json!({"secret_type": "opaque", "algorithm": null, "bit_length": null}),
        json!({"algorithm": "AES", "mode": "gcm"}),
    ] {
        let secret = world.openstack.secret(&world.owner, &fields);
        world.open(&secret);
        let checked = world.check(&caller(&world.owner), &secret);
        assert!(checked.is_ok(), "{fields}: {checked:?}");
    }
}

#[test]
fn both_the_caller_and_the_service_have_to_be_let_in() {
    let world = World::plain();
    let openstack = &world.openstack;
    let (project, name) = (&world.owner.project, &world.owner.project_name);
    let colleague = openstack.user_in(project, name, "member");
    let reader = openstack.user_in(project, name, "reader");
    let stranger = openstack.user("member");
    let administrator = openstack.user("admin");
    let key = openstack.key(&world.owner);

    // The service is not on the list, whoever asks.
    forbidden(world.check(&caller(&world.owner), &key));
    forbidden(world.check(&job(&world.owner), &key));
    world.open(&key);
    for user in [&world.owner, &colleague] {
        world.check(&caller(user), &key).expect("permitted");
    }
    for user in [&reader, &stranger, &administrator] {
        forbidden(world.check(&caller(user), &key));
    }
    world.check(&job(&world.owner), &key).expect("permitted");
    forbidden(world.check(&by(&world.owner, Authority::Signed), &key));

    // Private: members are out, who is on the list is in, of whatever project.
    openstack.let_read(&world.owner, &key, &[&world.service, &stranger], false);
    forbidden(world.check(&caller(&colleague), &key));
    for user in [&world.owner, &stranger] {
        world.check(&caller(user), &key).expect("permitted");
    }
    // The caller alone does not do.
    openstack.let_read(&world.owner, &key, &[&stranger], false);
    forbidden(world.check(&caller(&stranger), &key));
}

#[test]
fn where_the_service_decides_alone_its_place_on_the_list_counts() {
    let world = World::new(|_, options| options.authorize = Authorize::Service);
    let stranger = world.openstack.user("member");
    let key = world.openstack.key(&world.owner);
    let users = || {
        [
            with_token(&stranger, "of another identity"),
            by(&stranger, Authority::Signed),
            job(&stranger),
        ]
    };
    for user in users() {
        forbidden(world.check(&user, &key));
    }
    world.open(&key);
    for user in users() {
        world.check(&user, &key).expect("permitted");
    }
}

#[test]
fn what_the_owner_closes_is_closed_and_opens_again() {
    let world = World::plain();
    let key = world.key();
    let (blob, data) = (blob(), DataKey::new([5; 32]));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    for _ in 0..2 {
        world.unwrap(blob, &wrapped).expect("unwrapped");
        world.close(&key);
        forbidden(world.check(&job(&world.owner), &key));
        forbidden(world.unwrap(blob, &wrapped));
        forbidden(world.wrap(&key, blob, &data));
        world.open(&key);
        world.check(&job(&world.owner), &key).expect("permitted");
    }
}

#[test]
fn a_permission_is_believed_and_a_refusal_is_not() {
    let world = World::new(|_, options| options.cache_life = Duration::from_secs(300));
    let key = world.openstack.key(&world.owner);
    forbidden(world.check(&caller(&world.owner), &key));
    world.open(&key);
    world.check(&caller(&world.owner), &key).expect("at once");
    let (blob, data) = (blob(), DataKey::new([5; 32]));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    world.close(&key);
    world.check(&caller(&world.owner), &key).expect("believed");
    // A wrap is opened with what Barbican gives now; and then the service knows better.
    until("the unwrapping to be refused", || {
        let outcome = world.unwrap(blob, &wrapped);
        matches!(outcome, Err(KeyFault::Forbidden)).then_some(())
    });
    forbidden(world.check(&caller(&world.owner), &key));
}

#[test]
fn a_secret_that_expires_is_missing_though_it_is_in_the_cache() {
    let world = World::new(|_, options| options.cache_life = Duration::from_secs(300));
    let expiration = SystemClock.now().plus(Duration::from_secs(40)).to_seconds();
    let fields = json!({"expiration": expiration.trim_end_matches('Z')});
    let key = world.openstack.secret(&world.owner, &fields);
    world.open(&key);
    world.check(&caller(&world.owner), &key).expect("permitted");
    let (blob, data) = (blob(), DataKey::new([5; 32]));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    until("the secret to expire", || {
        let outcome = world.check(&caller(&world.owner), &key);
        matches!(outcome, Err(KeyFault::Missing)).then_some(())
    });
    missing(world.unwrap(blob, &wrapped));
}

#[test]
fn a_callers_token_that_is_revoked_or_none_is_the_callers_matter() {
    let world = World::plain();
    let key = world.key();
    let refused = failed(world.check(&with_token(&world.owner, "gAAAAno-token"), &key));
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    world.openstack.end_tokens(&world.owner);
    let refused = failed(world.check(&caller(&world.owner), &key));
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    world.check(&job(&world.owner), &key).expect("permitted");
}

#[test]
fn a_callers_token_that_has_just_ended_counts_beside_the_services() {
    let world = World::plain();
    let key = world.key();
    let soon = SystemClock.now().plus(Duration::from_secs(20)).to_seconds();
    let ends = soon.trim_end_matches('Z');
    let short = world.openstack.short_token(&world.owner, ends);
    until("the token to end", || {
        (world.openstack.payload_status(&short, &key) == 401).then_some(())
    });
    let ended = with_token(&world.owner, &short);
    world.check(&ended, &key).expect("permitted");
}

#[test]
fn the_services_token_is_renewed_when_it_is_refused() {
    let world = World::plain();
    let key = world.key();
    world.check(&job(&world.owner), &key).expect("permitted");
    world.openstack.end_tokens(&world.service);
    // Keystone's revocations count in whole seconds: one may hit the fresh token too.
    until("a fresh token to be taken", || {
        world.check(&job(&world.owner), &key).ok()
    });
}

#[test]
fn a_login_that_is_refused_is_unavailable_and_not_a_refusal() {
    let world = World::new(|_, options| {
        options.login.password = Zeroizing::new("wrong".to_owned());
    });
    let key = world.key();
    unavailable(world.check(&job(&world.owner), &key));
}

#[test]
fn barbican_going_away_in_the_middle_is_unavailable_and_passes() {
    let door = Door::to(&OpenStack::connect());
    let world = World::new(|_, options| options.endpoint = Some(door.url()));
    let key = world.key();
    let (blob, data) = (blob(), DataKey::new([5; 32]));
    let wrapped = world.wrap(&key, blob, &data).expect("wrapped");
    door.shut(true);
    unavailable(world.unwrap(blob, &wrapped));
    door.shut(false);
    let opened = world.unwrap(blob, &wrapped).expect("unwrapped");
    assert_eq!(opened.expose(), data.expose());
}

fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A way to Barbican that can be shut.
struct Door {
    address: SocketAddr,
    shut: Arc<AtomicBool>,
}

impl Door {
    fn to(openstack: &OpenStack) -> Self {
        let barbican = openstack
            .barbican()
            .trim_start_matches("http://")
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shut = Arc::new(AtomicBool::new(false));
        let closed = Arc::clone(&shut);
        std::thread::spawn(move || {
            for inside in listener.incoming().flatten() {
                if closed.load(Ordering::SeqCst) {
                    continue;
                }
                let outside = TcpStream::connect(&barbican).expect("Barbican");
                pass(&inside, &outside, &closed);
                pass(&outside, &inside, &closed);
            }
        });
        Self { address, shut }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }
}

/// Carries bytes one way until the door is shut.
fn pass(from: &TcpStream, to: &TcpStream, shut: &Arc<AtomicBool>) {
    use std::io::{Read as _, Write as _};
    let mut from = from.try_clone().expect("a socket");
    let mut to = to.try_clone().expect("a socket");
    let shut = Arc::clone(shut);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = from.read(&mut buffer) {
            let open = length > 0 && !shut.load(Ordering::SeqCst);
            if !open || to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(std::net::Shutdown::Both);
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
