//! Reading and changing the identity's records.
//!
//! What changes or reveals other people's records takes an [`Administrator`], which only the policy check makes.
//! What a user may see of itself takes its principal. Records that a caller may not see look as if they were not
//! there. Each change is one transaction of the catalog, with its line of the audit trail; tokens that were found good
//! are doubted afterwards.

use std::fmt;

use calotype_core::access::{Action, Allowed, Credential, Principal};
use calotype_core::app::Call;
use calotype_core::id::{DomainId, ProjectId, RoleId, UserId};
use calotype_core::ports::{
    Assignment, AssignmentTarget, AuditEvent, DomainRecord, ProjectRecord, RoleRecord, UserRecord,
};
use calotype_core::{Error, Result};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::embedded::Embedded;

/// The longest name of a user or project, in characters: Keystone's limit.
const MAX_NAME: usize = 255;
/// What the audit trail calls a record of the identity.
const KIND: &str = "identity";

/// A caller who may administer the identity. Only [`Embedded::administrator`] makes one.
#[derive(Debug, Clone)]
pub struct Administrator<'a> {
    call: &'a Call,
    _proof: Allowed<'a>,
}

impl Administrator<'_> {
    /// The request that changes a record.
    ///
    /// # Errors
    /// As [`check_lasting`].
    fn change(&self) -> Result<&Call> {
        check_lasting(self.call)
    }
}

/// A temporary access key changes no record of the identity: what it made there (a key, a user, a password, a role)
/// would outlive it.
///
/// # Errors
/// Forbidden where the request was signed with one.
pub(crate) fn check_lasting(call: &Call) -> Result<&Call> {
    match call.principal.credential {
        Credential::TemporaryKey(_) => Err(Error::forbidden(
            "A temporary access key can't change the identity's records.",
        )),
        Credential::Token(_) | Credential::AccessKey => Ok(call),
    }
}

/// A user to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its name, unique in the domain.
    pub name: String,
    /// Its domain.
    pub domain: DomainId,
    /// Its password; none where it shall not log in by one.
    pub password: Option<SecretString>,
    /// The project that a login without a scope gets.
    pub default_project: Option<ProjectId>,
    /// Whether it may log in.
    pub enabled: bool,
}

/// A project to be made.
#[derive(Debug, Clone)]
pub struct NewProject {
    /// Its name, unique in the domain.
    pub name: String,
    /// Its domain.
    pub domain: DomainId,
    /// What it is for.
    pub description: String,
    /// Whether credentials may be scoped to it.
    pub enabled: bool,
}

impl Embedded {
    /// Checks that the caller may administer the identity.
    ///
    /// # Errors
    /// Forbidden where it may not.
    pub fn administrator<'a>(&self, call: &'a Call) -> Result<Administrator<'a>> {
        let proof = self
            .access
            .authorize(&call.principal, Action::IdentityAdminister)?;
        Ok(Administrator {
            call,
            _proof: proof,
        })
    }

    /// The line of the audit trail for a change of a record that the caller makes.
    pub(crate) fn line(
        &self,
        call: &Call,
        trace: &str,
        record: impl fmt::Display,
        detail: Value,
    ) -> AuditEvent {
        call.event(self.clock.now(), trace, KIND, record, detail)
    }

    fn administers(&self, principal: &Principal) -> bool {
        self.access.permits(principal, Action::IdentityAdminister)
    }

    /// The domains that the caller may see: an administrator all, others their own and those where they have a
    /// role.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn visible_domains(
        &self,
        caller: &Principal,
        name: Option<&str>,
    ) -> Result<Vec<DomainRecord>> {
        if self.administers(caller) {
            return self.directory.domains(name).await;
        }
        let mut domains = self.directory.domains_of(&caller.user.id).await?;
        if !domains
            .iter()
            .any(|domain| domain.id == caller.user_domain.id)
        {
            domains.extend(self.directory.domain(&caller.user_domain.id).await?);
        }
        domains.retain(|domain| name.is_none_or(|name| domain.name == name));
        Ok(domains)
    }

    /// The domains that the caller can ask a token for.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn own_domains(&self, caller: &Principal) -> Result<Vec<DomainRecord>> {
        self.directory.domains_of(&caller.user.id).await
    }

    /// The projects that the caller can ask a token for.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn own_projects(&self, caller: &Principal) -> Result<Vec<ProjectRecord>> {
        self.directory.projects_of(&caller.user.id).await
    }

    /// The projects that the caller may see: an administrator all, others those where they have a role.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn visible_projects(
        &self,
        caller: &Principal,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<ProjectRecord>> {
        if self.administers(caller) {
            return self.directory.projects(name, domain).await;
        }
        let mut projects = self.own_projects(caller).await?;
        projects.retain(|project| {
            name.is_none_or(|name| project.name == name)
                && domain.is_none_or(|domain| &project.domain == domain)
        });
        Ok(projects)
    }

    /// A project that the caller may see.
    ///
    /// # Errors
    /// NotFound where there is none such.
    pub async fn visible_project(
        &self,
        caller: &Principal,
        id: &ProjectId,
    ) -> Result<ProjectRecord> {
        let project = if self.administers(caller) {
            self.directory.project(id).await?
        } else {
            let projects = self.own_projects(caller).await?;
            projects.into_iter().find(|project| &project.id == id)
        };
        project.ok_or_else(|| no_such("project"))
    }

    /// The users that the caller may see: an administrator all, others themselves.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn visible_users(
        &self,
        caller: &Principal,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<UserRecord>> {
        if self.administers(caller) {
            return self.directory.users(name, domain).await;
        }
        let mut users = Vec::from_iter(self.directory.user(&caller.user.id).await?);
        users.retain(|user| {
            name.is_none_or(|name| user.name == name)
                && domain.is_none_or(|domain| &user.domain == domain)
        });
        Ok(users)
    }

    /// A user that the caller may see.
    ///
    /// # Errors
    /// NotFound where there is none such.
    pub async fn visible_user(&self, caller: &Principal, id: &UserId) -> Result<UserRecord> {
        if !self.administers(caller) && &caller.user.id != id {
            return Err(no_such("user"));
        }
        let user = self.directory.user(id).await?;
        user.ok_or_else(|| no_such("user"))
    }

    /// The roles.
    ///
    /// # Errors
    /// What the catalog says.
    pub async fn roles(
        &self,
        _: &Administrator<'_>,
        name: Option<&str>,
    ) -> Result<Vec<RoleRecord>> {
        self.directory.roles(name).await
    }

    /// A role.
    ///
    /// # Errors
    /// NotFound where there is none such.
    pub async fn role(&self, _: &Administrator<'_>, id: &RoleId) -> Result<RoleRecord> {
        let roles = self.directory.roles(None).await?;
        let role = roles.into_iter().find(|role| &role.id == id);
        role.ok_or_else(|| no_such("role"))
    }

    /// The roles of a user at a target.
    ///
    /// # Errors
    /// NotFound where user or target do not exist.
    pub async fn roles_of(
        &self,
        _: &Administrator<'_>,
        user: &UserId,
        target: &AssignmentTarget,
    ) -> Result<Vec<RoleRecord>> {
        self.require_user(user).await?;
        self.require_target(target).await?;
        self.directory.roles_of(user, target).await
    }

    /// Makes a role. It allows what the policies say of its name, and nothing before they do.
    ///
    /// # Errors
    /// InvalidRequest for a bad name; Conflict where it is taken.
    pub async fn create_role(&self, by: &Administrator<'_>, name: String) -> Result<RoleRecord> {
        let call = by.change()?;
        check_name(&name)?;
        let role = RoleRecord {
            id: RoleId::random(self.entropy.as_ref()),
            name,
        };
        let detail = json!({ "name": role.name });
        let line = self.line(call, "createRole", &role.id, detail);
        self.directory.insert_role(&role, Some(&line)).await?;
        Ok(role)
    }

    /// Removes a role from all who have it, and the role itself. Their tokens are revoked.
    ///
    /// # Errors
    /// NotFound where there is none; Forbidden where it is one of those that every service has.
    pub async fn delete_role(&self, by: &Administrator<'_>, id: &RoleId) -> Result<()> {
        let call = by.change()?;
        let role = self.role(by, id).await?;
        if crate::bootstrap::LASTING_ROLES.contains(&role.name.as_str()) {
            return Err(Error::forbidden("This role can't be deleted."));
        }
        let detail = json!({ "name": role.name });
        let line = self.line(call, "deleteRole", id, detail);
        let deleted = self.directory.delete_role(id, &line).await?;
        self.doubt_all();
        found(deleted, "role")
    }

    /// Makes a project.
    ///
    /// # Errors
    /// InvalidRequest for a bad name or an unknown domain; Conflict where the name is taken.
    pub async fn create_project(
        &self,
        by: &Administrator<'_>,
        new: NewProject,
    ) -> Result<ProjectRecord> {
        let call = by.change()?;
        check_name(&new.name)?;
        // One of the catalog's engines can't keep it.
        if new.description.contains('\0') {
            return Err(Error::invalid("A description can't hold a NUL."));
        }
        self.require_domain(&new.domain).await?;
        let project = ProjectRecord {
            id: ProjectId::random(self.entropy.as_ref()),
            domain: new.domain,
            name: new.name,
            description: new.description,
            enabled: new.enabled,
        };
        let detail = json!({
            "name": project.name,
            "domain": project.domain,
            "enabled": project.enabled,
        });
        let line = self.line(call, "createProject", &project.id, detail);
        self.directory.insert_project(&project, Some(&line)).await?;
        Ok(project)
    }

    /// Removes a project.
    ///
    /// # Errors
    /// NotFound where there is none; Conflict where it still has images or master keys.
    pub async fn delete_project(&self, by: &Administrator<'_>, id: &ProjectId) -> Result<()> {
        let call = by.change()?;
        let project = self.directory.project(id).await?;
        let project = project.ok_or_else(|| no_such("project"))?;
        let detail = json!({ "name": project.name });
        let line = self.line(call, "deleteProject", id, detail);
        let deleted = self.directory.delete_project(id, &line).await?;
        self.doubt_all();
        found(deleted, "project")
    }

    /// Makes a user.
    ///
    /// # Errors
    /// InvalidRequest for a bad name or password, or an unknown domain; Conflict where the name is taken.
    pub async fn create_user(&self, by: &Administrator<'_>, new: NewUser) -> Result<UserRecord> {
        let call = by.change()?;
        check_name(&new.name)?;
        self.require_domain(&new.domain).await?;
        let password_hash = match &new.password {
            Some(password) => Some(self.passwords.hash(password, self.entropy.as_ref()).await?),
            None => None,
        };
        let user = UserRecord {
            id: UserId::random(self.entropy.as_ref()),
            domain: new.domain,
            name: new.name,
            password_hash,
            default_project: new.default_project,
            enabled: new.enabled,
        };
        let detail = json!({
            "name": user.name,
            "domain": user.domain,
            "enabled": user.enabled,
        });
        let line = self.line(call, "createUser", &user.id, detail);
        self.directory.insert_user(&user, Some(&line)).await?;
        Ok(user)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn delete_user(&self, by: &Administrator<'_>, id: &UserId) -> Result<()> {
        let call = by.change()?;
        let user = self.directory.user(id).await?;
        let user = user.ok_or_else(|| no_such("user"))?;
        let detail = json!({ "name": user.name });
        let line = self.line(call, "deleteUser", id, detail);
        let deleted = self.directory.delete_user(id, &line).await?;
        self.doubt_all();
        found(deleted, "user")
    }

    /// Enables or disables a user. Disabling revokes its tokens, and its access keys are refused.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn set_user_enabled(
        &self,
        by: &Administrator<'_>,
        id: &UserId,
        enabled: bool,
    ) -> Result<()> {
        let call = by.change()?;
        let detail = json!({ "enabled": enabled });
        let line = self.line(call, "updateUser", id, detail);
        let changed = self.directory.set_user_enabled(id, enabled, &line).await?;
        self.doubt_all();
        found(changed, "user")
    }

    /// Enables or disables a project. Disabling revokes the tokens that are scoped to it.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn set_project_enabled(
        &self,
        by: &Administrator<'_>,
        id: &ProjectId,
        enabled: bool,
    ) -> Result<()> {
        let call = by.change()?;
        let detail = json!({ "enabled": enabled });
        let line = self.line(call, "updateProject", id, detail);
        let changed = self.directory.set_project_enabled(id, enabled, &line);
        let changed = changed.await?;
        self.doubt_all();
        found(changed, "project")
    }

    /// Sets a user's password, and revokes its tokens.
    ///
    /// # Errors
    /// NotFound where there is no such user; InvalidRequest for a bad password.
    pub async fn set_password(
        &self,
        by: &Administrator<'_>,
        id: &UserId,
        password: &SecretString,
    ) -> Result<()> {
        let call = by.change()?;
        let hash = self.passwords.hash(password, self.entropy.as_ref()).await?;
        let line = self.line(call, "changePassword", id, json!({}));
        let changed = self.directory.set_password(id, &hash, Some(&line)).await?;
        self.doubt_all();
        found(changed, "user")
    }

    /// Gives a user a role.
    ///
    /// # Errors
    /// NotFound where user, role or target do not exist.
    pub async fn assign(
        &self,
        by: &Administrator<'_>,
        user: &UserId,
        role: &RoleId,
        target: AssignmentTarget,
    ) -> Result<()> {
        let call = by.change()?;
        self.require_user(user).await?;
        let role = self.role(by, role).await?;
        self.require_target(&target).await?;
        let line = self.line(call, "assignRole", user, assignment(&role, &target));
        let assignment = Assignment {
            user: user.clone(),
            role: role.id,
            target,
        };
        self.directory.assign(&assignment, Some(&line)).await?;
        self.doubt_all();
        Ok(())
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// NotFound where the user did not have it.
    pub async fn unassign(
        &self,
        by: &Administrator<'_>,
        user: &UserId,
        role: &RoleId,
        target: AssignmentTarget,
    ) -> Result<()> {
        let call = by.change()?;
        let role = self.role(by, role).await?;
        let line = self.line(call, "unassignRole", user, assignment(&role, &target));
        let assignment = Assignment {
            user: user.clone(),
            role: role.id,
            target,
        };
        let taken = self.directory.unassign(&assignment, &line).await?;
        self.doubt_all();
        found(taken, "role assignment")
    }

    async fn require_domain(&self, id: &DomainId) -> Result<()> {
        match self.directory.domain(id).await? {
            Some(_) => Ok(()),
            None => Err(Error::invalid("The domain does not exist.")),
        }
    }

    async fn require_user(&self, id: &UserId) -> Result<()> {
        found(self.directory.user(id).await?.is_some(), "user")
    }

    async fn require_target(&self, target: &AssignmentTarget) -> Result<()> {
        match target {
            AssignmentTarget::Project(id) => {
                found(self.directory.project(id).await?.is_some(), "project")
            }
            AssignmentTarget::EnterpriseProject(id, project) => {
                found(self.directory.project(project).await?.is_some(), "project")?;
                let there = self.directory.has_enterprise_project(*id).await?;
                found(there, "enterprise project")
            }
            AssignmentTarget::Domain(id) => {
                found(self.directory.domain(id).await?.is_some(), "domain")
            }
            AssignmentTarget::System => Ok(()),
        }
    }
}

/// What the audit trail says of an assignment.
fn assignment(role: &RoleRecord, target: &AssignmentTarget) -> Value {
    match target {
        AssignmentTarget::Project(id) => json!({ "role": role.name, "project": id }),
        AssignmentTarget::EnterpriseProject(id, project) => {
            json!({ "role": role.name, "project": project, "enterprise_project": id.to_string() })
        }
        AssignmentTarget::Domain(id) => json!({ "role": role.name, "domain": id }),
        AssignmentTarget::System => json!({ "role": role.name, "system": "all" }),
    }
}

fn check_name(name: &str) -> Result<()> {
    let control = name.chars().any(char::is_control);
    if name.is_empty() || name.chars().count() > MAX_NAME || control {
        return Err(Error::invalid(
            "A name has 1 to 255 characters, none of them a control character.",
        ));
    }
    Ok(())
}

fn no_such(what: &'static str) -> Error {
    Error::not_found(format!("There is no such {what}."))
}

pub(crate) fn found(there: bool, what: &'static str) -> Result<()> {
    if there { Ok(()) } else { Err(no_such(what)) }
}
