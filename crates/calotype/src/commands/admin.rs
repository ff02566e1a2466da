//! `admin`: identity by Keystone's paths, the rest by the service's own.

use std::io::Read;
use std::path::Path;

use calotype_core::time::Timestamp;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::session;
use crate::cli::{
    AccessKeyCommand, AdminCommand, AdminImageCommand, Connection, EnterpriseProjectCommand,
    ProjectCommand, RoleCommand, RoleTarget, RootKeyCommand, UserCommand, VerifyArgs,
};
use crate::client::{Call, Session, encode};
use crate::config::{Config, Environment};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Rows, cell};
use crate::serve::ServeOptions;
use crate::system::fresh_name;

/// Runs an `admin` command.
pub(crate) async fn run(
    command: AdminCommand,
    connection: &Connection,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    if let AdminCommand::Verify(VerifyArgs {
        deep,
        data_dir: Some(directory),
        config,
    }) = &command
    {
        let config = Config::load(config.as_deref(), environment)?;
        let options = ServeOptions::new(directory.clone(), config, environment)?;
        return verdict(&crate::serve::verify_stopped(options, *deep).await?, output);
    }
    if let AdminCommand::AdoptStore(args) = &command {
        return crate::serve::adopt_store(args, environment).await;
    }
    let session = session(connection, environment).await?;
    match command {
        AdminCommand::Verify(args) => {
            let path = format!("/admin/v1/verify?deep={}", args.deep);
            verdict(
                &json_of(session.image(Call::get(path).patient()).await?).await?,
                output,
            )
        }
        AdminCommand::Audit { limit, before } => {
            let mut path = format!("/admin/v1/audit?limit={limit}");
            if let Some(before) = before {
                path.push_str(&format!("&before={before}"));
            }
            let mut answer = json_of(session.image(Call::get(path)).await?).await?;
            output.result(&answer["events"].take(), events)
        }
        AdminCommand::Stores => super::stores::list(&session, output).await,
        AdminCommand::Image(AdminImageCommand::Move { image, store, wait }) => {
            super::stores::move_image(&session, &image, &store, &wait, output).await
        }
        AdminCommand::RootKey(command) => root_key(&session, command, output).await,
        // Without a service.
        AdminCommand::AdoptStore(_) => Ok(()),
        AdminCommand::EnterpriseProject(command) => {
            enterprise_project(&session, command, output).await
        }
        AdminCommand::Project(command) => project(&session, command, output).await,
        AdminCommand::Quota(command) => super::quota::run(command, &session, output).await,
        AdminCommand::User(command) => user(&session, command, output).await,
        AdminCommand::Role(command) => role(&session, command, output).await,
        AdminCommand::AccessKey(command) => access_key(&session, command, output).await,
    }
}

/// Prints a report; violations are a failure.
fn verdict(report: &Value, output: &Output) -> Result<(), Failure> {
    let violations = report["violations"].as_array().map_or(0, Vec::len);
    output.result(report, |report| {
        if violations == 0 {
            return crate::output::fields(report);
        }
        let mut rows = Rows::new(&["INVARIANT", "DETAIL"]);
        for violation in report["violations"].as_array().into_iter().flatten() {
            rows.push([cell(violation, "invariant"), cell(violation, "detail")]);
        }
        rows
    })?;
    if violations == 0 {
        return Ok(());
    }
    Err(Failure::new(format!("{violations} violations")).with_exit(Exit::Damaged))
}

async fn root_key(
    session: &Session,
    command: RootKeyCommand,
    output: &Output,
) -> Result<(), Failure> {
    const PATH: &str = "/admin/v1/root-key";
    let call = match command {
        RootKeyCommand::Status => Call::get(PATH),
        RootKeyCommand::Rotate => Call::post(format!("{PATH}/rotate"), &json!({})),
        RootKeyCommand::Retire => Call::post(format!("{PATH}/retire"), &json!({})),
    };
    let status = json_of(session.image(call).await?).await?;
    output.result(&status, |status| {
        columns(
            &status["root_keys"],
            &["NAME", "CURRENT", "AT HAND", "VERSIONS", "SINCE", "RETIRED"],
            &[
                "name",
                "current",
                "at_hand",
                "versions",
                "since",
                "retired_at",
            ],
        )
    })
}

fn events(events: &Value) -> Rows {
    let mut rows = Rows::new(&["NUMBER", "TIME", "EVENT", "USER", "PROJECT", "OF"]);
    for event in events.as_array().into_iter().flatten() {
        let time = event["time"].as_i64().map(|millis| {
            let time = Timestamp::from_micros(millis.saturating_mul(1000));
            time.to_seconds()
        });
        let of = cell(event, "resource_id");
        let [number, name] = ["id", "trace_name"].map(|name| cell(event, name));
        let [user, project] = ["user_id", "project_id"].map(|name| cell(event, name));
        rows.push([number, time.unwrap_or_default(), name, user, project, of]);
    }
    rows
}

const ENTERPRISE_PROJECTS: &str = "/admin/v1/enterprise-projects";

async fn enterprise_project(
    session: &Session,
    command: EnterpriseProjectCommand,
    output: &Output,
) -> Result<(), Failure> {
    const PATH: &str = ENTERPRISE_PROJECTS;
    let (id, verb) = match command {
        EnterpriseProjectCommand::Create { name } => {
            let made = session
                .image(Call::post(PATH, &json!({"name": name})))
                .await?;
            return output.object(&json_of(made).await?);
        }
        EnterpriseProjectCommand::List => {
            let all = json_of(session.image(Call::get(PATH)).await?).await?;
            return output.result(&all["enterprise_projects"], |all| {
                columns(
                    all,
                    &["ID", "NAME", "ENABLED", "CREATED"],
                    &["id", "name", "enabled", "created_at"],
                )
            });
        }
        EnterpriseProjectCommand::Disable { id } => (id, "disable"),
        EnterpriseProjectCommand::Enable { id } => (id, "enable"),
    };
    let path = format!("{PATH}/{}/{verb}", encode(&id));
    session.image(Call::post(path, &json!({}))).await.map(drop)
}

async fn project(
    session: &Session,
    command: ProjectCommand,
    output: &Output,
) -> Result<(), Failure> {
    let (project, enabled) = match command {
        ProjectCommand::Create { name, domain } => {
            let body = json!({"project": {"name": name, "domain_id": domain}});
            return make(session, "projects", "project", &body, output).await;
        }
        ProjectCommand::List => return list(session, "projects", output).await,
        ProjectCommand::Delete { project } => return remove(session, "projects", &project).await,
        ProjectCommand::Disable { project } => (project, false),
        ProjectCommand::Enable { project } => (project, true),
    };
    switch(session, "projects", "project", &project, enabled).await
}

async fn user(session: &Session, command: UserCommand, output: &Output) -> Result<(), Failure> {
    let (user, enabled) = match command {
        UserCommand::Create {
            name,
            domain,
            password_file,
        } => {
            let given = password_file.is_some();
            let password = match password_file {
                Some(path) => first_line(&path)?,
                None => fresh_name(),
            };
            let body = json!({"user": {"name": name, "domain_id": domain, "password": password}});
            let made = session.keystone(Call::post("/users", &body)).await?;
            let mut made = json_of(made).await?["user"].take();
            if !given {
                made["password"] = json!(password);
            }
            return output.object(&made);
        }
        UserCommand::List => return list(session, "users", output).await,
        UserCommand::Delete { user } => return remove(session, "users", &user).await,
        UserCommand::Disable { user } => (user, false),
        UserCommand::Enable { user } => (user, true),
    };
    switch(session, "users", "user", &user, enabled).await
}

async fn role(session: &Session, command: RoleCommand, output: &Output) -> Result<(), Failure> {
    let (method, role, target) = match command {
        RoleCommand::Create { name } => {
            let body = json!({"role": {"name": name}});
            return make(session, "roles", "role", &body, output).await;
        }
        RoleCommand::List {
            user: Some(user),
            project: Some(project),
            enterprise_project,
        } => {
            let target = RoleTarget {
                user,
                project,
                enterprise_project,
            };
            let found = assignment(session, Method::GET, &target, "").await?;
            return output.result(&json_of(found).await?["roles"], identities);
        }
        RoleCommand::List { .. } => return list(session, "roles", output).await,
        RoleCommand::Delete { role } => return remove(session, "roles", &role).await,
        RoleCommand::Grant { role, target } => (Method::PUT, role, target),
        RoleCommand::Revoke { role, target } => (Method::DELETE, role, target),
    };
    let role = find(session, "roles", &role).await?;
    let role = format!("/{role}");
    let done = assignment(session, method, &target, &role).await;
    done.map(drop)
}

/// Asks about the roles that a user has at a target, or about one of them.
async fn assignment(
    session: &Session,
    method: Method,
    target: &RoleTarget,
    role: &str,
) -> Result<Response, Failure> {
    let project = find(session, "projects", &target.project).await?;
    let user = find(session, "users", &target.user).await?;
    let path = format!("/projects/{project}/users/{user}/roles{role}");
    match &target.enterprise_project {
        None => session.keystone(Call::new(method, path)).await,
        Some(reference) => {
            let id = find_enterprise_project(session, reference).await?;
            let path = format!("{ENTERPRISE_PROJECTS}/{id}{path}");
            session.image(Call::new(method, path)).await
        }
    }
}

/// The id of an enterprise project by its id or name.
async fn find_enterprise_project(session: &Session, reference: &str) -> Result<String, Failure> {
    let all = json_of(session.image(Call::get(ENTERPRISE_PROJECTS)).await?).await?;
    let all = all["enterprise_projects"].as_array();
    let named = all.into_iter().flatten();
    let id = named
        .filter(|one| one["name"] == reference)
        .find_map(|one| one["id"].as_str());
    Ok(encode(id.unwrap_or(reference)))
}

async fn access_key(
    session: &Session,
    command: AccessKeyCommand,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        AccessKeyCommand::Create { user, project } => {
            let user = find(session, "users", &user).await?;
            let project = match project {
                Some(project) => json!(find(session, "projects", &project).await?),
                None => Value::Null,
            };
            let body = json!({"tenant_id": project});
            let made = session.keystone(Call::post(keys_of(&user), &body)).await?;
            output.object(&json_of(made).await?["credential"])
        }
        AccessKeyCommand::List { user } => {
            let user = find(session, "users", &user).await?;
            let found = json_of(session.keystone(Call::get(keys_of(&user))).await?).await?;
            let mut keys = found["credentials"].clone();
            for key in keys.as_array_mut().into_iter().flatten() {
                if let Some(key) = key.as_object_mut() {
                    key.remove("secret");
                }
            }
            output.result(&keys, |keys| {
                columns(
                    keys,
                    &["ACCESS", "USER", "PROJECT", "ENABLED"],
                    &["access", "user_id", "tenant_id", "enabled"],
                )
            })
        }
        AccessKeyCommand::Enable { access, user } => {
            set_access_key(session, &access, &user, true).await
        }
        AccessKeyCommand::Disable { access, user } => {
            set_access_key(session, &access, &user, false).await
        }
        AccessKeyCommand::Delete { access, user } => {
            let user = find(session, "users", &user).await?;
            let path = format!("{}/{}", keys_of(&user), encode(&access));
            session
                .keystone(Call::new(Method::DELETE, path))
                .await
                .map(drop)
        }
    }
}

fn keys_of(user: &str) -> String {
    format!("/users/{user}/credentials/OS-EC2")
}

async fn set_access_key(
    session: &Session,
    access: &str,
    user: &str,
    enabled: bool,
) -> Result<(), Failure> {
    let user = find(session, "users", user).await?;
    let path = format!("{}/{}", keys_of(&user), encode(access));
    let body = json!({ "credential": { "enabled": enabled } });
    let call = Call::new(Method::PATCH, path).json(&body, "application/json");
    session.keystone(call).await.map(drop)
}

async fn make(
    session: &Session,
    kind: &str,
    one: &str,
    body: &Value,
    output: &Output,
) -> Result<(), Failure> {
    let made = session
        .keystone(Call::post(format!("/{kind}"), body))
        .await?;
    output.object(&json_of(made).await?[one])
}

async fn list(session: &Session, kind: &str, output: &Output) -> Result<(), Failure> {
    let found = json_of(session.keystone(Call::get(format!("/{kind}"))).await?).await?;
    output.result(&found[kind], identities)
}

async fn remove(session: &Session, kind: &str, reference: &str) -> Result<(), Failure> {
    let id = find(session, kind, reference).await?;
    let call = Call::new(Method::DELETE, format!("/{kind}/{id}"));
    session.keystone(call).await.map(drop)
}

async fn switch(
    session: &Session,
    kind: &str,
    one: &str,
    reference: &str,
    enabled: bool,
) -> Result<(), Failure> {
    let id = find(session, kind, reference).await?;
    let call = Call::new(Method::PATCH, format!("/{kind}/{id}"))
        .json(&json!({one: {"enabled": enabled}}), "application/json");
    session.keystone(call).await.map(drop)
}

/// The id, escaped for a path, of what `reference`, a name or an id, names. A name wins.
pub(super) async fn find(
    session: &Session,
    kind: &str,
    reference: &str,
) -> Result<String, Failure> {
    let path = format!("/{kind}?name={}", encode(reference));
    let found = json_of(session.keystone(Call::get(path)).await?).await?;
    let ids: Vec<&str> = found[kind]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["name"] == reference)
        .filter_map(|one| one["id"].as_str())
        .collect();
    match ids.as_slice() {
        [id] => Ok(encode(id)),
        [] => Ok(encode(reference)),
        several => Err(Failure::new(format!(
            "{} {kind} are named {reference:?}: {}",
            several.len(),
            several.join(", ")
        ))
        .with_exit(Exit::Refused)),
    }
}

fn identities(document: &Value) -> Rows {
    columns(
        document,
        &["ID", "NAME", "DOMAIN", "ENABLED"],
        &["id", "name", "domain_id", "enabled"],
    )
}

fn columns(document: &Value, headings: &[&'static str], names: &[&str]) -> Rows {
    let mut rows = Rows::new(headings);
    for one in document.as_array().into_iter().flatten() {
        rows.push(names.iter().map(|name| cell(one, name)));
    }
    rows
}

pub(super) async fn json_of(response: reqwest::Response) -> Result<Value, Failure> {
    response
        .json()
        .await
        .map_err(|_| Failure::new("the service's answer is no JSON document"))
}

fn first_line(path: &Path) -> Result<String, Failure> {
    let named = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(named)?;
    } else {
        text = std::fs::read_to_string(path).map_err(named)?;
    }
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::usage(format!(
            "{}: no password in its first line",
            path.display()
        ))),
    }
}
