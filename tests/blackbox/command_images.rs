//! Images of servers and disks, finding, and what the service says of itself, by command.

use calotype_tests::Server;
use calotype_tests::client::text;
use serde_json::json;

use crate::command::{FORMATS, Terminal, UNKNOWN, exit};

#[test]
fn a_capture_reaches_the_operation_that_its_flags_say() {
    let server = Server::with_defaults();
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        // There is no server, disk or backup here: each operation says so with the code of what it was asked for.
        for (flags, code) in [
            (&["--server", "s"][..], "IMG.0005"),
            (&["--server", "s", "--whole", "--vault", "v"], "IMG.0005"),
            (
                &["--volume", "v", "--os-version", "CentOS 7.2 64bit"],
                "IMG.0120",
            ),
            (&["--volume", "v", "--os-version", "Amiga"], "IMG.0056"),
            (
                &["--data-volume", "v", "--data-volume", "w,name=m"],
                "IMG.0120",
            ),
            (&["--backup", "b"], "IMG.0020"),
            (&["--backup", "b", "--backup-service", "csbs"], "IMG.0020"),
        ] {
            let words = [&["image", "capture", "n"], flags].concat();
            let said = user.fails(&words, exit::REFUSED);
            assert!(said.contains(code), "{flags:?}: {said}");
        }
    }
}

#[test]
fn images_are_found_by_their_tags() {
    let server = Server::with_defaults();
    let user = Terminal::new(&server, "calotype", "json");
    for (name, tags) in [
        ("one", &["env=dev", "team"][..]),
        ("two", &["env=test", "team"]),
        ("three", &["env=dev"]),
    ] {
        user.ok(&["image", "create", name]);
        user.ok(&[&["image", "tag", "add", name], tags].concat());
    }
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        for (tags, found) in [
            (&["env=dev"][..], &["one", "three"][..]),
            (&["env=dev", "team"], &["one"]),
            (&["env=dev", "env=test", "team"], &["one", "two"]),
            (&["env"], &["one", "two", "three"]),
            (&["env=prod"], &[]),
        ] {
            let words = [&["image", "tag", "find"], tags].concat();
            let printed = user.ok(&words);
            for name in ["one", "two", "three"] {
                let wanted = (found.len(), found.contains(&name));
                assert_eq!(printed.list("resource_name", name), wanted, "{tags:?}");
            }
        }
    }
}

#[test]
fn images_are_found_by_every_condition_on_tags_names_and_ids() {
    let server = Server::with_defaults();
    let client = server.user();
    let id = client.create("plain");
    let user = Terminal::new(&server, "calotype", "json");
    for (name, tags) in [
        ("one", &["env=dev", "team"][..]),
        ("two", &["env=test", "team"]),
        ("three", &["env=dev"]),
    ] {
        client.create(name);
        user.ok(&[&["image", "tag", "add", name], tags].concat());
    }
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        for (flags, found) in [
            (
                &["--any", "env=test", "--any", "team"][..],
                &["one", "two"][..],
            ),
            (
                &["--not", "env=dev", "--not", "team"],
                &["two", "three", "plain"],
            ),
            (
                &["--not-any", "env=test", "--not-any", "team"],
                &["three", "plain"],
            ),
            (&["env=dev", "--not", "team"], &["three"]),
            (&["--untagged"], &["plain"]),
            (&["--name", "ne"], &["one"]),
            (&["team", "--name", "o"], &["one", "two"]),
            (&["--id", &id], &["plain"]),
            (&["--id", UNKNOWN], &[]),
        ] {
            let printed = user.ok(&[&["image", "tag", "find"], flags].concat());
            for name in ["one", "two", "three", "plain"] {
                let wanted = (found.len(), found.contains(&name));
                assert_eq!(printed.list("resource_name", name), wanted, "{flags:?}");
            }
        }
    }
}

#[test]
fn images_are_listed_by_what_they_are() {
    let server = Server::with_defaults();
    let (admin, client) = (server.admin(), server.user());
    let other = admin.new_project("other", "member");
    let key = client.create_key("k");
    client.create_with(json!({
        "name": "system", "disk_format": "raw", "container_format": "bare", "protected": true,
        "min_disk": 2, "min_ram": 512, "__os_type": "Linux",
    }));
    client.create_with(json!({
        "name": "data", "disk_format": "vhd", "container_format": "ovf", "visibility": "private",
        "virtual_env_type": "DataImage",
    }));
    let plain = client.image("plain", 1, 1000);
    client.replicate_with(&plain, json!({"name": "sealed", "cmk_id": key}));
    let offered = other.image("offered", 2, 1000);
    let member = json!({"member": client.project()});
    other
        .post(&format!("/v2/images/{offered}/members"), member)
        .expect(200);
    let all = ["system", "data", "plain", "sealed"];
    let made = text(&client.show(&plain)["created_at"]);
    let (since, before) = (format!("gte:{made}"), format!("lt:{made}"));
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        for (flags, found) in [
            (&[][..], &all[..]),
            (&["--property", "__os_type=Linux"], &["system"]),
            (&["--property", "virtual_env_type=DataImage"], &["data"]),
            (&["--property", "__imagetype=private"], &["data", "sealed"]),
            (&["--owner", client.project()], &all),
            (&["--owner", other.project()], &[]),
            (
                &["--owner", other.project(), "--member-status", "pending"],
                &["offered"],
            ),
            (&["--protected"], &["system"]),
            (&["--unprotected"], &["data", "plain", "sealed"]),
            (&["--disk-format", "vhd"], &["data"]),
            (&["--container-format", "ovf"], &["data"]),
            (&["--min-disk", "2"], &["system"]),
            (&["--min-ram", "512"], &["system"]),
            (&["--key", &key], &["sealed"]),
            (&["--enterprise-project", "0"], &all),
            (&["--enterprise-project", UNKNOWN], &[]),
            (&["--name", "plain", "--created", &since], &["plain"]),
            (&["--name", "plain", "--created", &before], &[]),
            (
                &["--name", "plain", "--updated", &since, "--updated", &before],
                &[],
            ),
            (
                &["--sort", "name", "--ascending", "--limit", "1"],
                &["data"],
            ),
            (&["--sort", "name", "--limit", "1"], &["system"]),
        ] {
            let printed = user.ok(&[&["image", "list"], flags].concat());
            for name in ["system", "data", "plain", "sealed", "offered"] {
                let wanted = (found.len(), found.contains(&name));
                assert_eq!(printed.list("name", name), wanted, "{flags:?}");
            }
        }
        let refused = user.fails(&["image", "list", "--created", "soon"], exit::REFUSED);
        assert!(refused.contains("created_at"), "{refused}");
    }
}

#[test]
fn an_image_that_is_deactivated_is_not_downloaded_until_it_is_reactivated() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("disk", 1, 1000);
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        user.ok(&["image", "deactivate", &image]).nothing();
        let shown = user.ok(&["image", "show", &image]);
        assert_eq!(shown.field("status"), "deactivated");
        user.fails(&["image", "download", &image], exit::NOT_AUTHORISED);
        user.ok(&["image", "reactivate", &image]).nothing();
        let shown = user.ok(&["image", "show", &image]);
        assert_eq!(shown.field("status"), "active");
    }
}

#[test]
fn what_the_service_says_of_itself_is_shown() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("disk", 1, 1000);
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        for of in ["image", "images", "member", "members"] {
            let schema = user.ok(&["image", "schema", of]);
            assert_eq!(schema.field("name"), of);
        }
        assert!(user.ok(&["image", "versions"]).list("id", "v2.9").1);
        assert_eq!(user.ok(&["image", "stores"]).list("default", "true").0, 1);
        let events = user.ok(&["admin", "audit", "--limit", "2"]);
        assert_eq!(events.list("resource_id", &image), (2, true));
        let before = ["admin", "audit", "--before", "1"];
        assert_eq!(user.ok(&before).list("resource_id", &image).0, 0);
        let words = ["image", "members", &image, "--project", UNKNOWN];
        user.fails(&words, exit::NOT_FOUND);
    }
}

#[test]
fn a_replica_elsewhere_is_refused_as_the_service_says_it() {
    let server = Server::with_defaults();
    let image = server.user().image("disk", 1, 1000);
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let words = ["image", "replicate", &image, "--name", "m"];
        let there = ["--region", "r", "--project-name", "p", "--agency", "a"];
        let said = user.fails(&[&words[..], &there].concat(), exit::REFUSED);
        assert!(said.contains("IMG.0105"), "{said}");
    }
}
