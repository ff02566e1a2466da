//! `admin quota` and `image quota`: what projects may have and have.

use reqwest::Method;
use serde_json::{Value, json};

use super::admin::{find, json_of};
use crate::cli::{QuotaCommand, QuotaLimit, QuotaLimits};
use crate::client::{Call, Session};
use crate::exit::Failure;
use crate::output::{Output, Rows, cell, scalar};

/// Runs an `admin quota` command.
pub(super) async fn run(
    command: QuotaCommand,
    session: &Session,
    output: &Output,
) -> Result<(), Failure> {
    let path = async |project: &str| {
        let project = find(session, "projects", project).await?;
        Ok::<_, Failure>(format!("/admin/v1/quotas/{project}"))
    };
    let call = match command {
        QuotaCommand::Show { project } => Call::get(path(&project).await?),
        QuotaCommand::Set { project, limits } => {
            Call::new(Method::PUT, path(&project).await?).json(&change(limits), "application/json")
        }
        QuotaCommand::Reset { project } => {
            let call = Call::new(Method::DELETE, path(&project).await?);
            return session.image(call).await.map(drop);
        }
    };
    let quota = json_of(session.image(call).await?).await?;
    output.result(&quota, |quota| {
        let mut rows = Rows::new(&["RESOURCE", "USED", "RESERVED", "LIMIT", "OWN"]);
        for resource in ["images", "members", "bytes"] {
            let of = &quota[resource];
            rows.push([
                resource.to_owned(),
                cell(of, "used"),
                cell(of, "reserved"),
                limit(&of["quota"]),
                cell(of, "own"),
            ]);
        }
        rows
    })
}

/// Shows the quota of the user's project.
pub(super) async fn show_own(session: &Session, output: &Output) -> Result<(), Failure> {
    let answer = session.image(Call::get("/v1/cloudimages/quota")).await?;
    let quota = json_of(answer).await?;
    output.result(&quota, |quota| {
        let mut rows = Rows::new(&["RESOURCE", "USED", "RESERVED", "LIMIT"]);
        let resources = quota["quotas"]["resources"].as_array();
        for of in resources.into_iter().flatten() {
            rows.push([
                cell(of, "type"),
                cell(of, "used"),
                String::new(),
                limit(&of["quota"]),
            ]);
        }
        let bytes = &quota["calotype"]["bytes"];
        rows.push([
            "bytes".to_owned(),
            cell(bytes, "used"),
            cell(bytes, "reserved"),
            limit(&bytes["quota"]),
        ]);
        rows
    })
}

fn limit(quota: &Value) -> String {
    match quota {
        Value::Null => "unlimited".to_owned(),
        most => scalar(most),
    }
}

fn change(limits: QuotaLimits) -> Value {
    let mut change = json!({});
    for (name, limit) in [
        ("images", limits.images),
        ("members", limits.members),
        ("bytes", limits.bytes),
    ] {
        match limit {
            None => {}
            Some(QuotaLimit::Default) => change[name] = Value::Null,
            Some(QuotaLimit::Unlimited) => change[name] = json!(-1),
            Some(QuotaLimit::At(most)) => change[name] = json!(most),
        }
    }
    change
}
