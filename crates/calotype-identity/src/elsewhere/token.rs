//! What a token means: Keystone's document of it, and the principal that it becomes.

use std::collections::BTreeMap;

use calotype_core::access::{Credential, Named, Principal, ProjectScope, Scope};
use calotype_core::id::{DomainId, ProjectId, UserId};
use calotype_core::time::Timestamp;
use serde::Deserialize;

/// The role that permits everything, everywhere.
const ADMIN: &str = "admin";

/// The answer to a validation.
#[derive(Deserialize)]
pub(super) struct Document {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    expires_at: String,
    user: User,
    project: Option<Project>,
    domain: Option<Named<String>>,
    system: Option<System>,
    #[serde(default)]
    roles: Vec<Role>,
    is_admin_project: Option<bool>,
    oauth2_credential: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    name: String,
    domain: Named<String>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
    name: String,
    domain: Named<String>,
}

#[derive(Deserialize)]
struct System {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) domain_id: Option<String>,
}

/// A token's meaning.
pub(super) struct Meaning {
    pub(super) principal: Principal,
    pub(super) expires_at: Timestamp,
}

impl Document {
    /// The meaning; or why it has none here.
    pub(super) fn meaning(self) -> Result<Meaning, &'static str> {
        let body = self.token;
        if body.oauth2_credential.is_some() {
            // Good over the connection of one client's certificate alone, which is not looked at here.
            return Err("the token is bound to a client's certificate");
        }
        let expires_at = Timestamp::parse(&body.expires_at);
        let expires_at = expires_at.ok_or("the token has no end")?;
        let scope = match (body.project, body.domain, body.system) {
            (Some(project), _, _) => Scope::Project(ProjectScope {
                project: Named {
                    id: id::<ProjectId>(&project.id)?,
                    name: project.name,
                },
                domain: domain(project.domain)?,
            }),
            (None, Some(of), _) => Scope::Domain(domain(of)?),
            (None, None, Some(System { all: true })) => Scope::System,
            (None, None, Some(_)) => return Err("the token's scope is not known"),
            (None, None, None) => Scope::Unscoped,
        };
        let confined = matches!(scope, Scope::Domain(_)) || body.is_admin_project == Some(false);
        let roles = counted(body.roles, confined);
        Ok(Meaning {
            principal: Principal {
                user: Named {
                    id: id::<UserId>(&body.user.id)?,
                    name: body.user.name,
                },
                user_domain: domain(body.user.domain)?,
                scope,
                roles,
                enterprise_roles: BTreeMap::new(),
                credential: Credential::Token(expires_at),
            },
            expires_at,
        })
    }
}

/// The names of the roles that count. `admin` means every project's images here, so it does not count where Keystone
/// confines it: to a domain, or, where it has a project for administrators, to another one. What it implies (`member`,
/// `reader`) is among a token's roles by itself. A role of a domain's own is none of ours, whatever its name.
pub(super) fn counted(roles: Vec<Role>, confined: bool) -> Vec<String> {
    roles
        .into_iter()
        .filter(|role| role.domain_id.is_none())
        .map(|role| role.name)
        .filter(|name| !(confined && name == ADMIN))
        .collect()
}

/// An id of Keystone's, which is one of ours too or can't be used.
pub(super) fn id<T: std::str::FromStr>(text: &str) -> Result<T, &'static str> {
    text.parse()
        .map_err(|_| "Keystone has an id that is none here")
}

pub(super) fn domain(domain: Named<String>) -> Result<Named<DomainId>, &'static str> {
    Ok(Named {
        id: id(&domain.id)?,
        name: domain.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meaning(fields: &Value) -> Result<Meaning, &'static str> {
        let domain = json!({"id": "default", "name": "Default"});
        let mut token = json!({
            "expires_at": "2026-11-24T12:00:00.000000Z",
            "user": {"id": "u1", "name": "ada", "domain": domain},
            "roles": [{"id": "r1", "name": "admin"}, {"id": "r2", "name": "member"}],
        });
        for (name, value) in fields.as_object().unwrap() {
            token[name] = value.clone();
        }
        let document: Document = serde_json::from_value(json!({ "token": token })).unwrap();
        document.meaning()
    }

    fn project() -> Value {
        json!({"id": "p1", "name": "web", "domain": {"id": "d1", "name": "Other"}})
    }

    #[test]
    fn each_scope_is_the_one_that_keystone_names() {
        let of = |fields| meaning(&fields).unwrap().principal;
        let web = of(json!({"project": project()}));
        assert_eq!(web.project().unwrap().as_str(), "p1");
        assert_eq!(web.roles, ["admin", "member"]);
        assert_eq!(web.user.name, "ada");
        assert!(web.credential.expires_at().is_some());
        assert_eq!(of(json!({"system": {"all": true}})).scope, Scope::System);
        assert_eq!(of(json!({})).scope, Scope::Unscoped);
        let domain = of(json!({"domain": {"id": "d1", "name": "Other"}}));
        assert!(matches!(domain.scope, Scope::Domain(named) if named.id.as_str() == "d1"));
        assert!(meaning(&json!({"system": {"region": "x"}})).is_err());
    }

    #[test]
    fn an_administrator_of_a_part_is_none_of_the_whole() {
        let of = |fields| meaning(&fields).unwrap().principal.roles;
        let there = |is| json!({"project": project(), "is_admin_project": is});
        assert_eq!(of(there(true)), ["admin", "member"]);
        assert_eq!(of(there(false)), ["member"]);
        assert_eq!(
            of(json!({"domain": {"id": "d1", "name": "Other"}})),
            ["member"]
        );
        let own = json!({"project": project(), "roles": [{"name": "admin", "domain_id": "d1"}]});
        assert_eq!(of(own), Vec::<String>::new());
    }

    #[test]
    fn what_is_bound_or_not_understood_means_nothing() {
        let bound = json!({"project": project(), "oauth2_credential": {"x5t#S256": "abc"}});
        assert!(meaning(&bound).is_err());
        let mut strange = project();
        strange["id"] = json!("../p1");
        assert!(meaning(&json!({"project": strange})).is_err());
        assert!(meaning(&json!({"expires_at": "soon"})).is_err());
    }
}
