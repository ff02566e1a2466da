use super::*;
use crate::endpoint::Names;
use crate::scripted::{Same, Script, Step, json};
use crate::transport::Connection;
use calotype_core::ErrorKind;

const EXPIRES: &str = "2026-11-24T12:00:00.000000Z";

struct At(std::sync::Mutex<Timestamp>);

impl Clock for At {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn granted(token: &'static str) -> Step {
    let place = |interface, region, url| serde_json::json!({"interface": interface, "region_id": region, "region": region, "url": url});
    let body = serde_json::json!({"token": {
        "expires_at": EXPIRES, "user": {"id": "u1", "name": "svc"}, "project": {"id": "p1"},
        "catalog": [
            {"type": "kms", "endpoints": [
                place("internal", "eu-de", "http://internal"), place("public", "eu-nl", "http://nl"),
                place("public", "eu-de", "http://de")]},
            {"type": "empty"},
        ],
    }});
    let headers: &'static [_] = match token {
        "one" => &[("x-subject-token", "one")],
        _ => &[("x-subject-token", "two")],
    };
    Step::Answer(201, headers, body.to_string())
}

fn session(script: &Arc<Script>) -> (Session, Arc<At>) {
    let clock = Arc::new(At(std::sync::Mutex::new(
        Timestamp::parse("2026-11-24T11:00:00Z").unwrap(),
    )));
    let login = Login {
        auth_url: "http://keystone.example/identity/v3/".to_owned(),
        user: "svc".to_owned(),
        user_domain: "Default".to_owned(),
        password: Zeroizing::new("a \"quoted\" password".to_owned()),
        scope: LoginScope::Project("service".to_owned(), "Default".to_owned()),
        region: Some("eu-de".to_owned()),
        interface: "public".to_owned(),
    };
    let (connection, bits) = (Connection::default(), Arc::new(Same(0)));
    let names = Names {
        name: "Keystone",
        away: "It is away.",
    };
    let endpoint = Endpoint::over(names, Arc::clone(script) as _, &connection, bits);
    let session = Session::new(login, endpoint, Arc::clone(&clock) as _).unwrap();
    (session, clock)
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(15)
}

#[tokio::test(start_paused = true)]
async fn a_login_is_made_when_it_is_needed_kept_and_renewed_before_it_ends() {
    let script = Script::new([granted("one"), granted("two")]);
    let (session, clock) = session(&script);
    for _ in 0..2 {
        let granted = session.granted(deadline()).await.unwrap();
        assert_eq!(
            (granted.token.as_str(), granted.project.as_str()),
            ("one", "p1")
        );
    }
    // What the node takes for the time of day says nothing of the token.
    *clock.0.lock().unwrap() = Timestamp::parse("2026-11-25T11:00:00Z").unwrap();
    assert_eq!(
        session.granted(deadline()).await.unwrap().token.as_str(),
        "one"
    );
    tokio::time::advance(Duration::from_secs(59 * 60)).await;
    assert_eq!(
        session.granted(deadline()).await.unwrap().token.as_str(),
        "two"
    );
    let sent = &script.sent()[0].1;
    assert_eq!(
        sent.url.as_str(),
        "http://keystone.example/identity/v3/auth/tokens"
    );
    let body: serde_json::Value = serde_json::from_slice(sent.body.as_ref().unwrap()).unwrap();
    let user = &body["auth"]["identity"]["password"]["user"];
    assert_eq!(user["password"], "a \"quoted\" password");
    assert_eq!(
        body["auth"]["scope"]["project"]["domain"]["name"],
        "Default"
    );
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_of_the_region_and_interface_that_were_asked_for() {
    let script = Script::new([granted("one")]);
    let (session, _) = session(&script);
    let granted = session.granted(deadline()).await.unwrap();
    let find = |kinds: &[&str]| {
        session
            .find(&granted, kinds)
            .map(|(i, url)| (i, url.to_owned()))
    };
    assert_eq!(find(&["kmsv1", "kms"]), Some((1, "http://de".to_owned())));
    assert_eq!(find(&["key-manager", "empty"]), None);
}

#[tokio::test(start_paused = true)]
async fn those_who_come_at_once_share_one_login() {
    let script = Script::new([granted("one")]);
    let (session, _) = session(&script);
    let all = (0..20).map(|_| session.granted(deadline()));
    for granted in futures_util::future::join_all(all).await {
        assert_eq!(granted.unwrap().token.as_str(), "one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_tried_again_for_a_while() {
    let script = Script::new([json(401, "{}"), granted("one")]);
    let (session, _) = session(&script);
    for _ in 0..3 {
        let refused = session.granted(deadline()).await.err().unwrap();
        assert!(matches!(refused.kind(), ErrorKind::Unavailable { .. }));
    }
    assert_eq!(script.sent().len(), 1);
    tokio::time::advance(REFUSED).await;
    assert!(session.granted(deadline()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_login_is_given_up_once_and_not_when_it_is_young() {
    let script = Script::new([granted("one"), granted("two")]);
    let (session, _) = session(&script);
    let one = session.granted(deadline()).await.unwrap();
    let young = Duration::from_secs(5);
    assert!(!session.give_up(&one, young).await);
    tokio::time::advance(young).await;
    assert!(session.give_up(&one, young).await);
    let two = session.granted(deadline()).await.unwrap();
    assert_eq!(two.token.as_str(), "two");
    // A second one who held the old token.
    assert!(session.give_up(&one, young).await);
    assert!(Arc::ptr_eq(
        &session.granted(deadline()).await.unwrap(),
        &two
    ));
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_sense_are_no_login() {
    for step in [
        json(201, "{}"),
        Step::Answer(201, &[("x-subject-token", "t")], "{}".to_owned()),
        Step::Answer(201, &[("x-subject-token", "t")], "<html>".to_owned()),
    ] {
        let (session, _) = session(&Script::new([step]));
        assert!(session.granted(deadline()).await.is_err());
    }
}

#[test]
fn the_password_is_not_shown() {
    let (session, _) = session(&Script::new([]));
    assert!(!format!("{:?}", session.login).contains("quoted"));
}
