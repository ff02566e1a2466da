//! The first users, so that `serve` alone gives a service that one can log in to.
//!
//! The order is: records, fresh passwords and access keys, the caller's `clouds.yaml`, and then, by
//! [`Embedded::confirm_bootstrap`], the mark that it is done. Until the mark is there every start gives fresh
//! secrets, so a crash anywhere leaves a start that ends with a `clouds.yaml` that works. Once it is there a start
//! changes nothing: an administrator's changes stay, and so do passwords when a second node starts with an empty
//! directory. Two nodes that make the very first start together on one database may leave one of them with a
//! `clouds.yaml` that does not work; [`Renewal::Always`] repairs that.

use std::fmt;

use calotype_core::Result;
use calotype_core::access::Named;
use calotype_core::id::{DomainId, ProjectId, RoleId, UserId};
use calotype_core::ports::{
    Assignment, AssignmentTarget, DomainRecord, ProjectRecord, RoleRecord, UserRecord,
};
use secrecy::SecretString;

use crate::access_keys::NewAccessKey;
use crate::embedded::{Embedded, unless_there, vanished};

/// The mark: a role, because this one can't be removed. It is one of Keystone's own, and policies give it nothing.
const MARK: &str = "service";
/// The roles that every service has: the mark, and those that the first users have.
pub(crate) const LASTING_ROLES: [&str; 4] = ["admin", "member", "reader", MARK];
const DOMAIN: &str = "default";
const DOMAIN_NAME: &str = "Default";
const LOWER: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345679";

/// Whether secrets that were given before are given anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Only while the first start has not been confirmed.
    UntilConfirmed,
    /// In any case: an operator at the machine lost `clouds.yaml`. The first users' old passwords, tokens and
    /// access keys end.
    Always,
}

/// One of the first users, with secrets that are shown this once.
pub struct FirstUser {
    /// The user.
    pub user: Named<UserId>,
    /// The project that it works in.
    pub project: Named<ProjectId>,
    /// The domain of both.
    pub domain: Named<DomainId>,
    /// Its password.
    pub password: SecretString,
    /// Its access key.
    pub access_key: NewAccessKey,
}

impl fmt::Debug for FirstUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstUser")
            .field("user", &self.user)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

/// What the binary writes to `clouds.yaml`.
#[derive(Debug)]
pub struct Bootstrapped {
    /// The user that works in project `demo`.
    pub demo: FirstUser,
    /// The administrator.
    pub admin: FirstUser,
}

impl Embedded {
    /// Makes the first domain, projects, roles and users, with fresh secrets. None where that was done and
    /// confirmed.
    ///
    /// The caller writes `clouds.yaml`, makes it durable, and then calls [`Self::confirm_bootstrap`].
    ///
    /// # Errors
    /// What the catalog says. The next start does it again.
    pub async fn bootstrap(&self, renewal: Renewal) -> Result<Option<Bootstrapped>> {
        let confirmed = !self.directory.roles(Some(MARK)).await?.is_empty();
        if confirmed && renewal == Renewal::UntilConfirmed {
            return Ok(None);
        }
        let domain = self.ensure_domain().await?;
        let demo = self.ensure_project(&domain, "demo").await?;
        let admin = self.ensure_project(&domain, "admin").await?;
        let demo_user = self.ensure_user(&domain, "demo", &demo).await?;
        let admin_user = self.ensure_user(&domain, "admin", &admin).await?;
        let demo_in = || AssignmentTarget::Project(demo.id.clone());
        let on_domain = || AssignmentTarget::Domain(domain.id.clone());
        // Terraform's provider logs in to the domain as well, whatever it is asked to do: hence the first user's
        // role there.
        for (user, role, target) in [
            (&demo_user, "member", demo_in()),
            (&demo_user, "reader", demo_in()),
            (&demo_user, "reader", on_domain()),
            (&admin_user, "admin", demo_in()),
            (
                &admin_user,
                "admin",
                AssignmentTarget::Project(admin.id.clone()),
            ),
            (&admin_user, "admin", on_domain()),
            (&admin_user, "admin", AssignmentTarget::System),
        ] {
            let assignment = Assignment {
                user: user.id.clone(),
                role: self.ensure_role(role).await?,
                target,
            };
            self.directory.assign(&assignment, None).await?;
        }
        // At once, because a password's hash takes long, and the first start is waited for.
        let (demo, admin) = tokio::try_join!(
            self.give_secrets(&domain, demo_user, demo),
            self.give_secrets(&domain, admin_user, admin)
        )?;
        Ok(Some(Bootstrapped { demo, admin }))
    }

    /// Marks the first start as done: the secrets are where the user finds them.
    ///
    /// # Errors
    /// What the catalog says. The next start then gives fresh secrets.
    pub async fn confirm_bootstrap(&self) -> Result<()> {
        self.ensure_role(MARK).await.map(|_| ())
    }

    async fn give_secrets(
        &self,
        domain: &Named<DomainId>,
        user: Named<UserId>,
        project: Named<ProjectId>,
    ) -> Result<FirstUser> {
        let password = SecretString::from(self.random_text(LOWER, 24));
        let hash = self
            .passwords
            .hash(&password, self.entropy.as_ref())
            .await?;
        let set = self.directory.set_password(&user.id, &hash, None);
        if !set.await? {
            return Err(vanished("a first user"));
        }
        for key in self.directory.access_keys(&user.id).await? {
            self.directory.delete_access_key(&key.access, None).await?;
        }
        let access_key = self.first_access_key(&user.id, &project.id).await?;
        self.doubt_all();
        Ok(FirstUser {
            user,
            project,
            domain: domain.clone(),
            password,
            access_key,
        })
    }

    async fn ensure_domain(&self) -> Result<Named<DomainId>> {
        let id: DomainId = DOMAIN.parse().map_err(calotype_core::Error::internal)?;
        if let Some(domain) = self.directory.domain(&id).await? {
            return Ok(crate::embedded::named_domain(domain));
        }
        let domain = DomainRecord {
            id: id.clone(),
            name: DOMAIN_NAME.to_owned(),
            enabled: true,
        };
        unless_there(self.directory.insert_domain(&domain).await)?;
        Ok(crate::embedded::named_domain(domain))
    }

    async fn ensure_project(
        &self,
        domain: &Named<DomainId>,
        name: &str,
    ) -> Result<Named<ProjectId>> {
        let found = || self.directory.projects(Some(name), Some(&domain.id));
        if found().await?.is_empty() {
            let project = ProjectRecord {
                id: ProjectId::random(self.entropy.as_ref()),
                domain: domain.id.clone(),
                name: name.to_owned(),
                description: String::new(),
                enabled: true,
            };
            unless_there(self.directory.insert_project(&project, None).await)?;
        }
        let project = found().await?.into_iter().next();
        let project = project.ok_or_else(|| vanished("a first project"))?;
        Ok(Named {
            id: project.id,
            name: project.name,
        })
    }

    async fn ensure_user(
        &self,
        domain: &Named<DomainId>,
        name: &str,
        project: &Named<ProjectId>,
    ) -> Result<Named<UserId>> {
        let found = || self.directory.users(Some(name), Some(&domain.id));
        if found().await?.is_empty() {
            let user = UserRecord {
                id: UserId::random(self.entropy.as_ref()),
                domain: domain.id.clone(),
                name: name.to_owned(),
                password_hash: None,
                default_project: Some(project.id.clone()),
                enabled: true,
            };
            unless_there(self.directory.insert_user(&user, None).await)?;
        }
        let user = found().await?.into_iter().next();
        let user = user.ok_or_else(|| vanished("a first user"))?;
        Ok(Named {
            id: user.id,
            name: user.name,
        })
    }

    async fn ensure_role(&self, name: &str) -> Result<RoleId> {
        if let Some(role) = self.directory.roles(Some(name)).await?.into_iter().next() {
            return Ok(role.id);
        }
        let role = RoleRecord {
            id: RoleId::random(self.entropy.as_ref()),
            name: name.to_owned(),
        };
        unless_there(self.directory.insert_role(&role, None).await)?;
        let role = self.directory.roles(Some(name)).await?.into_iter().next();
        Ok(role.ok_or_else(|| vanished("a role"))?.id)
    }
}
