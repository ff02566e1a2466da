//! Images from buckets, and into them, by command.

use calotype_tests::{Content, Digests, Server};

use crate::command::{FORMATS, Terminal, exit};

#[test]
fn images_are_imported_and_registered_by_command() {
    let server = Server::with_own_keys();
    let client = server.user();
    let object = server.put_object("disk.raw", Content::new(1, 300_000));
    let wanted = Digests::of(Content::new(1, 300_000));
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let key = user
            .ok(&["keys", "create", &format!("k-{format}")])
            .field("key_id");
        let import = |name: &str, kind: &str, more: &[&str]| {
            let mut words = vec!["image", "import", name, "--bucket-object", &object];
            words.extend(["--min-disk", "40", "--type", kind, "--wait"]);
            words.extend(more);
            let made = user.ok(&words);
            assert_eq!(made.field("status"), "SUCCESS");
            made.field("image_id")
        };
        let version = ["--os-version", "CentOS 7.2 64bit", "--tag", "env=dev"];
        let system = import("system", "ecs", &version);
        let data = import("data", "data", &["--key", &key]);
        let waiting = user
            .ok(&["image", "create", &format!("waiting-{format}")])
            .field("id");
        let register = [
            "image",
            "register",
            &waiting,
            "--bucket-object",
            &object,
            "--key",
            &key,
            "--wait",
        ];
        assert_eq!(user.ok(&register).field("status"), "SUCCESS");
        for image in [&system, &data, &waiting] {
            assert_eq!(client.download(image), wanted);
        }
        assert_eq!(client.show(&system)["__platform"], "CentOS");
        for image in [&data, &waiting] {
            assert_eq!(client.show(image)["__system__cmkid"], key);
        }
        let other = server.put_object("data.raw", Content::new(2, 200_000));
        let server_image = format!("server-{format}");
        let disk = format!("{other},min-disk=7,name=data-{format}");
        let words = [
            "image",
            "import",
            &server_image,
            "--bucket-object",
            &object,
            "--min-disk",
        ];
        let words = [&words[..], &["40", "--data-disk", &disk, "--wait"]].concat();
        assert_eq!(user.ok(&words).field("status"), "SUCCESS");
        for (name, min_disk) in [("server", 40), ("data", 7)] {
            let shown = user.ok(&["image", "show", &format!("{name}-{format}")]);
            assert_eq!(shown.field("min_disk"), min_disk.to_string());
        }
        let begun = user.ok(&[
            "image",
            "import",
            "later",
            "--bucket-object",
            &object,
            "--min-disk",
            "40",
        ]);
        assert_eq!(client.job(&begun.field("job_id")).status(), "SUCCESS");
        let nothing = [
            "image",
            "import",
            "never",
            "--bucket-object",
            "images:nothing",
            "--min-disk",
            "40",
        ];
        let said = user.fails(&nothing, exit::REFUSED);
        assert!(said.contains("IMG.0057"), "{said}");
    }
}

#[test]
fn images_are_exported_by_command() {
    let server = Server::with_defaults();
    let client = server.user();
    let image = client.image("disk", 1, 300_000);
    for format in FORMATS {
        let user = Terminal::new(&server, "calotype", format);
        let object = format!("images:{format}.vmdk");
        server.make_bucket("images");
        let words = ["image", "export", "disk", &object, "--format", "vmdk"];
        let made = user.ok(&[&words[..], &["--wait"]].concat());
        assert_eq!(made.field("status"), "SUCCESS");
        assert_eq!(made.field("image_id"), image);
        let written = std::fs::read(server.object(&format!("{format}.vmdk")));
        assert!(written.expect("the object").starts_with(b"KDMV"));
        let said = user.fails(&words, exit::REFUSED);
        assert!(said.contains("IMG.0070"), "{said}");
    }
}
