//! How the identity API refuses, for its description.

/// The refusals that every operation of the identity may answer with.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) enum Refusals {
    /// The request breaks a rule.
    #[response(status = 400)]
    Broken,
    /// No credential, or not a good one.
    #[response(status = 401)]
    Unauthenticated,
    /// The caller may not do this.
    #[response(status = 403)]
    Forbidden,
    /// There is no such thing for the caller.
    #[response(status = 404)]
    Missing,
    /// The name is taken, or the thing is in use.
    #[response(status = 409)]
    Taken,
    /// The body is too large.
    #[response(status = 413)]
    TooLarge,
    /// The service can't do it now.
    #[response(status = 503)]
    Unavailable,
}
