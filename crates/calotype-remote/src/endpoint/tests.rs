use super::*;
use crate::scripted::{Same, Script, Step, json};

fn endpoint(script: &Arc<Script>, bits: u8) -> Endpoint {
    let connection = Connection::default();
    let names = Names {
        name: "it",
        away: "It is away.",
    };
    Endpoint::over(
        names,
        Arc::clone(script) as _,
        &connection,
        Arc::new(Same(bits)),
    )
}

fn request() -> Request {
    Request::get("http://key.example/v1".parse().unwrap())
}

async fn call(endpoint: &Endpoint) -> Result<u16> {
    let answer = endpoint.call(&request(), endpoint.deadline()).await;
    answer.map(|answer| answer.status)
}

fn retry_after(outcome: Result<u16>) -> Duration {
    match outcome.unwrap_err().kind() {
        ErrorKind::Unavailable { retry_after } => retry_after,
        other => panic!("{other:?}"),
    }
}

fn waits(script: &Script) -> Vec<Duration> {
    let sent = script.sent();
    sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_away_is_asked_four_times_with_growing_waits() {
    let script = Script::new([
        Step::Trouble(Trouble::Connection("refused".to_owned())),
        json(502, "<html>"),
        json(302, ""),
        json(200, "{}"),
    ]);
    assert_eq!(call(&endpoint(&script, 0xff)).await.unwrap(), 200);
    assert_eq!(waits(&script), [200, 400, 800].map(Duration::from_millis));
}

#[tokio::test(start_paused = true)]
async fn the_waits_may_be_anything_down_to_nothing() {
    let script = Script::new((0..4).map(|_| json(503, "")));
    assert_eq!(retry_after(call(&endpoint(&script, 0)).await), RETRY_AFTER);
    assert_eq!(waits(&script), [Duration::ZERO; 3]);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_the_callers_and_come_at_once() {
    for status in [200, 204, 400, 401, 403, 404, 406] {
        let script = Script::new([json(status, "{}")]);
        assert_eq!(call(&endpoint(&script, 0xff)).await.unwrap(), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_endpoint_is_given_the_time_that_it_asks_for() {
    let asks = |seconds| Step::Answer(429, seconds, String::new());
    let script = Script::new([asks(&[("retry-after", "7")]), json(200, "{}")]);
    assert_eq!(call(&endpoint(&script, 0)).await.unwrap(), 200);
    assert_eq!(waits(&script), [Duration::from_secs(7)]);
    // More than there is: the answer comes back at once.
    let script = Script::new([asks(&[("retry-after", "60")])]);
    assert_eq!(call(&endpoint(&script, 0)).await.unwrap(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline() {
    let script = Script::new((0..4).map(|_| Step::Hang));
    let endpoint = endpoint(&script, 0xff);
    let begin = Instant::now();
    call(&endpoint).await.unwrap_err();
    assert!(begin.elapsed() <= Connection::default().time_limit);
    assert_eq!(
        script.sent().len(),
        3,
        "two whole attempts and a part of one"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stays_away_is_left_alone_and_tried_once_more_later() {
    let script = Script::new(
        (0..5)
            .map(|_| json(500, ""))
            .chain([json(500, ""), json(404, "")]),
    );
    let endpoint = endpoint(&script, 0);
    call(&endpoint).await.unwrap_err();
    let asked = retry_after(call(&endpoint).await);
    assert_eq!(asked, Duration::from_secs(10));
    assert_eq!(
        script.sent().len(),
        5,
        "one of the second call's, and no more"
    );
    call(&endpoint).await.unwrap_err();
    assert_eq!(script.sent().len(), 5);
    tokio::time::advance(asked).await;
    call(&endpoint).await.unwrap_err();
    assert_eq!(script.sent().len(), 6, "the probe");
    tokio::time::advance(asked).await;
    assert_eq!(call(&endpoint).await.unwrap(), 404);
}

#[tokio::test(start_paused = true)]
async fn being_busy_is_not_being_away() {
    let script = Script::new((0..8).map(|_| json(429, "")).chain([json(200, "")]));
    let endpoint = endpoint(&script, 0);
    assert_eq!(call(&endpoint).await.unwrap(), 429);
    assert_eq!(call(&endpoint).await.unwrap(), 429);
    assert_eq!(call(&endpoint).await.unwrap(), 200);
}
