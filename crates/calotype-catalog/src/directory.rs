//! The embedded identity's records.
//!
//! What takes a right away (a password's change, a disabling, an unassignment) revokes the tokens and the
//! temporary access keys that carry it in the same transaction. That transaction writes the line of the audit trail, too.

use calotype_core::access::Scope;
use calotype_core::id::{DomainId, EnterpriseProjectId, ProjectId, RoleId, UserId};
use calotype_core::ports::{
    AccessKey, Assignment, AssignmentTarget, AuditEvent, Directory, DomainRecord, ProjectRecord,
    Projects, RoleRecord, TemporaryKey, TokenRecord, UserRecord,
};
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx};
use crate::ledger::insert_event;
use crate::master_keys::keys_of;

fn domain_of(row: &Row) -> Result<DomainRecord> {
    Ok(DomainRecord {
        id: row.parsed("id")?,
        name: row.text("name")?,
        enabled: row.bool("enabled")?,
    })
}

fn project_of(row: &Row) -> Result<ProjectRecord> {
    Ok(ProjectRecord {
        id: row.parsed("id")?,
        domain: row.parsed("domain_id")?,
        name: row.text("name")?,
        description: row.text("description")?,
        enabled: row.bool("enabled")?,
    })
}

fn user_of(row: &Row) -> Result<UserRecord> {
    Ok(UserRecord {
        id: row.parsed("id")?,
        domain: row.parsed("domain_id")?,
        name: row.text("name")?,
        password_hash: row.opt_text("password_hash")?,
        default_project: row.opt_parsed("default_project")?,
        enabled: row.bool("enabled")?,
    })
}

fn role_of(row: &Row) -> Result<RoleRecord> {
    Ok(RoleRecord {
        id: row.parsed("id")?,
        name: row.text("name")?,
    })
}

/// Removes the temporary access keys of the user that `row` names.
async fn delete_temporary_keys(tx: &mut Tx, row: &Row) -> Result<()> {
    let sql = "delete from access_keys where user_id = $1 and expires_at is not null";
    let args = vec![Arg::text(row.text("user_id")?)];
    tx.execute(sql, args).await.map(drop)
}

fn access_key_of(row: &Row) -> Result<AccessKey> {
    let temporary = match row.opt_time("expires_at")? {
        None => None,
        Some(expires_at) => Some(TemporaryKey {
            security_token_hash: row.text("security_token_hash")?,
            scope: scope_of(row)?,
            expires_at,
        }),
    };
    Ok(AccessKey {
        access: row.text("access")?,
        sealed_secret: row.blob("sealed_secret")?,
        user: row.parsed("user_id")?,
        project: row.opt_parsed("project_id")?,
        enabled: row.bool("enabled")?,
        created_at: row.time("created_at")?,
        temporary,
    })
}

fn scope_of(row: &Row) -> Result<Scope> {
    serde_json::from_str(&row.text("scope")?).map_err(Error::internal)
}

fn token_of(row: &Row) -> Result<TokenRecord> {
    Ok(TokenRecord {
        hash: row.text("hash")?,
        user: row.parsed("user_id")?,
        scope: scope_of(row)?,
        methods: serde_json::from_str(&row.text("methods")?).map_err(Error::internal)?,
        issued_at: row.time("issued_at")?,
        expires_at: row.time("expires_at")?,
        audit_id: row.text("audit_id")?,
    })
}

/// The table of a target's assignments, the two columns that name the target, and what they hold.
fn target_columns(target: &AssignmentTarget) -> (&'static str, [&'static str; 2], [Arg; 2]) {
    let plain = |kind: &str, id: Arg| {
        let columns = ["target_kind", "target_id"];
        ("assignments", columns, [Arg::text(kind), id])
    };
    match target {
        AssignmentTarget::Project(id) => plain("project", Arg::text(id)),
        AssignmentTarget::Domain(id) => plain("domain", Arg::text(id)),
        AssignmentTarget::System => plain("system", Arg::text("")),
        AssignmentTarget::EnterpriseProject(id, project) => (
            "enterprise_assignments",
            ["enterprise_project", "project_id"],
            [Arg::text(id), Arg::text(project)],
        ),
    }
}

const PROJECT_COLUMNS: &str = "p.id, p.domain_id, p.name, p.description, p.enabled";
const USER_COLUMNS: &str = "id, domain_id, name, password_hash, default_project, enabled";
const KEY_COLUMNS: &str = "access, sealed_secret, user_id, project_id, enabled, created_at, expires_at, \
    security_token_hash, scope";

impl SqlCatalog {
    async fn rows(&self, sql: String, args: Vec<Arg>) -> Result<Vec<Row>> {
        let mut tx = self.db.read().await?;
        tx.fetch_all(sql, args).await
    }

    /// Executes statements with the same arguments in one transaction, which writes the audit trail's line too, and
    /// says whether the first changed a row. Where it changed none, nothing else is executed or written.
    async fn change(
        &self,
        statements: &[&'static str],
        args: Vec<Arg>,
        line: Option<&AuditEvent>,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        for (at, sql) in statements.iter().enumerate() {
            if tx.execute(*sql, args.clone()).await? == 0 && at == 0 {
                return Ok(false);
            }
        }
        commit(tx, line).await
    }
}

/// Writes the line and commits. Always true: something changed.
async fn commit(mut tx: Tx, line: Option<&AuditEvent>) -> Result<bool> {
    if let Some(line) = line {
        insert_event(&mut tx, line).await?;
    }
    tx.commit().await?;
    Ok(true)
}

/// Revokes a user's tokens and temporary access keys.
async fn revoke_all(tx: &mut Tx, user: &UserId) -> Result<()> {
    for sql in [
        "delete from tokens where user_id = $1",
        "delete from access_keys where user_id = $1 and expires_at is not null",
    ] {
        tx.execute(sql, vec![Arg::text(user)]).await?;
    }
    Ok(())
}

/// Appends `and column = $n` for a value that is given.
fn narrow(sql: &mut String, args: &mut Vec<Arg>, column: &str, value: Option<Arg>) {
    if let Some(value) = value {
        args.push(value);
        sql.push_str(&format!(" and {column} = ${}", args.len()));
    }
}

#[async_trait::async_trait]
impl Projects for SqlCatalog {
    async fn is_live(&self, project: &ProjectId) -> Result<bool> {
        let found = self.project(project).await?;
        Ok(found.is_some_and(|found| found.enabled))
    }
}

#[async_trait::async_trait]
impl Directory for SqlCatalog {
    async fn insert_domain(&self, domain: &DomainRecord) -> Result<()> {
        let sql = "insert into domains (id, name, enabled) values ($1, $2, $3)";
        let args = vec![
            Arg::text(&domain.id),
            Arg::text(&domain.name),
            domain.enabled.into(),
        ];
        self.change(&[sql], args, None).await.map(|_| ())
    }

    async fn domain(&self, id: &DomainId) -> Result<Option<DomainRecord>> {
        let sql = "select id, name, enabled from domains where id = $1".to_owned();
        let rows = self.rows(sql, vec![Arg::text(id)]).await?;
        rows.first().map(domain_of).transpose()
    }

    async fn domains(&self, name: Option<&str>) -> Result<Vec<DomainRecord>> {
        let mut sql = "select id, name, enabled from domains where true".to_owned();
        let mut args = Vec::new();
        narrow(&mut sql, &mut args, "name", name.map(Arg::text));
        sql.push_str(" order by name");
        self.rows(sql, args).await?.iter().map(domain_of).collect()
    }

    async fn insert_project(
        &self,
        project: &ProjectRecord,
        line: Option<&AuditEvent>,
    ) -> Result<()> {
        let sql = "insert into projects (id, domain_id, name, description, enabled) \
                   values ($1, $2, $3, $4, $5)";
        let args = vec![
            Arg::text(&project.id),
            Arg::text(&project.domain),
            Arg::text(&project.name),
            Arg::text(&project.description),
            project.enabled.into(),
        ];
        self.change(&[sql], args, line).await.map(|_| ())
    }

    async fn project(&self, id: &ProjectId) -> Result<Option<ProjectRecord>> {
        let sql = format!("select {PROJECT_COLUMNS} from projects p where p.id = $1");
        let rows = self.rows(sql, vec![Arg::text(id)]).await?;
        rows.first().map(project_of).transpose()
    }

    async fn projects(
        &self,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<ProjectRecord>> {
        let mut sql = format!("select {PROJECT_COLUMNS} from projects p where true");
        let mut args = Vec::new();
        narrow(&mut sql, &mut args, "p.name", name.map(Arg::text));
        narrow(&mut sql, &mut args, "p.domain_id", domain.map(Arg::text));
        sql.push_str(" order by p.name, p.domain_id");
        self.rows(sql, args).await?.iter().map(project_of).collect()
    }

    async fn set_project_enabled(
        &self,
        id: &ProjectId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        let statements: &[&'static str] = &[
            "update projects set enabled = $2 where id = $1",
            "delete from tokens where project_id = $1 and not $2",
            "delete from access_keys where project_id = $1 and expires_at is not null and not $2",
        ];
        let args = vec![Arg::text(id), enabled.into()];
        self.change(statements, args, Some(line)).await
    }

    async fn delete_project(&self, id: &ProjectId, line: &AuditEvent) -> Result<bool> {
        let mut tx = self.db.write().await?;
        // Locked, so that an image that is being made in it is either counted or comes too late.
        let sql = "insert into project_usage (project, images, bytes) values ($1, 0, 0) \
                   on conflict do nothing";
        tx.execute(sql, vec![Arg::text(id)]).await?;
        let sql = "delete from project_usage where project = $1 and images = 0";
        if tx.execute(sql, vec![Arg::text(id)]).await? == 0 {
            return Err(Error::conflict("The project still has images."));
        }
        // What others' images are sealed under may be among them.
        if keys_of(&mut tx, id).await? > 0 {
            return Err(Error::conflict("The project still has master keys."));
        }
        for sql in [
            // Of uploads whose images are deleted: they end when they ask for more, or at their end.
            "update blobs set reserved_for = null, reserved = 0 where reserved_for = $1",
            "delete from project_limits where project = $1",
            "delete from assignments where target_kind = 'project' and target_id = $1",
            "delete from tokens where project_id = $1",
            "delete from access_keys where project_id = $1",
            "update users set default_project = null where default_project = $1",
        ] {
            tx.execute(sql, vec![Arg::text(id)]).await?;
        }
        let sql = "delete from projects where id = $1";
        if tx.execute(sql, vec![Arg::text(id)]).await? == 0 {
            return Ok(false);
        }
        commit(tx, Some(line)).await
    }

    async fn insert_user(&self, user: &UserRecord, line: Option<&AuditEvent>) -> Result<()> {
        let sql = "insert into users (id, domain_id, name, password_hash, default_project, enabled) \
                   values ($1, $2, $3, $4, $5, $6)";
        let args = vec![
            Arg::text(&user.id),
            Arg::text(&user.domain),
            Arg::text(&user.name),
            Arg::opt_text(user.password_hash.as_ref()),
            Arg::opt_text(user.default_project.as_ref()),
            user.enabled.into(),
        ];
        self.change(&[sql], args, line).await.map(|_| ())
    }

    async fn user(&self, id: &UserId) -> Result<Option<UserRecord>> {
        let sql = format!("select {USER_COLUMNS} from users where id = $1");
        let rows = self.rows(sql, vec![Arg::text(id)]).await?;
        rows.first().map(user_of).transpose()
    }

    async fn users(
        &self,
        name: Option<&str>,
        domain: Option<&DomainId>,
    ) -> Result<Vec<UserRecord>> {
        let mut sql = format!("select {USER_COLUMNS} from users where true");
        let mut args = Vec::new();
        narrow(&mut sql, &mut args, "name", name.map(Arg::text));
        narrow(&mut sql, &mut args, "domain_id", domain.map(Arg::text));
        sql.push_str(" order by name, domain_id");
        self.rows(sql, args).await?.iter().map(user_of).collect()
    }

    async fn set_password(
        &self,
        id: &UserId,
        password_hash: &str,
        line: Option<&AuditEvent>,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "update users set password_hash = $2 where id = $1";
        let args = vec![Arg::text(id), Arg::text(password_hash)];
        if tx.execute(sql, args).await? == 0 {
            return Ok(false);
        }
        revoke_all(&mut tx, id).await?;
        commit(tx, line).await
    }

    async fn set_user_enabled(
        &self,
        id: &UserId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        let statements: &[&'static str] = &[
            "update users set enabled = $2 where id = $1",
            "delete from tokens where user_id = $1 and not $2",
            "delete from access_keys where user_id = $1 and expires_at is not null and not $2",
        ];
        let args = vec![Arg::text(id), enabled.into()];
        self.change(statements, args, Some(line)).await
    }

    async fn delete_user(&self, id: &UserId, line: &AuditEvent) -> Result<bool> {
        // Assignments, tokens and access keys go with it: their foreign keys cascade.
        let sql = "delete from users where id = $1";
        self.change(&[sql], vec![Arg::text(id)], Some(line)).await
    }

    async fn insert_role(&self, role: &RoleRecord, line: Option<&AuditEvent>) -> Result<()> {
        let sql = "insert into roles (id, name) values ($1, $2)";
        let args = vec![Arg::text(&role.id), Arg::text(&role.name)];
        self.change(&[sql], args, line).await.map(|_| ())
    }

    async fn delete_role(&self, id: &RoleId, line: &AuditEvent) -> Result<bool> {
        let mut tx = self.db.write().await?;
        for sql in [
            "delete from tokens where user_id in \
             (select user_id from assignments where role_id = $1 \
             union select user_id from enterprise_assignments where role_id = $1)",
            "delete from access_keys where expires_at is not null and user_id in \
             (select user_id from assignments where role_id = $1 \
             union select user_id from enterprise_assignments where role_id = $1)",
            "delete from assignments where role_id = $1",
            "delete from enterprise_assignments where role_id = $1",
        ] {
            tx.execute(sql, vec![Arg::text(id)]).await?;
        }
        let sql = "delete from roles where id = $1";
        if tx.execute(sql, vec![Arg::text(id)]).await? == 0 {
            return Ok(false);
        }
        commit(tx, Some(line)).await
    }

    async fn roles(&self, name: Option<&str>) -> Result<Vec<RoleRecord>> {
        let mut sql = "select id, name from roles where true".to_owned();
        let mut args = Vec::new();
        narrow(&mut sql, &mut args, "name", name.map(Arg::text));
        sql.push_str(" order by name");
        self.rows(sql, args).await?.iter().map(role_of).collect()
    }

    async fn assign(&self, assignment: &Assignment, line: Option<&AuditEvent>) -> Result<()> {
        let (table, [one, other], names) = target_columns(&assignment.target);
        let sql = format!(
            "insert into {table} (user_id, role_id, {one}, {other}) \
             values ($1, $2, $3, $4) on conflict do nothing"
        );
        let mut args = vec![Arg::text(&assignment.user), Arg::text(&assignment.role)];
        args.extend(names);
        let mut tx = self.db.write().await?;
        if tx.execute(sql, args).await? > 0 {
            commit(tx, line).await?;
        }
        Ok(())
    }

    async fn unassign(&self, assignment: &Assignment, line: &AuditEvent) -> Result<bool> {
        let (table, [one, other], names) = target_columns(&assignment.target);
        let mut tx = self.db.write().await?;
        let sql = format!(
            "delete from {table} where user_id = $1 and role_id = $2 \
             and {one} = $3 and {other} = $4"
        );
        let mut args = vec![Arg::text(&assignment.user), Arg::text(&assignment.role)];
        args.extend(names);
        if tx.execute(sql, args).await? == 0 {
            return Ok(false);
        }
        revoke_all(&mut tx, &assignment.user).await?;
        commit(tx, Some(line)).await
    }

    async fn roles_of(&self, user: &UserId, target: &AssignmentTarget) -> Result<Vec<RoleRecord>> {
        let (table, [one, other], names) = target_columns(target);
        let sql = format!(
            "select r.id, r.name from {table} a join roles r on r.id = a.role_id \
             where a.user_id = $1 and a.{one} = $2 and a.{other} = $3 order by r.name"
        );
        let mut args = vec![Arg::text(user)];
        args.extend(names);
        self.rows(sql, args).await?.iter().map(role_of).collect()
    }

    async fn has_enterprise_project(&self, id: EnterpriseProjectId) -> Result<bool> {
        let sql = "select id from enterprise_projects where id = $1".to_owned();
        Ok(!self.rows(sql, vec![Arg::text(id)]).await?.is_empty())
    }

    async fn enterprise_roles_of(
        &self,
        user: &UserId,
        project: &ProjectId,
    ) -> Result<Vec<(EnterpriseProjectId, RoleRecord)>> {
        let sql = "select a.enterprise_project, r.id, r.name from enterprise_assignments a \
                   join roles r on r.id = a.role_id \
                   where a.user_id = $1 and a.project_id = $2 \
                   order by a.enterprise_project, r.name";
        let args = vec![Arg::text(user), Arg::text(project)];
        let rows = self.rows(sql.to_owned(), args).await?;
        let grant = |row: &Row| Ok((row.parsed("enterprise_project")?, role_of(row)?));
        rows.iter().map(grant).collect()
    }

    async fn projects_of(&self, user: &UserId) -> Result<Vec<ProjectRecord>> {
        let sql = format!(
            "select {PROJECT_COLUMNS} from projects p where p.enabled and p.id in \
             (select target_id from assignments where user_id = $1 and target_kind = 'project' \
             union select project_id from enterprise_assignments where user_id = $1) \
             order by p.name, p.domain_id"
        );
        let rows = self.rows(sql, vec![Arg::text(user)]).await?;
        rows.iter().map(project_of).collect()
    }

    async fn domains_of(&self, user: &UserId) -> Result<Vec<DomainRecord>> {
        let sql = "select id, name, enabled from domains where enabled and id in \
                   (select target_id from assignments where user_id = $1 and target_kind = 'domain') \
                   order by name";
        let rows = self.rows(sql.to_owned(), vec![Arg::text(user)]).await?;
        rows.iter().map(domain_of).collect()
    }

    async fn insert_access_key(&self, key: &AccessKey, line: Option<&AuditEvent>) -> Result<()> {
        let sql = "insert into access_keys \
                   (access, sealed_secret, user_id, project_id, enabled, created_at, expires_at, \
                   security_token_hash, scope) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let temporary = key.temporary.as_ref();
        let scope = temporary.map(|temporary| serde_json::to_string(&temporary.scope));
        let scope = scope.transpose().map_err(Error::internal)?;
        let args = vec![
            Arg::text(&key.access),
            Arg::blob(key.sealed_secret.clone()),
            Arg::text(&key.user),
            Arg::opt_text(key.project.as_ref()),
            key.enabled.into(),
            Arg::time(key.created_at),
            Arg::opt_time(temporary.map(|temporary| temporary.expires_at)),
            Arg::opt_text(temporary.map(|temporary| &temporary.security_token_hash)),
            Arg::opt_text(scope),
        ];
        self.change(&[sql], args, line).await.map(|_| ())
    }

    async fn access_key(&self, access: &str) -> Result<Option<AccessKey>> {
        let sql = format!("select {KEY_COLUMNS} from access_keys where access = $1");
        let rows = self.rows(sql, vec![Arg::text(access)]).await?;
        rows.first().map(access_key_of).transpose()
    }

    async fn access_keys(&self, user: &UserId) -> Result<Vec<AccessKey>> {
        let sql = format!(
            "select {KEY_COLUMNS} from access_keys where user_id = $1 and expires_at is null \
             order by created_at, access"
        );
        let rows = self.rows(sql, vec![Arg::text(user)]).await?;
        rows.iter().map(access_key_of).collect()
    }

    async fn set_access_key_enabled(
        &self,
        access: &str,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "update access_keys set enabled = $2 where access = $1 and expires_at is null \
                   returning user_id";
        let args = vec![Arg::text(access), enabled.into()];
        let Some(row) = tx.fetch_optional(sql, args).await? else {
            return Ok(false);
        };
        if !enabled {
            delete_temporary_keys(&mut tx, &row).await?;
        }
        commit(tx, Some(line)).await
    }

    async fn delete_access_key(&self, access: &str, line: Option<&AuditEvent>) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let sql = "delete from access_keys where access = $1 and expires_at is null \
                   returning user_id";
        let Some(row) = tx.fetch_optional(sql, vec![Arg::text(access)]).await? else {
            return Ok(false);
        };
        delete_temporary_keys(&mut tx, &row).await?;
        commit(tx, line).await
    }

    async fn insert_token(&self, token: &TokenRecord) -> Result<()> {
        let sql = "insert into tokens \
                   (hash, user_id, project_id, scope, methods, issued_at, expires_at, audit_id) \
                   values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let project = match &token.scope {
            Scope::Project(scope) => Some(&scope.project.id),
            _ => None,
        };
        let args = vec![
            Arg::text(&token.hash),
            Arg::text(&token.user),
            Arg::opt_text(project),
            Arg::text(serde_json::to_string(&token.scope).map_err(Error::internal)?),
            Arg::text(serde_json::to_string(&token.methods).map_err(Error::internal)?),
            Arg::time(token.issued_at),
            Arg::time(token.expires_at),
            Arg::text(&token.audit_id),
        ];
        self.change(&[sql], args, None).await.map(|_| ())
    }

    async fn token(&self, hash: &str) -> Result<Option<TokenRecord>> {
        let sql = "select hash, user_id, scope, methods, issued_at, expires_at, audit_id \
                   from tokens where hash = $1";
        let rows = self.rows(sql.to_owned(), vec![Arg::text(hash)]).await?;
        rows.first().map(token_of).transpose()
    }

    async fn revoke_token(&self, hash: &str, line: Option<&AuditEvent>) -> Result<bool> {
        let sql = "delete from tokens where hash = $1";
        self.change(&[sql], vec![Arg::text(hash)], line).await
    }
}
