//! What the operator's machines ask: is it alive, is it ready, how is it doing.
//!
//! No label of a metric is taken from a request but its method, if it is a known one, and the template of its
//! route: the number of time series is bounded, and no id or name is among them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use calotype_core::Error;
use calotype_core::app::Service;
use calotype_identity::Standing;
use http::{Method, StatusCode, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::errors::Reply;
use crate::state::ApiState;

/// The content type of Prometheus' text form.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

const REQUESTS: &str = "calotype_http_requests_total";
const DURATION: &str = "calotype_http_request_duration_seconds";
const IN_FLIGHT: &str = "calotype_http_requests_in_flight";
/// By what there was too much of: images, members, bytes.
pub(crate) const QUOTA_REFUSALS: &str = "calotype_quota_refusals_total";
/// By what there was no room for: connections, requests, bodies, uploads, project_uploads, project_rate, address_rate.
const REFUSED: &str = "calotype_http_refused_total";
/// By what a client did too slowly.
const CUT: &str = "calotype_http_cut_total";
pub(crate) const UPLOADS_IN_FLIGHT: &str = "calotype_uploads_in_flight";
const CONNECTIONS: &str = "calotype_http_connections";
const CONNECTIONS_BOUND: &str = "calotype_http_connections_bound";
/// What `/readyz` answered last.
const READY: &str = "calotype_ready";
/// Reads of images that met bytes that are damaged or gone.
const DAMAGED: &str = "calotype_damaged_reads_total";
/// Blobs that are marked as damaged: each is the bytes of one image or more.
const DAMAGED_BLOBS: &str = "calotype_damaged_blobs";
const STORE_AWAY: &str = "calotype_store_away";
const COLLECTOR_BEHIND: &str = "calotype_collector_behind_seconds";
const SCRUB_BEHIND: &str = "calotype_scrub_behind_seconds";
const JOBS_WAITING: &str = "calotype_jobs_waiting";
const JOBS_RUNNING: &str = "calotype_jobs_running";
/// Counted when the image is active.
pub(crate) const BYTES_UPLOADED: &str = "calotype_image_bytes_uploaded_total";
/// Counted as they are given to the connection.
pub(crate) const BYTES_DOWNLOADED: &str = "calotype_image_bytes_downloaded_total";

/// The operations of this module. All are public.
pub fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(show_metrics))
}

/// Tells the metrics' meaning to the recorder that is installed, and begins those that count what is rare: of a counter that
/// is not there Prometheus does not see the first step. Called once, after it is.
pub fn describe_metrics() {
    for reason in [
        "connections",
        "requests",
        "uploads",
        "project_uploads",
        "project_rate",
        "address_rate",
        "bodies",
    ] {
        metrics::counter!(REFUSED, "reason" => reason).increment(0);
    }
    for reason in [
        "header",
        "idle",
        "slow_body",
        "stalled_body",
        "stalled_reader",
    ] {
        metrics::counter!(CUT, "reason" => reason).increment(0);
    }
    metrics::counter!(DAMAGED).increment(0);
    metrics::gauge!(UPLOADS_IN_FLIGHT).increment(0.0);
    metrics::gauge!(READY).set(1.0);
    metrics::describe_gauge!(READY, "1 where the service can do its work, else 0.");
    metrics::describe_gauge!(CONNECTIONS_BOUND, "Connections that are taken at once.");
    metrics::describe_counter!(
        DAMAGED,
        "Reads that met bytes of images that are damaged or gone."
    );
    metrics::describe_counter!(REQUESTS, "Requests that were answered.");
    metrics::describe_histogram!(
        DURATION,
        metrics::Unit::Seconds,
        "Time to the head of the answer."
    );
    metrics::describe_gauge!(IN_FLIGHT, "Requests whose answer has not begun.");
    metrics::describe_counter!(
        REFUSED,
        "Requests and connections that there was no room for, or whose sender had had its share."
    );
    metrics::describe_counter!(CUT, "Connections and bodies that were too slow.");
    metrics::describe_gauge!(UPLOADS_IN_FLIGHT, "Uploads that are running.");
    metrics::describe_gauge!(
        DAMAGED_BLOBS,
        "Blobs whose bytes were found damaged and not yet whole again."
    );
    metrics::describe_gauge!(
        SCRUB_BEHIND,
        metrics::Unit::Seconds,
        "For how long the bytes that are to be read again first have been due."
    );
    metrics::describe_gauge!(
        STORE_AWAY,
        "1 where a store of blobs did not answer a moment ago, else 0."
    );
    metrics::describe_gauge!(
        COLLECTOR_BEHIND,
        metrics::Unit::Seconds,
        "How long ago this process removed what is not needed, or saw another process to be at it."
    );
    metrics::describe_gauge!(CONNECTIONS, "Connections that are open.");
    metrics::describe_gauge!(JOBS_WAITING, "Jobs that no worker has begun.");
    metrics::describe_gauge!(JOBS_RUNNING, "Jobs that a worker has begun and not ended.");
    metrics::describe_counter!(
        QUOTA_REFUSALS,
        "Requests that were refused for want of quota."
    );
    metrics::describe_counter!(
        BYTES_UPLOADED,
        metrics::Unit::Bytes,
        "Bytes of images that were uploaded whole."
    );
    metrics::describe_counter!(
        BYTES_DOWNLOADED,
        metrics::Unit::Bytes,
        "Bytes of images that were given out."
    );
    calotype_identity::describe_metrics();
}

/// Counts what there was no room for.
pub fn refused(of: &'static str) {
    metrics::counter!(REFUSED, "reason" => of).increment(1);
}

/// Counts who was too slow.
pub fn cut(what: &'static str) {
    metrics::counter!(CUT, "reason" => what).increment(1);
}

/// Counts a read that met damaged bytes.
pub(crate) fn damaged() {
    metrics::counter!(DAMAGED).increment(1);
}

/// Shows how many connections are taken at once.
pub fn bound_connections(most: usize) {
    metrics::gauge!(CONNECTIONS_BOUND).set(most as f64);
}

/// Counts a connection until the result is dropped.
pub fn connected() -> Connected {
    metrics::gauge!(CONNECTIONS).increment(1.0);
    Connected(())
}

/// An open connection.
#[derive(Debug)]
pub struct Connected(());

impl Drop for Connected {
    fn drop(&mut self) {
        metrics::gauge!(CONNECTIONS).decrement(1.0);
    }
}

/// Answers while the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "live",
    tag = "Operations",
    responses((status = 200, description = "The process lives.", content_type = "text/plain", body = String)),
)]
pub async fn live() -> Response {
    text("ok\n")
}

/// Answers whether the service can do its work: its database and its store answer, its identity service has, and it is not
/// about to stop.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "Operations",
    responses(
        (status = 200, description = "The service can do its work.", content_type = "text/plain", body = String),
        (status = 503, description = "It can't now."),
    ),
)]
pub async fn ready(State(state): State<ApiState>) -> Response {
    match readiness(&state).await {
        Readiness::Ready(standing) => text(match standing {
            Standing::Whole => "ready\n",
            // A node that is taken out for it could not even serve those who are known.
            Standing::KnownOnly => "ready, but for callers that are new: identity is away\n",
        }),
        Readiness::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, text("stopping\n")).into_response()
        }
        Readiness::Away(error) => {
            tracing::warn!(error.chain = %error.chain(), "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, text("not ready\n")).into_response()
        }
    }
}

/// Whether the service can do its work.
enum Readiness {
    Ready(Standing),
    Stopping,
    Away(Error),
}

/// Looks, and notes it for the metrics.
async fn readiness(state: &ApiState) -> Readiness {
    let asked = async {
        state.service.ready().await?;
        state.authenticator.standing().await
    };
    let readiness = if state.leaving.is_announced() {
        Readiness::Stopping
    } else {
        asked.await.map_or_else(Readiness::Away, Readiness::Ready)
    };
    note_ready(matches!(readiness, Readiness::Ready(_)));
    readiness
}

fn note_ready(is_ready: bool) {
    metrics::gauge!(READY).set(flag(is_ready));
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// How long the metrics wait to tell whether the service is ready.
const LOOK: Duration = Duration::from_secs(3);

/// Shows the metrics in Prometheus' text form.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "showMetrics",
    tag = "Operations",
    responses((status = 200, description = "The metrics.", content_type = "text/plain", body = String)),
)]
pub async fn show_metrics(State(state): State<ApiState>) -> Reply {
    // Not every load balancer asks.
    let readiness = tokio::time::timeout(LOOK, readiness(&state));
    let (readiness, ()) = tokio::join!(readiness, look(&state.service));
    if readiness.is_err() {
        note_ready(false);
    }
    Ok(prometheus((state.render_metrics)()))
}

/// What a worker tells of itself, which serves nothing else: `/healthz` and `/metrics`.
pub fn of_worker(
    service: Arc<Service>,
    render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
) -> Router {
    let show = move || async move {
        let ready = tokio::time::timeout(LOOK, service.ready());
        let (ready, ()) = tokio::join!(ready, look(&service));
        note_ready(matches!(ready, Ok(Ok(()))));
        prometheus(render_metrics())
    };
    Router::new()
        .route("/healthz", get(live))
        .route("/metrics", get(show))
}

/// Notes for the metrics what is not noted as it happens.
async fn look(service: &Service) {
    metrics::gauge!(COLLECTOR_BEHIND).set(service.unreconciled().as_secs_f64());
    // A database that is away must not hide the other metrics: they are what explains it.
    let (stores, jobs, scrubbed) = tokio::join!(
        service.stores_that_answer(LOOK),
        within_a_look(service.unfinished_jobs()),
        within_a_look(service.scrubbed()),
    );
    for (store, answers) in stores {
        metrics::gauge!(STORE_AWAY, "store" => store.to_string()).set(flag(!answers));
    }
    if let Some((waiting, running)) = jobs {
        metrics::gauge!(JOBS_WAITING).set(waiting as f64);
        metrics::gauge!(JOBS_RUNNING).set(running as f64);
    }
    if let Some(scrubbed) = scrubbed {
        metrics::gauge!(SCRUB_BEHIND).set(scrubbed.behind.as_secs_f64());
        metrics::gauge!(DAMAGED_BLOBS).set(scrubbed.damaged as f64);
    }
}

/// What the catalog says, if it does so in time.
async fn within_a_look<T>(asked: impl Future<Output = calotype_core::Result<T>>) -> Option<T> {
    match tokio::time::timeout(LOOK, asked).await {
        Ok(Ok(told)) => Some(told),
        Ok(Err(error)) => {
            tracing::warn!(error.chain = %error.chain(), "the catalog does not tell the metrics what it knows");
            None
        }
        Err(_) => {
            tracing::warn!("the catalog does not tell the metrics what it knows in time");
            None
        }
    }
}

fn prometheus(text: String) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response()
}

/// Counts and times each request, and writes one line of the log for it. The time ends with the answer's head: a
/// body may stream for hours.
pub async fn measure(request: Request, next: Next) -> Response {
    let method = known_method(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let in_flight = InFlight::begin();
    let start = Instant::now();
    let response = next.run(request).await;
    drop(in_flight);
    let seconds = start.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    metrics::counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    metrics::histogram!(DURATION, "method" => method, "route" => route.clone()).record(seconds);
    tracing::info!(
        http.route = route,
        http.status = status,
        http.duration_s = seconds,
        "request answered"
    );
    response
}

/// Clients may send any word as a method.
fn known_method(method: &Method) -> &'static str {
    const KNOWN: [Method; 7] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    const WORDS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let known = KNOWN.iter().zip(WORDS).find(|(known, _)| *known == method);
    known.map_or("other", |(_, word)| word)
}

/// Counts down also when the client goes away and the request is dropped.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        metrics::gauge!(IN_FLIGHT).increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!(IN_FLIGHT).decrement(1.0);
    }
}

fn text(line: &'static str) -> Response {
    line.into_response()
}
