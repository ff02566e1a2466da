//! Reading and changing the identity's records.
//!
//! What changes or reveals other people's records takes an [`Administrator`], which only the policy check makes.
//! What a user may see of itself takes its principal. Records that a caller may not see look as if they were not
//! there. Each change is one transaction of the catalog; tokens that were found good are doubted afterwards.

use std::fmt;

use calotype_core::access::{Action, Allowed, Principal};
use calotype_core::id::{DomainId, ProjectId, RoleId, UserId};
use calotype_core::ports::{
    AccessKey, Assignment, AssignmentTarget, DomainRecord, ProjectRecord, RoleRecord, UserRecord,
};
use calotype_core::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};

use crate::authenticate::sealing_context;
use crate::embedded::Embedded;

/// The most access keys that a user may have.
const MAX_ACCESS_KEYS: usize = 20;
/// The longest name of a user or project, in characters: Keystone's limit.
const MAX_NAME: usize = 255;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The proof that a principal may administer the identity. Only [`Embedded::administrator`] makes one.
#[derive(Debug, Clone)]
pub struct Administrator<'a>(#[expect(dead_code, reason = "held as the proof")] Allowed<'a>);

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

/// An access key that was just made: the only time that its secret is shown.
pub struct NewAccessKey {
    /// The public part (AK).
    pub access: String,
    /// The secret part (SK).
    pub secret: SecretString,
    /// Whose it is.
    pub user: UserId,
    /// The project of a signed request that names none.
    pub project: Option<ProjectId>,
}

impl fmt::Debug for NewAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewAccessKey")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl Embedded {
    /// Checks that `principal` may administer the identity.
    ///
    /// # Errors
    /// Forbidden where it may not.
    pub fn administrator<'a>(&self, principal: &'a Principal) -> Result<Administrator<'a>> {
        let allowed = self
            .access
            .authorize(principal, Action::IdentityAdminister)?;
        Ok(Administrator(allowed))
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
    pub async fn create_role(&self, _: &Administrator<'_>, name: String) -> Result<RoleRecord> {
        check_name(&name)?;
        let role = RoleRecord {
            id: RoleId::random(self.entropy.as_ref()),
            name,
        };
        self.directory.insert_role(&role).await?;
        Ok(role)
    }

    /// Removes a role from all who have it, and the role itself. Their tokens are revoked.
    ///
    /// # Errors
    /// NotFound where there is none; Forbidden where it is one of those that every service has.
    pub async fn delete_role(&self, by: &Administrator<'_>, id: &RoleId) -> Result<()> {
        let role = self.role(by, id).await?;
        if crate::bootstrap::LASTING_ROLES.contains(&role.name.as_str()) {
            return Err(Error::forbidden("This role can't be deleted."));
        }
        let deleted = self.directory.delete_role(id).await?;
        self.doubt_all();
        found(deleted, "role")
    }

    /// Makes a project.
    ///
    /// # Errors
    /// InvalidRequest for a bad name or an unknown domain; Conflict where the name is taken.
    pub async fn create_project(
        &self,
        _: &Administrator<'_>,
        new: NewProject,
    ) -> Result<ProjectRecord> {
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
        self.directory.insert_project(&project).await?;
        Ok(project)
    }

    /// Removes a project.
    ///
    /// # Errors
    /// NotFound where there is none; Conflict where it still has images.
    pub async fn delete_project(&self, _: &Administrator<'_>, id: &ProjectId) -> Result<()> {
        let deleted = self.directory.delete_project(id).await?;
        self.doubt_all();
        found(deleted, "project")
    }

    /// Makes a user.
    ///
    /// # Errors
    /// InvalidRequest for a bad name or password, or an unknown domain; Conflict where the name is taken.
    pub async fn create_user(&self, _: &Administrator<'_>, new: NewUser) -> Result<UserRecord> {
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
        self.directory.insert_user(&user).await?;
        Ok(user)
    }

    /// Removes a user.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn delete_user(&self, _: &Administrator<'_>, id: &UserId) -> Result<()> {
        let deleted = self.directory.delete_user(id).await?;
        self.doubt_all();
        found(deleted, "user")
    }

    /// Enables or disables a user. Disabling revokes its tokens, and its access keys are refused.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn set_user_enabled(
        &self,
        _: &Administrator<'_>,
        id: &UserId,
        enabled: bool,
    ) -> Result<()> {
        let changed = self.directory.set_user_enabled(id, enabled).await?;
        self.doubt_all();
        found(changed, "user")
    }

    /// Enables or disables a project. Disabling revokes the tokens that are scoped to it.
    ///
    /// # Errors
    /// NotFound where there is none.
    pub async fn set_project_enabled(
        &self,
        _: &Administrator<'_>,
        id: &ProjectId,
        enabled: bool,
    ) -> Result<()> {
        let changed = self.directory.set_project_enabled(id, enabled).await?;
        self.doubt_all();
        found(changed, "project")
    }

    /// Sets a user's password, and revokes its tokens.
    ///
    /// # Errors
    /// NotFound where there is no such user; InvalidRequest for a bad password.
    pub async fn set_password(
        &self,
        _: &Administrator<'_>,
        id: &UserId,
        password: &SecretString,
    ) -> Result<()> {
        let hash = self.passwords.hash(password, self.entropy.as_ref()).await?;
        let changed = self.directory.set_password(id, &hash).await?;
        self.doubt_all();
        found(changed, "user")
    }

    /// Gives a user a role.
    ///
    /// # Errors
    /// NotFound where user, role or target do not exist.
    pub async fn assign(
        &self,
        _: &Administrator<'_>,
        user: &UserId,
        role: &RoleId,
        target: AssignmentTarget,
    ) -> Result<()> {
        self.require_user(user).await?;
        self.require_role(role).await?;
        self.require_target(&target).await?;
        let assignment = Assignment {
            user: user.clone(),
            role: role.clone(),
            target,
        };
        self.directory.assign(&assignment).await?;
        self.doubt_all();
        Ok(())
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    /// NotFound where the user did not have it.
    pub async fn unassign(
        &self,
        _: &Administrator<'_>,
        user: &UserId,
        role: &RoleId,
        target: AssignmentTarget,
    ) -> Result<()> {
        let assignment = Assignment {
            user: user.clone(),
            role: role.clone(),
            target,
        };
        let taken = self.directory.unassign(&assignment).await?;
        self.doubt_all();
        found(taken, "role assignment")
    }

    /// Makes an access key for the caller, or, by an administrator, for another user.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user; Forbidden where that user has no role in the project;
    /// Conflict where it has too many keys.
    pub async fn create_access_key(
        &self,
        caller: &Principal,
        user: &UserId,
        project: Option<&ProjectId>,
    ) -> Result<NewAccessKey> {
        let user = self.visible_user(caller, user).await?;
        if let Some(project) = project {
            let projects = self.directory.projects_of(&user.id).await?;
            if !projects.iter().any(|own| &own.id == project) {
                return Err(Error::forbidden("The user has no role in that project."));
            }
        }
        if self.directory.access_keys(&user.id).await?.len() >= MAX_ACCESS_KEYS {
            return Err(Error::conflict("The user has too many access keys."));
        }
        self.make_access_key(&user.id, project).await
    }

    /// The access keys of the caller, or, for an administrator, of another user. Without their secrets.
    ///
    /// # Errors
    /// NotFound where the caller may not see the user.
    pub async fn access_keys(&self, caller: &Principal, user: &UserId) -> Result<Vec<AccessKey>> {
        let user = self.visible_user(caller, user).await?;
        self.directory.access_keys(&user.id).await
    }

    /// Removes an access key of a user that the caller may see.
    ///
    /// # Errors
    /// NotFound where there is none such.
    pub async fn delete_access_key(
        &self,
        caller: &Principal,
        user: &UserId,
        access: &str,
    ) -> Result<()> {
        let keys = self.access_keys(caller, user).await?;
        let theirs = keys.iter().any(|key| key.access == access);
        found(
            theirs && self.directory.delete_access_key(access).await?,
            "access key",
        )
    }

    pub(crate) async fn make_access_key(
        &self,
        user: &UserId,
        project: Option<&ProjectId>,
    ) -> Result<NewAccessKey> {
        let access = self.random_text(BASE32, 20);
        let secret = SecretString::from(self.random_text(BASE32, 40));
        let sealed_secret = self
            .keys
            .seal_secret(&sealing_context(&access), secret.expose_secret().as_bytes())?;
        let key = AccessKey {
            access: access.clone(),
            sealed_secret,
            user: user.clone(),
            project: project.cloned(),
            enabled: true,
            created_at: self.clock.now(),
        };
        self.directory.insert_access_key(&key).await?;
        Ok(NewAccessKey {
            access,
            secret,
            user: user.clone(),
            project: project.cloned(),
        })
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
            AssignmentTarget::Domain(id) => {
                found(self.directory.domain(id).await?.is_some(), "domain")
            }
            AssignmentTarget::System => Ok(()),
        }
    }

    async fn require_role(&self, id: &RoleId) -> Result<()> {
        let roles = self.directory.roles(None).await?;
        found(roles.iter().any(|role| &role.id == id), "role")
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

fn found(there: bool, what: &'static str) -> Result<()> {
    if there { Ok(()) } else { Err(no_such(what)) }
}
