//! The audit trail, kept answers, and enterprise projects.

use calotype_core::id::{EnterpriseProjectId, ProjectId};
use calotype_core::ports::{AuditEvent, EnterpriseProject, Ledger, StoredAnswer, Trail};
use calotype_core::{Error, Result};

use crate::SqlCatalog;
use crate::db::{Arg, Row, Tx};
use crate::rows::write_trail;

pub(crate) async fn insert_event(tx: &mut Tx, event: &AuditEvent) -> Result<()> {
    let sql = "insert into audit_events \
               (at, trace, request_id, project, user_id, resource_type, resource_id, detail) \
               values ($1, $2, $3, $4, $5, $6, $7, $8)";
    let args = vec![
        Arg::time(event.at),
        Arg::text(&event.trace),
        Arg::text(&event.request_id),
        Arg::opt_text(event.project.as_ref()),
        Arg::text(&event.user),
        Arg::text(&event.resource_type),
        Arg::text(&event.resource_id),
        Arg::text(&event.detail),
    ];
    tx.execute(sql, args).await?;
    Ok(())
}

fn event_of(row: &Row) -> Result<(i64, AuditEvent)> {
    let event = AuditEvent {
        at: row.time("at")?,
        trace: row.text("trace")?,
        request_id: row.text("request_id")?,
        project: row.opt_parsed("project")?,
        user: row.parsed("user_id")?,
        resource_type: row.text("resource_type")?,
        resource_id: row.text("resource_id")?,
        detail: row.parsed("detail")?,
    };
    Ok((row.int("seq")?, event))
}

fn enterprise_project_of(row: &Row) -> Result<EnterpriseProject> {
    Ok(EnterpriseProject {
        id: row.parsed("id")?,
        name: row.text("name")?,
        enabled: row.bool("enabled")?,
        created_at: row.time("created_at")?,
    })
}

#[async_trait::async_trait]
impl Ledger for SqlCatalog {
    async fn audit_trail(
        &self,
        project: Option<&ProjectId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<(i64, AuditEvent)>> {
        let mut tx = self.db.read().await?;
        let mut args: Vec<Arg> = vec![before.unwrap_or(i64::MAX).into(), i64::from(limit).into()];
        let mut condition = "";
        if let Some(project) = project {
            args.push(Arg::text(project));
            condition = "and project = $3 ";
        }
        let sql = format!(
            "select seq, at, trace, request_id, project, user_id, resource_type, resource_id, \
             detail from audit_events where seq < $1 {condition}order by seq desc limit $2"
        );
        tx.fetch_all(sql, args)
            .await?
            .iter()
            .map(event_of)
            .collect()
    }

    async fn answer(&self, scope: &str, key: &str) -> Result<Option<StoredAnswer>> {
        let mut tx = self.db.read().await?;
        let oldest = tx.now().await?.minus(self.options.answers_kept);
        let sql = "select fingerprint, status, body, location, created_at \
                   from idempotent_answers \
                   where scope = $1 and idempotency_key = $2 and created_at > $3";
        let args = vec![Arg::text(scope), Arg::text(key), Arg::time(oldest)];
        let Some(row) = tx.fetch_optional(sql, args).await? else {
            return Ok(None);
        };
        Ok(Some(StoredAnswer {
            scope: scope.to_owned(),
            key: key.to_owned(),
            fingerprint: row.text("fingerprint")?,
            status: u16::try_from(row.int("status")?).map_err(Error::internal)?,
            body: row.text("body")?,
            location: row.opt_text("location")?,
            created_at: row.time("created_at")?,
        }))
    }

    async fn insert_enterprise_project(
        &self,
        project: &EnterpriseProject,
        trail: Trail,
    ) -> Result<()> {
        let mut tx = self.db.write().await?;
        let sql = "insert into enterprise_projects (id, name, enabled, created_at) \
                   values ($1, $2, $3, $4)";
        let args = vec![
            Arg::text(project.id),
            Arg::text(&project.name),
            project.enabled.into(),
            Arg::time(project.created_at),
        ];
        tx.execute(sql, args).await?;
        write_trail(&mut tx, &trail, self.options.answers_kept).await?;
        tx.commit().await
    }

    async fn enterprise_projects(&self) -> Result<Vec<EnterpriseProject>> {
        let mut tx = self.db.read().await?;
        let sql = "select id, name, enabled, created_at from enterprise_projects order by name";
        let rows = tx.fetch_all(sql, Vec::new()).await?;
        rows.iter().map(enterprise_project_of).collect()
    }

    async fn enterprise_project(
        &self,
        id: EnterpriseProjectId,
    ) -> Result<Option<EnterpriseProject>> {
        let mut tx = self.db.read().await?;
        let sql = "select id, name, enabled, created_at from enterprise_projects where id = $1";
        let row = tx.fetch_optional(sql, vec![Arg::text(id)]).await?;
        row.as_ref().map(enterprise_project_of).transpose()
    }

    async fn set_enterprise_project_enabled(
        &self,
        id: EnterpriseProjectId,
        enabled: bool,
        line: &AuditEvent,
    ) -> Result<bool> {
        if id == EnterpriseProjectId::Default && !enabled {
            return Err(Error::conflict(
                "The default enterprise project can't be disabled.",
            ));
        }
        let mut tx = self.db.write().await?;
        let sql = "update enterprise_projects set enabled = $2 where id = $1";
        if tx.execute(sql, vec![Arg::text(id), enabled.into()]).await? == 0 {
            return Ok(false);
        }
        insert_event(&mut tx, line).await?;
        tx.commit().await?;
        Ok(true)
    }
}
