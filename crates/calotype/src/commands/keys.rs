//! `keys`: a project's master keys, by the KMS API that the catalog of services names.

use calotype_core::time::Timestamp;
use serde_json::{Value, json};

use super::session;
use crate::cli::{Connection, CreateKeyArgs, GrantArgs, KeyState, KeysCommand};
use crate::client::Session;
use crate::config::Environment;
use crate::exit::Failure;
use crate::output::{Output, Rows, cell};

/// Runs a `keys` command.
pub(crate) async fn run(
    command: KeysCommand,
    connection: &Connection,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let session = session(connection, environment).await?;
    match command {
        KeysCommand::Create(args) => create(&session, args, output).await,
        KeysCommand::List { state } => {
            let state = state.map(KeyState::number);
            let keys = session.list_keys(state).await?;
            output.result(&Value::Array(keys), list)
        }
        KeysCommand::Show { key } => {
            let key = session.describe_key(&session.find_key(&key).await?).await?;
            output.result(&key, table)
        }
        KeysCommand::Enable { key } => change(&session, "enable-key", &key).await,
        KeysCommand::Disable { key } => change(&session, "disable-key", &key).await,
        KeysCommand::Rotate { key } => change(&session, "rotate-on-demand", &key).await,
        KeysCommand::CancelDeletion { key } => change(&session, "cancel-key-deletion", &key).await,
        KeysCommand::ScheduleDeletion { key, days } => {
            let key = session.find_key(&key).await?;
            let body = json!({"key_id": key, "pending_days": days.to_string()});
            session
                .change_key("schedule-key-deletion", &body)
                .await
                .map(drop)
        }
        KeysCommand::Grants { key } => {
            let key = session.find_key(&key).await?;
            output.result(&Value::Array(session.list_grants(&key).await?), grants)
        }
        KeysCommand::Grant(args) => grant(&session, args, output).await,
        KeysCommand::RevokeGrant { key, grant } => {
            let key = session.find_key(&key).await?;
            let body = json!({"key_id": key, "grant_id": grant});
            session.change_key("revoke-grant", &body).await.map(drop)
        }
    }
}

async fn create(session: &Session, args: CreateKeyArgs, output: &Output) -> Result<(), Failure> {
    let body = json!({"key_alias": args.alias, "key_description": args.description});
    let key = session.create_key(&body).await?;
    output.result(&session.describe_key(&key).await?, table)
}

async fn change(session: &Session, call: &str, key: &str) -> Result<(), Failure> {
    let key = session.find_key(key).await?;
    let body = json!({"key_id": key});
    session.change_key(call, &body).await.map(drop)
}

async fn grant(session: &Session, args: GrantArgs, output: &Output) -> Result<(), Failure> {
    let key = session.find_key(&args.key).await?;
    let (kind, grantee) = match (args.user, args.domain) {
        (Some(user), _) => ("user", user),
        (None, domain) => ("domain", domain.unwrap_or_default()),
    };
    let mut body = json!({
        "key_id": key,
        "grantee_principal": grantee,
        "grantee_principal_type": kind,
        "operations": args.operation,
    });
    for (field, value) in [
        ("name", args.name),
        ("retiring_principal", args.retiring_user),
    ] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    output.object(&session.create_grant(&body).await?)
}

fn list(keys: &Value) -> Rows {
    let mut rows = Rows::new(&["ID", "ALIAS", "STATE", "CREATED", "DELETION"]);
    for key in keys.as_array().into_iter().flatten() {
        rows.push([
            cell(key, "key_id"),
            cell(key, "key_alias"),
            state(key),
            time(key, "creation_date"),
            time(key, "scheduled_deletion_date"),
        ]);
    }
    rows
}

/// One key, its state as a word and its times as people read them.
fn table(key: &Value) -> Rows {
    let mut rows = Rows::new(&["FIELD", "VALUE"]);
    for name in key.as_object().into_iter().flat_map(serde_json::Map::keys) {
        let text = match name.as_str() {
            "key_state" => state(key),
            "creation_date" | "scheduled_deletion_date" => time(key, name),
            _ => cell(key, name),
        };
        rows.push([name.clone(), text]);
    }
    rows
}

fn grants(grants: &Value) -> Rows {
    let mut rows = Rows::new(&["ID", "NAME", "GRANTEE", "TYPE", "OPERATIONS", "CREATED"]);
    for grant in grants.as_array().into_iter().flatten() {
        rows.push([
            cell(grant, "grant_id"),
            cell(grant, "name"),
            cell(grant, "grantee_principal"),
            cell(grant, "grantee_principal_type"),
            cell(grant, "operations"),
            time(grant, "creation_date"),
        ]);
    }
    rows
}

fn state(key: &Value) -> String {
    match key["key_state"].as_str() {
        Some("2") => "enabled".to_owned(),
        Some("3") => "disabled".to_owned(),
        Some("4") => "pending-deletion".to_owned(),
        _ => cell(key, "key_state"),
    }
}

/// Milliseconds as a time of day; what is none stays as it is.
fn time(document: &Value, name: &str) -> String {
    let text = cell(document, name);
    match text.parse::<i64>() {
        Ok(millis) => Timestamp::from_micros(millis.saturating_mul(1000)).to_seconds(),
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_with_their_state_and_their_times() {
        let keys = json!([
            {"key_id": "1", "key_alias": "a", "key_state": "2",
             "creation_date": "1502799822000", "scheduled_deletion_date": ""},
            {"key_id": "2", "key_alias": "b", "key_state": "4",
             "creation_date": "1502799822000", "scheduled_deletion_date": "1503404622000"},
        ]);
        insta::assert_snapshot!(list(&keys).render(), @r"
        ID  ALIAS  STATE             CREATED               DELETION
        1   a      enabled           2017-08-15T12:23:42Z
        2   b      pending-deletion  2017-08-15T12:23:42Z  2017-08-22T12:23:42Z
        ");
    }
}
