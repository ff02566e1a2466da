//! A directory in memory, a key service that hides nothing, a clock that is set and counted randomness: for tests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use calotype_core::id::{DomainId, EnterpriseProjectId, ProjectId, RoleId, UserId};
use calotype_core::ports::*;
use calotype_core::time::Timestamp;
use calotype_core::{Error, Result};

#[derive(Default)]
struct Records {
    domains: Vec<DomainRecord>,
    projects: Vec<ProjectRecord>,
    users: Vec<UserRecord>,
    roles: Vec<RoleRecord>,
    assignments: Vec<Assignment>,
    keys: Vec<AccessKey>,
    tokens: Vec<TokenRecord>,
    lines: Vec<AuditEvent>,
    /// Calls that change something, until one fails.
    changes_left: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Memory(Mutex<Records>);

impl Memory {
    /// The change after `changes` more fails, as do all that follow: a crash.
    pub(crate) fn crash_after(&self, changes: Option<u32>) {
        self.0.lock().unwrap().changes_left = changes;
    }

    pub(crate) fn stored_tokens(&self) -> Vec<TokenRecord> {
        self.0.lock().unwrap().tokens.clone()
    }

    /// The audit trail's lines since the last call.
    pub(crate) fn new_lines(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.0.lock().unwrap().lines)
    }

    fn read<T>(&self, read: impl FnOnce(&mut Records) -> T) -> Result<T> {
        Ok(read(&mut self.0.lock().unwrap()))
    }

    /// Makes a change, and keeps its line where it says that it changed something.
    fn change(
        &self,
        line: Option<&AuditEvent>,
        change: impl FnOnce(&mut Records) -> Result<bool>,
    ) -> Result<bool> {
        let mut records = self.0.lock().unwrap();
        match &mut records.changes_left {
            Some(0) => return Err(Error::unavailable("crashed")),
            Some(left) => *left -= 1,
            None => {}
        }
        let changed = change(&mut records)?;
        if changed {
            records.lines.extend(line.cloned());
        }
        Ok(changed)
    }

    fn insert<T>(
        &self,
        list: impl FnOnce(&mut Records) -> &mut Vec<T>,
        item: T,
        same: impl Fn(&T) -> bool,
        line: Option<&AuditEvent>,
    ) -> Result<()> {
        let inserted = self.change(line, |records| {
            let list = list(records);
            if list.iter().any(same) {
                return Err(Error::conflict("taken"));
            }
            list.push(item);
            Ok(true)
        });
        inserted.map(|_| ())
    }
}

fn remove<T>(list: &mut Vec<T>, gone: impl Fn(&T) -> bool) -> bool {
    let before = list.len();
    list.retain(|item| !gone(item));
    list.len() < before
}

#[async_trait::async_trait]
impl Directory for Memory {
    async fn insert_domain(&self, domain: &DomainRecord) -> Result<()> {
        self.insert(
            |r| &mut r.domains,
            domain.clone(),
            |d| d.id == domain.id,
            None,
        )
    }
    async fn domain(&self, id: &DomainId) -> Result<Option<DomainRecord>> {
        self.read(|r| r.domains.iter().find(|d| &d.id == id).cloned())
    }
    async fn domains(&self, name: Option<&str>) -> Result<Vec<DomainRecord>> {
        self.read(|r| {
            let named = |d: &&DomainRecord| name.is_none_or(|name| d.name == name);
            r.domains.iter().filter(named).cloned().collect()
        })
    }
    async fn insert_project(
        &self,
        project: &ProjectRecord,
        line: Option<&AuditEvent>,
    ) -> Result<()> {
        self.insert(
            |r| &mut r.projects,
            project.clone(),
            |p| p.name == project.name && p.domain == project.domain,
            line,
        )
    }
    async fn project(&self, id: &ProjectId) -> Result<Option<ProjectRecord>> {
        self.read(|r| r.projects.iter().find(|p| &p.id == id).cloned())
    }
    async fn projects(
        &self,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<ProjectRecord>> {
        self.read(|r| {
            let mut found = r.projects.clone();
            found.retain(|p| {
                name.is_none_or(|name| p.name == name) && domain.is_none_or(|id| &p.domain == id)
            });
            found
        })
    }
    async fn set_project_enabled(
        &self,
        id: &ProjectId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        self.change(Some(line), |r| {
            let project = r.projects.iter_mut().find(|p| &p.id == id);
            Ok(project.map(|p| p.enabled = enabled).is_some())
        })
    }
    async fn delete_project(&self, id: &ProjectId, line: &AuditEvent) -> Result<bool> {
        self.change(Some(line), |r| {
            r.assignments.retain(|a| project_of(&a.target) != Some(id));
            r.keys.retain(|k| k.project.as_ref() != Some(id));
            Ok(remove(&mut r.projects, |p| &p.id == id))
        })
    }
    async fn insert_user(&self, user: &UserRecord, line: Option<&AuditEvent>) -> Result<()> {
        self.insert(
            |r| &mut r.users,
            user.clone(),
            |u| u.name == user.name && u.domain == user.domain,
            line,
        )
    }
    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>> {
        self.read(|r| r.users.iter().find(|u| &u.id == id).cloned())
    }
    async fn users(
        &self,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<UserRecord>> {
        self.read(|r| {
            let mut found = r.users.clone();
            found.retain(|u| {
                name.is_none_or(|name| u.name == name) && domain.is_none_or(|id| &u.domain == id)
            });
            found
        })
    }
    async fn set_password(
        &self,
        id: &UserId,
        password_hash: &str,
        line: Option<&AuditEvent>,
    ) -> Result<bool> {
        self.change(line, |r| {
            r.tokens.retain(|t| &t.user != id);
            r.keys.retain(|k| &k.user != id || k.temporary.is_none());
            let user = r.users.iter_mut().find(|u| &u.id == id);
            Ok(user
                .map(|u| u.password_hash = Some(password_hash.to_owned()))
                .is_some())
        })
    }
    async fn set_user_enabled(
        &self,
        id: &UserId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        self.change(Some(line), |r| {
            let user = r.users.iter_mut().find(|u| &u.id == id);
            Ok(user.map(|u| u.enabled = enabled).is_some())
        })
    }
    async fn delete_user(&self, id: &UserId, line: &AuditEvent) -> Result<bool> {
        self.change(Some(line), |r| {
            r.assignments.retain(|a| &a.user != id);
            r.keys.retain(|k| &k.user != id);
            r.tokens.retain(|t| &t.user != id);
            Ok(remove(&mut r.users, |u| &u.id == id))
        })
    }
    async fn insert_role(&self, role: &RoleRecord, line: Option<&AuditEvent>) -> Result<()> {
        self.insert(
            |r| &mut r.roles,
            role.clone(),
            |o| o.name == role.name,
            line,
        )
    }
    async fn delete_role(&self, id: &RoleId, line: &AuditEvent) -> Result<bool> {
        self.change(Some(line), |r| {
            let had: Vec<_> = r.assignments.iter().filter(|a| &a.role == id).collect();
            r.tokens.retain(|t| !had.iter().any(|a| a.user == t.user));
            r.assignments.retain(|a| &a.role != id);
            Ok(remove(&mut r.roles, |o| &o.id == id))
        })
    }
    async fn roles(&self, name: Option<&str>) -> Result<Vec<RoleRecord>> {
        self.read(|r| {
            let named = |o: &&RoleRecord| name.is_none_or(|name| o.name == name);
            r.roles.iter().filter(named).cloned().collect()
        })
    }
    async fn assign(&self, assignment: &Assignment, line: Option<&AuditEvent>) -> Result<()> {
        let assigned = self.change(line, |r| {
            let new = !r.assignments.contains(assignment);
            if new {
                r.assignments.push(assignment.clone());
            }
            Ok(new)
        });
        assigned.map(|_| ())
    }
    async fn unassign(&self, assignment: &Assignment, line: &AuditEvent) -> Result<bool> {
        self.change(Some(line), |r| {
            Ok(remove(&mut r.assignments, |a| a == assignment))
        })
    }
    async fn roles_of(&self, user: &UserId, target: &AssignmentTarget) -> Result<Vec<RoleRecord>> {
        self.read(|r| {
            let has = |role: &RoleRecord| {
                r.assignments
                    .iter()
                    .any(|a| &a.user == user && &a.target == target && a.role == role.id)
            };
            r.roles.iter().filter(|role| has(role)).cloned().collect()
        })
    }
    async fn has_enterprise_project(&self, id: EnterpriseProjectId) -> Result<bool> {
        Ok(id == EnterpriseProjectId::Default)
    }
    async fn enterprise_roles_of(
        &self,
        user: &UserId,
        project: &ProjectId,
    ) -> Result<Vec<(EnterpriseProjectId, RoleRecord)>> {
        self.read(|r| {
            let theirs = r.assignments.iter().filter(|a| &a.user == user);
            let found = theirs.filter_map(|a| match &a.target {
                AssignmentTarget::EnterpriseProject(id, there) if there == project => {
                    let role = r.roles.iter().find(|role| role.id == a.role)?;
                    Some((*id, role.clone()))
                }
                _ => None,
            });
            found.collect()
        })
    }
    async fn projects_of(&self, user: &UserId) -> Result<Vec<ProjectRecord>> {
        self.read(|r| {
            let has = |p: &ProjectRecord| {
                r.assignments
                    .iter()
                    .any(|a| &a.user == user && project_of(&a.target) == Some(&p.id))
            };
            let found = r.projects.iter().filter(|p| p.enabled && has(p));
            found.cloned().collect()
        })
    }
    async fn domains_of(&self, user: &UserId) -> Result<Vec<DomainRecord>> {
        self.read(|r| {
            let has = |d: &DomainRecord| {
                let target = AssignmentTarget::Domain(d.id.clone());
                r.assignments
                    .iter()
                    .any(|a| &a.user == user && a.target == target)
            };
            let found = r.domains.iter().filter(|d| d.enabled && has(d));
            found.cloned().collect()
        })
    }
    async fn insert_access_key(&self, key: &AccessKey, line: Option<&AuditEvent>) -> Result<()> {
        self.insert(
            |r| &mut r.keys,
            key.clone(),
            |k| k.access == key.access,
            line,
        )
    }
    async fn access_key(&self, access: &str) -> Result<Option<AccessKey>> {
        self.read(|r| r.keys.iter().find(|k| k.access == access).cloned())
    }
    async fn access_keys(&self, user: &UserId) -> Result<Vec<AccessKey>> {
        self.read(|r| {
            let theirs = |k: &&AccessKey| &k.user == user && k.temporary.is_none();
            r.keys.iter().filter(theirs).cloned().collect()
        })
    }
    async fn set_access_key_enabled(
        &self,
        access: &str,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        self.change(Some(line), |r| {
            let permanent = |k: &&mut AccessKey| k.access == access && k.temporary.is_none();
            let Some(key) = r.keys.iter_mut().find(permanent) else {
                return Ok(false);
            };
            key.enabled = enabled;
            let user = key.user.clone();
            if !enabled {
                r.keys.retain(|k| k.user != user || k.temporary.is_none());
            }
            Ok(true)
        })
    }
    async fn delete_access_key(&self, access: &str, line: Option<&AuditEvent>) -> Result<bool> {
        self.change(line, |r| {
            let permanent = |k: &AccessKey| k.access == access && k.temporary.is_none();
            let user = r.keys.iter().find(|k| permanent(k)).map(|k| k.user.clone());
            let ends = |k: &AccessKey| k.temporary.is_some() && Some(&k.user) == user.as_ref();
            Ok(remove(&mut r.keys, |k| permanent(k) || ends(k)))
        })
    }
    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        self.insert(
            |r| &mut r.tokens,
            token.clone(),
            |t| t.hash == token.hash,
            None,
        )
    }
    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        self.read(|r| r.tokens.iter().find(|t| t.hash == hash).cloned())
    }
    async fn revoke_token(&self, hash: &str, line: Option<&AuditEvent>) -> Result<bool> {
        self.change(line, |r| Ok(remove(&mut r.tokens, |t| t.hash == hash)))
    }
}

/// Starts at 2026-11-23T20:15:00Z.
pub(crate) struct SetClock(AtomicI64);

impl Default for SetClock {
    fn default() -> Self {
        Self::at(Timestamp::parse("2026-11-23T20:15:00Z").unwrap())
    }
}

impl SetClock {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_micros()))
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::SeqCst);
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.set(self.now().plus(by));
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Never the same twice.
#[derive(Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::SeqCst).to_string();
        let digits = hex::decode(crate::sha256_hex(count.as_bytes())).unwrap();
        for (byte, digit) in bytes.iter_mut().zip(digits.iter().cycle()) {
            *byte = *digit;
        }
    }
}

/// "Seals" by putting the context in front.
pub(crate) struct PlainKeys;

impl Secrets for PlainKeys {
    fn seal_secret(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        Ok([context.as_bytes(), b"|", secret].concat())
    }
    fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>> {
        let prefix = format!("{context}|");
        let secret = sealed.strip_prefix(prefix.as_bytes());
        secret
            .map(|secret| zeroize::Zeroizing::new(secret.to_vec()))
            .ok_or_else(|| Error::damaged("another context"))
    }
}

/// The project that a role is given in.
fn project_of(target: &AssignmentTarget) -> Option<&ProjectId> {
    match target {
        AssignmentTarget::Project(id) | AssignmentTarget::EnterpriseProject(_, id) => Some(id),
        AssignmentTarget::Domain(_) | AssignmentTarget::System => None,
    }
}
