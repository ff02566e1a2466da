//! The embedded identity: its parts, and what they share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use calotype_core::access::{Access, Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::id::{DomainId, EnterpriseProjectId, ProjectId, UserId};
use calotype_core::ports::{
    AssignmentTarget, Clock, Directory, DomainRecord, Entropy, RoleRecord, Secrets, UserRecord,
};
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};
use moka::sync::Cache;

use crate::login::Session;
use crate::passwords::Passwords;
use crate::refused;
use crate::throttle::Throttle;

/// How long a token that was found good is believed without asking the catalog again, and so how long a
/// revocation on another node can go unnoticed. A revocation through this process is noticed at once.
const BELIEVED: Duration = Duration::from_secs(5);
/// Tokens that are remembered.
const REMEMBERED: u64 = 10_000;

/// The ports that the identity works on.
#[derive(Clone)]
pub struct Ports {
    /// Its records.
    pub directory: Arc<dyn Directory>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for tokens, passwords, keys and ids.
    pub entropy: Arc<dyn Entropy>,
    /// What seals the secrets of access keys.
    pub keys: Arc<dyn Secrets>,
}

/// What an operator sets.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// The region of the service catalog's endpoints.
    pub region: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            token_lifetime: Duration::from_secs(24 * 3600),
            region: "calotype".to_owned(),
        }
    }
}

/// The embedded identity.
pub struct Embedded {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) keys: Arc<dyn Secrets>,
    pub(crate) access: Arc<Access>,
    pub(crate) options: Options,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: Throttle,
    believed: Cache<String, Believed>,
    /// Raised by every change that may end a token. What was read before the last one is not believed.
    epoch: AtomicU64,
}

/// A token that was found good.
#[derive(Clone)]
struct Believed {
    read_at: ReadAt,
    session: Arc<Session>,
}

/// When the records behind a session began to be read.
#[derive(Clone, Copy)]
pub(crate) struct ReadAt {
    now: Timestamp,
    epoch: u64,
}

impl Embedded {
    /// An identity on these ports. `access` decides who may administer it.
    pub fn new(ports: Ports, access: Arc<Access>, options: Options) -> Self {
        Self {
            directory: ports.directory,
            clock: ports.clock,
            entropy: ports.entropy,
            keys: ports.keys,
            access,
            options,
            passwords: Passwords::new(),
            throttle: Throttle::new(),
            believed: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(BELIEVED)
                .build(),
            epoch: AtomicU64::new(0),
        }
    }

    /// The region of the service catalog's endpoints.
    pub fn region(&self) -> &str {
        &self.options.region
    }

    /// Starts the reading of the records behind a session.
    pub(crate) fn read_at(&self) -> ReadAt {
        ReadAt {
            now: self.clock.now(),
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    pub(crate) fn believed(&self, hash: &str, at: ReadAt) -> Option<Arc<Session>> {
        let Believed { read_at, session } = self.believed.get(hash)?;
        let fresh = read_at.epoch == at.epoch
            && read_at.now <= at.now
            && at.now.since(read_at.now) < BELIEVED;
        (fresh && at.now < session.expires_at).then_some(session)
    }

    pub(crate) fn believe(&self, hash: &str, read_at: ReadAt, session: &Arc<Session>) {
        let session = Arc::clone(session);
        self.believed
            .insert(hash.to_owned(), Believed { read_at, session });
    }

    /// Believes no token that was found good before: the records that made it so have changed. A validation that
    /// read them before and ends after this is not believed either.
    pub(crate) fn doubt_all(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// An enabled user with its enabled domain.
    pub(crate) async fn live_user(&self, id: &UserId) -> Result<(UserRecord, DomainRecord)> {
        let user = self.directory.user(id).await?;
        let user = user
            .filter(|user| user.enabled)
            .ok_or_else(|| refused("the user is gone or disabled"))?;
        let domain = self.live_domain(&user.domain).await?;
        Ok((user, domain))
    }

    pub(crate) async fn live_domain(&self, id: &DomainId) -> Result<DomainRecord> {
        let domain = self.directory.domain(id).await?;
        domain
            .filter(|domain| domain.enabled)
            .ok_or_else(|| refused("the domain is gone or disabled"))
    }

    pub(crate) async fn project_scope(&self, id: &ProjectId) -> Result<Scope> {
        let project = self.directory.project(id).await?;
        let project = project
            .filter(|project| project.enabled)
            .ok_or_else(|| refused("the project is gone or disabled"))?;
        let domain = self.live_domain(&project.domain).await?;
        Ok(Scope::Project(ProjectScope {
            project: Named {
                id: project.id,
                name: project.name,
            },
            domain: named_domain(domain),
        }))
    }

    /// The scope as it is now, by the ids that it had when the token was given.
    pub(crate) async fn scope_now(&self, then: &Scope) -> Result<Scope> {
        match then {
            Scope::Project(scope) => self.project_scope(&scope.project.id).await,
            Scope::Domain(domain) => {
                let domain = self.live_domain(&domain.id).await?;
                Ok(Scope::Domain(named_domain(domain)))
            }
            Scope::System => Ok(Scope::System),
            Scope::Unscoped => Ok(Scope::Unscoped),
        }
    }

    /// The user as a principal in a scope, with the roles that it has there now.
    ///
    /// # Errors
    /// Unauthenticated where it has none.
    pub(crate) async fn principal(
        &self,
        user: UserRecord,
        domain: DomainRecord,
        scope: Scope,
        credential: Credential,
    ) -> Result<(Principal, Vec<RoleRecord>)> {
        let roles = match target(&scope) {
            Some(target) => self.directory.roles_of(&user.id, &target).await?,
            None => Vec::new(),
        };
        let enterprise_roles = match &scope {
            Scope::Project(scope) => self.enterprise_roles(&user.id, &scope.project.id).await?,
            _ => BTreeMap::new(),
        };
        if roles.is_empty() && enterprise_roles.is_empty() && scope != Scope::Unscoped {
            return Err(refused("the user has no role in the scope"));
        }
        let principal = Principal {
            user: Named {
                id: user.id,
                name: user.name,
            },
            user_domain: named_domain(domain),
            scope,
            roles: roles.iter().map(|role| role.name.clone()).collect(),
            enterprise_roles,
            credential,
        };
        Ok((principal, roles))
    }

    /// The names of a user's roles on enterprise projects in a project.
    async fn enterprise_roles(
        &self,
        user: &UserId,
        project: &ProjectId,
    ) -> Result<BTreeMap<EnterpriseProjectId, Vec<String>>> {
        let mut roles: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for (id, role) in self.directory.enterprise_roles_of(user, project).await? {
            roles.entry(id).or_default().push(role.name);
        }
        Ok(roles)
    }

    /// `count` characters of 5 random bits each.
    pub(crate) fn random_text(&self, alphabet: &[u8; 32], count: usize) -> String {
        let mut bytes = zeroize::Zeroizing::new(vec![0; count]);
        self.entropy.fill(&mut bytes);
        let letters = bytes
            .iter()
            .filter_map(|byte| alphabet.get(usize::from(byte & 31)));
        letters.map(|letter| char::from(*letter)).collect()
    }
}

pub(crate) fn named_domain(domain: DomainRecord) -> Named<DomainId> {
    Named {
        id: domain.id,
        name: domain.name,
    }
}

/// Where the roles of a scope are assigned.
pub(crate) fn target(scope: &Scope) -> Option<AssignmentTarget> {
    match scope {
        Scope::Project(scope) => Some(AssignmentTarget::Project(scope.project.id.clone())),
        Scope::Domain(domain) => Some(AssignmentTarget::Domain(domain.id.clone())),
        Scope::System => Some(AssignmentTarget::System),
        Scope::Unscoped => None,
    }
}

/// Takes a conflict as "it is there already".
pub(crate) fn unless_there(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == calotype_core::ErrorKind::Conflict => Ok(()),
        other => other,
    }
}

/// What must be there after it was made, and is not.
pub(crate) fn vanished(what: &'static str) -> Error {
    Error::internal(format!("{what} vanished while it was made"))
}
