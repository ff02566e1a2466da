//! Who is calling, and what they may do: the one place where roles become permissions.
//!
//! A request is made by a [`Principal`]. Every operation names one [`Action`]. Policies in the IAM form
//! (version 1.1, `Allow` and `Deny`, wildcards; a `Deny` wins) tie roles to actions. A successful check
//! returns an [`Allowed`], which nothing else can make: functions that change or reveal something take
//! one, so that a missing check does not compile.
//!
//! A role is given in a project, or on an enterprise project in it. The latter permits only what spec 1 lets an
//! enterprise project permit, and only on its images: [`Access::authorize`] does not look at it, and
//! [`Access::authorize_within`] says in its [`Allowed`] how far the permission reaches.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codes::ImsCode;
use crate::error::{Error, Result};
use crate::id::{DomainId, EnterpriseProjectId, ProjectId, UserId};
use crate::image::{UnknownWord, word_enum};
use crate::time::Timestamp;
use std::fmt;
use std::str::FromStr;

word_enum! {
    /// Something that a principal may be permitted to do. The words are those of the spec's
    /// section 1; the last ones are this service's own.
    Action {
        /// Find images in lists.
        ImagesList = "ims:images:list",
        /// Read an image's record and bytes.
        ImagesGet = "ims:images:get",
        /// Make an image's record.
        ImagesCreate = "ims:images:create",
        /// Change an image's record, tags and state.
        ImagesUpdate = "ims:images:update",
        /// Delete an image.
        ImagesDelete = "ims:images:delete",
        /// Give an image its bytes.
        ImagesUpload = "ims:images:upload",
        /// Replicate an image.
        ImagesCopy = "ims:images:copy",
        /// Write an image into a bucket.
        ImagesExport = "ims:images:export",
        /// Share an image, and answer to being shared with.
        ImagesShare = "ims:images:share",
        /// Make an image from a server or a file; demanded beside copy where enterprise projects are in use.
        ServerImagesCreate = "ims:serverImages:create",
        /// Make data disk images from files.
        DataImagesCreate = "ims:dataImages:create",
        /// Make full-ECS images from servers and backups.
        WholeImagesCreate = "ims:wholeImages:create",
        /// See what the project may have and has.
        QuotasGet = "ims:quotas:get",
        /// Make an image public.
        ImagesPublish = "ims:images:publish",
        /// Act on every project's images.
        ImagesAdminister = "ims:images:administer",
        /// Make a master key.
        KeysCreate = "kms:cmk:create",
        /// Enable a master key.
        KeysEnable = "kms:cmk:enable",
        /// Disable a master key.
        KeysDisable = "kms:cmk:disable",
        /// Change a master key, schedule its deletion and cancel that.
        KeysUpdate = "kms:cmk:update",
        /// Find master keys in lists.
        KeysList = "kms:cmk:list",
        /// See what a master key is.
        KeysGet = "kms:cmk:get",
        /// Count master keys.
        KeysCount = "kms:cmk:getInstance",
        /// See how many master keys there may be.
        KeysQuota = "kms:cmk:getQuota",
        /// Have random bits made.
        RandomGenerate = "kms:cmk:generate",
        /// Have short texts encrypted and decrypted.
        DataCrypto = "kms:cmk:crypto",
        /// Have a master key rotated by itself.
        RotationEnable = "kms:cmk:enableRotation",
        /// Say how often a master key is rotated.
        RotationUpdate = "kms:cmk:updateRotation",
        /// Have a master key not rotated any more.
        RotationDisable = "kms:cmk:disableRotation",
        /// See how a master key is rotated.
        RotationGet = "kms:cmk:getRotation",
        /// Grant the use of a master key.
        GrantsCreate = "kms:grant:create",
        /// Take a grant away.
        GrantsRevoke = "kms:grant:revoke",
        /// Give a grant back.
        GrantsRetire = "kms:grant:retire",
        /// See the grants on a master key.
        GrantsList = "kms:grant:list",
        /// Find master keys by their tags.
        KeyTagsFind = "kms:cmkTag:listInstance",
        /// See the tags of master keys.
        KeyTagsList = "kms:cmkTag:list",
        /// Change several tags of a master key.
        KeyTagsBatch = "kms:cmkTag:batch",
        /// Add a tag to a master key.
        KeyTagsCreate = "kms:cmkTag:create",
        /// Remove a tag from a master key.
        KeyTagsDelete = "kms:cmkTag:delete",
        /// Have a data key made and wrapped under a customer's key (the key service's API).
        DataKeysSeal = "kms:dek:create",
        /// Have a data key unwrapped (the key service's API).
        DataKeysOpen = "kms:dek:crypto",
        /// Read and change users, projects, roles, access keys and enterprise projects.
        IdentityAdminister = "identity:*:administer",
        /// Run the service: verify, collect, read the audit trail.
        ServiceAdminister = "calotype:service:administer",
    }
}

/// A name and an id, as identity documents carry them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named<T> {
    /// The id.
    pub id: T,
    /// The name.
    pub name: String,
}

/// The project that a request acts in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectScope {
    /// The project.
    pub project: Named<ProjectId>,
    /// The domain that the project belongs to.
    pub domain: Named<DomainId>,
}

/// What a token or a signed request is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Work in one project.
    Project(ProjectScope),
    /// Work on one domain.
    Domain(Named<DomainId>),
    /// Work on the whole system.
    System,
    /// Only prove who is calling.
    Unscoped,
}

/// What a request was authenticated by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// A token, which ends then.
    Token(Timestamp),
    /// An access key that lasts until it is removed.
    AccessKey,
    /// A temporary access key, which ends then.
    TemporaryKey(Timestamp),
}

impl Credential {
    /// When it ends, where it does.
    pub const fn expires_at(self) -> Option<Timestamp> {
        match self {
            Self::Token(at) | Self::TemporaryKey(at) => Some(at),
            Self::AccessKey => None,
        }
    }
}

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user: Named<UserId>,
    /// The user's domain.
    pub user_domain: Named<DomainId>,
    /// What the credential is good for.
    pub scope: Scope,
    /// The names of the roles that the user has there.
    pub roles: Vec<String>,
    /// The names of the roles that the user has there on enterprise projects alone.
    pub enterprise_roles: BTreeMap<EnterpriseProjectId, Vec<String>>,
    /// What it was authenticated by.
    pub credential: Credential,
}

impl Principal {
    /// The project that the request acts in, if any.
    pub fn project(&self) -> Option<&ProjectId> {
        match &self.scope {
            Scope::Project(scope) => Some(&scope.project.id),
            _ => None,
        }
    }

    /// The project that the request acts in.
    ///
    /// # Errors
    /// Forbidden (IMG.0026) where the credential has no project.
    pub fn require_project(&self) -> Result<&ProjectId> {
        self.project().ok_or_else(|| {
            Error::forbidden("The request needs a credential that is scoped to a project.")
                .with_code(ImsCode::IMG_0026)
        })
    }
}

/// How far a permission reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every project's images.
    Everything,
    /// The images that the caller's project can see.
    Project,
    /// The project's own images in these enterprise projects. Never none.
    EnterpriseProjects(BTreeSet<EnterpriseProjectId>),
}

/// The proof that a principal may take an action. Only [`Access::authorize`] and [`Access::authorize_within`] make one.
#[derive(Debug, Clone)]
pub struct Allowed<'a> {
    principal: &'a Principal,
    action: Action,
    reach: Reach,
}

impl<'a> Allowed<'a> {
    /// Who may.
    pub fn principal(&self) -> &'a Principal {
        self.principal
    }

    /// What they may do.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Whether they may do it to every project's images.
    pub fn in_all_projects(&self) -> bool {
        self.reach == Reach::Everything
    }

    /// The enterprise projects to whose images the permission is confined, where it is.
    pub fn enterprise_projects(&self) -> Option<&BTreeSet<EnterpriseProjectId>> {
        match &self.reach {
            Reach::EnterpriseProjects(these) => Some(these),
            Reach::Everything | Reach::Project => None,
        }
    }

    /// Checks that the permission reaches images in this enterprise project.
    ///
    /// # Errors
    /// Forbidden (IMG.0026) where it does not.
    pub fn check_reaches(&self, id: EnterpriseProjectId) -> Result<()> {
        match self.enterprise_projects() {
            Some(these) if !these.contains(&id) => Err(Error::ims(ImsCode::IMG_0026)),
            _ => Ok(()),
        }
    }
}

/// A policy document in the IAM form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The form's version: `1.1`.
    #[serde(rename = "Version")]
    pub version: String,
    /// The statements. A `Deny` that matches wins over every `Allow`.
    #[serde(rename = "Statement")]
    pub statements: Vec<Statement>,
}

/// A statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// What the statement does to the actions that it matches.
    #[serde(rename = "Effect")]
    pub effect: Effect,
    /// Patterns of actions; `*` stands for any text within a part.
    #[serde(rename = "Action")]
    pub actions: Vec<String>,
}

/// What a statement does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Permits.
    Allow,
    /// Forbids, whatever else permits.
    Deny,
}

/// Which roles have which policies.
#[derive(Debug, Clone)]
pub struct Access {
    roles: BTreeMap<String, Policy>,
    enterprise_projects: bool,
}

impl Default for Access {
    fn default() -> Self {
        let policy = |statements: &[(Effect, &[&str])]| Policy {
            version: "1.1".to_owned(),
            statements: statements
                .iter()
                .map(|(effect, actions)| Statement {
                    effect: *effect,
                    actions: actions.iter().map(|action| (*action).to_owned()).collect(),
                })
                .collect(),
        };
        let administrator = policy(&[(Effect::Allow, &["*:*:*"])]);
        let image_user = policy(&[(
            Effect::Allow,
            &[
                "ims:*:list",
                "ims:*:get",
                "ims:*:create",
                "ims:*:update",
                "ims:*:delete",
                "ims:*:upload",
                "ims:*:copy",
                "ims:*:share",
                "ims:*:export",
            ],
        )]);
        let image_reader = policy(&[(Effect::Allow, &["ims:*:list", "ims:*:get"])]);
        let key_user = policy(&[(Effect::Allow, &["kms:*:*"])]);
        let mut user = image_user.clone();
        user.statements.extend(key_user.statements.clone());
        let key_reader = policy(&[(Effect::Allow, &["kms:*:list*", "kms:*:get*"])]);
        let mut reader = image_reader.clone();
        reader.statements.extend(key_reader.statements.clone());
        let roles = [
            ("admin", administrator),
            ("member", user.clone()),
            ("reader", reader.clone()),
            ("IMS Administrator", user.clone()),
            ("Server Administrator", user.clone()),
            ("Tenant Administrator", user),
            // As there: keys are another service's, with roles of its own.
            ("IMS FullAccess", image_user),
            ("IMS ReadOnlyAccess", image_reader),
            ("Tenant Guest", reader),
            ("KMS Administrator", key_user.clone()),
            ("KMS CMKFullAccess", key_user),
            ("KMS CMKReadOnlyAccess", key_reader),
        ];
        Self {
            roles: roles
                .into_iter()
                .map(|(name, policy)| (name.to_owned(), policy))
                .collect(),
            enterprise_projects: true,
        }
    }
}

impl Access {
    /// Gives `role` this policy, in place of any that it had.
    pub fn set_role(&mut self, role: impl Into<String>, policy: Policy) {
        self.roles.insert(role.into(), policy);
    }

    /// Whether enterprise projects are in use, so that a copy also needs `ims:serverImages:create`
    /// (spec 3.2, C20).
    pub fn uses_enterprise_projects(&self) -> bool {
        self.enterprise_projects
    }

    /// Checks that `principal` may take `action` in its whole project.
    ///
    /// # Errors
    /// Forbidden (IMG.0026) where it may not.
    pub fn authorize<'a>(&self, principal: &'a Principal, action: Action) -> Result<Allowed<'a>> {
        if !self.permits(principal, action) {
            return Err(Error::ims(ImsCode::IMG_0026));
        }
        let reach = match self.permits(principal, Action::ImagesAdminister) {
            true => Reach::Everything,
            false => Reach::Project,
        };
        Ok(Allowed {
            principal,
            action,
            reach,
        })
    }

    /// Checks that `principal` may take `action` in its whole project, or on some enterprise project's images: for the
    /// operations that spec 1 lets an enterprise project permit.
    ///
    /// # Errors
    /// Forbidden (IMG.0026) where it may not take it anywhere.
    pub fn authorize_within<'a>(
        &self,
        principal: &'a Principal,
        action: Action,
    ) -> Result<Allowed<'a>> {
        if self.permits(principal, action) {
            return self.authorize(principal, action);
        }
        let these: BTreeSet<EnterpriseProjectId> = principal
            .enterprise_roles
            .iter()
            // What is forbidden in the project is forbidden in all of it.
            .filter(|(_, roles)| self.roles_permit(principal.roles.iter().chain(*roles), action))
            .map(|(id, _)| *id)
            .collect();
        if these.is_empty() {
            return Err(Error::ims(ImsCode::IMG_0026));
        }
        Ok(Allowed {
            principal,
            action,
            reach: Reach::EnterpriseProjects(these),
        })
    }

    /// Whether `principal` may take `action` in its whole project.
    pub fn permits(&self, principal: &Principal, action: Action) -> bool {
        self.roles_permit(principal.roles.iter(), action)
    }

    fn roles_permit<'r>(&self, roles: impl Iterator<Item = &'r String>, action: Action) -> bool {
        let mut permitted = false;
        let policies = roles.filter_map(|role| self.roles.get(role));
        for statement in policies.flat_map(|policy| &policy.statements) {
            if statement.matches(action) {
                match statement.effect {
                    Effect::Deny => return false,
                    Effect::Allow => permitted = true,
                }
            }
        }
        permitted
    }
}

impl Statement {
    fn matches(&self, action: Action) -> bool {
        self.actions
            .iter()
            .any(|pattern| pattern_matches(pattern, action.as_str()))
    }
}

/// Compares part by part (`service:resource:verb`); `*` in a part stands for any text.
fn pattern_matches(pattern: &str, action: &str) -> bool {
    let mut patterns = pattern.split(':');
    let mut parts = action.split(':');
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if wildcard_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

fn wildcard_matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            let Some(rest) = text.strip_prefix(head) else {
                return false;
            };
            let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.any(|at| {
                rest.get(at..)
                    .is_some_and(|rest| wildcard_matches(tail, rest))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(roles: &[&str]) -> Principal {
        let domain = Named {
            id: "default".parse().unwrap(),
            name: "Default".to_owned(),
        };
        Principal {
            user: Named {
                id: "u1".parse().unwrap(),
                name: "u1".to_owned(),
            },
            user_domain: domain.clone(),
            scope: Scope::Project(ProjectScope {
                project: Named {
                    id: "p1".parse().unwrap(),
                    name: "p1".to_owned(),
                },
                domain,
            }),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            enterprise_roles: BTreeMap::new(),
            credential: Credential::AccessKey,
        }
    }

    fn group(n: u128) -> EnterpriseProjectId {
        EnterpriseProjectId::Id(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_role_on_an_enterprise_project_permits_there_alone_and_nothing_without_being_asked() {
        let access = Access::default();
        let mut caller = principal(&["IMS ReadOnlyAccess"]);
        let editor = vec!["IMS FullAccess".to_owned()];
        caller.enterprise_roles.insert(group(1), editor.clone());
        caller.enterprise_roles.insert(group(2), editor);
        caller
            .enterprise_roles
            .insert(group(3), vec!["Tenant Guest".to_owned()]);

        // What the whole project permits reaches all of it.
        let get = access.authorize_within(&caller, Action::ImagesGet).unwrap();
        assert_eq!(get.enterprise_projects(), None);
        assert!(get.check_reaches(group(9)).is_ok());

        let update = access.authorize_within(&caller, Action::ImagesUpdate);
        let update = update.unwrap();
        let two = BTreeSet::from([group(1), group(2)]);
        assert_eq!(update.enterprise_projects(), Some(&two));
        assert!(update.check_reaches(group(2)).is_ok());
        let elsewhere = update.check_reaches(group(3)).unwrap_err();
        assert_eq!(elsewhere.code(), Some(ImsCode::IMG_0026));
        assert!(update.check_reaches(EnterpriseProjectId::Default).is_err());
        assert!(!update.in_all_projects());

        let whole = access.authorize(&caller, Action::ImagesUpdate);
        assert_eq!(whole.unwrap_err().code(), Some(ImsCode::IMG_0026));
        let nowhere = access.authorize_within(&caller, Action::ImagesPublish);
        assert_eq!(nowhere.unwrap_err().code(), Some(ImsCode::IMG_0026));
    }

    #[test]
    fn an_administrator_of_an_enterprise_project_administers_it_alone() {
        let access = Access::default();
        let mut caller = principal(&[]);
        let admin = vec!["admin".to_owned()];
        caller.enterprise_roles.insert(group(1), admin);
        let allowed = access.authorize_within(&caller, Action::ImagesGet).unwrap();
        assert!(!allowed.in_all_projects());
        for action in [Action::IdentityAdminister, Action::ServiceAdminister] {
            assert!(!access.permits(&caller, action));
        }
    }

    #[test]
    fn what_the_project_denies_no_enterprise_project_permits() {
        let mut access = Access::default();
        let policy =
            r#"{"Version":"1.1","Statement":[{"Effect":"Deny","Action":["ims:images:delete"]}]}"#;
        access.set_role("no-delete", serde_json::from_str(policy).unwrap());
        let editor = || vec!["IMS FullAccess".to_owned()];
        let mut caller = principal(&["no-delete"]);
        caller.enterprise_roles.insert(group(1), editor());
        let refused = access.authorize_within(&caller, Action::ImagesDelete);
        assert_eq!(refused.unwrap_err().code(), Some(ImsCode::IMG_0026));

        // A Deny on an enterprise project takes what others permit on it, and nothing elsewhere.
        let mut caller = principal(&[]);
        let torn = [editor(), vec!["no-delete".to_owned()]].concat();
        caller.enterprise_roles.insert(group(1), torn);
        caller.enterprise_roles.insert(group(2), editor());
        let allowed = access.authorize_within(&caller, Action::ImagesDelete);
        let two = BTreeSet::from([group(2)]);
        assert_eq!(allowed.unwrap().enterprise_projects(), Some(&two));
    }

    #[test]
    fn each_built_in_role_may_do_what_its_name_says_and_no_more() {
        let access = Access::default();
        let may = |roles: &[&str]| -> Vec<&str> {
            let principal = principal(roles);
            let all = Action::ALL.iter().copied();
            all.filter(|action| access.permits(&principal, *action))
                .map(Action::as_str)
                .collect()
        };
        assert_eq!(may(&[]), Vec::<&str>::new());
        assert_eq!(may(&["nobody"]), Vec::<&str>::new());
        let images = ["ims:images:list", "ims:images:get", "ims:quotas:get"];
        let keys = [
            "kms:cmk:list",
            "kms:cmk:get",
            "kms:cmk:getInstance",
            "kms:cmk:getQuota",
            "kms:cmk:getRotation",
            "kms:grant:list",
            "kms:cmkTag:listInstance",
            "kms:cmkTag:list",
        ];
        assert_eq!(may(&["reader"]), [&images[..], &keys].concat());
        assert_eq!(may(&["IMS ReadOnlyAccess"]), images);
        assert_eq!(may(&["KMS CMKReadOnlyAccess"]), keys);
        let of_keys = may(&["KMS Administrator"]);
        assert!(of_keys.iter().all(|action| action.starts_with("kms:")));
        assert!(of_keys.contains(&"kms:cmk:create") && of_keys.contains(&"kms:dek:crypto"));
        assert_eq!(may(&["KMS CMKFullAccess"]), of_keys);
        assert_eq!(may(&["admin"]).len(), Action::ALL.len());
        let of_images = may(&["IMS FullAccess"]);
        assert!(of_images.contains(&"ims:images:copy"));
        assert!(of_images.iter().all(|action| action.starts_with("ims:")));
        let member = may(&["member"]);
        assert!(member.contains(&"ims:images:copy"));
        assert!(member.contains(&"ims:images:export"));
        // The roles and policies of spec section 10, and what they depend on there.
        for role in [
            "IMS Administrator",
            "Server Administrator",
            "Tenant Administrator",
        ] {
            assert_eq!(may(&[role]), member, "{role}");
        }
        assert_eq!(may(&["Tenant Guest"]), may(&["reader"]));
        for action in [
            "ims:images:publish",
            "ims:images:administer",
            "identity:*:administer",
            "calotype:service:administer",
        ] {
            assert!(!member.contains(&action), "{action}");
        }
    }

    #[test]
    fn a_deny_wins_over_every_allow() {
        let mut access = Access::default();
        let policy =
            r#"{"Version":"1.1","Statement":[{"Effect":"Deny","Action":["ims:images:del*"]}]}"#;
        access.set_role("no-delete", serde_json::from_str(policy).unwrap());
        assert!(
            access
                .authorize(&principal(&["admin"]), Action::ImagesDelete)
                .is_ok()
        );
        let both = principal(&["admin", "no-delete"]);
        let refused = access.authorize(&both, Action::ImagesDelete);
        assert_eq!(refused.unwrap_err().code(), Some(ImsCode::IMG_0026));
    }

    #[test]
    fn wildcards_stay_within_their_part() {
        assert!(pattern_matches("ims:*:get", "ims:images:get"));
        assert!(pattern_matches("ims:i*es:g*t", "ims:images:get"));
        assert!(!pattern_matches("ims:*", "ims:images:get"));
        assert!(!pattern_matches("*", "ims:images:get"));
        assert!(!pattern_matches("ims:images:get:more", "ims:images:get"));
    }
}
