//! The identity API: a subset of Keystone v3 under `/identity/v3`, enough for the OpenStack, OTC and Huawei
//! clients to log in, sign requests, look up names, and for an administrator to make users and projects.
//!
//! The endpoints answer from the embedded identity; permission is decided there. Nothing here is kept in memory. Where
//! users are a Keystone's there is none of it ([`IdentityApi`]).

mod authenticator;
mod credentials;
mod domains;
mod elsewhere;
mod enterprise_roles;
mod login;
mod projects;
mod refusals;
mod request;
mod roles;
mod security_tokens;
#[cfg(test)]
mod tests;
mod tokens;
mod users;
mod versions;

use std::sync::Arc;

use calotype_identity::Embedded;
use http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the identity's handlers can reach.
#[derive(Clone)]
pub struct IdentityState {
    /// The identity.
    pub identity: Arc<Embedded>,
    /// The URL under which clients reach the service, without a trailing slash; none: as the request's `Host`
    /// says.
    pub public_url: Option<Arc<str>>,
}

impl IdentityState {
    fn base_url(&self, headers: &HeaderMap) -> String {
        crate::state::base_url(self.public_url.as_deref(), headers)
    }
}

/// Whose the identity API is.
#[derive(Clone)]
pub enum IdentityApi {
    /// The service's own.
    Own(IdentityState),
    /// The Keystone's at this URL.
    Elsewhere(Arc<str>),
}

impl From<IdentityState> for IdentityApi {
    fn from(state: IdentityState) -> Self {
        Self::Own(state)
    }
}

impl IdentityApi {
    /// The routes.
    pub(crate) fn router<S: Clone + Send + Sync + 'static>(self) -> axum::Router<S> {
        match self {
            Self::Own(state) => router(state).into(),
            Self::Elsewhere(url) => elsewhere::router(&url),
        }
    }
}

/// The endpoints under `/identity`. They expect the layers of [`crate::caller`] and [`crate::errors`] around them.
pub fn router<S: Clone + Send + Sync + 'static>(state: IdentityState) -> OpenApiRouter<S> {
    routes().with_state(state)
}

/// The endpoints before they have their state: what the API's description is made from.
pub(crate) fn routes() -> OpenApiRouter<IdentityState> {
    OpenApiRouter::new()
        .routes(routes!(versions::versions))
        .routes(routes!(versions::versions_without_slash))
        .routes(routes!(versions::version))
        .routes(routes!(versions::version_without_slash))
        .routes(routes!(
            tokens::create_token,
            tokens::validate_token,
            tokens::revoke_token
        ))
        .routes(routes!(tokens::catalog))
        .routes(routes!(projects::own_projects))
        .routes(routes!(projects::list_projects, projects::create_project))
        .routes(routes!(
            projects::show_project,
            projects::update_project,
            projects::delete_project
        ))
        .routes(routes!(domains::own_domains))
        .routes(routes!(domains::list_domains))
        .routes(routes!(domains::show_domain))
        .routes(routes!(users::list_users, users::create_user))
        .routes(routes!(
            users::show_user,
            users::update_user,
            users::delete_user
        ))
        .routes(routes!(roles::list_roles, roles::create_role))
        .routes(routes!(roles::show_role, roles::delete_role))
        .routes(routes!(roles::roles_in_project))
        .routes(routes!(
            roles::assign_in_project,
            roles::unassign_in_project
        ))
        .routes(routes!(roles::assign_on_domain, roles::unassign_on_domain))
        .routes(routes!(roles::assign_on_system, roles::unassign_on_system))
        .routes(routes!(enterprise_roles::list_enterprise_roles))
        .routes(routes!(
            enterprise_roles::assign_enterprise_role,
            enterprise_roles::unassign_enterprise_role
        ))
        .routes(routes!(
            credentials::list_credentials,
            credentials::create_credential
        ))
        .routes(routes!(
            credentials::show_credential,
            credentials::update_credential,
            credentials::delete_credential
        ))
        .routes(routes!(security_tokens::create_security_token))
}
