//! The commands `keys` and `admin root-key`, as tables and as JSON, with their exit codes.

use calotype_tests::{Server, until};

use crate::command::{FORMATS, Terminal, exit};

const UNKNOWN: &str = "11111111-2222-4333-8444-555555555555";

#[test]
fn keys_are_made_changed_and_deleted_by_command() {
    let server = Server::with_own_keys();
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let alias = format!("key/{format}");
        let made = user.ok(&["keys", "create", &alias, "--description", "for tests"]);
        let id = made.field("key_id");
        assert_eq!(made.field("key_description"), "for tests");
        let (enabled, disabled, pending) = if format == "json" {
            ("2", "3", "4")
        } else {
            ("enabled", "disabled", "pending-deletion")
        };
        let state = |key: &str| user.ok(&["keys", "show", key]).field("key_state");
        assert_eq!(made.field("key_state"), enabled);
        user.fails(&["keys", "create", &alias], exit::REFUSED);
        let (_, listed) = user.ok(&["keys", "list"]).list("key_id", &id);
        assert!(listed);
        for (command, by, wanted) in [
            ("disable", alias.as_str(), disabled),
            ("enable", id.as_str(), enabled),
        ] {
            user.ok(&["keys", command, by]).nothing();
            assert_eq!(state(&alias), wanted);
            user.fails(&["keys", command, by], exit::REFUSED);
        }
        user.ok(&["keys", "rotate", &alias]).nothing();
        user.ok(&["keys", "schedule-deletion", &alias, "--days", "7"])
            .nothing();
        assert_eq!(state(&id), pending);
        let of_state = |state: &str| user.ok(&["keys", "list", "--state", state]);
        assert!(of_state("pending-deletion").list("key_id", &id).1);
        assert!(!of_state("enabled").list("key_id", &id).1);
        let refused = user.fails(&["keys", "rotate", &id], exit::REFUSED);
        assert!(refused.contains("KMS.0210"), "{refused}");
        user.ok(&["keys", "cancel-deletion", &id]).nothing();
        assert_eq!(state(&id), disabled);
        for missing in [UNKNOWN, "no-such-alias"] {
            user.fails(&["keys", "show", missing], exit::NOT_FOUND);
        }
        user.fails(&["keys", "show", "no such alias"], exit::REFUSED);
        user.fails(&["keys", "create", "no alias"], exit::REFUSED);
    }
}

#[test]
fn keys_are_granted_by_command() {
    let server = Server::with_own_keys();
    let other = server.admin().new_project("other", "member");
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let alias = format!("k-{format}");
        let key = user.ok(&["keys", "create", &alias]).field("key_id");
        assert_eq!(
            other
                .kms("describe-key", serde_json::json!({"key_id": key}))
                .status,
            403
        );
        let granted = user.ok(&[
            "keys",
            "grant",
            &alias,
            "--user",
            other.user(),
            "--operation",
            "describe-key",
            "--operation",
            "decrypt-datakey",
            "--name",
            "g",
        ]);
        let grant = granted.field("grant_id");
        assert_eq!(other.describe_key(&key)["key_alias"], alias);
        let listed = user.ok(&["keys", "grants", &alias]);
        assert_eq!(listed.list("grant_id", &grant), (1, true));
        let domain = [
            "keys",
            "grant",
            &alias,
            "--domain",
            "default",
            "--operation",
            "describe-key",
        ];
        user.ok(&domain);
        assert_eq!(
            user.ok(&["keys", "grants", &key])
                .list("grant_id", &grant)
                .0,
            2
        );
        user.ok(&["keys", "revoke-grant", &alias, &grant]).nothing();
        user.fails(&["keys", "revoke-grant", &alias, &grant], exit::REFUSED);
        let admin = Terminal::new(&server, "calotype-admin", format);
        admin.fails(&["keys", "disable", &key], exit::NOT_AUTHORISED);
    }
}

#[test]
fn root_keys_are_rotated_and_retired_by_command() {
    let server = Server::embedded();
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let before = admin.ok(&["admin", "root-key", "status"]).text;
        let rotated = admin.ok(&["admin", "root-key", "rotate"]).text;
        assert_ne!(before, rotated);
        until("everything to be rewrapped", || {
            let client = server.admin();
            let retired = client.post("/admin/v1/root-key/retire", serde_json::Value::Null);
            (retired.status == 200).then_some(())
        });
        let retired = admin.ok(&["admin", "root-key", "retire"]).text;
        assert_eq!(admin.ok(&["admin", "root-key", "status"]).text, retired);
        let user = Terminal::new(&server, "calotype", format);
        user.fails(&["admin", "root-key", "status"], exit::NOT_AUTHORISED);
    }
    let file = std::fs::read_to_string(server.data().join("root.key")).expect("the root keys");
    assert_eq!(file.lines().count(), 1);
}
