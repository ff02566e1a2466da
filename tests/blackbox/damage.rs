//! Bytes that rot on the disk: never served, said of the images that have them, and forgotten once they are repaired.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use calotype_tests::{Client, Content, Digests, Server};
use reqwest::Method;
use serde_json::{Value, json};

const LENGTH: u64 = 3_000_000;

#[test]
fn damaged_bytes_are_not_served_and_their_images_say_so_until_they_are_repaired() {
    let server = Server::with_defaults();
    let (client, admin) = (server.user(), server.admin());
    let wanted = Digests::of(Content::new(1, LENGTH));
    let image = client.image("rots", 1, LENGTH);
    let replica = client.replicate(&image, "shares the bytes");
    let body = body(&server);
    for offset in [0, 70_000, LENGTH - 1] {
        flip(&body, offset);
        assert!(!is_served(&client, &replica), "a flip at {offset}");
        for id in [&image, &replica] {
            assert!(client.show(id)["calotype_damaged_at"].is_string());
            let refused = client
                .copy(id, json!({"name": "of damaged bytes"}))
                .expect(400);
            assert_eq!(refused.json()["error"]["code"], "IMG.0057", "{refused}");
        }

        flip(&body, offset);
        assert_eq!(client.download(&image), wanted, "it is whole again");
        admin.verify_rows();
        assert!(
            client.show(&image)["calotype_damaged_at"].is_string(),
            "not every byte was looked at"
        );
        admin.verify();
        for id in [&image, &replica] {
            assert_eq!(client.show(id)["calotype_damaged_at"], Value::Null);
        }
        let copied = client.replicate(&image, "of repaired bytes");
        assert_eq!(client.download(&copied), wanted);
        client.delete(&format!("/v2/images/{copied}")).expect(204);
    }
}

#[test]
fn the_verifier_marks_what_it_finds_damaged() {
    let server = Server::with_defaults();
    let (client, admin) = (server.user(), server.admin());
    let image = client.image("rots", 1, LENGTH);
    flip(&body(&server), LENGTH / 2);
    let report = admin.get("/admin/v1/verify").expect(200).json();
    assert_eq!(report["violations"], json!([]), "its pages are not opened");
    let report = admin.get("/admin/v1/verify?deep=true").expect(200).json();
    let violations = report["violations"].as_array().expect("a list");
    assert_eq!(violations.len(), 1, "{report}");
    assert_eq!(violations[0]["invariant"], 1, "{report}");
    assert!(client.show(&image)["calotype_damaged_at"].is_string());
}

/// Whether all of an image's bytes come.
pub(crate) fn is_served(client: &Client, image: &str) -> bool {
    let request = client.request(Method::GET, &format!("/v2/images/{image}/file"));
    let response = request.send().expect("an answer");
    response.status().is_success() && Digests::try_of(response).is_ok()
}

/// The one body in the store.
pub(crate) fn body(server: &Server) -> PathBuf {
    let list = |path: PathBuf| std::fs::read_dir(path).expect("the store").flatten();
    let prefixes = list(server.data().join("blobs").join("blobs"));
    let mut blobs = prefixes.flat_map(|prefix| list(prefix.path()));
    let blob = blobs.next().expect("a blob").path();
    assert!(blobs.next().is_none(), "one blob");
    blob.join("body")
}

pub(crate) fn flip(body: &PathBuf, offset: u64) {
    let file = File::options().read(true).write(true).open(body);
    let file = file.expect("the body");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).expect("written");
}
