//! What holds the service up under load: bounds on requests and uploads that run at once, and on the rates of projects and
//! addresses (ADR 0018).
//!
//! Nothing queues here. A request that there is no room for is refused at once, and told when to come again: 503 where the
//! node is full, 429 where its sender has had its share. What runs is never cut for what comes; whether the service lives, is
//! ready, and how it is doing, is answered whatever else is.

mod address;
mod pace;
mod rate;
mod rest;
mod turn;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use calotype_core::id::ProjectId;
use calotype_core::{Error, ErrorKind, Result};
use http::{HeaderMap, header};
use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use address::ClientAddress;
pub(crate) use pace::Pace;
pub use pace::SlowestBody;
pub use rate::Rate;
pub(crate) use rest::{LONGEST, read_off};
pub(crate) use turn::RequestTurn;

use crate::caller;
use crate::errors::Failure;
use crate::ops::{self, UPLOADS_IN_FLIGHT};
use rate::Allowances;
use rest::throw_away;
use turn::LendingBody;

/// When a request that the node has no room for makes sense again.
const SOON: Duration = Duration::from_secs(1);
/// The same of an upload: others take their time.
const LATER: Duration = Duration::from_secs(10);

/// The bounds. None: there is none.
#[derive(Debug, Clone, Default)]
pub struct LoadLimits {
    /// Requests that the node works at, until the heads of their answers. Those whose clients are waited for don't count, nor
    /// uploads once their bytes begin.
    pub requests: Option<usize>,
    /// Uploads that the node takes.
    pub uploads: Option<usize>,
    /// Uploads of one project that the node takes.
    pub uploads_per_project: Option<usize>,
    /// Requests of a project.
    pub project_rate: Option<Rate>,
    /// Requests without a good credential, from one address.
    pub address_rate: Option<Rate>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The slowest upload.
    pub slowest_upload: Option<SlowestBody>,
}

/// Marks a request on a connection that there is no room for.
#[derive(Debug, Clone, Copy)]
pub struct Crowded;

/// Says who may come in.
#[derive(Debug, Default)]
pub struct Admission {
    limits: LoadLimits,
    requests: Option<Arc<Semaphore>>,
    uploads: Option<Arc<Semaphore>>,
    uploads_of: Arc<Mutex<HashMap<ProjectId, usize>>>,
    projects: Option<Allowances<String>>,
    addresses: Option<Allowances<IpAddr>>,
}

impl Admission {
    /// Holds to these bounds.
    pub fn new(limits: LoadLimits) -> Self {
        let room = |most: Option<usize>| {
            let most = most.map(|most| most.min(Semaphore::MAX_PERMITS));
            most.map(|most| Arc::new(Semaphore::new(most)))
        };
        Self {
            requests: room(limits.requests),
            uploads: room(limits.uploads),
            uploads_of: Arc::default(),
            projects: limits.project_rate.map(Allowances::new),
            addresses: limits.address_rate.map(Allowances::new),
            limits,
        }
    }

    /// The slowest that an upload may come.
    pub(crate) fn slowest_upload(&self) -> Option<SlowestBody> {
        self.limits.slowest_upload
    }

    /// Takes in an upload; it counts until the result is dropped.
    ///
    /// # Errors
    /// TooManyRequests where the project has too many, Unavailable where the node has.
    pub(crate) fn upload(&self, project: &ProjectId) -> Result<UploadTurn> {
        let of_project = match self.limits.uploads_per_project {
            None => None,
            Some(most) => Some(self.upload_of(project, most)?),
        };
        let of_node = match &self.uploads {
            None => None,
            Some(uploads) => {
                let permit = Arc::clone(uploads).try_acquire_owned();
                Some(permit.map_err(|_| full_for("uploads", LATER))?)
            }
        };
        metrics::gauge!(UPLOADS_IN_FLIGHT).increment(1.0);
        Ok(UploadTurn {
            _of_project: of_project,
            _of_node: of_node,
        })
    }

    fn upload_of(&self, project: &ProjectId, most: usize) -> Result<ProjectTurn> {
        let uploads = &self.uploads_of;
        let mut running = uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(project.clone()).or_default();
        if *count >= most {
            let message = format!("The project has {most} uploads running.");
            return Err(too_many("project_uploads", message, LATER));
        }
        *count += 1;
        Ok(ProjectTurn {
            project: project.clone(),
            uploads: Arc::clone(uploads),
        })
    }

    /// Counts a request without a good credential.
    fn stranger(&self, address: Option<IpAddr>) -> Result<()> {
        let (Some(addresses), Some(address)) = (&self.addresses, address) else {
            return Ok(());
        };
        let taken = addresses.take(&address::network(address), Instant::now());
        taken.map_err(|wait| {
            let message = "There are too many requests without a credential from this address.";
            too_many("address_rate", message, wait)
        })
    }

    fn caller(&self, key: &String) -> Result<()> {
        let Some(projects) = &self.projects else {
            return Ok(());
        };
        let taken = projects.take(key, Instant::now());
        taken.map_err(|wait| {
            let message = "The project makes too many requests.";
            too_many("project_rate", message, wait)
        })
    }
}

/// An upload's place.
#[derive(Debug)]
pub(crate) struct UploadTurn {
    _of_project: Option<ProjectTurn>,
    _of_node: Option<OwnedSemaphorePermit>,
}

impl Drop for UploadTurn {
    fn drop(&mut self) {
        metrics::gauge!(UPLOADS_IN_FLIGHT).decrement(1.0);
    }
}

#[derive(Debug)]
struct ProjectTurn {
    project: ProjectId,
    uploads: Arc<Mutex<HashMap<ProjectId, usize>>>,
}

impl Drop for ProjectTurn {
    fn drop(&mut self) {
        let mut running = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.project) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.project);
            }
        }
    }
}

/// Refuses what there is no room for, before anything is done for it, and strangers who ask too much.
pub(crate) async fn shed(
    State(admission): State<Arc<Admission>>,
    mut request: Request,
    next: Next,
) -> Response {
    if is_exempt(request.uri().path()) {
        return next.run(request).await;
    }
    let address = address::client(
        request.extensions(),
        request.headers(),
        &admission.limits.trusted_proxies,
    );
    if let Some(address) = address {
        request.extensions_mut().insert(ClientAddress(address));
    }
    let turn = match admit(&admission, &request, address) {
        Ok(turn) => turn,
        Err(error) => return refuse(error, request).await,
    };
    let (Some(permit), Some(requests)) = (turn, &admission.requests) else {
        return next.run(request).await;
    };
    let turn = RequestTurn::new(permit);
    request.extensions_mut().insert(turn.clone());
    let request = request.map(|body| LendingBody::wrap(body, &turn, requests));
    let response = next.run(request).await;
    turn.give_back();
    response
}

fn admit(
    admission: &Admission,
    request: &Request,
    address: Option<IpAddr>,
) -> Result<Option<OwnedSemaphorePermit>> {
    if request.extensions().get::<Crowded>().is_some() {
        return Err(full("connections"));
    }
    if !has_credential(request.headers()) {
        admission.stranger(address)?;
    }
    let Some(requests) = &admission.requests else {
        return Ok(None);
    };
    let permit = Arc::clone(requests).try_acquire_owned();
    permit.map(Some).map_err(|_| full("requests"))
}

/// Refuses who has had its share. Comes after authentication: who is nobody counts with its address, who is somebody with its
/// project.
pub(crate) async fn hold_rates(
    State(admission): State<Arc<Admission>>,
    request: Request,
    next: Next,
) -> Response {
    let extensions = request.extensions();
    let counted = match caller::outcome(extensions) {
        Some(Ok(principal)) => admission.caller(&match principal.project() {
            Some(project) => format!("project {project}"),
            None => format!("user {}", principal.user.id),
        }),
        // Who showed none was counted already.
        Some(Err(error))
            if error.kind() == ErrorKind::Unauthenticated && has_credential(request.headers()) =>
        {
            let address = extensions.get::<ClientAddress>();
            admission.stranger(address.map(|ClientAddress(address)| *address))
        }
        Some(Err(_)) | None => Ok(()),
    };
    match counted {
        Ok(()) => next.run(request).await,
        Err(error) => {
            // Who only sends is not worked at.
            if let Some(turn) = request.extensions().get::<RequestTurn>() {
                turn.give_back();
            }
            refuse(error, request).await
        }
    }
}

/// Refuses a request so that its client hears of it, which may be sending an image. Connections beyond the bound have to go.
async fn refuse(error: Error, request: Request) -> Response {
    if request.extensions().get::<Crowded>().is_none() {
        let (parts, body) = request.into_parts();
        throw_away(&parts.headers, body).await;
    }
    Failure::from(error).into_response()
}

/// What operators' machines ask.
pub(crate) fn is_exempt(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

fn has_credential(headers: &HeaderMap) -> bool {
    headers.contains_key("x-auth-token") || headers.contains_key(header::AUTHORIZATION)
}

/// The refusal for want of room.
pub(crate) fn full(of: &'static str) -> Error {
    full_for(of, SOON)
}

fn full_for(of: &'static str, retry_after: Duration) -> Error {
    ops::refused(of);
    let message = "The service has too much to do. Please come again.";
    Error::new(ErrorKind::Unavailable { retry_after }, message)
}

fn too_many(of: &'static str, message: impl Into<String>, retry_after: Duration) -> Error {
    ops::refused(of);
    Error::new(ErrorKind::TooManyRequests { retry_after }, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(digit: char) -> ProjectId {
        digit.to_string().repeat(32).parse().unwrap()
    }

    #[test]
    fn uploads_count_until_they_end() {
        let admission = Admission::new(LoadLimits {
            uploads: Some(3),
            uploads_per_project: Some(2),
            ..LoadLimits::default()
        });
        let (one, two) = (project('1'), project('2'));
        let first = admission.upload(&one).unwrap();
        let second = admission.upload(&one).unwrap();
        let kind = |result: Result<UploadTurn>| result.unwrap_err().kind();
        let retry_after = LATER;
        let of_project = ErrorKind::TooManyRequests { retry_after };
        assert_eq!(kind(admission.upload(&one)), of_project);
        let third = admission.upload(&two).unwrap();
        let of_node = ErrorKind::Unavailable { retry_after };
        assert_eq!(kind(admission.upload(&two)), of_node);
        drop(first);
        let fourth = admission.upload(&two).unwrap();
        assert_eq!(kind(admission.upload(&two)), of_project);
        drop((second, third, fourth));
        assert!(admission.uploads_of.lock().unwrap().is_empty());
    }
}
