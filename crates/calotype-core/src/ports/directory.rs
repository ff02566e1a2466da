//! The port to the embedded identity's records: domains, projects, users, roles, access keys, tokens.

use super::catalog::AuditEvent;
use crate::access::Scope;
use crate::error::Result;
use crate::id::{DomainId, EnterpriseProjectId, ProjectId, RoleId, UserId};
use crate::time::Timestamp;

/// A domain: a namespace of users and projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRecord {
    /// Its id.
    pub id: DomainId,
    /// Its name, unique.
    pub name: String,
    /// Whether its users may log in.
    pub enabled: bool,
}

/// A project (tenant).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// Its domain.
    pub domain: DomainId,
    /// Its name, unique in the domain.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Whether credentials may be scoped to it.
    pub enabled: bool,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Its id.
    pub id: UserId,
    /// Its domain.
    pub domain: DomainId,
    /// Its name, unique in the domain.
    pub name: String,
    /// The password's argon2id hash, in PHC form; none where the user can't log in by password.
    pub password_hash: Option<String>,
    /// The project that a request without a scope gets.
    pub default_project: Option<ProjectId>,
    /// Whether the user may log in.
    pub enabled: bool,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleRecord {
    /// Its id.
    pub id: RoleId,
    /// Its name, unique: what policies go by.
    pub name: String,
}

/// Where a user has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignmentTarget {
    /// In a project.
    Project(ProjectId),
    /// On an enterprise project, in a project alone.
    EnterpriseProject(EnterpriseProjectId, ProjectId),
    /// On a domain.
    Domain(DomainId),
    /// On the whole system.
    System,
}

/// That a user has a role somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The user.
    pub user: UserId,
    /// The role.
    pub role: RoleId,
    /// Where.
    pub target: AssignmentTarget,
}

/// An access key: the credential of signed requests (AK/SK).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The public part (AK).
    pub access: String,
    /// The secret part (SK), sealed by the key service under the context `access-key:<access>`.
    pub sealed_secret: Vec<u8>,
    /// The user it stands for.
    pub user: UserId,
    /// The project that a signed request gets if it names none.
    pub project: Option<ProjectId>,
    /// Whether it is accepted.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it has more where it is a temporary one.
    pub temporary: Option<TemporaryKey>,
}

/// What a temporary access key has more than a permanent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemporaryKey {
    /// SHA-256 of the security token that a request must bring along, in hexadecimal.
    pub security_token_hash: String,
    /// What it is good for, and nothing else.
    pub scope: Scope,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A token. The token itself is never stored: only its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// SHA-256 of the token, in hexadecimal.
    pub hash: String,
    /// Whose it is.
    pub user: UserId,
    /// What it is good for.
    pub scope: Scope,
    /// The authentication methods it was given for: `password`, `token`.
    pub methods: Vec<String>,
    /// When it was given.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// An identifier that may be shown and logged.
    pub audit_id: String,
}

/// Who knows which projects there are: the embedded identity's records, or an identity service elsewhere.
#[async_trait::async_trait]
pub trait Projects: Send + Sync {
    /// Whether there is such a project, and it is enabled. Yes where that can't be known.
    ///
    /// # Errors
    /// Unavailable where the identity service is away.
    async fn is_live(&self, project: &ProjectId) -> Result<bool>;
}

/// The embedded identity's records. Each method is one transaction.
///
/// Inserting something whose id or unique name is taken is a Conflict.
///
/// What revokes tokens revokes the temporary access keys with the same rights.
///
/// A change takes its line of the audit trail, which the same transaction writes; where nothing changed, nothing is
/// written. What the first start does too takes none there: nobody asked for it.
#[async_trait::async_trait]
pub trait Directory: Send + Sync {
    /// Makes a domain.
    async fn insert_domain(&self, domain: &DomainRecord) -> Result<()>;
    /// A domain by its id.
    async fn domain(&self, id: &DomainId) -> Result<Option<DomainRecord>>;
    /// The domains by name; only the one of this name where one is given.
    async fn domains(&self, name: Option<&str>) -> Result<Vec<DomainRecord>>;

    /// Makes a project.
    async fn insert_project(
        &self,
        project: &ProjectRecord,
        line: Option<&AuditEvent>,
    ) -> Result<()>;
    /// A project by its id.
    async fn project(&self, id: &ProjectId) -> Result<Option<ProjectRecord>>;
    /// The projects by name, of one name and of one domain where they are given.
    async fn projects(
        &self,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<ProjectRecord>>;
    /// Enables or disables a project, and revokes its tokens when disabling. False where there is none.
    async fn set_project_enabled(
        &self,
        id: &ProjectId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool>;
    /// Removes a project with its assignments, tokens and access keys. False where there is none.
    ///
    /// # Errors
    /// Conflict where the project still has images or master keys.
    async fn delete_project(&self, id: &ProjectId, line: &AuditEvent) -> Result<bool>;

    /// Makes a user.
    async fn insert_user(&self, user: &UserRecord, line: Option<&AuditEvent>) -> Result<()>;
    /// A user by its id.
    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>>;
    /// The users by name, of one name and of one domain where they are given.
    async fn users(&self, name: Option<&str>, domain: Option<&DomainId>)
    -> Result<Vec<UserRecord>>;
    /// Sets a password's hash, and revokes the user's tokens. False where there is no such user.
    async fn set_password(
        &self,
        id: &UserId,
        password_hash: &str,
        line: Option<&AuditEvent>,
    ) -> Result<bool>;
    /// Enables or disables a user, and revokes its tokens when disabling. False where there is none.
    async fn set_user_enabled(&self, id: &UserId, enabled: bool, line: &AuditEvent)
    -> Result<bool>;
    /// Removes a user with its assignments, tokens and access keys. False where there is none.
    async fn delete_user(&self, id: &UserId, line: &AuditEvent) -> Result<bool>;

    /// Makes a role.
    async fn insert_role(&self, role: &RoleRecord, line: Option<&AuditEvent>) -> Result<()>;
    /// Removes a role with its assignments, and revokes the tokens of those who had it. False where there is
    /// none.
    async fn delete_role(&self, id: &RoleId, line: &AuditEvent) -> Result<bool>;
    /// The roles by name; only the one of this name where one is given.
    async fn roles(&self, name: Option<&str>) -> Result<Vec<RoleRecord>>;

    /// Gives a user a role. Not an error where the user has it.
    async fn assign(&self, assignment: &Assignment, line: Option<&AuditEvent>) -> Result<()>;
    /// Takes a role from a user, and revokes the user's tokens. False where the user did not have it.
    async fn unassign(&self, assignment: &Assignment, line: &AuditEvent) -> Result<bool>;
    /// The roles of a user at a target, by name.
    async fn roles_of(&self, user: &UserId, target: &AssignmentTarget) -> Result<Vec<RoleRecord>>;
    /// Whether there is such an enterprise project.
    async fn has_enterprise_project(&self, id: EnterpriseProjectId) -> Result<bool>;
    /// The roles of a user on enterprise projects in a project, by enterprise project and name.
    async fn enterprise_roles_of(
        &self,
        user: &UserId,
        project: &ProjectId,
    ) -> Result<Vec<(EnterpriseProjectId, RoleRecord)>>;
    /// The enabled projects in which a user has a role, be it on an enterprise project, by name.
    async fn projects_of(&self, user: &UserId) -> Result<Vec<ProjectRecord>>;
    /// The enabled domains on which a user has a role, by name.
    async fn domains_of(&self, user: &UserId) -> Result<Vec<DomainRecord>>;

    /// Makes an access key, permanent or temporary.
    async fn insert_access_key(&self, key: &AccessKey, line: Option<&AuditEvent>) -> Result<()>;
    /// An access key by its public part; an expired one too, until it is purged.
    async fn access_key(&self, access: &str) -> Result<Option<AccessKey>>;
    /// The permanent access keys of a user, oldest first.
    async fn access_keys(&self, user: &UserId) -> Result<Vec<AccessKey>>;
    /// Enables or disables a permanent access key; disabling removes its user's temporary ones: they may have been got
    /// with it. False where there is none.
    async fn set_access_key_enabled(
        &self,
        access: &str,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool>;
    /// Removes a permanent access key, and its user's temporary ones: they may have been got with it. False where there
    /// is none.
    async fn delete_access_key(&self, access: &str, line: Option<&AuditEvent>) -> Result<bool>;

    /// Keeps a token.
    async fn insert_token(&self, token: &TokenRecord) -> Result<()>;
    /// A token by its hash; expired ones too, until they are purged.
    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>>;
    /// Revokes a token. False where there is none. A line only where it is another's: logging out has none, as logging
    /// in.
    async fn revoke_token(&self, hash: &str, line: Option<&AuditEvent>) -> Result<bool>;
}
