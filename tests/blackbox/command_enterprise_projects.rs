//! Enterprise projects, and roles on them, by command.

use calotype_tests::Server;

use crate::command::{FORMATS, Terminal, UNKNOWN, exit};

#[test]
fn enterprise_projects_are_administered_by_command() {
    let server = Server::with_defaults();
    let source = server.admin().image("source", 1, 1000);
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let made = admin.ok(&["admin", "enterprise-project", "create", format]);
        let id = made.field("id");
        let replica = format!("{format}-replica");
        let replicate = [
            "image",
            "replicate",
            &source,
            "--name",
            &replica,
            "--enterprise-project",
            &id,
            "--wait",
        ];
        admin
            .ok(&["admin", "enterprise-project", "disable", &id])
            .nothing();
        admin.fails(&replicate, exit::REFUSED);
        admin
            .ok(&["admin", "enterprise-project", "enable", &id])
            .nothing();
        admin.ok(&replicate);
        let shown = admin.ok(&["image", "show", &replica]);
        assert_eq!(shown.field("enterprise_project_id"), id);
        let listed = admin.ok(&["admin", "enterprise-project", "list"]);
        assert!(listed.list("name", format).1, "{}", listed.text);
        admin.fails(
            &["admin", "enterprise-project", "enable", UNKNOWN],
            exit::NOT_FOUND,
        );
    }
}

#[test]
fn roles_on_an_enterprise_project_are_given_shown_and_taken_by_command() {
    let server = Server::embedded();
    for format in FORMATS {
        let admin = Terminal::new(&server, "calotype-admin", format);
        let name = |kind: &str| format!("{format}-{kind}");
        let (project, user, group) = (name("project"), name("user"), name("group"));
        admin.ok(&["admin", "project", "create", &project]);
        admin.ok(&["admin", "user", "create", &user]);
        let made = admin.ok(&["admin", "enterprise-project", "create", &group]);
        let id = made.field("id");
        let in_project = ["--user", &user, "--project", &project];
        let list = ["admin", "role", "list"];
        // By its name, and by its id.
        for reference in [&group, &id] {
            let on = ["--enterprise-project", reference.as_str()];
            let target = [&in_project[..], &on].concat();
            for (verb, count) in [("grant", 1), ("revoke", 0)] {
                let command = ["admin", "role", verb, "reader"];
                admin.ok(&[&command[..], &target].concat()).nothing();
                let listed = admin.ok(&[&list[..], &target].concat());
                assert_eq!(listed.list("name", "reader").0, count, "{}", listed.text);
            }
            let again = ["admin", "role", "revoke", "reader"];
            admin.fails(&[&again[..], &target].concat(), exit::NOT_FOUND);
        }
        let listed = admin.ok(&[&list[..], &in_project].concat());
        assert_eq!(listed.list("", "").0, 0, "none is the whole project's");
        let on = ["--enterprise-project", UNKNOWN];
        let grant = ["admin", "role", "grant", "reader"];
        let unknown = [&grant[..], &in_project, &on].concat();
        admin.fails(&unknown, exit::NOT_FOUND);
    }
}
