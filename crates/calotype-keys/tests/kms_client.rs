//! The KMS adapter over real sockets, against a KMS that breaks as it is told.
#![expect(
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "clippy does not see that a test's own functions are tests; the stub can do more than is done here"
)]

mod stub;

use std::sync::Arc;
use std::time::Duration;

use calotype_core::codes::ImsCode;
use calotype_core::id::{BlobId, KeyId};
use calotype_core::keys::{
    Authority, CallerToken, KeyFault, KeyPurpose, KeyResult, KeyUser, MasterKey,
};
use calotype_core::ports::{Clock, DataKey, Entropy, KeyService, WrappedKey};
use calotype_core::time::Timestamp;
use calotype_core::{Error, ErrorKind};
use calotype_keys::{
    AccessKey, Authorize, ContextField, Kms, KmsCredential, KmsOptions, SystemEntropy,
};
use calotype_remote::{Connection, Login, LoginScope};
use serde_json::{Value, json};
use stub::{Fault, Stub};
use zeroize::Zeroizing;

const K: &str = "bbbbbbbb-0000-0000-0000-000000000002";
const OTHER: &str = "cccccccc-0000-0000-0000-000000000003";

/// A status, a body, and whether a fault is what they mean.
type Meaning = (u16, String, fn(&KeyFault) -> bool);

/// No waits between attempts.
struct NoJitter;

impl Entropy for NoJitter {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::parse("2026-11-24T12:00:00Z").expect("a time")
    }
}

fn login(stub: &Stub) -> KmsCredential {
    KmsCredential::Login(Login {
        auth_url: stub.url.clone(),
        user: "svc".to_owned(),
        user_domain: "Default".to_owned(),
        password: Zeroizing::new("geheim".to_owned()),
        scope: LoginScope::Project("service".to_owned(), "Default".to_owned()),
        region: None,
        interface: "public".to_owned(),
    })
}

fn options(stub: &Stub) -> KmsOptions {
    KmsOptions {
        endpoint: None,
        credential: login(stub),
        authorize: Authorize::Caller,
        context: ContextField::EncryptionContext,
        cache_life: Duration::ZERO,
        connection: Connection {
            attempt_timeout: Duration::from_secs(2),
            ..Connection::default()
        },
    }
}

fn kms_with(options: KmsOptions) -> Kms {
    let entropy: Arc<dyn Entropy> = Arc::new(NoJitter);
    Kms::new(options, &entropy, Arc::new(Noon)).expect("a KMS")
}

async fn world() -> (Stub, Kms) {
    let stub = Stub::start().await;
    let fields = json!({"key_state": "2", "key_spec": "AES_256", "key_usage": "ENCRYPT_DECRYPT"});
    stub.key(K, fields);
    stub.key(OTHER, json!({"key_state": "2"}));
    let kms = kms_with(options(&stub));
    (stub, kms)
}

fn user(authority: Authority) -> KeyUser {
    KeyUser {
        project: "cp".parse().expect("an id"),
        user: "u1".parse().expect("an id"),
        authority,
    }
}

fn token(text: &str) -> Authority {
    Authority::Token(CallerToken::new(text.to_owned()))
}

fn id(text: &str) -> KeyId {
    text.parse().expect("an id")
}

fn blob() -> BlobId {
    BlobId::random(&SystemEntropy::new())
}

async fn check(kms: &Kms, authority: Authority, key: &str) -> KeyResult<()> {
    kms.check(&user(authority), &id(key), KeyPurpose::Seal)
        .await
}

async fn wrap(kms: &Kms, blob: BlobId, key: &DataKey) -> KeyResult<WrappedKey> {
    let master = MasterKey::Customer(id(K), user(Authority::Job));
    kms.wrap(&master, blob, key).await
}

fn failed<T>(outcome: KeyResult<T>) -> Error {
    match outcome {
        Err(KeyFault::Failed(error)) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it went well"),
    }
}

fn is_unavailable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable { .. })
}

#[tokio::test]
async fn a_data_key_comes_back_for_its_blob_and_for_no_other() {
    let (stub, kms) = world().await;
    let (blob, key) = (blob(), DataKey::random(&SystemEntropy::new()));
    let wrapped = wrap(&kms, blob, &key).await.expect("wrapped");
    assert_eq!(wrapped.master_key, format!("kms:{K}"));
    let opened = kms.unwrap(blob, &wrapped).await.expect("unwrapped");
    assert_eq!(opened.expose(), key.expose());
    assert_eq!(stub.logins(), 1);
    let seen = stub.seen("encrypt-datakey");
    assert_eq!(seen[0].path, "/v1.0/sp/kms/encrypt-datakey");
    assert_eq!(
        seen[0].body["encryption_context"],
        json!({"calotype": blob.to_string()})
    );

    let elsewhere = BlobId::random(&SystemEntropy::new());
    let refused = failed(kms.unwrap(elsewhere, &wrapped).await);
    assert_eq!(refused.kind(), ErrorKind::Damaged);
}

#[tokio::test]
async fn the_binding_holds_where_the_provider_takes_no_context() {
    let (stub, _) = world().await;
    for context in [ContextField::None, ContextField::AdditionalData] {
        let kms = kms_with(KmsOptions {
            context,
            ..options(&stub)
        });
        let (mine, theirs, key) = (blob(), blob(), DataKey::new([5; 32]));
        let wrapped = wrap(&kms, mine, &key).await.expect("wrapped");
        assert!(kms.unwrap(mine, &wrapped).await.is_ok());
        let refused = failed(kms.unwrap(theirs, &wrapped).await);
        assert_eq!(refused.kind(), ErrorKind::Damaged, "{context:?}");
        // Another setting now: the wrap says how it was made.
        assert!(
            kms_with(options(&stub))
                .unwrap(mine, &wrapped)
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn a_wrap_of_another_key_or_with_a_flipped_bit_does_not_open() {
    let (_stub, kms) = world().await;
    let (blob, key) = (blob(), DataKey::new([5; 32]));
    let wrapped = wrap(&kms, blob, &key).await.expect("wrapped");
    let other = WrappedKey {
        master_key: format!("kms:{OTHER}"),
        ..wrapped.clone()
    };
    assert_eq!(
        failed(kms.unwrap(blob, &other).await).kind(),
        ErrorKind::Damaged
    );
    for (place, bit) in [(0, 1), (1, 4), (2, 1), (40, 64)] {
        let mut flipped = wrapped.clone();
        flipped.sealed[place] ^= bit;
        let refused = failed(kms.unwrap(blob, &flipped).await);
        assert_eq!(refused.kind(), ErrorKind::Damaged, "byte {place}");
    }
    let mut longer = wrapped;
    longer.sealed.extend([b'A'; 5000]);
    assert_eq!(
        failed(kms.unwrap(blob, &longer).await).kind(),
        ErrorKind::Damaged
    );
}

#[tokio::test]
async fn answers_that_lie_are_found_out() {
    let (stub, kms) = world().await;
    let (blob, key) = (blob(), DataKey::new([5; 32]));
    let wrapped = wrap(&kms, blob, &key).await.expect("wrapped");
    // Digest and all, but another blob's: so may the wrap be.
    stub.break_next([Fault::Changed(|answer| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[7; 64]);
        answer["data_key"] = json!("07".repeat(64));
        answer["datakey_dgst"] = json!(hex::encode(digest));
    })]);
    let refused = failed(kms.unwrap(blob, &wrapped).await);
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    // What does not agree with itself says nothing of the wrap.
    let edits: [fn(&mut Value); 3] = [
        |answer| answer["datakey_dgst"] = json!("00".repeat(32)),
        |answer| answer["data_key"] = json!("07".repeat(63)),
        |answer| answer["data_key"] = json!("zz".repeat(64)),
    ];
    for edit in edits {
        stub.break_next([Fault::Changed(edit)]);
        let refused = failed(kms.unwrap(blob, &wrapped).await);
        assert!(is_unavailable(&refused), "{refused:?}");
    }
    let edits: [fn(&mut Value); 4] = [
        |answer| answer["key_id"] = json!(OTHER),
        |answer| answer["cipher_text"] = json!("A".repeat(4097)),
        |answer| answer["cipher_text"] = json!("not a ciphertext"),
        |answer| *answer = json!([]),
    ];
    for edit in edits {
        stub.break_next([Fault::Changed(edit)]);
        assert!(is_unavailable(&failed(wrap(&kms, blob, &key).await)));
    }
    stub.break_next([Fault::Changed(|answer| {
        answer["key_info"]["key_id"] = json!(OTHER);
    })]);
    assert!(is_unavailable(&failed(
        check(&kms, Authority::Job, K).await
    )));
}

#[tokio::test]
async fn a_key_that_lets_in_nobody_but_the_service_is_told_from_one_that_may_let_in_others() {
    let (stub, kms) = world().await;
    let grant = |who: &str, kind: Value, operations: &[&str]| json!({"grantee_principal": who, "grantee_principal_type": kind, "operations": operations});
    let reads = ["describe-key", "decrypt-datakey", "encrypt-datakey"];
    let own = grant("svc", json!("user"), &reads);
    let cases = [
        (vec![], "false", Some(false)),
        (vec![own.clone()], "false", Some(false)),
        (
            vec![own.clone(), grant("u2", json!("user"), &["describe-key"])],
            "false",
            Some(false),
        ),
        (
            vec![own.clone(), grant("u2", json!("user"), &reads)],
            "false",
            None,
        ),
        (vec![grant("u2", Value::Null, &reads)], "false", None),
        (vec![grant("svc", json!("domain"), &reads)], "false", None),
        (vec![own], "true", None),
    ];
    let asked = async |kms: &Kms, authority, answer: (u16, String)| {
        stub.break_next([
            Fault::Changed(|_| ()),
            Fault::Answer(answer.0, "", answer.1),
        ]);
        let project = "p2".parse().expect("an id");
        let told = kms.lets_read(&user(authority), &id(K), &project).await;
        assert_eq!(stub.faults_left(), 0);
        told
    };
    for (grants, truncated, expected) in cases {
        let list = json!({"grants": grants, "truncated": truncated, "next_marker": ""});
        let told = asked(&kms, token("t1"), (200, list.to_string())).await;
        assert_eq!(told.expect("told"), expected, "{list}");
    }
    let seen = stub.seen("list-grants");
    let last = seen.last().expect("asked");
    assert_eq!(last.path, "/v1.0/cp/kms/list-grants");
    assert_eq!(last.headers["x-auth-token"], "t1");
    assert_eq!(last.body, json!({"key_id": K, "limit": "50"}));
    let none = json!({"grants": [], "truncated": "false"}).to_string();
    let told = asked(&kms, Authority::Job, (200, none)).await;
    assert_eq!(told.expect("told"), Some(false));
    let seen = stub.seen("list-grants");
    assert_eq!(seen.last().expect("asked").path, "/v1.0/sp/kms/list-grants");
    // Who may not see the grants learns nothing of them.
    let refusal = json!({"error": {"error_code": "KMS.0306", "error_msg": "no"}}).to_string();
    for authority in [token("t1"), Authority::Job] {
        let told = asked(&kms, authority, (403, refusal.clone())).await;
        assert_eq!(told.expect("told"), None);
    }
    let told = asked(&kms, Authority::Job, (200, "[]".to_owned())).await;
    assert!(is_unavailable(&failed(told)));
    stub.key(K, json!({"key_state": "3"}));
    let project = "p2".parse().expect("an id");
    let told = kms.lets_read(&user(Authority::Job), &id(K), &project).await;
    assert!(matches!(told, Err(KeyFault::NotEnabled)), "{told:?}");
}

#[tokio::test]
async fn the_probe_lists_one_key_with_the_services_credential() {
    let (stub, kms) = world().await;
    let listed = json!({"keys": [K], "truncated": "true", "next_marker": "1", "total": 2});
    stub.break_next([Fault::Answer(200, "", listed.to_string())]);
    kms.probe().await.expect("known");
    let seen = stub.seen("list-keys");
    assert_eq!(seen[0].path, "/v1.0/sp/kms/list-keys");
    assert_eq!(seen[0].body, json!({"limit": "1"}));
    // It need not be allowed to.
    let refusal = json!({"error": {"error_code": "KMS.0306"}}).to_string();
    stub.break_next([Fault::Answer(403, "", refusal)]);
    kms.probe().await.expect("known");
    for (status, body) in [
        (200, json!([])),
        (403, json!({"error": {"error_code": "KMS.0320"}})),
    ] {
        stub.break_next([Fault::Answer(status, "", body.to_string())]);
        kms.probe().await.expect_err("refused");
    }
}

#[tokio::test]
async fn each_refusal_has_its_meaning() {
    let (stub, kms) = world().await;
    let nested =
        |code: &str| json!({"error": {"error_code": code, "error_msg": "geheim"}}).to_string();
    let flat = |code: &str| {
        json!({"error_code": code, "error_msg": "geheim", "request_id": "r"}).to_string()
    };
    let cases: [Meaning; 17] = [
        (404, nested("KMS.0207"), |f| matches!(f, KeyFault::Missing)),
        (400, nested("KMS.0205"), |f| matches!(f, KeyFault::Missing)),
        (400, nested("KMS.0209"), |f| {
            matches!(f, KeyFault::NotEnabled)
        }),
        (400, nested("KMS.0210"), |f| {
            matches!(f, KeyFault::NotEnabled)
        }),
        (400, nested("KMS.1301"), |f| {
            matches!(f, KeyFault::NotEnabled)
        }),
        (400, nested("KMS.0325"), |f| {
            matches!(f, KeyFault::NotEnabled)
        }),
        (403, nested("KMS.0306"), |f| {
            matches!(f, KeyFault::Forbidden)
        }),
        (403, nested("KMS.0307"), |f| {
            matches!(f, KeyFault::Forbidden)
        }),
        (
            403,
            nested("KMS.0304"),
            |f| matches!(f, KeyFault::Failed(e) if e.code() == Some(ImsCode::IMG_0100)),
        ),
        (
            403,
            nested("KMS.0321"),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
        (
            403,
            nested("KMS.0328"),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
        (
            403,
            flat("APIGW.0101"),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
        (
            404,
            flat("APIGW.0101"),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
        (
            404,
            "<html>".to_owned(),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
        (
            400,
            nested("KMS.2201"),
            |f| matches!(f, KeyFault::Failed(e) if e.kind() == ErrorKind::Damaged),
        ),
        (
            400,
            nested("KMS.0308"),
            |f| matches!(f, KeyFault::Failed(e) if e.kind() == ErrorKind::Internal),
        ),
        (
            400,
            nested("KMS.0105"),
            |f| matches!(f, KeyFault::Failed(e) if is_unavailable(e)),
        ),
    ];
    for (status, body, expected) in cases {
        let shown = format!("{status} {body}");
        stub.break_next([Fault::Answer(status, "", body)]);
        let fault = check(&kms, Authority::Job, K).await.expect_err(&shown);
        assert!(expected(&fault), "{shown}: {fault:?}");
        // What the KMS wrote is not repeated.
        assert!(!format!("{fault:?}").contains("geheim"));
    }
}

#[tokio::test]
async fn a_busy_kms_is_throttling_in_either_envelope() {
    let (stub, kms) = world().await;
    for (status, body) in [
        (
            429,
            json!({"error_code": "APIGW.0308", "error_msg": "m", "request_id": "r"}),
        ),
        (
            429,
            json!({"error": {"error_code": "APIGW.0308", "error_msg": "m"}}),
        ),
        (400, json!({"error_code": "SYS.Throttling"})),
    ] {
        let headers = "Retry-After: 77\r\n";
        stub.break_next([Fault::Answer(status, headers, body.to_string())]);
        let fault = check(&kms, Authority::Job, K).await.expect_err("busy");
        let KeyFault::Throttled { retry_after } = fault else {
            panic!("{fault:?}")
        };
        assert_eq!(retry_after, Duration::from_secs(77));
    }
}

#[tokio::test]
async fn what_passes_by_itself_is_tried_again() {
    let (stub, kms) = world().await;
    let html = || Fault::Answer(502, "", "<html>bad gateway</html>".to_owned());
    let redirect = || Fault::Answer(307, "Location: /v1.0/sp/kms/elsewhere\r\n", String::new());
    let oversize = || Fault::Answer(200, "", format!("{{\"x\":\"{}\"}}", "x".repeat(70_000)));
    let each: [fn() -> Fault; 4] = [
        || Fault::SlowHeaders,
        || Fault::SlowBody,
        || Fault::Truncated,
        || Fault::Reset,
    ];
    let faults = each.map(|fault| fault()).into_iter();
    for fault in faults.chain([html(), redirect(), oversize()]) {
        stub.break_next([fault]);
        check(&kms, Authority::Job, K)
            .await
            .expect("the second time");
        assert_eq!(stub.faults_left(), 0);
    }
    assert!(
        stub.seen("elsewhere").is_empty(),
        "a redirect is not followed"
    );
}

#[tokio::test]
async fn a_kms_that_stays_away_is_unavailable_and_then_left_alone() {
    let (stub, kms) = world().await;
    stub.break_next((0..5).map(|_| Fault::Reset));
    assert!(is_unavailable(&failed(
        check(&kms, Authority::Job, K).await
    )));
    assert!(is_unavailable(&failed(
        check(&kms, Authority::Job, K).await
    )));
    let asked = stub.seen("describe-key").len();
    // The breaker is open: nothing is sent, though the KMS is back.
    let error = failed(check(&kms, Authority::Job, K).await);
    assert!(error.chain().contains("left alone"), "{}", error.chain());
    assert_eq!(stub.seen("describe-key").len(), asked);
}

#[tokio::test]
async fn a_stale_login_is_renewed_once() {
    let (stub, kms) = world().await;
    let stale = || Fault::Answer(401, "", json!({"error_code": "APIGW.0301"}).to_string());
    let stale_as_documented = || {
        Fault::Answer(
            403,
            "",
            json!({"error": {"error_code": "KMS.0303"}}).to_string(),
        )
    };
    for (index, fault) in [stale(), stale_as_documented()].into_iter().enumerate() {
        stub.break_next([fault]);
        check(&kms, Authority::Job, K)
            .await
            .expect("with a fresh login");
        assert_eq!(stub.logins(), index + 2);
    }
    stub.break_next([stale(), stale()]);
    assert!(is_unavailable(&failed(
        check(&kms, Authority::Job, K).await
    )));
    assert_eq!(stub.logins(), 4);
    check(&kms, Authority::Job, K).await.expect("again");
}

#[tokio::test]
async fn only_an_enabled_symmetric_key_is_usable() {
    let (stub, kms) = world().await;
    for fields in [
        json!({"key_state": "1"}),
        json!({"key_state": "3"}),
        json!({"key_state": "4"}),
        json!({"key_state": "5"}),
        json!({"key_state": "2", "key_spec": "RSA_2048"}),
        json!({"key_state": "2", "key_spec": "SM4", "key_usage": "ENCRYPT_DECRYPT"}),
        json!({"key_state": "2", "key_spec": "AES_256", "key_usage": "SIGN_VERIFY"}),
    ] {
        stub.key(K, fields.clone());
        let refused = check(&kms, Authority::Job, K).await;
        assert!(matches!(refused, Err(KeyFault::NotEnabled)), "{fields}");
    }
    // Older answers say nothing of spec and usage.
    stub.key(K, json!({"key_state": "2"}));
    assert!(check(&kms, Authority::Job, K).await.is_ok());
}

#[tokio::test]
async fn ids_that_no_kms_gives_out_are_missing_and_not_asked_for() {
    let (stub, kms) = world().await;
    for key in [
        "k1",
        "BBBBBBBB-0000-0000-0000-000000000002",
        &"b".repeat(36),
    ] {
        let refused = check(&kms, Authority::Job, key).await;
        assert!(matches!(refused, Err(KeyFault::Missing)), "{key}");
    }
    assert_eq!(stub.logins(), 0);
    let unknown = "dddddddd-0000-0000-0000-000000000004";
    let refused = check(&kms, Authority::Job, unknown).await;
    assert!(matches!(refused, Err(KeyFault::Missing)));
}

#[tokio::test]
async fn the_caller_is_asked_for_first_and_the_service_then() {
    let (stub, kms) = world().await;
    stub.caller("good", 200, "");
    stub.caller("stranger", 403, "KMS.0306");
    stub.caller("expired", 401, "KMS.0303");
    assert!(check(&kms, token("good"), K).await.is_ok());
    let seen = stub.seen("describe-key");
    assert_eq!(seen[0].path, "/v1.0/cp/kms/describe-key");
    assert_eq!(seen[0].headers["x-auth-token"], "good");
    assert_eq!(seen[1].path, "/v1.0/sp/kms/describe-key");

    let refused = check(&kms, token("stranger"), K).await;
    assert!(matches!(refused, Err(KeyFault::Forbidden)));
    assert_eq!(
        stub.seen("describe-key").len(),
        3,
        "the service was not asked"
    );
    let refused = failed(check(&kms, token("expired"), K).await);
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    assert_eq!(
        stub.logins(),
        1,
        "a caller's token is not the service's matter"
    );
    let refused = check(&kms, Authority::Signed, K).await;
    assert!(matches!(refused, Err(KeyFault::Forbidden)));
}

#[tokio::test]
async fn where_the_service_decides_alone_no_callers_token_is_shown() {
    let (stub, _) = world().await;
    let kms = kms_with(KmsOptions {
        authorize: Authorize::Service,
        ..options(&stub)
    });
    for authority in [token("unknown"), Authority::Signed, Authority::Job] {
        assert!(check(&kms, authority, K).await.is_ok());
    }
    for seen in stub.seen("describe-key") {
        assert!(seen.headers["x-auth-token"].starts_with("service-"));
    }
}

#[tokio::test]
async fn a_permission_is_believed_for_the_caches_life_and_for_that_token_only() {
    let (stub, _) = world().await;
    let kms = kms_with(KmsOptions {
        cache_life: Duration::from_secs(300),
        ..options(&stub)
    });
    stub.caller("good", 200, "");
    stub.caller("other", 403, "KMS.0306");
    for _ in 0..3 {
        assert!(check(&kms, token("good"), K).await.is_ok());
    }
    assert_eq!(stub.seen("describe-key").len(), 2);
    let refused = check(&kms, token("other"), K).await;
    assert!(matches!(refused, Err(KeyFault::Forbidden)));
    // A wrap is never believed: the KMS opens it, or not.
    stub.key(K, json!({"key_state": "2"}));
    let (blob, key) = (blob(), DataKey::new([5; 32]));
    let wrapped = wrap(&kms, blob, &key).await.expect("wrapped");
    let away = json!({"error": {"error_code": "KMS.0209"}}).to_string();
    stub.break_next([Fault::Answer(400, "", away)]);
    let refused = kms.unwrap(blob, &wrapped).await;
    assert!(matches!(refused, Err(KeyFault::NotEnabled)));
}

#[tokio::test]
async fn an_access_key_signs_every_request_for_its_project() {
    let (stub, _) = world().await;
    let key = AccessKey {
        id: "AK".to_owned(),
        secret: Zeroizing::new("sk-geheim".to_owned()),
        project: "sp".to_owned(),
    };
    let signing = |endpoint: Option<String>| KmsOptions {
        endpoint,
        credential: KmsCredential::AccessKey(key.clone()),
        ..options(&stub)
    };
    let entropy: Arc<dyn Entropy> = Arc::new(NoJitter);
    let refused = Kms::new(signing(None), &entropy, Arc::new(Noon));
    assert!(refused.is_err(), "no endpoint");
    let kms = kms_with(signing(Some(stub.url.clone())));
    check(&kms, Authority::Job, K).await.expect("permitted");
    let seen = &stub.seen("describe-key")[0];
    assert_eq!(seen.path, "/v1.0/sp/kms/describe-key");
    assert_eq!(seen.headers["x-project-id"], "sp");
    assert!(seen.headers["authorization"].starts_with("SDK-HMAC-SHA256 Access=AK, "));
    assert_eq!(stub.logins(), 0);
    let unauthorized = json!({"error_code": "APIGW.0301"}).to_string();
    stub.break_next([Fault::Answer(401, "", unauthorized)]);
    assert!(is_unavailable(&failed(
        check(&kms, Authority::Job, K).await
    )));
}

#[tokio::test]
async fn the_catalogs_url_may_have_the_project_or_not() {
    let (stub, _) = world().await;
    for endpoint in ["", "/", "/v1.0", "/v1.0/"] {
        let kms = kms_with(KmsOptions {
            endpoint: Some(format!("{}{endpoint}", stub.url)),
            ..options(&stub)
        });
        assert!(check(&kms, Authority::Job, K).await.is_ok(), "{endpoint:?}");
    }
    for endpoint in ["ftp://x", "kms.example.com", ""] {
        let entropy: Arc<dyn Entropy> = Arc::new(NoJitter);
        let options = KmsOptions {
            endpoint: Some(endpoint.to_owned()),
            ..options(&stub)
        };
        assert!(
            Kms::new(options, &entropy, Arc::new(Noon)).is_err(),
            "{endpoint:?}"
        );
    }
}
