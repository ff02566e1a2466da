//! Access keys: Keystone's EC2 credentials, the roles of their users, and the secrets that requests are signed with.
//!
//! # Guarantees
//! A key stands for its user in its own project, with the roles that the user has there now (also through groups, inherited
//! and implied ones), and only while user, project and their domains are enabled. A key that was made under a trust, an
//! application credential or an OAuth token is not taken: it stands for less than its user, and how much less this
//! credential does not say. Secrets are erased.

use calotype_core::access::{Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::id::{DomainId, ProjectId, UserId};
use calotype_core::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::ask::{Asked, Read};
use super::remembered::Told;
use super::token::{Role, counted, id};
use crate::sha256_hex;

/// A key's secret, and who signs with it.
pub(super) struct KeyHolder {
    pub(super) secret: SecretString,
    pub(super) principal: Principal,
}

#[derive(Deserialize)]
struct CredentialDocument {
    credential: CredentialBody,
}

#[derive(Deserialize)]
struct CredentialBody {
    #[serde(rename = "type")]
    kind: String,
    /// A JSON text of its own.
    blob: SecretString,
    user_id: String,
    project_id: Option<String>,
}

#[derive(Deserialize)]
struct Blob {
    access: String,
    secret: SecretString,
    trust_id: Option<String>,
    app_cred_id: Option<String>,
    access_token_id: Option<String>,
}

#[derive(Deserialize)]
struct UserDocument {
    user: Record,
}

#[derive(Deserialize)]
struct ProjectDocument {
    project: Record,
}

/// A user or a project.
#[derive(Deserialize)]
struct Record {
    name: String,
    domain_id: String,
    #[serde(default = "yes")]
    enabled: bool,
}

#[derive(Deserialize)]
struct DomainDocument {
    domain: DomainBody,
}

#[derive(Deserialize)]
struct DomainBody {
    name: String,
    #[serde(default = "yes")]
    enabled: bool,
}

#[derive(Deserialize)]
struct Assignments {
    role_assignments: Vec<AssignmentBody>,
}

#[derive(Deserialize)]
struct AssignmentBody {
    role: AssignedRole,
}

#[derive(Deserialize)]
struct AssignedRole {
    name: String,
    domain: Option<serde::de::IgnoredAny>,
}

fn yes() -> bool {
    true
}

/// Why a key is not looked up further.
enum Stop {
    Refused(&'static str),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Looks a key up.
///
/// # Errors
/// Unavailable.
pub(super) async fn look_up(
    keystone: &Asked,
    access: &str,
    deadline: Instant,
) -> Result<Told<KeyHolder>> {
    let lookup = Lookup { keystone, deadline };
    match lookup.holder(access).await {
        Ok(holder) => Ok(Told::Good(holder, None)),
        Err(Stop::Refused(reason)) => Ok(Told::Refused(reason)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Lookup<'a> {
    keystone: &'a Asked,
    deadline: Instant,
}

impl Lookup<'_> {
    async fn holder(&self, access: &str) -> Result<KeyHolder, Stop> {
        let path = format!("credentials/{}", sha256_hex(access.as_bytes()));
        let missing = "the access key is unknown";
        let document: CredentialDocument = self.read(&path, missing).await?;
        let credential = document.credential;
        let blob: Blob = serde_json::from_str(credential.blob.expose_secret())
            .map_err(|_| Stop::Refused("the access key's credential is not understood"))?;
        if credential.kind != "ec2"
            || blob.access != access
            || blob.secret.expose_secret().is_empty()
        {
            return Err(Stop::Refused("the credential is no access key's"));
        }
        let delegated = [&blob.trust_id, &blob.app_cred_id, &blob.access_token_id];
        if delegated.iter().any(|id| id.is_some()) {
            return Err(Stop::Refused("the access key was made with a delegation"));
        }
        let project_id = credential.project_id;
        let project_id = project_id.ok_or(Stop::Refused("the access key has no project"))?;
        let project_id: ProjectId = id(&project_id).map_err(Stop::Refused)?;
        let user_id: UserId = id(&credential.user_id).map_err(Stop::Refused)?;

        let path = format!("users/{user_id}");
        let user = self.read::<UserDocument>(&path, "the user is gone").await?;
        let path = format!("projects/{project_id}");
        let project = self.read::<ProjectDocument>(&path, "the project is gone");
        let (user, project) = (user.user, project.await?.project);
        if !user.enabled || !project.enabled {
            return Err(Stop::Refused("the user or the project is disabled"));
        }
        let user_domain = self.domain(&user.domain_id).await?;
        let domain = match project.domain_id == user.domain_id {
            true => user_domain.clone(),
            false => self.domain(&project.domain_id).await?,
        };
        let scope = Scope::Project(ProjectScope {
            project: Named {
                id: project_id.clone(),
                name: project.name,
            },
            domain,
        });
        let roles = self.roles(&user_id, &project_id).await?;
        // Only a token says whether its project is the one for administrators: here it is none.
        let roles = counted(roles, true);
        if roles.is_empty() {
            return Err(Stop::Refused("the user has no role in the project"));
        }
        Ok(KeyHolder {
            secret: blob.secret,
            principal: Principal {
                user: Named {
                    id: user_id,
                    name: user.name,
                },
                user_domain,
                scope,
                roles,
                enterprise_roles: std::collections::BTreeMap::new(),
                credential: Credential::AccessKey,
            },
        })
    }

    async fn domain(&self, text: &str) -> Result<Named<DomainId>, Stop> {
        let id: DomainId = id(text).map_err(Stop::Refused)?;
        let path = format!("domains/{id}");
        let domain = self.read::<DomainDocument>(&path, "the domain is gone");
        let domain = domain.await?.domain;
        if !domain.enabled {
            return Err(Stop::Refused("the domain is disabled"));
        }
        Ok(Named {
            id,
            name: domain.name,
        })
    }

    /// The roles that the user has in the project, from wherever.
    async fn roles(&self, user: &UserId, project: &ProjectId) -> Result<Vec<Role>, Stop> {
        let path = format!(
            "role_assignments?effective&include_names&user.id={user}&scope.project.id={project}"
        );
        let none = "the user's roles are not to be found";
        let found: Assignments = self.read(&path, none).await?;
        let assigned = found.role_assignments.into_iter();
        let role = |assigned: AssignmentBody| Role {
            name: assigned.role.name,
            domain_id: assigned.role.domain.map(|_| String::new()),
        };
        Ok(assigned.map(role).collect())
    }

    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        missing: &'static str,
    ) -> Result<T, Stop> {
        match self.keystone.read(path, self.deadline).await? {
            Read::Document(document) => Ok(document),
            Read::Missing => Err(Stop::Refused(missing)),
            Read::NotPermitted => {
                tracing::error!(
                    "Keystone does not let the service's user look access keys up: signed requests are refused"
                );
                Err(Stop::Refused("access keys can't be looked up"))
            }
        }
    }
}
